"""What thoughts were worth against what they cost, and which intents there are. Pure functions.

Method, part 2: a thought is worth it only if it raises the log-likelihood of the lines it covers by more than the prior
charges for it. Gain and cost are compared on the prior's scale: "line_sum" is nats; on "token_mean" a line's reward is
its mean per token, so a thought gains the sum of its lines' mean gains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from ra3kit.reports.annotated import Mark
from ra3kit.reports.options import NONE_YET, Options

if TYPE_CHECKING:
    from ra3kit.abstraction.credit import Scale
    from ra3kit.abstraction.evaluate import ThoughtGain
    from ra3kit.abstraction.prior import LatentPrior
    from ra3kit.data.trajectory import Trajectory


@dataclass(frozen=True)
class Worth:
    """A thought, what it gained and what it cost.

    Args:
        snippet: index in the sample; line: index of the line it stands before.
        lines: how many it covers, >= 1.
        text: without its line end.
        tokens: its own, "#" and line end included.
        nats: information gain: log-likelihood of its lines with it minus without it.
        gain: the same on the prior's scale.
        cost: what the prior charges, on the same scale.
    """

    snippet: int
    line: int
    lines: int
    text: str
    tokens: int
    nats: float
    gain: float
    cost: float

    @property
    def net(self) -> float:
        """Gain minus cost."""
        return self.gain - self.cost

    @property
    def mark(self) -> Mark:
        """ "paid": gained more than it cost; "gained": something, but not that much; "lost": nothing, or less."""
        if self.gain > self.cost:
            return "paid"
        return "gained" if self.gain > 0 else "lost"


def gain_on(scale: Scale, gain: ThoughtGain, trajectory: Trajectory) -> float:
    """A thought's gain in the unit of the prior: the change of the summed rewards of the lines it covers.

    The E-step may discount, or stop at a horizon of some lines; here every line up to the next thought counts whole.

    Args:
        scale: of the prior.
        gain: of the thought.
        trajectory: that it is in.
    """
    if scale == "line_sum":
        return gain.nats
    spans = trajectory.lines[gain.line : gain.line + gain.lines]
    return float(((np.array(gain.logp_with) - np.array(gain.logp_without)) / (spans[:, 1] - spans[:, 0])).sum())


def costs_of(
    prior: LatentPrior, has_thought: Bool[np.ndarray, " n"], may_think: Bool[np.ndarray, " n"]
) -> dict[int, float]:
    """What each thought of a snippet costs by its line: the prior's penalty of all latents with it minus without it.

    Of a `FixedPenalty` this is c. Of a `TemporalPrior` it is the log-odds of `<act>` against this very thought: the
    part of its penalty that is q's own log-probability is not in a store, and is left out (log q = 0).

    Args:
        prior: of the run.
        has_thought: True where a thought stands before the line.
        may_think: True where a latent was chosen.
    """
    import torch

    lines = np.flatnonzero(has_thought)
    latents = np.repeat(has_thought[None], 1 + len(lines), 0)  # [1 + m, n]: as they are, then each without one thought
    latents[1 + np.arange(len(lines)), lines] = False
    is_thought = torch.from_numpy(latents)
    chosen = torch.from_numpy(np.repeat(may_think[None], len(latents), 0))
    with torch.no_grad():
        total = prior.penalty(is_thought, torch.zeros(latents.shape, dtype=torch.float64), chosen).sum(-1)
    return {line: float(total[0] - total[1 + i]) for i, line in enumerate(lines.tolist())}


def common_cost(worths: Sequence[Worth]) -> float | None:
    """What every thought costs, rounding aside; None where they differ."""
    costs = [worth.cost for worth in worths]
    return costs[0] if costs and np.ptp(costs) < 1e-6 * max(1.0, abs(costs[0])) else None


@dataclass(frozen=True)
class Payoff:
    """The thoughts of a sample in figures; gains, costs and nets on the prior's scale.

    Args:
        thoughts, snippets: how many.
        tokens: mean tokens of a thought.
        nats: mean information gain, nats.
        gain, median: mean and median gain.
        gained, paid: share that gained anything, and that gained more than they cost.
        cost, net: means.
        intervals: 95 % bootstrap intervals over snippets of the means "gain", "gained", "paid" and "net".
    """

    thoughts: int
    snippets: int
    tokens: float
    nats: float
    gain: float
    median: float
    gained: float
    paid: float
    cost: float
    net: float
    intervals: Mapping[str, tuple[float, float]]


def payoff_of(worths: Sequence[Worth]) -> Payoff:
    """The figures of at least one thought."""
    gain = np.array([worth.gain for worth in worths])
    cost = np.array([worth.cost for worth in worths])
    snippet = np.array([worth.snippet for worth in worths])
    each = {"gain": gain, "gained": gain > 0, "paid": gain > cost, "net": gain - cost}
    return Payoff(
        len(worths),
        len(np.unique(snippet)),
        float(np.mean([worth.tokens for worth in worths])),
        float(np.mean([worth.nats for worth in worths])),
        median=float(np.median(gain)),
        cost=float(cost.mean()),
        intervals={name: _interval(values, snippet) for name, values in each.items()},
        **{name: float(values.mean()) for name, values in each.items()},
    )


def _interval(values: np.ndarray, snippet: np.ndarray) -> tuple[float, float]:
    """Of a mean over thoughts: those of a snippet are not independent, so snippets are drawn."""
    from ra3kit.abstraction.evaluate import paired_difference

    _, group = np.unique(snippet, return_inverse=True)
    counts = np.bincount(group)
    found = paired_difference(np.bincount(group, values.astype(float)), np.zeros(len(counts)), counts)
    return found.low, found.high


# --- intents ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Intent:
    """A text that thoughts have.

    Args:
        text: without line end.
        count: thoughts of this text in the store; share: of all its thoughts.
        lines: mean duration, lines.
        worths: those of this text in the sample.
    """

    text: str
    count: int
    share: float
    lines: float
    worths: tuple[Worth, ...]


def intents_of(options: Options, texts: Mapping[tuple[int, ...], str], worths: Sequence[Worth] = ()) -> list[Intent]:
    """Every text of a store's thoughts, the most frequent first.

    Args:
        options: of the store.
        texts: token ids of a thought -> its text; of several ids with the same text, the thoughts are one intent.
        worths: of a sample of it.
    """
    counts: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    each = np.bincount(options.intent, minlength=len(options.intents)).tolist()
    covered = np.bincount(options.intent, options.lines, len(options.intents)).tolist()
    for ids, count, total in zip(options.intents, each, covered, strict=True):
        if ids != NONE_YET:
            counts[texts[ids]] += count
            lines[texts[ids]] += total
    sampled: dict[str, list[Worth]] = {}
    for worth in worths:
        sampled.setdefault(worth.text, []).append(worth)
    thoughts = counts.total()
    return [
        Intent(text, count, count / thoughts, lines[text] / count, tuple(sampled.get(text, ())))
        for text, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
