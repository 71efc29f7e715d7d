"""Curves of runs: read in full from TensorBoard's event files, and the statistics of one curve and of several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ra3kit.errors import RunError
from ra3kit.ranges import check_number

EVENTS = "events.out.tfevents.*"
LAST = 0.1
"""Share of a curve's values whose mean is its end."""

LEVEL = 0.95


@dataclass(frozen=True)
class Curve:
    """One logged figure of a run.

    Args:
        steps: increasing.
        values: NaN and infinity stay as they were logged.
        seconds: of running since the first event. Work that was lost by a kill counts, the time until a resume doesn't.
    """

    steps: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    seconds: Float[np.ndarray, " n"]

    def at(self, keep: np.ndarray) -> Curve:
        """The points that a mask (True: kept) or a list of positions picks."""
        return Curve(self.steps[keep], self.values[keep], self.seconds[keep])

    def finite(self) -> Curve:
        """Without NaN and infinity."""
        return self.at(np.isfinite(self.values))


# --- reading ---------------------------------------------------------------------------------------------------------


def has_events(folder: Path) -> bool:
    """Whether TensorBoard files lie directly in a folder."""
    return next(folder.glob(EVENTS), None) is not None


def read_curves(folder: Path) -> dict[str, Curve]:
    """Every scalar of a run by its tag, all points of it; also of a run that is still going on.

    A resumed run logs the steps after its checkpoint again. Its new file says from which step on: what the files
    before have from there is dropped. Of several values of one step the one logged last counts.

    Raises:
        RunError: there are no event files, or no scalar in them.
    """
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    points: dict[str, dict[int, tuple[float, float]]] = {}
    before = 0.0  # seconds that earlier files took
    for file in sorted(folder.glob(EVENTS)):  # their names begin with the time
        times: list[float] = []
        for event in LegacyEventFileLoader(str(file)).Load():
            times.append(event.wall_time)
            if event.session_log.status == SessionLog.START:
                points = {tag: _before(kept, event.step) for tag, kept in points.items()}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    at = before + event.wall_time - times[0]
                    points.setdefault(value.tag, {})[event.step] = (value.simple_value, at)
        before += max(times) - times[0] if times else 0.0
    curves = {tag: _curve(kept) for tag, kept in points.items() if kept}
    if not curves:
        why = "no scalar is in its event files yet" if has_events(folder) else f"there is no {EVENTS} in it"
        raise RunError(f"{folder}: no curves can be read, {why}.")
    return curves


def _before(points: Mapping[int, tuple[float, float]], step: int) -> dict[int, tuple[float, float]]:
    return {at: value for at, value in points.items() if at < step}


def _curve(points: Mapping[int, tuple[float, float]]) -> Curve:
    steps = sorted(points)
    values, seconds = np.array([points[step] for step in steps], float).T
    return Curve(np.array(steps), values, seconds)


# --- one curve -------------------------------------------------------------------------------------------------------


def running_mean(steps: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], window: int) -> Float[np.ndarray, " n"]:
    """Mean of the values of the last `window` steps, the step itself among them; at the beginning of those there are.

    >>> running_mean(np.array([0, 1, 2, 10]), np.array([1.0, 3.0, 5.0, 7.0]), window=2)
    array([1., 2., 4., 7.])
    """
    first = np.searchsorted(steps, steps - window, side="right")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    until = np.arange(1, len(values) + 1)
    return (sums[until] - sums[first]) / (until - first)


def area_under(steps: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Area under the curve by trapezoids, divided by the range of the steps: the mean height. Of one point, its value.

    >>> area_under(np.array([0, 10, 20]), np.array([0.0, 1.0, 1.0]))
    0.75
    """
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0])) if len(steps) > 1 else float(values[0])


def first_step_at(
    steps: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], threshold: float, window: int = 1
) -> int | None:
    """First step at which the running mean over `window` steps is at least the threshold; None: it never is.

    Steps with less than a whole window behind them don't count: the mean of a few is too often high by chance.

    >>> first_step_at(np.arange(5), np.array([5.0, 0.0, 0.0, 2.0, 4.0]), threshold=2.0, window=3)
    4
    """
    reached = (running_mean(steps, values, window) >= threshold) & (steps >= steps[0] + window - 1)
    return int(steps[np.argmax(reached)]) if reached.any() else None


def end_of(values: Float[np.ndarray, " n"], share: float = LAST) -> float:
    """Mean of the last tenth of the values, of at least one.

    >>> end_of(np.arange(20.0))
    18.5
    """
    return float(values[-math.ceil(share * len(values)) :].mean())


# --- several seeds ---------------------------------------------------------------------------------------------------


def shared_steps(curves: Sequence[Curve]) -> Int[np.ndarray, " n"]:
    """Steps that all curves have; may be none."""
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    return steps


def mean_band(
    values: Float[np.ndarray, " seeds *n"], level: float = LEVEL
) -> tuple[Float[np.ndarray, " *n"], Float[np.ndarray, " *n"]]:
    """Mean over seeds, and half the width of Student's t interval of that mean.

    The interval takes the seeds as independent draws of a normal distribution, each n on its own. For one seed the
    half-width is NaN: nothing is known.

    Args:
        values: first axis: seeds.
        level: of the interval, between 0 and 1.
    """
    seeds = len(values)
    mean = values.mean(axis=0)
    if seeds < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, t_quantile((1 + level) / 2, seeds - 1) * values.std(axis=0, ddof=1) / math.sqrt(seeds)


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t distribution with a whole number of degrees of freedom.

    By bisection of the distribution function, which is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Args:
        p: probability, 0.5 to below 1.
        df: degrees of freedom, >= 1.

    Raises:
        RecipeError: p or df out of range.

    >>> round(t_quantile(0.975, 2), 4)
    4.3027
    """
    check_number("p", p, least=0.5, below=1)
    check_number("df", df, least=1, whole=True)
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(df)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < 2 * p - 1 else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _within(angle: float, df: int) -> float:
    """P(|T| <= sqrt(df) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if df % 2 == 0:
        return sine * _series(cosine, range(1, df - 2, 2), 1.0)
    return 2 / math.pi * (angle + (sine * _series(cosine, range(2, df - 2, 2), cosine) if df > 1 else 0.0))


def _series(cosine: float, numerators: Iterable[int], term: float) -> float:
    """First term + each next, which is the one before times n / (n + 1) cos^2."""
    total = term
    for n in numerators:
        term *= n / (n + 1) * cosine**2
        total += term
    return total
