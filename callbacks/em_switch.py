"""EMSwitch: when a phase ends, and what happens between the E-step and the M-step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ra3kit import __version__
from ra3kit.abstraction.em import ANNOTATE_CHUNK, Phase, RA3Module
from ra3kit.data.store import BootstrappedStore, StoreWriter, written_provenance
from ra3kit.data.tokenizer import tokenizer_id
from ra3kit.errors import RecipeError
from ra3kit.progress import track
from ra3kit.ranges import check_number
from ra3kit.sharding import fingerprint


class EMSwitch(Callback):
    """Alternates the phases of `RA3Module`: warm-up, then (E-step, annotation, M-step) `iterations` times.

    The E-step has a fixed length, or ends sooner when its reward has reached a plateau: the mean reward of the last
    `window` updates is less than `min_gain` above that of the `window` updates before. *When* is the one method
    `should_switch`; override it for another rule, and save what the rule remembers in `state_dict`
    (`ra3kit.testing.check_em_switch` finds what is not):

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
        self.pending: tuple[Phase, int] | None = None
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
        module, data = _ra3(pl_module), trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "before_loader"):
            raise RecipeError(
                f"EMSwitch sets the phases of a data module that calls its `before_loader`, but {type(data).__name__} "
                "has none. See TrajectoryDataModule.train_dataloader."
            )
        if not self._started:  # else resumed: the phase, or the step to the next one, came with the checkpoint
            self._started = True
            self.pending = ("e" if self.warmup_steps == 0 else "warmup", 0)
        data.before_loader = lambda: self._begin_pending(trainer, module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = _ra3(pl_module)
        if module.phase == "e":
            self.rewards.append(float(trainer.callback_metrics["estep/reward"]))
        if self.should_switch(module.phase, self.rewards if module.phase == "e" else []):
            module.phase_over = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decide what comes next; it begins when the trainer asks for its data, after a checkpoint has been saved."""
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # a limit of the trainer ends the run inside a phase
        module = _ra3(pl_module)
        if module.phase == "warmup":
            self.pending = ("e", 0)
        elif module.phase == "e":
            self.pending = ("m", module.iteration)
        elif module.iteration + 1 < self.iterations:
            self.pending = ("e", module.iteration + 1)
        else:
            trainer.should_stop = True

    def _begin_pending(self, trainer: L.Trainer, module: RA3Module) -> None:
        """Begin the pending phase, with all that comes before it; a killed run does this again."""
        if self.pending is None:
            return
        phase, iteration = self.pending
        if phase == "e" and self.e_steps == 0:
            module.begin_phase("e", 1, iteration)
            phase = "m"
        if phase == "e":
            self.rewards = []
        store = self._annotate(trainer, module) if phase == "m" else None
        steps = {"warmup": self.warmup_steps, "e": self.e_steps, "m": self.m_steps}[phase]
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.set_phase(phase, store=store, steps=steps)
        module.begin_phase(phase, data.phase_steps(), iteration)
        self.pending = None

    def _annotate(self, trainer: L.Trainer, module: RA3Module) -> BootstrappedStore:
        """q annotates the corpus into a store in the run folder; shards that are there already are kept.

        The processes share the shards that are missing; what is in a shard does not depend on how many there are.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir) / "store" / f"iteration-{module.iteration}"
        writer = self._writer(trainer, folder, provenance(module, data))
        missing = trainer.strategy.broadcast(writer.missing(len(data.train)))
        own = missing[trainer.global_rank :: trainer.world_size]
        size = self.shard_size
        shards = {number: data.train[number * size : (number + 1) * size] for number in own}
        what = f"annotating, iteration {module.iteration}"
        with module.gathered(), track(sum(map(len, shards.values())), what) as advance:
            for number, snippets in shards.items():
                parts = [snippets[at : at + ANNOTATE_CHUNK] for at in range(0, len(snippets), ANNOTATE_CHUNK)]
                writer.write(number, [made for part in parts for made in module.annotate(part, advance)])
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            writer.finish()
        trainer.strategy.barrier()
        return BootstrappedStore.open(folder)

    def _writer(self, trainer: L.Trainer, folder: Path, made_by: dict[str, Any]) -> StoreWriter:
        """The first process makes the folder, then the others open it, and none writes before all have."""
        writer = None
        for turn in (True, False):
            if trainer.is_global_zero == turn:
                if turn:
                    set_aside_of_other_weights(folder, made_by)
                writer = StoreWriter(folder, made_by, self.shard_size)
            trainer.strategy.barrier()
        assert writer is not None
        return writer

    # ---- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"rewards": self.rewards, "started": self._started, "pending": self.pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rewards, self._started, self.pending = state["rewards"], state["started"], state["pending"]


def provenance(module: RA3Module, data: Any) -> dict[str, Any]:
    """What made an annotated store: data, tokenizer, posterior and its weights, prior, seed, iteration, version."""
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
        "weights": fingerprint(module.posterior.model),
    }


def set_aside_of_other_weights(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Rename a store of this very run whose posterior had other weights, as after going back to an older checkpoint.

    Where arithmetic is not repeatable (on GPUs), the same steps done again give other weights, and a store must be of
    one posterior.
    """
    there = written_provenance(folder)
    if there is None or {key for key in made_by if there.get(key) != made_by[key]} != {"weights"}:
        return
    aside = folder.with_name(f"{folder.name}.of-{there.get('weights')}")
    if not aside.exists():
        folder.rename(aside)
        print(f"{folder} is of other weights of the posterior; it is now {aside.name}, and is written anew", flush=True)


def _ra3(module: L.LightningModule) -> RA3Module:
    if not isinstance(module, RA3Module):
        raise RecipeError(f"EMSwitch works with RA3Module (or a subclass), not with {type(module).__name__}")
    return module
