import collections
import decimal
import math
import random

import numpy as np
import pytest

from ra3kit.verify.jail import compare


def accepts(got, expected, arguments=(), atol=0.0, oracle=None, exact=True):
    return compare.accepts(got, expected, arguments, atol, oracle, exact)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (3, 3),
        (1, True),  # equal in Python, as everywhere in these benchmarks
        (2, 2.0),
        (0.1 + 0.2, 0.3),
        ([0.1 + 0.2, 1.0], [0.3, 1.0]),
        ((1, [0.1 + 0.2]), (1, [0.3])),
        ({"a": 0.1 + 0.2}, {"a": 0.3}),
        (1e9 + 50, 1e9),  # 1e-7 of it
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (np.int64(3), 3),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-9])),
        ([np.array([1.0, 2.0])], [np.array([1.0, 2.0 + 1e-9])]),
        (decimal.Decimal("1.0"), 1),
        (math.inf, math.inf),
        ([], []),
    ],
)
def test_right(got, expected):
    assert accepts(got, expected)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (3, 4),
        ("3", 3),
        ((1, 2), [1, 2]),
        ([0.3, 1.0], (0.3, 1.0)),
        (0.3001, 0.3),
        (1, 1.0000001),  # an int is no float within tolerance (evalplus's rule)
        ([0.3], [0.3, 0.3]),
        ([0.3, 0.4], [0.3]),
        (None, 0),
        (None, False),
        (math.nan, math.nan),
        (math.inf, 1.0),
        (-math.inf, math.inf),
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0}),
        (np.array([1.0, 2.0]), np.array([1.0, 2.1])),
        (np.array([[1.0, 1.0]]), np.array([1.0, 1.0])),
        ("1.0", 1.0),
        ([], [0.0]),
        ([1.0, 2.0], np.array([1.0, 2.0])),
        (np.array([1.0]), 1.0),
        ([np.array([1.0, 2.0])], [np.array([1.0, 2.1])]),
        (np.empty((0, 3)), np.empty((0, 2))),
    ],
)
def test_wrong(got, expected):
    assert not accepts(got, expected)


def test_tolerances_are_those_of_numpy():
    rng = random.Random(0)
    for _ in range(2000):
        expected = rng.uniform(-10, 10) * 10 ** rng.randrange(-9, 9)
        atol = 10.0 ** rng.randrange(-9, -1)
        got = expected + rng.choice([-1, 1]) * (atol + 1e-7 * abs(expected)) * rng.uniform(0, 2)
        assert accepts(got, expected, atol=atol) == bool(np.allclose(got, expected, rtol=1e-7, atol=atol))


def test_what_json_cannot_say_is_forgiven_only_when_asked():
    assert accepts((1, (2, 3)), [1, [2, 3]], exact=False)
    assert not accepts((1, (2, 3)), [1, [2, 3]], exact=True)
    assert accepts({True: "b"}, {"true": "b"}, exact=False)
    assert accepts({2: "a"}, {"2": "a"}, exact=False)
    assert not accepts([1, 3], [1, 2], exact=False)


def test_oracles():
    assert accepts(-0.5, None, ([1, 2],), 1e-4, "poly_root")
    assert not accepts(0.5, None, ([1, 2],), 1e-4, "poly_root")
    assert accepts(0, 7, (), oracle="or_zero")
    assert not accepts(1, 7, (), oracle="or_zero")
    assert accepts((3, 1, 1), (1, 3), oracle="set")
    assert not accepts((1, 2), (1, 3), oracle="set")
    assert accepts(object(), True, oracle="not_none")
    assert accepts(None, False, oracle="not_none")
    assert not accepts(None, True, oracle="not_none")
    assert not accepts(False, True, oracle="not_none")
    assert accepts("anything", 3, oracle="any")
    assert accepts(7, 0, (123, 56), oracle="digit_distance")  # |1-0| + |2-5| + |3-6|
    assert not accepts(8, 0, (123, 56), oracle="digit_distance")
    assert accepts(35, 33, (3, 4), oracle="surface_area")  # 9 + 6 * sqrt(1.5^2 + 4^2) = 34.6
    assert accepts(33, 33, (3, 4), oracle="surface_area")
    assert not accepts(34, 33, (3, 4), oracle="surface_area")


@pytest.mark.parametrize(
    ("got", "expected", "agree"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2 \r\n3\n\n", "1 2\n3", True),
        ("1.0 2", "1 2.00", True),
        ("YES", "yes", False),
        ("1\n2", "1\n2\n3", False),  # a prefix of the right output
        ("1\n2\n3", "1\n2", False),
        ("1 2", "1\n2", False),
        ("", "", True),
        ("", "0", False),
        ("nan", "nan", True),
        ("1e999999999", "1", False),
    ],
)
def test_lines(got, expected, agree):
    assert compare.lines_agree(got, expected) is agree


def test_short_never_raises():
    assert "too many digits" in compare.short([10**10_000])
    assert compare.short("x" * 5000).endswith("(5002 characters)")
