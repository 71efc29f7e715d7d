"""The regret decomposition: what is lost by the options that were pruned, and what by learning within those kept.

With Z' the options kept, for tasks M ~ p(M) and the policy pi that was learned on M within Z':

    E[V*_M - V^pi_M] = E[Delta(M, Z')] + E[V*_{M,Z'} - V^pi_M],    Delta(M, Z') = V*_M - V*_{M,Z'},   all in state s0.

This is algebra. It is a check only because the two sides are computed by different roads: the left one step by step in
primitive actions (`values_step_by_step`, and policy iteration over the primitive actions), the right one through the
SMDP of the options. What it is good for is the curve over the size of Z': the first term falls, the second rises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ra3kit.theory.mdp import MDP, Models, Options, models, optimal, policy_values, primitives, values_step_by_step


@dataclass(frozen=True)
class Decomposition:
    """One task's regret in state s0.

    Args:
        total: V*_M - V^pi_M, in primitive steps.
        pruning: Delta(M, Z') >= 0. learning: V*_{M,Z'} - V^pi_M >= 0.
    """

    total: float
    pruning: float
    learning: float

    @property
    def gap(self) -> float:
        """How far the two sides are apart; rounding only."""
        return abs(self.total - self.pruning - self.learning)


def decompose(mdp: MDP, options: Options, policy: Int[np.ndarray, " s"], start: int = 0) -> Decomposition:
    """Both sides of the decomposition for a policy over the kept options.

    Args:
        options: Z'.
        policy: the option, by its number in Z', that is begun in each state.
    """
    best = optimal(models(mdp, primitives(*mdp.rewards.shape)))[0][start]
    smdp = models(mdp, options)
    within = optimal(smdp)[0][start]
    total = best - values_step_by_step(mdp, options, policy)[start]
    return Decomposition(float(total), float(best - within), float(within - policy_values(smdp, policy)[start]))


def greedy_order(
    tasks: dict[int, Models], best: dict[int, float], weights: dict[int, float], rng: np.random.Generator
) -> list[int]:
    """All of Z in the order in which a greedy choice keeps them: each time the option that lowers E[Delta] most.

    Once nothing is left to lower, the rest follow in random order.

    Args:
        tasks: models of all of Z, by task. best: V*_M in state 0. weights: how often experts met the task.
    """

    def error(kept: list[int]) -> float:
        loss = sum(w * (best[task] - optimal(tasks[task].kept(kept))[0][0]) for task, w in weights.items())
        return round(loss, 9)  # so that rounding decides no tie

    kept: list[int] = []
    rest = list(range(next(iter(tasks.values())).returns.shape[1]))
    left = float("inf")
    while rest and left > 1e-8:
        errors = {z: error([*kept, z]) for z in rest}
        z = min(errors, key=errors.__getitem__)
        left = errors[z]
        kept.append(z)
        rest.remove(z)
    return kept + [int(z) for z in rng.permutation(rest)]


def q_learning(
    mdps: list[MDP],
    options: Options,
    budget: int,
    rng: np.random.Generator,
    *,
    rate: float = 0.5,
    explore: float = 0.1,
    episode: int = 100,
) -> Int[np.ndarray, "b s"]:
    """SMDP Q-learning (Sutton, Precup and Singh 1999) on several tasks at a time, each on its own.

    Args:
        mdps: tasks with deterministic ends: an episode begins in state 0 and is over in a state that leads to itself
            under each action, or after `episode` steps.
        options: Z', the same for all tasks.
        budget: primitive steps on each task.
        rate: of learning. explore: chance of a random option at a decision.
        episode: primitive steps at most.

    Returns:
        the greedy policy learned on each task.
    """
    batch, (states, _) = len(mdps), mdps[0].rewards.shape
    at = np.arange(batch)
    reach = np.stack([mdp.transitions for mdp in mdps]).cumsum(-1)
    rewards = np.stack([mdp.rewards for mdp in mdps])
    over = np.stack([mdp.transitions[np.arange(states), :, np.arange(states)].min(-1) == 1 for mdp in mdps])
    gamma = mdps[0].gamma
    actions = options.policies.cumsum(-1)
    worth = np.zeros((batch, states, len(options)))

    def choose(which: np.ndarray) -> np.ndarray:
        """Options to begin now, on these tasks."""
        noise = rng.random((len(which), len(options)))
        random = rng.random(len(which)) < explore
        value = worth[which, state[which]] + 1e-9 * noise  # ties at random
        return np.where(random, noise.argmax(-1), value.argmax(-1))

    state = np.zeros(batch, dtype=np.int64)
    begun, running = state.copy(), choose(at)
    gathered, discount, steps = np.zeros(batch), np.ones(batch), np.zeros(batch, dtype=np.int64)
    for _ in range(budget):
        action = (rng.random((batch, 1)) > actions[running, state]).sum(-1).clip(max=rewards.shape[-1] - 1)
        gathered += discount * rewards[at, state, action]
        state = (rng.random((batch, 1)) > reach[at, state, action]).sum(-1).clip(max=states - 1)
        discount, steps = discount * gamma, steps + 1
        done = over[at, state]
        ended = done | (rng.random(batch) < options.ends[running, state])
        which = np.flatnonzero(ended)
        target = gathered[which] + discount[which] * worth[which, state[which]].max(-1) * ~done[which]
        made = which, begun[which], running[which]
        worth[made] += rate * (target - worth[made])
        cut = done | (steps >= episode)
        state[cut], steps[cut] = 0, 0
        fresh = np.flatnonzero(ended | cut)
        begun[fresh], running[fresh] = state[fresh], choose(fresh)
        gathered[fresh], discount[fresh] = 0.0, 1.0
    return (worth + 1e-9 * rng.random(worth.shape)).argmax(-1)
