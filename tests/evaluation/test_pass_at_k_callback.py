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
from small_grpo import ending_policy, grpo, run
from small_world import corpus, data, fit, policy, ra3

from ra3kit.callbacks import pass_at_k
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.pass_at_k import PassAtK, untouched
from ra3kit.errors import AbsentData, DataError, RecipeError
from ra3kit.evaluation.benchmarks import load
from ra3kit.evaluation.sampling import sample
from ra3kit.policy import BasePolicy
from ra3kit.rlvr.data import RLVRDataModule
from ra3kit.training_state import take_moment
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
    for share in ("compiling", "cut"):
        assert events.Scalars(f"eval/ra3kit/{share}")[0].value == pytest.approx(results[share])
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


# ---- RLVR -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"staleness": 1, "minibatches": 2}], ids=str)
def test_grpo_is_the_same_with_and_without_it(settings: dict[str, Any], tmp_path: Path) -> None:
    runs = []
    for name, callbacks in (("without", []), ("with", [Noisy(every_n_steps=2, at_start=True, **SMALL)])):
        module, trace = grpo(mask_truncated=False, **settings), Trace()
        L.seed_everything(5, verbose=False)
        watch = run(tmp_path / name, module, 6, callbacks=[*callbacks, trace])
        assert module.policy.training
        logged = [{tag: value for tag, value in row.items() if tag.startswith("rlvr/")} for row in watch.logged]
        clock = {tag for tag in logged[0] if "seconds" in tag or "tokens_per_second" in tag}
        figures = [{tag: value for tag, value in row.items() if tag not in clock} for row in logged]
        answers = [[answer.completion.ids for group in step for answer in group] for step in watch.answers]
        runs.append((figures, answers, trace.states, weights(module)))
        steps = sorted(int(folder.name[-6:]) for folder in (tmp_path / name).glob("eval/ra3kit/*"))
        assert steps == ([0, 2, 4, 6] if callbacks else [])
    without, with_it = runs
    assert without[:3] == with_it[:3]
    assert torch.equal(without[3], with_it[3])
    assert any(row["rlvr/grad_norm"] > 0 for row in without[0])


@pytest.mark.parametrize(("every", "steps"), [(2, [3, 6, 9]), (5, [6])])
def test_a_batch_of_several_steps_does_not_jump_over_an_evaluation(
    every: int, steps: list[int], tmp_path: Path
) -> None:
    seen = []

    class Count(PassAtK):
        def evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
            self._evaluated_at = trainer.global_step
            seen.append(trainer.global_step)
            return {}

    callback = Count(every_n_steps=every, every_n_epochs=None, **SMALL)
    run(tmp_path, grpo(minibatches=3), 9, callbacks=[callback])
    assert seen == steps


# ---- several benchmarks, and those that are not there ---------------------------------------------------------------


def test_two_in_one_run_have_schedules_and_states_of_their_own(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(pairs: Any, **_: Any) -> list[Verdict]:
        return [Verdict("fail", base="fail") for _ in pairs]

    monkeypatch.setattr("ra3kit.evaluation.score.verify_all", verify)

    def both() -> list[PassAtK]:
        return [
            PassAtK("ra3kit", every_n_steps=2, every_n_epochs=None, **SMALL),
            PassAtK("family", every_n_steps=3, every_n_epochs=None, options={"n": 3}, **SMALL),
        ]

    callbacks = both()
    trainer = fit(tmp_path, policy(), data(path), callbacks=callbacks, max_steps=5, max_epochs=-1)
    folders = sorted(found.relative_to(tmp_path / "eval").as_posix() for found in tmp_path.glob("eval/*/*"))
    assert folders == ["family/step-000003", "ra3kit/step-000002", "ra3kit/step-000004"]
    assert {"eval/ra3kit/pass@1", "eval/family/pass@1"} <= trainer.callback_metrics.keys()
    saved = take_moment(trainer).callbacks
    assert [saved[callback.state_key]["evaluated_at"] for callback in both()] == [4, 3]


def test_tasks_that_are_trained_on_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kit's own problems: every second one is for training."""
    monkeypatch.setattr("ra3kit.evaluation.score.verify_all", lambda pairs, **_: [Verdict("fail")] * len(pairs))
    own = RLVRDataModule("ra3kit", prompts_per_step=2, max_prompt_tokens=250)
    every = {**SMALL, "limit": None}
    callbacks = [PassAtK("ra3kit", **every), PassAtK("ra3kit", name="all-trained", options={"split": "train"}, **every)]
    run(tmp_path, grpo(ending_policy()), 1, own, callbacks=callbacks, limit_train_batches=1, max_epochs=1)
    out = capsys.readouterr().out
    trained = {task.problem.id for task in own.tasks}
    assert f"eval/ra3kit: {len(trained)} of 48 tasks are left out, the run trains on them" in out
    assert {problem.id for problem in callbacks[0].problems} == {
        problem.id for problem in load("ra3kit").problems
    } - trained
    assert [f"eval/all-trained: {len(trained)} of 24" in line for line in out.splitlines()].count(True) == 1


def test_two_on_one_benchmark_need_two_names(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ra3kit.evaluation.score.verify_all", lambda pairs, **_: [Verdict("fail")] * len(pairs))

    def splits(*names: str | None) -> list[PassAtK]:
        return [
            PassAtK("family", options={"split": split, "n": 2}, name=name, **SMALL)
            for split, name in zip(("val", "test"), names, strict=True)
        ]

    with pytest.raises(RecipeError, match="two of them are called 'family'"):
        fit(tmp_path / "same", policy(), data(path), callbacks=splits(None, None), max_steps=1)
    trainer = fit(tmp_path / "two", policy(), data(path), callbacks=splits(None, "family-test"), max_steps=1)
    assert {"eval/family/pass@1", "eval/family-test/pass@1"} <= trainer.callback_metrics.keys()
    assert {found.name for found in (tmp_path / "two" / "eval").iterdir()} == {"family", "family-test"}


def test_a_benchmark_that_is_not_there_is_an_error_or_is_named_and_left_out(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent: dict[str, Any] = {"benchmark": "humaneval+", "options": {"path": str(tmp_path / "gone.jsonl")}, **SMALL}
    with pytest.raises(AbsentData, match=r"gone\.jsonl"):
        fit(tmp_path / "error", policy(), data(path), callbacks=[PassAtK(**absent)], max_steps=1)
    capsys.readouterr()
    callback = PassAtK(if_absent="skip", at_start=True, every_n_steps=1, **absent)
    trainer = fit(tmp_path / "skip", policy(), data(path), callbacks=[callback], max_steps=2)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "humaneval+" in line]
    assert line.startswith("not evaluated on humaneval+: path=")
    assert "gone.jsonl" in line
    assert trainer.global_step == 2
    assert not (tmp_path / "skip" / "eval").exists()


def test_data_that_is_there_and_damaged_is_not_skipped(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "HumanEvalPlus.jsonl"
    damaged.write_text('{"task_id": "HumanEval/0"}\n')
    callback = PassAtK("humaneval+", options={"path": str(damaged)}, if_absent="skip", **SMALL)
    with pytest.raises(DataError) as error:
        fit(tmp_path, policy(), data(path), callbacks=[callback], max_steps=1)
    assert not isinstance(error.value, AbsentData)
