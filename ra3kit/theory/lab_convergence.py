"""Experiment (b): sweeps of value iteration against the bound as options last longer (Thm 3.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from ra3kit.theory import convergence
from ra3kit.theory.convergence import Start, bound, contraction_bound, sweeps
from ra3kit.theory.findings import BAND, Advance, Finding, Size, agrees_with_one, interval_of, shown
from ra3kit.theory.mdp import MDP, Options, durations, models, primitives

FAMILIES: dict[str, Callable[[MDP, int, float, np.random.Generator], Options]] = {
    "expert": convergence.expert_options,
    "random": convergence.random_options,
}
STARTS: tuple[Start, ...] = ("below", "above")
EPS = 0.01
GAMMA = 0.95
OPTIONS = 6


def units(size: Size) -> int:
    """Calls of `advance`."""
    return len(FAMILIES) * len(size.taus)


def convergence_experiment(seed: int, size: Size, advance: Advance) -> dict[str, Any]:
    """Findings and one row for each family, duration and MDP, with the primitive actions pruned and kept."""
    rows = []
    for family, make in FAMILIES.items():
        for tau in size.taus:
            for i in range(size.mdps):
                rng = np.random.default_rng([seed, 6, i])  # the same MDPs for each duration
                mdp = convergence.random_mdp(states=30, actions=4, branching=3, gamma=GAMMA, rng=rng)
                options = make(mdp, OPTIONS, tau, rng)
                row: dict[str, Any] = {
                    "family": family,
                    "tau": tau,
                    "mdp": i,
                    "mean_tau": float(durations(mdp, options).mean()),
                }
                both = {"pruned": options, "kept": options.joined(primitives(*mdp.rewards.shape))}
                for what, kept in both.items():
                    smdp = models(mdp, kept)
                    limits = smdp.gbar, float(smdp.returns.max()), EPS
                    row[what] = {
                        "gbar": smdp.gbar,
                        "bound": bound(*limits),
                        "contraction_bound": contraction_bound(*limits),
                        **{start: sweeps(smdp, start, EPS) for start in STARTS},
                    }
                rows.append(row)
            advance()
    findings = [
        _within_bound(rows),
        *(_rate(rows, start, seed, size) for start in STARTS),
        _gbar_kept(rows),
        *(_kept(rows, family, start, seed, size) for family in ("random", "expert") for start in ("above", "below")),
    ]
    return {"findings": [asdict(finding) for finding in findings], "rows": rows}


def table(rows: list[dict[str, Any]], family: str, what: str, key: str) -> np.ndarray:
    """One figure of a family: float [tau, mdp]."""
    own = [row for row in rows if row["family"] == family]
    taus = sorted({row["tau"] for row in own})
    return np.array([[row[what][key] for row in own if row["tau"] == tau] for tau in taus], float)


def ends(values: np.ndarray) -> str:
    """Means at the shortest and the longest duration, as text."""
    first, last = values[0].mean(), values[-1].mean()
    digits = 2 if first < 2 else 1
    return f"{first:.{digits}f} -> {last:.{digits}f}"


def _within_bound(rows: list[dict[str, Any]]) -> Finding:
    runs = [(row[what][start], row[what]["bound"]) for row in rows for what in ("pruned", "kept") for start in STARTS]
    fits = sum(n <= limit for n, limit in runs)
    return Finding("sweeps <= bound", f"in {fits} of {len(runs)} runs", "", fits == len(runs))


def _rate(rows: list[dict[str, Any]], start: Start, seed: int, size: Size) -> Finding:
    gbar, count = table(rows, "expert", "pruned", "gbar"), table(rows, "expert", "pruned", start)

    def power(pick: np.ndarray) -> float:
        rate = -np.log(-np.log(gbar[:, pick])).ravel()
        return float(np.polyfit(rate, np.log(count[:, pick]).ravel(), 1)[0])

    low, high = interval_of(power, size.mdps, np.random.default_rng([seed, 7]))
    return Finding(
        f"sweeps, start from {start}, grow as 1 / log(1 / gbar) to the power 1, within {BAND}",
        f"exponent {power(np.arange(size.mdps)):.2f}; tau 1 -> {size.taus[-1]}: gbar {ends(gbar)}, "
        f"sweeps {ends(count)}, bound {ends(table(rows, 'expert', 'pruned', 'bound'))}",
        f"{shown(low, high)} over MDPs",
        agrees_with_one(low, high),
    )


def _gbar_kept(rows: list[dict[str, Any]]) -> Finding:
    same = sum(abs(row["kept"]["gbar"] - GAMMA) < 1e-9 for row in rows)
    return Finding("primitive actions kept: gbar is gamma", f"in {same} of {len(rows)} MDPs", "", same == len(rows))


def _kept(rows: list[dict[str, Any]], family: str, start: Start, seed: int, size: Size) -> Finding:
    count = table(rows, family, "kept", start)

    def speed_up(pick: np.ndarray) -> float:
        return float(count[0, pick].mean() / count[-1, pick].mean())

    low, high = interval_of(speed_up, size.mdps, np.random.default_rng([seed, 8]))
    return Finding(
        f"primitive actions kept: no 2-fold speed-up by long options ({family} options, start from {start})",
        f"sweeps {ends(count)}: {speed_up(np.arange(size.mdps)):.1f}-fold",
        f"{shown(low, high, 1)} over MDPs",
        bool(high < 2),
    )
