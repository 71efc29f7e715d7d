"""Experiment (a): expert samples needed to prune the bad subsets, against |Z_eps|, |Z|, sigma and delta (Thm 3.5)."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from ra3kit.theory.findings import BAND, Advance, Finding, Size, agrees_with_one, bootstrap, from_to, shown
from ra3kit.theory.pruning import Family, order, pruning_errors, quantile, samples_needed, union_bound

DELTA_KS = (4, 8, 16, 32)
DELTAS = (0.5, 0.3, 0.1, 0.03, 0.01, 0.003)
EPS = 0.01
NAMES = ("|Z_eps|", "log(|Z| / |Z_eps|)", "1 / sigma")
MEDIAN = 0.5
"""The delta at which exponents are measured: log(1/delta), which is added to what they are of, is small there."""


def hard_family(k: int, m: int, sigma: float) -> Family:
    """The family on which the order of Thm 3.5 is met: a subset is bad if half of its blocks are unsound."""
    return Family(k, m, sigma, fail=0.25, needed=k // 2)


def cells(size: Size) -> list[Family]:
    """Every combination of |Z_eps|, |Z| and sigma."""
    return [hard_family(k, m, sigma) for k in size.ks for m in size.ms for sigma in size.sigmas]


def units(size: Size) -> int:
    """Calls of `advance`."""
    return len(cells(size)) + len(DELTA_KS) + 1


def pruning_experiment(seed: int, size: Size, advance: Advance) -> dict[str, Any]:
    """Findings, exponents and all cells, ready for JSON."""
    families = cells(size)
    samples, left = [], []
    for i, family in enumerate(families):
        drawn, mass = samples_needed(family, size.trials, np.random.default_rng([seed, 1, i]))
        samples.append(drawn)
        left.append(float(mass.mean()))
        advance()
    counts, orders = np.array(samples), np.array([order(f) for f in families])
    exponents, low, high, explained = _exponents(families, counts, np.random.default_rng([seed, 2]))
    bounds = {delta: np.array([union_bound(f, delta) for f in families]) for delta in (MEDIAN, 0.05)}
    medians, strict = quantile(counts, MEDIAN), quantile(counts, 0.05)
    written = strict / [f.k * np.log(f.size / 0.05) / f.sigma for f in families]
    ratios = medians / orders
    enough = sum(int((quantile(counts, delta) <= bounds[delta]).sum()) for delta in bounds)
    solved = _solved_subsets(seed, size.solved)
    advance()
    delta_finding, delta_cells = _delta_experiment(seed, size, advance)
    findings = [
        *(
            Finding(
                f"samples grow as {name} to the power 1, within {BAND}",
                f"exponent {exponents[i]:.2f}",
                f"{shown(low[i], high[i])} over cells and trials",
                agrees_with_one(low[i], high[i]),
            )
            for i, name in enumerate(NAMES)
        ),
        Finding(
            "samples per |Z_eps| log(|Z| / |Z_eps|) / sigma stay in a band of less than a factor 2",
            f"{from_to(ratios)}, where the order itself grows {orders.max() / orders.min():.0f}-fold; R2 of the "
            f"exponents {explained:.4f}",
            "",
            bool(ratios.max() < 2 * ratios.min()),
        ),
        Finding(
            "the union bound's number of samples is enough (delta 0.5 and 0.05)",
            f"in {enough} of {2 * len(families)} cases; {from_to(medians / bounds[MEDIAN])} of it are needed",
            "",
            enough == 2 * len(families),
        ),
        Finding(
            "so is |Z_eps| log(|Z| / delta) / sigma, as the theorem has it (delta 0.05)",
            f"in {int((written <= 1).sum())} of {len(families)} cases; {from_to(written)} of it are needed",
            "",
            bool((written <= 1).all()),
        ),
        delta_finding,
        Finding(
            "with all bad subsets pruned, the worst one left loses more than eps on tasks of mass below sigma",
            f"on {from_to(np.array(left))} sigma (mean of a cell), so not on none",
            "",
            max(left) < 1,
        ),
        Finding(
            "Delta > eps, by solving the MDP of each subset, is what was counted above",
            f"{solved['disagreements']} disagreements in {solved['subsets']} subsets on {solved['tasks']} tasks",
            "",
            solved["disagreements"] == 0,
        ),
    ]
    return {
        "findings": [asdict(finding) for finding in findings],
        "exponents": {n: [float(exponents[i]), float(low[i]), float(high[i])] for i, n in enumerate(NAMES)},
        "r2": explained,
        "band": [float(ratios.min()), float(ratios.max())],
        "cells": [
            {
                "k": f.k,
                "z": f.size,
                "sigma": f.sigma,
                "samples": int(medians[i]),
                "samples_delta_0.05": int(strict[i]),
                "order": float(orders[i]),
                "union_bound": int(bounds[MEDIAN][i]),
                "mass_left": left[i],
            }
            for i, f in enumerate(families)
        ],
        "delta": delta_cells,
    }


def _exponents(
    families: list[Family], counts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Least squares of the logarithm of the samples: exponents in the order of NAMES, ends of intervals, R2."""
    design = np.log([[np.e, f.k, np.log(f.m), 1 / f.sigma] for f in families])

    def fit(rows: np.ndarray, n: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(rows, np.log(n), rcond=None)[0]

    def resampled(r: np.random.Generator) -> np.ndarray:
        picked = r.integers(0, len(families), len(families))
        trials = r.integers(0, counts.shape[1], counts.shape)
        return fit(design[picked], quantile(np.take_along_axis(counts[picked], trials, 1), MEDIAN))[1:]

    logs = np.log(quantile(counts, MEDIAN))
    fitted = fit(design, np.exp(logs))
    low, high = bootstrap(resampled, rng)
    return fitted[1:], low, high, float(1 - (logs - design @ fitted).var() / logs.var())


def _solved_subsets(seed: int, count: int) -> dict[str, int]:
    """Delta(M, Z') > eps by solving MDPs, against: no option of Z' solves M."""
    family, rng = Family(2, 3, 0.2, 0.5), np.random.default_rng([seed, 3])
    subsets = [list(subset) for subset in combinations(range(family.size), family.k)]
    disagreements = 0
    for _ in range(count):
        solves = family.draw(rng)
        fails = np.array([not solves[subset].any() for subset in subsets])
        disagreements += int(((pruning_errors(solves, family.k) > EPS) != fails).sum())
    return {"tasks": count, "subsets": count * len(subsets), "disagreements": disagreements}


def _delta_experiment(seed: int, size: Size, advance: Advance) -> tuple[Finding, list[dict[str, Any]]]:
    """Slope of samples * sigma in log(1/delta) by k: a sum would make it the same for every k, a product k times it."""
    sigma, m = 0.05, 16
    counts = []
    for k in DELTA_KS:
        rng = np.random.default_rng([seed, 4, k])
        counts.append(samples_needed(hard_family(k, m, sigma), size.delta_trials, rng)[0])
        advance()

    def slopes(drawn: list[np.ndarray]) -> np.ndarray:
        curves = np.array([[quantile(n, delta) for delta in DELTAS] for n in drawn]) * sigma
        return np.polyfit(np.log(1 / np.array(DELTAS)), curves.T, 1)[0]

    def power(drawn: list[np.ndarray]) -> float:
        return float(np.polyfit(np.log(DELTA_KS), np.log(slopes(drawn)), 1)[0])

    low, high = bootstrap(
        lambda r: power([n[r.integers(0, len(n), len(n))] for n in counts]), np.random.default_rng([seed, 5])
    )
    found = slopes(counts)
    finding = Finding(
        "log(1/delta) is added, not multiplied by |Z_eps|: the slope in it grows slower than |Z_eps|",
        f"as |Z_eps| to the power {power(counts):.2f}; samples * sigma per log(1/delta): "
        f"{', '.join(f'{s:.1f}' for s in found)} for |Z_eps| = {', '.join(map(str, DELTA_KS))}",
        f"{shown(float(low), float(high))} over trials",
        bool(high < 1),
    )
    return finding, [
        {
            "k": k,
            "m": m,
            "sigma": sigma,
            "slope": float(found[i]),
            "samples": {str(delta): int(quantile(counts[i], delta)) for delta in DELTAS},
        }
        for i, k in enumerate(DELTA_KS)
    ]
