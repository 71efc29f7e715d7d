"""Statistics over seeds against figures worked out by hand and against the definitions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from ra3kit.errors import RunError
from ra3kit.study.statistics import curve_measures, paired, sign_flip_p


def test_five_seeds_by_hand() -> None:
    """Differences .1 .2 .3 .2 .2: mean .2, variance (.01 + .01) / 4, t_.975(4) = 2.7764."""
    found = paired([0.5, 0.7, 0.9, 0.6, 0.8], [0.4, 0.5, 0.6, 0.4, 0.6])
    spread = math.sqrt(0.02 / 4)
    assert found.differences == pytest.approx((0.1, 0.2, 0.3, 0.2, 0.2))
    assert found.mean == pytest.approx(0.2)
    assert found.d_z == pytest.approx(0.2 / spread)
    assert (found.low, found.high) == pytest.approx(
        (0.2 - 2.776445 * spread / math.sqrt(5), 0.2 + 2.776445 * spread / math.sqrt(5)), abs=1e-6
    )
    assert (found.above, found.below) == (5, 0)
    assert found.p == 2 / 32  # of the 32 ways to choose signs only all + and all - are as far from 0


def test_exchanging_the_arms_changes_signs_alone() -> None:
    ours, theirs = [0.3, 0.9, 0.2, 0.5], [0.4, 0.1, 0.3, 0.5]
    there, back = paired(ours, theirs), paired(theirs, ours)
    assert (there.mean, there.low, there.high, there.d_z) == pytest.approx(
        (-back.mean, -back.high, -back.low, -back.d_z)
    )
    assert (there.above, there.below, there.p) == (back.below, back.above, back.p)
    assert there.above + there.below == 3  # a tie counts on neither side


def test_one_seed_says_nothing_about_others() -> None:
    found = paired([0.9], [0.5])
    assert found.mean == pytest.approx(0.4)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.d_z)
    assert found.p == 1.0


def test_equal_differences() -> None:
    assert paired([0.3, 0.2], [0.2, 0.1]).d_z == math.inf
    nothing = paired([0.3, 0.2], [0.3, 0.2])
    assert (nothing.mean, nothing.d_z, nothing.p, nothing.above, nothing.below) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan, 1.0], [0.0, 0.0])])
def test_what_cannot_be_paired(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(RunError):
        paired(ours, theirs)


def test_sign_flips_in_exact_fractions() -> None:
    gap = [3, -1, 2, 2, -4, 1, 5]
    seen = abs(sum(gap))
    flips = list(itertools.product((1, -1), repeat=len(gap)))
    beyond = sum(abs(sum(f * g for f, g in zip(flip, gap, strict=True))) >= seen for flip in flips)
    assert sign_flip_p([0.1 * g for g in gap]) == float(Fraction(beyond, len(flips)))


def test_many_seeds_by_random_flips() -> None:
    """17 differences: the random flips agree with all 2^17."""
    gap = np.random.default_rng(3).normal(0.4, 1.0, 17).round(3)
    signs = np.where((np.arange(2**17)[:, None] >> np.arange(17)) & 1, 1.0, -1.0)
    exact = (np.abs(signs @ gap).round(9) >= round(abs(gap.sum()), 9)).mean()
    assert 0.01 < exact < 0.9
    assert sign_flip_p(gap) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(gap) == sign_flip_p(gap)


def test_curve_by_hand() -> None:
    found = curve_measures([0.0, 0.2, 0.4, 0.8, 1.0, 1.0], threshold=0.75, window=3)
    assert found.area == pytest.approx((0.1 + 0.3 + 0.6 + 0.9 + 1.0) / 5)
    assert found.reached == 5  # means of three: .2 .467 .733 .933 from step 2 on
    assert (found.asymptote, found.steps) == (1.0, 6)
    assert curve_measures([0.5], 0.7, 1).reached is None
