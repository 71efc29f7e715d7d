"""The records of a file, one after the other: a data set of gigabytes is never in memory as a whole."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from ra3kit.errors import DataError
from ra3kit.evaluation.records import SUFFIXES

Reason = Literal[
    "malformed",
    "unknown format",
    "too large",
    "no statement",
    "no tests",
    "length mismatch",
    "mixed tests",
    "unsupported tests",
    "unsupported checker",
    "unsupported language",
    "duplicate",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a record is no problem."""

_CHUNK = 1 << 20


class Rejected(DataError):
    """A record that cannot be a training problem.

    Args:
        reason: what it is counted under.
        detail: what is wrong in this record.
    """

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Row:
    """One record and where it stands; `value` is its JSON, or why it cannot be had."""

    where: str
    value: Any


def files_of(path: Path) -> list[Path]:
    """The file, or all files of a folder in the order of their names.

    Raises:
        DataError: no such file, or none of a kind that is read.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
    elif path.is_file():
        found = [path] if path.name.endswith(SUFFIXES) else []
    else:
        raise DataError(f"path={path}: no such file or folder")
    if not found:
        raise DataError(f"path={path}: a file of problems ends with {', '.join(SUFFIXES)}")
    return found


def rows(path: Path, most_bytes: int) -> Iterator[Row]:
    """The records of one file.

    Args:
        most_bytes: a longer record is rejected unread, >= 1; in parquet, where records are decoded in groups, not kept.

    Raises:
        DataError: the file cannot be read to its end.
    """
    if path.name.endswith(".parquet"):
        yield from _parquet(path)
        return
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            start = file.read(_CHUNK).lstrip()[:1]
            file.seek(0)
            lines = path.name.removesuffix(".gz").endswith(".jsonl") or start != b"["
            yield from (_lines if lines else _list)(path.name, file, most_bytes)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"path={path}: this file cannot be read: {error}") from error


def _lines(name: str, file: BinaryIO, most: int) -> Iterator[Row]:
    number = 0
    while line := file.readline(most + 1):
        number += 1
        where = f"{name}:{number}"
        if len(line) > most and not line.endswith(b"\n"):
            while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield Row(where, Rejected("too large", f"its line has more than {most} bytes"))
        elif line.strip():
            yield Row(where, _json(line))


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        return Rejected("malformed", f"not JSON ({error})")


def _list(name: str, file: BinaryIO, most: int) -> Iterator[Row]:
    """The items of a JSON list. After one that cannot be read its end is unknown: the rest is rejected with it."""
    decode = json.JSONDecoder().raw_decode
    text = codecs.getreader("utf-8")(file, "replace")
    buffer, index, size = text.read(_CHUNK).lstrip()[1:], 0, _CHUNK
    while True:
        buffer = buffer.lstrip(" \t\r\n,")
        if buffer.startswith("]"):
            return
        try:
            value, end = decode(buffer)
            if end == len(buffer) and not buffer.endswith(("}", "]", '"')):
                raise ValueError("a number may go on in the next chunk")
        except (ValueError, RecursionError) as error:
            more = text.read(size) if len(buffer) <= most else ""
            if not more:
                too_large = len(buffer) > most
                why = f"more than {most} characters" if too_large else f"not JSON ({error})"
                detail = f"{why}; the rest of this JSON list was not read: turn it into JSON lines"
                yield Row(f"{name}[{index}]", Rejected("too large" if too_large else "malformed", detail))
                return
            buffer += more
            size *= 2  # a long record is tried again a few times only
            continue
        large = Rejected("too large", f"more than {most} characters") if end > most else None
        yield Row(f"{name}[{index}]", large or value)
        buffer, index, size = buffer[end:], index + 1, _CHUNK


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet as pq

    index = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16):
                for value in batch.to_pylist():
                    yield Row(f"{path.name}[{index}]", value)
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"path={path}: not a readable parquet file: {error}") from error
