"""Explain a component: what it is, its arguments with type, default and meaning, what it raises, YAML to paste.

CLASS is an import path (yours or the kit's), the name of a class of the kit, or RECIPE:KEY, the component (or one
argument of it) that a recipe names there. Without CLASS: the components there are, by contract.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator

from ra3kit.contracts import CONTRACTS, classes, members
from ra3kit.errors import RecipeError, nearest

EXAMPLES = """examples:
  ra3kit explain
  ra3kit explain CausalPosterior
  ra3kit explain ra3kit.abstraction.prior.FixedPenalty
  ra3kit explain tiny-ra3:model.learner
  ra3kit explain tiny-ra3:model.learner.rollouts
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One class, or none."""
    parser.add_argument("name", metavar="CLASS", nargs="?", help="import path, class of the kit, or RECIPE:KEY")


def run(args: argparse.Namespace) -> int:
    """Print; torch is imported only where a class is."""
    if args.name is None:
        print("\n".join(overview()))
        return 0
    from ra3kit.explanation import by_path, explained, in_recipe

    if ":" in args.name:
        recipe, _, key = args.name.rpartition(":")
        asked = in_recipe(recipe, key)
    else:
        asked = by_path(args.name if "." in args.name else find(args.name))
    print("\n".join(explained(asked, width())))
    return 0


def width() -> int:
    """Columns to write in."""
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def overview() -> Iterator[str]:
    """The kit's components by contract."""
    for contract in CONTRACTS:
        yield f"{contract.name}  ({contract.key or 'no recipe key'})"
        yield f"  contract  {contract.base}" + (f", ra3kit.testing.{contract.checker}" if contract.checker else "")
        yield f"  called    {contract.when.replace('`', '')}"
        kept = members(contract)
        longest = max((len(item.name) for item in kept), default=0)
        for item in kept:
            yield _cut(f"  {item.name:<{longest}}  {item.summary}")
        yield ""
    yield "next        ra3kit explain NAME, or the import path of a class of your own; docs/extending.md writes one"


def _cut(text: str) -> str:
    most = width()
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def find(name: str) -> str:
    """The import path of a class of the kit, by its short name.

    Raises:
        RecipeError: no class of this name, or several.
    """
    components = {item.path: item for contract in CONTRACTS for item in members(contract)}
    bases = {contract.base: contract for contract in CONTRACTS}
    named = [path for path in components if components[path].name == name]
    named = named or [base for base in bases if base.rpartition(".")[2] == name]
    named = named or [item.path for item in classes() if item.name == name]
    if len(named) == 1:
        return named[0]
    if named:
        raise RecipeError(f"{name!r} is the name of several classes. Give the import path: {', '.join(named)}.")
    known = sorted({item.name for item in components.values()})
    close = nearest(name, known) or nearest(name, [item.name for item in classes()])
    if name in {contract.name for contract in CONTRACTS}:
        close = " It is a contract; `ra3kit explain` alone lists the components of each."
    raise RecipeError(
        f"No class {name!r} in the kit.{close} Components: {', '.join(known)}. One of your own is named by its import "
        "path, package.module.Class."
    )
