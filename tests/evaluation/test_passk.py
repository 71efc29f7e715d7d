"""pass@k against closed forms and brute force, and its interval against simulation."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from ra3kit.errors import DataError
from ra3kit.evaluation.passk import (
    ALPHA,
    Score,
    Tally,
    bounds_when_all_equal,
    estimate,
    interval_of_mean,
    notes,
    pass_at_k,
    tail_rank,
    tally,
    verdict_counts,
)
from ra3kit.verify.problem import STATUSES


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_pass(n: int) -> None:
    for c in range(n + 1):
        samples = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(samples, k))
            assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


def test_pass_at_k_closed_forms() -> None:
    for n, c in ((10, 3), (200, 1), (7, 7), (5, 0)):
        assert pass_at_k(n, c, 1) == c / n
        assert pass_at_k(n, c, n) == (c > 0)
    for k in (1, 10, 100):
        assert pass_at_k(200, 1, k) == k / 200


@pytest.mark.parametrize(("n", "c", "k"), [(200, 13, 100), (100_000, 3, 50_000), (20_000, 19_000, 900), (10**6, 1, 3)])
def test_pass_at_k_is_correctly_rounded_however_many_samples(n: int, c: int, k: int) -> None:
    failing = Fraction(1)
    for i in range(c):
        failing *= Fraction(n - k - i, n - i)  # C(n-c, k) / C(n, k), the other way round
    assert pass_at_k(n, c, k) == float(1 - failing)


def test_pass_at_k_is_unbiased_where_the_plug_in_is_not() -> None:
    n, k, rate = 6, 3, 0.2
    chances = [math.comb(n, c) * rate**c * (1 - rate) ** (n - c) for c in range(n + 1)]
    mean = sum(chance * pass_at_k(n, c, k) for c, chance in enumerate(chances))
    assert mean == pytest.approx(1 - (1 - rate) ** k, abs=1e-14)
    plug_in = sum(chance * (1 - (1 - c / n) ** k) for c, chance in enumerate(chances))
    assert plug_in < mean - 0.02


def test_k_beyond_n_names_all_three() -> None:
    with pytest.raises(DataError, match=r"pass@5 needs at least k=5 .* n=4, c=2"):
        pass_at_k(4, 2, 5)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (-1, 0, 1)])
def test_counts_that_cannot_be_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(DataError, match=f"got k={k}, c={c}, n={n}"):
        pass_at_k(n, c, k)


MIXED = {
    "whole": ["pass", "fail", "timeout", "memory"],
    "infra": ["pass", "internal", "internal", "crash"],
    "nothing": ["refused", "internal"],
    "empty": [],
}


def test_internal_and_refused_are_taken_out_of_n() -> None:
    assert tally(MIXED) == {
        "whole": Tally(4, 1, 0),
        "infra": Tally(2, 1, 2),
        "nothing": Tally(0, 0, 2),
        "empty": Tally(0, 0, 0),
    }
    scores = estimate(MIXED, (1, 2, 3))
    assert list(scores) == ["pass@1", "pass@2", "pass@3"]
    assert scores["pass@1"].value == (1 / 4 + 1 / 2) / 2  # 1/4 over all samples given would be a silent zero
    assert scores["pass@2"].value == (1 / 2 + 1) / 2
    assert scores["pass@3"].value == 3 / 4
    assert [score.problems for score in scores.values()] == [2, 2, 1]
    assert scores["pass@1"].left_out == ("nothing", "empty")
    assert scores["pass@3"].left_out == ("infra", "nothing", "empty")


def test_verdicts_are_counted() -> None:
    counts = verdict_counts(MIXED)
    assert tuple(counts) == STATUSES
    assert counts == {"pass": 2, "fail": 1, "timeout": 1, "memory": 1, "crash": 1, "refused": 1, "internal": 3}


def test_notes_say_what_was_left_out() -> None:
    assert notes(MIXED, (1, 3), shown=2) == [
        "4 samples were not judged (1 refused, 3 internal).",
        "pass@1: left out for want of 1 judged sample, 2 of 4 problems: nothing (0), empty (0).",
        "pass@1: over few problems (2), so its interval is too narrow.",
        "pass@3: left out for want of 3 judged samples, 3 of 4 problems: infra (2), nothing (0) and 1 more.",
        "pass@3: over few problems (1), so its interval is too narrow.",
    ]
    assert notes({str(i): ["pass", "fail"] for i in range(30)}, (1, 2)) == []


def test_a_k_that_no_problem_has_is_not_measured_and_not_zero() -> None:
    score = estimate({"a": ["pass"], "b": ["internal"]}, [5])["pass@5"]
    assert math.isnan(score.value)
    assert math.isnan(score.lo)
    assert score.left_out == ("a", "b")
    assert str(score) == "not measured"
    assert json.loads(json.dumps(score.as_dict(), allow_nan=False))["value"] is None


def test_a_score_as_text_and_json() -> None:
    score = Score(0.5, 0.25, 0.75, 8, ("x",))
    assert str(score) == "50.0% [25.0%, 75.0%]"
    assert score.as_dict() == {"value": 0.5, "lo": 0.25, "hi": 0.75, "problems": 8, "left_out": ["x"]}


def test_an_unknown_verdict_is_named() -> None:
    with pytest.raises(DataError, match=r"HumanEval/7, sample 1: 'passs' is no verdict. Did you mean 'pass'\?"):
        estimate({"HumanEval/7": ["pass", "passs"]}, [1])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("outcomes", "ks", "resamples", "message"),
    [({}, [1], 100, "No outcomes"), ({"a": ["pass"]}, [0], 100, "k=0"), ({"a": ["pass"]}, [1], 38, "at least 39")],
)
def test_estimates_that_mean_nothing_are_refused(outcomes: dict, ks: list[int], resamples: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        estimate(outcomes, ks, resamples=resamples)


def test_the_interval_is_seeded_and_knows_no_order_or_names() -> None:
    outcomes = {f"t{i}": ["pass"] * (i % 4) + ["fail"] * (4 - i % 4) for i in range(40)}
    score = estimate(outcomes, [2], seed=3)["pass@2"]
    backwards = {f"u{i}": value for i, value in enumerate(reversed(outcomes.values()))}
    assert estimate(backwards, [2], seed=3)["pass@2"] == score
    other = estimate(outcomes, [2], seed=4)["pass@2"]
    assert (other.lo, other.hi) != (score.lo, score.hi)
    assert other.lo == pytest.approx(score.lo, abs=0.01)


def test_the_interval_of_many_problems_is_the_normal_one() -> None:
    values = np.random.default_rng(0).beta(0.5, 0.8, 2000)
    mean, lo, hi = interval_of_mean(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert lo == pytest.approx(mean - half, abs=0.05 * half)
    assert hi == pytest.approx(mean + half, abs=0.05 * half)


def test_the_interval_covers_problems_and_the_draw_of_their_completions() -> None:
    """Simulation: problems with their own pass rates, 4 samples each; the truth is the mean over all such problems."""
    rng = np.random.default_rng(1)
    hits = trials = 0
    for trial in range(400):
        passed = rng.binomial(4, rng.beta(0.5, 0.5, 60))
        _, lo, hi = interval_of_mean(passed / 4, seed=trial, resamples=399)
        hits += lo <= 0.5 <= hi
        trials += 1
    assert 0.92 <= hits / trials <= 0.98


@pytest.mark.parametrize("problems", [1, 5, 164])
def test_all_pass_and_all_fail_get_clopper_pearson_and_not_certainty(problems: int) -> None:
    every = estimate({str(i): ["pass"] * 2 for i in range(problems)}, [1])["pass@1"]
    assert (every.value, every.hi) == (1.0, 1.0)
    # the lower limit of Clopper-Pearson at c = n solves P(n passes) = limit^n = 2.5 %
    assert every.lo**problems == pytest.approx(ALPHA / 2)
    none = estimate({str(i): ["fail"] * 2 for i in range(problems)}, [1])["pass@1"]
    assert (none.value, none.lo) == (0.0, 0.0)
    assert (1 - none.hi) ** problems == pytest.approx(ALPHA / 2)


@pytest.mark.parametrize(("mean", "problems"), [(0.9, 3), (0.5, 2), (0.3, 4), (0.98, 30)])
def test_the_bounds_for_equal_values_hold_exactly(mean: float, problems: int) -> None:
    """Whatever two-point distribution has this mean, all-equal samples whose bounds miss it are at most 5 % likely."""
    for low, high in itertools.product(np.linspace(0, mean, 9), np.linspace(mean, 1, 9)):
        share = 0.5 if low == high else (mean - low) / (high - low)
        missed = 0.0
        for value, chance in ((low, 1 - share), (high, share)):
            lo, hi = bounds_when_all_equal(float(value), problems)
            missed += chance**problems * (not lo <= mean + 1e-12 or not mean - 1e-12 <= hi)
        assert missed <= ALPHA + 1e-12


def test_the_rank_agrees_with_the_p_value() -> None:
    for resamples in (39, 40, 79, 399, 999, 9_999, 10_000, 12_345):
        rank = tail_rank(resamples)
        assert Fraction(2 * rank, resamples + 1) <= Fraction(1, 20) < Fraction(2 * (rank + 1), resamples + 1)
