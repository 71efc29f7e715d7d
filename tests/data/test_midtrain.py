"""All of the shared mid-training corpus can be read, cut and encoded; the account is printed (`pytest -s`)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from ra3kit.actions import PythonLines
from ra3kit.data.corpora import CorpusReport, read_files
from ra3kit.data.encode import decode_ids
from ra3kit.data.snippets import Corpus


@pytest.fixture
def midtrain(shared_data: Path) -> Path:
    folder = shared_data / "midtrain"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def test_every_record_is_read_and_cut(midtrain: Path) -> None:
    report = CorpusReport()
    files = list(read_files(str(midtrain), report=report))
    assert not report.skipped
    assert len(files) == report.read > 2000
    assert len({file.name for file in files}) == len(files)
    lines = 0
    for file in files:
        actions = PythonLines().segment(file.text)
        assert "".join(a.text for a in actions) == file.text
        lines += len(actions)
    print(
        f"\n{len(files)} files, {sum(len(f.text) for f in files)} characters, {lines} lines, skipped {report.skipped}"
    )


def test_snippets_of_every_archive(midtrain: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    print()
    total = 0
    for archive in sorted(midtrain.glob("*.jsonl.gz")):
        corpus = Corpus(str(archive), comments="strip", limit_files=60)
        started = time.perf_counter()
        made = list(corpus.snippets(tokenizer))
        seconds = time.perf_counter() - started
        report = corpus.report
        print(
            f"{archive.name:<32} {report.files:>4} files {report.snippets:>5} snippets {report.code_tokens:>7} tokens "
            f"dropped files {dict(report.dropped_files)} lines {dict(report.dropped_lines)} {seconds:.1f} s"
        )
        assert made, archive.name
        assert not report.dropped_files, archive.name  # everything in it parses and is unique
        sample = made[len(made) // 2].trajectory
        sample.check()
        assert "\ufffd" not in decode_ids(tokenizer, [sample.ids.tolist()])[0]
        total += report.code_tokens
    assert total > 100_000
