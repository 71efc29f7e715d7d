"""Train a recipe: build model, data and trainer from it and run them in a new run folder.

Any value of the recipe can be set on the command line, by its dotted key: data.path=my/code, trainer.max_epochs=2,
trainer.callbacks.0.patience=3. The resolved recipe is saved in the run folder; running it again gives the same run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ra3kit import __version__
from ra3kit.recipe import Recipe, load, shipped, to_yaml
from ra3kit.runs import claim, handed_over, next_folder, release

if TYPE_CHECKING:
    import lightning.pytorch as L

    from ra3kit.build import Built

EXAMPLES = """examples:
  ra3kit fit --recipe quickstart
  ra3kit fit --recipe tiny-ra3 data.path=my/code run.seed=1
  ra3kit fit --recipe tiny-ra3 --dry-run             # the plan: parameters, tokens, memory, disk
  ra3kit fit --recipe runs/tiny-ra3/001/recipe.yaml  # the same run again, in a new folder
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe, its overrides, and what to do with it."""
    parser.add_argument("--recipe", metavar="NAME|FILE", required=True, help="by name (see `ra3kit ls`) or by path")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="set a value of the recipe")
    parser.add_argument("--dry-run", action="store_true", help="build everything, print the plan, train nothing")


def run(args: argparse.Namespace) -> int:
    """Build and train, or plan.

    Raises:
        RA3Error: the recipe cannot be used, or the run cannot start or finish.
    """
    recipe = load(args.recipe, args.overrides)
    if args.dry_run:
        from ra3kit.cli.plan import plan

        print(plan(recipe, next_folder(recipe)))
        return 0
    folder = claim(recipe)
    try:
        built = _build(recipe, folder, args.overrides)
        first = built.trainer.is_global_zero
        if first:
            _save(recipe, built, folder)
    except BaseException:
        release(folder)
        raise
    if first:
        print(_opening(recipe, built.trainer, folder), flush=True)
    with handed_over(folder):
        try:
            built.trainer.fit(built.model, datamodule=built.data)
        except SystemExit:  # how Lightning ends after Ctrl-C
            if first:
                print(f"interrupted; what was written so far is in {folder}", file=sys.stderr)
            raise
        except OSError as error:  # a write that failed names no file, or the temporary one it is copied from
            if error.errno is not None and not str(error.filename or "").startswith(str(folder)):
                error.filename = str(folder) if error.filename is None else f"{error.filename}, for {folder}"
            raise
    if built.trainer.is_global_zero:
        print(_closing(recipe, built, folder), flush=True)
    return 0


def _build(recipe: Recipe, folder: Path, overrides: Sequence[str]) -> Built:
    from ra3kit.build import build
    from ra3kit.callbacks.provenance import Provenance
    from ra3kit.cli.progress import PlainProgress

    progress = () if sys.stdout.isatty() else (PlainProgress(),)
    return build(recipe, folder, (*progress, Provenance(_facts(recipe, overrides))))


def _facts(recipe: Recipe, overrides: Sequence[str]) -> dict[str, Any]:
    """What the provenance of a run keeps of its recipe."""
    from ra3kit.provenance import digest

    return {
        "name": recipe.name,
        "file": str(recipe.path.absolute()),
        "sha256": digest(recipe.path),
        "overrides": list(overrides),
        "seed": recipe.tree["run"]["seed"],
    }


def _save(recipe: Recipe, built: Built, folder: Path) -> None:
    header = f"# {recipe.name}: a saved run, every value written out (ra3kit {__version__})\n"
    path, temporary = folder / "recipe.yaml", folder / "recipe.tmp"
    try:
        temporary.write_text(header + to_yaml(built.complete), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(path)
        raise


def _opening(recipe: Recipe, trainer: L.Trainer, folder: Path) -> str:
    from ra3kit.build import accelerator_name

    nodes = f" on {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
    lines = {
        "recipe": f"{recipe.name} ({recipe.path})",
        "run folder": str(folder),
        "seed": str(recipe.tree["run"]["seed"]),
        "devices": f"{trainer.num_devices} x {accelerator_name(trainer)}{nodes}",
        "precision": str(trainer.precision),
    }
    return "\n".join(f"{key:<11} {value}" for key, value in lines.items())


def _closing(recipe: Recipe, built: Built, folder: Path) -> str:
    summary = getattr(built.model, "summary_lines", None)
    lines = list(summary(built.trainer)) if summary is not None else []
    lines.append(f"{'results':<11} {folder}")
    if built.trainer.loggers:
        lines.append(f"{'TensorBoard':<11} tensorboard --logdir {folder}")
    if recipe.path in shipped().values():
        lines.append(f"{'next':<11} ra3kit cp {recipe.path.stem} my-{recipe.path.stem}.yaml")
    else:
        lines.append(f"{'next':<11} ra3kit fit --recipe {folder / 'recipe.yaml'} run.seed={_other_seed(recipe)}")
    return "\n".join(lines)


def _other_seed(recipe: Recipe) -> int:
    return int(recipe.tree["run"]["seed"]) + 1
