"""Checkpoints: saves everything a run goes on from; Resume: puts it back.

Lightning's own restoring is not used: it knows epochs, not phases, and enters an epoch that was under way by a logic of
its own that repeats or leaves out batches, validation and log lines; see docs/design.md.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ra3kit import checkpoints
from ra3kit.data.loader import StepLoader
from ra3kit.data.module import data_hash
from ra3kit.environment import versions
from ra3kit.errors import RecipeError, RunError
from ra3kit.training_state import Moment, content, model_tensors, optimizer_tensors, restore, set_rng_state, take_moment

VERSIONS = ("torch", "lightning", "transformers", "numpy")
"""Packages that the arithmetic of a run depends on."""


class Checkpoints(Checkpoint):
    """Saves whole checkpoints into the run folder, for `ra3kit fit --resume`: see docs/resume.md.

    One is saved at the end of every phase (epoch), before what comes between it and the next (annotation), and on a
    schedule inside phases. A run with checkpoints is the same as one without. Inside an epoch they need a loader that
    can go on where it stopped, as the kit's can; with another one they are saved at the ends of epochs.

    Args:
        every_n_minutes: minutes from one checkpoint to the next inside a phase; null for none by the clock.
        every_n_steps: optimizer steps between two, with the batch that reaches a multiple; null for none by steps.
        keep: the newest so many stay, >= 1; null keeps all.

    Raises:
        RecipeError: settings out of range.
    """

    def __init__(self, every_n_minutes: float | None = 20.0, every_n_steps: int | None = None, keep: int | None = 2):
        super().__init__()
        if (every_n_minutes is not None and not every_n_minutes > 0) or (
            every_n_steps is not None and every_n_steps < 1
        ):
            raise RecipeError(
                f"Checkpoints: every_n_minutes={every_n_minutes} must be above 0 and every_n_steps={every_n_steps} at "
                "least 1, or null"
            )
        if keep is not None and keep < 1:
            raise RecipeError(f"Checkpoints: keep={keep} must be at least 1, or null for all")
        self.every_n_minutes, self.every_n_steps, self.keep = every_n_minutes, every_n_steps, keep
        self.seconds = 0.0
        self._saved_at = time.monotonic()
        self._step = 0  # before the running batch
        self._data: dict[str, Any] | None = None
        self._wanted = False
        self._moment: Moment | None = None

    # ---- when -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._data = data_facts(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the moment, when it is time; it is written when this batch is done with in every respect."""
        if trainer.fast_dev_run or not _can_go_on_here(trainer, pl_module, batch_idx):  # type: ignore[attr-defined]
            return
        is_last = _is_stopping(trainer)
        self._wanted |= self._is_time(trainer) or is_last
        if self._wanted:
            self._moment = take_moment(trainer, is_last)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step = trainer.global_step
        if self._moment is not None:
            self._save(trainer, self._moment, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The end of a phase; or of the run inside one, when a limit of the trainer ends it."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        progress = trainer.fit_loop.epoch_loop.batch_progress
        batches = 0 if progress.is_last_batch else progress.current.completed
        moment = self._moment if batches and self._moment is not None else take_moment(trainer)
        self._save(trainer, moment, batches)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """A termination signal comes between two batches: save there. With several processes they can't agree on it."""
        if isinstance(exception, SIGTERMException) and self._moment is not None and trainer.world_size == 1:
            self._save(trainer, self._moment, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def _is_time(self, trainer: L.Trainer) -> bool:
        every = self.every_n_steps
        if every is not None and trainer.global_step // every > self._step // every:  # a batch may be several steps
            return True
        if self.every_n_minutes is None:
            return False
        # clocks differ: the first process says
        return bool(trainer.strategy.broadcast(time.monotonic() - self._saved_at >= 60 * self.every_n_minutes))

    # ---- what -----------------------------------------------------------------------------------------------------

    def _save(self, trainer: L.Trainer, moment: Moment, batches: int) -> None:
        started = time.monotonic()
        self._wanted, self._moment = False, None
        run = Path(trainer.default_root_dir)
        target = checkpoints.place(run, trainer.global_step)
        if not trainer.strategy.broadcast(target in checkpoints.find(run)):
            for logger in trainer.loggers:
                logger.save()
            tensors, same = model_tensors(trainer)
            checkpoints.write(
                target,
                tensors | optimizer_tensors(trainer),
                content(trainer, moment, batches),
                _facts(trainer, batches) | {"data": self._data, "same": same},
                trainer.is_global_zero,
                trainer.strategy.broadcast,
            )
            if trainer.is_global_zero:
                self._remove_old(run)
        self._saved_at = time.monotonic()
        self.seconds += self._saved_at - started

    def _remove_old(self, run: Path) -> None:
        """Only now that the new one is whole; and what was left of those that were not written to their end."""
        old = [] if self.keep is None else checkpoints.find(run)[: -self.keep]
        half = [path for path in checkpoints.passed_over(run) if path.name.endswith(checkpoints.PART)]
        for path in [*old, *half]:
            shutil.rmtree(path)


class Resume(Callback):
    """Puts a run where a checkpoint was taken, before any other callback acts. `ra3kit fit --resume` adds it.

    Args:
        checkpoint: a whole one; None begins at the beginning.
    """

    def __init__(self, checkpoint: Path | None):
        self.checkpoint = checkpoint
        self._rng: list[dict[str, Any]] | None = None
        self._trains = False

    @property
    def purge_step(self) -> int:
        """What a log has from this step on is of the time after the checkpoint, and will be logged again."""
        if self.checkpoint is None:
            return 0
        about = checkpoints.about(self.checkpoint)
        # the end of a phase may have logged at the step that the next phase begins with
        return int(about["logged_steps"]) + (about["batches"] == 0)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore; every process from the first one's checkpoint.

        Raises:
            RunError: the checkpoint is of other data or of another model.
        """
        named = trainer.strategy.broadcast(None if self.checkpoint is None else str(self.checkpoint))
        if named is None:
            return
        path = Path(named)
        refuse_other_data(path, checkpoints.about(path).get("data"), data_facts(trainer))
        saved = checkpoints.state(path)
        restore(trainer, path, saved)
        if trainer.reload_dataloaders_every_n_epochs != 1:  # type: ignore[attr-defined]
            self._rng = saved["rng"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the random generators once more, where Lightning has just made a loader that it had already before."""
        self._trains = True
        if self._rng is not None:
            set_rng_state(self._rng, trainer.global_rank)
            self._rng = None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Where nothing was left to train, Lightning leaves out the end of training: the reports are made there."""
        if not self._trains:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                callback.on_train_end(trainer, pl_module)
            pl_module.on_train_end()


def refuse_other_data(checkpoint: Path, saved: dict[str, Any] | None, here: dict[str, Any] | None) -> None:
    """Raise RunError, naming what differs, unless the data is what the checkpoint was trained on."""
    if differ := [key for key in saved or {} if (here or {}).get(key) != (saved or {})[key]]:
        words = "; ".join(f"{key}: there {(saved or {})[key]!r}, here {(here or {}).get(key)!r}" for key in differ)
        raise RunError(f"{checkpoint} was trained on other data ({words}). Give the data it had, or start a new run.")


def data_facts(trainer: L.Trainer) -> dict[str, Any] | None:
    """What tells one corpus from another: a hash and counts; None where the data module can't say."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not hasattr(data, "data_hash"):
        return None
    summary = data.summary()
    names = ("data_hash", "problems", "files", "train_snippets", "train_code_tokens", "val_snippets", "val_code_tokens")
    facts = {name: summary[name] for name in names if name in summary}
    if getattr(data, "warmup_path", None) is not None:
        facts["warmup_hash"] = data_hash(data.warmup)
    return facts


def _facts(trainer: L.Trainer, batches: int) -> dict[str, Any]:
    """For `about.json`."""
    module = trainer.lightning_module
    return {
        "step": trainer.global_step,
        "phase": getattr(module, "phase", "train"),
        "iteration": getattr(module, "iteration", 0),
        "batches": batches,
        "logged_steps": trainer.fit_loop.epoch_loop._batches_that_stepped,
        "processes": trainer.world_size,
        "versions": versions(VERSIONS),
    }


def _can_go_on_here(trainer: L.Trainer, module: L.LightningModule, batch_idx: int) -> bool:
    """Whether a run could begin with the next batch: there is one, and nothing stands between it and this one."""
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.is_last_batch or getattr(module, "phase_over", False) or loop._should_accumulate():
        return False
    validates = trainer.val_check_batch not in (None, float("inf")) and (batch_idx + 1) % trainer.val_check_batch == 0
    return isinstance(trainer.train_dataloader, StepLoader) and not validates


def _is_stopping(trainer: L.Trainer) -> bool:
    limit = trainer.max_steps
    return trainer.should_stop or trainer.received_sigterm or (limit != -1 and trainer.global_step >= limit)
