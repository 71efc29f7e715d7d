"""The bootstrapped store: trajectories with their thoughts in sharded Arrow files, with where they come from.

A shard is written under a temporary name and renamed, the manifest comes last: a store is finished or it is not, and
after an interruption what is left to do are the shards that are not there.

    folder/shard-00000.arrow ...   one row a trajectory
    folder/writing.json            provenance, while the store is being written
    folder/manifest.json           provenance and shards, once it is finished
"""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import pyarrow as pa

from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, RunError

FORMAT = 1
SCHEMA = pa.schema(
    [
        ("snippet_id", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("lines", pa.list_(pa.int32())),  # start, end, start, end, ...
        ("may_think", pa.list_(pa.bool_())),
        ("thoughts", pa.list_(pa.int32())),
    ]
)


class StoreWriter:
    """Writes a store; as a context manager it finishes the store unless the block raised.

    Two ways: `add` takes trajectories one after the other; or `missing`, `write` and `finish`, where several processes
    write into one folder, each its own shards in any order. The order of the store is that of the shards' numbers.

    Args:
        folder: made if missing.
        provenance: what the trajectories depend on (tokenizer id, data hash, model, iteration, settings, seed), as far
            as JSON can hold it. The key "tokenizer", if given, is `tokenizer_id(tokenizer)` and is checked on use.
        shard_size: trajectories in a shard; what an interruption can lose; >= 1.

    Attributes:
        next_index: how many trajectories are safely stored: where `add` goes on.
        finished: True when the folder already holds the finished store of this provenance; nothing can be added then.

    Raises:
        DataError: the folder holds another store or other files, or a damaged shard.
        RunError: it cannot be written to (the disk is full, say); whole shards stay.
    """

    def __init__(self, folder: str | Path, provenance: Mapping[str, Any], shard_size: int = 1024) -> None:
        if shard_size < 1:
            raise DataError(f"shard_size={shard_size}: must be at least 1.")
        self.folder, self.shard_size = Path(folder), shard_size
        self.provenance = _as_json(provenance)
        with _named_failure(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        known = written_provenance(self.folder)
        # "writing.tmp" alone: a writer was killed in its very first act
        if known is None and any(path.name != "writing.tmp" for path in self.folder.iterdir()):
            raise DataError(f"{self.folder} is not empty and holds no store. Choose another folder.")
        if known is not None:
            _refuse_other(self.folder, known, self.provenance)
        self.finished = (self.folder / "manifest.json").is_file()
        self._buffer: list[Trajectory] = []
        with _named_failure(self.folder):
            for leftover in self.folder.glob("*.tmp"):
                leftover.unlink()
            if known is None:
                _write_json(self.folder / "writing.json", {"format": FORMAT, "provenance": self.provenance})
        self._rows = {number: _open_shard(path).num_rows for number, path in _shards(self.folder).items()}
        if self.finished:
            _refuse_gap(self.folder, self._rows)

    @property
    def next_index(self) -> int:
        _refuse_gap(self.folder, self._rows)
        return sum(self._rows.values())

    # ---- one after the other --------------------------------------------------------------------------------------

    def add(self, trajectory: Trajectory) -> None:
        """Append one trajectory; a full shard is written at once.

        Raises:
            DataError: the store is finished, or the trajectory's spans do not tile it.
        """
        self._refuse_finished()
        _refuse_gap(self.folder, self._rows)
        trajectory.check()
        self._buffer.append(trajectory)
        if len(self._buffer) >= self.shard_size:
            self._flush()

    # ---- shard by shard -------------------------------------------------------------------------------------------

    def missing(self, total: int) -> list[int]:
        """Numbers of the shards still to be written, where shard i holds items [i * shard_size, (i + 1) * shard_size).

        Args:
            total: items of the whole store.

        Raises:
            DataError: a shard that is there has another size: it was written with another `shard_size` or `total`.
        """
        for number, rows in self._rows.items():
            wanted = min(self.shard_size, total - number * self.shard_size)
            if rows != wanted:
                raise DataError(
                    f"{self.folder}: shard {number} has {rows} trajectories where {max(wanted, 0)} belong. It was "
                    "written with another shard_size or other data; delete the folder, or give it what it had."
                )
        return [number for number in range(-(-total // self.shard_size)) if number not in self._rows]

    def write(self, number: int, trajectories: Sequence[Trajectory]) -> None:
        """Write one shard, whole.

        Raises:
            DataError: the store is finished, the shard is there, or the spans of a trajectory do not tile it.
        """
        self._refuse_finished()
        if number in self._rows:
            raise DataError(f"{self.folder}: shard {number} is already written.")
        for trajectory in trajectories:
            trajectory.check()
        with _named_failure(self.folder):
            _write_shard(_shard_path(self.folder, number), trajectories)
        self._rows[number] = len(trajectories)

    def finish(self) -> None:
        """Write what is left and the manifest of all shards in the folder; does nothing when the store is finished.

        Raises:
            DataError: a shard is missing.
        """
        if self.finished:
            return
        if self._buffer:
            self._flush()
        self._rows = {number: _open_shard(path).num_rows for number, path in _shards(self.folder).items()}
        rows = self.next_index
        shards = [{"file": _shard_path(self.folder, n).name, "rows": self._rows[n]} for n in sorted(self._rows)]
        manifest = {"format": FORMAT, "provenance": self.provenance, "rows": rows, "shards": shards}
        with _named_failure(self.folder):
            _write_json(self.folder / "manifest.json", manifest)
            (self.folder / "writing.json").unlink()
        self.finished = True

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def _flush(self) -> None:
        self.write(len(self._rows), self._buffer)
        self._buffer = []

    def _refuse_finished(self) -> None:
        if self.finished:
            raise DataError(f"{self.folder} is finished ({self.next_index} trajectories); nothing can be added to it.")


class BootstrappedStore(Sequence[Trajectory]):
    """A finished store, read through memory maps: `len`, `[i]`, iteration. Made by `open`."""

    def __init__(self, folders: Sequence[Path], provenance: Mapping[str, Any], shards: Sequence[_Shard]) -> None:
        self.folders, self.provenance = [str(folder) for folder in folders], dict(provenance)
        self._shards = list(shards)
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    @staticmethod
    def open(*folders: str | Path) -> BootstrappedStore:
        """Open a finished store, or the parts of one that several ranks wrote, in the given order.

        Raises:
            DataError: no finished store in a folder, a shard missing or damaged, or parts of different provenance.
        """
        paths = [Path(folder) for folder in folders]
        manifests = [_manifest(path) for path in paths]
        for path, manifest in zip(paths, manifests, strict=True):
            _refuse_other(path, manifest["provenance"], manifests[0]["provenance"])
        shards = [
            _Shard(path / shard["file"], shard["rows"])
            for path, manifest in zip(paths, manifests, strict=True)
            for shard in manifest["shards"]
        ]
        return BootstrappedStore(paths, manifests[0]["provenance"], shards)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | list[Trajectory]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"trajectory {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, place)
        return self._shards[shard][place - (int(self._ends[shard - 1]) if shard else 0)]

    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each trajectory, thoughts included."""
        return _joined([shard.ids.lengths() for shard in self._shards])

    def plain_lengths(self) -> np.ndarray:
        """int64 [n]: tokens of each trajectory without its thoughts."""
        return self.lengths() - _joined([shard.thought_tokens() for shard in self._shards])

    def stats(self) -> dict[str, float]:
        """Counts over the store, and three ratios: `thought_rate` (thoughts per line that may have one),
        `tokens_per_thought`, and `lines_per_thought` (the effective horizon; infinite without thoughts)."""
        tokens = int(self.lengths().sum())
        thought_tokens = tokens - int(self.plain_lengths().sum())
        lines, may_think, thoughts = (
            sum(int(count(shard)) for shard in self._shards)
            for count in (_Shard.line_count, _Shard.may_think_count, _Shard.thought_count)
        )
        return {
            "trajectories": len(self),
            "tokens": tokens,
            "code_tokens": tokens - thought_tokens - 2 * len(self),
            "lines": lines,
            "lines_may_think": may_think,
            "thoughts": thoughts,
            "thought_tokens": thought_tokens,
            "thought_rate": thoughts / may_think if may_think else 0.0,
            "tokens_per_thought": thought_tokens / thoughts if thoughts else 0.0,
            "lines_per_thought": lines / thoughts if thoughts else float("inf"),
        }


class _Column:
    """A list column as flat values and offsets, without copies."""

    def __init__(self, column: pa.ListArray) -> None:
        self.values = column.values.to_numpy(zero_copy_only=False)
        self.offsets = column.offsets.to_numpy()

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets).astype(np.int64)


class _Shard:
    def __init__(self, path: Path, rows: int) -> None:
        table = _open_shard(path)
        if table.num_rows != rows:
            raise DataError(
                f"{path}: {table.num_rows} trajectories where the manifest has {rows}; the store is damaged."
            )
        self._ids = table.column("snippet_id")
        self.ids, self.lines, self.may_think, self.thoughts = (
            _Column(table.column(name)) for name in ("ids", "lines", "may_think", "thoughts")
        )

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> Trajectory:
        """A copy of one row: nothing written to it reaches the file."""
        return Trajectory(
            self._ids[row].as_py(),
            self.ids[row].copy(),
            self.lines[row].reshape(-1, 2).copy(),
            self.may_think[row].astype(bool),
            self.thoughts[row].reshape(-1, 2).copy(),
        )

    def thought_tokens(self) -> np.ndarray:
        spans = self.thoughts.values.reshape(-1, 2)
        total = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0], dtype=np.int64)])
        return np.diff(total[self.thoughts.offsets // 2])

    def line_count(self) -> int:
        return len(self.lines.values) // 2

    def may_think_count(self) -> int:
        return int(self.may_think.values.sum())

    def thought_count(self) -> int:
        return len(self.thoughts.values) // 2


def _open_shard(path: Path) -> pa.RecordBatch:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).get_batch(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: missing or damaged shard ({error}). Write the store again.") from error


def written_provenance(folder: str | Path) -> dict[str, Any] | None:
    """The provenance of the store in a folder, finished or not; None where there is none."""
    known = _read_json(Path(folder) / "manifest.json") or _read_json(Path(folder) / "writing.json")
    return None if known is None else dict(known["provenance"])


def _write_shard(path: Path, trajectories: Sequence[Trajectory]) -> None:
    columns = [
        [t.snippet_id for t in trajectories],
        [t.ids for t in trajectories],
        [t.lines.ravel() for t in trajectories],
        [t.may_think for t in trajectories],
        [t.thoughts.ravel() for t in trajectories],
    ]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
    batch = pa.record_batch(arrays, schema=SCHEMA)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as sink:
        with pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_batch(batch)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.arrow"


def _shards(folder: Path) -> dict[int, Path]:
    """The shards written so far, by number."""
    return {int(path.stem.removeprefix("shard-")): path for path in sorted(folder.glob("shard-*.arrow"))}


def _refuse_gap(folder: Path, shards: Iterable[int]) -> None:
    there = set(shards)
    for number in range(len(there)):
        if number not in there:
            later = _shard_path(folder, min(n for n in there if n > number)).name
            raise DataError(f"{folder}: shard {number} is missing but {later} is there. Write the store again.")


@contextmanager
def _named_failure(folder: Path) -> Iterator[None]:
    """What the system says when nothing can be written, with what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"the store {folder} could not be written: {error}. The shards that are whole stay; make room, or let the "
            "folder be written to, and go on: annotation continues after them."
        ) from error


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = _read_json(folder / "manifest.json")
    if manifest is None:
        unfinished = (folder / "writing.json").is_file()
        why = (
            "was not finished: run what writes it again, it goes on where it stopped" if unfinished else "is not there"
        )
        raise DataError(f"the store {folder} {why}.")
    if manifest["format"] != FORMAT:
        raise DataError(f"{folder}: store format {manifest['format']}, this version reads {FORMAT}.")
    return manifest


def _refuse_other(folder: Path, there: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    keys = [k for k in sorted({*there, *given}) if there.get(k) != given.get(k)]
    if keys:
        differ = "; ".join(f"{k}: there {there.get(k)!r}, given {given.get(k)!r}" for k in keys)
        raise DataError(f"{folder} holds a store of other provenance ({differ}). Choose another folder or delete it.")


def _as_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance as JSON gives it back, so that it compares equal after a round trip."""
    try:
        return json.loads(json.dumps(dict(provenance)))
    except TypeError as error:
        raise DataError(f"provenance must hold what JSON can: {error}.") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as sink:
        json.dump(content, sink, indent=1)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
