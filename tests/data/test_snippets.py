from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from ra3kit.actions import PythonLines, PythonStatements, Sentences
from ra3kit.data.encode import decode_ids, encode_texts
from ra3kit.data.snippets import Corpus, cut_lines, held_out, text_key
from ra3kit.data.tokenizer import train_byte_level_bpe
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError

TOKENIZER = train_byte_level_bpe(["def f(x):\n    # comment\n    return x + 1\n"] * 9, 300)


def is_contaminated(text: str) -> bool:
    """A decontamination hook, found by its import path."""
    return "secret" in text


def write(folder: Path, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_bytes(text.encode())
    return str(folder)


def snippets(path: str, **options: Any) -> tuple[dict[str, str], Corpus]:
    """snippet id -> its text, and the corpus with its report."""
    corpus = Corpus(path, **options)
    made = list(corpus.snippets(TOKENIZER))
    for snippet in made:
        snippet.trajectory.check()
        assert not len(snippet.trajectory.thoughts)
    return {s.trajectory.snippet_id: text_of(s.trajectory) for s in made}, corpus


def text_of(trajectory: Trajectory) -> str:
    return decode_ids(TOKENIZER, [trajectory.ids[1:-1].tolist()])[0]


def test_a_file_within_the_limits_is_one_snippet(tmp_path: Path) -> None:
    text = "def f(x):\r\n    # why\r\n\r\n    return x"
    found, corpus = snippets(write(tmp_path, a=text))
    assert found == {"a.py#0": text}
    assert (corpus.report.files, corpus.report.snippets) == (1, 1)
    assert corpus.report.code_tokens == len(encode_texts(TOKENIZER, [text])[0])


def test_comments_and_docstrings(tmp_path: Path) -> None:
    path = write(tmp_path, a='def f(x):  # c\n    """Doc # not a comment."""\n    # why\n    return x\n')
    assert snippets(path, comments="strip")[0] == {
        "a.py#0": 'def f(x):\n    """Doc # not a comment."""\n    return x\n'
    }
    assert snippets(path, comments="strip", docstrings="strip")[0] == {"a.py#0": "def f(x):\n    return x\n"}
    assert "# why" in snippets(path, docstrings="strip")[0]["a.py#0"]


def test_every_file_left_out_is_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        good="x = 1\ny = 2\n",
        again="x = 1\ny = 2\n",
        broken="def f(:\n    x\n",
        leaked="secret = 1\nx = 2\n",
        remarks="# a\n# b\n",
        blank="\n\n",
    )
    options = {"comments": "strip", "decontaminate": f"{__name__}.is_contaminated"}
    found, corpus = snippets(path, **options)
    assert len(found) == 1
    assert corpus.report.files == 5  # the blank file is not a text
    assert corpus.report.dropped_files == Counter(
        unparsable=1, contaminated=1, duplicate=1, empty=1, **{"only comments": 1}
    )
    assert corpus.report.examples["unparsable"] == "broken.py"
    kept, corpus = snippets(path, unparsable="keep", **options)
    assert "broken.py#0" in kept
    assert "unparsable" not in corpus.report.dropped_files


def test_records_of_one_name_keep_apart(tmp_path: Path) -> None:
    records = [{"path": "a.py", "text": f"x = {i}\ny = {i}\n"} for i in range(3)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert list(snippets(str(tmp_path))[0]) == ["a.py#0", "a.py~2#0", "a.py~3#0"]


def test_long_files_are_cut_at_top_level_statements(tmp_path: Path) -> None:
    functions = [f"# number {i}\ndef f{i}(x):\n    y = x\n\n    return y\n\n\n" for i in range(6)]
    found, _ = snippets(write(tmp_path, a="".join(functions)), max_lines=10)
    assert list(found.values()) == ["".join(functions[i : i + 2]) for i in (0, 2, 4)]
    assert list(found) == ["a.py#0", "a.py#1", "a.py#2"]


def test_long_statements_are_cut_where_a_latent_may_stand(tmp_path: Path) -> None:
    text = "def f(x):\n    a = 1\n    b = (1,\n         2,\n         3)\n    c = 1\n    d = 2\n"
    found, corpus = snippets(write(tmp_path, a=text), max_lines=4)
    assert list(found.values()) == ["def f(x):\n    a = 1\n", "    b = (1,\n         2,\n         3)\n    c = 1\n"]
    assert corpus.report.dropped_lines == Counter({"short snippet": 1})


def test_what_no_snippet_can_hold_is_counted(tmp_path: Path) -> None:
    text = 'x = 1\ny = 2\nz = """\n' + "line\n" * 9 + '"""\na = 1\nb = 2\n'
    found, corpus = snippets(write(tmp_path, a=text), max_lines=4)
    assert list(found.values()) == ["x = 1\ny = 2\n", "a = 1\nb = 2\n"]
    assert corpus.report.dropped_lines == Counter({"no cut": 11})
    text = "x = 1\ny = 2\nz = [" + "1, " * 300 + "]\na = 1\nb = 2\n"
    found, corpus = snippets(write(tmp_path, a=text), max_tokens=100)
    assert list(found.values()) == ["x = 1\ny = 2\n", "a = 1\nb = 2\n"]
    assert corpus.report.dropped_lines == Counter({"long line": 1})
    found, corpus = snippets(write(tmp_path, a=text), max_tokens=100, long_line="drop_file")
    assert found == {}
    assert corpus.report.dropped_files == Counter({"long line": 1})


def test_limits_hold_on_real_files(tmp_path: Path) -> None:
    corpus = Corpus("stdlib", comments="strip", max_tokens=256, max_lines=20, min_lines=3, limit_files=40)
    made = [s.trajectory for s in corpus.snippets(TOKENIZER)]
    assert corpus.report.files == 40
    assert len(made) == corpus.report.snippets > 50
    assert max(len(t.ids) for t in made) <= 256
    assert {3, 20} <= {len(t.lines) for t in made} <= {*range(3, 21)}
    assert all(t.may_think[0] for t in made)
    assert len({t.snippet_id for t in made}) == len(made)
    assert sum(len(t.ids) - 2 for t in made) == corpus.report.code_tokens


def test_every_line_is_kept_or_counted() -> None:
    corpus = Corpus("stdlib", max_tokens=128, max_lines=12, limit_files=30)
    kept = sum(len(s.trajectory.lines) for s in corpus.snippets(TOKENIZER))
    lines = sum(len(PythonLines().segment(file.text)) for file in Corpus("stdlib", limit_files=30).texts(set()))
    assert kept + sum(corpus.report.dropped_lines.values()) == lines
    assert set(corpus.report.dropped_lines) <= {"no cut", "long line", "short snippet"}


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), max_size=30), st.integers(1, 12))
def test_cuts_are_legal_and_nothing_is_lost(lines: list[tuple[int, bool, bool]], max_lines: int) -> None:
    lengths, may_think, strong = ([line[k] for line in lines] for k in range(3))
    strong = [s and m for s, m in zip(strong, may_think, strict=True)]
    spans, dropped = cut_lines(lengths, may_think, strong, 8, max_lines)
    end = 0
    for start, stop in spans:
        assert end <= start < stop
        assert may_think[start]
        assert stop - start <= max_lines
        assert sum(lengths[start:stop]) <= 8
        end = stop
    assert sum(stop - start for start, stop in spans) + sum(dropped.values()) == len(lines)
    if all(may_think) and max(lengths, default=0) <= 8:
        assert not dropped


def test_text_the_tokenizer_changes_is_dropped(tmp_path: Path) -> None:
    backend = Tokenizer.from_str(TOKENIZER.backend_tokenizer.to_str())
    backend.normalizer = normalizers.NFC()
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    corpus = Corpus(write(tmp_path, a="x = 'e\u0301'\ny = 1\n", b="x = '\u00e9'\ny = 1\n"))
    assert [s.file for s in corpus.snippets(tok)] == ["b.py"]
    assert corpus.report.dropped_files == Counter(inexact=1)


def test_segmenters_can_be_swapped(tmp_path: Path) -> None:
    path = write(tmp_path, a="x = (1,\n  2)\n\ny = 3\n")
    lines = {len(s.trajectory.lines) for s in Corpus(path, segmenter=PythonLines("own")).snippets(TOKENIZER)}
    statements = {len(s.trajectory.lines) for s in Corpus(path, segmenter=PythonStatements()).snippets(TOKENIZER)}
    assert (lines, statements) == ({4}, {2})
    (tmp_path / "t.jsonl").write_text('{"text": "One sentence. And two! Three?"}\n')
    found, _ = snippets(str(tmp_path / "t.jsonl"), segmenter=Sentences(), unparsable="keep", max_lines=2)
    assert found == {"t.jsonl:0#0": "One sentence. And two!"}


def test_excluded_texts(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path, a="x = 1\ny = 1\n", b="x = 2\ny = 2\n"))
    assert [s.file for s in corpus.snippets(TOKENIZER, exclude={text_key("x = 1\ny = 1\n")})] == ["b.py"]
    assert corpus.report.dropped_files == Counter(excluded=1)
    assert corpus.keys == {"b.py": text_key("x = 2\ny = 2\n")}


def test_split_is_by_name_and_stable() -> None:
    names = [f"{i}.py" for i in range(2000)]
    out = held_out(names, 0.05)
    assert 60 < len(out) < 140
    assert held_out(names[:1000], 0.05) == out & set(names[:1000])
    assert held_out(names, 0.0) == set()
    assert out < held_out(names, 0.1)
    assert len(held_out(["a", "b", "c"], 1e-6)) == 1
    assert held_out(["a"], 1e-6) == set()
    with pytest.raises(DataError, match=r"val_fraction=1\.5"):
        held_out(names, 1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"comments": "stripp"}, "comments='stripp'.*Did you mean 'strip'"),
        ({"unparsable": "yes"}, r"unparsable='yes': allowed are \['keep', 'drop'\]"),
        ({"max_tokens": 2}, "max_tokens=2: must be a whole number of at least 3"),
        ({"min_lines": 9, "max_lines": 8}, "no snippet can be kept"),
        ({"decontaminate": "no.such.module"}, "cannot import 'no.such'"),
        ({"decontaminate": "json.load_"}, r"no callable 'load_'. Did you mean 'loads?'\?"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(Corpus(write(tmp_path, a="x = 1\ny = 2\n"), **options).snippets(TOKENIZER))
