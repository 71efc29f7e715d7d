"""Pruning: badness, survival and sample counts against going through all subsets and all samples."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

from ra3kit.errors import DataError
from ra3kit.theory.mdp import models, optimal
from ra3kit.theory.pruning import (
    CORRIDOR,
    GAMMA,
    Family,
    order,
    pruning_errors,
    quantile,
    samples_needed,
    task,
    union_bound,
    worst_left,
)


def distribution(family: Family) -> list[tuple[Fraction, np.ndarray]]:
    """Every task of the family with its chance."""
    mass, fail = Fraction(family.mu).limit_denominator(10**6), Fraction(family.fail).limit_denominator(10**6)
    tasks = [(1 - family.k * mass, np.ones(family.size, dtype=bool))]
    for block in range(family.k):
        for fails in product((False, True), repeat=family.m - 1):
            solves = np.zeros(family.size, dtype=bool)
            solves[block * family.m : (block + 1) * family.m] = [True, *(not f for f in fails)]
            tasks.append((mass * math.prod(fail if f else 1 - fail for f in fails), solves))
    return tasks


def survivals(family: Family) -> tuple[list[tuple[Fraction, np.ndarray]], np.ndarray, np.ndarray]:
    """Tasks; for each of them which subsets survive it, by solving its MDP; mass on which a subset fails."""
    tasks = distribution(family)
    survives = np.array([pruning_errors(solves, family.k) < 0.01 for _, solves in tasks])
    mass = np.array([sum(p for (p, _), kept in zip(tasks, column, strict=True) if not kept) for column in survives.T])
    return tasks, survives, mass


def test_the_task_is_solved_by_the_options_that_solve_it() -> None:
    solves = np.array([True, False, True])
    mdp, options = task(solves)
    smdp = models(mdp, options)
    np.testing.assert_allclose([optimal(smdp.kept([z]))[0][0] for z in range(3)], GAMMA**CORRIDOR * solves)
    np.testing.assert_allclose(smdp.kernel[0].sum(-1), np.where(solves, GAMMA ** (CORRIDOR + 1), GAMMA))
    np.testing.assert_allclose(pruning_errors(solves, 1), GAMMA**CORRIDOR * ~solves)
    np.testing.assert_allclose(pruning_errors(solves, 2), 0)


@pytest.mark.parametrize(("k", "m", "needed"), [(2, 2, 2), (2, 3, 1), (3, 2, 2)])
def test_the_sound_options_are_the_smallest_set_that_loses_nothing_and_sigma_is_what_makes_bad(
    k: int, m: int, needed: int
) -> None:
    family = Family(k, m, sigma=0.1, fail=0.5, needed=needed)
    _, _, mass = survivals(family)
    subsets = list(combinations(range(family.size), k))
    sound = {block * m for block in range(k)}
    assert mass[subsets.index(tuple(sorted(sound)))] == 0
    for subset, lost in zip(subsets, mass, strict=True):
        if sorted(z // m for z in subset) == list(range(k)):
            unsound = sum(z not in sound for z in subset)
            assert float(lost) == pytest.approx(0.1 * unsound / needed)
    smaller = survivals_of_size(family, k - 1)
    assert min(smaller) > 0


def survivals_of_size(family: Family, size: int) -> list[Fraction]:
    """Mass that each subset of another size fails on."""
    tasks = distribution(family)
    return [
        sum((p for p, solves in tasks if not solves[list(subset)].any()), Fraction(0))
        for subset in combinations(range(family.size), size)
    ]


@pytest.mark.parametrize("needed", [1, 2])
def test_the_chance_to_have_pruned_all_bad_subsets_by_going_through_all_samples(needed: int) -> None:
    family = Family(2, 2, sigma=0.25 * needed, fail=0.5, needed=needed)  # the two blocks are all tasks there are
    tasks, survives, mass = survivals(family)
    bad = mass >= Fraction(family.sigma)
    drawn, left = samples_needed(family, 20_000, np.random.default_rng(0))
    for n in range(1, 6):
        exact = Fraction(0)
        for sample in product(range(len(tasks)), repeat=n):
            if not survives[list(sample)][:, bad].all(0).any():
                exact += math.prod((tasks[i][0] for i in sample), start=Fraction(1))
        error = 4 * math.sqrt(0.25 / len(drawn))
        assert (drawn <= n).mean() < float(exact) + error
        if needed == 2:  # no bad subset is gone before both blocks were seen
            assert (drawn <= n).mean() > float(exact) - error
        assert 1 - exact <= math.comb(4, 2) * (1 - family.sigma) ** n  # the union bound
    assert left.max() < 1


@pytest.mark.parametrize(("needed", "fail"), [(1, 0.5), (2, 0.25), (3, 0.5)])
def test_the_worst_subset_left_is_that_of_going_through_all_subsets(needed: int, fail: float) -> None:
    family = Family(3, 3, sigma=0.08 * needed, fail=fail, needed=needed)
    subsets = list(combinations(range(family.size), family.k))
    tasks = distribution(family)
    survives = np.array([[solves[list(subset)].any() for subset in subsets] for _, solves in tasks])
    chances = np.array([float(p) for p, _ in tasks])
    lost = chances @ ~survives
    bad = lost >= family.sigma - 1e-12
    rng, counts, exact = np.random.default_rng(1), [], 0
    for _ in range(1000):
        alive, solved, count = np.ones(len(subsets), dtype=bool), np.ones((3, 3), dtype=bool), 0
        seen = np.zeros(3, dtype=bool)
        while (alive & bad).any():
            i = rng.choice(len(tasks), p=chances)
            count += 1
            alive &= survives[i]
            if not tasks[i][1].all() or i:
                block = int(tasks[i][1].argmax()) // 3  # the first that solves is the sound one
                seen[block] = True
                solved[block] &= tasks[i][1].reshape(3, 3)[block]
            mass = float(worst_left(solved[:, 1:].any(-1), seen, fail)) * family.mu * fail
            if seen.all():
                assert mass == pytest.approx(lost[alive].max())
                exact += 1
            else:
                assert mass >= lost[alive].max() - 1e-12
        counts.append(count)
    assert exact > 1000
    drawn, mass = samples_needed(family, 20_000, np.random.default_rng(2))
    excess = drawn.mean() - np.mean(counts)  # of the draws that end with a block unseen
    error = 4 * np.std(counts) / math.sqrt(len(counts))
    assert -error < excess < error + 0.02 * np.mean(counts)
    assert mass.max() < 1


def test_a_drawn_task_has_the_chances_of_the_family() -> None:
    family, rng = Family(2, 2, sigma=0.2, fail=0.5), np.random.default_rng(0)
    expected = {tuple(solves): float(p) for p, solves in distribution(family)}
    drawn = [tuple(family.draw(rng)) for _ in range(5000)]
    assert set(drawn) == set(expected)
    for solves, chance in expected.items():
        assert drawn.count(solves) / 5000 == pytest.approx(chance, abs=4 * math.sqrt(chance / 5000))


def test_quantile_and_union_bound_are_the_least_that_suffice() -> None:
    assert quantile(np.array([4, 1, 3, 2]), 0.5) == 2
    assert quantile(np.array([4, 1, 3, 2]), 0.25) == 3
    assert quantile(np.array([4, 1, 3, 2]), 0.2) == 4
    family = Family(4, 8, sigma=0.05)
    n = union_bound(family, 0.1)
    subsets = math.comb(32, 4)
    assert subsets * 0.95**n <= 0.1 < subsets * 0.95 ** (n - 1)
    assert order(family) == pytest.approx(4 * math.log(8) / 0.05)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"m": 1}, "Family.m=1"),
        ({"sigma": 0}, "Family.sigma=0"),
        ({"fail": 0.9}, "Family.fail=0.9"),
        ({"needed": 5}, "Family.needed=5"),
        ({"sigma": 0.5}, "At most 0.25"),
    ],
)
def test_what_is_no_family_is_refused(changed: dict[str, float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Family(**{"k": 4, "m": 4, "sigma": 0.1} | changed)  # type: ignore[arg-type]
