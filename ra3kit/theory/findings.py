"""What an experiment found: claims with what was measured, and how much is done in an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Advance = Callable[[], None]
"""Called once for each unit of work done."""
RESAMPLES = 300
BAND = 0.25
"""A measured exponent agrees with 1 if its interval lies within 1 +- this."""


@dataclass(frozen=True)
class Finding:
    """One line of a table.

    Args:
        claim: what is stated, with the criterion by which it holds.
        measured: in words and figures.
        interval: the 95 % interval and what was resampled for it; "" where every case was counted.
        holds: whether the claim held.
    """

    claim: str
    measured: str
    interval: str
    holds: bool


@dataclass(frozen=True)
class Size:
    """How much is done.

    Args:
        ks, ms, sigmas: |Z_eps|, options in a block and mass of the pruning families: every combination is a cell.
        trials: draws of the samples of a cell. delta_trials: the same where small deltas are looked at.
        solved: tasks on which every subset's MDP is solved.
        taus: mean durations of options, in primitive steps; the first is 1.
        mdps: random MDPs for each duration.
        kept: numbers of options kept, rising; the last is all.
        budgets: primitive steps of RL on each task.
        replicas: repetitions of mid-training and RL. tasks: of each, for the experts and for RL.
        random_mdps: on which the decomposition is checked besides.
    """

    ks: tuple[int, ...] = (4, 8, 16, 32, 64)
    ms: tuple[int, ...] = (4, 8, 16, 32, 64)
    sigmas: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1)
    trials: int = 400
    delta_trials: int = 10_000
    solved: int = 200
    taus: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    mdps: int = 30
    kept: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 20, 44)
    budgets: tuple[int, ...] = (300, 2000)
    replicas: int = 5
    tasks: int = 200
    random_mdps: int = 200


FULL = Size()
QUICK = Size(
    ks=(4, 8, 16),
    ms=(4, 16, 64),
    sigmas=(0.05, 0.1),
    trials=100,
    delta_trials=1_000,
    solved=20,
    taus=(1, 4, 16),
    mdps=5,
    kept=(1, 2, 4, 8, 20, 44),
    replicas=2,
    tasks=50,
    random_mdps=20,
)
"""A look in a few seconds; too small for some intervals to decide."""


def bootstrap(
    statistic: Callable[[np.random.Generator], float | np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % percentile interval of a statistic of resampled data.

    Args:
        statistic: resamples with the generator it is given.
        rng: of the resampling.
    """
    drawn = np.array([statistic(rng) for _ in range(RESAMPLES)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def interval_of(statistic: Callable[[np.ndarray], float], count: int, rng: np.random.Generator) -> tuple[float, float]:
    """The same of a statistic that takes the indices of the `count` cases resampled."""
    low, high = bootstrap(lambda r: statistic(r.integers(0, count, count)), rng)
    return float(low), float(high)


def shown(low: float, high: float, digits: int = 2) -> str:
    """An interval as text.

    >>> shown(0.9, 1.1)
    '[0.90, 1.10]'
    """
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def from_to(values: np.ndarray) -> str:
    """Least and largest as text."""
    return f"{values.min():.2f} to {values.max():.2f}"


def agrees_with_one(low: float, high: float) -> bool:
    """Whether an exponent's interval lies within 1 +- BAND."""
    return bool(low >= 1 - BAND and high <= 1 + BAND)
