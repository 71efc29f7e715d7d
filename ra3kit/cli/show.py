"""Print a recipe as it will be run: overrides applied, every ${...} resolved. Or a run: what made each of its files.

What is printed of a recipe is a recipe again. Keys that an override adds are checked against their class; types and
choices of values are checked by `ra3kit fit --dry-run`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ra3kit.errors import RecipeError
from ra3kit.recipe import describe, load, shipped, to_yaml

EXAMPLES = """examples:
  ra3kit show tiny-ra3
  ra3kit show tiny-ra3 vars.seed=1 trainer.max_epochs=2
  ra3kit show tiny-ra3 > mine.yaml
  ra3kit show runs/tiny-ra3/001             # its starts, commits, data, and what made each file
  ra3kit show runs/tiny-ra3/001 --verify    # and whether the files are still those
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe and its overrides, or a run folder."""
    parser.add_argument("name", metavar="NAME", help="a recipe by name (see `ra3kit ls`) or by path; or a run folder")
    parser.add_argument("--verify", action="store_true", help="of a run: compare its files with the record")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="set a value of the recipe")


def run(args: argparse.Namespace) -> int:
    """Print the resolved recipe, or what made a run; torch is imported only when a key must be looked up."""
    if Path(args.name).is_dir() and args.name not in shipped():
        return _run_folder(args)
    if args.verify:
        raise RecipeError(f"--verify: {args.name!r} is no run folder; there is nothing recorded to compare with.")
    recipe = load(args.name, args.overrides)
    sections = sorted({key.split(".")[0] for key in recipe.added} & {"model", "data", "trainer"})
    if sections:
        from ra3kit.signatures import check

        check(recipe.tree, recipe.touched, sections)
    run_section = {key: value for key, value in recipe.tree["run"].items() if value is not None}
    print(f"# {describe(recipe.path) or recipe.name}")
    print(to_yaml(recipe.tree | {"run": {"name": recipe.name, **run_section}}), end="")
    return 0


def _run_folder(args: argparse.Namespace) -> int:
    """Print what made a run; 1 when its files are not those that were recorded."""
    from ra3kit.provenance import lines, verify

    if args.overrides:
        raise RecipeError(f"{args.name} is a run folder: overrides ({args.overrides[0]} ...) are for recipes.")
    print("\n".join(lines(args.name)))
    if not args.verify:
        return 0
    wrong = verify(args.name)
    print("\n".join([f"WRONG  {line}" for line in wrong] or ["All files are those that were recorded."]))
    return 1 if wrong else 0
