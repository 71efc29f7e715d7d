"""A run that is interrupted and resumed is the one that was not: losses bit for bit, weights, scores, store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from small_world import corpus, data, fit, ra3

from ra3kit import checkpoints
from ra3kit.abstraction.em import RA3Module
from ra3kit.callbacks.checkpoints import Checkpoints, Resume
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.latent_monitor import LatentMonitor
from ra3kit.data.store import BootstrappedStore


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


class Stopped(Exception):
    """Stands for the end of the process."""


class Trace(L.Callback):
    """What every step logged, times and memory aside; and the batch's number, which must go on too."""

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if "second" not in k}
        phase = getattr(pl_module, "phase", "ntp")
        row = repr((phase, trainer.current_epoch, batch_idx, sorted(values.items()), torch.rand(1).item()))
        assert self.rows.setdefault(trainer.global_step, row) == row  # a step that is done again is the same again


class StopAt(L.Callback):
    """Ends the process after some steps, and inside some validations."""

    def __init__(self, steps: Sequence[int] = (), validations: Sequence[int] = ()) -> None:
        self.steps, self.validations, self.begun = list(steps), list(validations), 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step in self.steps:
            self.steps.remove(trainer.global_step)
            raise Stopped

    def on_validation_batch_end(self, *_: Any) -> None:
        self.begun += 1
        if self.begun in self.validations:
            raise Stopped


class Run:
    """A run that is begun again from its newest checkpoint whenever it is stopped."""

    def __init__(self, folder: Path, make: Callable[[], L.LightningModule], path: Path, **settings: Any) -> None:
        self.folder, self.make, self.path, self.settings = folder, make, path, settings
        self.trace, self.stops = Trace(), 0

    def to_the_end(
        self,
        switch: dict[str, Any] | None = None,
        stop: StopAt | None = None,
        checkpoint: Checkpoints | None = None,
        more: Callable[[], list[L.Callback]] = list,
        data_settings: dict[str, Any] | None = None,
    ) -> Run:
        while True:
            found = checkpoints.find(self.folder)
            saves = [] if checkpoint is None else [checkpoint]
            self.module, self.data = self.make(), data(self.path, **(data_settings or {}))
            # a new process has another state, which must not matter; a run that begins again is seeded again
            torch.manual_seed(100 + self.stops if found else 5)
            resume = [Resume(found[-1] if found else None)] if checkpoint else []
            callbacks = [*resume, *more(), self.trace, *([stop] if stop else []), *saves]
            try:
                settings = {"enable_checkpointing": checkpoint is not None, "max_epochs": -1, **self.settings}
                em = EMSwitch(**switch) if switch else None
                self.trainer = fit(self.folder, self.module, self.data, em, callbacks, **settings)
                return self
            except Stopped:
                self.stops += 1

    def store(self, iteration: int) -> BootstrappedStore:
        return BootstrappedStore.open(self.folder / "store" / f"iteration-{iteration}")


def assert_same(one: Run, two: Run) -> None:
    assert one.trace.rows == two.trace.rows
    for (name, mine), its in zip(one.module.state_dict().items(), two.module.state_dict().values(), strict=True):
        assert torch.equal(mine, its), name
    for mine_of, its_of in zip(one.trainer.optimizers, two.trainer.optimizers, strict=True):
        mine_state, its_state = mine_of.state_dict()["state"], its_of.state_dict()["state"]
        assert mine_state.keys() == its_state.keys()
        assert all(torch.equal(mine_state[i][k], its_state[i][k]) for i in mine_state for k in mine_state[i])
    for attribute in ("scores", "samples", "history"):
        if hasattr(one.module, attribute):
            assert repr(getattr(one.module, attribute)) == repr(getattr(two.module, attribute)), attribute


EM = {"iterations": 2, "warmup_steps": 5, "e_steps": 4, "shard_size": 4, "window": 2, "min_gain": -0.4}


@pytest.fixture(scope="module")
def unbroken(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Without any checkpoint."""
    return Run(tmp_path_factory.mktemp("unbroken"), ra3, path).to_the_end(EM, more=lambda: [LatentMonitor(every=2)])


def test_interruptions_in_every_phase_change_nothing(
    unbroken: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    run = Run(tmp_path, ra3, path)
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
