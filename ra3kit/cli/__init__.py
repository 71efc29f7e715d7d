"""The command line: a front door that knows the verbs by name and imports one only when it is asked for."""

from __future__ import annotations

import argparse
import errno
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
    "annotate": "print code with the thoughts a model writes into it, and their gains",
    "export": "write a run as an ordinary Hugging Face folder with a model card",
    "explain": "show a component: its arguments, what they mean, YAML to paste",
    "cp": "copy a recipe, to own and change it",
    "compare": "tell whether evaluations really differ",
    "report": "draw the curves of runs in one picture, with a table",
    "theory": "measure the theorems of the paper on problems solved exactly",
    "study": "test the paper's claims at CPU scale, arm by arm",
    "env": "print what a bug report needs",
}
"""Verb -> what it does. Each lives in `ra3kit/cli/<verb>.py` with `EXAMPLES`, `add_arguments` and `run`."""

USAGE_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 on success, 2 when something asked for cannot be done (the reason is on stderr), 130 after Ctrl-C, 1 when the
        reader of the output went away.
    """
    # before torch is loaded: by default a CPU thread that waits for another spins, which stalls training on a machine
    # that is busy with anything else
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    while arguments[:1] == ["--debug"]:  # before the verb is as good as after it
        arguments = [*arguments[1:], "--debug"] if arguments[1:] else []
    _open_closed_streams()
    try:
        return _dispatch(arguments)
    except BrokenPipeError:  # the reader went away, as in `ra3kit show tiny-ra3 | head`
        if "--debug" in arguments:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        if "--debug" in arguments:
            raise
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        reason = in_words(error)
        if reason is None or "--debug" in arguments:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return USAGE_ERROR


def _open_closed_streams() -> None:
    """Python has no object for a standard stream that was closed (`>&-`); libraries write to it all the same."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (for the whole run)


def in_words(error: BaseException) -> str | None:
    """What a person is told of an error instead of its traceback; None for one that is a defect of the program.

    Errors of the kit speak for themselves. Those of the machine (a full disk, no permission, no memory) come from
    anywhere below, and are named with what can be done.
    """
    if isinstance(error, RA3Error):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        advice = _ADVICE.get(error.errno or 0, "Run it again with --debug to see where this happened.")
        return f"{where}{error.strerror or first or type(error).__name__}. {advice}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in first:
        return (
            f"out of memory: {first or 'no more to be had'}. What was written so far is whole. Lower "
            "data.tokens_per_forward, posterior.slots or the size of the model."
        )
    return None


_NOTHING_LOST = "What was written before is whole and stays."
_ADVICE = {
    errno.ENOSPC: f"{_NOTHING_LOST} Make room, or set run.dir to another disk.",
    errno.EDQUOT: f"{_NOTHING_LOST} Make room within the quota, or set run.dir to another disk.",
    errno.EFBIG: f"{_NOTHING_LOST} The file is larger than this file system or `ulimit -f` allows.",
    errno.EACCES: "Give yourself the permission, or choose another place (run.dir, --out, data.path).",
    errno.EPERM: "Give yourself the permission, or choose another place (run.dir, --out, data.path).",
    errno.EROFS: "Choose a place that can be written to (run.dir, --out).",
    errno.ENOTDIR: "A folder on this path is a file. Choose another place.",
    errno.EISDIR: "This is a folder, where a file is needed.",
    errno.ENOENT: "It is not there (or no longer), or cannot be made there.",
    errno.EEXIST: "Nothing is overwritten; choose another place.",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 4096.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
"""What to do about an error of the operating system."""


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
