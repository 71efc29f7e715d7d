"""Train a recipe: build model, data and trainer from it and run them in a new run folder.

Any value of the recipe can be set on the command line, by its dotted key: data.path=my/code, trainer.max_epochs=2,
trainer.callbacks.0.patience=3. The resolved recipe is saved in the run folder; running it again gives the same run.

A run that was killed goes on from its newest checkpoint with --resume, and ends as it would have ended: docs/resume.md.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ra3kit import __version__
from ra3kit.errors import RecipeError
from ra3kit.recipe import Recipe, load, shipped, to_yaml
from ra3kit.runs import Start, alone_in, claim, finish, handed_over, next_folder, release

if TYPE_CHECKING:
    import lightning.pytorch as L

    from ra3kit.build import Built

EXAMPLES = """examples:
  ra3kit fit --recipe quickstart
  ra3kit fit --recipe tiny-ra3 data.path=my/code run.seed=1
  ra3kit fit --recipe tiny-ra3 --dry-run             # the plan: parameters, tokens, memory, disk
  ra3kit fit --recipe runs/tiny-ra3/001/recipe.yaml  # the same run again, in a new folder
  ra3kit fit --resume runs/tiny-ra3/001              # a run that was killed goes on
  ra3kit fit --recipe tiny-ra3 --resume auto         # the newest run of the recipe goes on, or a new one begins
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe, its overrides, and what to do with it."""
    parser.add_argument("--recipe", metavar="NAME|FILE", help="by name (see `ra3kit ls`) or by path")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="set a value of the recipe")
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="go on with a run: its folder or one of its checkpoints; auto: the newest run of the recipe (or run.dir), "
        "or a new one",
    )
    parser.add_argument("--dry-run", action="store_true", help="build everything, print the plan, train nothing")


def run(args: argparse.Namespace) -> int:
    """Build and train, or plan.

    Raises:
        RA3Error: the recipe cannot be used, or the run cannot start or finish.
    """
    if args.dry_run:
        return _plan(args)
    try:
        return _train(args)
    finally:
        gc.collect()  # a sharded model that outlives its process group can abort the process at its end


def _train(args: argparse.Namespace) -> int:
    start = _start(args)
    recipe, folder = start.recipe, start.folder
    if start.finished:
        print(f"{folder}: this run is finished; nothing is left to resume", flush=True)
        return 0
    try:
        built = _build(start, args.overrides, resumes=args.resume is not None)
        first = built.trainer.is_global_zero
        if first and start.saved is None:
            _save(recipe, built, folder)
    except BaseException:
        release(folder)
        raise
    if first:
        print(_opening(start, built.trainer), flush=True)
    with alone_in(folder, first), handed_over(folder, start.checkpoint):
        try:
            built.trainer.fit(built.model, datamodule=built.data)
        except SystemExit:  # how Lightning ends after Ctrl-C
            if first:
                print(f"interrupted; what was written so far is in {folder}", file=sys.stderr)
                print(f"go on with it: ra3kit fit --resume {folder}", file=sys.stderr)
            raise
        except OSError as error:  # a write that failed names no file, or the temporary one it is copied from
            if error.errno is not None and not str(error.filename or "").startswith(str(folder)):
                error.filename = str(folder) if error.filename is None else f"{error.filename}, for {folder}"
            raise
        if first:
            print(_end(recipe, built, folder), flush=True)
    return 0


def _end(recipe: Recipe, built: Built, folder: Path) -> str:
    """Record that the run is finished, unless a limit of time stopped it; what to say about it."""
    from ra3kit.training_state import out_of_time

    if out_of_time(built.trainer):
        return f"stopped by trainer.max_time at step {built.trainer.global_step}; go on: ra3kit fit --resume {folder}"
    finish(folder, built.trainer.global_step)
    return _closing(recipe, built, folder)


def _plan(args: argparse.Namespace) -> int:
    from ra3kit.cli.plan import plan

    if args.resume is not None:
        raise RecipeError("--dry-run plans a new run: leave --resume out.")
    recipe = load(_given(args), args.overrides)
    print(plan(recipe, next_folder(recipe)))
    return 0


def _start(args: argparse.Namespace) -> Start:
    """A new run in a new folder, or one that goes on."""
    if args.resume is None:
        recipe = load(_given(args), args.overrides)
        return Start(recipe, claim(recipe))
    from ra3kit.resume import find_start

    return find_start(args.resume, args.recipe, args.overrides)


def _given(args: argparse.Namespace) -> str:
    if args.recipe is None:
        raise RecipeError("--recipe NAME|FILE is missing (or --resume PATH). Recipes: ra3kit ls")
    return str(args.recipe)


def _build(start: Start, overrides: Sequence[str], resumes: bool) -> Built:
    from ra3kit.build import build
    from ra3kit.callbacks.checkpoints import Resume
    from ra3kit.callbacks.provenance import Provenance
    from ra3kit.cli.progress import PlainProgress
    from ra3kit.resume import refuse_other_recipe

    resume = Resume(start.checkpoint) if resumes else None
    progress = () if sys.stdout.isatty() else (PlainProgress(),)
    added = (*progress, Provenance(_facts(start.recipe, overrides)))
    built = build(start.recipe, start.folder, added, resume)
    if start.saved is not None:
        refuse_other_recipe(start.saved, built.complete)
    return built


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


def _opening(start: Start, trainer: L.Trainer) -> str:
    from ra3kit.build import accelerator_name

    recipe, folder = start.recipe, start.folder

    nodes = f" on {trainer.num_nodes} nodes" if trainer.num_nodes > 1 else ""
    lines = {
        "recipe": f"{recipe.name} ({recipe.path})",
        "run folder": str(folder),
        "seed": str(recipe.tree["run"]["seed"]),
        "devices": f"{trainer.num_devices} x {accelerator_name(trainer)}{nodes}",
        "precision": str(trainer.precision),
    }
    if start.checkpoint is not None:
        lines["resumed"] = f"at {start.checkpoint.name} of {folder}"
    return "\n".join([*start.notes, *(f"{key:<11} {value}" for key, value in lines.items())])


def _closing(recipe: Recipe, built: Built, folder: Path) -> str:
    summary = getattr(built.model, "summary_lines", None)
    lines = list(summary(built.trainer)) if summary is not None else []
    lines.append(f"{'results':<11} {folder}")
    if built.trainer.loggers:
        lines.append(f"{'TensorBoard':<11} tensorboard --logdir {folder}")
    name = next((name for name, path in shipped().items() if path == recipe.path), None)
    if name is not None:
        lines.append(f"{'next':<11} ra3kit cp {name} my-{recipe.path.name}")
    else:
        lines.append(f"{'next':<11} ra3kit fit --recipe {folder / 'recipe.yaml'} run.seed={_other_seed(recipe)}")
    return "\n".join(lines)


def _other_seed(recipe: Recipe) -> int:
    return int(recipe.tree["run"]["seed"]) + 1
