"""GRPO: settings, parts, starting models, data and machines that cannot be, each said in one line before training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ra3kit import checkpoints
from ra3kit.cli import main
from ra3kit.rlvr.backend import EngineBackend
from ra3kit.testing.kills import descendants, outliving, problems, rlvr_recipe
from ra3kit.verify.isolation import NoSandbox
from ra3kit.verify.verifier import Verifier

FIT = ["fit", "--recipe", "rlvr.yaml"]
PART = "ra3kit.rlvr"
OVERRIDES: dict[str, tuple[str, list[str]]] = {
    "one answer": ("model.group_size=1", ["model.group_size=1", "2"]),
    "text for a number": ("model.staleness=x", ["model.staleness='x'", "int"]),
    "no such advantage": ("model.advantage=mena", ["model.advantage='mena'", "Did you mean 'mean'?"]),
    "no such credit": ("model.credit=segments", ["model.credit='segments'", "Did you mean 'segment'?"]),
    "no such setting": ("model.clip=0.2", ["model.clip", "clip_low"]),
    "no room for a prompt": ("model.max_new_tokens=512", ["model.max_new_tokens=512", "512 positions"]),
    "no room for this prompt": ("model.max_new_tokens=500", ["max_new_tokens=500", "data.max_prompt_tokens=12"]),
    "a reward for a backend": (
        f"model.backend={{class_path: {PART}.rewards.VerifierReward}}",
        ["model.backend must be a RolloutBackend"],
    ),
    "a judge for a reward": (
        f"model.reward={{class_path: {PART}.judge.Judge}}",
        ["model.reward must be a Reward"],
    ),
    "an abstract backend": (f"model.backend={{class_path: {PART}.backend.RolloutBackend}}", ["RolloutBackend"]),
    "a number for a judge": ("model.judge=5", ["model.judge=5"]),
    "no slots": ("model.backend.slots=0", ["backend.slots=0"]),
    "no workers": ("model.judge.workers=0", ["judge.workers=0"]),
    "no time": ("model.judge.deadline=-1", ["judge.deadline=-1"]),
    "no such isolation": ("model.judge.isolation=nonne", ["isolation='nonne'"]),
    "no such reward": ("model.reward.kind=binry", ["kind='binry'", "Did you mean 'binary'?"]),
    "a buffer longer than an answer": ("model.reward.overlong_buffer=9", ["reward.overlong_buffer", "=9", "8"]),
    "no prompts": ("data.prompts_per_step=0", ["data.prompts_per_step=0"]),
    "no such style": ("data.style=chatty", ["chatty", "chat"]),
    "chat without a template": ("data.style=chat", ["chat template"]),
    "no prompt is short enough": ("data.max_prompt_tokens=1", ["data.path=ra3kit", "no problem to train on"]),
    "no such data": ("data.path=nowhere", ["nowhere"]),
    "no problems": ("data.path=code", ["code"]),
    "no such benchmark": ("data.exclude=[mbbp]", ["mbbp", "Did you mean 'mbpp'?"]),
    "bounds that cross": ("data.difficulty={low: 0.9, high: 0.1}", ["data.difficulty.high=0.1"]),
    "no tests kept": ("data.caps={tests: 0}", ["data.caps.tests=0"]),
}
LATER: dict[str, tuple[str, list[str]]] = {
    "no such package": ("model.judge.packages=[nosuch]", ["nosuch"]),
    "no end": ("trainer.max_steps=-1", ["trainer.max_steps=-1", "trainer.max_epochs=-1"]),
    "another data module": (
        "data={class_path: ra3kit.data.module.TrajectoryDataModule, path: code, max_tokens: 128}",
        ["data: GRPOModule", "RLVRDataModule", "TrajectoryDataModule"],
    ),
}
"""What is known when training begins, and no answer has been sampled."""


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_value_that_cannot_be(refused: Any, name: str) -> None:
    override, words = OVERRIDES[name]
    message = refused(*FIT, "--dry-run", override)
    assert all(word in message for word in words), message


def sampled(*_: Any, **__: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize("name", LATER)
def test_what_shows_when_training_begins(
    name: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    override, words = LATER[name]
    monkeypatch.setattr(EngineBackend, "sample", sampled)
    assert main([*FIT, override]) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "Traceback"))]
    assert all(word in message for word in words), message


MODELS: dict[str, list[str]] = {
    "runs/tiny-base/001/model": [
        "'runs/tiny-base/001/model': there is no such folder",
        "ra3kit fit --recipe tiny-base",
    ],
    "runs/mine/003/model": ["'runs/mine/003/model': there is no such folder", "The run 'mine'", "RunReport"],
    "runs/rlvr/002/model": ["'runs/rlvr/002/model': there is no such folder. There is runs/rlvr/001/model."],
}


@pytest.mark.parametrize("model", MODELS)
def test_a_starting_model_that_no_run_has_left_yet(refused: Any, desk: Path, model: str) -> None:
    (desk / "runs/rlvr/001/model").mkdir(parents=True)
    message = refused(*FIT, "model.policy.config=null", "model.policy.tokenizer=null", f"model.policy.model={model}")
    assert all(word in message for word in MODELS[model]), message
    assert "hf download" not in message


def test_no_sandbox_is_said_before_anything_is_sampled(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def without(self: Verifier) -> Verifier:
        raise NoSandbox("no isolation holds here: Landlock is off.")

    monkeypatch.setattr(Verifier, "__aenter__", without)
    monkeypatch.setattr(EngineBackend, "sample", sampled)
    assert main(FIT) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "Traceback"))]
    assert errors == ["error: no isolation holds here: Landlock is off."]


CHILD = """
import sys
from ra3kit.rlvr.backend import EngineBackend
sample = EngineBackend.sample
def saying(self, *arguments):
    print("SAMPLING", self.version, flush=True)
    return sample(self, *arguments)
EngineBackend.sample = saying
from ra3kit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ctrl_c_while_it_samples_leaves_a_run_that_goes_on_and_no_verifier(tmp_path: Path) -> None:
    content = rlvr_recipe(problems(tmp_path / "problems.jsonl"))
    content["data"].pop("difficulty")
    content["model"] |= {"max_new_tokens": 200, "group_size": 8}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-c", CHILD, "fit", "--recipe", "own.yaml", "run.dir=out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("SAMPLING") and int(line.split()[1]) >= 4:
            break
    time.sleep(0.05)
    started = descendants(child.pid)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 1, error
    assert "go on with it: ra3kit fit --resume out" in error
    assert "Traceback" not in error
    assert started
    assert not outliving(started)
    assert checkpoints.find(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["starts"][-1]["outcome"] == "interrupted"
