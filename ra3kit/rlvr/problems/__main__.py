"""The account of training sets: `python -m ra3kit.rlvr.problems PATH ...`, files, folders or names."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ra3kit.errors import RA3Error
from ra3kit.rlvr.problems.read import read
from ra3kit.rlvr.problems.rows import files_of


def main(arguments: list[str] | None = None) -> int:
    """Print what became of every record of each file; 2 where a file cannot be read."""
    parser = argparse.ArgumentParser("python -m ra3kit.rlvr.problems", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--against", nargs="*", help="folders with evaluation sets; default: RA3KIT_DATA")
    parser.add_argument("--force", action="store_true", help="let evaluation data through")
    given = parser.parse_args(arguments)
    try:
        for path in given.paths:
            for file in files_of(Path(path)) if Path(path).exists() else [path]:
                print(read(str(file), force=given.force, against=given.against).account(), flush=True)
    except RA3Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
