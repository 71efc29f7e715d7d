"""Print a recipe as it will be run: overrides applied, every ${...} resolved.

The output is a recipe again. Keys that an override adds are checked against their class; types and choices of values
are checked by `ra3kit fit --dry-run`.
"""

from __future__ import annotations

import argparse

from ra3kit.recipe import describe, load, to_yaml

EXAMPLES = """examples:
  ra3kit show tiny-ra3
  ra3kit show tiny-ra3 vars.seed=1 trainer.max_epochs=2
  ra3kit show tiny-ra3 > mine.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A recipe and its overrides."""
    parser.add_argument("name", metavar="NAME", help="a recipe by name (see `ra3kit ls`) or by path")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="set a value of the recipe")


def run(args: argparse.Namespace) -> int:
    """Print the resolved recipe; torch is imported only when an override needs a class's signature."""
    recipe = load(args.name, args.overrides)
    sections = sorted({key.split(".")[0] for key in recipe.added} & {"model", "data", "trainer"})
    if sections:
        from ra3kit.signatures import check

        check(recipe.tree, recipe.touched, sections)
    run_section = {key: value for key, value in recipe.tree["run"].items() if value is not None}
    print(f"# {describe(recipe.path) or recipe.name}")
    print(to_yaml(recipe.tree | {"run": {"name": recipe.name, **run_section}}), end="")
    return 0
