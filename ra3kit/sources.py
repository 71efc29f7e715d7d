"""What a command line names as a model: a run, one of its checkpoints, a Hugging Face folder, or a hub id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ra3kit import checkpoints
from ra3kit.errors import RunError

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Source:
    """A model on disk or on the hub.

    Args:
        name: as given.
        checkpoint: a whole one, where there is one.
        model: a Hugging Face folder or hub id, where there is no checkpoint.
        run: the folder of the run it is of, where it is one's.
        recipe: the file that says how it was trained, where there is one.
    """

    name: str
    checkpoint: Path | None
    model: str | None
    run: Path | None
    recipe: Path | None


def find_source(name: str) -> Source:
    """Look at what is there.

    A run folder means its newest whole checkpoint; without one, the model that the end of the run left in `model/`.

    Raises:
        RunError: there is nothing of that name, or no model in it.
    """
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        run = path.parent if path.name.startswith("model") and (path.parent / RECIPE).is_file() else None
        recipes = [folder / RECIPE for folder in (path, run) if folder is not None]
        return Source(name, None, str(path), run, next((file for file in recipes if file.is_file()), None))
    if path.is_dir():
        return _of_run(name, path)
    if path.exists():
        raise RunError(f"{name}: this is a file. Give a run folder, a checkpoint folder or a Hugging Face folder.")
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise RunError(f"{name}: there is no such folder, and this is no hub id (owner/name).")
    return Source(name, None, name, None, None)


def _of_run(name: str, path: Path) -> Source:
    is_checkpoint = (path / checkpoints.ABOUT).is_file() or path.name.endswith(checkpoints.PART)
    if is_checkpoint or checkpoints.find(path) or not (path / "model" / "config.json").is_file():
        try:
            checkpoint = checkpoints.resolve(path)
        except RunError as error:
            if is_checkpoint:
                raise
            raise RunError(f"{error} Nor is there a model/ that the end of a run leaves.") from error
        run = checkpoint.parent.parent
        return Source(name, checkpoint, None, run, run / RECIPE if (run / RECIPE).is_file() else None)
    recipe = path / RECIPE
    return Source(name, None, str(path / "model"), path, recipe if recipe.is_file() else None)
