"""Runs that are stopped and begun again from their newest checkpoint, and what they must have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from small_world import fit

from ra3kit import checkpoints
from ra3kit.callbacks.checkpoints import Checkpoints, Resume
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.data.store import BootstrappedStore


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

    def __init__(
        self,
        folder: Path,
        make: Callable[[], L.LightningModule],
        feed: Callable[..., L.LightningDataModule],
        **settings: Any,
    ) -> None:
        self.folder, self.make, self.feed, self.settings = folder, make, feed, settings
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
            self.module, self.data = self.make(), self.feed(**(data_settings or {}))
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
