"""Checkpoints on disk: a folder that is whole or not there, the same for one process, several, and sharded weights.

    RUN/checkpoints/step-00000120/
        weights/       every tensor, by name, as torch.distributed.checkpoint writes them (in pieces where sharded)
        state.pt       everything else that a run goes on from
        about.json     what a person or another verb asks first, with the sizes of the other files

The folder is written as `step-00000120.part` and renamed when all of it is on the disk. Nothing in it is unpickled
freely: a checkpoint from elsewhere can be damaged or of another kind, but it can't run code.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from ra3kit import __version__
from ra3kit.errors import RunError

if TYPE_CHECKING:
    import lightning as L

FORMAT = 1
FOLDER = "checkpoints"
PART = ".part"
ABOUT, STATE, WEIGHTS = "about.json", "state.pt", "weights"
MODEL, OPTIMIZER = "model.", "optimizer."
"""What the names of tensors begin with: `model.<parameter>`, `optimizer.<number>.<parameter>/<moment>`."""


# --- finding ---------------------------------------------------------------------------------------------------------


def place(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps of a run is."""
    return run / FOLDER / f"step-{step:08d}"


def find(run: str | Path) -> list[Path]:
    """The whole checkpoints of a run folder, oldest first."""
    return [path for path in _candidates(Path(run)) if not _damage(path)]


def passed_over(run: str | Path) -> dict[Path, str]:
    """What lies among a run's checkpoints but is not whole, and why: what was left of an interrupted or damaged one."""
    found = {path: _damage(path) for path in _candidates(Path(run))}
    half = sorted((Path(run) / FOLDER).glob(f"step-*{PART}"))
    return {path: why for path, why in found.items() if why} | {path: "was not written to its end" for path in half}


def resolve(path: str | Path) -> Path:
    """A checkpoint folder as it is, or the newest whole checkpoint of a run folder.

    Raises:
        RunError: there is neither, or the checkpoint is not whole.
    """
    given = Path(path).expanduser()
    if not given.exists():
        raise RunError(f"{given}: there is no such run or checkpoint folder.")
    if (given / ABOUT).is_file() or given.name.endswith(PART):
        if why := _damage(given):
            raise RunError(f"{given}: this checkpoint {why}. Others of the run: {_named(find(given.parent.parent))}.")
        return given
    whole = find(given)
    if not whole:
        broken = "; ".join(f"{part.name} {why}" for part, why in passed_over(given).items())
        raise RunError(
            f"{given}: no whole checkpoint is there{f' ({broken})' if broken else ''}. A run folder has them under "
            f"{FOLDER}/step-...; Lightning's own .ckpt files are not read here."
        )
    return whole[-1]


def about(checkpoint: str | Path) -> dict[str, Any]:
    """What a checkpoint says of itself: format, step, phase, recipe's name, data hash, versions, files with sizes.

    Raises:
        RunError: the folder is no checkpoint, or one of another format.
    """
    path = Path(checkpoint) / ABOUT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{checkpoint} is no checkpoint: {ABOUT} cannot be read ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        there = content.get("format") if isinstance(content, dict) else None
        raise RunError(f"{checkpoint}: checkpoint format {there!r}; this version of ra3kit reads {FORMAT}.")
    return content


def _candidates(run: Path) -> list[Path]:
    return sorted(path for path in (run / FOLDER).glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))


def _damage(checkpoint: Path) -> str:
    """Why a folder is no whole checkpoint; empty when it is."""
    if checkpoint.name.endswith(PART):
        return "was not written to its end"
    try:
        files = about(checkpoint)["files"]
    except (RunError, KeyError):
        return f"has no readable {ABOUT}, or is of another format"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != size:
            there = path.stat().st_size if path.is_file() else "nothing"
            return f"is damaged ({name}: {there} of {size} bytes)"
    return ""


def _named(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths) or "none"


# --- reading ---------------------------------------------------------------------------------------------------------


def weights(checkpoint: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """The weights whose names begin with `prefix`, whole and on the CPU, by the rest of their name.

    `weights(path, "policy.model.")` fits `module.policy.model.load_state_dict`. Tied and shared weights appear under
    each of their names and are one tensor.

    Raises:
        RunError: no checkpoint, or one without such weights.
    """
    path = resolve(checkpoint)
    saved = metadata(path)
    same = about(path)["same"]
    names = [key.removeprefix(MODEL) for key in saved if key.startswith(MODEL)]
    wanted = {name: same.get(name, name) for name in [*names, *same] if name.startswith(prefix)}
    if not wanted:
        groups = sorted({name.split(".")[0] for name in names})
        raise RunError(f"{path}: no weights begin with {prefix!r}. They begin with: {', '.join(groups)}.")
    read = {name: _empty(saved[MODEL + name]) for name in set(wanted.values())}
    read_into(path, {MODEL + name: tensor for name, tensor in read.items()}, alone=True)
    return {name.removeprefix(prefix): read[stored] for name, stored in wanted.items()}


def build_model(checkpoint: str | Path) -> L.LightningModule:
    """The module of a checkpoint: built from its run's `recipe.yaml`, with the saved weights, on the CPU, in eval mode.

    Raises:
        RunError: no checkpoint, no recipe beside it, or weights that don't fit the recipe.
        RA3Error: the recipe cannot be built here (a class or a tokenizer is missing).
    """
    from ra3kit.build import build
    from ra3kit.recipe import load

    path = resolve(checkpoint)
    run = path.parent.parent
    if not (run / "recipe.yaml").is_file():
        raise RunError(f"{path}: the recipe of its run, {run / 'recipe.yaml'}, is missing.")
    recipe = load(str(run / "recipe.yaml"))
    quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    recipe.tree["trainer"] = quiet | {"enable_progress_bar": False, "enable_model_summary": False}
    module = build(recipe, run).model
    module.configure_model()
    try:
        module.load_state_dict(weights(path))
    except RuntimeError as error:
        raise RunError(f"{path}: the weights do not fit {run / 'recipe.yaml'}: {error}") from error
    return module.cpu().eval()


def state(checkpoint: Path) -> dict[str, Any]:
    """The content of `state.pt`: plain containers, numbers, texts and tensors; nothing else is let in.

    Raises:
        RunError: the file cannot be read, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY):
            content = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f"{checkpoint / STATE} cannot be read: {str(error).splitlines()[0]}") from error
    return cast("dict[str, Any]", content)


def metadata(checkpoint: Path) -> dict[str, TensorStorageMetadata]:
    """Names, sizes and types of the tensors in a checkpoint.

    Raises:
        RunError: they cannot be read.
    """
    found = _Reader(checkpoint).read_metadata().state_dict_metadata
    if others := [key for key, kind in found.items() if not isinstance(kind, TensorStorageMetadata)]:
        raise RunError(f"{checkpoint}: {others[0]!r} is no tensor; this is not a checkpoint of ra3kit.")
    return cast("dict[str, TensorStorageMetadata]", found)


def read_into(checkpoint: Path, tensors: Mapping[str, Tensor], alone: bool = False) -> None:
    """Fill the tensors, which may be sharded, with what is saved under their names.

    Args:
        checkpoint: a whole one.
        tensors: by saved name; changed in place.
        alone: only this process reads, though there may be others.

    Raises:
        RunError: names or shapes differ, or a file cannot be read.
    """
    saved = metadata(checkpoint)
    if missing := [name for name in tensors if name not in saved]:
        raise RunError(f"{checkpoint} lacks {len(missing)} of the run's tensors, {missing[0]!r} say: another model.")
    for name, tensor in tensors.items():
        if tuple(saved[name].size) != tuple(tensor.shape):
            raise RunError(f"{checkpoint}: {name!r} has shape {tuple(saved[name].size)}, here {tuple(tensor.shape)}.")
    try:
        with torch.no_grad(), _alone_is_meant():
            alone = alone or not dist.is_initialized()
            dcp.load(dict(tensors), storage_reader=_Reader(checkpoint), no_dist=alone)
    except CheckpointException as error:
        raise RunError(f"{checkpoint} cannot be read: {_first(error)}") from error


def _empty(saved: TensorStorageMetadata) -> Tensor:
    return torch.empty(tuple(saved.size), dtype=saved.properties.dtype)


class _Reader(dcp.FileSystemReader):
    """Reads the list of tensors without letting it run code: the original unpickles whatever is there."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint / WEIGHTS)
        self._file = checkpoint / WEIGHTS / ".metadata"

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        try:
            found = _Unpickler(io.BytesIO(self._file.read_bytes())).load()
        except (OSError, EOFError, pickle.UnpicklingError, AttributeError, IndexError, ValueError) as error:
            raise RunError(f"{self._file} cannot be read: {error}") from error
        if not isinstance(found, Metadata):
            raise RunError(f"{self._file} holds no list of tensors.")
        return found


class _Unpickler(pickle.Unpickler):
    """Knows the classes of torch's own list of tensors and no other."""

    ALLOWED = frozenset(
        {("torch", name) for name in ("Size", "strided")}
        | {("torch._utils", "_get_dtype"), ("torch.serialization", "_get_layout")}
        | {("torch", str(value).removeprefix("torch.")) for value in vars(torch).values() if type(value) is torch.dtype}
        | {
            ("torch.distributed.checkpoint.metadata", name)
            for name in (
                "Metadata",
                "MetadataIndex",
                "TensorStorageMetadata",
                "TensorProperties",
                "ChunkStorageMetadata",
                "BytesStorageMetadata",
                "StorageMeta",
                "_MEM_FORMAT_ENCODING",
            )
        }
        | {("torch.distributed.checkpoint.filesystem", "_StorageInfo")}
        | {(f"pathlib{part}", name) for part in ("", "._local") for name in ("PosixPath", "WindowsPath", "Path")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a checkpoint must not")
        return super().find_class(module, name)


_NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
]
"""What numpy's arrays and numbers need when they are read back; none of it can do harm."""


# --- writing ---------------------------------------------------------------------------------------------------------


def write(
    target: Path,
    tensors: Mapping[str, Tensor],
    content: Mapping[str, Any],
    facts: Mapping[str, Any],
    first: bool = True,
    agree: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Write a checkpoint: every process calls this, with its part of the sharded tensors.

    Args:
        target: the folder, see `place`; a damaged one there is replaced, a whole one must not be.
        tensors: by name; sharded ones are written in pieces, others once.
        content: what `state` gives back, of the first process.
        facts: for `about.json`, of the first process; JSON.
        first: True in the first process.
        agree: gives every process the first one's value, and thereby waits for all.

    Raises:
        RunError: in every process, when any could not write; what was there before is untouched.
    """
    part = target.with_name(target.name + PART)

    def on_first(action: Callable[[], None]) -> None:
        failed: str | None = None
        if first:
            try:
                action()
            except (OSError, RuntimeError) as error:  # torch's writer wraps what the system says in RuntimeError
                failed = str(error)
        if failed := agree(failed):
            raise _not_written(target, failed)

    def begin() -> None:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)

    def finish() -> None:
        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        _write_synced(part / STATE, buffer.getbuffer())
        # torch has synced the tensors and their list
        files = {path.relative_to(part).as_posix(): path.stat().st_size for path in part.rglob("*") if path.is_file()}
        shown = {"format": FORMAT, "ra3kit": __version__, **facts, "bytes": sum(files.values()), "files": files}
        _write_synced(part / ABOUT, json.dumps(shown, indent=1).encode())
        for folder in (part / WEIGHTS, part):
            _sync_folder(folder)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        _sync_folder(target.parent)

    try:
        on_first(begin)
        try:
            with _alone_is_meant():
                dcp.save(dict(tensors), checkpoint_id=part / WEIGHTS, no_dist=not dist.is_initialized())
        except CheckpointException as error:
            raise _not_written(target, _first(error)) from error
        on_first(finish)
    except RunError:
        if first:
            shutil.rmtree(part, ignore_errors=True)
        raise


def _not_written(target: Path, why: str) -> RunError:
    return RunError(
        f"the checkpoint {target} could not be written: {why}. Earlier checkpoints are as they were; make room, or let "
        "the folder be written to, and resume with --resume."
    )


@contextmanager
def _alone_is_meant() -> Iterator[None]:
    """torch warns when there is one process; that is no mistake here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _first(error: CheckpointException) -> str:
    """What the first process that failed says, in one line."""
    rank, (cause, _) = next(iter(error.failures.items()))
    text = str(cause).strip().splitlines()
    return f"{type(cause).__name__} on rank {rank}: {text[0] if text else ''}"


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk; where folders cannot be opened there is nothing to do."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
