"""Corpora that are damaged or hold nothing of use: what was left out is named, what cannot be read is an error."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ra3kit.data.corpora import CorpusReport, read_files
from ra3kit.testing.models import CORPUS

LINE = json.dumps({"content": CORPUS}) + "\n"
ZIPPED = gzip.compress(LINE.encode() * 200)


def file(name: str, content: str | bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def parquet(change: Callable[[bytes], bytes] = lambda data: data, **columns: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pq.write_table(pa.table(columns or {"content": [CORPUS] * 50}), folder / "a.parquet")
        (folder / "a.parquet").write_bytes(change((folder / "a.parquet").read_bytes()))

    return make


def saved(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import datasets

        datasets.disable_progress_bars()
        datasets.Dataset.from_dict({"content": [CORPUS] * 3}).save_to_disk(str(folder))
        change(folder)

    return make


def cut(folder: Path) -> None:
    shard = next(folder.glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-100])


def nothing(folder: Path) -> None:
    pass


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "empty folder": (nothing, ["path='x' holds no .py", ".parquet"]),
    "other files only": (file("a.txt", "x"), ["path='x' holds no .py"]),
    "a folder named like a file": (lambda f: (f / "x.py").mkdir(), ["path='x' holds no .py"]),
    "empty file": (file("a.py", ""), ["0 texts read", "1 empty (first: a.py)"]),
    "binary": (file("a.py", bytes(range(256))), ["1 binary (first: a.py)", "Give text"]),
    "another encoding": (file("a.py", b"x = '\xff'\n"), ["1 undecodable (first: a.py)", "UTF-8"]),
    "dangling link": (lambda f: (f / "x.py").symlink_to("/nowhere"), ["1 unreadable (first: x.py)", "links"]),
    "link to itself": (lambda f: (f / "x.py").symlink_to("x.py"), ["1 unreadable (first: x.py)"]),
    "a pipe": (lambda f: os.mkfifo(f / "x.py"), ["1 unreadable (first: x.py)"]),
    "a pipe of records": (lambda f: os.mkfifo(f / "x.jsonl"), ["x.jsonl", "no regular file"]),
    "one line": (file("a.py", "x = 1\n"), ["1 texts read", "1 short snippet (first: a.py)", "data.min_lines"]),
    "not Python": (file("a.py", "def f(:\n  x\n"), ["1 unparsable (first: a.py)", "data.unparsable=keep"]),
    "lines too long": (file("a.py", f"x = '{'a' * 5000}'\ny = '{'b' * 5000}'\n"), ["2 long line", "data.max_tokens"]),
    "comments only": (file("a.py", "# a\n# b\n"), ["1 only comments", "data.comments=keep"]),
    "no text column": (
        file("a.jsonl", '{"contents": "x"}\n'),
        ["a.jsonl:0", "['contents']", "Did you mean", "data.columns"],
    ),
    "no text column later": (file("a.jsonl", LINE + '{"n": 1}\n'), ["a.jsonl:1", "['n']", "data.columns"]),
    "text is a number": (file("a.jsonl", '{"content": 5}\n{"content": null}\n'), ["2 no_text (first: a.jsonl:0)"]),
    "no records": (file("a.jsonl", "[1]\n5\n{bad\n"), ["3 not_json (first: a.jsonl:0)", "one JSON object a line"]),
    "records not UTF-8": (file("a.jsonl", b"\xff\xfe{}\n"), ["1 not_json (first: a.jsonl:0)"]),
    "record nested deeply": (file("a.jsonl", "[" * 100_000), ["1 not_json (first: a.jsonl:0)"]),
    "gz cut": (file("a.jsonl.gz", ZIPPED[:-20]), ["a.jsonl.gz", "after record 19", "Fetch the file again"]),
    "gz damaged": (
        file("a.jsonl.gz", ZIPPED[:30] + b"\0\0\0\0" + ZIPPED[34:]),
        ["a.jsonl.gz", "before the first record"],
    ),
    "no gz": (file("a.jsonl.gz", "text"), ["a.jsonl.gz", "before the first record"]),
    "parquet cut": (parquet(lambda data: data[:-20]), ["a.parquet", "not a readable parquet file"]),
    "parquet empty": (file("a.parquet", b""), ["a.parquet", "0 bytes"]),
    "parquet damaged": (
        parquet(lambda data: data[:4] + bytes(200) + data[204:]),
        ["a.parquet", "Fetch the file again"],
    ),
    "parquet without text": (parquet(txt=["x"]), ["a.parquet", "['txt']", "data.columns"]),
    "parquet of numbers": (parquet(content=[1, 2]), ["2 no_text (first: a.parquet:0)", "data.columns"]),
    "parquet of structs": (parquet(content=[{"a": 1}]), ["1 no_text (first: a.parquet:0)"]),
    "dataset cut": (saved(cut), ["path='x'", "saved dataset is damaged"]),
    "dataset without its shard": (saved(lambda f: next(f.glob("*.arrow")).unlink()), ["saved dataset is damaged"]),
    "dataset without its state": (saved(lambda f: (f / "state.json").unlink()), ["saved dataset is damaged"]),
    "dataset info damaged": (
        saved(lambda f: (f / "dataset_info.json").write_text("{bad")),
        ["saved dataset is damaged"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_corpus_without_use(refused, desk: Path, name: str) -> None:
    make, words = BROKEN[name]
    (desk / "x").mkdir()
    make(desk / "x")
    message = refused("fit", "--recipe", "ntp.yaml", "--dry-run", "data.path=x")
    assert all(word in message for word in words), message


PATHS: dict[str, tuple[str, list[str]]] = {
    "nothing there": ("cod", ["path='cod' does not exist", "Did you mean 'code'?"]),
    "empty": ("''", ["path=''", "path=."]),
    "empty in a list": ("[code, '']", ["path=['code', '']"]),
    "no list at all": ("[]", ["path=[]", "0 texts read"]),
    "another kind of file": ("ntp.yaml", ["path='ntp.yaml'", ".jsonl.gz"]),
    "below a file": ("ntp.yaml/x", ["path='ntp.yaml/x' does not exist"]),
    "a glob without files": ("'no/*.py'", ["path='no/*.py'", "no file matches"]),
    "a name no file can have": ("n" * 5000, ["path='nnn", "File name too long"]),
    "somebody's home": ("~nobody-of-that-name/x", ["path='~nobody-of-that-name/x'", "home"]),
    "half of the library": ("stdlib:exprt", ["'stdlib:exprt'", "Did you mean 'expert'?"]),
    "hub, no name": ("'hf:'", ["path='hf:'", "hf:owner/name"]),
    "hub, unknown key": ("hf:a/b:splt=x", ["'splt'", "Did you mean 'split'?"]),
    "hub, offline": (
        "hf:a/b",
        ["path='hf:a/b'", "HF_HUB_OFFLINE", "hf download --repo-type dataset a/b", "data.path="],
    ),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_leads_nowhere(refused, name: str) -> None:
    path, words = PATHS[name]
    message = refused("fit", "--recipe", "ntp.yaml", "--dry-run", f"data.path={path}")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("path", ["os.nope", "nope.f", "nodots", "..x", "", "boom.f"])
def test_a_decontaminator_that_is_none(refused, desk: Path, path: str) -> None:
    (desk / "boom.py").write_text("1 / 0\n")
    assert f"decontaminate='{path}'" in refused(
        "fit", "--recipe", "ntp.yaml", "--dry-run", f"data.decontaminate='{path}'"
    )


def test_what_is_wrong_among_good_is_left_out_and_counted_by_record(tmp_path: Path) -> None:
    """A bad line, a null, bytes that are no UTF-8, a lone surrogate, an odd name: the good records still come."""
    good = ["a = 1\n", "b = 2\n"]
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"content": good[0], "id": "x\ud800"})
        + '\n{bad\n\n{"content": "\\ud800"}\n{"content": null}\n'
        + json.dumps({"content": good[1], "id": [1]})
    )
    report = CorpusReport()
    found = {file.name: file.text for file in read_files(str(tmp_path), report=report)}
    assert found == {"a.jsonl:0": good[0], "[1]": good[1]}  # a name that UTF-8 cannot spell is not used
    assert report.examples == {"not_json": "a.jsonl:1", "undecodable": "a.jsonl:3", "no_text": "a.jsonl:4"}
    assert report.skipped == {"not_json": 1, "undecodable": 1, "no_text": 1}


@pytest.mark.parametrize("binary", [True, False], ids=["a column of bytes", "a column of text that is none"])
def test_parquet_records_that_are_not_utf8_are_left_out_one_by_one(tmp_path: Path, binary: bool) -> None:
    values = [b"a = 1\n", b"\xff\xfe", None, "é = 2\n".encode()]
    column = pa.array(values, pa.binary())
    if not binary:  # Arrow does not look when it is told that bytes are text
        column = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
    pq.write_table(pa.table({"content": column}), tmp_path / "a.parquet")
    report = CorpusReport()
    assert [file.text for file in read_files(str(tmp_path), report=report)] == ["a = 1\n", "é = 2\n"]
    assert report.examples == {"undecodable": "a.parquet:1", "no_text": "a.parquet:2"}


def test_an_unreadable_file_among_good_ones_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(f"{name[0]} = 1\n")
    read = Path.read_bytes
    forbidden = PermissionError(13, "Permission denied")

    def locked(path: Path) -> bytes:
        if path.name == "a.py":
            raise forbidden
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", locked)  # a permission would not stop root
    report = CorpusReport()
    assert [file.name for file in read_files(str(tmp_path), report=report)] == ["b.py"]
    assert report.examples == {"unreadable": "a.py"}


def test_folders_that_hold_themselves_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "again").symlink_to(".")
    assert [file.name for file in read_files(str(tmp_path))] == ["a.py"]


def test_the_plan_names_the_first_record_left_out_for_each_reason(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ra3kit.cli import main

    (desk / "x.jsonl").write_text(LINE + "{bad\n" + LINE.replace("total", "sum"))
    shutil.rmtree(desk / "code" / "__pycache__", ignore_errors=True)
    assert main(["fit", "--recipe", "ntp.yaml", "--dry-run", "data.path=x.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "x.jsonl:1" in out.partition("first_dropped")[2].partition("tokenizer")[0]
