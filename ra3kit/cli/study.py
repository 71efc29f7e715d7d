"""The study of the paper's claims at CPU scale: every arm on every seed, compared seed by seed, with a report.

Every arm is a run of `ra3kit fit` in a process of its own; its result is written as it comes. A study that was
interrupted goes on with --resume, an arm that was under way from its newest checkpoint. See docs/study.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ra3kit.errors import RunError

JOBS = 2
"""A laptop has as many cores."""
EXAMPLES = """examples:
  ra3kit study --preset quick                       # a smoke run: about 10 minutes on 2 cores
  ra3kit study --preset full                        # about 3 hours on 2 cores
  ra3kit study --preset full --resume               # go on
  ra3kit study --preset full --jobs 8               # on 8 cores
  ra3kit study --preset full --out runs/study/dev --val --arms base ntp ra3 --seeds 101 102
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which study, where to, and which part of it."""
    parser.add_argument("--preset", metavar="NAME", default="quick", help="quick or full (default: quick)")
    parser.add_argument("--out", metavar="FOLDER", help="folder of the study (default: runs/study/PRESET)")
    parser.add_argument("--resume", action="store_true", help="go on with the study in that folder")
    parser.add_argument("--arms", metavar="ARM", nargs="+", help="these arms, and those they need (default: all)")
    parser.add_argument("--seeds", metavar="N", nargs="+", type=int, help="these worlds (default: the preset's)")
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=JOBS, help=f"processes at a time, of one thread each (default: {JOBS})"
    )
    parser.add_argument("--val", action="store_true", help="score on the val tasks: for trying things out")
    parser.add_argument("--bases", metavar="FOLDER", help="where base models are kept (default: bases beside FOLDER)")


def run(args: argparse.Namespace) -> int:
    """Run what is left to do, and say where the report is.

    Raises:
        RA3Error: no such preset or arm, a folder that holds something else, or an arm that failed.
    """
    from ra3kit.ranges import check_number
    from ra3kit.study.regime import preset_of
    from ra3kit.study.report import HTML
    from ra3kit.study.run import Clock, begin, developing, words

    check_number("--jobs", args.jobs, least=1, whole=True, error=RunError)
    preset = preset_of(args.preset)
    if args.val:
        preset = developing(preset)
    folder = Path(args.out or Path("runs") / "study" / preset.name)
    bases = None if args.bases is None else Path(args.bases)
    study = begin(folder, preset, args.arms, args.seeds, args.resume, bases, args.jobs)
    left = study.tasks()
    minutes = Clock(args.jobs, preset.pace).left(left)
    print(f"{'study':<11} {preset.name}: {preset.about}")
    arms, seeds = study.now
    print(f"{'arms':<11} {', '.join(arm.name for arm in arms)}")
    print(f"{'seeds':<11} {', '.join(map(str, seeds))}")
    print(f"{'folder':<11} {folder}")
    print(f"{'to do':<11} {len(left)} pieces of work, about {words(minutes)}", flush=True)
    try:
        study.run()
    except KeyboardInterrupt:
        again = " ".join(["ra3kit", *map(shlex.quote, sys.argv[1:]), *([] if args.resume else ["--resume"])])
        print(f"What is done stays done. Go on: {again}", file=sys.stderr)
        raise
    print(f"{'results':<11} {folder / HTML}")
    print(f"{'next':<11} {next_command(folder, preset.smoke)}")
    return 0


def next_command(folder: Path, smoke: bool) -> str:
    """What to run when a study is done."""
    if smoke:
        return "ra3kit study --preset full    # hours; it can be stopped and goes on with --resume"
    return f"tensorboard --logdir {shlex.quote(str(folder))}"
