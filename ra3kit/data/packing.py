"""Packed rows: several trajectories one after the other in one row, without padding.

A packed row is right only where attention stays inside each sequence: the positions restart at every sequence and no
attention mask or default cache may be used with it. Every token but the first of its sequence is a target, so the end
token is trained and the start token is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ra3kit.data.trajectory import CODE, END, START, Trajectory
from ra3kit.errors import DataError


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """One packed row of k sequences, n tokens in all.

    Args:
        ids: int64 [n], token ids.
        positions: int64 [n], place of the token in its sequence; restarts at 0 where a sequence begins.
        lengths: k sequence lengths, each >= 2, their sum n.
        kinds: uint8 [n], START, CODE, THOUGHT or END (`ra3kit.data.trajectory`).
    """

    ids: Tensor
    positions: Tensor
    lengths: list[int]
    kinds: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """The same row on another device."""
        ids, positions, kinds = (
            t.to(device, non_blocking=non_blocking) for t in (self.ids, self.positions, self.kinds)
        )
        return replace(self, ids=ids, positions=positions, kinds=kinds)

    def pin_memory(self) -> PackedBatch:
        """The same row in page-locked memory (CUDA machines), for asynchronous copies."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _TENSORS})

    @property
    def trained_tokens(self) -> int:
        """Number of targets: every token but the first of each sequence."""
        return len(self.ids) - len(self.lengths)


_TENSORS = ("ids", "positions", "kinds")


def pack(trajectories: Sequence[Trajectory]) -> PackedBatch:
    """Put trajectories one after the other in one row, in the given order.

    Raises:
        DataError: no trajectory, or one with fewer than two tokens (nothing in it could be trained).

    >>> row = pack([Trajectory.from_lines("a", [[5, 6], [7]], [True, True], 1, 2)] * 2)
    >>> row.ids.tolist(), row.positions.tolist(), row.lengths, row.trained_tokens
    ([1, 5, 6, 7, 2, 1, 5, 6, 7, 2], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], [5, 5], 8)
    """
    if not trajectories:
        raise DataError("pack() was given no trajectory; a row without a trained token cannot be trained on.")
    lengths = [len(t.ids) for t in trajectories]
    if min(lengths) < 2:
        short = trajectories[lengths.index(min(lengths))].snippet_id
        raise DataError(f"{short}: a trajectory needs a start and an end token, it has {min(lengths)} tokens.")
    return PackedBatch(
        ids=torch.from_numpy(np.concatenate([t.ids for t in trajectories]).astype(np.int64)),
        positions=torch.cat([torch.arange(n) for n in lengths]),
        lengths=lengths,
        kinds=torch.from_numpy(np.concatenate([t.kinds() for t in trajectories])),
    )


def idle_row(device: torch.device | str) -> PackedBatch:
    """The smallest row: what a rank forwards, at no weight, while others still have rows of their own."""
    pair = torch.tensor([0, 1], device=device)
    return PackedBatch(torch.zeros_like(pair), pair, [2], torch.tensor([START, END], dtype=torch.uint8, device=device))


def rows_of(lengths: Iterable[int], tokens_per_forward: int) -> list[list[int]]:
    """Which sequences go into which row: filled in order, at most `tokens_per_forward` tokens in a row.

    A sequence longer than the limit (one with many thoughts can be) gets a row of its own.

    >>> rows_of([3, 4, 9, 1, 2], 7)
    [[0, 1], [2], [3, 4]]
    """
    rows: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if not rows or length > room:
            rows.append([])
            room = tokens_per_forward
        rows[-1].append(index)
        room -= length
    return rows


def pack_rows(trajectories: Sequence[Trajectory], tokens_per_forward: int) -> list[PackedBatch]:
    """Packed rows as `rows_of` arranges them."""
    rows = rows_of([len(t.ids) for t in trajectories], tokens_per_forward)
    return [pack([trajectories[i] for i in row]) for row in rows]


@dataclass(frozen=True, eq=False)
class StepBatch:
    """All that one optimizer step trains on, cut into rows small enough for one forward and backward.

    Args:
        micro: the rows to train on.
        plain: the same snippets without thoughts, for the next-token control; empty outside phase "m".
        trajectories: the trajectories in `micro`, in order.
        world_trained_tokens: targets in `micro` summed over all ranks, what a loss summed over tokens is divided by.
        world_plain_tokens: the same for `plain`; 0 outside phase "m".
        world_rows: most rows of `micro` on any rank: sharded models need this many forwards on every rank.
        world_plain_rows: the same for `plain`; 0 outside phase "m".
    """

    micro: list[PackedBatch]
    plain: list[PackedBatch]
    trajectories: list[Trajectory]
    world_trained_tokens: int
    world_plain_tokens: int = 0
    world_rows: int = 0
    world_plain_rows: int = 0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StepBatch:
        """The same step with its rows on another device; trajectories stay in numpy."""
        micro, plain = ([row.to(device, non_blocking) for row in rows] for rows in (self.micro, self.plain))
        return replace(self, micro=micro, plain=plain)

    def pin_memory(self) -> StepBatch:
        """The same step with its rows in page-locked memory."""
        return replace(
            self, micro=[row.pin_memory() for row in self.micro], plain=[row.pin_memory() for row in self.plain]
        )

    @property
    def trained_tokens(self) -> int:
        """Number of targets in `micro`, on this rank."""
        return sum(row.trained_tokens for row in self.micro)

    @property
    def code_tokens(self) -> int:
        """Number of code tokens (no start, end or thought) in `micro`, on this rank."""
        return sum(int((row.kinds == CODE).sum()) for row in self.micro)


def step_batch(trajectories: Sequence[Trajectory], tokens_per_forward: int, with_plain: bool = False) -> StepBatch:
    """The step of a run with one rank. Loaders of several ranks set the `world_*` fields (`ra3kit.data.loader`).

    Args:
        trajectories: what to train on in this step, at least one.
        tokens_per_forward: most tokens in one row.
        with_plain: also give the same snippets without thoughts.
    """
    micro = pack_rows(trajectories, tokens_per_forward)
    plain = pack_rows([t.without_thoughts() for t in trajectories], tokens_per_forward) if with_plain else []
    return StepBatch(
        micro=micro,
        plain=plain,
        trajectories=list(trajectories),
        world_trained_tokens=sum(row.trained_tokens for row in micro),
        world_plain_tokens=sum(row.trained_tokens for row in plain),
        world_rows=len(micro),
        world_plain_rows=len(plain),
    )


def plain_length(trajectory: Trajectory) -> int:
    """Tokens of a trajectory without its thoughts."""
    thoughts = trajectory.thoughts
    return len(trajectory.ids) - int((thoughts[:, 1] - thoughts[:, 0]).sum())
