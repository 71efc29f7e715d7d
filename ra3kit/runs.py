"""The run folder: one new folder a run, never one that holds something already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ra3kit.errors import RunError
from ra3kit.recipe import Recipe

FOLDER_VARIABLE = "RA3KIT_RUN_FOLDER"
"""Names the run folder to the other processes that Lightning starts for the same run."""


def next_folder(recipe: Recipe) -> Path:
    """Where the next run of this recipe would go; nothing is created.

    `run.dir` when it is given, else the first free number below `runs/<name>`: `runs/tiny-ra3/001`.
    """
    explicit = recipe.tree["run"]["dir"]
    if explicit is not None:
        return Path(explicit).expanduser()
    parent = Path("runs") / recipe.name
    taken = [int(path.name) for path in parent.glob("*") if path.name.isdigit()]
    return parent / f"{max(taken, default=0) + 1:03d}"


def claim(recipe: Recipe) -> Path:
    """Create the run folder of this run and return it; in the other processes of a run, return that folder.

    Raises:
        RunError: `run.dir` exists and is not empty, or an external launcher started several processes without one.
    """
    if handed_over := os.environ.get(FOLDER_VARIABLE):
        return Path(handed_over)
    several, first = _launcher()
    if several and recipe.tree["run"]["dir"] is None:
        raise RunError("Several processes were started for one run: give them one folder, run.dir=runs/my-run.")
    folder = next_folder(recipe)
    if not first:
        return folder
    if recipe.tree["run"]["dir"] is not None:
        return _claim_explicit(folder)
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # another run has just taken this number
            folder = next_folder(recipe)


def _claim_explicit(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise RunError(f"run.dir={folder}: this is a file. Nothing is overwritten; choose a new folder.")
    if folder.is_symlink() and not folder.exists():
        raise RunError(f"run.dir={folder}: this is a link to {folder.readlink()}, which is not there.")
    if folder.is_dir() and any(folder.iterdir()):
        raise RunError(
            f"run.dir={folder}: this folder is not empty. Nothing is overwritten; choose a new one, "
            "or leave run.dir out for the next free number."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def release(folder: Path) -> None:
    """Remove a claimed folder that is still empty, after a run that could not start."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def handed_over(folder: Path) -> Iterator[None]:
    """While training: the processes started from here find their run folder in the environment."""
    os.environ[FOLDER_VARIABLE] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE]


def _launcher() -> tuple[bool, bool]:
    """(True when torchrun, SLURM or several nodes started more than one process, True in the first of them)."""
    variables = os.environ
    size = int(variables.get("WORLD_SIZE") or variables.get("SLURM_NTASKS") or 1)
    rank = int(variables.get("RANK") or variables.get("SLURM_PROCID") or variables.get("NODE_RANK") or 0)
    return size > 1 or rank > 0, rank == 0
