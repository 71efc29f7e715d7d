"""Pruning efficiency (Thm 3.5): how many expert samples prune every bad set of options.

A subset of size k = |Z_eps| is (eps, sigma)-bad if Delta(M, subset) > eps on tasks of mass at least sigma. An expert
sample is a task drawn from p(M) with its optimal value; it prunes the subsets that lose more than eps on it. Theorem:
after Theta(|Z_eps| log(|Z| / delta) / sigma) samples every bad subset is pruned with probability 1 - delta.

What is checked here, and where it departs from that wording:

- The union bound behind it, over C(|Z|, k) subsets of which a bad one survives n samples with chance (1 - sigma)^n at
  most, gives (k log|Z| + log(1/delta)) / sigma: log(1/delta) is *added*, not multiplied by k.
- What is left may still lose more than eps, on tasks of mass below sigma.
- A Theta needs a family of tasks that is as hard as the bound says: `Family(needed=k)` is one. With needed = 1 the same
  tasks are easy, and the bound is loose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from ra3kit.errors import DataError
from ra3kit.ranges import check_number
from ra3kit.theory.mdp import MDP, Options, models, optimal

GAMMA = 0.95
CORRIDOR = 3
"""States between the choice and the goal: an option lasts one step more."""


@dataclass(frozen=True)
class Family:
    """Tasks in k blocks, each with m options of which one is sound: |Z| = k m, and the sound ones are Z_eps.

    A task of block j (mass mu each) is solved by the sound option of the block; each other option of the block fails on
    it with chance `fail`, independently; options of other blocks do not solve it. The rest of the tasks (mass 1 - k mu)
    are solved by any option. A subset that has one unsound option in each of `needed` blocks, and sound ones in the
    others, loses on tasks of mass needed * mu * fail, and mu is chosen to make this exactly sigma.

    Args:
        k: blocks, |Z_eps|. m: options of a block, >= 2.
        sigma: mass that makes a subset bad, above 0.
        fail: above 0, at most 1 - 1/m.
        needed: blocks that have to be unsound to make a subset bad, from 1 to k. k is the hard case: a bad subset must
            be unsound everywhere, so there are about (m - 1)^k of them that fail almost independently of each other.

    Raises:
        DataError: a number out of range, or blocks with a mass of more than 1 in all.
    """

    k: int
    m: int
    sigma: float
    fail: float = 0.25
    needed: int = 0

    def __post_init__(self) -> None:
        if self.needed == 0:
            object.__setattr__(self, "needed", self.k)
        check_number("Family.k", self.k, least=1, whole=True, error=DataError)
        check_number("Family.m", self.m, least=2, whole=True, error=DataError)
        check_number("Family.sigma", self.sigma, above=0, error=DataError)
        check_number("Family.fail", self.fail, above=0, most=1 - 1 / self.m, error=DataError)
        check_number("Family.needed", self.needed, least=1, most=self.k, whole=True, error=DataError)
        if self.k * self.mu > 1 + 1e-12:
            raise DataError(
                f"Family.sigma={self.sigma}: the blocks would have a mass of {self.k * self.mu:.3g}. At most "
                f"{self.needed * self.fail / self.k:.3g} with these k, fail and needed."
            )

    @property
    def size(self) -> int:
        """|Z|."""
        return self.k * self.m

    @property
    def mu(self) -> float:
        """Mass of the tasks of one block."""
        return self.sigma / (self.needed * self.fail)

    def draw(self, rng: np.random.Generator) -> Bool[np.ndarray, " z"]:
        """A task M ~ p(M), as which options solve it."""
        block = int(rng.random() / self.mu)
        if block >= self.k:
            return np.ones(self.size, dtype=bool)
        solves = np.zeros(self.size, dtype=bool)
        solves[block * self.m : (block + 1) * self.m] = rng.random(self.m) >= self.fail
        solves[block * self.m] = True
        return solves


def task(solves: Bool[np.ndarray, " z"]) -> tuple[MDP, Options]:
    """The MDP of a task, and Z as options of it.

    From state 0, primitive action i leads into a corridor to a goal with reward 1 if option i solves the task, and to a
    dead end otherwise. Option i takes action i until it has come to an end. V* = gamma^CORRIDOR in state 0.
    """
    n = len(solves)
    goal, dead = CORRIDOR + 1, CORRIDOR + 2
    transitions = np.zeros((CORRIDOR + 3, n, CORRIDOR + 3))
    rewards = np.zeros((CORRIDOR + 3, n))
    transitions[0, solves, 1] = 1
    transitions[0, ~solves, dead] = 1
    for state in range(1, CORRIDOR + 1):
        transitions[state, :, state + 1] = 1
    rewards[CORRIDOR] = 1
    transitions[goal, :, goal] = transitions[dead, :, dead] = 1
    ends = np.zeros((n, CORRIDOR + 3))
    ends[:, [goal, dead]] = 1
    policies = np.broadcast_to(np.eye(n)[:, None], (n, CORRIDOR + 3, n))
    return MDP(transitions, rewards, GAMMA), Options(policies, ends)


def pruning_errors(solves: Bool[np.ndarray, " z"], k: int) -> Float[np.ndarray, " c"]:
    """Delta(M, Z') of every subset of k options in the order of `itertools.combinations`, each MDP solved for it."""
    mdp, options = task(solves)
    smdp = models(mdp, options)
    best = optimal(smdp)[0][0]
    return np.array([best - optimal(smdp.kept(list(subset)))[0][0] for subset in combinations(range(len(solves)), k)])


def worst_left(
    unfinished: Bool[np.ndarray, "*b k"], seen: Bool[np.ndarray, "*b k"], fail: float
) -> Float[np.ndarray, "*b"]:
    """Mass, in units of mu * fail, of the tasks that the worst subset not yet pruned fails on, from above.

    Exact where every block has been seen: no subset without an option of a seen block is left, so each has one in each
    block, and an unsound one where there still is one. Where a block was not seen, the subset may do without it, fail
    on all its tasks, and put the option into a finished block, where two unsound ones may be left that fail together.
    They are taken to be left, which is the only inexactness.

    Args:
        unfinished: True where an unsound option of the block has not failed yet; so is a block not seen.
        seen: True where a task of the block has been drawn.
        fail: of the family.
    """
    return unfinished.sum(-1) + (~seen).sum(-1) * ((1 - fail) / fail + fail)


def samples_needed(
    family: Family, trials: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " trials"], Float[np.ndarray, " trials"]]:
    """Draw expert samples until no bad subset is left, over and over.

    By `worst_left`, so without going through all subsets: exact unless a block is still unseen at the end, where it may
    be too many.

    Returns:
        samples drawn, and the mass, in units of sigma, of the tasks that the worst subset left fails on; below 1.
    """
    k, p = family.k, family.fail
    todo = rng.geometric(p, (trials, k, family.m - 1)).max(-1)  # visits until each unsound option has failed once
    seen = np.zeros((trials, k), dtype=bool)
    visits = np.zeros(trials, dtype=np.int64)
    mass = np.full(trials, np.inf)  # of the worst subset left, in units of mu * fail
    active = np.arange(trials)
    while len(active):
        block = rng.integers(0, k, len(active))
        todo[active, block] -= 1
        seen[active, block] = True
        visits[active] += 1
        mass[active] = worst_left(todo[active] > 0, seen[active], p)
        active = active[mass[active] >= family.needed - 1e-9]
    others = rng.negative_binomial(visits, min(1.0, k * family.mu))  # samples that any option solves
    return visits + others, mass / family.needed


def quantile(samples: Int[np.ndarray, "*b trials"], delta: float) -> Int[np.ndarray, "*b"]:
    """The least n that suffices in a share of at least 1 - delta of the trials."""
    rank = math.ceil((1 - delta) * samples.shape[-1] - 1e-9)
    return np.sort(samples, -1)[..., rank - 1]


def union_bound(family: Family, delta: float) -> int:
    """The least n with C(|Z|, k) (1 - sigma)^n <= delta: what the proof of Thm 3.5 promises to suffice."""
    subsets = math.log(math.comb(family.size, family.k))
    return math.ceil((subsets + math.log(1 / delta)) / -math.log1p(-family.sigma))


def order(family: Family) -> float:
    """k log(|Z| / k) / sigma, the order of Thm 3.5 without delta: log C(|Z|, k) lies within k of k log(|Z| / k)."""
    return family.k * math.log(family.m) / family.sigma
