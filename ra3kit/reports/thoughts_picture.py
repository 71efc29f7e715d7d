"""The picture of a run's thoughts: gains against the cost, the most frequent intents, options over training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ra3kit.reports.annotated import Mark
from ra3kit.reports.curves import Curve
from ra3kit.reports.horizon_curves import TAU, e_steps
from ra3kit.reports.options import horizon_of
from ra3kit.reports.thoughts import Intent, Worth, common_cost
from ra3kit.reports.thoughts_sections import FREQUENT, UNITS, shortened

if TYPE_CHECKING:
    from ra3kit.reports.run_thoughts import RunThoughts

COLOURS: dict[Mark, str] = {"lost": "#b3402f", "gained": "#d9a521", "paid": "#0b6fa4"}
HATCHES: dict[Mark, str] = {"lost": "....", "gained": "////", "paid": ""}
TAIL = 1.0
"""Percent of the gains at either end that are drawn in the outermost bars."""


def draw_thoughts(path: Path, found: RunThoughts, curves: Mapping[str, Curve], gamma: float) -> None:
    """Draw what there is, a panel each. Needs matplotlib.

    Args:
        path: of the PNG.
        found: of a run, with at least one store.
        curves: of the run, by tag.
        gamma: discount per line.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = [(found.sample is not None, 1.0), (bool(found.intents), 1.25), (True, 1.0)]
    widths = [width for wanted, width in panels if wanted]
    figure = Figure(figsize=(5 * sum(widths), 4.4), layout=ConstrainedLayoutEngine(w_pad=0.12))
    grid = list(figure.subplots(1, len(widths), squeeze=False, width_ratios=widths).ravel())
    if found.sample is not None:
        _draw_gains(grid.pop(0), found.sample.worths, UNITS[found.sample.scale])
    if found.intents:
        _draw_intents(grid.pop(0), found.intents[:FREQUENT])
    _draw_horizon(grid.pop(0), found, curves, gamma)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # thoughts may be in any script
        figure.savefig(path, dpi=130)


def _draw_gains(axes: Any, worths: Sequence[Worth], unit: str) -> None:
    gains = np.array([worth.gain for worth in worths])
    low, high = np.percentile(gains, [TAIL, 100 - TAIL])
    low, high = min(float(low), 0.0), max(float(high), max(worth.cost for worth in worths))
    by_mark = {
        mark: np.clip([worth.gain for worth in worths if worth.mark == mark], low, high)
        for mark in COLOURS
        if any(worth.mark == mark for worth in worths)
    }
    _, _, bars = axes.hist(
        list(by_mark.values()),
        bins=np.linspace(low, high, 31) if high > low else 1,
        stacked=True,
        color=[COLOURS[mark] for mark in by_mark],
        label=[f"{mark}: {len(values) / len(worths):.1%}" for mark, values in by_mark.items()],
        edgecolor="white",
    )
    for mark, group in zip(by_mark, bars if len(by_mark) > 1 else [bars], strict=True):
        for bar in group:
            bar.set_hatch(HATCHES[mark])
    cost = common_cost(worths)
    mean = float(np.mean([worth.cost for worth in worths]))
    axes.axvline(mean, color="black", linewidth=1.4)
    text = f"c = {cost:.3g}" if cost is not None else f"mean cost {mean:.3g}"
    axes.annotate(text, (mean, 1), xycoords=("data", "axes fraction"), xytext=(4, 2), textcoords="offset points")
    axes.axvline(0, color="#5a6570", linewidth=0.8, linestyle=":")
    axes.set_title("What thoughts gained", fontsize=11, pad=16)
    axes.set_ylabel("thoughts weighed")
    axes.set_xlabel(f"gain, {unit}\n(outermost bars: and beyond)")
    axes.legend(frameon=False, fontsize=9)


def _draw_intents(axes: Any, intents: Sequence[Intent]) -> None:
    at = np.arange(len(intents))[::-1]
    shares = [intent.share for intent in intents]
    axes.barh(at, shares, color="#8fb8d8", height=0.75)
    names = [shortened(intent.text) for intent in intents]
    axes.set_yticks(at, names, fontsize=8.5, parse_math=False)  # a thought may hold "$"
    for y, intent in zip(at, intents, strict=True):
        gain = f" {np.mean([w.nats for w in intent.worths]):+.1f} nats" if intent.worths else " not weighed"
        axes.text(intent.share, y, gain, va="center", fontsize=8)
    axes.set_xlim(0, max(shares) * 1.3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.set_title("Most frequent intents", fontsize=11)
    axes.set_xlabel("share of the store's thoughts; beside it their mean gain")


def _draw_horizon(axes: Any, found: RunThoughts, curves: Mapping[str, Curve], gamma: float) -> None:
    """Durations: of rollouts by update where they were logged, of the stores after them, of pi's own thoughts."""
    pieces = e_steps(curves)
    for number, piece in enumerate(pieces):
        said = "q, rollouts of the E-step" if number == 0 else None
        axes.plot(piece.steps, piece.values, ".-", color="#2b6ca3", linewidth=1.4, markersize=4, label=said)
    by_step = bool(pieces) and found.last < len(pieces)
    x = [float(pieces[i].steps[-1]) + 1 if by_step else float(i) for i in found.options]
    horizons = [horizon_of(options, gamma) for options in found.options.values()]
    reach = list(dict.fromkeys(f"{1 / (1 - at.mean):.0f}" for at in (horizons[0], horizons[-1])))
    label = f"q, annotated store: 1/(1-gbar) {' to '.join(reach)}"
    axes.plot(x, [at.tau for at in horizons], "s", color="black", markersize=7, label=label)
    own = curves.get(f"eval/ra3/{TAU}")
    if by_step and own is not None:
        axes.plot(own.steps, own.values, "^", color="#d1813a", markersize=7, label="pi, held-out code")
    axes.margins(x=0.15, y=0.25)
    axes.set_title(f"How long options last; 1/(1-gamma) {1 / (1 - gamma):.4g}", fontsize=11)
    axes.set_xlabel("optimizer step" if by_step else "iteration of the store")
    axes.set_ylabel("tau: lines of an option")
    if not by_step:
        axes.set_xticks(x, [str(i) for i in found.options])
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.legend(frameon=False, fontsize=9)
