"""LatentMonitor: what the thoughts say and what they are worth, in TensorBoard while training runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from ra3kit.abstraction.em import RA3Module
from ra3kit.abstraction.evaluate import ThoughtGain, gain_summary, thought_gains
from ra3kit.data.trajectory import Trajectory
from ra3kit.ranges import check_number
from ra3kit.render import render


class LatentMonitor(Callback):
    """Logs the information gain of thoughts (`estep/gain_*`, `mstep/gain_*`) and annotated snippets as text.

    Args:
        every: E-step updates between two measurements, >= 1. Each costs a scoring pass per thought of one snippet's
            rollouts.
        snippets: annotated snippets shown and measured at the start of each M-step, >= 0.
    """

    def __init__(self, every: int = 10, snippets: int = 8):
        check_number("LatentMonitor: every", every, least=1, whole=True)
        check_number("LatentMonitor: snippets", snippets, least=0, whole=True)
        self.every, self.snippets = every, snippets

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not isinstance(pl_module, RA3Module) or pl_module.phase != "e" or batch_idx % self.every:
            return
        trajectories = [rollout.trajectory for rollout in pl_module.last_rollouts[0]]
        gains = thought_gains(pl_module.policy.model, trajectories)
        log_scalars(trainer, gain_metrics(gains, "estep"))
        if batch_idx == 0:
            text = as_markdown(trajectories[:2], gains, pl_module)
            log_text(trainer, f"estep/rollouts, iteration {pl_module.iteration}", text)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, RA3Module) or pl_module.phase != "m" or pl_module.phase_step > 0:
            return  # resumed inside the phase, the latter: what the phase began with was shown before
        store = trainer.datamodule.store  # type: ignore[attr-defined]
        with_thoughts = [t for t in store[: 50 * self.snippets] if len(t.thoughts)][: self.snippets]
        gains = thought_gains(pl_module.policy.model, with_thoughts)
        stats = store.stats()
        shares = {f"mstep/store_{name}": stats[name] for name in ("thought_rate", "tokens_per_thought")}
        log_scalars(trainer, gain_metrics(gains, "mstep") | shares)
        log_text(
            trainer, f"mstep/annotated, iteration {pl_module.iteration}", as_markdown(with_thoughts, gains, pl_module)
        )
        pl_module.samples = [
            render(trajectory, pl_module.tokenizer, gains_of(gains, i)) for i, trajectory in enumerate(with_thoughts)
        ]


def gain_metrics(gains: Sequence[ThoughtGain], tag: str) -> dict[str, float]:
    """Mean gain per thought and per token of the lines it covers, and the share of thoughts that gained anything."""
    return {f"{tag}/{name}": value for name, value in gain_summary(gains).items()}


def gains_of(gains: Sequence[ThoughtGain], snippet: int) -> dict[int, float]:
    """Gain in nats by line, of one snippet."""
    return {gain.line: gain.nats for gain in gains if gain.snippet == snippet}


def as_markdown(trajectories: Sequence[Trajectory], gains: Sequence[ThoughtGain], module: RA3Module) -> str:
    """Annotated snippets as TensorBoard shows text: indented blocks are code."""
    blocks = [render(t, module.tokenizer, gains_of(gains, i)) for i, t in enumerate(trajectories)]
    titled = [f"**{t.snippet_id}**\n\n" + indent(b) for t, b in zip(trajectories, blocks, strict=True)]
    return "\n\n".join(titled) or "no thoughts"


def indent(text: str) -> str:
    """Each line four spaces in: a Markdown code block."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


def log_scalars(trainer: L.Trainer, values: dict[str, float]) -> None:
    """Log to every logger at the running optimizer step."""
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)


def log_text(trainer: L.Trainer, tag: str, text: str) -> None:
    """Log text to TensorBoard, where there is one."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(tag, text, trainer.global_step)


class PeakMemory(Callback):
    """Logs `speed/peak_memory_gib`: of the CUDA device where there is one, else of the process (resident set)."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.log("speed/peak_memory_gib", peak_memory_gib(pl_module.device), batch_size=1)


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far, GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
