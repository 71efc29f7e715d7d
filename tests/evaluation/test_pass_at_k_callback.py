"""PassAtK: training with it is training without it; what it logs is what `ra3kit eval` would measure."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from small_world import corpus, data, fit, policy, ra3

from ra3kit.callbacks import pass_at_k
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.pass_at_k import PassAtK, untouched
from ra3kit.errors import RecipeError
from ra3kit.evaluation.benchmarks import load
from ra3kit.evaluation.sampling import sample
from ra3kit.policy import BasePolicy
from ra3kit.verify.problem import Verdict

SMALL: dict[str, Any] = {"limit": 3, "max_new_tokens": 6, "n": 2, "temperature": 1.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


class Trace(L.Callback):
    """Every loss, and the state of the random generators after each step."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.states: list[tuple[float, float, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        kept = ("loss", "reward", "grad_norm", "ce")
        values = {n: float(v) for n, v in trainer.callback_metrics.items() if not n.startswith("eval/")}
        self.losses.append({n: v for n, v in values.items() if n.endswith(kept) and v == v})
        with untouched(torch.nn.Module()):
            self.states.append((float(torch.rand(1)), random.random(), float(np.random.rand())))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


class Noisy(PassAtK):
    """Draws from every global generator while it samples, as a model with dropout would."""

    def _sample(self, policy: BasePolicy, progress: bool) -> Any:
        torch.rand(3), random.random(), np.random.rand()
        policy.eval()
        return super()._sample(policy, progress)


def test_ntp_training_is_the_same_with_and_without_it(path: Path, tmp_path: Path) -> None:
    runs = []
    for name, callbacks in (("without", []), ("with", [Noisy(every_n_steps=2, at_start=True, **SMALL)])):
        trace, module = Trace(), policy(seed=3)
        L.seed_everything(5, verbose=False)
        trainer = fit(tmp_path / name, module, data(path), callbacks=[*callbacks, trace], max_epochs=2)
        assert module.training
        runs.append((trace.losses, trace.states, weights(module)))
        evaluated = {n for n in trainer.callback_metrics if n.startswith("eval/ra3kit/")}
        assert bool(evaluated) == bool(callbacks)
    assert len(runs[0][0]) > 4
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] == runs[1][1]
    assert torch.equal(runs[0][2], runs[1][2])


def test_ra3_training_is_the_same_and_the_e_step_is_left_out(path: Path, tmp_path: Path) -> None:
    runs = []
    for name, callbacks in (("without", []), ("with", [Noisy(control=True, **SMALL)])):
        trace, module = Trace(), ra3()
        L.seed_everything(5, verbose=False)
        switch = EMSwitch(iterations=1, warmup_steps=2, e_steps=2, m_steps=2)
        fit(tmp_path / name, module, data(path), switch, callbacks=[*callbacks, trace])
        runs.append((trace.losses, trace.states, weights(module)))
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] == runs[1][1]
    assert torch.equal(runs[0][2], runs[1][2])
    folders = sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "with").glob("eval/*/*"))
    # warm-up ends at step 2, the E-step at 4, where pi is as it was, the M-step at 6
    assert folders == [f"with/eval/{name}/step-{step:06d}" for name in ("ra3kit-ntp", "ra3kit") for step in (2, 6)]


def test_what_it_logs_and_leaves_is_an_evaluation(path: Path, tmp_path: Path) -> None:
    module = policy(seed=3)
    loggers = [CSVLogger(tmp_path, name="", version=""), TensorBoardLogger(tmp_path, name="", version="")]
    callback = PassAtK(every_n_steps=3, every_n_epochs=None, k=[1, 2], **SMALL)
    trainer = fit(tmp_path, module, data(path), callbacks=[callback], max_steps=5, logger=loggers, max_epochs=-1)
    assert trainer.global_step == 5
    [folder] = (tmp_path / "eval" / "ra3kit").iterdir()
    assert folder.name == "step-000003"
    results = json.loads((folder / "results.json").read_text())
    assert {name: len(v) for name, v in results["outcomes"].items()} == dict.fromkeys(results["outcomes"], 2)
    assert (results["tasks"], results["k"], results["settings"]["step"]) == (3, [1, 2], 3)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    for k in (1, 2):
        for end, key in (("", "value"), ("_lo", "lo"), ("_hi", "hi")):
            [event] = events.Scalars(f"eval/ra3kit/pass@{k}{end}")
            assert (event.step, event.value) == (3, pytest.approx(results["scores"][f"pass@{k}"][key]))
            assert f"eval/ra3kit/base_pass@{k}{end}" in tags
    for status, count in results["verdicts"].items():
        assert events.Scalars(f"eval/ra3kit/verdict_{status}")[0].value == count
    [text] = events.Tensors("eval/ra3kit/samples/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    names = list(results["outcomes"])
    assert [name in shown for name in names] == [True, True, False]
    assert "    def " in shown
    assert float(trainer.callback_metrics["eval/ra3kit/pass@1"]) == results["scores"]["pass@1"]["value"]


def test_it_samples_pi_as_it_is_now(path: Path, tmp_path: Path) -> None:
    class Keep(L.Callback):
        model: Any = None

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.model = copy.deepcopy(pl_module.model)

    module, keep, callback = policy(seed=3), Keep(), PassAtK(every_n_epochs=2, **SMALL)
    fit(tmp_path, module, data(path), callbacks=[callback, keep], max_epochs=3)
    folders = list((tmp_path / "eval" / "ra3kit").iterdir())
    assert len(folders) == 1
    problems = load("ra3kit", {}, 3).problems
    expected = sample(keep.model, module.tokenizer, problems, callback.sampling, progress=False)
    assert sample(module.model, module.tokenizer, problems, callback.sampling, progress=False) != expected
    rows = [json.loads(line) for line in (folders[0] / "samples.jsonl").read_text().splitlines()]
    assert [row["raw"] for row in rows] == [row.raw for rows in expected.values() for row in rows]


def test_solved_tasks_count(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(pairs: Any, **_: Any) -> list[Verdict]:
        return [Verdict("pass", base="pass") for _ in pairs]

    monkeypatch.setattr("ra3kit.evaluation.score.verify_all", verify)
    trainer = fit(tmp_path, policy(), data(path), callbacks=[PassAtK(**SMALL)], max_steps=1)
    metrics = trainer.callback_metrics
    assert float(metrics["eval/ra3kit/pass@1"]) == float(metrics["eval/ra3kit/pass@1_hi"]) == 1.0
    assert 0 < float(metrics["eval/ra3kit/pass@1_lo"]) < 1
    assert float(metrics["eval/ra3kit/verdict_pass"]) == 6


def test_modes_and_generators_are_put_back_after_an_error() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout())
    module[1].eval()  # one part frozen in evaluation mode
    before = torch.get_rng_state()

    def fail() -> None:
        with untouched(module):
            module.eval()
            raise ValueError(float(torch.rand(1)))

    with pytest.raises(ValueError, match="0"):
        fail()
    assert (module.training, module[0].training, module[1].training) == (True, True, False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"every_n_steps": -1}, "every_n_steps=-1"),
        ({"every_n_epochs": None}, "never evaluates"),
        ({"limit": 0}, "limit=0"),
        ({"show": -1}, "show=-1"),
        ({"k": 3, "n": 2, "temperature": 1.0}, "k=3 .* n=2"),
        ({"n": 2}, "temperature=0"),
        ({"benchmark": "humanevl"}, "Did you mean 'humaneval'"),
    ],
)
def test_settings_are_checked_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        PassAtK(**settings)


def test_a_module_without_a_policy_is_refused() -> None:
    with pytest.raises(RecipeError, match="not with LightningModule"):
        pass_at_k.policies(L.LightningModule())
    with pytest.raises(RecipeError, match="trains no control"):
        pass_at_k.policies(ra3(control=False), control=True)
    with pytest.raises(RecipeError, match="no control"):
        pass_at_k.policies(policy(), control=True)
    module = ra3()
    assert pass_at_k.policies(module, True) == {"": module.policy, "-ntp": module.control}
