"""The two tiny recipes one after the other, small, through the command line: a base, then GRPO on judged programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ra3kit.cli import main
from ra3kit.evaluation.compare import compare, read_evaluations

BASE = [
    *("model.config.hidden_size=32", "model.config.num_hidden_layers=2", "model.config.intermediate_size=64"),
    *("model.tokenizer.vocab_size=300", "data.path=family:base:n=120", "model.tokenizer.corpus=family:base:n=120"),
    *("trainer.max_steps=4", "data.max_val_snippets=4"),
]
# a base this raw solves nothing: lengths are what its groups can differ in
RLVR = [
    *("model.max_new_tokens=40", "model.gate=reward", "model.mask_truncated=false", "model.group_size=4"),
    *("model.reward.overlong_buffer=40", "model.temperature=1.5", "data.prompts_per_step=2", "trainer.max_steps=3"),
    *("trainer.callbacks.1.limit=3", "trainer.callbacks.1.n=2", "trainer.callbacks.1.every_n_steps=2"),
]


def test_a_base_is_pretrained_and_post_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["fit", "--recipe", "tiny-base", *BASE]) == 0
        assert main(["fit", "--recipe", "tiny-rlvr", *RLVR]) == 0  # starts from runs/tiny-base/001/model by itself
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "600 problems to train on" in out
    assert "the prompt of family/" in out
    run = tmp_path / "runs" / "tiny-rlvr" / "001"
    results = json.loads((run / "results.json").read_text())
    assert len(results["history"]["reward"]) == 3
    assert all(value == 0 for value in results["history"]["pass_rate"])
    assert all(-1 <= value < 0 for value in results["history"]["reward"])
    answers = [json.loads(line) for line in (run / "samples" / "step-000001.jsonl").read_text().splitlines()]
    assert len(answers) == 8
    assert {answer["verdict"] for answer in answers} <= {"fail", "crash", "timeout", "memory"}
    assert any(answer["advantage"] for answer in answers)
    start, middle = (run / "eval" / "family" / f"step-{step:06d}" for step in (0, 2))
    [found] = compare([read_evaluations([middle])], read_evaluations([start]))
    assert found.tasks == 3
    weights = [tmp_path / "runs" / name / "001" / "model" / "model.safetensors" for name in ("tiny-base", "tiny-rlvr")]
    assert weights[0].read_bytes() != weights[1].read_bytes()
