"""Probe what isolation this machine gives, then test it: solutions must pass, hostile programs must be contained.

The exit code is 0 if all is well, 1 if anything got through, 2 if there is no isolation (then nothing is run).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ra3kit.cli.verify import add_isolation
from ra3kit.errors import DataError, nearest
from ra3kit.progress import track
from ra3kit.verify.isolation import has_bubblewrap
from ra3kit.verify.selftest import Report, attacks_by_category, programs, selftest

EXAMPLES = """examples:
  ra3kit doctor
  ra3kit doctor --only forging          # attacks by category or by part of their name
  ra3kit doctor --no-namespaces         # as in a container that denies them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which walls, which attacks, and where the findings go."""
    parser.add_argument("--only", metavar="TEXT", help="attacks whose name or category has this in it")
    parser.add_argument("--workers", type=int, metavar="N", help="programs at a time (default: processors)")
    parser.add_argument("--json", metavar="FILE", help="also write the findings here")
    add_isolation(parser)


def run(args: argparse.Namespace) -> int:
    """Probe, test, report.

    Raises:
        NoSandbox: no isolation holds here; nothing was run. DataError: an option that cannot be served.
    """
    if args.unsandboxed:
        raise DataError("--unsandboxed: there is nothing to test without walls, and hostile programs would run free.")
    if args.workers is not None and args.workers < 1:
        raise DataError(f"--workers {args.workers}: at least 1")
    if args.json and Path(args.json).exists():
        raise DataError(f"--json {args.json}: exists already. Nothing is overwritten; choose a new name.")
    from ra3kit.evaluation.embedded import load

    if not attacks_by_category(args.only):
        categories = sorted(attacks_by_category())
        raise DataError(
            f"--only {args.only!r}: no attack has this in its name or category.{nearest(args.only, categories)} "
            f"Categories: {', '.join(categories)}."
        )
    solutions = [(problem.solution or "", problem) for problem in load()]
    with track(len(solutions) + programs(args.only), "self-test") as advance:
        report = selftest(solutions, args.isolation, not args.no_namespaces, args.workers, args.only, advance)
    print("\n".join(lines(report)))
    if args.json:
        Path(args.json).write_text(json.dumps({**asdict(report), "holds": report.holds}, indent=1), encoding="utf-8")
        print(f"{'findings':<20} {args.json}")
    print(f"{'next':<20} ra3kit eval --help" if report.holds else f"{'next':<20} do not run untrusted code here")
    return 0 if report.holds else 1


def lines(report: Report) -> list[str]:
    """What a person reads."""
    attacks = sum(report.attacks.values())
    seen = [name for name in report.limits if not name.startswith("honest/")]
    contained = attacks - len(report.lost) - len(seen)
    passed = report.solutions - len(report.rejected) - (len(report.limits) - len(seen))
    rows = {
        "machine": f"{platform.machine()}, kernel {platform.release()}, user {os.getuid()}",
        **_walls(report.walls),
        "isolation": report.label,
        "solutions": f"{passed} of {report.solutions} pass",
        "hostile programs": f"{contained} of {attacks} contained ({_by_category(report)})",
        "left behind": f"{len(report.left_behind)} processes, files, pieces of shared memory",
        "time": f"{report.seconds:.0f} s",
    }
    found = [f"{key:<20} {value}" for key, value in rows.items()]
    found += [f"REJECTED  {name}: {_last_line(why)}" for name, why in report.rejected.items()]
    found += [f"LOST      {name}: {_last_line(why)}" for name, why in report.lost.items()]
    found += [f"LIMIT     {name}: {why}" for name, why in report.limits.items()]
    found += [f"LEFT      {what}" for what in report.left_behind]
    found.append(
        "The sandbox holds." if report.holds else "The sandbox does NOT hold: please report what you see here."
    )
    return found


def _walls(walls: dict[str, Any]) -> dict[str, str]:
    uid = f"yes, {walls['uid']}" if walls["uid"] is not None else "no (not root, or it could not read Python's files)"
    return {
        "Landlock": f"{walls['landlock']}, version {walls.get('landlock version', 0)}"
        if walls["landlock"] == "yes"
        else walls["landlock"],
        "seccomp": walls["seccomp"],
        "namespaces": walls["namespaces"],
        "own user id": uid,
        "threads": {
            "counted": "limited by the kernel",
            "watched": "limited by the server, which looks now and then",
            "denied": "can't be counted here, so denied to programs",
        }[walls["threads"]],
        "bubblewrap": "installed" if has_bubblewrap() else "not installed; needed only without Landlock",
    }


def _by_category(report: Report) -> str:
    return ", ".join(f"{count} {category}" for category, count in sorted(report.attacks.items()))


def _last_line(text: str) -> str:
    """Of a traceback, what it says."""
    return text.strip().splitlines()[-1] if text.strip() else text
