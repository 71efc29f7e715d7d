"""Progress where there is no terminal: plain lines, seconds apart, on the first process only."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ProgressBar


class PlainProgress(ProgressBar):
    """Prints `epoch 2/6, step 40/120, 31 s: loss 2.31` at most every `every` seconds, and at the end of an epoch.

    Steps are batches of the epoch, or of the run where it has a number of steps as its limit.

    A module with a `phase` has it named beside the epoch. Figures that have not changed since the epoch before are left
    out: they belong to another phase.

    Args:
        every: seconds between two lines, >= 0.
    """

    def __init__(self, every: float = 10.0) -> None:
        super().__init__()
        self._every = every
        self._enabled = True
        self._start = self._last = 0.0
        self._before: dict[str, Any] = {}
        self._phase = ""
        self._printed = (-1, -1)

    def disable(self) -> None:
        """Print nothing: Lightning calls this on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = self._last = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before = dict(self.get_metrics(trainer, pl_module))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        phase = getattr(pl_module, "phase", None)  # kept: at the end of the epoch the next phase may have begun
        self._phase = f" ({phase})" if isinstance(phase, str) else ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._last >= self._every:
            self._line(trainer, pl_module, batch_idx + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._line(trainer, pl_module, trainer.fit_loop.epoch_loop.batch_idx + 1)

    def _line(self, trainer: L.Trainer, pl_module: L.LightningModule, step: int) -> None:
        if not self._enabled or self._printed == (trainer.current_epoch, step):
            return
        self._printed = (trainer.current_epoch, step)
        self._last = time.monotonic()
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs not in (None, -1) else ""
        total = trainer.num_training_batches
        if trainer.max_steps != -1:
            step, total = trainer.global_step, trainer.max_steps
        steps = f"/{total}" if total != float("inf") else ""
        metrics = self.get_metrics(trainer, pl_module)
        metrics = {k: v for k, v in metrics.items() if k != "v_num" and v != self._before.get(k)}
        shown = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items())
        epoch, seconds = trainer.current_epoch + 1, self._last - self._start
        words = f"epoch {epoch}{epochs}{self._phase}, step {step}{steps}, {seconds:.0f} s"
        print(f"{words}: {shown}" if shown else words, flush=True)
