"""Write a model of a run as an ordinary Hugging Face folder with a model card; it loads without ra3kit.

RUN is a run folder (its newest checkpoint) or a checkpoint folder, written by any number of processes. LoRA adapters
are merged into the weights. DIR is a new folder, and appears when all of it is written.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from ra3kit.errors import RunError

EXAMPLES = """examples:
  ra3kit export runs/tiny-ra3/001 exported/tiny-ra3
  ra3kit export runs/tiny-ra3/001/checkpoints/step-00000320 exported/q --which q --dtype bfloat16
  ra3kit export runs/tiny-ra3/001 exported/tiny-ra3 --push me/tiny-ra3 --private
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the folder, and how to write."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint folder")
    parser.add_argument("folder", metavar="DIR", help="a new folder")
    parser.add_argument(
        "--which", choices=("pi", "q", "ntp"), default="pi", help="the policy (default), q, the control"
    )
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the weights (default: as trained)"
    )
    parser.add_argument("--max-shard-size", metavar="SIZE", default="5GB", help="of one file (default: 5GB)")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to a new repository of the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="make that repository private")


def run(args: argparse.Namespace) -> int:
    """Export, and push where asked.

    Raises:
        RA3Error: the run cannot be exported, the folder is there already, or the hub can't be reached.
    """
    if args.private and args.push is None:
        raise RunError("--private is about --push OWNER/NAME; without it nothing leaves this machine.")
    if args.push is not None:
        from ra3kit.hub import check_push

        check_push(args.push)
    from ra3kit.export import export
    from ra3kit.sources import find_source

    command = shlex.join(["ra3kit", *sys.argv[1:]])
    done = export(find_source(args.run), args.folder, args.which, args.dtype, args.max_shard_size, command, args.push)
    files = f"{len(done.weights)} file{'s' if len(done.weights) > 1 else ''}"
    print(f"{'model':<11} {done.architecture}, {done.parameters:,} parameters, {done.dtype}, {files} of weights")
    if args.push is not None:
        from ra3kit.hub import push

        print(f"{'hub':<11} {push(done.folder, args.push, args.private)}")
    print(f"{'results':<11} {done.folder}")
    print(f"{'load':<11} AutoModelForCausalLM.from_pretrained({str(done.folder)!r})")
    print(f"{'next':<11} ra3kit eval --model {shlex.quote(str(done.folder))} --benchmark ra3kit")
    return 0
