"""All experiments of `ra3kit theory`, and (d): where the bounds are loose.

Every draw is keyed by the seed and what it is for. Intervals are 95 % percentile bootstraps; each finding says what was
resampled.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ra3kit.theory import lab_convergence, lab_pruning, lab_regret
from ra3kit.theory.findings import Advance, Finding, Size, bootstrap, interval_of, shown
from ra3kit.theory.lab_convergence import ends, table
from ra3kit.theory.lab_pruning import DELTA_KS, MEDIAN
from ra3kit.theory.pruning import Family, quantile, samples_needed, union_bound


def units(size: Size) -> int:
    """Calls of `advance` in a run."""
    return sum(lab.units(size) for lab in (lab_pruning, lab_convergence, lab_regret)) + len(DELTA_KS)


def run(seed: int, size: Size, advance: Advance) -> dict[str, Any]:
    """The four experiments, ready for JSON."""
    convergence = lab_convergence.convergence_experiment(seed, size, advance)
    return {
        "pruning": lab_pruning.pruning_experiment(seed, size, advance),
        "convergence": convergence,
        "regret": lab_regret.regret_experiment(seed, size, advance),
        "loose": looseness_experiment(seed, size, convergence["rows"], advance),
    }


def looseness_experiment(seed: int, size: Size, rows: list[dict[str, Any]], advance: Advance) -> dict[str, Any]:
    """(d) how far the bounds are from what is measured, where they are far.

    Args:
        rows: of the convergence experiment.
    """
    families = [Family(k, 16, sigma=0.005, fail=0.25, needed=1) for k in DELTA_KS]
    limits = np.array([union_bound(family, MEDIAN) for family in families])
    drawn = []
    for i, family in enumerate(families):
        drawn.append(samples_needed(family, size.trials, np.random.default_rng([seed, 12, i]))[0])
        advance()
    counts = np.array(drawn)

    def power(n: np.ndarray) -> float:
        return float(np.polyfit(np.log(DELTA_KS), np.log(limits / quantile(n, MEDIAN)), 1)[0])

    low, high = bootstrap(
        lambda r: power(np.take_along_axis(counts, r.integers(0, size.trials, counts.shape), 1)),
        np.random.default_rng([seed, 13]),
    )
    ratios = limits / quantile(counts, MEDIAN)
    findings = [
        Finding(
            "pruning: bound / samples grows with |Z_eps| where one unsound option makes a subset bad",
            f"{', '.join(f'{r:.1f}' for r in ratios)} for |Z_eps| = {', '.join(map(str, DELTA_KS))}: power "
            f"{power(counts):.2f}",
            f"{shown(float(low), float(high))} over trials",
            bool(low > 0),
        ),
        _sweeps_loose(
            rows, "pruned", "value iteration: bound / sweeps grows as options last (log(1/gbar) > 1 - gbar)", seed, size
        ),
        _sweeps_loose(
            rows,
            "kept",
            "value iteration: ... and far more where primitive actions are kept and not needed",
            seed,
            size,
        ),
    ]
    return {
        "findings": [asdict(finding) for finding in findings],
        "easy": [{"k": k, "ratio": float(r)} for k, r in zip(DELTA_KS, ratios, strict=True)],
    }


def _sweeps_loose(rows: list[dict[str, Any]], what: str, claim: str, seed: int, size: Size) -> Finding:
    ratio = table(rows, "expert", what, "bound") / table(rows, "expert", what, "below")
    low, high = interval_of(lambda pick: float(ratio[-1, pick].mean()), size.mdps, np.random.default_rng([seed, 14]))
    return Finding(
        claim,
        f"{ends(ratio)} as tau goes 1 -> {size.taus[-1]} (expert options, start from below)",
        f"{shown(low, high, 1)} at tau {size.taus[-1]} over MDPs",
        bool(low > ratio[0].mean()),
    )
