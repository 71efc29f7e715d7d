"""Curves of several runs side by side: which tags, in which panels, one line an arm, their figures, and the picture."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from ra3kit.errors import RunError, nearest
from ra3kit.reports.curves import (
    LEVEL,
    Curve,
    area_under,
    end_of,
    first_step_at,
    mean_band,
    running_mean,
    shared_steps,
)
from ra3kit.reports.runs import Arm, Run

X = Literal["step", "seconds"]

BY_STAGE = {
    "rlvr": ("rlvr/reward", "rlvr/pass_rate", "rlvr/entropy", "rlvr/completions/mean_length", "eval/*/pass@1"),
    "ra3": (
        "estep/reward",
        "estep/thought_rate",
        "mstep/code_loss",
        "ntp/code_loss",
        "eval/*/iwae_ce",
        "eval/*/pass@1",
    ),
    "ntp": ("ntp/loss", "eval/*/plain_ce", "eval/*/pass@1"),
}
"""The tags that are shown unless others are asked for, in this order."""

UNITS = (
    (r"estep/reward", "reward per line"),
    (r"rlvr/reward.*", "reward"),
    (r"estep/entropy", "nats per choice"),
    (r"rlvr/(entropy|kl)", "nats per token"),
    (r".*(_ce|loss)", "nats per token"),
    (r".*/(pass@\d+|base_pass@\d+|pass_rate|thought_rate|frac_reward_zero_std)", "share"),
    (r".*(length|tokens)", "tokens"),
    (r".*/seconds(/.*)?", "seconds"),
    (r".*tokens_per_second", "tokens per second"),
)
"""Pattern of a tag -> what its axis is called; the first that fits."""

HIGHER = r".*/(reward|pass_rate|pass@\d+|base_pass@\d+|elbo)"
LOWER = r".*(_ce|loss)"
THRESHOLDS = r"(rlvr|eval)/.*(reward|pass_rate|pass@\d+)"
"""Tags for which more is better, less is better, and a threshold means something."""

COLOURS = ("#2b6ca3", "#d1813a", "#5f9e6e", "#b04a5a", "#7f63b8", "#8a6d4f", "#c86fb0", "#6b7785", "#9fa83a", "#3aa7b0")
STYLES = ("-", "--", ":", "-.")
MARKED = 15
"""A line of at most so many points has a marker at each."""
GAP = 5
"""A line of more points is broken where two are so many times as far from each other as usual: in a run of several
phases the curve of one does not go on through the others."""


@dataclass(frozen=True)
class Line:
    """One tag of one arm.

    Args:
        tag, arm: whose.
        curves: of each seed that has the tag, at the steps that all of them have.
        smooth: running mean of each seed at these steps.
        bounds: lower and upper end logged beside the tag (`_lo`, `_hi`), of a single seed.
        cut: points that were left out because not every seed has them.
        not_finite: points that were left out because they are NaN or infinite.
    """

    tag: str
    arm: str
    curves: list[Curve]
    smooth: list[np.ndarray]
    bounds: tuple[Curve, Curve] | None
    cut: int
    not_finite: int

    @property
    def steps(self) -> Int[np.ndarray, " n"]:
        """Steps of the line."""
        return self.curves[0].steps

    def x(self, axis: X) -> np.ndarray:
        """Where the points are: steps, or mean seconds over seeds."""
        return self.steps if axis == "step" else np.mean([curve.seconds for curve in self.curves], axis=0)

    def band(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean of the running means over seeds, and half the width of its 95 % interval (NaN for one seed)."""
        return mean_band(np.array(self.smooth), LEVEL)


# --- tags ------------------------------------------------------------------------------------------------------------


def choose_tags(runs: Sequence[Run], globs: Sequence[str] | None = None) -> list[str]:
    """The tags to show: those that the globs match, or those of the runs' stages, in that order.

    Ends of intervals (`_lo`, `_hi`) belong to their tag and are none of their own.

    Raises:
        RunError: a glob matches nothing, or these runs have no tag that is shown by default.
    """
    tags = list(dict.fromkeys(tag for run in runs for tag in run.curves))
    own = [tag for tag in tags if not (tag.endswith(("_lo", "_hi")) and tag[:-3] in tags)]
    stages = dict.fromkeys(run.stage for run in runs)
    wanted = list(globs or [glob for stage in stages for glob in BY_STAGE.get(stage, ())])
    for glob in globs or ():
        if not any(fnmatchcase(tag, glob) for tag in own):
            raise RunError(f"--tags {glob}: no curve has such a tag.{nearest(glob, own)} Tags: {_listed(own)}.")
    chosen = list(dict.fromkeys(tag for glob in wanted for tag in own if fnmatchcase(tag, glob)))
    if not chosen:
        raise RunError(f"None of the tags that are shown by default is in these runs. --tags one of: {_listed(own)}.")
    return chosen


def _listed(tags: Sequence[str], shown: int = 20) -> str:
    more = f" and {len(tags) - shown} more" if len(tags) > shown else ""
    return ", ".join(sorted(tags)[:shown]) + more


def panel_of(tag: str) -> str:
    """The panel a tag is drawn in: figures of pi, q and the control that can be compared share one.

    >>> panel_of("mstep/code_loss"), panel_of("ntp/code_loss"), panel_of("estep/reward")
    ('training: code_loss', 'training: code_loss', 'estep/reward')
    >>> panel_of("eval/posterior/iwae_ce"), panel_of("eval/mbpp-ntp/pass@1")
    ('eval: iwae_ce', 'eval/mbpp: pass@1')
    """
    first, *rest = tag.split("/")
    if first in ("mstep", "ntp", "warmup") and len(rest) == 1:
        return f"training: {rest[0]}"
    if first == "eval" and len(rest) == 2:
        which, leaf = rest
        if which in ("ra3", "posterior", "ntp"):
            return f"eval: {leaf}"
        return f"eval/{which.removesuffix('-ntp')}: {leaf}"
    return tag


def unit_of(tag: str) -> str:
    """What the axis of a tag is called; "" where nothing is known."""
    return next((unit for pattern, unit in UNITS if re.fullmatch(pattern, tag)), "")


# --- lines -----------------------------------------------------------------------------------------------------------


def lines_of(arms: Sequence[Arm], tags: Sequence[str], smooth: int) -> tuple[list[Line], list[str]]:
    """Every tag of every arm that has it, and a note on each thing that was left out.

    Args:
        arms: whose.
        tags: in the order of the report.
        smooth: steps of the running mean. Curves of `eval/*` have few points, each with an interval: they stay.
    """
    lines, notes = [], []
    for tag in tags:
        for arm in arms:
            having = [run for run in arm.runs if tag in run.curves and len(run.curves[tag].finite().steps)]
            if not having:
                notes.append(f"{tag}: {arm.label} has no value of it")
                continue
            line = line_of(tag, arm.label, having, smooth)
            if line is None:
                notes.append(f"{tag}: the seeds of {arm.label} have no step in common, so it is not shown")
                continue
            lines.append(line)
            if len(having) < len(arm.runs):
                notes.append(f"{tag}: {len(having)} of {len(arm.runs)} seeds of {arm.label} have it")
            if line.cut:
                notes.append(
                    f"{tag}: {line.cut} points of {arm.label} left out, at steps that not all of its seeds have"
                )
            if line.not_finite:
                notes.append(f"{tag}: {line.not_finite} values of {arm.label} are NaN or infinite and count nowhere")
    return lines, notes


def line_of(tag: str, arm: str, runs: Sequence[Run], smooth: int) -> Line | None:
    """One line from the runs of an arm that have the tag; None where they share no step."""
    found = [run.curves[tag] for run in runs]
    curves = [curve.finite() for curve in found]
    steps = shared_steps(curves)
    if not len(steps):
        return None
    keep = [np.isin(curve.steps, steps) for curve in curves]
    means = [running_mean(curve.steps, curve.values, window_of(tag, smooth)) for curve in curves]
    one = runs[0].curves if len(runs) == 1 else {}
    ends = [one[end].finite() for end in (f"{tag}_lo", f"{tag}_hi") if end in one]
    return Line(
        tag,
        arm,
        [curve.at(kept) for curve, kept in zip(curves, keep, strict=True)],
        [mean[kept] for mean, kept in zip(means, keep, strict=True)],
        (ends[0], ends[1]) if len(ends) == 2 else None,
        sum(int((~kept).sum()) for kept in keep),
        sum(len(a.steps) - len(b.steps) for a, b in zip(found, curves, strict=True)),
    )


def window_of(tag: str, smooth: int) -> int:
    """Steps of the running mean of a tag."""
    return 1 if tag.startswith("eval/") else smooth


# --- figures ---------------------------------------------------------------------------------------------------------


def table_of(tag: str, lines: Sequence[Line], threshold: float, smooth: int) -> list[list[str]]:
    """The figures of a tag, a row an arm under a row of titles. Of several seeds: mean +- half the 95 % t-interval."""
    lines = [line for line in lines if line.tag == tag]
    compared = re.fullmatch(THRESHOLDS, tag) is not None
    reaches = [f"step at {threshold:g}"] if compared else []
    rows = [["curve", "seeds", "first", "last 10 %", "best", "area per step", *reaches, "last step", "seconds"]]
    for line in lines:
        values = {
            "first": [curve.values[0] for curve in line.curves],
            "last": [end_of(curve.values) for curve in line.curves],
            "best": [best_of(tag, curve.values) for curve in line.curves],
            "area": [area_under(curve.steps, curve.values) for curve in line.curves],
        }
        cells = [mean_text(found) for found in values.values()]
        if compared:
            window = window_of(tag, smooth)
            cells.append(reached_text([first_step_at(c.steps, c.values, threshold, window) for c in line.curves]))
        seconds = float(np.mean([curve.seconds[-1] for curve in line.curves]))
        rows.append([line.arm, str(len(line.curves)), *cells, str(line.steps[-1]), f"{seconds:,.0f}"])
    return rows


def best_of(tag: str, values: np.ndarray) -> float:
    """The highest or the lowest value; NaN for a tag of which neither more nor less is better."""
    if re.fullmatch(HIGHER, tag):
        return float(values.max())
    return float(values.min()) if re.fullmatch(LOWER, tag) else float("nan")


def mean_text(values: Sequence[float]) -> str:
    """A value, or mean and half-width of the interval over seeds, with two digits of the latter.

    >>> mean_text([0.5]), mean_text([1.0, 2.0, 3.0]), mean_text([100, 300]), mean_text([float("nan")])
    ('0.5', '2.0 ± 2.5', '200 ± 1271', '-')
    """
    mean, half = mean_band(np.array(values, float))
    if not np.isfinite(mean):
        return "-"
    if not half > 0:  # one seed, or all the same
        return f"{mean:.4g}" + (" ± 0" if half == 0 else "")
    places = max(0, 1 - math.floor(math.log10(half)))
    return f"{mean:.{places}f} ± {half:.{places}f}"


def reached_text(steps: Sequence[int | None]) -> str:
    """When a threshold is reached: the step, or the mean over seeds, or how many of them reach it.

    >>> reached_text([40]), reached_text([40, 50]), reached_text([40, None, 50]), reached_text([None])
    ('40', '45 ± 64', '2 of 3: 40, 50', 'never')
    """
    there = [step for step in steps if step is not None]
    if not there:
        return "never"
    if len(there) == len(steps):
        return mean_text(there)
    return f"{len(there)} of {len(steps)}: {', '.join(map(str, there))}"


def unequal_ends(tag: str, lines: Sequence[Line]) -> str | None:
    """A note where curves of a tag cover different steps, so that areas and ends must not be compared."""
    ends = {line.arm: (int(line.steps[0]), int(line.steps[-1])) for line in lines if line.tag == tag}
    if len(set(ends.values())) < 2:
        return None
    said = ", ".join(f"{arm} {first} to {last}" for arm, (first, last) in ends.items())
    return f"{tag}: the curves cover different steps ({said}); compare neither their ends nor their areas"


def caption(lines: Sequence[Line], smooth: int) -> str:
    """What the picture shows, in words."""
    parts = [
        "Thin: every value that was logged (of several seeds, their mean). Thick: running mean over the last "
        f"{smooth} steps; eval/* as measured."
        if smooth > 1
        else "Every value that was logged."
    ]
    seeds = {line.arm: len(line.curves) for line in lines if len(line.curves) > 1}
    if seeds:
        counts = ", ".join(f"{arm}: {count}" for arm, count in seeds.items())
        parts.append(
            f"Band: 95 % t-interval of the mean over training seeds, at each step on its own ({counts} seeds). It is "
            "about other seeds, not about other problems."
        )
    if any(line.bounds for line in lines):
        parts.append("Bars of pass@k: 95 % bootstrap interval over problems. It is not about other seeds.")
    return " ".join(parts)


# --- the picture -----------------------------------------------------------------------------------------------------


def draw(path: Path, lines: Sequence[Line], arms: Sequence[Arm], axis: X) -> None:
    """Draw a panel for each group of tags, an arm in one colour everywhere.

    Of a single arm, the tags of a panel have colours. Needs matplotlib.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    panels: dict[str, list[Line]] = {}
    for line in lines:
        panels.setdefault(panel_of(line.tag), []).append(line)
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    rows = -(-len(panels) // columns)
    colours = {arm.label: COLOURS[i % len(COLOURS)] for i, arm in enumerate(arms)}
    figure = Figure(figsize=(4.8 * columns, 3.3 * rows + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    scale, unit = (1.0, "optimizer step") if axis == "step" else time_scale(max(line.x(axis)[-1] for line in lines))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, shown) in zip(grid, panels.items(), strict=False):
        _draw_panel(axes, shown, colours, axis, scale)
        axes.set_title(title, fontsize=11)
        axes.set(xlabel=unit, ylabel=unit_of(shown[0].tag))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if len(arms) == 1:
        figure.suptitle(legend_text(arms[0]))
        figure.savefig(path, dpi=130)
        return
    handles = [Line2D([], [], color=colours[arm.label], linewidth=2.5, label=legend_text(arm)) for arm in arms]
    widest = max(len(legend_text(arm)) for arm in arms)
    most = max(1, int(52 * columns / (widest + 8)))  # so many characters fit below a column
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(arms), most), frameon=False)
    figure.savefig(path, dpi=130)


def _draw_panel(axes: Any, lines: Sequence[Line], colours: dict[str, str], axis: X, scale: float) -> None:
    from matplotlib.lines import Line2D

    tags = list(dict.fromkeys(line.tag for line in lines))
    styles: dict[str, Any] = {tag: STYLES[i % len(STYLES)] for i, tag in enumerate(tags)}
    of_tag = {tag: COLOURS[i % len(COLOURS)] if len(colours) == 1 else "#444444" for i, tag in enumerate(tags)}
    for line in lines:
        colour = of_tag[line.tag] if len(colours) == 1 else colours[line.arm]
        at = breaks(line.steps)
        mean, half = line.band()
        raw = np.mean([curve.values for curve in line.curves], axis=0)
        x, raw, mean, half = (np.insert(a, at, np.nan) for a in (line.x(axis) / scale, raw, mean, half))
        if not np.array_equal(raw, mean, equal_nan=True):
            axes.plot(x, raw, color=colour, linewidth=0.7, alpha=0.35)
        marker = "o" if len(x) <= MARKED else None
        axes.plot(x, mean, color=colour, linewidth=1.8, linestyle=styles[line.tag], marker=marker, markersize=3.5)
        if len(line.curves) > 1:
            axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.16, linewidth=0)
        if line.bounds is not None:
            _draw_bounds(axes, line, line.bounds, line.x(axis) / scale, colour)
    if len(tags) > 1:
        handles = [Line2D([], [], color=of_tag[tag], linestyle=styles[tag], label=tag) for tag in tags]
        axes.legend(handles=handles, fontsize=8, frameon=False, handlelength=2.6)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_bounds(axes: Any, line: Line, bounds: tuple[Curve, Curve], x: np.ndarray, colour: str) -> None:
    """Bars from the lower to the upper end, where both were logged with the value."""
    low, high = (dict(zip(end.steps.tolist(), end.values, strict=True)) for end in bounds)
    values = line.curves[0].values
    for at, step, value in zip(x, line.steps.tolist(), values, strict=True):
        if step in low and step in high:
            ends = [[max(value - low[step], 0.0)], [max(high[step] - value, 0.0)]]
            axes.errorbar([at], [value], ends, color=colour, alpha=0.6, fmt="none", linewidth=1, capsize=2)


def breaks(steps: Int[np.ndarray, " n"]) -> Int[np.ndarray, " gaps"]:
    """Positions before which a line is broken.

    >>> breaks(np.array([*range(10), *range(50, 60)]))
    array([10])
    """
    if len(steps) <= MARKED:
        return np.empty(0, int)
    apart = np.diff(steps)
    return np.flatnonzero(apart > GAP * np.median(apart)) + 1


def legend_text(arm: Arm) -> str:
    """An arm in the legend."""
    return arm.label if len(arm.runs) == 1 else f"{arm.label} ({len(arm.runs)} seeds)"


def time_scale(longest: float) -> tuple[float, str]:
    """Seconds in the unit of the axis, and its title.

    >>> time_scale(100), time_scale(7200)
    ((1.0, 'seconds of running'), (60.0, 'minutes of running'))
    """
    for limit, scale, unit in ((600, 1.0, "seconds"), (4 * 3600, 60.0, "minutes")):
        if longest <= limit:
            return scale, f"{unit} of running"
    return 3600.0, "hours of running"
