"""A GRPO run that is interrupted and resumed is the one that was not: logged numbers, weights, moments, curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupted import Run, StopAt, Stopped, assert_same
from small_grpo import SmallData, TextJudge, ending_policy, grpo, run

from ra3kit import checkpoints
from ra3kit.callbacks.checkpoints import Checkpoints
from ra3kit.optimize import Optimization
from ra3kit.rlvr.backend import EngineBackend
from ra3kit.rlvr.difficulty import DifficultyFilter
from ra3kit.rlvr.grpo import GRPOModule

FALLING = Optimization(lr=1e-2, warmup=0.2, weight_decay=0.1, clip=1.0)
"""A rate that depends on where a run is, moments that are clipped, weights that decay."""


def unbroken_and_broken(
    folder: Path,
    make: Callable[[], GRPOModule],
    feed: Callable[..., Any],
    stops: list[int],
    every: int = 1,
    **limit: Any,
) -> tuple[Run, Run]:
    limits = {"max_steps": 7, "max_epochs": -1, "reload_dataloaders_every_n_epochs": 0, **limit}
    unbroken = Run(folder / "unbroken", make, feed, **limits).to_the_end()
    broken = Run(folder / "broken", make, feed, **limits)
    broken.to_the_end(None, StopAt(stops), Checkpoints(every_n_steps=every))
    assert broken.stops == len(stops)
    return unbroken, broken


SETTINGS: list[Any] = [
    {"staleness": 1, "minibatches": 2},
    {"staleness": 3, "advantage": "std", "normalise": "sequence"},  # further ahead than an epoch is long
    *(
        pytest.param(settings, marks=pytest.mark.slow)
        for settings in (
            {"beta": 0.1, "credit": "segment"},
            {"minibatches": 2, "updates_per_batch": 2, "mask_truncated": False},
        )
    ),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_interruptions_change_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    """Epochs of two training steps: the stops are inside an epoch, at its end, and before the first checkpoint."""
    updates = settings.get("minibatches", 1) * settings.get("updates_per_batch", 1)
    stops = [updates * at for at in (1, 2, 3, 4, 4, 6, 7)]
    unbroken, broken = unbroken_and_broken(
        tmp_path,
        lambda: grpo(ending_policy(seed=1), optimization=FALLING, **settings),
        SmallData,
        stops,
        every=2 * updates,
        max_steps=7 * updates,
    )
    assert len(unbroken.trace.rows) == 7
    assert_same(broken, unbroken)


def test_a_run_that_ends_while_it_samples_judges_or_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a step that was not done to its end is left: neither answers, nor a part of its minibatches."""
    places: dict[str, list[int]] = {"sample": [1, 3, 6], "wait": [2, 7], "_update": [4, 9]}
    calls = dict.fromkeys(places, 0)

    def stops_sometimes(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            done = method(*arguments, **named)
            calls[name] += broken[0]
            if broken[0] and calls[name] in places[name]:
                places[name].remove(calls[name])
                raise Stopped
            return done

        monkeypatch.setattr(owner, name, counted)

    broken = [False]
    for owner, name in ((EngineBackend, "sample"), (TextJudge, "wait"), (GRPOModule, "_update")):
        stops_sometimes(owner, name)

    def make() -> GRPOModule:
        return grpo(ending_policy(seed=1), optimization=FALLING, staleness=1, minibatches=2)

    limits = {"max_steps": 10, "max_epochs": -1, "reload_dataloaders_every_n_epochs": 0}
    unbroken = Run(tmp_path / "unbroken", make, SmallData, **limits).to_the_end()
    broken[0] = True
    run = Run(tmp_path / "broken", make, SmallData, **limits).to_the_end(checkpoint=Checkpoints(every_n_steps=2))
    assert not any(places.values())
    assert run.stops == 7
    assert_same(run, unbroken)


def test_difficulty_is_measured_once_with_the_weights_of_the_start(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counted(GRPOModule):
        def pass_rates(self, tasks: Any, samples: int, seed: int) -> Any:
            seen.append(self.trainer.global_step)
            return super().pass_rates(tasks, samples, seed)

    def make() -> GRPOModule:
        made = grpo(ending_policy(seed=1), optimization=FALLING, staleness=1)
        made.__class__ = Counted
        return made

    def feed() -> SmallData:
        # the first three problems it is asked: a chunk is written, and the process ends in the next
        return SmallData(9, prompts_per_step=2, difficulty=DifficultyFilter(samples=3, low=0.2, high=0.9, chunk=5))

    unbroken, broken = unbroken_and_broken(tmp_path, make, feed, [1, 3, 4, 5])
    assert 2 <= len(broken.data._chosen.kept) < 9
    assert seen == [0, 0] * 2  # two chunks of each run, at its beginning
    assert_same(broken, unbroken)


def test_checkpoints_of_batches_of_several_steps_are_saved_where_a_multiple_was_passed(tmp_path: Path) -> None:
    module, data = grpo(minibatches=2, updates_per_batch=2), SmallData(12)
    run(tmp_path, module, 20, data, callbacks=[Checkpoints(every_n_steps=6, keep=None)], enable_checkpointing=True)
    # 6 and 12 were passed, at 16 an epoch ends, at 20 the run
    assert [path.name[-2:] for path in checkpoints.find(tmp_path)] == ["08", "12", "16", "20"]


def test_a_module_that_is_trained_again_samples_anew(tmp_path: Path) -> None:
    judge = TextJudge()
    module = grpo(staleness=2, judge=judge)
    for number in (1, 2):
        run(tmp_path / str(number), module, 3)
        assert judge.seen == number * 5 * 3 * 4  # three steps and two ahead, three groups of four
