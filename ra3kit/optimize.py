"""Optimisation settings and one optimizer step over packed rows, normalised by tokens.

An optimizer step is one `StepBatch`: every micro-batch adds the gradient of its *summed* nats divided by the tokens of
the whole step, so 1 x 8 rows and 8 x 1 rows give the same gradient, and nothing is carried over between batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.tensor import DTensor

from ra3kit.errors import DivergenceError, RecipeError, RunError
from ra3kit.guards import LOWER
from ra3kit.ranges import check_number
from ra3kit.ranks import gather, world_size

MAX_LR = 10.0
"""AdamW moves each weight by about lr: anything near this is a slip of the pen."""


@dataclass
class Optimization:
    """AdamW with a learning-rate schedule over one phase.

    Args:
        lr: peak learning rate, in (0, 10].
        weight_decay: decoupled, >= 0; applied to matrices only, not to norms and biases.
        betas: AdamW's, each in [0, 1).
        warmup: share of the phase's steps with a linear rise, in [0, 1).
        schedule: "cosine" or "linear" from lr to final * lr, or "constant".
        final: share of lr left at the end, in [0, 1].
        clip: largest gradient norm, > 0; null for none.

    Raises:
        RecipeError: a number outside its range, or not finite.
    """

    lr: float = 1e-5
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.1
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        check_number("optimization.lr", self.lr, above=0, most=MAX_LR)
        check_number("optimization.weight_decay", self.weight_decay, least=0)
        check_number("optimization.warmup", self.warmup, least=0, below=1)
        check_number("optimization.final", self.final, least=0, most=1)
        check_number("optimization.clip", self.clip, above=0, optional=True)
        for place, beta in enumerate(self.betas):
            check_number(f"optimization.betas.{place}", beta, least=0, below=1)

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.AdamW:
        """AdamW over the trainable parameters.

        Raises:
            RunError: nothing is trainable.
        """
        trainable = [p for p in parameters if p.requires_grad]
        if not trainable:
            raise RunError("no parameter is trainable: a frozen module was given an optimizer")
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        # one pass over the weights where they are on a GPU; the default there keeps a copy of them meanwhile
        fused = all(p.is_cuda for p in trainable) or None
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=self.lr, betas=self.betas, fused=fused)

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of step `step` (0-based) of a phase of `total` steps.

        >>> o = Optimization(lr=1.0, warmup=0.2, schedule="linear", final=0.0)
        >>> [round(o.lr_at(s, 10), 3) for s in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.125]
        """
        rise = math.ceil(self.warmup * total)
        if step < rise:
            return self.lr * (step + 1) / rise
        if self.schedule == "constant":
            return self.lr
        progress = min(1.0, (step - rise) / max(1, total - rise))
        left = 1 - progress if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (self.final + (1 - self.final) * left)


def steps_of_run(trainer: L.Trainer, updates: int = 1) -> int:
    """Optimizer steps of a whole run, for the schedule of the learning rate.

    Args:
        trainer: while it trains.
        updates: optimizer steps with each batch.

    Raises:
        RecipeError: the run has no end.
    """
    steps = [] if trainer.max_steps == -1 else [trainer.max_steps]
    if trainer.max_epochs not in (None, -1) and math.isfinite(trainer.num_training_batches):
        steps.append(int(trainer.num_training_batches) * int(trainer.max_epochs or 0) * updates)
    if not steps:
        raise RecipeError(
            "trainer.max_steps=-1 and trainer.max_epochs=-1: a run without an end has no schedule of the learning "
            "rate. Give one of them; a limit of time (max_time) may stop the run earlier."
        )
    return min(steps)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def backward(owner: L.LightningModule, loss: Tensor) -> None:
    """Add the gradient of one micro-batch. Replicated models do not talk here but once a step: `average_gradients`."""
    with getattr(owner.trainer.strategy, "block_backward_sync", nullcontext)():
        owner.manual_backward(loss)


def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Average over ranks what each has accumulated. Nothing to do for one process, or sharded weights (FSDP2 did it).

    A parameter that has a gradient on some ranks only counts as zero on the others.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if world_size() == 1 or any(isinstance(p, DTensor) for p in parameters):
        return
    has_gradient = [any(known) for known in zip(*gather([p.grad is not None for p in parameters]), strict=True)]
    gradients = []
    for parameter, known in zip(parameters, has_gradient, strict=True):
        if known:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = _flatten_dense_tensors(bucket)
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, value in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
            gradient.copy_(value)


def _buckets(tensors: Iterable[Tensor], most: int = 2**24) -> list[list[Tensor]]:
    """Consecutive tensors of one dtype, at most so many numbers together (a larger tensor alone)."""
    buckets: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if not buckets or tensor.numel() > room or buckets[-1][0].dtype != tensor.dtype:
            buckets.append([])
            room = most
        buckets[-1].append(tensor)
        room -= tensor.numel()
    return buckets


def clip_gradients(optimizer: torch.optim.Optimizer, clip: float | None) -> Tensor:
    """Clip the gradients of an optimizer's parameters to norm `clip`; returns the norm before, over all shards.

    Raises:
        DivergenceError: the norm is not finite; the step must not be taken.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if not torch.isfinite(norm):
        raise DivergenceError(
            f"the gradient norm is {float(norm)}: the run has diverged. {LOWER}; the weights of the last step are "
            "untouched."
        )
    return norm
