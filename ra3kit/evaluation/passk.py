"""pass@k from verdicts, with intervals: what is measured, over which problems, and what was left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ra3kit.errors import DataError, nearest
from ra3kit.verify.problem import JUDGED, STATUSES, Status

ALPHA = 0.05
"""One minus the level of every interval here: 95 %."""

FEW = 30
"""Below this many problems a bootstrap interval is noticeably too narrow, and `notes` says so."""

RESAMPLES = 10_000


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples passes, by the unbiased estimator 1 - C(n-c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), equation 1. In integers until the one division, so it is correctly rounded for
    every n; the plug-in 1 - (1 - c/n)^k would be biased downwards.

    Args:
        n: samples judged, >= k.
        c: samples that passed, 0 to n.
        k: samples allowed, >= 1.

    Raises:
        DataError: k > n, c outside 0..n, or k < 1.

    >>> pass_at_k(n=10, c=3, k=1), pass_at_k(n=4, c=2, k=2)
    (0.3, 0.8333333333333334)
    """
    if k < 1 or not 0 <= c <= n:
        raise DataError(f"pass@k needs k >= 1 and 0 <= c <= n, and got k={k}, c={c}, n={n}.")
    if k > n:
        raise DataError(f"pass@{k} needs at least k={k} judged samples: this problem has n={n}, c={c} of them passed.")
    ways = math.comb(n, k)
    return (ways - math.comb(n - c, k)) / ways


class Tally(NamedTuple):
    """One problem's samples: how many were judged, how many of these passed, and how many could not be judged."""

    judged: int
    passed: int
    unjudged: int


@dataclass(frozen=True)
class Score:
    """A mean over problems with its 95 % interval; NaN where no problem has enough judged samples.

    Args:
        value, lo, hi: from 0 to 1.
        problems: how many problems the mean is over.
        left_out: names of the problems with fewer than k judged samples.
    """

    value: float
    lo: float
    hi: float
    problems: int
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.lo:.1%}, {self.hi:.1%}]" if self.problems else "not measured"

    def as_dict(self) -> dict[str, float | int | list[str] | None]:
        """For JSON, which knows no NaN: None instead."""
        numbers = {key: getattr(self, key) if self.problems else None for key in ("value", "lo", "hi")}
        return {**numbers, "problems": self.problems, "left_out": list(self.left_out)}


def tally(outcomes: Mapping[str, Sequence[Status]]) -> dict[str, Tally]:
    """Count each problem's verdicts. `internal` and `refused` say nothing about a program and are no failures.

    Raises:
        DataError: a verdict that is none of `STATUSES`, named with its problem and sample.
    """
    tallies = {}
    for task, statuses in outcomes.items():
        for i, status in enumerate(statuses):
            if status not in STATUSES:
                hint = nearest(str(status), STATUSES)
                raise DataError(f"{task}, sample {i}: {status!r} is no verdict.{hint} Verdicts: {', '.join(STATUSES)}.")
        judged = sum(status in JUDGED for status in statuses)
        tallies[task] = Tally(judged, sum(status == "pass" for status in statuses), len(statuses) - judged)
    return tallies


def verdict_counts(outcomes: Mapping[str, Sequence[Status]]) -> dict[Status, int]:
    """How many samples ended how, over all problems; every verdict is there, in the order of `STATUSES`.

    Raises:
        DataError: as `tally`.
    """
    tally(outcomes)
    seen = Counter(status for statuses in outcomes.values() for status in statuses)
    return {status: seen[status] for status in STATUSES}


def per_problem(tallies: Mapping[str, Tally], k: int) -> dict[str, float]:
    """pass@k of every problem with at least k judged samples, in the order given."""
    return {task: pass_at_k(t.judged, t.passed, k) for task, t in tallies.items() if t.judged >= k}


def estimate(
    outcomes: Mapping[str, Sequence[Status]], ks: Iterable[int], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Score]:
    """pass@k of a benchmark: the mean over problems of `pass_at_k`, with a 95 % interval.

    `internal` and `refused` samples are taken out of their problem's n, so n may differ between problems. A problem
    with fewer than k judged samples is left out of that k and named, never counted as a failure; `notes` puts this in
    words.

    The interval is the percentile bootstrap over problems (`interval_of_mean`). It covers which problems the benchmark
    happens to hold, and with them the draw of each problem's completions, since a problem's estimate carries the noise
    of its n samples. For these very problems alone, sampled again, it is too wide. It says nothing about another
    training seed, another prompt or a benchmark the model has seen in training, and with few problems (`FEW`) it is too
    narrow: 95 % is reached only for many.

    Args:
        outcomes: problem -> the verdicts of its samples.
        ks: each >= 1.
        seed: of the resampling.
        resamples: bootstrap resamples, >= 39.

    Returns:
        "pass@k" -> score, in the order of `ks`.

    Raises:
        DataError: an unknown verdict, no problem at all, k < 1, or too few resamples.
    """
    if not outcomes:
        raise DataError("No outcomes: pass@k of no problem is not defined.")
    tallies = tally(outcomes)
    scores = {}
    for k in ks:
        if k < 1:
            raise DataError(f"pass@k needs k >= 1, and got k={k}.")
        values = per_problem(tallies, k)
        left_out = tuple(task for task in tallies if task not in values)
        value, lo, hi = interval_of_mean(np.array(list(values.values())), seed, resamples)
        scores[f"pass@{k}"] = Score(value, lo, hi, len(values), left_out)
    return scores


def notes(outcomes: Mapping[str, Sequence[Status]], ks: Iterable[int], shown: int = 5) -> list[str]:
    """What a reader of the scores must know, one line each: samples not judged, problems left out, few problems.

    Args:
        outcomes, ks: as for `estimate`.
        shown: at most so many problems are named in a line; `Score.left_out` has them all.
    """
    tallies, counts, lines = tally(outcomes), verdict_counts(outcomes), []
    kinds = [f"{counts[status]} {status}" for status in STATUSES if status not in JUDGED and counts[status]]
    if kinds:
        lines.append(f"{sum(t.unjudged for t in tallies.values())} samples were not judged ({', '.join(kinds)}).")
    for k in ks:
        short = [f"{task} ({t.judged})" for task, t in tallies.items() if t.judged < k]
        if short:
            more = f" and {len(short) - shown} more" if len(short) > shown else ""
            samples = "judged sample" if k == 1 else "judged samples"
            lines.append(
                f"pass@{k}: left out for want of {k} {samples}, {len(short)} of {len(tallies)} problems: "
                f"{', '.join(short[:shown])}{more}."
            )
        if 0 < len(tallies) - len(short) < FEW:
            lines.append(f"pass@{k}: over few problems ({len(tallies) - len(short)}), so its interval is too narrow.")
    return lines


def interval_of_mean(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """(mean, lo, hi) of values in [0, 1]: the 95 % percentile bootstrap interval of their mean.

    Where all values are equal (all pass, all fail, one problem) every resample is the same and the bootstrap would
    claim certainty; `bounds_when_all_equal` is used there. NaN for no values. The order of the values does not matter.

    Args:
        values: float [p].
        seed: of the resampling. resamples: >= 39, or no resample lies outside a 95 % interval.

    Raises:
        DataError: fewer than 39 resamples.
    """
    tail = tail_rank(resamples)
    if not len(values):
        return math.nan, math.nan, math.nan
    values = np.sort(values)
    if values[0] == values[-1]:
        return float(values[0]), *bounds_when_all_equal(float(values[0]), len(values))
    means = np.concatenate([values[pick].mean(1) for pick in picks(len(values), seed, resamples)])
    means.sort()
    return float(values.mean()), float(means[tail - 1]), float(means[-tail])


def tail_rank(resamples: int) -> int:
    """Which smallest (and which largest) resample bounds a 95 % interval: the floor of 2.5 % of (resamples + 1).

    With this rank an interval leaves out 0 exactly when the p-value `2 (1 + #beyond 0) / (resamples + 1)` is <= 5 %.

    >>> tail_rank(9_999)
    250
    """
    rank = int((resamples + 1) * ALPHA / 2 + 1e-9)
    if rank < 1:
        raise DataError(f"resamples={resamples}: a 95 % interval needs at least 39.")
    return rank


def picks(problems: int, seed: int, resamples: int, at_once: int = 2**20) -> Iterable[np.ndarray]:
    """Bootstrap resamples of `problems` indices: int [r, problems] pieces of bounded size, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, at_once // problems)
    for start in range(0, resamples, rows):
        yield rng.integers(0, problems, (min(rows, resamples - start), problems))


def bounds_when_all_equal(value: float, problems: int) -> tuple[float, float]:
    """A 95 % interval for a mean in [0, 1] when each of the problems gave the same value.

    By Markov's inequality all of p independent values reach `value` with a chance of at most (mean / value)^p, so a
    mean below `value * 0.025^(1/p)` is rejected at 2.5 %; above it the same holds for 1 - value. For all-pass and
    all-fail this is the Clopper-Pearson interval (about 3.7 / p wide; the rule of three is its one-sided kin), and it
    holds for every distribution on [0, 1], so also for pass@k of fractional values and for few problems.

    >>> lo, hi = bounds_when_all_equal(1.0, 164)
    >>> round(lo, 4), hi
    (0.9778, 1.0)
    """
    slack = (ALPHA / 2) ** (1 / problems)
    return value * slack, 1 - (1 - value) * slack
