"""A run that is interrupted and resumed is the one that was not: losses bit for bit, weights, scores, store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from interrupted import Run, StopAt, Stopped, assert_same
from lightning.pytorch.callbacks import Timer
from small_world import corpus, data, policy, ra3

from ra3kit import checkpoints
from ra3kit.abstraction.em import RA3Module
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.callbacks.checkpoints import Checkpoints
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.latent_monitor import LatentMonitor
from ra3kit.data.module import TrajectoryDataModule
from ra3kit.errors import RunError

Feed = Callable[..., TrajectoryDataModule]


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    return partial(data, corpus(tmp_path_factory.mktemp("corpus")))


EM = {"iterations": 2, "warmup_steps": 5, "e_steps": 4, "shard_size": 4, "window": 2, "min_gain": -0.4}


@pytest.fixture(scope="module")
def unbroken(feed: Feed, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Without any checkpoint."""
    return Run(tmp_path_factory.mktemp("unbroken"), ra3, feed).to_the_end(EM, more=lambda: [LatentMonitor(every=2)])


def test_interruptions_in_every_phase_change_nothing(
    unbroken: Run, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = unbroken.trainer.global_step
    done: list[str] = []
    broken_at = [2, 5, 9]  # calls of annotate: shards of the first and of the second iteration
    annotate = RA3Module.annotate

    def stops_sometimes(self: RA3Module, snippets: Any, on_done: Any = None) -> Any:
        made = annotate(self, snippets, on_done)
        done.extend(f"{self.iteration} {t.snippet_id}" for t in made)
        if broken_at and len(done) // 4 >= broken_at[0]:
            del broken_at[0], done[-len(made) :]
            raise Stopped
        return made

    monkeypatch.setattr(RA3Module, "annotate", stops_sometimes)
    stop = StopAt(steps=[1, 2, 3, 6, 8, 8, 11, 12, total - 1, total], validations=[2, 6])
    run = Run(tmp_path, ra3, feed)
    run.to_the_end(EM, stop, Checkpoints(every_n_steps=2), lambda: [LatentMonitor(every=2)])
    assert run.stops == 15
    assert not broken_at
    assert_same(run, unbroken)
    for iteration in (0, 1):
        for mine, its in zip(run.store(iteration), unbroken.store(iteration), strict=True):
            assert mine.snippet_id == its.snippet_id
            assert np.array_equal(mine.ids, its.ids)
    assert len(done) == len(set(done)) == 2 * len(run.data.train)  # no whole shard was annotated again
    assert len(checkpoints.find(tmp_path)) == 2


@pytest.mark.parametrize(
    "kind", ["shared", pytest.param("base", marks=pytest.mark.slow), pytest.param("last", marks=pytest.mark.slow)]
)
def test_other_weights_of_q_and_starts_of_the_m_step(kind: str, feed: Feed, tmp_path: Path) -> None:
    def make() -> RA3Module:
        settings: dict[str, Any] = {"weights": "shared"} if kind == "shared" else {"start": kind}
        posterior = CausalPosterior(max_length=5, slots=16, capacity=400, **settings)
        return ra3(posterior=posterior, m_start="base" if kind == "base" else "pi")

    em = {"iterations": 2, "warmup_steps": 1, "e_steps": 2, "m_steps": 2}
    unbroken = Run(tmp_path / "a", make, feed).to_the_end(em)
    run = Run(tmp_path / "b", make, feed).to_the_end(em, StopAt([2, 4, 6, 8]), Checkpoints(every_n_steps=1))
    assert run.stops == 4
    assert_same(run, unbroken)


def test_phases_that_end_early_end_so_again_and_are_validated(feed: Feed, tmp_path: Path) -> None:
    class Early(EMSwitch):
        def should_switch(self, phase: Any, rewards: Sequence[float]) -> bool:
            return len(rewards) == 3 or (phase == "m" and module_of[0].phase_step == 2)

    module_of: list[Any] = []

    def make() -> RA3Module:
        module_of[:] = [ra3(control=False)]
        return module_of[0]

    def to_the_end(folder: Path, stop: StopAt | None, saves: Checkpoints | None) -> Run:
        run = Run(folder, make, feed, reload_dataloaders_every_n_epochs=1)
        switch = {"warmup_steps": 2, "e_steps": 9, "m_steps": 9}
        return run.to_the_end(None, stop, saves, more=lambda: [Early(**switch)])

    unbroken = to_the_end(tmp_path / "a", None, None)
    phases = [eval(row)[0] for row in unbroken.trace.rows.values()]
    assert phases == ["warmup"] * 2 + ["e"] * 3 + ["m"] * 2
    assert [score["phase"] for score in unbroken.module.scores] == ["warmup", "m"]  # type: ignore[union-attr]
    run = to_the_end(tmp_path / "b", StopAt([3, 5, 6, 7], [4]), Checkpoints(every_n_steps=1))
    assert run.stops >= 4
    assert_same(run, unbroken)


class Automatic(L.LightningModule):
    """Automatic optimisation with a schedule by steps."""

    def __init__(self) -> None:
        super().__init__()
        self.pi = policy()
        self.tokenizer = self.pi.tokenizer

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        rows = [self.pi.row_loss(row) for row in batch.micro]
        loss = sum((row.code + row.thought for row in rows), torch.zeros(())) / batch.trained_tokens
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.pi.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.parametrize("make", [policy, Automatic])
@pytest.mark.parametrize(
    "limit", [pytest.param({"max_epochs": 2}, marks=pytest.mark.slow), {"max_epochs": 3, "max_steps": 10}]
)
def test_plain_training_over_epochs(make: Any, limit: dict[str, Any], feed: Feed, tmp_path: Path) -> None:
    limits = {**limit, "limit_val_batches": 0 if make is Automatic else 1.0}
    unbroken = Run(tmp_path / "a", make, feed, **limits).to_the_end()
    total = len(unbroken.trace.rows)
    assert total >= 10
    stop = StopAt([3, 4, total // 2, total // 2 + 1, total])
    run = Run(tmp_path / "b", make, feed, **limits).to_the_end(None, stop, Checkpoints(every_n_steps=2))
    assert run.stops == 5
    assert_same(run, unbroken)


def test_a_limit_of_time_stops_inside_a_phase_and_the_run_goes_on(unbroken: Run, feed: Feed, tmp_path: Path) -> None:
    class Timed(Timer):
        """Time is up after a step."""

        def __init__(self, step: int) -> None:
            super().__init__(duration={"seconds": 10_000})
            self.step = step

        def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == self.step:
                self._duration = 0.0
            super().on_train_batch_end(trainer, *args, **kwargs)

    run = Run(tmp_path, ra3, feed)
    for step in (3, 8, 12):
        run.to_the_end(EM, None, Checkpoints(), lambda at=step: [LatentMonitor(every=2), Timed(at)])  # type: ignore[misc]
        assert run.trainer.global_step == step
        assert checkpoints.about(checkpoints.find(tmp_path)[-1])["step"] == step
    run.to_the_end(EM, None, Checkpoints(), lambda: [LatentMonitor(every=2)])
    assert_same(run, unbroken)


def test_other_data_is_refused_and_named(feed: Feed, tmp_path: Path) -> None:
    em = {"warmup_steps": 4, "e_steps": 0, "m_steps": 2}
    run = Run(tmp_path, lambda: ra3(control=False), feed)
    run.to_the_end(em, None, Checkpoints())
    with pytest.raises(RunError, match=r"was trained on other data \(data_hash: there '\w+', here '\w+'; \w+:"):
        run.to_the_end(em, None, Checkpoints(), data_settings={"max_lines": 9})
