"""`check_verifier_backend`: whatever judges programs in the place of `Verifier`. `check_benchmark`: what it judges."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ra3kit.evaluation.records import Problems
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.verify import zoo
from ra3kit.verify.canaries import Canaries
from ra3kit.verify.problem import STATUSES, Asserts, Calls, Limits, Problem, Streams, Verdict
from ra3kit.verify.selftest import won
from ra3kit.verify.verifier import Verifier, run_async, verify_all

Pair = tuple[str, Problem]

SHORT = Limits(time=0.2, memory=128, output=1 << 20, threads=4)
ADD = Problem("add", Calls("add", [[1, 2], [3, 4], ["a", "b"]], [3, 7, "ab"]), limits=SHORT)
TWICE = Problem(
    "twice", Asserts("def check(f):\n    assert f(2) == 4\n    assert f('ab') == 'abab'\n", "twice"), limits=SHORT
)
REVERSE = Problem("reverse", Streams(["ab\n", "1 2\n3"], ["ba\n", "2 1"]), limits=SHORT)
EMPTY = Problem("empty", Calls("add", [], []), limits=SHORT)

RIGHT: tuple[Pair, ...] = (
    ("def add(a, b):\n    return a + b\n", ADD),
    ("def twice(x):\n    return x * 2\n", TWICE),
    ("print(input()[::-1])\n", REVERSE),
)
WRONG: tuple[Pair, ...] = (
    ("def add(a, b):\n    return a - b\n", ADD),
    ("def add(a, b):\n    raise ValueError('no')\n", ADD),
    ("def add(a, b) return a\n", ADD),
    ("def twice(x):\n    return 4\n", TWICE),
    ("print(input())\n", REVERSE),
    ("", ADD),
)
ODD: tuple[str, ...] = ("\ud800", "\x00", "add = 3", "#" * (5 << 20))
_LOOP = "def add(a, b):\n    while True:\n        pass\n"
_HOG = "def add(a, b):\n    return bytearray(1 << 32)\n"
_LEAVE = "import os\n\n\ndef add(a, b):\n    os._exit(0)\n"
_EQUAL = """\
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def add(a, b): return Any()
"""


class VerifierBackend(Protocol):
    """What judges programs: `Verifier`, or yours (a service elsewhere, another sandbox)."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def verify(self, program: str, problem: Problem, stop_early: bool | None = None) -> Verdict: ...

    async def verify_batch(
        self,
        pairs: Sequence[Pair],
        deadline: float | None = None,
        on_done: Callable[[int, Verdict], None] | None = None,
    ) -> list[Verdict]: ...


def check_verifier_backend(verifier: VerifierBackend, attacks: str | None = "forging") -> Report:
    """Check a verifier with right, wrong and hostile programs: the clauses of `Verifier`.

    Args:
        verifier: not yet entered; it is entered once and left.
        attacks: part of a name or category of the zoo's attacks (`ra3kit doctor`), all of which must be withstood;
            None for none. Only run hostile programs where they can do no harm.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(verifier, Verifier)
    run_async(_check_backend(check, verifier, attacks))
    return check.report()


async def _check_backend(check: Checking, verifier: VerifierBackend, attacks: str | None) -> None:
    with check.clause("opens", "`async with` opens it"):
        entered: VerifierBackend = await verifier.__aenter__()
    try:
        await _check_verdicts(check, entered)
        await _check_batches(check, entered)
        rule = f"the zoo's attacks {attacks!r} are withstood: no verdict forged, no canary touched"
        if attacks is None:
            check.skip("attacks", "the zoo's attacks are withstood", "attacks=None")
        else:
            await _check_attacks(check, entered, attacks, rule)
    finally:
        with check.clause("closes", "`async with` closes it"):
            await verifier.__aexit__(None, None, None)


async def _check_verdicts(check: Checking, verifier: VerifierBackend) -> None:
    with check.clause("right", "a right program passes: function calls, assertions, standard input and output"):
        for program, problem in RIGHT:
            verdict = await verifier.verify(program, problem)
            check.that(isinstance(verdict, Verdict), type(verdict).__name__)
            check.that(verdict.status == "pass", f"{verdict.status}: {verdict.reason} on {problem.id}")
    with check.clause("wrong", "a wrong program fails, with a reason of one line or more"):
        for program, problem in WRONG:
            verdict = await verifier.verify(program, problem)
            check.that(verdict.status == "fail", f"{verdict.status} for {program!r} on {problem.id}")
            check.that(bool(verdict.reason), f"no reason for {program!r}")
    with check.clause("counts", "`total` counts the tests (assertions as one), `passed` those that passed"):
        for program, problem in (*RIGHT, WRONG[0]):
            verdict = await verifier.verify(program, problem)
            tests = 1 if isinstance(problem.tests, Asserts) else len(problem.tests.inputs)
            passed = tests if verdict.status == "pass" else 0
            check.that((verdict.passed, verdict.total) == (passed, tests), f"{verdict.passed} of {verdict.total}")
    with check.clause(
        "limits", "a program that loops is `timeout`, one that takes all memory `memory`, within the limits"
    ):
        for program, status in ((_LOOP, "timeout"), (_HOG, "memory")):
            started = time.monotonic()
            verdict = await verifier.verify(program, ADD)
            took = time.monotonic() - started
            check.that(verdict.status == status, f"{verdict.status}: {verdict.reason}, wanted {status}")
            check.that(took < 3 * SHORT.time + 2 + 20, f"{took:.0f} s with a limit of {SHORT.time} CPU seconds")
    with check.clause("leaves", "a program that ends its own process does not pass: `crash`"):
        verdict = await verifier.verify(_LEAVE, ADD)
        check.that(verdict.status == "crash", f"{verdict.status}: {verdict.reason}")
    with check.clause("outside", "answers are compared outside the program: an object equal to everything fails"):
        verdict = await verifier.verify(_EQUAL, ADD)
        check.that(verdict.status == "fail", f"{verdict.status}: {verdict.reason}")
    with check.clause("odd", "`verify` never raises for what a program is: it fails", "verify"):
        for program in ODD:
            verdict = await verifier.verify(program, ADD)
            check.that(verdict.status == "fail", f"{verdict.status} for {program[:20]!r}")
    with check.clause("refuses", "a problem without tests is `refused`, and never passed"):
        verdict = await verifier.verify(RIGHT[0][0], EMPTY)
        check.that(verdict.status == "refused", f"{verdict.status}: {verdict.reason}")


async def _check_batches(check: Checking, verifier: VerifierBackend) -> None:
    pairs = [*RIGHT, *WRONG, *RIGHT[::-1], (_LOOP, ADD)]
    known: list[int] = []
    with check.clause(
        "batch", "`verify_batch` gives the verdicts of `verify` in the order of the pairs", "verify_batch"
    ):
        verdicts = await verifier.verify_batch(pairs, on_done=lambda index, verdict: known.append(index))
        wanted = ["pass"] * 3 + ["fail"] * 6 + ["pass"] * 3 + ["timeout"]
        found = [verdict.status for verdict in verdicts]
        check.that(found == wanted, found)
    with check.clause("on_done", "`verify_batch` calls on_done(index, verdict) once for each pair", "verify_batch"):
        check.that(sorted(known) == list(range(len(pairs))), sorted(known))
    with check.clause("early", "stopping at the first failing test changes no status", "verify"):
        for program, problem in (*RIGHT, *WRONG):
            verdict = await verifier.verify(program, problem, stop_early=True)
            passes = (program, problem) in RIGHT
            check.that(verdict.status == ("pass" if passes else "fail"), f"{verdict.status} for {program!r}")
    rule = "what is not judged by the deadline is `internal`: it was not proved wrong, and is no reward"
    with check.clause("deadline", rule, "verify_batch"):
        verdicts = await verifier.verify_batch([(_LOOP + f"# {i}\n", ADD) for i in range(8)], deadline=0.01)
        check.that(len(verdicts) == 8, f"{len(verdicts)} verdicts for 8 programs")
        check.that(verdicts[-1].status == "internal", f"{verdicts[-1].status}: {verdicts[-1].reason}")
    with check.clause("statuses", "a verdict's status is one of " + ", ".join(STATUSES)):
        odd = [verdict.status for verdict in verdicts if verdict.status not in STATUSES]
        check.that(not odd, odd)


async def _check_attacks(check: Checking, verifier: VerifierBackend, only: str, rule: str) -> None:
    with Canaries() as canaries, check.clause("attacks", rule):
        chosen = [a for a in zoo.attacks(canaries.canary) if only in a.name or only in a.category]
        check.that(bool(chosen), f"no attack has {only!r} in its name or category")
        walls = str(getattr(verifier, "walls", {}).get("namespaces", ""))
        for attack in chosen:
            if attack.needs == "namespaces" and walls != "yes":
                continue  # wins where there are none, as far as is known: `ra3kit doctor` names these
            started = time.monotonic()
            verdict = await verifier.verify(attack.program, attack.problem)
            how = won(attack, verdict, time.monotonic() - started, canaries)
            check.that(not how, f"{attack.category}/{attack.name}: {how}. {attack.why}")


def check_benchmark(read: Callable[[], Problems], most: int = 20) -> Report:
    """Check a reader of problems, as `ra3kit.evaluation.benchmarks.Benchmark` names one.

    Args:
        read: the reader, with its options bound.
        most: so many of its reference solutions are run, evenly taken.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
        NoSandbox: no isolation holds here, and there are reference solutions to run.
    """
    check = Checking(read, "ra3kit.evaluation.records.Problems")
    with check.clause("reads", "it gives `Problems`, at least one of them, and where they come from"):
        found = read()
        check.that(isinstance(found, Problems), type(found).__name__)
        check.that(len(found.problems) > 0 and all(isinstance(p, Problem) for p in found.problems), "no Problem")
        check.that(bool(found.source), "source is empty")
    with check.clause("ids", "ids are unique"):
        ids = [problem.id for problem in found.problems]
        twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
        check.that(not twice, f"several problems are {twice[:3]}")
    with check.clause("prompts", "each problem has a prompt"):
        empty = [problem.id for problem in found.problems if not problem.prompt.strip()]
        check.that(not empty, f"none in {empty[:3]}")
    with check.clause("repeatable", "reading again gives the same problems in the same order"):
        check.that([p.id for p in read().problems] == ids, "other ids, or another order")
    solved = [(p.solution, p) for p in found.problems if p.solution is not None]
    rule = "reference solutions pass their tests, and an empty program passes none"
    if not solved:
        check.skip("solutions", rule, "no problem has a solution")
        return check.report()
    sample = solved[:: max(1, len(solved) // most)][:most]
    with check.clause("solutions", rule):
        verdicts = verify_all([*sample, *(("", problem) for _, problem in sample)])
        for (_, problem), verdict in zip(sample, verdicts, strict=False):
            check.that(verdict.status == "pass", f"{problem.id}: {verdict.status}: {verdict.reason}")
        for (_, problem), verdict in zip(sample, verdicts[len(sample) :], strict=True):
            check.that(verdict.status != "pass", f"an empty program passes {problem.id}")
    return check.report()
