"""Print Python files with the thoughts that a model writes into them, and what each thought is worth.

CKPT is a run folder (its newest checkpoint), a checkpoint folder, a Hugging Face folder or a hub id. Files are cut into
snippets as the run cuts its corpus. Lines begin with "> " (a thought, with its information gain), "  " (code) or "~ "
(code that no snippet holds). Colours are for terminals only; NO_COLOR turns them off.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ra3kit.errors import RunError

if TYPE_CHECKING:
    from ra3kit.annotate import AnnotatedFile, Writer

EXAMPLES = """examples:
  ra3kit annotate runs/tiny-ra3/001 my/code.py
  ra3kit annotate runs/tiny-ra3/001/checkpoints/step-00000320 a.py b.py --samples 3
  ra3kit annotate runs/tiny-ra3/001/model my/code.py --comments keep   # pi, with the file's own comments
  ra3kit annotate runs/tiny-ra3/001 my/code.py --json - | jq '.files[0].draws[0].summary'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the files, and how to draw and show."""
    parser.add_argument("model", metavar="CKPT", help="run, checkpoint or Hugging Face folder, or hub id")
    parser.add_argument("files", metavar="FILE.py", nargs="+", help="what to annotate")
    parser.add_argument("--who", choices=("q", "pi"), help="who writes (default: q where there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="draws of each file (default: 1)")
    parser.add_argument("--comments", choices=("keep", "strip"), help="the file's own (default: as in the run)")
    parser.add_argument("--docstrings", choices=("keep", "strip"), help="the file's own (default: as in the run)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="(default: auto)")
    parser.add_argument("--json", metavar="OUT|-", help="write all of it as JSON; - prints it and nothing else")


def run(args: argparse.Namespace) -> int:
    """Load, annotate, print.

    Raises:
        RA3Error: the model or a file cannot be used; JSON would overwrite something.
    """
    _check(args)
    colour = coloured(args.color, sys.stdout, os.environ)
    with redirect_stdout(sys.stderr):  # progress, and whatever libraries say: the output itself stays clean
        writer, files = _annotated(args)
    if args.json == "-":
        print(json.dumps(_as_json(args, writer, files), indent=1))
        return 0
    _print(args, writer, files, colour)
    if args.json is not None:
        _write(Path(args.json), json.dumps(_as_json(args, writer, files), indent=1) + "\n")
        print(f"{'results':<11} {args.json}")
    print(f"{'next':<11} {_next(args, writer)}")
    return 0


def coloured(wanted: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to use colours: `auto` is on a terminal that has them, unless NO_COLOR is set (https://no-color.org)."""
    if wanted != "auto":
        return wanted == "always"
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _check(args: argparse.Namespace) -> None:
    """What can be told before a model is loaded."""
    if args.samples < 1 or args.seed < 0:
        raise RunError(f"--samples {args.samples} must be at least 1, and --seed {args.seed} at least 0.")
    if args.json not in (None, "-") and Path(args.json).exists():
        raise RunError(f"--json {args.json}: it is there already. Nothing is overwritten; choose another name.")
    if args.json not in (None, "-") and not Path(args.json).absolute().parent.is_dir():
        raise RunError(f"--json {args.json}: there is no such folder.")


def _annotated(args: argparse.Namespace) -> tuple[Writer, list[AnnotatedFile]]:
    from ra3kit.annotate import annotate, check_file, cut, load_writer
    from ra3kit.progress import track
    from ra3kit.sources import find_source

    paths = [check_file(file) for file in args.files]
    writer = load_writer(find_source(args.model), args.who, args.device)
    files = [cut(writer, path, args.comments, args.docstrings) for path in paths]  # all, before any is annotated
    return writer, [annotate(writer, file, args.seed, args.samples, track) for file in files]


def _print(args: argparse.Namespace, writer: Writer, files: list[AnnotatedFile], colour: bool) -> None:
    from ra3kit.annotate import body, left_out_line, summary, summary_line

    print(f"{'thoughts by':<11} {writer.name}, seed {args.seed}")
    for note in writer.notes:
        print(f"{'note':<11} {note}")
    for file in files:
        removed = f", without its {file.removed}" if file.removed else ""
        for number, lines in enumerate(file.draws, 1):
            which = f", draw {number} of {len(file.draws)}" if len(file.draws) > 1 else ""
            print(f"\n{'file':<11} {file.path}{removed}{which}")
            sys.stdout.write(body(lines, colour))
            if left_out := left_out_line(file.left_out):
                print(f"{'left out':<11} {left_out}")
            print(f"{'thoughts':<11} {summary_line(summary(lines))}")
    everything = [line for file in files for lines in file.draws for line in lines]
    if sum(len(file.draws) for file in files) > 1:
        print(f"\n{'all':<11} {summary_line(summary(everything))}")


def _as_json(args: argparse.Namespace, writer: Writer, files: list[AnnotatedFile]) -> dict[str, Any]:
    from ra3kit.annotate import as_json

    about = {"model": args.model, "writer": writer.name, "who": writer.who, "seed": args.seed}
    return {**about, "notes": list(writer.notes), "files": [as_json(file) for file in files]}


def _write(path: Path, text: str) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _next(args: argparse.Namespace, writer: Writer) -> str:
    """A command that shows something more: pi beside q, or another draw."""
    more = ["--who", "pi"] if writer.who == "q" else ["--seed", str(args.seed + 1)]
    return shlex.join(["ra3kit", "annotate", args.model, *args.files, *more])
