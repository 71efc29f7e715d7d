"""The run folder: one new folder a run, never one that holds something already."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ra3kit import __version__
from ra3kit.errors import RunError
from ra3kit.recipe import Recipe, shipped

FOLDER_VARIABLE = "RA3KIT_RUN_FOLDER"
CHECKPOINT_VARIABLE = "RA3KIT_CHECKPOINT"
"""Name the run folder, and the checkpoint it goes on from, to the other processes that Lightning starts for a run."""

FINISHED = ".finished"
LOCK = ".lock"


@dataclass(frozen=True)
class Start:
    """How a run begins.

    Args:
        recipe: what to build.
        folder: the run folder.
        checkpoint: where it goes on; None at the beginning.
        saved: the recipe that the run was begun with; None for a new run.
        finished: nothing is left to do.
        notes: what a person must be told.
    """

    recipe: Recipe
    folder: Path
    checkpoint: Path | None = None
    saved: Recipe | None = None
    finished: bool = False
    notes: list[str] = field(default_factory=list)


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


def runs_of(recipe: Recipe) -> list[Path]:
    """The run folders there are of a recipe, oldest first: `run.dir` where it is given, else below `runs/<name>`."""
    explicit = recipe.tree["run"]["dir"]
    if explicit is not None:
        folder = Path(explicit).expanduser()
        return [folder] if folder.is_dir() else []
    numbered = [path for path in (Path("runs") / recipe.name).glob("*") if path.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name))


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end."""
    return (folder / FINISHED).is_file()


def finish(folder: Path, step: int) -> None:
    """Record that a run came to its end."""
    temporary = folder / f"{FINISHED}.tmp"
    temporary.write_text(json.dumps({"step": step, "ra3kit": __version__}) + "\n", encoding="utf-8")
    temporary.replace(folder / FINISHED)


def release(folder: Path) -> None:
    """Remove a claimed folder that is still empty, after a run that could not start."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def handed_over(folder: Path, checkpoint: Path | None = None) -> Iterator[None]:
    """While training: the processes started from here find run folder and checkpoint in the environment."""
    os.environ[FOLDER_VARIABLE] = str(folder.absolute())
    os.environ[CHECKPOINT_VARIABLE] = "" if checkpoint is None else str(checkpoint.absolute())
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE], os.environ[CHECKPOINT_VARIABLE]


@contextmanager
def alone_in(folder: Path, first: bool) -> Iterator[None]:
    """While training: no second run goes on in this folder. The lock ends with the process, however that ends.

    Raises:
        RunError: another process trains there.
    """
    if not first:
        yield
        return
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # which of the two, POSIX leaves open
            file.seek(0)
            raise RunError(f"{folder}: this run is going on already ({file.read().strip() or 'elsewhere'}).") from error
        except OSError as error:  # a file system without locks
            print(
                f"warning: {folder} cannot be locked ({error}); see that no second run goes on there", file=sys.stderr
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _launcher() -> tuple[bool, bool]:
    """(True when torchrun, SLURM or several nodes started more than one process, True in the first of them)."""
    variables = os.environ
    size = int(variables.get("WORLD_SIZE") or variables.get("SLURM_NTASKS") or 1)
    rank = int(variables.get("RANK") or variables.get("SLURM_PROCID") or variables.get("NODE_RANK") or 0)
    return size > 1 or rank > 0, rank == 0


def absent_model(name: str) -> str:
    """What to do where a name is that of a run's model which is not there; "" where it is another name, or is there.

    >>> absent_model("runs/tiny-base/001/model")
    'there is no such folder. ra3kit fit --recipe tiny-base trains a model and leaves it in such a one.'
    >>> absent_model("Qwen/Qwen2.5-1.5B")
    ''
    """
    path = Path(name)
    found = re.fullmatch(r"(?:.*/)?runs/(.+)/\d{3,}(?:/.*)?", path.as_posix())
    if found is None or path.exists():
        return ""
    others = sorted(path.parent.parent.glob(f"*/{path.name}")) if path.name.startswith("model") else []
    if others:
        return f"there is no such folder. There is {others[-1]}."
    if found[1] in shipped():
        return f"there is no such folder. ra3kit fit --recipe {found[1]} trains a model and leaves it in such a one."
    return f"there is no such folder. The run {found[1]!r} leaves it there when it has ended, if it has a RunReport."
