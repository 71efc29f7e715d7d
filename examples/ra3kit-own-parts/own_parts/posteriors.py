"""A posterior with fewer decisions to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RecipeError
from ra3kit.rollout import Rollout


class StridedPosterior(CausalPosterior):
    """q may write a thought before every n-th action only: actions of a fixed length, as in classical options.

    Args:
        every: a latent is chosen before the first of each so many actions that may have one, >= 1; the other arguments
            as in `CausalPosterior`.

    Raises:
        RecipeError: every is below 1.
    """

    def __init__(self, every: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        if every < 1:
            raise RecipeError(f"posterior.every={every}: must be 1 or more.")
        self.every = every

    def draw(
        self,
        trajectories: Sequence[Trajectory],
        k: int,
        seed: int,
        on_done: Callable[[int, Rollout], None] | None = None,
    ) -> list[list[Rollout]]:
        """k rollouts of each snippet, drawn with most decisions closed; the snippets themselves stay as they are."""
        closed = [replace(t, may_think=self._open(t.may_think)) for t in trajectories]
        groups = super().draw(closed, k, seed, on_done)
        return [
            [replace(row, trajectory=replace(row.trajectory, may_think=snippet.may_think)) for row in rows]
            for snippet, rows in zip(trajectories, groups, strict=True)
        ]

    def _open(self, may_think: np.ndarray) -> np.ndarray:
        """bool [n]: every n-th of the actions that may have a thought, from the first on."""
        number = np.cumsum(may_think) - 1
        return may_think & (number % self.every == 0)
