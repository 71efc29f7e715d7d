"""Packed rows of answers: what one forward and backward pass of GRPO works on, and log-probabilities of sampled ids.

The answers to a task begin with the same prompt, which stands in a row once, with the answers as its branches
(`ra3kit.rollout.attention.BranchLayout`): the same numbers as each answer behind a prompt of its own, for less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ra3kit.loss import policy_loss
from ra3kit.models import base_model
from ra3kit.rlvr.losses import TokenLoss
from ra3kit.rollout.attention import BranchLayout
from ra3kit.rollout.forward import hidden_states, target_logps
from ra3kit.sharding import check_whole, run

Pair = tuple[Sequence[int], Sequence[int]]
"""A prompt's ids and sampled ids, neither of them empty."""


@dataclass(frozen=True, eq=False)
class AnswerRow:
    """Prompts, each with its answers after it: n tokens in all, m of them targets.

    Args:
        ids, positions: [n]; an answer's positions go on from its prompt's. Its last token is a target only.
        layout: what sees what.
        at: [m], index of the token that each sampled token follows: the prompt's last, then the answer's own.
        targets: [m], the sampled ids.
    """

    ids: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    layout: BranchLayout
    at: Int[Tensor, " m"]
    targets: Int[Tensor, " m"]


def pack(pairs: Sequence[Pair], device: torch.device | str) -> AnswerRow:
    """One row of (prompt, sampled) pairs; neighbours with the same prompt share it.

    >>> row = pack([([7, 8], [1, 2, 3]), ([7, 8], [4]), ([7, 8], [5, 6])], "cpu")
    >>> row.ids.tolist(), row.positions.tolist(), row.layout.trees
    ([7, 8, 1, 2, 5], [0, 1, 2, 3, 2], ((2, (2, 1)),))
    >>> row.at.tolist(), row.targets.tolist()
    ([1, 2, 3, 1, 1, 4], [1, 2, 3, 4, 5, 6])
    """
    ids: list[int] = []
    positions: list[int] = []
    at: list[int] = []
    targets: list[int] = []
    trees = []
    for prompt, group in groupby(pairs, key=lambda pair: list(pair[0])):
        ids += prompt
        positions += range(len(prompt))
        last = len(ids) - 1
        branches = []
        for _, sampled in group:
            branch = len(sampled) - 1
            at += [last, *range(len(ids), len(ids) + branch)]
            targets += sampled
            ids += sampled[:-1]
            positions += range(len(prompt), len(prompt) + branch)
            branches.append(branch)
        trees.append((len(prompt), tuple(branch for branch in branches if branch)))
    as_tensors = (torch.tensor(values, dtype=torch.int64).to(device) for values in (ids, positions, at, targets))
    packed, places, index, wanted = as_tensors
    return AnswerRow(packed, places, BranchLayout(tuple(trees)), index, wanted)


def packed_rows(
    pairs: Sequence[Pair], tokens_per_forward: int, device: torch.device | str
) -> Iterator[tuple[list[int], AnswerRow]]:
    """Rows of at most so many tokens (a longer answer gets one of its own), each with the places of its answers."""
    for places in split(pairs, tokens_per_forward):
        yield places, pack([pairs[i] for i in places], device)


def split(pairs: Sequence[Pair], tokens_per_forward: int) -> list[list[int]]:
    """Which pairs go into which row, filled in order; a prompt is counted once for neighbours that share it.

    >>> split([([1, 2, 3], [4, 5, 6])] * 3, 7)
    [[0, 1], [2]]
    """
    rows: list[list[int]] = []
    room = 0
    before: Sequence[int] | None = None
    for place, (prompt, sampled) in enumerate(pairs):
        need = len(sampled) - 1 + (0 if prompt == before else len(prompt))
        if not rows or need > room:
            rows.append([])
            need = len(sampled) - 1 + len(prompt)
            room = tokens_per_forward
        rows[-1].append(place)
        room -= need
        before = prompt
    return rows


def row_loss(
    model: torch.nn.Module, row: AnswerRow, token_loss: TokenLoss, temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Summed loss of a row with gradient, and of each target log-probability and entropy in nats, without."""

    def losses() -> tuple[Tensor, Tensor, Tensor]:
        hidden = hidden_states(model, row.ids, row.positions, row.layout)[row.at]
        head = base_model(model).get_output_embeddings()
        return policy_loss(hidden, head.weight, getattr(head, "bias", None), row.targets, token_loss, temperature)

    return run(model, losses)


@torch.no_grad()
def sampled_logps(
    model: torch.nn.Module, pairs: Sequence[Pair], temperature: float, tokens_per_forward: int
) -> list[Float[np.ndarray, " tokens"]]:
    """Log-probabilities in nats, float32, of the sampled ids of each pair under softmax(logits / temperature)."""
    check_whole(model)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    out: list[Float[np.ndarray, " tokens"]] = []
    for places, row in packed_rows(pairs, tokens_per_forward, device):
        hidden = hidden_states(model, row.ids, row.positions, row.layout)[row.at]
        logps = target_logps(model, hidden, row.targets, temperature).float().cpu().numpy()
        out += np.split(logps, np.cumsum([len(pairs[i][1]) for i in places])[:-1])
    model.train(was_training)
    return out


def idle_row(device: torch.device | str) -> AnswerRow:
    """The smallest row: what a process forwards, at no weight, while others still have rows of their own."""
    return pack([([0], [0])], device)
