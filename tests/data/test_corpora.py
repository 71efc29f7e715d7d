from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ra3kit.data.corpora import CorpusReport, read_files, stdlib_files
from ra3kit.errors import DataError

RECORDS = [
    {"max_stars_repo_name": "o/r", "max_stars_repo_path": "a/b.py", "content": "x = 1\r\n", "id": "7"},
    {"max_stars_repo_name": "o/r", "max_stars_repo_path": "c.py", "content": "y = 2", "id": "8"},
]
NAMED = [("o/r/a/b.py", "x = 1\r\n"), ("o/r/c.py", "y = 2")]


def read(path: Any, **options: Any) -> list[tuple[str, str]]:
    return [(file.name, file.text) for file in read_files(str(path) if isinstance(path, Path) else path, **options)]


def jsonl(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All kinds of files, and some that must be left alone."""
    root = tmp_path / "corpus"
    (root / "sub" / "deep").mkdir(parents=True)
    for hidden in (".git", "__pycache__", "site-packages"):
        (root / hidden).mkdir()
        (root / hidden / "no.py").write_text("no = 1\n")
    (root / "a.py").write_bytes(b"a = 1\r\n")
    (root / "sub" / "b.py").write_text("b = 1\n")
    (root / "notes.txt").write_text("no")
    (root / "sub" / "c.jsonl").write_text(jsonl([{"text": "c = 1\n"}, {"text": "c = 2\n", "path": "named.py"}]))
    (root / "sub" / "d.jsonl.gz").write_bytes(gzip.compress(jsonl([{"content": "d = 1\n"}]).encode()))
    pq.write_table(pa.table({"code": ["e = 1\n"], "task_id": [11]}), root / "sub" / "deep" / "e.parquet")
    return root


FOLDER = {
    ("a.py", "a = 1\r\n"),
    ("sub/b.py", "b = 1\n"),
    ("sub/c.jsonl:0", "c = 1\n"),
    ("named.py", "c = 2\n"),
    ("sub/d.jsonl.gz:0", "d = 1\n"),
    ("11", "e = 1\n"),
}


def test_folder(folder: Path, tmp_path: Path) -> None:
    report = CorpusReport()
    files = read(folder, report=report)
    assert set(files) == FOLDER
    assert len(files) == report.read == 6
    assert not report.skipped
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert read(tmp_path / "elsewhere") == files  # names and order depend on the content of the folder alone


def test_glob_file_and_list(folder: Path) -> None:
    assert set(read(f"{folder}/**/*.py")) >= {("a.py", "a = 1\r\n"), ("b.py", "b = 1\n")}
    assert read(folder / "sub" / "b.py") == [("b.py", "b = 1\n")]
    assert read([str(folder / "a.py"), str(folder / "sub" / "d.jsonl.gz")]) == [
        ("a.py", "a = 1\r\n"),
        ("d.jsonl.gz:0", "d = 1\n"),
    ]
    assert read(f"{folder}/*") != []  # what is not a corpus file is passed over


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet", "saved", "saved splits"])
def test_the_stack_columns_in_every_container(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        path.write_text(jsonl(RECORDS))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(jsonl(RECORDS).encode()))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=1)
    elif kind == "saved":
        datasets.Dataset.from_list(RECORDS).save_to_disk(path)
    else:
        train = datasets.Dataset.from_list(RECORDS)
        datasets.DatasetDict({"train": train, "test": train.select([0])}).save_to_disk(path)
    assert read(path) == NAMED


def test_splits_without_train_must_be_one(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict({"a": data}).save_to_disk(tmp_path / "one")
    assert read(tmp_path / "one") == NAMED
    datasets.DatasetDict({"a": data, "b": data}).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match=r"which split\? It has \['a', 'b'\]"):
        read(tmp_path / "two")


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(jsonl([{"body": "x = 1", "text": "y = 1"}]))
    assert read(path) == [("data.jsonl:0", "y = 1")]
    assert read(path, columns=["body"]) == [("data.jsonl:0", "x = 1")]
    with pytest.raises(DataError, match=r"looked for \['bodi'\], it has \['body', 'text'\]. Did you mean 'body'\?"):
        read(path, columns=["bodi"])


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    (tmp_path / "binary.py").write_bytes(b"x = 1\0")
    (tmp_path / "latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    (tmp_path / "declared.py").write_bytes("# coding: latin-1\nx = 'é'\n".encode("latin-1"))
    (tmp_path / "unknown.py").write_bytes(b"# coding: klingon\nx = 1\n")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfx = 1\n")
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "blank.py").write_bytes(b" \n\n")
    lines = [
        '{"text": "ok = 1"}',
        "not json",
        '{"text": null}',
        "[1]",
        "",
        '{"text": "\\ufeffok = 2"}',
        '{"text": "\\ud800"}',
        '{"text": "a\\u0000"}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    report = CorpusReport()
    files = dict(read(tmp_path, report=report))
    assert files == {
        "declared.py": "# coding: latin-1\nx = 'é'\n",
        "bom.py": "x = 1\n",
        "r.jsonl:0": "ok = 1",
        "r.jsonl:5": "ok = 2",
    }
    assert report.read == 4
    assert dict(report.skipped) == {"binary": 2, "undecodable": 3, "empty": 2, "not_json": 2, "no_text": 1}
    assert report.examples["no_text"] == "r.jsonl:2"


def test_damaged_archives_are_errors(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl([{"text": f"x = {i}"} for i in range(1000)]).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.jsonl.gz: damaged or unreadable after record \d+"):
        read(tmp_path / "cut.jsonl.gz")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match=r"bad.parquet: not a readable parquet file"):
        read(tmp_path / "bad.parquet")


def test_missing_sources_name_the_nearest(folder: Path) -> None:
    empty = folder / "nothing"
    empty.mkdir()
    with pytest.raises(DataError, match=r"does not exist .* Did you mean 'corpus'\?"):
        read(folder.parent / "corpsu")
    with pytest.raises(DataError, match="no file matches this glob"):
        read(f"{folder}/*.pyx")
    with pytest.raises(DataError, match=r"holds no \.py"):
        read(empty)
    with pytest.raises(DataError, match="must end in one of"):
        read(folder / "notes.txt")
    with pytest.raises(DataError, match=r"Did you mean 'expert'\?"):
        read("stdlib:exprt")


def test_stdlib_halves_are_disjoint_and_complete() -> None:
    names = {name for name, _ in stdlib_files()}
    assert {"ast.py", "asyncio/base_events.py"} <= names
    assert not any("test" in Path(name).parts or "site-packages" in name for name in names)
    base, expert = ({name for name, _ in read(f"stdlib:{half}")} for half in ("base", "expert"))
    assert not base & expert
    assert base | expert == {name for name, _ in read("stdlib")}
    assert min(len(base), len(expert)) > 0.3 * len(base | expert)


def test_hub_dataset_is_loaded_by_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        calls.append((args, options))
        return datasets.Dataset.from_list(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("hf:bigcode/starcoderdata:data_dir=python") == NAMED
    assert read("hf:owner/name:config:split=validation:revision=abc") == NAMED
    assert calls == [
        (("bigcode/starcoderdata", None), {"split": "train", "data_dir": "python"}),
        (("owner/name", "config"), {"split": "validation", "revision": "abc"}),
    ]
    with pytest.raises(DataError, match=r"unknown key 'spilt'.*Did you mean 'split'\?"):
        read("hf:owner/name:spilt=train")


def test_streamed_hub_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = datasets.Dataset.from_list(RECORDS).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, streaming, **__: stream if streaming else None)
    assert read("hf:owner/name:streaming=true") == NAMED


def test_hub_dataset_offline_is_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"'hf:no-one/nothing': the dataset cannot be loaded\. HF_HUB_OFFLINE is set"):
        read("hf:no-one/nothing")
