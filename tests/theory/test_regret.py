"""The four rooms and the regret: against breadth-first search, walked trajectories and brute force."""

from __future__ import annotations

from collections import deque
from itertools import product

import numpy as np
import pytest
from small_mdps import any_mdp, any_options, best_of_all_policies

from ra3kit.theory import rooms
from ra3kit.theory.mdp import MDP, Models, Options, models, optimal, policy_values, primitives
from ra3kit.theory.regret import decompose, greedy_order, q_learning


def test_distances_are_those_of_breadth_first_search() -> None:
    places = set(rooms.cells())
    number = {place: i for i, place in enumerate(rooms.cells())}
    far = rooms.distances()
    for start in ((0, 0), (4, 5)):
        seen, queue = {start: 0}, deque([start])
        while queue:
            r, c = queue.popleft()
            for place in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
                if place in places and place not in seen:
                    seen[place] = seen[r, c] + 1
                    queue.append(place)
        assert {place: far[number[start], number[place]] for place in places} == seen


def test_a_walk_takes_the_shortest_way_and_the_task_ends_at_its_goal() -> None:
    options, far = rooms.walks(), rooms.distances()
    to = rooms.neighbours()
    assert len(options) == 44
    for goal in range(40):
        walk = options.policies[rooms.PRIMITIVES + goal].argmax(-1)
        others = np.arange(40) != goal
        assert (far[to[np.arange(40), walk], goal] == far[:, goal] - 1)[others].all()
    mdp = rooms.goal_task(17)
    assert (mdp.transitions[17, :, 17] == 1).all()
    assert (mdp.rewards[17] == 0).all()
    assert mdp.rewards.sum() == pytest.approx(mdp.transitions[:, :, 17].sum() - 4)
    best = optimal(models(mdp, primitives(40, 4)))[0]
    assert (best <= rooms.GAMMA ** np.maximum(far[:, 17] - 1, 0) + 1e-12).all()
    assert best[far[:, 17] == 1].min() > 0.9


def test_goals_have_favourites_and_are_never_the_start() -> None:
    goals = rooms.draw_goals(4000, np.random.default_rng(0))
    share = np.bincount(goals, minlength=40) / 4000
    assert share[rooms.START] == 0
    assert np.sort(share)[-4:].sum() == pytest.approx(0.5 + 0.5 * 4 / 39, abs=0.03)
    assert (share[1:] > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_decomposition_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mdp, options, policy = any_mdp(rng), any_options(rng), rng.integers(0, 3, 4)
    found = decompose(mdp, options, policy, start=1)
    best = best_of_all_policies(models(mdp, primitives(4, 2)))[1]
    smdp = models(mdp, options)
    within, own = best_of_all_policies(smdp)[1], policy_values(smdp, policy)[1]
    np.testing.assert_allclose([found.total, found.pruning, found.learning], [best - own, best - within, within - own])
    assert found.gap < 1e-9
    assert found.pruning > -1e-12
    assert found.learning > -1e-12


def test_the_value_of_a_policy_is_what_its_walks_return() -> None:
    """Monte Carlo in primitive steps, for the left side of the decomposition."""
    rng = np.random.default_rng(0)
    mdp, options, policy = any_mdp(rng), any_options(rng), np.array([2, 0, 1, 0])
    walks, state, running = 40_000, np.zeros(40_000, dtype=int), np.full(40_000, policy[0])
    total = np.zeros(walks)
    for step in range(120):
        action = (rng.random((walks, 1)) > options.policies.cumsum(-1)[running, state]).sum(-1)
        total += mdp.gamma**step * mdp.rewards[state, action]
        state = (rng.random((walks, 1)) > mdp.transitions.cumsum(-1)[state, action]).sum(-1).clip(max=3)
        running = np.where(rng.random(walks) < options.ends[running, state], policy[state], running)
    best = optimal(models(mdp, primitives(4, 2)))[0][0]
    error = 4 * total.std() / np.sqrt(walks)
    assert decompose(mdp, options, policy).total == pytest.approx(best - total.mean(), abs=error)


def test_the_greedy_order_takes_the_option_that_helps_most() -> None:
    rng = np.random.default_rng(0)
    tasks, best = {}, {}
    for task in range(3):
        mdp, options = any_mdp(rng), any_options(rng, 5)
        tasks[task] = models(mdp, options)
        best[task] = float(optimal(tasks[task])[0][0])
    weights = {0: 0.5, 1: 0.3, 2: 0.2}

    def loss(kept: list[int]) -> float:
        return sum(w * (best[t] - best_of_all_policies(tasks[t].kept(kept))[0]) for t, w in weights.items())

    order = greedy_order(tasks, best, weights, np.random.default_rng(1))
    assert sorted(order) == list(range(5))
    assert loss([order[0]]) == pytest.approx(min(loss([z]) for z in range(5)))
    assert loss(order[:2]) == pytest.approx(min(loss([order[0], z]) for z in range(5) if z != order[0]))


def learning_errors(smdps: list[Models], policies: np.ndarray) -> np.ndarray:
    return np.array([optimal(m)[0][0] - policy_values(m, pi)[0] for m, pi in zip(smdps, policies, strict=True)])


def corridor(length: int) -> MDP:
    """Left or right from state 0; 1 for reaching the last state, which is the end."""
    transitions = np.zeros((length, 2, length))
    for s, a in product(range(length - 1), range(2)):
        transitions[s, a, max(0, s - 1) if a == 0 else s + 1] = 1
    transitions[-1, :, -1] = 1
    rewards = np.zeros((length, 2))
    rewards[-2, 1] = 1
    return MDP(transitions, rewards, 0.9)


def test_q_learning_finds_the_optimum_and_less_without_time() -> None:
    tasks = [corridor(6), corridor(6)]
    for options in (primitives(6, 2), Options(np.eye(2)[:, None].repeat(6, 1), np.full((2, 6), 0.3))):
        smdps = [models(mdp, options) for mdp in tasks]
        learned = q_learning(tasks, options, 4000, np.random.default_rng(0))
        np.testing.assert_allclose(learning_errors(smdps, learned), 0, atol=1e-9)
    smdps = [models(tasks[0], primitives(6, 2))] * 200
    hasty = q_learning([tasks[0]] * 200, primitives(6, 2), 3, np.random.default_rng(0))
    assert learning_errors(smdps, hasty).mean() > 0.1


def test_q_learning_learns_the_discounted_return_of_an_option() -> None:
    """Of two options one reaches a reward of 1 sooner, the other one of 1.1 too late to be worth it."""
    transitions = np.zeros((7, 2, 7))
    transitions[0, 0, 1] = transitions[1, :, 6] = 1  # two steps to 1
    transitions[0, 1, 2] = 1
    for s in (2, 3, 4):
        transitions[s, :, s + 1] = 1
    transitions[5, :, 6] = transitions[6, :, 6] = 1  # five steps to 1.1
    rewards = np.zeros((7, 2))
    rewards[1], rewards[5] = 1, 1.1
    mdp = MDP(transitions, rewards, 0.9)
    ends = np.zeros((2, 7))
    ends[:, 6] = 1
    options = Options(np.eye(2)[:, None].repeat(7, 1), ends)
    policies = q_learning([mdp] * 20, options, 2000, np.random.default_rng(0))
    assert (policies[:, 0] == 0).all()
    smdp: Models = models(mdp, options)
    np.testing.assert_allclose(smdp.returns[0], [0.9, 1.1 * 0.9**4])
