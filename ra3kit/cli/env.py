"""Print what a bug report needs: versions, commit, machine and its limits, GPUs, extras, the sandbox, free disk.

Nothing private is in it: of the environment variables only those that change how a run computes are shown. What can't
be found out is reported as unknown, with the reason. `ra3kit doctor` tests the sandbox itself.
"""

from __future__ import annotations

import argparse
import json

from ra3kit.environment import environment, lines

EXAMPLES = """examples:
  ra3kit env
  ra3kit env --json > env.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """As text or as JSON."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Probe and print."""
    found = environment()
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines(found)))
    return 0
