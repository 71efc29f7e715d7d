"""Statistics of arms compared seed by seed: each seed is one world with one base, and every arm was run on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ra3kit.errors import RunError
from ra3kit.reports.curves import area_under, end_of, first_step_at, t_quantile

LEVEL = 0.95
MOST_EXACT = 16
"""With so many seeds or fewer all 2^n flips of signs are tried; beyond, `RESAMPLES` random ones."""
RESAMPLES = 65_536
EXACT = 12
"""Decimals to which means of flipped differences are rounded, so that a tie is a tie."""


@dataclass(frozen=True)
class Paired:
    """Differences `ours - theirs`, one a seed.

    Args:
        differences: in the order of the seeds.
        mean: of them.
        low, high: 95 % interval of the mean by Student's t over the seeds; NaN for one seed.
        d_z: Cohen's d of paired samples, the mean divided by the standard deviation of the differences; infinite where
            all are the same and not 0, NaN for one seed.
        above, below: seeds with a positive, a negative difference.
        p: two-sided, of the sign-flip permutation test: the share of all ways to flip the differences' signs whose mean
            is at least as far from 0. With n seeds it is never less than 2^(1 - n): 6 are needed for 5 %.
    """

    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    d_z: float
    above: int
    below: int
    p: float


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Compare two arms by their values on the same seeds, in the same order.

    Raises:
        RunError: no seed, not as many on both sides, or a value that is not finite.

    >>> found = paired([0.9, 0.8, 0.7], [0.5, 0.5, 0.5])
    >>> round(found.mean, 3), round(found.d_z, 3), found.above, found.p
    (0.3, 3.0, 3, 0.25)
    """
    if not ours or len(ours) != len(theirs):
        raise RunError(f"{len(ours)} seeds of one arm and {len(theirs)} of the other can't be paired")
    gap = np.asarray(ours, float) - np.asarray(theirs, float)
    if not np.isfinite(gap).all():
        raise RunError(f"a value of {list(ours)} or {list(theirs)} is not finite")
    n, mean = len(gap), float(gap.mean())
    spread = float(gap.std(ddof=1)) if n > 1 else math.nan
    if n > 1 and spread < 10**-EXACT:
        spread = 0.0
    half = t_quantile((1 + LEVEL) / 2, n - 1) * spread / math.sqrt(n) if n > 1 else math.nan
    if spread > 0:
        d_z = mean / spread
    else:
        d_z = math.nan if n == 1 else (math.copysign(math.inf, mean) if round(mean, EXACT) else 0.0)
    rounded = gap.round(EXACT)
    return Paired(
        tuple(gap.tolist()),
        mean,
        mean - half,
        mean + half,
        d_z,
        int((rounded > 0).sum()),
        int((rounded < 0).sum()),
        sign_flip_p(gap),
    )


def sign_flip_p(differences: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the sign-flip permutation test on the mean: exact up to 16 differences, random flips beyond.

    >>> sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    gap = np.asarray(differences, float)
    seen = round(abs(float(gap.mean())), EXACT)
    if len(gap) <= MOST_EXACT:
        flips = np.array(list(itertools.product((-1.0, 1.0), repeat=len(gap))))
        return float((np.abs((flips * gap).mean(1)).round(EXACT) >= seen).mean())
    flips = np.random.default_rng(seed).choice((-1.0, 1.0), (RESAMPLES, len(gap)))
    beyond = int((np.abs((flips * gap).mean(1)).round(EXACT) >= seen).sum())
    return (1 + beyond) / (RESAMPLES + 1)


@dataclass(frozen=True)
class CurveMeasures:
    """What is told of a learning curve.

    Args:
        area: under the curve by trapezoids, divided by the range of the steps: its mean height.
        reached: first step at which the running mean is at least the threshold; None: never.
        asymptote: mean of the last tenth of the values.
        steps: of the whole curve.
    """

    area: float
    reached: int | None
    asymptote: float
    steps: int


def curve_measures(values: Sequence[float], threshold: float, window: int) -> CurveMeasures:
    """Measures of a curve with one value a step.

    Args:
        values: in the order of the steps, at least one.
        threshold: of `reached`.
        window: steps of the running mean, >= 1.

    >>> curve_measures([0.0, 0.5, 1.0, 1.0], threshold=0.7, window=2)
    CurveMeasures(area=0.6666666666666666, reached=2, asymptote=1.0, steps=4)
    """
    curve, steps = np.asarray(values, float), np.arange(len(values))
    return CurveMeasures(
        area_under(steps, curve), first_step_at(steps, curve, threshold, window), end_of(curve), len(curve)
    )
