"""A prior in which thoughts tire."""

from __future__ import annotations

import torch

from ra3kit.abstraction.prior import LatentPrior
from ra3kit.errors import RecipeError


class Refractory(LatentPrior):
    """A thought costs c, and `extra` more when another one stands less than `lines` lines before it.

    Args:
        c: price of a thought, nats, >= 0.
        extra: added price soon after another thought, nats, >= 0.
        lines: how long a thought tires, in actions, >= 1.

    Raises:
        RecipeError: a value outside these ranges.
    """

    def __init__(self, c: float = 0.5, extra: float = 1.0, lines: int = 2):
        super().__init__("line_sum")
        if c < 0 or extra < 0 or lines < 1:
            raise RecipeError(f"prior.c={c} and prior.extra={extra} must be >= 0, prior.lines={lines} >= 1.")
        self.c, self.extra, self.lines = c, extra, lines

    def penalty(self, is_thought, log_q, may_think=None):
        """[*b, n] nats; see `LatentPrior.penalty`."""
        tired = torch.zeros_like(is_thought)
        for back in range(1, self.lines + 1):
            tired |= torch.nn.functional.pad(is_thought, (back, 0))[..., : is_thought.shape[-1]]
        return is_thought * (self.c + self.extra * tired).to(log_q.dtype)

    def describe(self) -> str:
        """One line for the log."""
        return f"{self.c:g} nats per thought, {self.extra:g} more within {self.lines} actions of another"
