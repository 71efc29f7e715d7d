"""MDPs and options: their models and values against loops, enumeration and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from small_mdps import any_mdp, any_options, best_of_all_policies, unrolled

from ra3kit.errors import DataError
from ra3kit.theory.mdp import (
    MDP,
    Options,
    backup,
    durations,
    models,
    optimal,
    policy_values,
    primitives,
    values_step_by_step,
)


def test_one_state_has_closed_forms() -> None:
    gamma, end = 0.9, 0.25
    mdp = MDP(np.ones((1, 1, 1)), np.ones((1, 1)), gamma)
    options = Options(np.ones((1, 1, 1)), np.full((1, 1), end))
    smdp = models(mdp, options)
    on = gamma * (1 - end)
    assert smdp.returns[0, 0] == pytest.approx(1 / (1 - on))
    assert smdp.gbar == pytest.approx(gamma * end / (1 - on))
    assert durations(mdp, options)[0, 0] == pytest.approx(1 / end)
    assert optimal(smdp)[0][0] == pytest.approx(1 / (1 - gamma))


@pytest.mark.parametrize("seed", range(3))
def test_models_are_what_following_the_option_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mdp, options = any_mdp(rng), any_options(rng)
    found, slow = models(mdp, options), unrolled(mdp, options)
    np.testing.assert_allclose(found.returns, slow.returns, atol=1e-12)
    np.testing.assert_allclose(found.kernel, slow.kernel, atol=1e-12)
    assert found.gbar < mdp.gamma


def test_the_duration_of_a_fixed_walk() -> None:
    ring = np.roll(np.eye(5), 1, 1)[:, None]  # one action: to the next state
    ends = np.array([[1.0, 0, 0, 0, 0]])
    mdp, options = MDP(ring, np.zeros((5, 1)), 0.9), Options(np.ones((1, 5, 1)), ends)
    np.testing.assert_allclose(durations(mdp, options)[:, 0], [5, 4, 3, 2, 1])
    np.testing.assert_allclose(models(mdp, options).kernel.sum(-1)[:, 0], 0.9 ** np.array([5, 4, 3, 2, 1]))


def test_primitive_actions_are_options_of_one_step() -> None:
    mdp = any_mdp(np.random.default_rng(0))
    smdp = models(mdp, primitives(*mdp.rewards.shape))
    np.testing.assert_allclose(smdp.kernel, 0.9 * mdp.transitions)
    np.testing.assert_allclose(smdp.returns, mdp.rewards)
    assert smdp.gbar == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_is_that_of_all_policies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mdp, options = any_mdp(rng), any_options(rng)
    smdp = models(mdp, options)
    values, policy = optimal(smdp)
    np.testing.assert_allclose(values, best_of_all_policies(smdp), atol=1e-10)
    np.testing.assert_allclose(policy_values(smdp, policy), values)
    np.testing.assert_allclose(backup(smdp, values).max(-1), values)
    more = optimal(models(mdp, options.joined(primitives(*mdp.rewards.shape))))[0]
    assert (more >= values - 1e-12).all()


@pytest.mark.parametrize("seed", range(6))
def test_values_by_two_roads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mdp, options = any_mdp(rng), any_options(rng)
    policy = rng.integers(0, 3, 4)
    by_models = policy_values(models(mdp, options), policy)
    np.testing.assert_allclose(values_step_by_step(mdp, options, policy), by_models, atol=1e-12)


def test_a_subset_has_the_models_of_its_options() -> None:
    rng = np.random.default_rng(0)
    mdp, options = any_mdp(rng), any_options(rng)
    kept = models(mdp, options.kept([2, 0]))
    np.testing.assert_allclose(kept.kernel, models(mdp, options).kept([2, 0]).kernel)


def test_what_is_no_mdp_is_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        MDP(np.ones((2, 1, 2)) / 2, np.zeros((2, 2)), 0.9)
    with pytest.raises(DataError, match="sum to 1"):
        MDP(np.ones((2, 1, 2)), np.zeros((2, 1)), 0.9)
    with pytest.raises(DataError, match=r"gamma=1"):
        MDP(np.ones((2, 1, 2)) / 2, np.zeros((2, 1)), 1)
    with pytest.raises(DataError, match="chances"):
        Options(np.ones((1, 2, 1)), np.full((1, 2), 1.5))
    with pytest.raises(DataError, match="do not fit"):
        Options(np.ones((1, 2, 1)), np.ones((1, 3)))
