"""What a run of GRPO leaves, and what the command line does with it: export, show, annotate, eval, card, record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from interrupted import Trace
from small_grpo import SmallData, ending_policy, grpo, run
from transformers import AutoModelForCausalLM

from ra3kit import checkpoints, provenance
from ra3kit.callbacks.pass_at_k import PassAtK
from ra3kit.cli import main
from ra3kit.testing.kills import problems, rlvr_recipe


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run, `made`, on problems that count as evaluation data."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        content = rlvr_recipe(problems(folder / "problems.jsonl", 5))
        content["trainer"] |= {"max_epochs": 1}
        Path("own.yaml").write_text(yaml.safe_dump(content))
        assert main(["fit", "--recipe", "own.yaml", "run.dir=made"]) == 0
        yield folder


def test_it_is_exported_from_its_folder_and_from_a_checkpoint(desk: Path, capsys: Any) -> None:
    newest = checkpoints.find(desk / "made")[-1]
    assert main(["export", "made", "whole"]) == main(["export", str(newest), "part"]) == 0
    ids = torch.arange(2, 32)[None]
    logits = [AutoModelForCausalLM.from_pretrained(desk / name)(ids).logits for name in ("whole", "part", "made/model")]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    assert main(["export", "made", "other", "--which", "q"]) == 2
    assert "--which q" in capsys.readouterr().err


def test_its_card_begins_with_the_evaluation_data_and_says_what_was_rewarded(desk: Path) -> None:
    assert main(["export", "made", "told"]) == 0
    text = (desk / "told" / "README.md").read_text()
    body = text.partition("---\n\n# told\n\n")[2]
    assert body.startswith("**It was trained on evaluation data: 5 problems of HumanEval. Its scores on these sets")
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["code", "ra3kit", "rlvr", "grpo"]
    for words in (
        "post-trained by GRPO on programs that were run and judged",
        "| reward | VerifierReward |",
        "| group_size | 4 |",
        "| isolation | ",
        "| difficulty | ",
        "| evaluation forced | 5 HumanEval |",
        "| data hash | ",
        "Pass rate of sampled answers to the training problems, mean over 1 of ",
        "rewarded for passing the tests",
    ):
        assert words in body, words
    assert "mid-trained" not in body
    assert "Nats per code token" not in body


def test_its_record_holds_data_reward_and_start(desk: Path, capsys: Any) -> None:
    assert main(["show", "made", "--verify"]) == 0
    record = provenance.read(desk / "made")
    assert record["data"]["evaluation_forced"] == {"HumanEval": 5}
    kinds = {entry["kind"] for entry in record["artefacts"].values() if not entry.get("removed")}
    assert {"recipe", "checkpoint", "model", "results", "sampled answers"} <= kinds
    results = json.loads((desk / "made" / "results.json").read_text())
    assert results["reward"] == "VerifierReward"
    assert results["settings"]["staleness"] == 1
    (desk / "made" / "report.md").write_text("other")
    assert main(["show", "made", "--verify"]) != 0
    assert "report.md" in capsys.readouterr().out


def test_it_annotates_and_is_evaluated(desk: Path, capsys: Any) -> None:
    (desk / "code.py").write_text("def total(values):\n    result = 0\n    return result\n")
    assert main(["annotate", "made", "code.py"]) == 0
    assert "def total(values):" in capsys.readouterr().out
    assert main(["eval", "--model", "made", "--benchmark", "ra3kit", "limit=2", "max_new_tokens=4"]) == 0


def test_pass_at_k_leaves_no_trace_in_the_training(tmp_path: Path) -> None:
    traces = []
    for callbacks in ([], [PassAtK(limit=2, max_new_tokens=4, every_n_epochs=1, every_n_steps=3, at_start=True)]):
        torch.manual_seed(0)
        module, trace = grpo(ending_policy(seed=1), staleness=1, minibatches=2), Trace()
        run(tmp_path / str(len(callbacks)), module, 8, SmallData(), callbacks=[*callbacks, trace])
        rows = [eval(row.replace("nan", "None")) for row in trace.rows.values()]
        own = [[pair for pair in row[3] if not pair[0].startswith("eval/")] for row in rows]
        traces.append((own, [row[4] for row in rows], module.policy.model.state_dict()))
    assert list((tmp_path / "1" / "eval").rglob("results.json"))
    assert traces[0][:2] == traces[1][:2]
    for name, value in traces[0][2].items():
        assert torch.equal(value, traces[1][2][name])
