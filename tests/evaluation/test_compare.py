"""Comparisons against closed forms, enumeration, the normal approximation and simulation; and what they refuse."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ra3kit.errors import DataError
from ra3kit.evaluation.compare import (
    Change,
    Comparison,
    Evaluation,
    McNemar,
    _arm_mean,
    compare,
    holm,
    mcnemar,
    paired_bootstrap,
    points,
    read_evaluations,
    seeds_note,
    verdict,
)
from ra3kit.evaluation.passk import estimate

RNG = np.random.default_rng


def row(*scores: float) -> np.ndarray:
    return np.array([scores])


def test_mcnemar_is_the_binomial_sum() -> None:
    for b, c in itertools.product(range(9), repeat=2):
        coins = b + c
        as_extreme = [i for i in range(coins + 1) if abs(i - coins / 2) >= abs(b - coins / 2)]
        p = sum(math.comb(coins, i) for i in as_extreme) / 2**coins
        assert mcnemar(b, c) == McNemar(b, c, p)
        assert mcnemar(c, b).p == p
    assert mcnemar(0, 0).p == 1.0
    assert mcnemar(0, 6).p == 0.03125
    assert 0 < mcnemar(1500, 1900).p < 1e-9  # integers: no overflow


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    rng = RNG(0)
    for size in range(1, 7):
        for ps in rng.uniform(0, 0.2, (50, size)):
            adjusted = holm(ps.tolist())
            for level in (0.01, 0.05, 0.2):
                rejected = set()
                for rank, i in enumerate(np.argsort(ps)):  # Holm 1979: stop at the first that fails
                    if ps[i] > level / (size - rank):
                        break
                    rejected.add(int(i))
                assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert holm([]) == []
    assert holm([0.75, 0.75]) == [1.0, 1.0]


def test_the_interval_is_that_of_all_resamples() -> None:
    """Seven problems have 7^7 resamples: their exact distribution is the oracle."""
    ours, theirs = row(1, 1, 0.5, 1, 0, 0.75, 1), row(0, 1, 0.25, 0, 0.5, 0, 0.25)
    gaps = (ours - theirs)[0]
    every = gaps[np.indices((7,) * 7).reshape(7, -1)].mean(0).round(12)
    found = paired_bootstrap(ours, theirs, resamples=99_999)
    lo, hi = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    assert found.lo == pytest.approx(lo, abs=1e-9)
    assert found.hi == pytest.approx(hi, abs=1e-9)
    assert found.value == pytest.approx(gaps.mean())
    assert found.p == pytest.approx(max(2 * np.mean(every <= 0), 2.0**-5), abs=0.002)


def test_a_big_case_agrees_with_the_normal_approximation() -> None:
    rng = RNG(2)
    hard = rng.beta(0.5, 0.5, 3000)
    ours = rng.binomial(10, np.clip(hard + 0.007, 0, 1))[None] / 10
    theirs = rng.binomial(10, hard)[None] / 10
    found = paired_bootstrap(ours, theirs)
    gaps = (ours - theirs)[0]
    error = gaps.std(ddof=1) / math.sqrt(gaps.size)
    assert found.value == pytest.approx(gaps.mean(), abs=1e-12)
    assert found.lo == pytest.approx(gaps.mean() - 1.96 * error, abs=0.08 * error)
    assert found.hi == pytest.approx(gaps.mean() + 1.96 * error, abs=0.08 * error)
    assert found.p == pytest.approx(math.erfc(gaps.mean() / error / math.sqrt(2)), rel=0.3)
    unpaired = math.hypot(ours.std(), theirs.std()) / math.sqrt(gaps.size)
    assert unpaired > 3 * error  # what pairing is for


@pytest.mark.parametrize(("seeds", "others"), [(1, 1), (2, 2), (3, 1), (2, 4)])
def test_exchanging_the_arms_flips_the_signs_and_nothing_else(seeds: int, others: int) -> None:
    rng = RNG(seeds)
    ours, theirs = rng.binomial(7, 0.5, (seeds, 31)) / 7, rng.binomial(7, 0.4, (others, 31)) / 7
    a, b = paired_bootstrap(ours, theirs, 5, 999), paired_bootstrap(theirs, ours, 5, 999)
    assert (a.value, a.lo, a.hi) == (-b.value, -b.hi, -b.lo)
    assert (a.ours, a.theirs, a.p, a.differing) == (b.theirs, b.ours, b.p, b.differing)
    assert a.lo < a.value < a.hi


def test_the_same_scores_cannot_be_told_apart() -> None:
    scores = RNG(0).random((1, 164))
    found = paired_bootstrap(scores, scores.copy())
    assert (found.value, found.p, found.differing, found.real) == (0.0, 1.0, 0, False)
    assert math.copysign(1, found.value) == 1  # no "-0.0"
    assert -found.lo == pytest.approx(found.hi)  # 164 equal problems still leave room for a difference
    assert found.hi == pytest.approx(1 - 0.025 ** (1 / 164))


def test_ties_are_ties_whatever_fractions_add_up_to() -> None:
    """0.1 + 0.2 - 0.3 is 0, but in floats a hair above it: resamples that tie would be counted as won."""
    gaps = np.array([0.1, 0.2, 0.1, 0.2, 0.1, 0.2, -0.3])
    every = gaps[np.indices((7,) * 7).reshape(7, -1)].mean(0)
    at_most = np.mean(every <= 1e-12)
    assert np.mean(every <= 0) < 0.8 * at_most
    found = paired_bootstrap(0.5 + gaps[None], np.full((1, 7), 0.5), resamples=99_999)
    assert found.p == pytest.approx(2 * at_most, rel=0.03)


def test_few_differing_problems_cannot_show_a_difference() -> None:
    for wins, p in ((1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)):
        ours = row(*[1.0] * wins, *[0.0] * (164 - wins))
        found = paired_bootstrap(ours, np.zeros((1, 164)))
        assert found.differing == wins
        assert found.p >= p
        assert found.real == (wins == 6)
        assert found.p == p or wins == 1
        assert found.p >= mcnemar(wins, 0).p


def test_the_p_value_and_the_interval_agree() -> None:
    seen = set()
    for seed in range(300):
        rng = RNG(seed)
        found = paired_bootstrap(rng.binomial(5, 0.6, (1, 25)) / 5, rng.binomial(5, 0.46, (1, 25)) / 5, seed, 499)
        outside = not found.lo <= 0 <= found.hi
        assert (found.p <= 0.05) == outside == found.real
        seen.add(outside)
    assert seen == {True, False}


def test_a_true_null_is_rejected_about_one_time_in_twenty() -> None:
    rng, trials = RNG(3), 500
    rejected = 0
    for trial in range(trials):
        rate = rng.beta(0.5, 0.5, 100)
        ours, theirs = rng.binomial(4, rate)[None] / 4, rng.binomial(4, rate)[None] / 4
        rejected += paired_bootstrap(ours, theirs, trial, 399).real
    assert 0.025 <= rejected / trials <= 0.08


def test_seeds_carry_their_variance() -> None:
    """s - 1 draws of s seeds vary like the mean of s seeds: by the unbiased variance over s."""
    scores = np.array([[0.1], [0.4], [0.9]])
    drawn = _arm_mean(scores, np.zeros((200_000, 1), int), RNG(0))
    assert drawn.var() == pytest.approx(scores.var(ddof=1) / 3, rel=0.02)
    assert drawn.mean() == pytest.approx(scores.mean(), abs=0.002)
    two = _arm_mean(scores[:2], np.zeros((1000, 1), int), RNG(0))
    assert set(two) == {0.1, 0.4}


def test_seeds_that_differ_widen_the_interval_and_one_seed_hides_it() -> None:
    """Simulation: two arms of one kind whose seeds differ by 5 points. One seed a side misses 0 most of the time."""
    covered = {}
    for seeds in (1, 5):
        rng, hits, trials = RNG(4), 0, 200
        for trial in range(trials):
            hard = rng.beta(2, 2, 164)
            arms = [
                rng.binomial(10, np.clip(hard + rng.normal(0, 0.05, (seeds, 1)), 0, 1)) / 10 for _ in ("ours", "theirs")
            ]
            found = paired_bootstrap(*arms, trial, 199)
            hits += found.lo <= 0 <= found.hi
        covered[seeds] = hits / trials
    assert covered[5] >= 0.88
    assert covered[1] <= 0.6


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(DataError, match="No problem to compare on"):
        paired_bootstrap(np.zeros((1, 0)), np.zeros((1, 0)))


def evaluation(name: str, outcomes: dict[str, Any], **changed: Any) -> Evaluation:
    given: dict[str, Any] = {"benchmark": "HumanEval+", "model": name, "ks": (1, 2), "settings": {"temperature": 0.2}}
    return Evaluation(name=name, path=Path(name) / "results.json", outcomes=outcomes, **given | changed)


def verdicts(pattern: str) -> list[Any]:
    return [{"p": "pass", "f": "fail", "t": "timeout", "i": "internal", "r": "refused"}[letter] for letter in pattern]


def outcomes(**patterns: str) -> dict[str, Any]:
    return {task: verdicts(pattern) for task, pattern in patterns.items()}


OURS = outcomes(a="pp", b="pf", c="ip", d="ff", e="p", only="pp")
THEIRS = outcomes(a="pf", b="pf", c="ff", d="pp", e="f")


def one(ours: Evaluation, theirs: Evaluation, **options: Any) -> Comparison:
    (comparison,) = compare([[ours]], [theirs], resamples=199, **options)
    return comparison


def test_a_comparison_counts_what_it_left_out() -> None:
    found = one(evaluation("x", OURS), evaluation("y", THEIRS))
    assert (found.tasks, found.not_shared, found.unjudged) == (5, {"x": 1}, 1)
    assert found.scores["pass@1"].ours == pytest.approx((1 + 0.5 + 1 + 0 + 1) / 5)
    assert found.scores["pass@1"].theirs == pytest.approx((0.5 + 0.5 + 0 + 1 + 0) / 5)
    assert found.scores["pass@1"].value == pytest.approx(1.5 / 5)
    assert found.scores["pass@1"].left_out == ()
    assert found.scores["pass@2"].left_out == ("c", "e")  # one judged sample in a run of theirs
    assert found.scores["pass@2"].value == pytest.approx((0 + 0 - 1) / 3)
    assert found.mcnemar == mcnemar(1, 1)  # first samples: e ours, d theirs; c's was not judged
    assert found.won == (Change("c", 1.0, 0.0), Change("e", 1.0, 0.0), Change("a", 1.0, 0.5))
    assert found.lost == (Change("d", 0.0, 1.0),)
    assert found.base_scores == {}


def test_mcnemar_leaves_out_first_samples_that_were_not_judged() -> None:
    ours = evaluation("x", outcomes(a="ip", b="rf", c="pf", d="pf"))
    assert one(ours, evaluation("y", outcomes(a="pp", b="pf", c="ff", d="ip"))).mcnemar == mcnemar(1, 0)


def test_the_scores_are_those_of_estimate() -> None:
    rng = RNG(7)
    runs = [outcomes(**{f"t{i}": "".join(rng.choice(list("pfi"), 6)) for i in range(40)}) for _ in range(2)]
    found = one(evaluation("x", runs[0]), evaluation("y", runs[1]))
    shared = [{t: s for t, s in run.items() if t not in found.scores["pass@1"].left_out} for run in runs]
    assert found.scores["pass@1"].ours == pytest.approx(estimate(shared[0], [1])["pass@1"].value)
    assert found.scores["pass@1"].theirs == pytest.approx(estimate(shared[1], [1])["pass@1"].value)


def test_seeds_of_an_arm_are_averaged_and_have_no_mcnemar() -> None:
    ours = [evaluation("x0", outcomes(a="p", b="p")), evaluation("x1", outcomes(a="p", b="f"))]
    (found,) = compare([ours], [evaluation("y", outcomes(a="f", b="f"))], resamples=199)
    assert found.scores["pass@1"].ours == 0.75
    assert found.mcnemar is None
    assert (found.ours, found.theirs) == (("x0", "x1"), ("y",))
    assert found.by_run == {"x0": 1.0, "x1": 0.5, "y": 0.0}
    assert found.won == (Change("a", 1.0, 0.0), Change("b", 0.5, 0.0))


def test_base_tests_are_compared_where_all_have_them() -> None:
    base = outcomes(a="pp", b="pp")
    plus = outcomes(a="pf", b="ff")
    having, lacking = evaluation("x", plus, base_outcomes=base), evaluation("y", plus)
    found = one(having, evaluation("z", plus, base_outcomes=plus))
    assert found.base_scores["pass@1"].value == 0.75
    assert found.scores["pass@1"].value == 0.0
    assert one(having, lacking).base_scores == {}


def test_only_k_that_all_report_are_compared_and_always_pass_at_1() -> None:
    found = one(evaluation("x", OURS, ks=(2, 5)), evaluation("y", THEIRS, ks=(5, 10)))
    assert list(found.scores) == ["pass@1"]
    assert found.unmeasured == ("pass@5",)


def test_settings_that_differ_are_listed() -> None:
    ours = evaluation("x", OURS, settings={"temperature": 0.2, "stop": ["\ndef"], "n": 2, "seed": 1, "model": "x"})
    theirs = evaluation("y", THEIRS, settings={"temperature": 0.8, "stop": ["\ndef"], "seed": 2, "model": "y"})
    assert one(ours, theirs).settings == {"n": (2, None), "temperature": (0.2, 0.8)}
    which = [{"model.name": name, "sampling.seed": i, "sampling.n": i, "step": i} for i, name in enumerate("xy")]
    assert one(replace(ours, settings=which[0]), replace(theirs, settings=which[1])).settings == {}
    assert one(ours, replace(ours, name="z", path=Path("z"))).settings == {}


def test_p_values_are_adjusted_over_the_runs_compared_at_once() -> None:
    theirs = evaluation("y", outcomes(**{f"t{i}": "f" for i in range(20)}))
    arms = [
        [evaluation(f"x{wins}", outcomes(**{f"t{i}": "p" if i < wins else "f" for i in range(20)}))]
        for wins in (6, 0, 7)
    ]
    found = compare(arms, [theirs], resamples=9_999)
    ps = [c.scores["pass@1"].p for c in found]
    assert ps == [2**-5, 1.0, 2**-6]
    assert [c.scores["pass@1"].p_holm for c in found] == [2**-4, 1.0, 3 * 2**-6] == holm(ps)
    assert [c.scores["pass@1"].real for c in found] == [False, False, True]
    assert verdict(found[0]).endswith("(p = 0.031 before the correction for several comparisons.)")


def test_what_cannot_be_compared_is_refused() -> None:
    x, y = evaluation("x", OURS), evaluation("y", THEIRS)
    with pytest.raises(DataError, match="x is an evaluation on 'MBPP', y on 'HumanEval"):
        one(replace(x, benchmark="MBPP"), y)
    with pytest.raises(DataError, match=r"in all of these evaluations \(x: 6, y: 1 problems\)"):
        one(x, replace(y, outcomes=outcomes(z="p")))
    with pytest.raises(DataError, match="has a judged sample in each of: x, y"):
        one(replace(x, outcomes=outcomes(a="p", b="i")), replace(y, outcomes=outcomes(a="r", b="p")))
    with pytest.raises(DataError, match="given twice in one arm"):
        compare([[x, x]], [y])


def test_the_verdict_in_words() -> None:
    theirs = evaluation("y", outcomes(**{f"t{i:03}": "f" for i in range(100)}))

    def words(wins: int) -> str:
        return verdict(
            one(evaluation("x", {t: verdicts("pf"[i >= wins]) for i, t in enumerate(theirs.outcomes)}), theirs)
        )

    assert words(0) == ("Can't be told apart: +0.0 points [-3.6, +3.6] of pass@1, p = 1. No problem has another score.")
    assert words(5).startswith("Can't be told apart: +5.0 points [+2.0, ")
    assert words(5).endswith("Problems that differ: 5; fewer than 6 can't show a difference at the 5 % level.")
    assert words(30).startswith("The difference is real at the 5 % level: +30.0 points [+")
    assert points(-0.0001) == "+0.0"
    assert points(-0.0123) == "-1.2"


def test_the_number_of_seeds_is_told() -> None:
    x, y = evaluation("x", OURS), evaluation("y", THEIRS)
    several = [x, replace(x, name="x2", path=Path("x2"))]
    assert seeds_note(one(x, y)) == "One seed a side: says nothing about other training seeds."
    (mixed,) = compare([several], [y], resamples=199)
    assert seeds_note(mixed) == "One seed of y: says nothing about its other training seeds."
    (both,) = compare([several], several, resamples=199)
    assert seeds_note(both) == "Few seeds (2 and 2): where seeds differ much, the interval is too narrow."
    three = [*several, replace(x, name="x3", path=Path("x3"))]
    (enough,) = compare([three], three, resamples=199)
    assert seeds_note(enough) == ""


def written(folder: Path, **changed: Any) -> Path:
    folder.mkdir(parents=True)
    results = {"benchmark": "B", "model": "m", "n": 2, "k": [1], "outcomes": {"a": ["pass", "fail"]}} | changed
    (folder / "results.json").write_text(json.dumps({k: v for k, v in results.items() if v is not ...}))
    return folder


def test_reading_takes_folders_and_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", settings={"versions": {"torch": "2.13"}, "stop": ["a"]}, base_outcomes={"a": []})
    by_folder, by_file = read_evaluations([folder, str(folder / "results.json")])
    assert by_folder == by_file
    assert by_folder.name == "x"
    assert by_folder.settings == {"n": 2, "versions.torch": "2.13", "stop": ["a"]}
    assert (by_folder.ks, by_folder.base_outcomes) == ((1,), {"a": []})


def test_names_are_as_long_as_needed(tmp_path: Path) -> None:
    paths = [written(tmp_path / "ra3" / "001"), written(tmp_path / "ntp" / "001"), written(tmp_path / "ntp" / "002")]
    assert [e.name for e in read_evaluations(paths)] == ["ra3/001", "ntp/001", "ntp/002"]
    assert [e.name for e in read_evaluations(paths[1:])] == ["001", "002"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"outcomes": ...}, "`outcomes` is None and has to be a dict: these are not the results of `ra3kit eval`"),
        ({"k": [1, "5"]}, r"`k` is \[1, '5'\] and has to list whole numbers"),
        ({"outcomes": {"a": "pass"}}, r"outcomes\['a'\] is 'pass' and has to be a list"),
        ({"outcomes": {"a": ["pas"]}}, "outcomes: a, sample 0: 'pas' is no verdict. Did you mean 'pass'"),
        ({"base_outcomes": {"a": ["pas"]}}, "base_outcomes: a, sample 0: 'pas'"),
        ({"base_outcomes": [1]}, r"`base_outcomes` is \[1\] and has to map"),
    ],
)
def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_evaluations([written(tmp_path / "x", **changed)])
    assert str(tmp_path / "x" / "results.json") in str(error.value)


def test_a_missing_run_is_named_with_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path / "ra3-greedy")
    with pytest.raises(DataError, match=r"No evaluation at .*ra3-gredy.*Did you mean 'ra3-greedy"):
        read_evaluations([tmp_path / "ra3-gredy"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        read_evaluations([tmp_path / "broken"])
