"""Corpora made at random: every text is kept exactly or left out and counted. Never anything else."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ra3kit.data.encode import decode_ids
from ra3kit.data.snippets import Corpus
from ra3kit.errors import RA3Error
from ra3kit.testing.models import CORPUS, tiny_tokenizer

pieces = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            *("\n", "\r", "\r\n", "\f", "\v", "\0", "\t", "    ", "\\\n", "\\\r", "\x85", "\u2028", "\ufeff", "\x1a"),
            *"#'\"()[]{}:;@",
            *("# why\n", "#\n", "'''", '"""', "f'{", "}'", "rb'", "lambda:", "class A:\n  '''d'''\n", "@d\n"),
            *("if x:\n    y\n", "def f():\n    pass\n", "x = 1\n"),
            *("e\u0301", "\ufb01", "\U0001f642", "日本", "<|endoftext|>", "\u200b", "# -*- coding: latin-1 -*-\n"),
            *("(" * 300, "[" * 150 + "]" * 150 + "\n", "if 1:\n" * 120, "x" * 3000, "-" * 5000 + "1\n", "\\\n" * 500),
            CORPUS,
        ]
    ),
)
texts = st.lists(pieces, max_size=10).map("".join)
surrogates = st.text(st.sampled_from("aé\ud800\udcff"), max_size=4)
records = st.one_of(
    texts.map(lambda text: json.dumps({"content": text})),
    st.tuples(texts | surrogates, surrogates).map(lambda pair: json.dumps({"content": pair[0], "path": pair[1]})),
    st.sampled_from(
        ["{", "[]", "null", '{"content": 5}', '{"content": null}', '{"content": "x"', "[" * 5000, "1" * 5000, ""]
    ),
    st.dictionaries(st.sampled_from(["content", "text", "id"]), st.one_of(texts, st.none(), st.integers())).map(
        json.dumps
    ),
)
lines = st.lists(records, max_size=5).map(lambda rows: "\n".join(rows).encode("utf-8", "surrogatepass"))
files = st.one_of(
    st.tuples(st.just("a.py"), texts.map(str.encode)),
    st.tuples(st.just("b.py"), st.binary(max_size=40)),
    st.tuples(st.just("c.py"), texts.map(lambda text: text.encode("utf-16"))),
    st.tuples(st.just("d.py"), texts.map(lambda text: text.encode("latin-1", "replace"))),
    st.tuples(st.just("e.jsonl"), lines),
    st.tuples(st.just("f.jsonl.gz"), lines.map(gzip.compress)),
    st.tuples(
        st.just("g.jsonl.gz"), st.tuples(lines.map(gzip.compress), st.integers(0, 60)).map(lambda p: p[0][: p[1]])
    ),
    st.tuples(st.just("h.parquet"), st.binary(max_size=40)),
)
corpora = st.dictionaries(st.integers(0, 3), files, max_size=3).map(lambda found: dict(found.values()))
options = st.fixed_dictionaries(
    {
        "comments": st.sampled_from(["keep", "strip", "thoughts"]),
        "docstrings": st.sampled_from(["keep", "strip"]),
        "unparsable": st.sampled_from(["keep", "drop"]),
        "long_line": st.sampled_from(["drop", "drop_file"]),
        "max_tokens": st.sampled_from([3, 20, 200, 100_000]),
        "max_lines": st.sampled_from([1, 5, 10_000]),
        "min_lines": st.just(1),
    }
)


def snippets_of(files: dict[str, bytes], choice: dict[str, Any]) -> Iterator[tuple[str, str, Corpus]]:
    """(file, text of a snippet, its corpus) for a corpus written to disk."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        corpus = Corpus(folder, **choice)
        for snippet in corpus.snippets(tiny_tokenizer()):
            trajectory = snippet.trajectory
            trajectory.check()
            yield snippet.file, decode_ids(tiny_tokenizer(), [trajectory.ids[1:-1]])[0], corpus


@settings(suppress_health_check=list(HealthCheck))
@given(files=corpora, choice=options)
@example({"a.py": ("(" * 300).encode()}, {"unparsable": "keep", "min_lines": 1})
@example({"a.py": b"x = 1\r\ry = 2\f\n"}, {"unparsable": "keep", "min_lines": 1})
@example({"e.jsonl": b"[" * 100_000}, {})
def test_any_corpus_is_read_or_refused(files: dict[str, bytes], choice: dict[str, Any]) -> None:
    try:
        for file, text, _ in snippets_of(files, choice):
            assert file.encode()  # names are hashed, to split the corpus
            assert text
    except RA3Error as error:
        message = str(error)
        assert any(name in message for name in files) or "holds no" in message, message


@settings(suppress_health_check=list(HealthCheck))
@given(text=texts)
def test_a_text_that_is_kept_is_kept_exactly(text: str) -> None:
    """With room for every line, the joined snippets are the text; or the file is left out, and that is counted."""
    choice = {"unparsable": "keep", "min_lines": 1, "max_tokens": 10**6, "max_lines": 10**6}
    record = json.dumps({"content": text, "id": "a"}).encode()
    found = list(snippets_of({"a.jsonl": record, "b.py": b"x = 1\n"}, choice))
    joined = "".join(part for file, part, _ in found if file == "a")
    report = found[0][2].report
    dropped = sum(report.dropped_files.values())
    assert dropped + len({file for file, *_ in found}) == 2
    if not dropped:
        assert joined == text.removeprefix("\ufeff")
        assert not report.dropped_lines
