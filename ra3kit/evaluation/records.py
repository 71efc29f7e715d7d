"""Records of benchmark files: JSON, JSON lines and parquet, read whole, with every record that cannot be used named."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ra3kit.errors import AbsentData, DataError
from ra3kit.verify.problem import Problem

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class Record:
    """One record and where it stands, as in "HumanEval.jsonl.gz:12"."""

    where: str
    value: Any


@dataclass(frozen=True)
class Malformed:
    """A record that was left out, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class Problems:
    """What was read: the problems in the file's order, the records left out, and the files.

    The contract of a reader: problems with unique ids and a prompt, the same when read again, whose reference solutions
    pass. `ra3kit.testing.check_benchmark` checks these.

    Args:
        problems: unique ids.
        malformed: records that are no problem of this benchmark, each with its reason.
        source: the file or folder, for the eval card.
    """

    problems: list[Problem] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    source: str = ""


def read_records(path: Path) -> tuple[list[Record], list[Malformed]]:
    """The records of a file, or of all files of a folder in the order of their names.

    A `.json` file is a list of records, or JSON lines under another name.

    Raises:
        DataError: no such file, another kind of file, or a file that cannot be read at all.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        if not files:
            raise AbsentData(f"path={path}: no file here ends with {', '.join(SUFFIXES)}")
        parts = [read_records(file) for file in files]
        return [r for records, _ in parts for r in records], [m for _, malformed in parts for m in malformed]
    if not path.is_file():
        raise AbsentData(f"path={path}: no such file or folder")
    if path.name.endswith(".parquet"):
        return _read_parquet(path), []
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"path={path}: a benchmark file ends with {', '.join(SUFFIXES)}")
    text = read_text(path)
    if not path.name.endswith((".jsonl", ".jsonl.gz")) and text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise DataError(f"path={path}: this is no JSON list: {error}") from error
        return [Record(f"{path.name}[{i}]", row) for i, row in enumerate(rows)], []
    return _json_lines(path.name, text)


def read_text(path: Path) -> str:
    """The text of a plain or gzipped file.

    Raises:
        DataError: it is cut short, not gzip, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"path={path}: this file cannot be read: {error}") from error


def _json_lines(name: str, text: str) -> tuple[list[Record], list[Malformed]]:
    records, malformed = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(Record(f"{name}:{number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            malformed.append(Malformed(f"{name}:{number}", f"not JSON ({error})"))
    return records, malformed


def _read_parquet(path: Path) -> list[Record]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"path={path}: not a readable parquet file: {error}") from error
    return [Record(f"{path.name}[{i}]", row) for i, row in enumerate(rows)]


def convert(path: Path, make: Callable[[int, dict[str, Any]], Problem | None]) -> Problems:
    """The problems of a file.

    Args:
        path: file or folder.
        make: from (index, record) to a problem; None for a record that was not asked for (another split, other dates).
            A `DataError` says that the record is malformed, and why.

    Raises:
        DataError: nothing usable in the file.
    """
    records, malformed = read_records(path)
    problems: dict[str, Problem] = {}
    skipped = 0
    for index, record in enumerate(records):
        try:
            if not isinstance(record.value, dict):
                raise DataError(f"a record is an object with named fields, not {type(record.value).__name__}")
            problem = make(index, record.value)
            if problem is None:
                skipped += 1
                continue
            if problem.id in problems:
                raise DataError(f"the id {problem.id!r} was there before")
        except DataError as error:
            malformed.append(Malformed(record.where, str(error)))
            continue
        problems[problem.id] = problem
    if not problems:
        reasons = "".join(f"\n  {m}" for m in malformed[:3])
        raise DataError(
            f"path={path}: no usable record ({len(malformed)} malformed, {skipped} of other splits or dates).{reasons}"
        )
    return Problems(list(problems.values()), malformed, str(path))


def field_of(record: dict[str, Any], *names: str, kind: type | tuple[type, ...] = str, default: Any = ...) -> Any:
    """The first of these fields that is there.

    Raises:
        DataError: none is there and no default is given, or it is of another type.
    """
    for name in names:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind):
            wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise DataError(f"{name}={_short(value)} is {type(value).__name__}, not {wanted}")
        return value
    if default is ...:
        raise DataError(f"no field {' or '.join(map(repr, names))}; it has {', '.join(sorted(record)) or 'none'}")
    return default


def json_field(value: Any, name: str) -> Any:
    """A field that may be JSON in a string.

    Raises:
        DataError: a string that is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is no JSON: {error}") from error


def strings(values: Iterable[Any], name: str) -> list[str]:
    """The values, if they are all strings.

    Raises:
        DataError: one is not.
    """
    out = list(values)
    for i, value in enumerate(out):
        if not isinstance(value, str):
            raise DataError(f"{name}[{i}]={_short(value)} is {type(value).__name__}, not str")
    return out


def _short(value: Any, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."
