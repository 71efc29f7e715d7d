"""Which data goes into which step on which rank, in a fixed, resumable order.

Steps are planned for all ranks together and then shared out, so every rank has the same number of steps, each item is
on one rank once per pass, and what a step trains on does not depend on the number of ranks. `PhaseLoader` is that of
one EM phase: its order is a permutation drawn from (seed, phase, epoch, pass).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from ra3kit.data.packing import plain_length, rows_of, step_batch
from ra3kit.data.store import BootstrappedStore
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError

Phase = Literal["ntp", "warmup", "e", "m", "val"]
PHASES: tuple[Phase, ...] = ("ntp", "warmup", "e", "m", "val")
"""Next-token prediction on expert snippets, on warm-up snippets; E-step; M-step; held-out. Places seed the orders."""


class StepLoader(ABC):
    """What Lightning and the checkpoints need of a loader: an order that is planned ahead, and a position in it.

    A subclass plans the steps of `epoch` in `_plan` (and calls it when it is ready to), makes the batch of one in
    `batch`, and says in `_identity` what must be the same for a position to mean the same.

    Args:
        seed, epoch: fix the order.
        rank, world: this process and how many share the data.
    """

    batch_sampler = None  # Lightning asks what has a sampler for this, too
    _place: tuple[str, ...] = ("epoch",)
    _steps: list[list[int]]

    def __init__(self, seed: int, epoch: int, rank: int, world: int) -> None:
        self.seed, self.epoch, self.rank, self.world = seed, epoch, rank, world
        self.position = 0
        self._from = 0

    @property
    def sampler(self) -> StepLoader:
        """Where Lightning looks for the `set_epoch` that it calls at the start of every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order, of as many steps; the one that is planned already stays as it is."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.position = self._from = 0
            self._steps = self._plan()

    def __len__(self) -> int:
        """Steps in this epoch, whatever the position."""
        return len(self._steps)

    def __iter__(self) -> Iterator[Any]:
        start, self._from = self._from, 0
        self.position = start
        for step in range(start, len(self)):
            self.position = step + 1
            yield self.batch(step)

    @abstractmethod
    def batch(self, step: int) -> Any:
        """What this rank does in a step, from 0 to len - 1."""

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands; counts the batches given out."""
        return {**self._identity(), "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after `position` batches. The state of another phase or epoch means that a new one begins: from 0.

        Raises:
            DataError: same phase and epoch, but other data, seed or step size.
        """
        here = self._identity()
        if any(state[name] != here[name] for name in self._place):
            return
        if differ := {k: (state[k], v) for k, v in here.items() if state[k] != v}:
            raise DataError(
                f"the loader cannot resume: (saved, now) differ in {differ}. Use the saved recipe and data."
            )
        self._from = self.position = state["position"]

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """What a position is a position of: everything that fixes the order, as JSON."""

    @abstractmethod
    def _plan(self) -> list[list[int]]:
        """The items of every step of `epoch`, all ranks together."""


class PhaseLoader(StepLoader):
    """Gives `StepBatch` in phases ntp, warmup and m, and `list[Trajectory]` in phases e and val.

    Args:
        data: the snippets, at least as many as ranks.
        phase: one of `PHASES`; "m" also packs the snippets without their thoughts, "val" keeps the order of `data`.
        size: of one step over all ranks: snippets in phases e and val; else about so many tokens, start and end tokens
            included, thoughts not (so that RA3 and next-token prediction see the same code in a step).
        tokens_per_forward: most tokens of one packed row.
        seed, epoch: with the phase they fix the order.
        steps: number of steps; None is one pass, more passes (each in a new order) are made as needed.
        rank, world: this process and how many share the data.

    Raises:
        DataError: no data, or fewer snippets (in a step, or at all) than ranks.
    """

    _place = ("phase", "epoch")

    def __init__(
        self,
        data: Sequence[Trajectory],
        phase: Phase,
        size: int,
        tokens_per_forward: int = 4096,
        seed: int = 0,
        epoch: int = 0,
        steps: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(data) < world:
            raise DataError(
                f"phase {phase!r}: {len(data)} snippets cannot be shared by {world} processes; give more data."
            )
        counted = phase in ("e", "val")
        if size < (world if counted else 1):
            raise DataError(f"phase {phase!r}: a step of {size} cannot be shared by {world} processes.")
        super().__init__(seed, epoch, rank, world)
        self.data, self.phase, self.size, self.tokens_per_forward = data, phase, size, tokens_per_forward
        self._lengths, self._plain_lengths = _lengths(data)
        self._most = steps
        self._steps = self._plan()

    def batch(self, step: int) -> Any:
        """What this rank does in a step: `list[Trajectory]` in phases e and val, else `StepBatch`."""
        everywhere = share(self._steps[step], self._plain_lengths, self.world)
        own = [self.data[i] for i in everywhere[self.rank]]
        if self.phase in ("e", "val"):
            return own
        made = step_batch(own, self.tokens_per_forward, with_plain=self.phase == "m")
        tokens, rows = self._world(everywhere, self._lengths)
        plain_tokens, plain_rows = self._world(everywhere, self._plain_lengths) if self.phase == "m" else (0, 0)
        return replace(
            made,
            world_trained_tokens=tokens,
            world_rows=rows,
            world_plain_tokens=plain_tokens,
            world_plain_rows=plain_rows,
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "epoch": self.epoch,
            "seed": self.seed,
            "size": self.size,
            "steps": len(self),
            "snippets": len(self.data),
            "tokens": int(self._plain_lengths.sum()),
        }

    def _plan(self) -> list[list[int]]:
        """The snippets of every step, all ranks together."""
        steps: list[list[int]] = []
        passes = 0
        while not passes or (self._most is not None and len(steps) < self._most):
            order = self._order(passes)
            if self.phase in ("e", "val"):
                steps += by_count(order, self.size, self.world)
            else:
                steps += by_tokens(order, self._plain_lengths, self.size, self.world)
            passes += 1
        return steps[: self._most]

    def _order(self, number: int) -> np.ndarray:
        if self.phase == "val":
            return np.arange(len(self.data))
        entropy = [self.seed, PHASES.index(self.phase), self.epoch, number]
        return np.random.default_rng(entropy).permutation(len(self.data))

    def _world(self, everywhere: Sequence[Sequence[int]], lengths: np.ndarray) -> tuple[int, int]:
        """Targets of a step over all ranks, and the most packed rows on any rank."""
        tokens = sum(int(lengths[share].sum()) - len(share) for share in map(list, everywhere))
        return tokens, max(len(rows_of(lengths[list(share)], self.tokens_per_forward)) for share in everywhere)


def by_count(order: Sequence[int] | np.ndarray, size: int, world: int = 1) -> list[list[int]]:
    """Cut an order into steps of `size` snippets, the last one shorter, or longer where it would not reach all ranks.

    >>> by_count([4, 3, 2, 1, 0], 2), by_count([4, 3, 2, 1, 0], 2, world=2)
    ([[4, 3], [2, 1], [0]], [[4, 3], [2, 1, 0]])
    """
    indices = [int(i) for i in order]
    steps = [indices[at : at + size] for at in range(0, len(indices), size)]
    if len(steps) > 1 and len(steps[-1]) < world:
        steps[-2:] = [steps[-2] + steps[-1]]
    return steps


def by_tokens(order: Sequence[int] | np.ndarray, lengths: np.ndarray, size: int, world: int = 1) -> list[list[int]]:
    """Cut an order into ceil(tokens / size) steps of about equal token counts, each of at least `world` snippets.

    The number of steps does not depend on the order, and no step is a small remainder.

    >>> by_tokens([2, 0, 1, 3], np.array([3, 3, 3, 9]), 6)
    [[2, 0], [1], [3]]
    """
    indices = np.asarray(order, np.int64)
    ends = np.cumsum(lengths[indices])
    middles = ends - lengths[indices] / 2
    n = max(1, min(-(-int(ends[-1]) // size), len(indices) // world))
    cuts = np.searchsorted(middles, ends[-1] * np.arange(1, n) / n)
    bounds = [0]
    for step, cut in enumerate(cuts.tolist(), 1):
        bounds.append(min(max(cut, bounds[-1] + world), len(indices) - (n - step) * world))
    bounds.append(len(indices))
    return [indices[start:end].tolist() for start, end in pairwise(bounds)]


def share(step: Sequence[int], lengths: np.ndarray, world: int) -> list[list[int]]:
    """Share a step's snippets out to ranks: longest first to the least loaded, kept in order on each. No rank is empty.

    >>> share([4, 0, 2], np.array([5, 9, 6, 9, 9]), 2)
    [[4], [0, 2]]
    """
    if world == 1:
        return [list(step)]
    loads: list[int] = [0] * world
    shares: list[list[int]] = [[] for _ in range(world)]
    for place in sorted(range(len(step)), key=lambda p: (-lengths[step[p]], p)):
        rank = loads.index(min(loads))
        shares[rank].append(place)
        loads[rank] += int(lengths[step[place]])
    return [[step[place] for place in sorted(places)] for places in shares]


def _lengths(data: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] twice: tokens of each trajectory with and without its thoughts."""
    if isinstance(data, BootstrappedStore):
        return data.lengths(), data.plain_lengths()
    return (
        np.array([len(t.ids) for t in data], np.int64),
        np.array([plain_length(t) for t in data], np.int64),
    )
