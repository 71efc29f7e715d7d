"""Copy a recipe, to own and change it. A recipe is never inherited from: the copy is all there is."""

from __future__ import annotations

import argparse
from pathlib import Path

from ra3kit.errors import RecipeError
from ra3kit.recipe import SUFFIXES, find

EXAMPLES = """examples:
  ra3kit cp tiny-ra3 mine.yaml
  ra3kit cp tiny-ra3 experiments/        # a folder: keeps the name
  ra3kit fit --recipe mine.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source and destination."""
    parser.add_argument("name", metavar="NAME", help="a recipe by name (see `ra3kit ls`) or by path")
    parser.add_argument("destination", metavar="DEST", help="the new file (.yaml), or an existing folder")
    parser.add_argument("--force", action="store_true", help="overwrite DEST if it exists")


def run(args: argparse.Namespace) -> int:
    """Copy the file byte for byte.

    Raises:
        RecipeError: no such recipe, DEST exists, is not named like a recipe, or its folder is missing.
    """
    source = find(args.name)
    destination = Path(args.destination).expanduser()
    if destination.is_dir():
        destination = destination / source.name
    if destination.suffix not in SUFFIXES:
        raise RecipeError(f"DEST={args.destination}: a recipe's name ends with .yaml. Try {args.destination}.yaml")
    if not destination.parent.is_dir():
        raise RecipeError(f"DEST={args.destination}: there is no folder {destination.parent}. Create it first.")
    if destination.exists() and not args.force:
        raise RecipeError(f"DEST={destination} exists and was left as it is. Choose another name, or add --force.")
    destination.write_bytes(source.read_bytes())
    print(f"{destination} is yours. Run it: ra3kit fit --recipe {destination}")
    return 0
