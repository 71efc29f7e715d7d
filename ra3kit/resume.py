"""`ra3kit fit --resume`: which run goes on, from which checkpoint, and whether it is still the same run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ra3kit import __version__, checkpoints
from ra3kit.environment import versions
from ra3kit.errors import RecipeError, RunError
from ra3kit.recipe import Recipe, leaves, load
from ra3kit.runs import CHECKPOINT_VARIABLE, FOLDER_VARIABLE, Start, claim, is_finished, runs_of

AUTO = "auto"
FREE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.max_time",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.enable_checkpointing",
    "trainer.plugins",
)
"""Keys that may differ when a run goes on, with all below them: where and how it runs, not what it computes."""


def find_start(resume: str, recipe: str | None, overrides: Sequence[str]) -> Start:
    """Find what goes on.

    Args:
        resume: "auto": the newest run of the recipe, or `run.dir`, or a new one; or a run folder; or a checkpoint.
        recipe: name or file; None takes the run's own.
        overrides: of the recipe.

    Raises:
        RunError: there is nothing that could go on.
        RecipeError: the recipe cannot be used, or is missing.
    """
    given = None if recipe is None else load(recipe, overrides)
    if FOLDER_VARIABLE in os.environ:  # another process of a run: the first one has decided
        folder = Path(os.environ[FOLDER_VARIABLE])
        checkpoint = os.environ.get(CHECKPOINT_VARIABLE)
        return _go_on(folder, Path(checkpoint) if checkpoint else None, given, overrides)
    if resume == AUTO:
        if given is None:
            raise RecipeError("--resume auto looks for a run of a recipe: give --recipe too, or --resume PATH.")
        begun = [folder for folder in runs_of(given) if (folder / "recipe.yaml").is_file()]
        if not begun:
            return Start(given, claim(given), notes=["nothing to resume: a new run begins"])
        return _newest(begun[-1], given, overrides)
    path = Path(resume).expanduser()
    if (path / "recipe.yaml").is_file():
        return _newest(path, given, overrides)
    checkpoint_folder = checkpoints.resolve(path)
    return _go_on(checkpoint_folder.parent.parent, checkpoint_folder, given, overrides)


def _newest(folder: Path, given: Recipe | None, overrides: Sequence[str]) -> Start:
    """The run from its newest whole checkpoint, or from its beginning."""
    whole, broken = checkpoints.find(folder), checkpoints.passed_over(folder)
    notes = [f"passed over: {path} {why}" for path, why in broken.items()]
    if not whole:
        if foreign := sorted((folder / checkpoints.FOLDER).glob("*.ckpt")):
            raise RunError(
                f"{folder} was saved by Lightning's ModelCheckpoint ({foreign[-1].name}), which --resume can't read. "
                "Leave ModelCheckpoint out of the recipe, or put ra3kit.callbacks.checkpoints.Checkpoints beside it."
            )
        notes.append("no whole checkpoint yet: the run starts again from the beginning, in the same folder")
    return _go_on(folder, whole[-1] if whole else None, given, overrides, notes)


def _go_on(
    folder: Path,
    checkpoint: Path | None,
    given: Recipe | None,
    overrides: Sequence[str],
    notes: Sequence[str] = (),
) -> Start:
    if not (folder / "recipe.yaml").is_file():
        if given is None:
            raise RunError(f"{folder} holds no run: its recipe.yaml is missing.")
        return Start(given, folder, checkpoint, notes=list(notes))
    saved = load(str(folder / "recipe.yaml"))
    recipe = given or load(str(folder / "recipe.yaml"), overrides)
    other = [] if checkpoint is None else other_versions(checkpoints.about(checkpoint))
    return Start(recipe, folder, checkpoint, saved, is_finished(folder), [*notes, *other])


def other_versions(about: Mapping[str, Any]) -> list[str]:
    """A warning for each package that is not the version the checkpoint was made with."""
    made = {"ra3kit": about["ra3kit"], **about.get("versions", {})}
    here = {"ra3kit": __version__, **versions([name for name in made if name != "ra3kit"])}
    return [
        f"warning: the checkpoint was made with {name} {made[name]}, here is {here[name]}; the run goes on, but may "
        "not be the one it would have been"
        for name in made
        if made[name] != here[name]
    ]


def refuse_other_recipe(saved: Recipe, here: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under a recipe that would have made another run.

    Args:
        saved: the run's own, complete.
        here: the one given, complete.

    Raises:
        RecipeError: naming each key that differs with both values.
    """
    there, now = _what_counts(saved.tree), _what_counts(here)
    differ = [key for key in dict.fromkeys([*there, *now]) if there.get(key, "not set") != now.get(key, "not set")]
    if differ:
        shown = "; ".join(
            f"{key}: the run has {there.get(key, 'not set')!r}, given {now.get(key, 'not set')!r}" for key in differ
        )
        raise RecipeError(
            f"{saved.path} is another recipe ({shown}). A run goes on as it began: leave --recipe and overrides out, "
            "or start a new run. Only where and how it runs may differ: "
            + ", ".join(FREE)
            + ", progress bars, Checkpoints."
        )


def _what_counts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a complete recipe that a run's results depend on, by dotted key."""
    trainer = dict(tree.get("trainer") or {})
    callbacks = trainer.get("callbacks") or []
    if isinstance(callbacks, list):
        trainer["callbacks"] = [callback for callback in callbacks if not _is_beside_the_point(callback)]
    counted = {"run": {"seed": tree["run"]["seed"]}, "model": tree["model"], "data": tree["data"], "trainer": trainer}
    values = dict(leaves(counted))
    return {key: value for key, value in values.items() if not any(f"{key}.".startswith(f"{free}.") for free in FREE)}


def _is_beside_the_point(callback: Any) -> bool:
    """Whether a callback only shows or saves."""
    name = str(callback.get("class_path", "") if isinstance(callback, dict) else callback).rsplit(".", 1)[-1]
    return name == "Checkpoints" or name.endswith(("ProgressBar", "Progress"))
