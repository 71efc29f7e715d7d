"""RL convergence (Thm 3.6): how many sweeps of value iteration options need, as they last longer.

Theorem: value iteration over a set of options is within eps of that set's optimum after
N >= log(R_max / (eps (1 - gbar))) / (1 - gbar) sweeps, gbar = sup over s, z of E[gamma^tau | s, z], R_max bounding the
options' returns. It holds from every start within R_max / (1 - gbar) of the optimum, and so from both of those used
here: from below, V = 0, and from above, V = R_max / (1 - gbar). Rewards are from 0 to 1.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from ra3kit.ranges import check_number
from ra3kit.theory.mdp import MDP, Models, Options, backup, models, optimal, primitives

Start = Literal["below", "above"]


def random_mdp(states: int, actions: int, branching: int, gamma: float, rng: np.random.Generator) -> MDP:
    """A task of the Garnet kind: each action leads to `branching` random states; rewards are uniform in [0, 1]."""
    transitions = np.zeros((states, actions, states))
    for s in range(states):
        for a in range(actions):
            targets = rng.choice(states, branching, replace=False)
            transitions[s, a, targets] = rng.dirichlet(np.ones(branching))
    return MDP(transitions, rng.random((states, actions)), gamma)


def _deterministic(choices: np.ndarray, actions: int) -> Float[np.ndarray, "z s a"]:
    return np.eye(actions)[choices]


def random_options(mdp: MDP, count: int, tau: float, rng: np.random.Generator) -> Options:
    """Options with a random action in each state, each ending after about tau >= 1 steps.

    The chance to end is between 0.5 and 1.5 times 1 / tau from state to state, 1 where tau = 1.
    """
    states, actions = mdp.rewards.shape
    choices = rng.integers(0, actions, (count, states))
    return Options(_deterministic(choices, actions), _endings(count, states, tau, rng))


def expert_options(mdp: MDP, count: int, tau: float, rng: np.random.Generator) -> Options:
    """Options of which the first follows the task's optimal policy and the others the same with random slips.

    A slip is another action in a state, with chance 0.3. With them nothing is lost: Delta(M, Z') = 0.
    """
    states, actions = mdp.rewards.shape
    best = optimal(models(mdp, primitives(states, actions)))[1]
    slips = rng.random((count, states)) < 0.3
    slips[0] = False
    choices = np.where(slips, rng.integers(0, actions, (count, states)), best)
    return Options(_deterministic(choices, actions), _endings(count, states, tau, rng))


def _endings(count: int, states: int, tau: float, rng: np.random.Generator) -> Float[np.ndarray, "z s"]:
    check_number("tau", tau, least=1)
    jitter = rng.uniform(0.5, 1.5, (count, states))
    return np.ones((count, states)) if tau == 1 else np.minimum(1.0, jitter / tau)


def bound(gbar: float, r_max: float, eps: float) -> int:
    """Thm 3.6: the number of sweeps that suffices.

    >>> bound(0.95, 1.0, 0.01), bound(0.5, 1.0, 0.01)
    (153, 11)
    """
    return max(0, math.ceil(math.log(r_max / (eps * (1 - gbar))) / (1 - gbar)))


def contraction_bound(gbar: float, r_max: float, eps: float) -> int:
    """The same from gbar^N R_max / (1 - gbar) <= eps itself: log(1 / gbar) instead of 1 - gbar, which is smaller.

    >>> contraction_bound(0.95, 1.0, 0.01), contraction_bound(0.5, 1.0, 0.01)
    (149, 8)
    """
    return max(0, math.ceil(math.log(r_max / (eps * (1 - gbar))) / -math.log(gbar)))


def sweeps(smdp: Models, start: Start, eps: float) -> int:
    """Sweeps of value iteration until no state's value is further than eps from the optimum over these options."""
    best, _ = optimal(smdp)
    height = smdp.returns.max() / (1 - smdp.gbar)
    values = np.full(len(best), height if start == "above" else 0.0)
    count = 0
    while np.abs(values - best).max() > eps:
        values = backup(smdp, values).max(-1)
        count += 1
    return count
