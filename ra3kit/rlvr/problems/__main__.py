"""The account of training sets: `python -m ra3kit.rlvr.problems PATH ...`, files, folders or names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ra3kit.errors import DataError, RA3Error
from ra3kit.ranges import check_number
from ra3kit.rlvr.problems.gold import verify_gold
from ra3kit.rlvr.problems.read import read
from ra3kit.rlvr.problems.rows import files_of
from ra3kit.verify.problem import Problem


def main(arguments: list[str] | None = None) -> int:
    """Print what became of every record of each file, and whether solutions pass; 2 where a file cannot be read."""
    parser = argparse.ArgumentParser("python -m ra3kit.rlvr.problems", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--against", nargs="*", help="folders with evaluation sets; default: RA3KIT_DATA")
    parser.add_argument("--force", action="store_true", help="let evaluation data through")
    parser.add_argument("--verify-gold", action="store_true", help="run the solutions that come with problems")
    parser.add_argument("--limit", type=int, metavar="N", help="of each file, verify N problems, evenly taken")
    given = parser.parse_args(arguments)
    try:
        check_number("--limit", given.limit, least=1, whole=True, optional=True, error=DataError)
        for path in given.paths:
            for file in files_of(Path(path)) if Path(path).exists() else [path]:
                found = read(str(file), force=given.force, against=given.against)
                print(found.account(), flush=True)
                if given.verify_gold:
                    print("\n".join(verify_gold(evenly(found.problems, given.limit)).lines()), flush=True)
    except RA3Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evenly(problems: Sequence[Problem], most: int | None) -> list[Problem]:
    """At most so many, evenly taken, in their order."""
    count = len(problems) if most is None else min(most, len(problems))
    return [problems[i * len(problems) // count] for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
