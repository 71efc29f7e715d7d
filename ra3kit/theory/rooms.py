"""Four rooms: the tasks on which pruning and learning are seen to pull in opposite directions.

A house of four 3 x 3 rooms with four doors, 40 cells. Primitive actions are steps north, east, south and west; a step
slips to a random direction with chance 0.1, and one against a wall stays. The other options are "walk to cell c": the
shortest way there, and an end on arrival; they give up after any step with chance 0.05. A task is a goal cell: to reach
it gives 1 and is the end. All tasks begin in the same corner.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from ra3kit.theory.mdp import MDP, Options, primitives

HOUSE = """
...#...
.......
...#...
#.###.#
...#...
.......
...#...
"""
GAMMA = 0.95
SLIP = 0.1
GIVE_UP = 0.05
START = 0
"""The north-west corner."""
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
PRIMITIVES = len(MOVES)
"""The first so many options of `walks` are the primitive actions."""


def cells() -> list[tuple[int, int]]:
    """(row, column) of every cell that is no wall; a cell's number is its place here."""
    rows = HOUSE.split()
    return [(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark == "."]


def neighbours() -> Int[np.ndarray, "s 4"]:
    """Where each move leads."""
    places = cells()
    number = {place: i for i, place in enumerate(places)}
    return np.array([[number.get((r + dr, c + dc), i) for dr, dc in MOVES] for i, (r, c) in enumerate(places)])


def distances() -> Int[np.ndarray, "s s"]:
    """Steps of the shortest way from a cell to a cell."""
    to = neighbours()
    far = np.full((len(to), len(to)), len(to))
    np.fill_diagonal(far, 0)
    while True:
        nearer = np.minimum(far, far[to].min(1) + 1)
        if (nearer == far).all():
            return far
        far = nearer


def walks() -> Options:
    """Z: the four primitive actions, then "walk to cell c" for each cell."""
    to, far = neighbours(), distances()
    states = len(to)
    policies = np.zeros((states, states, len(MOVES)))
    for goal in range(states):
        policies[goal, np.arange(states), far[to, goal].argmin(1)] = 1
    ends = np.full((states, states), GIVE_UP)
    np.fill_diagonal(ends, 1)
    return primitives(states, len(MOVES)).joined(Options(policies, ends))


def goal_task(goal: int) -> MDP:
    """The task of reaching a cell."""
    to = neighbours()
    states = len(to)
    transitions = np.zeros((states, len(MOVES), states))
    for s in range(states):
        for a in range(len(MOVES)):
            transitions[s, a, to[s, a]] += 1 - SLIP
            for other in range(len(MOVES)):
                transitions[s, a, to[s, other]] += SLIP / len(MOVES)
    rewards = transitions[:, :, goal].copy()
    transitions[goal], rewards[goal] = 0, 0
    transitions[goal, :, goal] = 1
    return MDP(transitions, rewards, GAMMA)


def draw_goals(count: int, rng: np.random.Generator) -> Int[np.ndarray, " count"]:
    """Goals of tasks M ~ p(M): for half of them one of four favourites, for the others any cell but the start."""
    places = cells()
    number = {place: i for i, place in enumerate(places)}
    favourites = np.array([number[place] for place in ((0, 6), (6, 0), (6, 6), (4, 4))])
    anywhere = rng.integers(1, len(places), count)
    return np.where(rng.random(count) < 0.5, rng.choice(favourites, count), anywhere)
