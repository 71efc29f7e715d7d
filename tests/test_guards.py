"""Detectors on sequences made by hand, then guards in real runs: each fires on what it names and on nothing healthy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from small_world import corpus, data, fit, policy, ra3
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.abstraction.prior import FixedPenalty, LatentPrior, TemporalPrior
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.guards import (
    Collapse,
    Divergence,
    Guard,
    Guards,
    NoiseFloor,
    PostTraining,
    Seen,
    StalledReward,
    figures,
    price,
)
from ra3kit.callbacks.report import RunReport
from ra3kit.errors import DivergenceError, RecipeError, RunError
from ra3kit.guards import (
    answers_clipped,
    entropy_collapse,
    findings,
    last_mean,
    logp_gap,
    loss_diverging,
    no_signal,
    noisy_reward,
    not_finite,
    not_judged,
    reward_stalled,
    same_thought,
    thought_rate_one,
    thought_rate_zero,
    thoughts_shrinking,
)
from ra3kit.optimize import Optimization

NAN = math.nan
NAMES = {
    "thought_rate_zero",
    "thought_rate_one",
    "same_thought",
    "thoughts_shrinking",
    "loss_not_finite",
    "loss_diverging",
    "noise_floor",
    "reward_stalled",
    "entropy_collapse",
    "no_signal",
    "logp_gap",
    "clipped",
    "not_judged",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


def first_at(detector: Callable[[Sequence[float]], str | None], values: Sequence[float]) -> int | None:
    """The update (1-based) at which a detector that is asked after each first fires."""
    fired = [n for n in range(1, len(values) + 1) if detector(values[:n]) is not None]
    return fired[0] if fired else None


# ---- detectors ------------------------------------------------------------------------------------------------------


def test_a_thought_rate_near_zero_fires_when_the_window_is_full_of_it() -> None:
    def detector(rates: Sequence[float]) -> str | None:
        return thought_rate_zero(rates, 4)

    assert first_at(detector, [0.1, 0.05, 0.0, 0.0, 0.0, 0.0]) == 6
    assert first_at(detector, [0.0, 0.0, 0.0, 0.0]) == 4
    assert first_at(detector, [0.0, 0.0, 0.0]) is None
    assert first_at(detector, [0.1, 0.0, 0.0, 0.021] * 20) is None  # its mean is above a half percent
    assert "it was 10.00%" in str(thought_rate_zero([0.1, 0, 0, 0, 0], 4))
    assert "hardly ever opens" in str(thought_rate_zero([0.0] * 4, 4))
    assert "it was 10.00%" in str(thought_rate_zero([0.0] * 4, 4, began=0.1))


def test_a_thought_rate_near_one_fires_when_the_window_is_full_of_it() -> None:
    def detector(rates: Sequence[float]) -> str | None:
        return thought_rate_one(rates, 3)

    assert first_at(detector, [0.5, 1.0, 1.0, 0.99]) == 4
    assert first_at(detector, [0.97] * 9) is None


def test_one_thought_for_everything() -> None:
    assert same_thought([0.9] * 3, [0.1] * 3, 3) is not None
    assert "90%" in str(same_thought([0.9] * 3, [0.1] * 3, 3))
    assert same_thought([1.0] * 3, [1.0] * 3, 3) is None  # one thought in all the batch: nothing to be the same as
    assert same_thought([1.0] * 3, [0.5] * 3, 3) is None  # two
    assert same_thought([0.5] * 3, [0.1] * 3, 3) is None  # few thoughts, none of them rules
    assert same_thought([0.9, 0.9, NAN], [0.1, 0.1, NAN], 3) is None  # not measured
    assert same_thought([0.9] * 2, [0.1] * 2, 3) is None


def test_thoughts_that_shrink() -> None:
    def detector(lengths: Sequence[float]) -> str | None:
        return thoughts_shrinking(lengths, lengths, 3)

    falling = [20.0, 20, 20, 16, 12, 10, 8, 8, 7, 7, 7]
    assert first_at(detector, falling) == 9  # (8 + 8 + 7) / 3 < 8, after (10 + 8 + 8) / 3
    assert first_at(detector, [13.0, 13.4, 12.7, 12.0, 14.1, 11.6, 12.2, 13.1]) is None
    assert first_at(detector, [12.0] * 3 + [6.0] * 9) is None  # half: what RL does to thoughts that work
    assert first_at(detector, [4.5, 4.5, 4.5, 4.0, 3.1, 3.1, 3.1]) == 7  # to the shortest there is
    assert first_at(detector, [3.2] * 9) is None  # they began there
    assert first_at(detector, [20, NAN, 20, NAN, 20, NAN, NAN, 5, NAN, 5, 5]) == 11  # updates without thoughts
    assert "from 20.0 to 5.0 tokens" in str(detector([20.0, 20, 20, 5, 5, 5]))


def test_figures_that_are_not_finite_are_named() -> None:
    assert not_finite({"ntp/loss": 2.0, "ntp/grad_norm": 1.0}) is None
    for value in (NAN, math.inf, -math.inf):
        assert f"ntp/loss is {value}" in str(not_finite({"ntp/loss": value, "ntp/grad_norm": 1.0}))


def test_a_diverging_loss_fires_and_noise_does_not() -> None:
    def detector(losses: Sequence[float]) -> str | None:
        return loss_diverging(losses, 5)

    rng = np.random.default_rng(0)
    for scale in (0.7, 4.0):  # of a strong model, and of a fresh one
        falling = scale * (1 + np.exp(-np.arange(400) / 50)) + rng.normal(0, 0.08 * scale, 400)
        assert first_at(detector, falling.tolist()) is None
        rising = [*falling[:100], *(falling[99] * 1.2 ** np.arange(1, 20))]
        fired = first_at(detector, rising)
        assert fired is not None
        assert 100 < fired < 112
    spike = [4.0] * 10 + [400.0, 400.0] + [4.0] * 10
    assert first_at(detector, spike) is None  # two bad batches
    assert first_at(detector, [7.6] + [1e4] * 5) == 6  # at once: only the first loss is sound
    assert first_at(detector, [0.01] * 10 + [0.3] * 10) is None  # thirty times as much, and still nothing


def test_the_noise_floor_is_compared_with_a_quarter_of_the_price() -> None:
    assert noisy_reward(0.0124, 0.05, "token_mean") is None
    message = str(noisy_reward(0.013, 0.05, "token_mean"))
    for part in ("0.013 nats per token", "0.05 nats per token", "scale token_mean", "float32", "larger c", "one shape"):
        assert part in message
    assert "0.3 nats," in str(noisy_reward(0.3, 0.5, "line_sum"))
    assert noisy_reward(9.0, 0.0, "line_sum") is None
    assert noisy_reward(9.0, None, "line_sum") is None
    assert noisy_reward(NAN, 0.05, "line_sum") is None
    assert price(FixedPenalty(c=0.2)) == 0.2
    assert price(TemporalPrior(alpha=0.5, num_latents=1000)) == pytest.approx(math.log(1001))  # log(1 + |Z|)
    assert price(TemporalPrior(alpha=1.0, num_latents=10)) is None


def test_a_reward_that_no_longer_rises() -> None:
    def detector(rewards: Sequence[float]) -> str | None:
        return reward_stalled(rewards, 4)

    assert first_at(detector, [float(i) for i in range(40)]) is None
    assert (
        first_at(detector, [*map(float, range(12)), *[11.0] * 12]) == 19
    )  # the window before is level too: 15, 16 ...
    assert first_at(detector, [1.0] * 7) is None
    assert first_at(detector, [1.0] * 8) == 8
    assert reward_stalled([0.0] * 4 + [0.1] * 4, 4, min_gain=0.1) is not None


def test_an_entropy_that_collapses() -> None:
    def detector(entropies: Sequence[float]) -> str | None:
        return entropy_collapse(entropies, entropies, 3)

    falling = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.09, 0.09]
    assert first_at(detector, falling) == 8  # 0.29 / 3 < 0.2 * 0.5
    assert first_at(detector, [0.6, 0.5, 0.4, *[0.11] * 20]) is None
    assert first_at(detector, [0.0] * 9) is None  # certain from the start
    assert first_at(detector, [0.01, 0.011, 0.009] * 9) is None
    assert "from 0.5 to 0.0933 nats per token" in str(detector(falling))


def test_steps_without_a_signal() -> None:
    def detector(skipped: Sequence[float]) -> str | None:
        return no_signal(skipped, [0.25] * len(skipped), [0.75] * len(skipped), 3)

    assert first_at(detector, [1.0, 1.0, 0.99, 1.0, 1.0, 1.0]) == 6
    assert first_at(detector, [1.0, 1.0, 0.5] * 9) is None
    assert "25% of them because every answer passes and 75% because every one fails" in str(detector([1.0] * 3))


def test_means_above_a_bound() -> None:
    assert first_at(lambda gaps: logp_gap(gaps, 2), [1e-6, 0.015, 1e-6, 0.011, 0.012]) == 5
    assert first_at(lambda gaps: logp_gap(gaps, 2), [0.01] * 9) is None
    assert first_at(lambda ratios: answers_clipped(ratios, 2), [0.4, 0.6, 0.5, 0.5]) == 3
    assert first_at(lambda ratios: answers_clipped(ratios, 2), [0.5] * 9) is None
    assert first_at(lambda shares: not_judged(shares, 2), [0.0, 0.1, 0.0, 0.2]) == 4
    assert first_at(lambda shares: not_judged(shares, 2), [0.2, NAN, 0.2, NAN]) is None


def test_the_mean_of_a_window_wants_all_of_it() -> None:
    assert last_mean([9.0, 1.0, 2.0], 2) == 1.5
    assert last_mean([1.0], 2) is None
    assert last_mean([1.0, NAN], 2) is None


# ---- what a guard is shown ------------------------------------------------------------------------------------------


def test_figures_left_over_from_another_phase_or_update_are_not_shown() -> None:
    metrics = {
        "estep/thought_rate": torch.tensor(0.0),
        "estep/thought_length": torch.tensor(5.0),  # of the last update that had thoughts
        "mstep/loss": torch.tensor(9.0),
        "ntp/loss": torch.tensor(8.0),
    }
    tags = ("estep/thought_rate", "estep/thought_length", "mstep/loss", "ntp/loss", "estep/reward")
    shown = figures(metrics, tags, "e")
    assert shown.keys() == {"estep/thought_rate", "estep/thought_length"}
    assert math.isnan(shown["estep/thought_length"])
    assert figures(metrics, tags, "m") == {"mstep/loss": 9.0, "ntp/loss": 8.0}
    assert figures(metrics, tags, "ntp") == {"ntp/loss": 8.0}
    assert figures(metrics, tags, "warmup") == {}


def test_what_a_step_without_training_did_not_log_is_not_shown() -> None:
    metrics = {"rlvr/entropy": torch.tensor(0.5), "rlvr/groups_skipped": torch.tensor(1.0)}
    tags = tuple(metrics)
    assert figures(metrics, tags, "rlvr").keys() == set(tags)
    trained = {"rlvr/answers_trained": torch.tensor(3.0)}
    assert figures(metrics | trained, tags, "rlvr").keys() == set(tags)
    none = {"rlvr/answers_trained": torch.tensor(0.0)}
    assert figures(metrics | none, tags, "rlvr").keys() == {"rlvr/groups_skipped"}
    assert figures(metrics, tags, "ntp") == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Collapse(window=0),
        lambda: PostTraining(window=129),
        lambda: PostTraining(entropy_fraction=-0.1),
        lambda: StalledReward(window=129),
        lambda: Guards("halt"),
        lambda: Divergence(factor=NAN),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(RecipeError, match=r"must be|allowed are"):
        make()


# ---- real runs ------------------------------------------------------------------------------------------------------


class Negative(LatentPrior):
    """Pays for thoughts."""

    def __init__(self, wage: float = 5.0):
        super().__init__("line_sum")
        self.wage = wage

    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return -self.wage * is_thought.to(log_q.dtype)

    def describe(self) -> str:
        return "paid"


def few(path: Path) -> Any:
    """Little to annotate and to measure: what counts here is the training."""
    return data(path, max_snippets=8, max_val_snippets=2)


def learner(lr: float) -> AbstractionLearner:
    optimization = Optimization(lr=lr, warmup=0.0, schedule="constant")
    return AbstractionLearner(rollouts=4, scale="line_sum", credit="immediate", optimization=optimization)


def run_e(folder: Path, path: Path, callbacks: Sequence[L.Callback], e_steps: int = 20, **parts: Any) -> L.Trainer:
    return fit(folder, ra3(**parts), few(path), EMSwitch(e_steps=e_steps, m_steps=2), callbacks, logger=False)


def names(*callbacks: L.Callback) -> set[str]:
    return {finding.name for finding in findings(callbacks)}


def test_a_huge_penalty_stops_the_thoughts_and_is_named_once_a_phase(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guards = Guards()
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    module = ra3(prior=FixedPenalty(c=100.0, scale="line_sum"), learner=learner(3e-2))
    switch = EMSwitch(iterations=1, e_steps=20, m_steps=2)
    fit(tmp_path, module, few(path), switch, [guards, RunReport(save_models=False)], logger=logger)
    zero = [finding for finding in guards.findings if finding.name == "thought_rate_zero"]
    assert len(zero) == 1
    assert (zero[0].phase, zero[0].iteration, zero[0].action) == ("e", 0, "warn")
    assert max(module.history["thought_rate"][:2]) > 0.05  # it did think at first
    assert 5 <= zero[0].step < 20
    assert f"warning: guard/thought_rate_zero at step {zero[0].step}, phase e of iteration 0" in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("guard/thought_rate_zero")] == [(zero[0].step, 1.0)]
    results = json.loads((tmp_path / "results.json").read_text())
    assert [finding["name"] for finding in results["guards"]].count("thought_rate_zero") == 1
    report = (tmp_path / "report.md").read_text()
    assert report.count("its thoughts did not pay") == 1  # the guard has said it, so the held-out scores do not again
    assert any("guard/thought_rate_zero" in line for line in module.summary_lines(module.trainer))


def test_a_paying_prior_thinks_everywhere_and_rules_that_force_it_are_not_blamed(path: Path, tmp_path: Path) -> None:
    free, forced = Guards(), Guards()
    run_e(tmp_path / "a", path, [free], 14, prior=Negative(20.0), learner=learner(1e-1))
    assert "thought_rate_one" in names(free)
    always = CausalPosterior(max_length=5, think="always", slots=16, capacity=400)
    module = ra3(posterior=always)
    fit(tmp_path / "b", module, few(path), EMSwitch(e_steps=5, m_steps=1), [forced])
    assert min(module.history["thought_rate"]) == 1.0
    assert "thought_rate_one" not in names(forced)


def test_a_prior_that_forbids_thinking_is_not_blamed(path: Path, tmp_path: Path) -> None:
    guards = Guards()
    run_e(tmp_path, path, [guards], 8, prior=TemporalPrior(alpha=1.0, num_latents=10))
    assert names(guards) == set()


def test_stopping_keeps_what_was_found_and_says_where(path: Path, tmp_path: Path) -> None:
    guards = Guards(on_trigger="stop")
    with pytest.raises(RunError, match=r"guard/thought_rate_zero at step 5, phase e .* written so far is in"):
        run_e(tmp_path, path, [guards, RunReport()], pi=policy(think=-30.0))
    results = json.loads((tmp_path / "results.json").read_text())
    assert [finding["action"] for finding in results["guards"]] == ["stop"]
    assert "thought_rate_zero" in results["stopped"]
    assert len(results["history"]["reward"]) == 5
    report = (tmp_path / "report.md").read_text()
    assert "Stopped before its end: guard/thought_rate_zero" in report
    assert "report.png" not in report


def test_a_learning_rate_much_too_large_is_a_divergence(path: Path, tmp_path: Path) -> None:
    guards = Guards()
    fit(tmp_path, policy(lr=10.0), data(path), callbacks=[guards], max_epochs=6)
    assert names(guards) == {"loss_diverging"}
    assert "ntp/loss: the loss has risen from" in guards.findings[0].message


def test_a_gradient_that_is_not_finite_is_named_and_kept(path: Path, tmp_path: Path) -> None:
    class Poison(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(NAN)

    guards = Guards()
    with pytest.raises(DivergenceError, match="the run has diverged"):
        fit(tmp_path, policy(), data(path), callbacks=[Poison(), guards, RunReport()])
    assert [(finding.name, finding.step, finding.phase) for finding in guards.findings] == [
        ("loss_not_finite", 2, "ntp")
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["guards"][0]["name"] == "loss_not_finite"
    assert "diverged" in results["stopped"]


def test_noise_is_compared_with_the_prior_of_the_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ra3kit.abstraction.em.noise_floor", lambda *_: 0.2)
    loud, quiet = NoiseFloor(), NoiseFloor()
    run_e(tmp_path / "a", path, [loud], 1, prior=FixedPenalty(c=0.5, scale="line_sum"))
    run_e(tmp_path / "b", path, [quiet], 1, prior=FixedPenalty(c=1.0, scale="line_sum"))
    assert (names(loud), names(quiet)) == ({"noise_floor"}, set())


def test_a_run_without_trouble_has_no_findings(path: Path, tmp_path: Path) -> None:
    guards = Guards()
    gentle = AbstractionLearner(rollouts=4, scale="line_sum", optimization=Optimization(lr=1e-4, warmup=0.0))
    switch = EMSwitch(warmup_steps=7, e_steps=7, m_steps=7)
    fit(tmp_path, ra3(learner=gentle), few(path), switch, [guards])
    assert guards.findings == []
    assert guards.guards[0]._first["estep/thought_rate"]  # it did look


def test_a_phase_begins_anew(path: Path, tmp_path: Path) -> None:
    """Warnings are given once a phase, and a window never reaches into the phase before."""
    guard = Collapse(window=3)
    switch = EMSwitch(iterations=2, e_steps=4, m_steps=2)
    fit(tmp_path, ra3(pi=policy(think=-30.0)), few(path), switch, [guard])
    # the third update of each E-step: after 3, and after 4 + 2 + 3
    assert [(f.name, f.iteration, f.step) for f in guard.findings] == [
        ("thought_rate_zero", 0, 3),
        ("thought_rate_zero", 1, 9),
    ]


def test_the_state_of_guards_survives(path: Path, tmp_path: Path) -> None:
    whole, half, rest = (Guards(guards=[Collapse(window=3), Divergence()]) for _ in range(3))
    fit(tmp_path / "a", ra3(pi=policy(think=-30.0)), few(path), EMSwitch(e_steps=6, m_steps=2), [whole])
    fit(tmp_path / "b", ra3(pi=policy(think=-30.0)), few(path), EMSwitch(e_steps=2, m_steps=2), [half], max_epochs=1)
    rest.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert str(rest.state_dict()) == str(half.state_dict())  # as text, since NaN is not equal to NaN
    assert len(rest.guards[0]._history["estep/thought_rate"]) == 2
    rest.load_state_dict(whole.state_dict())
    assert rest.findings == whole.findings != []
    assert str(rest.state_dict()) == str(whole.state_dict())


def test_a_guard_of_ones_own(path: Path, tmp_path: Path) -> None:
    class Long(Guard):
        reads = ("estep/thought_length",)

        def check(self, seen: Any) -> dict[str, str]:
            return {"long": "too long"} if seen.now.get("estep/thought_length", 0) > 1 else {}

    guard = Long(on_trigger="stop")
    with pytest.raises(RunError, match="guard/long at step 1, phase e of iteration 0: too long"):
        run_e(tmp_path, path, [guard])


# ---- RLVR -----------------------------------------------------------------------------------------------------------

HEALTHY = {
    **{"entropy": 0.4, "logp_gap_mean": 1e-6, "completions/clipped_ratio": 0.1, "loss": 0.0, "grad_norm": 1.0},
    **{"groups_skipped": 0.5, "groups_all_pass": 0.2, "groups_all_fail": 0.3, "answers_trained": 16.0},
    **{f"verdict_{status}": 0.0 for status in ("timeout", "memory", "crash", "refused", "internal")},
    **{"verdict_pass": 20.0, "verdict_fail": 20.0},
}
NO_GROUP = {"groups_skipped": 1.0, "groups_all_pass": 0.25, "groups_all_fail": 0.75, "answers_trained": 0.0}


class PostTrained(L.LightningModule):
    """Logs what it is told to, step by step, as GRPOModule does: nothing of training where nothing is trained on."""

    phase = "rlvr"

    def __init__(self, steps: Sequence[dict[str, float]]):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps = steps

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        now = HEALTHY | self.steps[batch_idx]
        if not now["answers_trained"]:
            now = {name: now[name] for name in now if name not in ("entropy", "logp_gap_mean", "loss", "grad_norm")}
        self.log_dict({f"rlvr/{name}": value for name, value in now.items()}, batch_size=1)
        return self.weight * 1.0

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def post_train(folder: Path, steps: Sequence[dict[str, float]], guards: L.Callback) -> None:
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=folder,
        logger=False,
        callbacks=[guards],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(PostTrained(steps), torch.utils.data.DataLoader(range(len(steps)), batch_size=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "figures", "step"),
    [
        ("entropy_collapse", {"entropy": 0.01}, 21),  # (1 * 0.4 + 9 * 0.01) / 10 < 0.2 * 0.4
        ("no_signal", NO_GROUP, 22),
        ("logp_gap", {"logp_gap_mean": 0.019}, 18),  # 6 of 10, the others nothing
        ("clipped", {"completions/clipped_ratio": 0.95}, 17),  # 5 of 10 in .95, the others in .1
        ("not_judged", {"verdict_internal": 5.0, "verdict_refused": 5.0}, 15),  # 3 of 10 in a fifth
        ("loss_not_finite", {"grad_norm": NAN}, 13),
    ],
)
def test_each_trouble_of_rlvr_is_named(tmp_path: Path, name: str, figures: dict[str, float], step: int) -> None:
    guards = Guards()
    post_train(tmp_path, [{}] * 12 + [figures] * 12, guards)
    assert [(f.name, f.step, f.phase, f.iteration) for f in guards.findings] == [(name, step, "rlvr", 0)]
    assert str(guards.findings[0]).startswith(f"guard/{name} at step {step}, phase rlvr: ")


def test_rlvr_without_trouble_has_no_findings_and_steps_without_training_are_no_window(tmp_path: Path) -> None:
    guards = Guards()
    calm = [{"entropy": 0.4 - 0.01 * n} for n in range(25)]
    # one bad gap, then steps that log none: the old value must not fill the window
    stale = [{"logp_gap_mean": 0.05}, *[NO_GROUP] * 9, {}]
    post_train(tmp_path, calm + stale + [{}] * 10, guards)
    assert guards.findings == []


def test_entropy_is_compared_with_the_first_of_the_run_however_long_ago() -> None:
    tag = "rlvr/entropy"
    seen = Seen("rlvr", 0, PostTrained([]), {tag: 0.05}, {tag: [0.05] * 256}, {tag: [0.5] * 10})
    assert list(PostTraining().check(seen)) == ["entropy_collapse"]


def test_a_module_that_logs_little_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = PostTraining(window=1, on_trigger="stop")
    few = {name: value for name, value in HEALTHY.items() if name in ("answers_trained", "verdict_internal")}
    monkeypatch.setitem(globals(), "HEALTHY", few)
    post_train(tmp_path, [{"verdict_internal": 9.0}] * 3, guard)
    assert guard.findings == []


def test_every_detection_is_documented() -> None:
    docs = Path(__file__).parents[1] / "docs"
    for page in ("metrics.md", "guards.md"):
        text = (docs / page).read_text()
        assert all(f"`{name}`" in text for name in NAMES), page
