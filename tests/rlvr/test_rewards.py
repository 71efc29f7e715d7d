"""Rewards of made-up verdicts, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ra3kit.errors import RecipeError
from ra3kit.evaluation.prompts import Style
from ra3kit.rlvr.rewards import VerifierReward, is_well_formed, overlong, share_passed
from ra3kit.rlvr.tasks import Answer, Task
from ra3kit.rollout.jobs import Completion
from ra3kit.verify.problem import STATUSES, Calls, Problem, Status, Verdict
from ra3kit.verify.verifier import verify_all

PROBLEM = Problem("id", Calls("f", [[1], [2], [3], [4]], [1, 2, 3, 4]), "def f(x):\n")


def answer(
    status: Status | None = "pass",
    passed: int = 0,
    tokens: int = 10,
    text: str = "    return x\n",
    style: Style = "stub",
) -> Answer:
    task = Task(PROBLEM, [0], ("<|im_end|>",), style)
    verdict = None if status is None else Verdict(status, passed=passed, total=4)
    zeros = [0.0] * tokens
    return Answer(task, 0, Completion([1] * tokens, text, zeros, zeros, "end"), task.program(text), verdict)


def test_right_is_one_wrong_is_zero_and_what_was_not_judged_has_no_reward() -> None:
    reward = VerifierReward()
    got = {status: reward(answer(status, passed=3), 100) for status in STATUSES}
    assert got == {
        "pass": 1.0,
        "fail": 0.0,
        "timeout": 0.0,
        "memory": 0.0,
        "crash": 0.0,
        "refused": None,
        "internal": None,
    }
    assert reward(answer(None), 100) is None
    told = {status: reward.outcome(answer(status)) for status in (*STATUSES, None)}
    assert told == {status: None if value is None else value == 1.0 for status, value in got.items()} | {None: None}


def test_the_share_of_tests_needs_all_of_them_run_and_is_one_for_a_pass_only() -> None:
    reward = VerifierReward("partial")
    assert not reward.stop_early
    assert VerifierReward().stop_early
    assert [reward(answer("fail", passed=n), 100) for n in (0, 1, 3)] == [0.0, 0.25, 0.75]
    assert reward(answer("timeout", passed=2), 100) == 0.5
    assert reward(answer("crash", passed=4), 100) == 0.75
    assert reward(answer("pass", passed=4), 100) == 1.0
    assert share_passed(Verdict("fail", passed=0, total=0)) == 0.0
    assert reward(answer("internal", passed=4), 100) is None


def test_the_share_is_that_of_the_verifier() -> None:
    half = "def f(x):\n    return x if x < 3 else 0\n"
    late = "def f(x):\n    return x if x > 3 else 0\n"
    verdicts = verify_all([(half, PROBLEM), (late, PROBLEM)])
    assert [share_passed(verdict) for verdict in verdicts] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("style", "text", "formed"),
    [
        ("stub", "    return x\n", True),
        ("stub", "    return (x\n", False),
        ("complete", "  return x\n return\n", False),
        ("chat", "```python\ndef f(x):\n    return x\n```", True),
        ("chat", "```\nno python (\n", True),
        ("chat", "def f(x):\n    return x\n", False),
        ("chat", "Sure!<|im_end|>\n```python\nx\n```", False),  # the block stands after a stop string
    ],
)
def test_an_answer_that_is_no_code_is_charged(style: Style, text: str, formed: bool) -> None:
    made = answer("fail", text=text, style=style)
    assert is_well_formed(made) == formed
    assert VerifierReward(format_penalty=0.3)(made, 100) == (0.0 if formed else -0.3)
    assert VerifierReward()(made, 100) == 0.0


def test_length_is_charged_in_proportion_within_the_buffer() -> None:
    reward = VerifierReward(overlong_buffer=20, overlong_penalty=0.5)
    got = [reward(answer("pass", tokens=n), 100) for n in (1, 79, 80, 81, 90, 99, 100)]
    assert got == pytest.approx([1.0, 1.0, 1.0, 0.975, 0.75, 0.525, 0.5], abs=1e-12)
    assert VerifierReward(overlong_penalty=0.5)(answer("pass", tokens=100), 100) == 1.0
    # DAPO, eq. 13: (L_max - L_cache - |y|) / L_cache
    assert [-overlong(n, 30, 100) for n in (71, 85, 100)] == [(100 - 30 - n) / 30 for n in (71, 85, 100)]
    with pytest.raises(RecipeError, match="at most max_new_tokens"):
        reward(answer("pass"), 19)


def test_bounds_are_reached_and_not_left() -> None:
    reward = VerifierReward("partial", format_penalty=0.25, overlong_buffer=10, overlong_penalty=2.0)
    worst = reward(answer("fail", tokens=100, text="(\n"), 100)
    assert (worst, reward(answer("pass"), 100)) == reward.bounds == (-2.25, 1.0)
    assert VerifierReward(overlong_penalty=2.0).bounds == (0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "binari"}, "Did you mean 'binary'"),
        ({"format_penalty": -1}, "at least 0"),
        ({"overlong_buffer": 1.5}, "whole number"),
        ({"overlong_penalty": float("nan")}, "finite"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        VerifierReward(**settings)
