"""The effective horizon as a run logged it: by update of q, and of the thoughts that pi writes itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ra3kit.reports.curves import Curve

TAU, RATE = "lines_per_thought", "thought_rate"
"""Leaves of `estep/*` and `eval/ra3/*` (docs/metrics.md): lines per option, where those before a first thought are one
too, and the share of the latents chosen that are thoughts."""


def e_steps(curves: Mapping[str, Curve], leaf: str = TAU) -> list[Curve]:
    """The curve `estep/<leaf>` in pieces, one for each E-step: a new one begins after steps of an M-step.

    Args:
        curves: of a run, by tag.
        leaf: of the tag.
    """
    curve = curves.get(f"estep/{leaf}")
    if curve is None or not len(curve.finite().steps):
        return []
    curve = curve.finite()
    others = [c.steps for tag, c in curves.items() if tag in ("mstep/loss", "mstep/code_loss")]
    between = np.unique(np.concatenate(others)) if others else np.empty(0, int)
    piece = np.searchsorted(between, curve.steps)  # how many steps of M-steps are before
    return [curve.at(piece == number) for number in np.unique(piece)]


def logged_table(curves: Mapping[str, Curve], gamma: float) -> list[list[str]]:
    """A row for each E-step, and one for pi's own thoughts on held-out code; titles alone where nothing was logged.

    Args:
        curves: of a run, by tag.
        gamma: discount per line. A mean duration bounds the mean of gamma^tau from below (Jensen), no more.
    """
    rows = [["thoughts of", "values", "thoughts / choices", "tau, lines", f"gbar at least (gamma {gamma:g})"]]
    pieces = zip(e_steps(curves, RATE), e_steps(curves), strict=False)
    rows += [_row(f"q, E-step {i}", rate, tau, gamma) for i, (rate, tau) in enumerate(pieces)]
    own = [curves.get(f"eval/ra3/{leaf}") for leaf in (RATE, TAU)]
    if own[0] is not None and own[1] is not None and len(own[1].finite().values):
        rows.append(_row("pi, held-out code", own[0].finite(), own[1].finite(), gamma))
    return rows


def _row(name: str, rate: Curve, tau: Curve, gamma: float) -> list[str]:
    first, last = tau.values[0], tau.values[-1]
    ends = [f"{rate.values[0]:.1%} to {rate.values[-1]:.1%}", f"{first:.2f} to {last:.2f}"]
    return [name, str(len(tau.values)), *ends, f"{gamma**first:.4f} to {gamma**last:.4f}"]
