"""The command line: a front door that knows the verbs by name and imports one only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ra3kit import __version__
from ra3kit.errors import RA3Error, nearest

VERBS = {
    "fit": "train a recipe",
    "eval": "measure pass@k of a model on a benchmark",
    "verify": "judge programs in the sandbox",
    "doctor": "probe the sandbox and test it with hostile programs",
    "ls": "list the recipes",
    "show": "print a recipe as it will be run",
    "cp": "copy a recipe, to own and change it",
    "compare": "tell whether evaluations really differ",
    "env": "print what a bug report needs",
}
"""Verb -> what it does. Each lives in `ra3kit/cli/<verb>.py` with `EXAMPLES`, `add_arguments` and `run`."""

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 on success, 2 when something asked for cannot be done (the reason is on stderr).
    """
    # before torch is loaded: by default a CPU thread that waits for another spins, which stalls training on a machine
    # that is busy with anything else
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except RA3Error as error:
        if "--debug" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # the reader went away, as in `ra3kit show tiny-ra3 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"ra3kit {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise RA3Error(f"No verb {verb!r}.{nearest(verb, VERBS)} Verbs: {', '.join(VERBS)}.")
    module = importlib.import_module(f"ra3kit.cli.{verb}")
    parser = _Parser(
        prog=f"ra3kit {verb}",
        description=module.__doc__,
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return int(module.run(parser.parse_intermixed_args(rest)))


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return f"""usage: ra3kit VERB ...

The Lightning-based experiment kit for RA3, Reasoning as Action Abstractions.

verbs:
{verbs}

examples:
  ra3kit ls
  ra3kit fit --recipe quickstart
  ra3kit fit --help"""


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are ours: one line, and a hint for overrides written as options."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        _, found, options = message.partition("unrecognized arguments: ")
        if found and options.startswith("--") and "." in options.split("=")[0]:
            hint = f" Overrides are written without dashes: {options.lstrip('-').replace(' ', '=', 1)}"
        raise RA3Error(f"{message}.{hint} See: {self.prog} --help")
