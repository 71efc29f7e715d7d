"""Metrics that are right across batches and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenRatio(Metric):
    """Sum of nats over sum of tokens, across batches and processes: cross-entropies, bounds and gains per code token.

    A mean of per-batch means would weigh short batches like long ones. Sums are kept in float64, also when the module
    that owns the metric is converted to a shorter dtype.

    >>> ratio = TokenRatio()
    >>> ratio.update(torch.tensor([6.0, 2.0]), torch.tensor([3, 1]))
    >>> ratio.update(torch.tensor(4.0), 4)
    >>> float(ratio.compute())
    1.5
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    nats: Tensor
    tokens: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nats: Tensor, tokens: Tensor | int) -> None:
        """Add values (any shape, summed) and the number of tokens they are over (any shape, summed)."""
        self.nats = self.nats + nats.detach().double().sum()
        self.tokens = self.tokens + (tokens.double().sum() if isinstance(tokens, Tensor) else tokens)

    def compute(self) -> Tensor:
        """Nats per token, float64; NaN when no token was seen."""
        return self.nats / self.tokens

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> TokenRatio:
        # Module.to(dtype) reaches metric states, whose sums would stop growing at 256 in bfloat16
        kept = (self.nats, self.tokens)
        super()._apply(fn, *args, **kwargs)
        self.nats, self.tokens = (state.to(self.device) for state in kept)
        self._defaults = {name: torch.zeros_like(self.nats) for name in self._defaults}
        return self
