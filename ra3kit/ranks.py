"""What the processes (ranks) of a run tell each other. With one process, every function here is an identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def world_size() -> int:
    """How many processes the run has, 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process, from 0 to world_size - 1."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(value: T) -> list[T]:
    """Every rank's value, in the order of ranks, on every rank. For small things: they travel pickled.

    All ranks must call it, in the same order as its other calls.
    """
    size = world_size()
    if size == 1:
        return [value]
    everywhere: list[T | None] = [None] * size
    dist.all_gather_object(everywhere, value)
    return everywhere  # type: ignore[return-value]


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """The sum over ranks of each of some numbers; every rank gives the same names and gets the same sums."""
    everywhere = gather(dict(values))
    return {name: sum(each[name] for each in everywhere) for name in values}
