"""Where text comes from: files of .py, jsonl(.gz) and parquet, Hugging Face datasets, Python's own standard library.

Every reader yields `SourceFile(name, text)` in a fixed order and counts what it had to leave out in a `CorpusReport`.
Text is taken as it is (line ends included); only a byte-order mark at its start is dropped.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import json
import os
import sysconfig
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from ra3kit.errors import DataError, nearest
from ra3kit.hub import hub_advice

TEXT_COLUMNS = ("content", "text", "code")
"""Names under which corpora keep their text: the-stack and starcoderdata (content), most others (text), MBPP (code)."""
REPO_COLUMNS = ("max_stars_repo_name", "repo_name", "repo")
PATH_COLUMNS = ("max_stars_repo_path", "path", "file_path", "filename")
ID_COLUMNS = ("id", "hexsha", "blob_id", "task_id", "name")
SUFFIXES = (".py", ".jsonl", ".jsonl.gz", ".parquet")
STDLIB_HALVES = ("base", "expert")


@dataclass(frozen=True)
class SourceFile:
    """One text of a corpus.

    Args:
        name: stable name, `repo/path` where the corpus has them, else relative path or `source:row`.
        text: the text, decoded, never blank.
    """

    name: str
    text: str


@dataclass
class CorpusReport:
    """What was read, and what was left out and why.

    Args:
        read: number of texts yielded.
        skipped: reason -> number of files or records: "undecodable", "binary", "empty", "not_json", "no_text",
            "unreadable" (a .py file that cannot be opened: no permission, a dangling link, no regular file).
        examples: reason -> the first name it was counted for.
    """

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Count one file or record that is left out."""
        self.skipped[reason] += 1
        self.examples.setdefault(reason, name)


def read_files(
    path: str | Sequence[str],
    columns: Sequence[str] | None = None,
    report: CorpusReport | None = None,
) -> Iterator[SourceFile]:
    """Read a corpus.

    Args:
        path: one source or several. A source is a folder (searched for .py, .jsonl, .jsonl.gz, .parquet, or a dataset
            saved by `datasets`), a glob, a file, `hf:owner/name[:config][:key=value...]` (keys `split`, `data_dir`,
            `revision`, `streaming`), `stdlib` (the running Python's own library without tests and site-packages),
            `stdlib:base` or `stdlib:expert` (two disjoint halves of it, by a hash of the file name), `family:base` or
            `family:expert` (generated programs, see `ra3kit.study.family`).
        columns: names of the text column, the first present is taken; default `TEXT_COLUMNS`.
        report: counts are added to it.

    Yields:
        The texts in a fixed order. Files of a folder come in the order of a hash of their relative path, so that the
        first k of them are a fair sample; records come in the order of their file.

    Raises:
        DataError: nothing there, no text column, a damaged archive, an unreachable hub dataset.
    """
    report = CorpusReport() if report is None else report
    for source in [path] if isinstance(path, str) else path:
        if not str(source).strip():
            raise DataError(f"path={path!r}: an empty text names no source. For the working folder write path=.")
        for name, text in _read_source(str(source), tuple(columns or TEXT_COLUMNS), report):
            kept = _checked(name, text, report)
            if kept is not None:
                report.read += 1
                yield kept


def stdlib_files() -> list[tuple[str, Path]]:
    """(name, path) of the running Python's standard library files, without tests and site-packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    if not root.is_dir():
        raise DataError(f"the standard library's folder {root} does not exist; give a folder of .py files instead.")
    skip = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in skip)
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return _in_hash_order((p.relative_to(root).as_posix(), p) for p in found)


def hash_fraction(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on the text and the salt alone: what fixed splits are made from."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{text}".encode()).digest()[:8], "big") / 2**64


def _read_source(source: str, columns: Sequence[str], report: CorpusReport) -> Iterator[tuple[str, object]]:
    if source.split(":")[0] == "stdlib":
        return _read_paths(_stdlib(source), columns, report)
    if source.startswith("hf:"):
        return _read_hub(source, columns)
    if source.startswith("family:"):
        return _read_family(source)
    path = Path(source)
    try:
        path = path.expanduser()
        path.is_dir()
    except (OSError, RuntimeError) as error:  # a name no file can have, or ~someone
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise DataError(f"path={source[:80]!r}: {why}.") from error
    if path.is_dir():
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return _read_saved(path, columns)
        return _read_paths(_walk(path), columns, report)
    if path.is_file():
        return _read_paths([(path.name, path)], columns, report)
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
    if matches:
        return chain.from_iterable(_read_source(m, columns, report) for m in matches if _readable(m))
    if glob.has_magic(str(path)):
        raise DataError(f"path={source!r}: no file matches this glob (working folder {os.getcwd()}).")
    raise DataError(
        f"path={source!r} does not exist (working folder {os.getcwd()}).{_nearest_path(path)} Give a folder, a glob, a "
        f"{', '.join(SUFFIXES)} file, 'hf:owner/name' for a hub dataset, 'stdlib' or 'family:base'."
    )


def _readable(match: str) -> bool:
    return match.endswith(SUFFIXES) or Path(match).is_dir()


def _stdlib(source: str) -> list[tuple[str, Path]]:
    half = source.partition(":")[2]
    if half and half not in STDLIB_HALVES:
        raise DataError(f"path={source!r}: halves are {list(STDLIB_HALVES)}.{nearest(half, STDLIB_HALVES)}")
    files = stdlib_files()
    if not half:
        return files
    return [(n, p) for n, p in files if (hash_fraction(n, "half") < 0.5) == (half == "base")]


def _walk(root: Path) -> list[tuple[str, Path]]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in ("__pycache__", "site-packages"))
        found += [Path(folder, name) for name in files if name.endswith(SUFFIXES)]
    if not found:
        raise DataError(f"path={str(root)!r} holds no {', '.join(SUFFIXES)} file and is no saved dataset.")
    return _in_hash_order((p.relative_to(root).as_posix(), p) for p in found)


def _in_hash_order(files: Iterable[tuple[str, Path]]) -> list[tuple[str, Path]]:
    return sorted(files, key=lambda pair: (hash_fraction(pair[0], "order"), pair[0]))


def _read_paths(
    files: Iterable[tuple[str, Path]], columns: Sequence[str], report: CorpusReport
) -> Iterator[tuple[str, object]]:
    for name, path in files:
        if path.name.endswith(".parquet"):
            yield from _read_parquet(name, path, columns)
        elif path.name.endswith((".jsonl", ".jsonl.gz")):
            yield from _read_jsonl(name, path, columns, report)
        elif path.name.endswith(".py"):
            yield from _read_python(name, path, report)
        else:
            raise DataError(f"path={str(path)!r}: a file must end in one of {', '.join(SUFFIXES)}.")


def _read_python(name: str, path: Path, report: CorpusReport) -> Iterator[tuple[str, object]]:
    """The text of a .py file in the encoding it declares, line ends as they are."""
    if not path.is_file():  # a dangling link, a pipe that would wait for ever
        report.skip("unreadable", name)
        return
    try:
        data = path.read_bytes()
    except OSError:
        report.skip("unreadable", name)
        return
    if b"\0" in data:
        report.skip("binary", name)
        return
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        yield name, data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        report.skip("undecodable", name)


def _read_jsonl(name: str, path: Path, columns: Sequence[str], report: CorpusReport) -> Iterator[tuple[str, object]]:
    row = -1
    if not path.is_file():
        raise DataError(f"{path}: this is no regular file.")
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as lines:
            for row, line in enumerate(lines):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deeply
                    record = None
                if isinstance(record, dict):
                    yield _named_text(record, columns, f"{name}:{row}")
                else:
                    report.skip("not_json", f"{name}:{row}")
    except (EOFError, zlib.error, OSError) as error:
        where = f"after record {row}" if row >= 0 else "before the first record"
        raise DataError(f"{path}: damaged or unreadable {where}: {error}. Fetch the file again.") from error


def _read_parquet(name: str, path: Path, columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    import pyarrow
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: this is no regular file.")
    row = 0
    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        text_column = _column(names, columns, str(path))
        wanted = [c for c in names if c == text_column or c in _NAME_COLUMNS]
        for batch in table.iter_batches(batch_size=1024, columns=wanted):
            batch = _as_bytes(batch, text_column)
            for record in batch.to_pylist():
                yield _named_text(record, columns, f"{name}:{row}")
                row += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        where = f" after record {row - 1}" if row else ""
        raise DataError(
            f"{path}: not a readable parquet file{where}: {_first_line(error)} Fetch the file again."
        ) from error


def _as_bytes(batch: Any, column: str) -> Any:
    """The batch with its text column as bytes, so that one record that is not UTF-8 does not end the file."""
    import pyarrow

    place = batch.schema.get_field_index(column)
    if place < 0 or not (
        pyarrow.types.is_string(batch.schema.types[place]) or pyarrow.types.is_large_string(batch.schema.types[place])
    ):
        return batch
    return batch.set_column(place, column, batch.column(place).cast(pyarrow.large_binary()))


def _read_saved(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    import datasets
    import pyarrow

    try:
        dataset = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
        raise DataError(
            f"path={str(path)!r}: the saved dataset is damaged or not whole: {_first_line(error)} Save it again."
        ) from error
    return _read_dataset(dataset, path.name, columns)


def _read_hub(source: str, columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    """`hf:owner/name[:config][:key=value...]` through `datasets.load_dataset`, split "train" unless said otherwise."""
    import datasets

    name, *parts = source.removeprefix("hf:").split(":")
    if not name.strip():
        raise DataError(f"path={source!r}: name a dataset, hf:owner/name.")
    options: dict[str, Any] = {"split": "train"}
    config = None
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            config = part
        elif key in ("split", "data_dir", "revision"):
            options[key] = value
        elif key == "streaming":
            options[key] = value.lower() == "true"
        else:
            allowed = ["split", "data_dir", "revision", "streaming"]
            raise DataError(f"path={source!r}: unknown key {key!r}, allowed are {allowed}.{nearest(key, allowed)}")
    try:
        dataset = datasets.load_dataset(name, config, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        why = hub_advice(f"hf download --repo-type dataset {name} --local-dir FOLDER", "data.path=FOLDER")
        raise DataError(f"path={source!r}: the dataset cannot be loaded. {why} ({_first_line(error)})") from error
    return _read_dataset(dataset, name, columns)


def _read_family(source: str) -> Iterator[tuple[str, object]]:
    from ra3kit.study.family import find_family  # a plug-in: the study is built on the data, not the data on the study

    found = find_family(source, ("base", "expert"))
    if found.part is None:
        raise DataError(f"path={source!r}: which corpus? family:base or family:expert.")
    return ((program.name, program.text) for program in found.programs())


def _read_dataset(dataset: Any, name: str, columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    if hasattr(dataset, "keys"):  # a DatasetDict: the training split, or the only one
        splits = list(dataset.keys())
        if "train" not in splits and len(splits) != 1:
            raise DataError(f"{name}: which split? It has {splits} and no 'train'.")
        dataset = dataset["train" if "train" in splits else splits[0]]
    names = dataset.column_names
    if names is not None:
        text_column = _column(names, columns, name)
        dataset = dataset.select_columns([c for c in names if c == text_column or c in _NAME_COLUMNS])
    for row, record in enumerate(dataset):
        yield _named_text(record, columns, f"{name}:{row}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."


_NAME_COLUMNS = frozenset((*REPO_COLUMNS, *PATH_COLUMNS, *ID_COLUMNS))


def _named_text(record: Mapping[str, Any], columns: Sequence[str], fallback: str) -> tuple[str, object]:
    text = record[_column(list(record), columns, fallback)]
    if isinstance(text, bytes):
        text = _decoded(text)
    return _record_name(record, fallback), text


def _decoded(data: bytes) -> str:
    """UTF-8 as text; what is none as lone surrogates, which are counted as undecodable later."""
    return data.decode("utf-8", "surrogateescape")


def _column(names: Sequence[str], columns: Sequence[str], where: str) -> str:
    for column in columns:
        if column in names:
            return column
    hint = next((h for c in columns if (h := nearest(c, names))), "")
    raise DataError(
        f"{where}: no text column; looked for {list(columns)}, it has {list(names)}.{hint} Set data.columns."
    )


def _record_name(record: Mapping[str, Any], fallback: str) -> str:
    """`repo/path`, else path, else id, else where the record stands (also for a name that UTF-8 cannot spell)."""
    repo, path, key = (
        next((str(record[c]) for c in group if record.get(c) not in (None, "")), "")
        for group in (REPO_COLUMNS, PATH_COLUMNS, ID_COLUMNS)
    )
    name = (f"{repo}/{path}" if repo and path else path) or key
    return name if name and _encodable(name) else fallback


def _checked(name: str, text: object, report: CorpusReport) -> SourceFile | None:
    """The text without byte-order mark, or None (counted) where it is missing, blank, binary or not encodable."""
    if not isinstance(text, str):
        report.skip("no_text", name)
        return None
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        report.skip("binary", name)
    elif not text.strip():
        report.skip("empty", name)
    elif not _encodable(text):
        report.skip("undecodable", name)
    else:
        return SourceFile(name, text)
    return None


def _encodable(text: str) -> bool:
    """False for text with lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nearest_path(path: Path) -> str:
    """A suggestion from the folder that the path would be in."""
    parent = path.parent
    return nearest(path.name, [entry.name for entry in parent.iterdir()]) if parent.is_dir() else ""
