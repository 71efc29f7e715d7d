"""From the results of all arms on all seeds to tables of claims: gated, paired by seed, with a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ra3kit.reports.curves import mean_band
from ra3kit.study.arms import ARMS, RLVR, Arm
from ra3kit.study.measures import MEASURES, value_of
from ra3kit.study.regime import CAVEAT, CLAIMS, Claim, Preset
from ra3kit.study.statistics import Paired, paired

Results = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""seed -> arm -> its result."""

FEW = 5
"""With fewer seeds than this a claim is not judged."""
BESIDE = {
    "ra3": ("pass@1", "pass@5", "greedy", "iwae_line"),
    "grpo-from-ra3": ("pass@1", "pass@5", "greedy", "area", "asymptote"),
}
"""Arm -> measures by which it is shown beside the others of its stage."""


def gate(results: Results, least: float) -> dict[str, Any]:
    """Which seeds count for the claims: those whose base's own thoughts mostly name the intent of their line.

    Args:
        results: of all arms.
        least: share of the thoughts.
    """
    found = {seed: value_of(arms["base"], "named") for seed, arms in results.items() if "base" in arms}
    return {
        "least": least,
        "by_seed": {str(seed): value for seed, value in found.items()},
        "in": [seed for seed, value in found.items() if value is not None and value >= least],
        "out": [seed for seed, value in found.items() if value is None or value < least],
    }


def gain(
    results: Results, seeds: Sequence[int], ours: str, theirs: str, measure: str
) -> tuple[list[int], Paired | None]:
    """How much better one arm is than another, seed by seed; a gain is positive where less is better, too.

    Returns:
        The seeds on which both arms have the measure, and the comparison; None without any.
    """
    pairs = {
        seed: (value_of(results[seed][ours], measure), value_of(results[seed][theirs], measure))
        for seed in seeds
        if ours in results.get(seed, {}) and theirs in results[seed]
    }
    both = {seed: (a, b) for seed, (a, b) in pairs.items() if a is not None and b is not None}
    if not both:
        return [], None
    first, second = [a for a, _ in both.values()], [b for _, b in both.values()]
    found = paired(first, second) if MEASURES[measure].higher is not False else paired(second, first)
    return list(both), found


def verdict(found: Paired | None, target: float | None, smoke: bool = False) -> str:
    """What the seeds say of a claim, in words.

    >>> verdict(paired([0.9, 0.8, 0.9, 0.8, 0.85], [0.5, 0.5, 0.6, 0.4, 0.5]), 0.1)
    'holds, and reaches its target'
    >>> verdict(paired([0.5, 0.6, 0.5, 0.6, 0.5], [0.5, 0.5, 0.6, 0.5, 0.6]), None)
    'undecided: the interval includes 0'
    """
    if found is None:
        return "not measured"
    if smoke or len(found.differences) < FEW:
        seeds = len(found.differences)
        return f"not judged: {seeds} seed{'s' if seeds > 1 else ''}" + (
            ", a smoke run" if smoke else f", fewer than {FEW}"
        )
    if found.low <= 0 <= found.high:
        return "undecided: the interval includes 0"
    if found.high < 0:
        return "does not hold: the opposite does"
    if target is None:
        return "holds"
    return "holds, and reaches its target" if found.mean >= target else "holds, short of its target"


def judged(
    claim: Claim, results: Results, seeds: Sequence[int], everyone: Sequence[int], smoke: bool
) -> dict[str, Any]:
    """A claim with what the gated seeds say, and what all say."""
    used, found = gain(results, seeds, claim.ours, claim.theirs, claim.measure)
    _, ungated = gain(results, everyone, claim.ours, claim.theirs, claim.measure)
    return {
        **asdict(claim),
        "seeds": used,
        "gated": None if found is None else asdict(found),
        "all": None if ungated is None else asdict(ungated),
        "verdict": verdict(found, claim.target, smoke),
    }


def table(results: Results, seeds: Sequence[int], arms: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """arm -> measure -> mean over the seeds, half its 95 % interval (None for one seed), and the value of each."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for arm in arms:
        out[arm] = {}
        for measure in MEASURES:
            values = {s: value_of(results[s][arm], measure) for s in seeds if arm in results.get(s, {})}
            known = {seed: value for seed, value in values.items() if value is not None}
            if known:
                mean, half = (float(part) for part in mean_band(np.array(list(known.values()))))
                shown = {str(seed): value for seed, value in known.items()}
                out[arm][measure] = {"mean": mean, "half": half if half == half else None, "values": shown}
    return out


def summary(preset: Preset, about: Mapping[str, Any], arms: Mapping[str, Arm], results: Results) -> dict[str, Any]:
    """Everything a study has found, as JSON.

    Args:
        preset: of it.
        about: its `study.json`.
        arms: by name.
        results: those that are there.
    """
    seeds = [seed for seed in results if results[seed]]
    found = gate(results, preset.regime.gate)
    inside = found["in"]
    stages: dict[bool, list[str]] = {True: [], False: []}  # whether it is RLVR -> arms
    for name, arm in arms.items():
        if not arm.sweep:
            stages[arm.recipe == RLVR].append(name)
    beside = [
        Claim(ours, name, measure)
        for ours, measures in BESIDE.items()
        for name in stages[ARMS[ours].recipe == RLVR]
        for measure in measures
        if name != ours
    ]
    beside += [Claim(name, "ntp", "pass@1") for name in stages[False] if name not in ("base", "ntp", "ra3")]
    swept = [seed for seed in about["seeds"][: preset.sweep_seeds] if seed in inside]
    wanted = sum(1 for seed in about["seeds"] for arm in arms.values() if _wanted(seed, arm, about, preset))
    return {
        "study": dict(about),
        "smoke": preset.smoke,
        "caveat": CAVEAT,
        "complete": [sum(map(len, results.values())), wanted],
        "gate": found,
        "arms": {
            name: {"about": arm.about, "recipe": arm.recipe, "after": arm.after, "sweep": arm.sweep, "x": arm.x}
            for name, arm in arms.items()
        },
        "claims": [judged(claim, results, inside, seeds, preset.smoke) for claim in CLAIMS],
        "beside": [judged(claim, results, inside, seeds, preset.smoke) for claim in beside],
        "table": table(results, inside, list(arms)),
        "table_out": table(results, found["out"], list(arms)),
        "sweeps": {"seeds": swept, "table": table(results, swept, list(arms))},
        "results": {str(seed): dict(by_arm) for seed, by_arm in results.items()},
    }


def _wanted(seed: int, arm: Arm, about: Mapping[str, Any], preset: Preset) -> bool:
    return not arm.sweep or seed in about["seeds"][: preset.sweep_seeds]
