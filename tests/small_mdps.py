"""Small MDPs for the tests of the theory, and what is slow but plainly right."""

from __future__ import annotations

from itertools import product

import numpy as np

from ra3kit.theory.mdp import MDP, Models, Options


def any_mdp(rng: np.random.Generator, states: int = 4, actions: int = 2, gamma: float = 0.9) -> MDP:
    return MDP(rng.dirichlet(np.ones(states), (states, actions)), rng.normal(size=(states, actions)), gamma)


def any_options(rng: np.random.Generator, count: int = 3, states: int = 4, actions: int = 2) -> Options:
    """Stochastic policies; ends between 0 and 1 in each state."""
    return Options(rng.dirichlet(np.ones(actions), (count, states)), rng.random((count, states)))


def unrolled(mdp: MDP, options: Options, steps: int = 400) -> Models:
    """The models by following each option from each state, step by step, with loops."""
    states, count = len(mdp.rewards), len(options)
    returns, kernel = np.zeros((states, count)), np.zeros((states, count, states))
    for z, s in product(range(count), range(states)):
        there = np.zeros(states)  # chance of being in a state with the option running
        there[s] = 1
        for step in range(steps):
            after = np.zeros(states)
            for at in range(states):
                for action, chance in enumerate(options.policies[z, at]):
                    weight = there[at] * chance
                    returns[s, z] += mdp.gamma**step * weight * mdp.rewards[at, action]
                    after += weight * mdp.transitions[at, action]
            kernel[s, z] += mdp.gamma ** (step + 1) * after * options.ends[z]
            there = after * (1 - options.ends[z])
    return Models(returns, kernel)


def best_of_all_policies(smdp: Models) -> np.ndarray:
    """V* by evaluating every deterministic policy."""
    states, count, _ = smdp.kernel.shape
    at, best = np.arange(states), np.full(states, -np.inf)
    for policy in product(range(count), repeat=states):
        p = np.array(policy)
        best = np.maximum(best, np.linalg.inv(np.eye(states) - smdp.kernel[at, p]) @ smdp.returns[at, p])
    return best
