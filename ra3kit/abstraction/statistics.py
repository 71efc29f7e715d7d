"""What the latents look like: where each intent acts, how long it lasts, how varied the thoughts are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def thought_spans(is_thought: Bool[Tensor, " n"]) -> Int[Tensor, "m 2"]:
    """Half-open spans of the lines each thought acts on: from its own line up to the next thought, or the end.

    >>> thought_spans(torch.tensor([False, True, False, True])).tolist()
    [[1, 3], [3, 4]]
    """
    starts = is_thought.nonzero().flatten()
    ends = torch.cat([starts[1:], starts.new_full((min(1, len(starts)),), len(is_thought))])
    return torch.stack([starts, ends], dim=1)


def thought_rate(is_thought: Bool[Tensor, "*b n"], may_think: Bool[Tensor, "*b n"]) -> Float[Tensor, ""]:
    """Share of the latents that are thoughts, in [0, 1]; NaN where no latent may stand. Padding is False in both."""
    return (is_thought & may_think).sum() / may_think.sum()


def effective_horizon(is_thought: Bool[Tensor, "*b n"], is_line: Bool[Tensor, "*b n"]) -> Float[Tensor, ""]:
    """Lines per intent: the mean duration tau of an abstraction, in lines, from 1 to n.

    The stretch before the first thought is an intent too (the empty one), so that a trajectory without thoughts has the
    horizon n, not infinity. The last intent of a trajectory is cut by its end: a lower estimate of tau.

    >>> effective_horizon(torch.tensor([[False, True, False, False]]), torch.ones(1, 4, dtype=torch.bool))
    tensor(2.)
    """
    return is_line.sum() / intents(is_thought, is_line).sum()


def intents(is_thought: Bool[Tensor, "*b n"], is_line: Bool[Tensor, "*b n"]) -> Bool[Tensor, "*b n"]:
    """True on the first line of every intent: where a thought stands, and where the trajectory begins."""
    first = is_line & (is_line.cumsum(-1) == 1)
    return (is_thought & is_line) | first


def distinct_ratio(thoughts: Iterable[Hashable]) -> float:
    """Distinct thoughts over all thoughts, in (0, 1]; NaN for none. Falls with their number: compare at equal counts.

    >>> distinct_ratio(["# sort", "# sort", "# sum", "# max"])
    0.75
    """
    seen = list(thoughts)
    return len(set(seen)) / len(seen) if seen else math.nan


def most_common_share(thoughts: Iterable[Hashable]) -> float:
    """Share of the most common thought among all thoughts, in (0, 1]; NaN for none.

    >>> most_common_share(["# sort", "# sort", "# sum", "# max"])
    0.5
    """
    counts = Counter(thoughts)
    return max(counts.values()) / counts.total() if counts else math.nan
