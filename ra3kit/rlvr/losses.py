"""GRPO as small pure functions: advantages of a group, the clipped loss of a token, its weight in the step.

Sources: GRPO (arXiv 2402.03300, eq. 3), DAPO (2503.14476: clip higher, token-level mean, overlong filtering), Dr. GRPO
(2503.20783: no division by the standard deviation or by the length), RLOO (2402.14740), truncated importance sampling
between sampler and trainer (Yao et al., 2025). The defaults: Dr. GRPO's baseline (the mean, nothing divided), DAPO's
mean over tokens, and DeepCoder's clip of .2/.28, no KL, truncated answers masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Advantage = Literal["mean", "std", "loo"]
"""mean: reward minus the group's mean. std: that, divided by the group's standard deviation. loo: reward minus the mean
of the others (RLOO), unbiased; "mean" times g / (g - 1)."""

Normalise = Literal["token", "sequence", "constant"]
"""token: mean over all trained tokens of the step (DAPO). sequence: mean over the tokens of an answer, then over
answers (GRPO's paper). constant: sum over an answer divided by max_new_tokens, mean over answers (Dr. GRPO)."""

Gate = Literal["outcome", "reward"]
"""What a group must differ in to be trained on: whether its answers pass, or their rewards."""

STD_EPS = 1e-4
"""Added to the standard deviation, as TRL does."""


def advantages(rewards: Float[np.ndarray, " g"], kind: Advantage = "mean") -> Float[np.ndarray, " g"]:
    """Advantage of each answer of one group.

    Args:
        rewards: of the g answers that have one.
        kind: see `Advantage`.

    >>> advantages(np.array([1.0, 0.0, 0.0, 0.0])).tolist(), advantages(np.array([1.0, 0.0]), "loo").tolist()
    ([0.75, -0.25, -0.25, -0.25], [1.0, -1.0])
    """
    g = len(rewards)
    centred = rewards - rewards.mean()
    if kind == "loo":
        return centred * (g / (g - 1)) if g > 1 else np.zeros_like(centred)
    if kind == "std":
        return centred / (rewards.std(ddof=1) + STD_EPS) if g > 1 else np.zeros_like(centred)
    return centred


def has_signal(rewards: Sequence[float | None], outcomes: Sequence[bool | None], gate: Gate = "outcome") -> bool:
    """Whether a group says which of its answers are better: at least two are judged, and they differ.

    By outcome, so that a shaped reward (format, length) alone can't make a group of failures a lesson.

    >>> has_signal([1.0, 0.0, None], [True, False, None]), has_signal([0.1, 0.0], [False, False])
    (True, False)
    """
    told: Sequence[object] = outcomes if gate == "outcome" else rewards
    return len({value for value, reward in zip(told, rewards, strict=True) if reward is not None}) > 1


@dataclass(frozen=True)
class TokenLoss:
    """What the loss of m sampled tokens needs besides their log-probabilities.

    Args:
        advantage: [m].
        weight: [m], >= 0; the loss of a step is the sum of weight * loss.
        old: [m] log-probabilities that ratios refer to; None: those of the running pass, so all ratios are 1.
        sampler: [m] log-probabilities under the sampler, for importance sampling; None: no correction.
        reference: [m] log-probabilities under the reference policy; None where there is none.
        clip_low, clip_high: ratios beyond 1 - clip_low and 1 + clip_high are clipped.
        beta: weight of the KL to the reference.
        cap: most that an importance weight may be.
    """

    advantage: Float[Tensor, " m"]
    weight: Float[Tensor, " m"]
    old: Float[Tensor, " m"] | None = None
    sampler: Float[Tensor, " m"] | None = None
    reference: Float[Tensor, " m"] | None = None
    clip_low: float = 0.2
    clip_high: float = 0.28
    beta: float = 0.0
    cap: float | None = 2.0

    def __call__(self, logp: Float[Tensor, " n"], part: slice) -> Float[Tensor, " n"]:
        """Weighted losses of the tokens `part`, differentiable in `logp`."""
        loss = clipped(self.ratio(logp, part), self.advantage[part], self.clip_low, self.clip_high)
        if self.sampler is not None and self.cap is not None:
            loss = loss * self.importance(logp, part)
        if self.reference is not None and self.beta:
            loss = loss + self.beta * k3(logp, self.reference[part])
        return loss * self.weight[part]

    def ratio(self, logp: Float[Tensor, " n"], part: slice = slice(None)) -> Float[Tensor, " n"]:
        """pi / pi_old of each token."""
        old = logp.detach() if self.old is None else self.old[part]
        return (logp - old).exp()

    def importance(self, logp: Float[Tensor, " n"], part: slice = slice(None)) -> Float[Tensor, " n"]:
        """min(cap, pi_old / sampler) of each token: what the sampler drew too often counts less. No gradient."""
        assert self.sampler is not None
        old = logp.detach() if self.old is None else self.old[part]
        weight = (old - self.sampler[part]).exp()
        return weight if self.cap is None else weight.clamp(max=self.cap)

    def is_clipped(self, logp: Float[Tensor, " m"]) -> tuple[Bool[Tensor, " m"], Bool[Tensor, " m"]]:
        """Where a token is clipped from below and from above, so that it has no gradient."""
        ratio = self.ratio(logp)
        low = (ratio < 1 - self.clip_low) & (self.advantage < 0)
        high = (ratio > 1 + self.clip_high) & (self.advantage > 0)
        return low, high


def clipped(
    ratio: Float[Tensor, " n"], advantage: Float[Tensor, " n"], clip_low: float, clip_high: float
) -> Float[Tensor, " n"]:
    """The clipped surrogate of PPO, to be minimised: -min(r A, clip(r, 1 - low, 1 + high) A).

    >>> clipped(torch.tensor([2.0, 0.5, 2.0]), torch.tensor([1.0, -1.0, -1.0]), 0.2, 0.25).tolist()
    [-1.25, 0.800000011920929, 2.0]
    """
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


def k3(logp: Float[Tensor, " n"], reference: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """KL(pi || reference) by Schulman's k3 estimate, >= 0: exp(d) - 1 - d with d = log reference - log pi."""
    d = reference - logp
    return d.exp() - 1 - d


def weights(lengths: Sequence[int], kind: Normalise, max_new_tokens: int, tokens: int, answers: int) -> list[float]:
    """Weight of each token of answers of these lengths.

    Args:
        lengths: sampled tokens of each answer that is trained on, on this process.
        tokens, answers: that are trained on in this update, over all processes.

    >>> weights([2, 6], "token", 10, 8, 2), weights([2, 6], "constant", 10, 8, 2)
    ([0.125, 0.125], [0.05, 0.05])
    """
    if kind == "token":
        return [1 / tokens] * len(lengths)
    if kind == "constant":
        return [1 / (answers * max_new_tokens)] * len(lengths)
    return [1 / (answers * length) for length in lengths]
