import pytest

from ra3kit.verify.recording import independent


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        ("assert candidate(1) == 2", True),
        ("for x in range(3):\n        assert candidate(x) == x", True),
        ("assert abs(candidate(1.0) - 2) < 1e-6", True),
        ("assert math.fabs(candidate(1)) < 2 and sorted(candidate([1])) == [1]", True),
        ("assert candidate(len([1]), sorted([2])) == [2], 'no'", True),
        ("assert candidate(candidate(1)) == 1", False),
        ("assert candidate([x for x in candidate(1)]) == 1", False),
        ("assert candidate(sorted(candidate(1))) == 1", False),
        ("x = candidate(1)\n    assert candidate(x) == 2", False),
        ("if candidate(1) == 2:\n        assert candidate(3) == 3", False),
        ("for x in candidate(3):\n        assert candidate(x) == x", False),
        ("assert all(candidate(x) == x for x in candidate(3))", False),
        ("assert (x := candidate(1)) == 2", False),
        ("seen = []\n    assert seen.append(candidate(1)) is None", False),
        ("assert helper(candidate(1)) == 2", False),
        ("assert list(map(candidate, [1])) == [1]", False),
        ("f = candidate\n    assert f(1) == 1", False),
        ("assert (lambda x: candidate(x))(1) == 1", False),
        ("candidate = 3", False),
        ("assert True, candidate(1)", False),
    ],
)
def test_arguments_that_may_hold_answers_are_not_recorded(body, fine):
    assert independent(f"def check(candidate):\n    {body}\n", "f", "f") is fine
    plain = body.replace("candidate", "f").replace("\n    ", "\n")
    if "f = f" not in plain:
        assert independent(plain, None, "f") is fine


def test_the_functions_own_name_counts_in_a_check():
    assert not independent("def check(candidate):\n    assert candidate(f(1)) == 1\n", "f", "f")


def test_no_check_no_record():
    assert not independent("assert f(1)", "f", "f")
    assert not independent("def check():\n    assert f(1)", "f", "f")
