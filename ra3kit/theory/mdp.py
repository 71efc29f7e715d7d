"""Tabular MDPs, Markov options, and the semi-Markov decision problem that options make of an MDP, all solved exactly.

Letters: `s` states, `a` primitive actions, `z` options. Values are float64; rewards have no unit; time is in primitive
steps. An option (Sutton, Precup and Singh 1999) is a policy over primitive actions and a chance of ending in each state
that it reaches; it may be begun anywhere. A primitive action is the option that lasts one step: tau = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ra3kit.errors import DataError

SUMS_TO = 1e-9
"""How far a row of probabilities may be from 1."""


@dataclass(frozen=True)
class MDP:
    """A task M.

    Args:
        transitions: chances of the next state; each row sums to 1. An end is a state that leads to itself.
        rewards: expected reward of a step.
        gamma: discount per primitive step, 0 < gamma < 1.

    Raises:
        DataError: shapes that do not fit, rows that are no distributions, a discount out of range.
    """

    transitions: Float[np.ndarray, "s a s"]
    rewards: Float[np.ndarray, "s a"]
    gamma: float

    def __post_init__(self) -> None:
        if self.transitions.shape != (*self.rewards.shape, self.rewards.shape[0]):
            raise DataError(
                f"MDP: transitions {self.transitions.shape} do not fit rewards {self.rewards.shape}: [s, a, s], [s, a]."
            )
        _check_distribution("MDP.transitions", self.transitions)
        if not 0 < self.gamma < 1:
            raise DataError(f"MDP.gamma={self.gamma!r}: must be above 0 and below 1.")


@dataclass(frozen=True)
class Options:
    """A set of action abstractions Z.

    Args:
        policies: what each does where; each row sums to 1.
        ends: chance that an option ends in the state it has just reached, from 0 to 1.

    Raises:
        DataError: shapes that do not fit, or numbers that are no chances.
    """

    policies: Float[np.ndarray, "z s a"]
    ends: Float[np.ndarray, "z s"]

    def __post_init__(self) -> None:
        if self.policies.shape[:2] != self.ends.shape:
            raise DataError(f"Options: policies {self.policies.shape} do not fit ends {self.ends.shape}.")
        _check_distribution("Options.policies", self.policies)
        if self.ends.min() < 0 or self.ends.max() > 1:
            raise DataError("Options.ends: must be chances, from 0 to 1.")

    def __len__(self) -> int:
        return len(self.policies)

    def kept(self, which: Int[np.ndarray, " k"] | list[int]) -> Options:
        """The subset Z' of these options, in the order given."""
        return Options(self.policies[which], self.ends[which])

    def joined(self, other: Options) -> Options:
        """These options, then the others."""
        return Options(np.concatenate([self.policies, other.policies]), np.concatenate([self.ends, other.ends]))


@dataclass(frozen=True)
class Models:
    """What a set of options amounts to for planning: an SMDP.

    Args:
        returns: r(s, z), the expected discounted return while z runs.
        kernel: E[gamma^tau 1{it ends in s'} | s, z]: the chance of the next decision's state, discounted by the time
            that has passed. A row sums to E[gamma^tau | s, z].
    """

    returns: Float[np.ndarray, "s z"]
    kernel: Float[np.ndarray, "s z s"]

    @property
    def gbar(self) -> float:
        """sup over s, z of E[gamma^tau | s, z], the contraction factor of Thm 3.6."""
        return float(self.kernel.sum(-1).max())

    def kept(self, which: Int[np.ndarray, " k"] | list[int]) -> Models:
        """The models of the subset Z': those of an option do not depend on which others there are."""
        return Models(self.returns[:, which], self.kernel[:, which])


def _check_distribution(name: str, chances: np.ndarray) -> None:
    if chances.min() < 0 or np.abs(chances.sum(-1) - 1).max() > SUMS_TO:
        raise DataError(f"{name}: each row must be chances that sum to 1.")


def primitives(states: int, actions: int) -> Options:
    """The primitive actions as options of one step each."""
    policies = np.broadcast_to(np.eye(actions)[:, None], (actions, states, actions))
    return Options(policies, np.ones((actions, states)))


def models(mdp: MDP, options: Options) -> Models:
    """The SMDP of these options, exactly, by one linear solve for each.

    With P the option's transition matrix, R its reward and B = diag(ends), an option that has just begun in s satisfies
    r = R + gamma P (I - B) r and K = gamma P B + gamma P (I - B) K.
    """
    chances = np.einsum("zsa,sat->zst", options.policies, mdp.transitions)
    rewards = np.einsum("zsa,sa->zs", options.policies, mdp.rewards)
    on = mdp.gamma * chances * (1 - options.ends)[:, None, :]
    off = mdp.gamma * chances * options.ends[:, None, :]
    solved = np.linalg.solve(np.eye(len(mdp.rewards)) - on, np.concatenate([rewards[..., None], off], -1))
    return Models(solved[..., 0].T, solved[..., 1:].transpose(1, 0, 2))


def durations(mdp: MDP, options: Options) -> Float[np.ndarray, "s z"]:
    """Expected number of primitive steps, E[tau | s, z] >= 1; every option must end sooner or later."""
    chances = np.einsum("zsa,sat->zst", options.policies, mdp.transitions)
    on = chances * (1 - options.ends)[:, None, :]
    return np.linalg.solve(np.eye(len(mdp.rewards)) - on, np.ones((len(options), len(mdp.rewards), 1)))[..., 0].T


def backup(smdp: Models, values: Float[np.ndarray, " s"]) -> Float[np.ndarray, "s z"]:
    """One step of value iteration before the maximum: r(s, z) + sum_s' kernel(s, z, s') V(s')."""
    return smdp.returns + smdp.kernel @ values


def policy_values(smdp: Models, policy: Int[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """V of the policy that takes option `policy[s]` at each decision, by a linear solve."""
    at = np.arange(len(policy))
    return np.linalg.solve(np.eye(len(policy)) - smdp.kernel[at, policy], smdp.returns[at, policy])


def optimal(smdp: Models) -> tuple[Float[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """V* over these options and a policy that attains it, by policy iteration; ends after finitely many policies."""
    at = np.arange(len(smdp.returns))
    policy = smdp.returns.argmax(-1)
    while True:
        values = policy_values(smdp, policy)
        worth = backup(smdp, values)
        better = worth.max(-1) > worth[at, policy] + 1e-12 * (1 + np.abs(values))  # else rounding could go round
        if not better.any():
            return values, policy
        policy = np.where(better, worth.argmax(-1), policy)


def values_step_by_step(mdp: MDP, options: Options, policy: Int[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """V of the same policy over options without their SMDP: a Markov chain of (running option, state), step by step.

    The second opinion on `models` and `policy_values`.
    """
    used, place = np.unique(policy, return_inverse=True)
    options = options.kept(used)
    z, s = options.ends.shape
    chances = np.einsum("zsa,sat->zst", options.policies, mdp.transitions)
    rewards = np.einsum("zsa,sa->zs", options.policies, mdp.rewards)
    chain = np.zeros((z, s, z, s))
    for i in range(z):
        chain[i, :, i, :] += chances[i] * (1 - options.ends[i])
        chain[i, :, place, np.arange(s)] += (chances[i] * options.ends[i]).T  # indexed axes come first
    values = np.linalg.solve(np.eye(z * s) - mdp.gamma * chain.reshape(z * s, z * s), rewards.reshape(-1))
    return values.reshape(z, s)[place, np.arange(s)]
