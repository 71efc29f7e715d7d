"""`check_verifier_backend` and `check_benchmark`: the kit's own pass, and each clause can be broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from clauses import assert_all_shown, assert_breaks

from ra3kit.evaluation.benchmarks import embedded
from ra3kit.evaluation.records import Problems
from ra3kit.testing import check_benchmark, check_verifier_backend
from ra3kit.verify.problem import Asserts, Calls, Problem, Verdict
from ra3kit.verify.verifier import Verifier


class Backend(Verifier):
    """Sound; the broken ones below differ in one place."""

    def __init__(self) -> None:
        super().__init__(workers=1)

    async def verify(self, program: str, problem: Problem, stop_early: bool | None = None) -> Verdict:
        return self.change(program, problem, await super().verify(program, problem, stop_early))

    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return verdict


class CannotOpen(Backend):
    async def __aenter__(self) -> Any:
        raise ConnectionError("no service at port 80")


class CannotClose(Backend):
    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        raise ConnectionError("it has gone")


class FailsAssertions(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="fail") if isinstance(problem.tests, Asserts) else verdict


class PassesAll(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="pass")


class NoReason(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, reason="")


class CountsNothing(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, total=0)


class LoopsFail(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="fail") if verdict.status == "timeout" else verdict


class ExitCodeIsTheVerdict(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="pass") if verdict.status == "crash" else verdict


class ComparesInside(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="pass") if "__eq__" in program else verdict


class NeedsText(Backend):
    async def verify(self, program: str, problem: Problem, stop_early: bool | None = None) -> Verdict:
        program.encode()
        return await super().verify(program, problem, stop_early)


class PassesWithoutTests(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="pass") if verdict.status == "refused" else verdict


class OrderOfCompletion(Backend):
    async def verify_batch(self, pairs: Any, deadline: float | None = None, on_done: Any = None) -> list[Verdict]:
        return (await super().verify_batch(pairs, deadline, on_done))[::-1]


class SilentBatch(Backend):
    async def verify_batch(self, pairs: Any, deadline: float | None = None, on_done: Any = None) -> list[Verdict]:
        return await super().verify_batch(pairs, deadline)


class EarlyIsPass(Backend):
    async def verify(self, program: str, problem: Problem, stop_early: bool | None = None) -> Verdict:
        verdict = await super().verify(program, problem, stop_early)
        return replace(verdict, status="pass") if stop_early else verdict


class LateIsFail(Backend):
    async def verify_batch(self, pairs: Any, deadline: float | None = None, on_done: Any = None) -> list[Verdict]:
        verdicts = await super().verify_batch(pairs, deadline, on_done)
        return [replace(v, status="fail") if v.status == "internal" else v for v in verdicts]


class OwnWords(Backend):
    async def verify_batch(self, pairs: Any, deadline: float | None = None, on_done: Any = None) -> list[Verdict]:
        verdicts = await super().verify_batch(pairs, deadline, on_done)
        if deadline is not None:
            verdicts[0] = replace(verdicts[0], status="late")  # type: ignore[arg-type]
        return verdicts


class Gullible(Backend):
    def change(self, program: str, problem: Problem, verdict: Verdict) -> Verdict:
        return replace(verdict, status="pass") if problem.id.startswith("forging/") else verdict


BROKEN_BACKENDS = [
    pytest.param(CannotOpen, "opens"),
    pytest.param(FailsAssertions, "right"),
    pytest.param(PassesAll, "wrong"),
    pytest.param(NoReason, "wrong"),
    pytest.param(CountsNothing, "counts"),
    pytest.param(LoopsFail, "limits"),
    pytest.param(ExitCodeIsTheVerdict, "leaves"),
    pytest.param(ComparesInside, "outside"),
    pytest.param(NeedsText, "odd"),
    pytest.param(PassesWithoutTests, "refuses"),
    pytest.param(OrderOfCompletion, "batch"),
    pytest.param(SilentBatch, "on_done"),
    pytest.param(EarlyIsPass, "early"),
    pytest.param(LateIsFail, "deadline"),
    pytest.param(OwnWords, "statuses"),
    pytest.param(Gullible, "attacks"),
    pytest.param(CannotClose, "closes"),
]


@pytest.mark.parametrize(("broken", "clause"), BROKEN_BACKENDS)
def test_each_clause_of_a_backend_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_verifier_backend, broken(), clause, attacks="forging" if clause == "attacks" else None)


def test_the_verifier_passes_and_no_clause_is_untested() -> None:
    report = check_verifier_backend(Verifier(workers=1), attacks="equal")  # a few of the zoo; `ra3kit doctor` runs all
    assert "attacks" in report.checked
    assert_all_shown(BROKEN_BACKENDS, report)


def test_it_works_where_an_event_loop_is_running() -> None:
    async def notebook() -> None:
        with pytest.raises(AssertionError, match="'opens'"):
            check_verifier_backend(CannotOpen(), attacks=None)

    asyncio.run(notebook())


# ---- benchmarks -----------------------------------------------------------------------------------------------------

ADD = Problem("add", Calls("add", [[1, 2]], [3]), "Add.", solution="def add(a, b): return a + b\n")
ONE = Problem("one", Calls("one", [[]], [1]), "Give 1.", solution="def one(): return 1\n")


def reader(*problems: Problem) -> Callable[[], Problems]:
    return lambda: Problems(list(problems), [], "here")


class Shuffled:
    turn = 0

    def __call__(self) -> Problems:
        self.turn += 1
        return Problems([ADD, ONE][:: 1 if self.turn % 2 else -1], [], "here")


BROKEN_READERS = [
    pytest.param(lambda: [ADD, ONE], "reads"),
    pytest.param(reader(), "reads"),
    pytest.param(reader(ADD, replace(ONE, id="add")), "ids"),
    pytest.param(reader(ADD, replace(ONE, prompt=" ")), "prompts"),
    pytest.param(Shuffled(), "repeatable"),
    pytest.param(reader(ADD, replace(ONE, solution="def one(): return 2\n")), "solutions"),
    pytest.param(reader(ADD, replace(ONE, tests=Asserts("assert True"), solution="")), "solutions"),
]


@pytest.mark.parametrize(("broken", "clause"), BROKEN_READERS)
def test_each_clause_of_a_benchmark_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_benchmark, broken, clause)


def test_the_kits_own_problems_pass_and_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN_READERS, check_benchmark(embedded, most=4))
    unsolved = check_benchmark(reader(replace(ADD, solution=None)))
    assert "solutions" not in unsolved.checked
