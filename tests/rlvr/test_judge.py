"""The judge beside generation: the verifier's verdicts, while the caller does something else."""

from __future__ import annotations

import threading
import time

import pytest

from ra3kit.errors import RecipeError
from ra3kit.rlvr.judge import Judge
from ra3kit.verify.problem import Calls, Limits, Problem
from ra3kit.verify.verifier import verify_all

DOUBLE = Problem("double", Calls("double", [(1,), (2,), (3,)], [2, 4, 6]), limits=Limits(time=1.0))
PROGRAMS = {
    "def double(x):\n    return 2 * x\n": "pass",
    "def double(x):\n    return x + 1\n": "fail",
    "def double(x): return": "fail",
    "import os\nos._exit(3)\n": "crash",
    "def double(x):\n    while True:\n        pass\n": "timeout",
}


def test_verdicts_are_the_verifiers() -> None:
    pairs = [(program, DOUBLE) for program in PROGRAMS]
    with Judge(workers=2) as judge:
        verdicts = judge.wait([(judge.submit(*pair), DOUBLE) for pair in pairs])
        assert judge.label
    assert [verdict.status for verdict in verdicts] == list(PROGRAMS.values())
    assert [v.status for v in verify_all(pairs, stop_early=True)] == list(PROGRAMS.values())


def test_it_judges_while_the_caller_works() -> None:
    with Judge(workers=1) as judge:
        future = judge.submit(next(iter(PROGRAMS)), DOUBLE)
        end = time.monotonic() + 60
        while not future.done() and time.monotonic() < end:  # a caller that never waits for it
            sum(range(1000))
        assert future.result(0).status == "pass"


def test_all_tests_are_run_where_they_are_asked_for() -> None:
    program = "def double(x):\n    if x == 1:\n        raise ValueError\n    return 2 * x\n"
    with Judge(workers=1) as judge:
        early, whole = judge.wait([(judge.submit(program, DOUBLE, early), DOUBLE) for early in (True, False)])
    assert early.status == whole.status == "fail"
    assert (early.passed, whole.passed, whole.total) == (0, 2, 3)


def test_what_is_late_is_internal_and_the_rest_is_kept() -> None:
    slow = Problem("slow", Calls("f", [(1,)], [1]), limits=Limits(time=5.0))
    with Judge(workers=1, deadline=0.5) as judge:
        futures = [
            (judge.submit(next(iter(PROGRAMS)), DOUBLE), DOUBLE),
            (judge.submit("def f(x):\n    while True:\n        pass\n", slow), slow),
        ]
        first, late = judge.wait(futures)
        assert futures[1][0].cancelled()  # nobody waits for it any more, and its worker is free again
    assert first.status in ("pass", "internal")  # a machine that is very busy
    assert late.status == "internal"
    assert "0.5 s" in late.reason
    assert late.total == 1


def test_closing_ends_thread_and_processes_and_it_can_be_opened_again() -> None:
    judge = Judge(workers=1).open()
    future = judge.submit("def double(x):\n    while True:\n        pass\n", DOUBLE)
    judge.close()
    assert future.cancelled() or future.done()
    assert "judge" not in {thread.name for thread in threading.enumerate()}
    judge.close()  # twice is once
    with judge:
        [verdict] = judge.wait([(judge.submit(next(iter(PROGRAMS)), DOUBLE), DOUBLE)])
    assert verdict.status == "pass"


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(RecipeError, match=r"judge\.workers=0"):
        Judge(workers=0)
    with pytest.raises(RecipeError, match=r"judge\.deadline=0"):
        Judge(deadline=0)
