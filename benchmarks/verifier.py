"""What judging costs: CPU of the verifier and of evalplus over the floor, the tests' own time, on reference solutions.

The floor runs each solution and its tests in this process, with no wall around it. CPU seconds of all processes are
counted, server starts included. Rounds are interleaved; medians are reported.

    python benchmarks/verifier.py --data ../shared/data            # about 15 minutes on 2 cores
    python benchmarks/verifier.py --data ../shared/data --quick
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Report, default_out

from ra3kit.evaluation.benchmarks import load
from ra3kit.verify.jail import wire
from ra3kit.verify.problem import Asserts, Calls, Problem, Verdict
from ra3kit.verify.verifier import verify_all

FILES = {
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "humaneval+": "humaneval_plus/HumanEvalPlus.jsonl.gz",
    "mbpp+": "mbpp_plus/MbppPlus.jsonl.gz",
}


def cpu() -> float:
    """CPU seconds of this process and of all it has waited for."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def floor(problems: Sequence[Problem]) -> None:
    """Run solutions and tests in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        for problem in problems:
            namespace: dict[str, Any] = {"__name__": "solution"}
            tests = problem.tests
            exec(problem.solution or "", namespace)
            if isinstance(tests, Asserts):
                exec(tests.code, namespace)
                namespace["check"](namespace[tests.entry_point or ""])
            elif isinstance(tests, Calls):
                function = namespace[tests.entry_point]
                for arguments in wire.own(*wire.encode(list(tests.inputs))):
                    function(*arguments)


def ours(problems: Sequence[Problem], programs: Sequence[str], stop_early: bool) -> list[Verdict]:
    """Judge with all processors."""
    return verify_all(list(zip(programs, problems, strict=True)), stop_early=stop_early)


class EvalPlus:
    """evalplus's own check, a process a program, with expected values and times taken beforehand as it does."""

    def __init__(self, name: str, problems: Sequence[Problem]):
        self.dataset = name.removesuffix("+")
        self.prepared = [self._prepare(problem) for problem in problems]

    def _prepare(self, problem: Problem) -> tuple[str, list[Any], list[Any], float, list[float]]:
        tests = problem.tests
        assert isinstance(tests, Calls)
        namespace: dict[str, Any] = {}
        expected, seconds = [], []
        with contextlib.redirect_stdout(io.StringIO()):
            exec(problem.solution or "", namespace)
            for arguments in wire.own(*wire.encode(list(tests.inputs))):
                began = time.perf_counter()
                expected.append(namespace[tests.entry_point](*arguments))
                seconds.append(time.perf_counter() - began)
        if tests.oracle == "not_none":
            expected = [value is not None for value in expected]
        return tests.entry_point, list(tests.inputs), expected, tests.atol, seconds

    def check(self, programs: Sequence[str], fast: bool) -> list[str]:
        """Status of each program."""
        from evalplus.eval import untrusted_check

        return [
            untrusted_check(self.dataset, program, inputs, name, expected, atol, seconds, fast_check=fast)[0]
            for program, (name, inputs, expected, atol, seconds) in zip(programs, self.prepared, strict=True)
        ]


def interleaved(
    calls: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, tuple[float, float]], dict[str, Any]]:
    """Median CPU and wall seconds of each, and what each returned last."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    last: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in calls.items():
            used, wall = cpu(), time.perf_counter()
            last[name] = call()
            seen[name].append((cpu() - used, time.perf_counter() - wall))
    medians = {name: tuple(map(statistics.median, zip(*times, strict=True))) for name, times in seen.items()}
    return medians, last  # type: ignore[return-value]


def measure(
    report: Report, name: str, problems: Sequence[Problem], repeats: int, evalplus_base: Sequence[Problem]
) -> None:
    """Reference solutions: all tests, all detail."""
    solutions = [problem.solution or "" for problem in problems]
    peer = EvalPlus(name, evalplus_base)
    calls: dict[str, Callable[[], Any]] = {
        "floor": lambda: floor(problems),
        "ra3kit": lambda: ours(problems, solutions, False),
        "evalplus": lambda: peer.check(solutions, False),
    }
    times, last = interleaved(calls, repeats)
    note(report, name, times, len(problems))
    ours_failed = [p.id for p, verdict in zip(problems, last["ra3kit"], strict=True) if verdict.status != "pass"]
    theirs_failed = [p.id for p, status in zip(problems, last["evalplus"], strict=True) if status != "pass"]
    report.figures[f"solutions_{name}"] = len(problems)
    report.figures[f"ra3kit_not_passed_{name}"] = len(ours_failed)
    report.figures[f"evalplus_not_passed_{name}"] = len(theirs_failed)
    print(f"{name}: not passed by ra3kit: {ours_failed or 'none'}; by evalplus: {theirs_failed or 'none'}", flush=True)


def note(report: Report, name: str, times: dict[str, tuple[float, float]], programs: int) -> None:
    """Figures and ratios of one condition."""
    for who, (used, wall) in times.items():
        report.figures[f"{who}_cpu_ms_per_program_{name}"] = 1000 * used / programs
        report.figures[f"{who}_wall_s_{name}"] = wall
    if "floor" in times:
        report.ratios[f"ra3kit_vs_floor_{name}"] = times["ra3kit"][0] / times["floor"][0]
        report.ratios[f"evalplus_vs_floor_{name}"] = times["evalplus"][0] / times["floor"][0]
    report.ratios[f"evalplus_vs_ra3kit_{name}"] = times["evalplus"][0] / times["ra3kit"][0]


def measure_failing(report: Report, problems: Sequence[Problem], repeats: int) -> None:
    """Programs that are wrong at once, as most are at the start of RL: stopping at the first failing test."""
    programs = [f"{problem.prompt}    return None\n" for problem in problems]
    peer = EvalPlus("humaneval+", problems)
    calls: dict[str, Callable[[], Any]] = {
        "ra3kit": lambda: ours(problems, programs, True),
        "evalplus": lambda: peer.check(programs, True),
    }
    times, _ = interleaved(calls, repeats)
    note(report, "humaneval+_wrong_programs", times, len(problems))


def problems_of(name: str, data: Path, count: int | None) -> list[Problem]:
    loaded = load(name, {"path": str(data / FILES[name])})
    return list(loaded.problems)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with humaneval/, humaneval_plus/, mbpp_plus/")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="20 tasks each, once")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    count = 20 if options.quick else None
    repeats = 1 if options.quick else options.repeats
    report = Report("verifier", packages=("evalplus", "numpy"), seed=0)
    report.figures["repeats"] = repeats
    report.figures["processors"] = os.cpu_count() or 1
    plus = problems_of("humaneval+", options.data, count)
    # evalplus has no judge for check(candidate); it runs the same task on its base inputs
    base = [replace(p, tests=first_tests(p.tests)) for p in plus]
    measure(report, "humaneval", problems_of("humaneval", options.data, count), repeats, base)
    measure(report, "humaneval+", plus, repeats, plus)
    measure_failing(report, plus, repeats)
    mbpp = problems_of("mbpp+", options.data, count)
    measure(report, "mbpp+", mbpp, repeats, mbpp)
    report.finish(options.out or default_out("verifier", options.quick))


def first_tests(tests: Any) -> Calls:
    """The base tests alone."""
    return replace(tests, inputs=tests.inputs[: tests.base], expected=tests.expected[: tests.base])


if __name__ == "__main__":
    main()
