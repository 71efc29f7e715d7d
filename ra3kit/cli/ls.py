"""List the recipes that come with the kit, one line each."""

from __future__ import annotations

import argparse

from ra3kit.recipe import describe, shipped

EXAMPLES = """examples:
  ra3kit ls
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`ls` takes no arguments of its own."""


def run(args: argparse.Namespace) -> int:
    """Print name and description of every recipe, in columns."""
    recipes = shipped()
    width = max(map(len, recipes), default=0)
    for name, path in recipes.items():
        print(f"{name:<{width}}  {describe(path)}".rstrip())
    return 0
