"""Curves of one run or of several in one picture, with a table: for the terminal, as Markdown, and as one HTML file.

RUN is a run folder, also of a run that is still going on, or a folder of run folders. Runs of one name that differ in
nothing but seeds are joined into one curve with a 95 % t-interval. Of a single run that annotated a corpus (RA3, BRiTE)
the report also says which thoughts paid, which intents are frequent, and how far they reach.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ra3kit.errors import RunError

if TYPE_CHECKING:
    from ra3kit.reports.document import Table
    from ra3kit.reports.runs import Arm
    from ra3kit.reports.several import Report

EXAMPLES = """examples:
  ra3kit report runs/tiny-ra3/001
  ra3kit report runs/rlvr-from-ntp runs/rlvr-from-ra3          # all runs in each; seeds are joined
  ra3kit report runs/rlvr --tags 'rlvr/reward*' 'eval/*/pass@1' --x seconds --smooth 20
  ra3kit report runs/rlvr --group model.beta --out reports/beta
  ra3kit report runs/tiny-ra3/001 --snippets 256 --gamma 0.95  # more thoughts weighed, another discount per line
  ra3kit report runs/tiny-ra3/001 --snippets 0                 # none: the trained model is not loaded
"""

NAME = 60
"""Characters of the name of a folder below reports/."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs, what to show of them, and where to."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run folder, or a folder of run folders")
    parser.add_argument("--tags", metavar="GLOB", nargs="+", help="curves to show (default: those of the runs' stage)")
    parser.add_argument("--x", choices=("step", "seconds"), default="step", help="horizontal axis (default: step)")
    parser.add_argument(
        "--smooth", metavar="N", type=int, default=10, help="running mean over N steps, 1 for none (default: 10)"
    )
    parser.add_argument(
        "--threshold", metavar="V", type=float, default=0.5, help="of rewards and pass rates: when? (default: 0.5)"
    )
    parser.add_argument(
        "--snippets", metavar="N", type=int, default=64, help="annotated snippets to weigh, 0 for none (default: 64)"
    )
    parser.add_argument(
        "--gamma", metavar="G", type=float, default=0.99, help="discount per line, for the horizon (default: 0.99)"
    )
    parser.add_argument(
        "--group", metavar="KEY", nargs="+", help="join runs with equal values of these settings, whatever else differs"
    )
    parser.add_argument("--no-join", action="store_true", help="a curve for each run")
    parser.add_argument("--out", metavar="FOLDER", help="a new folder (default: RUN/report, of several reports/NAME)")


def run(args: argparse.Namespace) -> int:
    """Read, draw, write, print.

    Raises:
        RA3Error: runs that cannot be read, a tag or setting that there is not, or a folder that is not empty.
    """
    from ra3kit.ranges import check_number
    from ra3kit.reports.document import as_html, as_markdown, can_draw
    from ra3kit.reports.panels import draw
    from ra3kit.reports.runs import find_runs, join, read_run
    from ra3kit.reports.several import MARKDOWN, PAGE, PICTURE, View, report_of

    check_number("--smooth", args.smooth, least=1, whole=True, error=RunError)
    check_number("--threshold", args.threshold, error=RunError)
    check_number("--snippets", args.snippets, least=0, whole=True, error=RunError)
    check_number("--gamma", args.gamma, above=0, below=1, error=RunError)
    if args.group and args.no_join:
        raise RunError("--group joins runs and --no-join does not; give one of them.")
    if args.out is not None:
        _check_new(Path(args.out))
    folders, left_out = find_runs(args.runs)
    arms = join([read_run(folder) for folder in folders], args.group, not args.no_join)
    view = View(args.tags, args.smooth, args.threshold, args.snippets, args.gamma)
    report = report_of(arms, view, _command(), left_out)
    folder = _new_folder(args.out, folders, arms)
    if can_draw():
        draw(folder / PICTURE, report.lines, arms, args.x)
        _draw_thoughts(folder, report, arms, args.gamma)
    (folder / MARKDOWN).write_text(as_markdown(report.sections), encoding="utf-8")
    (folder / PAGE).write_text(as_html(report.sections, folder), encoding="utf-8")
    _record(folder, arms)
    print("\n".join([*_shown(report, args.gamma), *_where_next(folder, arms)]))
    return 0


def _draw_thoughts(folder: Path, report: Report, arms: Sequence[Arm], gamma: float) -> None:
    if report.thoughts is None or not report.thoughts.options:
        return
    from ra3kit.reports.thoughts_picture import draw_thoughts
    from ra3kit.reports.thoughts_sections import PICTURE

    draw_thoughts(folder / PICTURE, report.thoughts, arms[0].runs[0].curves, gamma)


def _command() -> str:
    from ra3kit.provenance import redacted

    return shlex.join(["ra3kit", *map(redacted, sys.argv[1:])])


# --- where to --------------------------------------------------------------------------------------------------------


def _check_new(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"--out {folder}: this folder is not empty. Nothing is overwritten; choose a new one.")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out {folder}: this is a file. Nothing is overwritten; choose a new folder.")


def _new_folder(out: str | None, folders: Sequence[Path], arms: Sequence[Arm]) -> Path:
    """Create the folder: `out`, or the default with the first free number behind it."""
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    default = folders[0] / "report" if len(folders) == 1 else Path("reports") / _name(arms)
    number = 1
    while True:
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def _name(arms: Sequence[Arm]) -> str:
    """A folder's name for these arms."""
    first, *others = [re.sub(r"[^\w.+=-]+", "-", arm.label).strip("-.") or "runs" for arm in arms]
    full = "-vs-".join([first, *others])
    return full if len(full) <= NAME else f"{first[:NAME]}-and-{len(others)}-more"


def _record(folder: Path, arms: Sequence[Arm]) -> None:
    """A report in the folder of a run is one of its artefacts. A run that goes on records it itself."""
    from ra3kit.provenance import record

    for arm in arms:
        for run in arm.runs:
            inside = folder.resolve().is_relative_to(run.folder.resolve())
            if inside and run.starts and run.starts[-1]["finished"] is not None:
                record(run.folder, folder, "report", "ra3kit report")


# --- for the terminal ------------------------------------------------------------------------------------------------


def _shown(report: Report, gamma: float) -> list[str]:
    lines = []
    for tag, table in report.tables.items():
        lines += [tag, *_aligned(table), ""]
    if report.thoughts is not None:
        from ra3kit.reports.thoughts_sections import terminal_lines

        lines += terminal_lines(report.thoughts, gamma)
    lines += [f"warning: {note}" for note in report.notes]
    return [*lines, *([""] if report.notes else [])]


def _aligned(table: Table) -> list[str]:
    widths = [max(len(row[i]) for row in table.rows) for i in range(len(table.rows[0]))]
    return [
        f"  {row[0]:<{widths[0]}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in table.rows
    ]


def _where_next(folder: Path, arms: Sequence[Arm]) -> list[str]:
    from ra3kit.reports.several import PAGE

    lines = [f"{'results':<11} {folder / PAGE}"]
    lone = [arm.runs[0] for arm in arms if len(arm.runs) == 1 and isinstance(arm.runs[0].seed, int)]
    last = arms[-1].runs[-1].folder
    if lone:
        recipe = shlex.quote(str(lone[0].folder / "recipe.yaml"))
        following = f"ra3kit fit --recipe {recipe} run.seed={lone[0].seed + 1}    # one seed says nothing about others"
    elif (last / "model").is_dir():
        following = f"ra3kit eval --model {shlex.quote(str(last))} --benchmark ra3kit"
    else:
        following = f"tensorboard --logdir {shlex.quote(str(last.parent))}"
    return [*lines, f"{'next':<11} {following}"]
