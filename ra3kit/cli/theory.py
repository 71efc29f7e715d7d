"""Measure the paper's theorems on small problems that are solved exactly: does what they claim hold, and how tightly?

Four tables, pictures and a report: (a) expert samples that prune bad options, (b) value iteration over options that
last, (c) the regret decomposition, (d) where the bounds are loose. Under a minute on one core; no model, no data. The
same seed gives the same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from ra3kit import __version__
from ra3kit.errors import RunError
from ra3kit.progress import track
from ra3kit.ranges import check_number

EXAMPLES = """examples:
  ra3kit theory
  ra3kit theory --quick                 # a look in a few seconds
  ra3kit theory --seed 1 --out runs/theory/seed-1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Seed, place, size."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="a new folder (default: runs/theory/NNN)")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases")


def run(args: argparse.Namespace) -> int:
    """Run the experiments, print their tables, write the report.

    Raises:
        RunError: the folder holds something already, or the seed is no number from 0.
    """
    check_number("--seed", args.seed, least=0, whole=True, error=RunError)
    folder = _folder(args.out)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded: the systems are too small to share

    import numpy as np

    from ra3kit.reports.document import NO_PICTURE, as_html, as_markdown
    from ra3kit.theory import figures, lab, report
    from ra3kit.theory.findings import FULL, QUICK

    size = QUICK if args.quick else FULL
    print(f"theory: seed {args.seed}, {'quick' if args.quick else 'full'} size, into {folder}", flush=True)
    with track(lab.units(size), "theory") as advance:
        found = lab.run(args.seed, size, advance)
    versions = {"ra3kit": __version__, "numpy": np.__version__, "Python": platform.python_version()}
    results = {"seed": args.seed, "quick": args.quick, "versions": versions, **found}
    (folder / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    pictures = figures.draw(results, folder)
    sections = report.sections(results, pictures)
    (folder / "theory.md").write_text(as_markdown(sections), encoding="utf-8")
    (folder / "theory.html").write_text(as_html(sections, folder), encoding="utf-8")
    print("\n".join(report.terminal(results)))
    print(f"\n{report.verdict(results)}")
    if not pictures:
        print(NO_PICTURE)
    print(f"Everything is in {folder}. Next: open {folder / 'theory.html'}; what it means: docs/theory.md")
    return 0


def _folder(out: str | None) -> Path:
    """Make the folder of this run: the one asked for, which must be new or empty, or the next number."""
    if out is not None:
        folder = Path(out).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"--out {out}: exists already. Nothing is overwritten; choose a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    parent = Path("runs") / "theory"
    while True:
        taken = [int(path.name) for path in parent.glob("*") if path.name.isdigit()]
        folder = parent / f"{max(taken, default=0) + 1:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another run took it at this very moment
            continue
        return folder
