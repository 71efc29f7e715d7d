"""EMSwitch: when a phase ends, and what happens between the E-step and the M-step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ra3kit import __version__
from ra3kit.abstraction.em import ANNOTATE_CHUNK, Phase, RA3Module
from ra3kit.data.store import BootstrappedStore, StoreWriter
from ra3kit.data.tokenizer import tokenizer_id
from ra3kit.errors import RecipeError
from ra3kit.progress import track
from ra3kit.ranges import check_number


class EMSwitch(Callback):
    """Alternates the phases of `RA3Module`: warm-up, then (E-step, annotation, M-step) `iterations` times.

    The E-step has a fixed length, or ends sooner when its reward has reached a plateau: the mean reward of the last
    `window` updates is less than `min_gain` above that of the `window` updates before. *When* is the one method
    `should_switch`; override it for another rule:

    >>> class Patient(EMSwitch):
    ...     def should_switch(self, phase, rewards):
    ...         return phase == "e" and len(rewards) >= 10 and rewards[-1] > -1.0

    Args:
        iterations: EM iterations, >= 1.
        warmup_steps: optimizer steps of next-token prediction before the first E-step; 0 for none, null for one pass.
        e_steps: most updates of an E-step, >= 0; 0 annotates with q as it starts (no RL).
        m_steps: optimizer steps of an M-step; null is one pass over the annotated corpus.
        window: updates in each of the two means of the plateau rule; 0 turns the rule off.
        min_gain: least gain of the mean reward over a window, in the reward's unit.
        shard_size: snippets in one shard of the annotated store.
    """

    def __init__(
        self,
        iterations: int = 1,
        warmup_steps: int | None = 0,
        e_steps: int = 50,
        m_steps: int | None = None,
        window: int = 0,
        min_gain: float = 0.0,
        shard_size: int = 1024,
    ):
        if iterations < 1 or e_steps < 0 or window < 0 or shard_size < 1:
            raise RecipeError(
                f"EMSwitch: iterations={iterations} and shard_size={shard_size} must be >= 1, e_steps={e_steps} and "
                f"window={window} >= 0"
            )
        check_number("EMSwitch: warmup_steps", warmup_steps, least=0, whole=True, optional=True)
        check_number("EMSwitch: m_steps", m_steps, least=1, whole=True, optional=True)
        check_number("EMSwitch: min_gain", min_gain)
        self.iterations, self.warmup_steps, self.e_steps, self.m_steps = iterations, warmup_steps, e_steps, m_steps
        self.window, self.min_gain, self.shard_size = window, min_gain, shard_size
        self.rewards: list[float] = []
        self._started = False

    # ---- when -----------------------------------------------------------------------------------------------------

    def should_switch(self, phase: Phase, rewards: Sequence[float]) -> bool:
        """Whether the running phase ends now, before its planned length.

        Args:
            phase: "warmup", "e" or "m".
            rewards: mean reward of each update of the running E-step so far; empty in other phases.
        """
        if phase != "e" or not self.window or len(rewards) < 2 * self.window:
            return False
        last = sum(rewards[-self.window :]) / self.window
        before = sum(rewards[-2 * self.window : -self.window]) / self.window
        return last - before < self.min_gain

    # ---- what -----------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if stage == "fit" and every != 1:
            raise RecipeError(
                f"trainer.reload_dataloaders_every_n_epochs={every}: EMSwitch needs 1, because each epoch is a phase "
                "with data of its own"
            )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._started:  # resumed: the phase came back with the checkpoint
            return
        self._started = True
        module = _ra3(pl_module)
        if self.warmup_steps == 0:
            self._begin_e(trainer, module, 0)
        else:
            self._begin(trainer, module, "warmup", self.warmup_steps, 0)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = _ra3(pl_module)
        if module.phase == "e":
            self.rewards.append(float(trainer.callback_metrics["estep/reward"]))
        if self.should_switch(module.phase, self.rewards if module.phase == "e" else []):
            module.phase_over = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = _ra3(pl_module)
        if module.phase == "warmup":
            self._begin_e(trainer, module, 0)
        elif module.phase == "e":
            self._begin_m(trainer, module)
        elif module.iteration + 1 < self.iterations:
            self._begin_e(trainer, module, module.iteration + 1)
        else:
            trainer.should_stop = True

    def _begin_e(self, trainer: L.Trainer, module: RA3Module, iteration: int) -> None:
        self.rewards = []
        if self.e_steps == 0:
            module.begin_phase("e", 1, iteration)
            self._begin_m(trainer, module)
        else:
            self._begin(trainer, module, "e", self.e_steps, iteration)

    def _begin_m(self, trainer: L.Trainer, module: RA3Module) -> None:
        store = self._annotate(trainer, module)
        self._begin(trainer, module, "m", self.m_steps, module.iteration, store)

    def _begin(
        self,
        trainer: L.Trainer,
        module: RA3Module,
        phase: Phase,
        steps: int | None,
        iteration: int,
        store: BootstrappedStore | None = None,
    ) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.set_phase(phase, store=store, steps=steps)
        module.begin_phase(phase, data.phase_steps(), iteration)

    def _annotate(self, trainer: L.Trainer, module: RA3Module) -> BootstrappedStore:
        """q annotates the corpus into a store in the run folder; what an interrupted writer left is kept.

        Every process draws the same thoughts; the first one writes them.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir) / "store" / f"iteration-{module.iteration}"
        with module.gathered():
            if trainer.is_global_zero:
                writer = StoreWriter(folder, provenance(module, data), self.shard_size)
                snippets = data.train[writer.next_index :]
                with track(len(snippets), f"annotating, iteration {module.iteration}") as advance:
                    for start in range(0, len(snippets), ANNOTATE_CHUNK):
                        for trajectory in module.annotate(snippets[start : start + ANNOTATE_CHUNK], advance):
                            writer.add(trajectory)
                writer.finish()
        trainer.strategy.barrier()
        return BootstrappedStore.open(folder)

    # ---- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"rewards": self.rewards, "started": self._started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rewards, self._started = state["rewards"], state["started"]


def provenance(module: RA3Module, data: Any) -> dict[str, Any]:
    """What made an annotated store: data, tokenizer, posterior, prior, seed, iteration, version."""
    return {
        "ra3kit": __version__,
        "data_hash": data.summary()["data_hash"],
        "tokenizer": tokenizer_id(module.tokenizer),
        "posterior": type(module.posterior).__name__,
        "rules": vars(module.posterior.rules),
        "prior": module.prior.describe(),
        "scale": module.learner.scale,
        "seed": module.seed,
        "iteration": module.iteration,
        "e_updates": module.e_updates,
    }


def _ra3(module: L.LightningModule) -> RA3Module:
    if not isinstance(module, RA3Module):
        raise RecipeError(f"EMSwitch works with RA3Module (or a subclass), not with {type(module).__name__}")
    return module
