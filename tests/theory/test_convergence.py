"""Value iteration over options: sweeps against a closed form, the bounds, and plain iteration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mdps import best_of_all_policies

from ra3kit.theory.convergence import (
    bound,
    contraction_bound,
    expert_options,
    random_mdp,
    random_options,
    sweeps,
)
from ra3kit.theory.mdp import MDP, Options, durations, models, optimal, primitives


@pytest.mark.parametrize("end", [1.0, 0.25])
def test_one_state_and_one_option(end: float) -> None:
    """V_n = (1 - gbar^n) / (1 - gamma) from below; the start from above is the optimum itself."""
    mdp = MDP(np.ones((1, 1, 1)), np.ones((1, 1)), 0.9)
    smdp = models(mdp, Options(np.ones((1, 1, 1)), np.full((1, 1), end)))
    expected = math.ceil(math.log(0.01 * (1 - 0.9)) / math.log(smdp.gbar))
    assert sweeps(smdp, "below", 0.01) == expected == contraction_bound(smdp.gbar, smdp.returns.max(), 0.01)
    assert sweeps(smdp, "above", 0.01) == 0


@given(st.integers(0, 10**6), st.floats(1, 40), st.floats(0.3, 0.97), st.booleans(), st.floats(1e-4, 1))
@settings(max_examples=60)
def test_no_run_takes_longer_than_the_bounds(seed: int, tau: float, gamma: float, kept: bool, eps: float) -> None:
    rng = np.random.default_rng(seed)
    mdp = random_mdp(6, 2, 2, gamma, rng)
    options = random_options(mdp, 3, tau, rng)
    smdp = models(mdp, options.joined(primitives(6, 2)) if kept else options)
    limits = smdp.gbar, float(smdp.returns.max()), eps
    assert contraction_bound(*limits) <= bound(*limits)
    for start in ("below", "above"):
        assert sweeps(smdp, start, eps) <= contraction_bound(*limits)
    assert smdp.gbar == pytest.approx(gamma) if kept else smdp.gbar <= gamma + 1e-12


@pytest.mark.parametrize("start", ["below", "above"])
def test_sweeps_count_plain_value_iteration(start: str) -> None:
    rng = np.random.default_rng(3)
    mdp = random_mdp(4, 2, 2, 0.8, rng)
    smdp = models(mdp, random_options(mdp, 3, 3, rng))
    best = best_of_all_policies(smdp)
    top = smdp.returns.max() / (1 - smdp.kernel.sum(-1).max())
    values, count = [0.0 if start == "below" else top] * 4, 0
    while max(abs(v - b) for v, b in zip(values, best, strict=True)) > 0.01:
        values = [
            max(smdp.returns[s, z] + sum(smdp.kernel[s, z, t] * values[t] for t in range(4)) for z in range(3))
            for s in range(4)
        ]
        count += 1
    assert sweeps(smdp, start, 0.01) == count > 3  # type: ignore[arg-type]


def test_expert_options_lose_nothing_and_last_as_long_as_asked() -> None:
    rng = np.random.default_rng(0)
    mdp = random_mdp(30, 4, 3, 0.95, rng)
    alone = optimal(models(mdp, primitives(30, 4)))[0]
    for tau in (1, 8):
        options = expert_options(mdp, 6, tau, rng)
        np.testing.assert_allclose(optimal(models(mdp, options))[0], alone)
        assert durations(mdp, options).mean() == pytest.approx(tau, rel=0.15)
    worse = optimal(models(mdp, random_options(mdp, 6, 8, rng)))[0]
    assert (worse < alone - 0.1).all()


def test_the_random_mdp_has_its_branches() -> None:
    mdp = random_mdp(7, 3, 2, 0.9, np.random.default_rng(0))
    assert ((mdp.transitions > 0).sum(-1) == 2).all()
    assert mdp.rewards.min() >= 0
    assert mdp.rewards.max() <= 1
