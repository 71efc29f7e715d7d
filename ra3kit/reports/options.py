"""Options of an annotated corpus: how long intents last, and what that makes of the horizon (Theorem 3.6).

An option is the lines from one thought up to the next; its duration tau is counted in lines, the primitive actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from ra3kit.theory.convergence import bound

if TYPE_CHECKING:
    from ra3kit.data.trajectory import Trajectory
    from ra3kit.latents import ThoughtRules

NONE_YET: tuple[int, ...] = ()
"""The intent of the lines before a snippet's first thought: the empty one."""

LEAST = 10
"""Occurrences from which on an intent counts in a sup: the mean of a few is too often extreme by chance."""

R_MAX, EPS = 1.0, 0.01
"""Of the bound: a program's reward is from 0 to 1, and 0.01 from the optimum is near enough."""


@dataclass(frozen=True)
class Options:
    """Every option of an annotated corpus, in its order.

    Lines before the first thought of a snippet are an option of their own. A line before which nothing may be decided
    (inside a string, say) is a line like any other of the option it is in. The last option of a snippet is cut by the
    snippet's end, so durations are lower estimates and gbar is an upper one.

    Args:
        lines: duration tau of each option, >= 1.
        intent: of each, an index into `intents`.
        intents: token ids of the thought; `NONE_YET` is the empty intent.
        snippets: how many the corpus has.
        thinking: indices of those that have a thought.
        choices: latents that were chosen, in lines before which the rules let one stand.
        thought_tokens: tokens of all thoughts, "#" and line end included.
    """

    lines: Int[np.ndarray, " o"]
    intent: Int[np.ndarray, " o"]
    intents: list[tuple[int, ...]]
    snippets: int
    thinking: Int[np.ndarray, " s"]
    choices: int
    thought_tokens: int

    @property
    def of_thoughts(self) -> Bool[np.ndarray, " o"]:
        """True for options that a thought begins."""
        empty = self.intents.index(NONE_YET) if NONE_YET in self.intents else -1
        return self.intent != empty


def durations(has_thought: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " o"]:
    """Durations of a snippet's options in lines; they sum to n.

    Args:
        has_thought: True where a thought stands before the line.

    >>> durations(np.array([False, False, True, True, False]))
    array([2, 1, 2])
    """
    begins = np.flatnonzero(has_thought | (np.arange(len(has_thought)) == 0))
    return np.diff(np.append(begins, len(has_thought)))


def options_of(trajectories: Iterable[Trajectory], rules: ThoughtRules) -> Options:
    """The options of a corpus.

    Args:
        trajectories: annotated.
        rules: where the posterior chose a latent.
    """
    known: dict[tuple[int, ...], int] = {}
    lines, intent, thinking = [], [], []
    snippets = choices = thought_tokens = 0
    for trajectory in trajectories:
        has_thought = trajectory.has_thought()
        thoughts = [tuple(trajectory.ids[start:end].tolist()) for start, end in trajectory.thoughts]
        if len(has_thought) and not has_thought[0]:
            thoughts.insert(0, NONE_YET)
        if has_thought.any():
            thinking.append(snippets)
        lines += durations(has_thought).tolist()
        intent += [known.setdefault(ids, len(known)) for ids in thoughts]
        thought_tokens += sum(map(len, thoughts))
        choices += int(rules.may_think(trajectory.may_think).sum())
        snippets += 1
    arrays = (np.array(values, np.int64) for values in (lines, intent, thinking))
    taus, which, where = arrays
    return Options(taus, which, list(known), snippets, where, choices, thought_tokens)


# --- the horizon -----------------------------------------------------------------------------------------------------


def discounted(lines: Int[np.ndarray, " o"], gamma: float) -> float:
    """Mean of gamma^tau over options, in (0, gamma]: Theorem 3.6's E[gamma^tau | s, z], here averaged over s and z.

    Args:
        lines: durations, >= 1, at least one.
        gamma: discount per line, between 0 and 1.

    >>> discounted(np.array([1, 2]), 0.5)
    0.375
    """
    return min(float(np.mean(gamma ** lines.astype(float))), gamma)  # rounding must not lift it above gamma


def discounted_by_intent(options: Options, gamma: float) -> tuple[Float[np.ndarray, " z"], Int[np.ndarray, " z"]]:
    """Mean of gamma^tau over the occurrences of each intent, and how many these are."""
    counts = np.bincount(options.intent, minlength=len(options.intents))
    sums = np.bincount(options.intent, gamma ** options.lines.astype(float), len(options.intents))
    return np.minimum(sums / counts, gamma), counts


@dataclass(frozen=True)
class Horizon:
    """How far an annotated corpus sees, per snippet and per option.

    Args:
        lines, choices, options: of a snippet, means: code lines, latents chosen, options.
        thinking: share of the options that a thought begins; the others are lines before any thought.
        tau: mean duration of an option, lines.
        mean: gbar averaged over options, in (0, gamma].
        sup: the largest over intents that occur at least `LEAST` times, None where none does; no less than the mean.
        frequent: how many intents do.
    """

    lines: float
    choices: float
    options: float
    thinking: float
    tau: float
    mean: float
    sup: float | None
    frequent: int


def horizon_of(options: Options, gamma: float) -> Horizon:
    """The figures of a corpus with at least one line.

    Theorem 3.6 takes the sup of E[gamma^tau | s, z] over states and intents. The mean is below it, so it is optimistic;
    the sup over frequent intents is nearer, and still a mean over states. Where rare intents are shorter than the
    frequent ones, the mean is the larger of the two, and nearer.
    """
    by_intent, counts = discounted_by_intent(options, gamma)
    frequent = counts >= LEAST
    total, mean = int(options.lines.sum()), discounted(options.lines, gamma)
    return Horizon(
        total / options.snippets,
        options.choices / options.snippets,
        len(options.lines) / options.snippets,
        float(options.of_thoughts.mean()),
        total / len(options.lines),
        mean,
        max(mean, float(by_intent[frequent].max())) if frequent.any() else None,
        int(frequent.sum()),
    )


def sweeps_ratio(gbar: float, gamma: float) -> float:
    """Sweeps of value iteration that Theorem 3.6 asks for, over those for options of one line: from above 0 to 1.

    >>> round(sweeps_ratio(0.9, 0.99), 3)
    0.076
    """
    return bound(gbar, R_MAX, EPS) / bound(gamma, R_MAX, EPS)
