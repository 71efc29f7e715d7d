"""What is judged: a problem, its tests and limits, and the verdict on one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Status = Literal["pass", "fail", "timeout", "memory", "crash", "refused", "internal"]
"""pass: every test passed.  fail: a wrong answer or an exception.  timeout: CPU or wall clock used up.
memory: address space used up.  crash: the process died without answering.  refused: nothing was run.
internal: our own failure, which says nothing about the program: never a reward, never a zero."""

STATUSES: tuple[Status, ...] = get_args(Status)

JUDGED: frozenset[Status] = frozenset({"pass", "fail", "timeout", "memory", "crash"})
"""Verdicts that are about the program. The other two are reported apart from every score."""


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use.

    Args:
        time: CPU seconds of one process. The wall clock is held at `3 * time + 2` seconds.
        call: CPU seconds of one call of `Calls`, None for no limit of its own. Kept by the harness inside the program's
            process (like evalplus's), so only honest programs obey it; `time` holds for all.
        memory: MiB of address space above what the interpreter takes.
        output: bytes of answers or standard output.
        threads: at most this many threads.
    """

    time: float = 10.0
    call: float | None = None
    memory: int = 1024
    output: int = 16 * 2**20
    threads: int = 32

    def __post_init__(self) -> None:
        """Raises ValueError: a limit that would limit nothing."""
        for name, least in (("time", 0.001), ("call", 0.001), ("memory", 1), ("output", 1), ("threads", 1)):
            value = getattr(self, name)
            if not (value is None and name == "call") and not least <= value < float("inf"):
                raise ValueError(f"Limits.{name}={value}: at least {least}, and finite")


@dataclass(frozen=True)
class Calls:
    """Tests that call a function and compare what it returns, outside the program's process.

    Args:
        entry_point: name of the function, or an expression such as `Solution().solve`.
        inputs: the arguments of each call.
        expected: what each call returns in the reference.
        atol: absolute tolerance for floats; 0 means 1e-6 where the expected value is floats (evalplus's rule).
        oracle: name of a special rule of `ra3kit.verify.jail.compare.ORACLES` that replaces equality.
        exact: whether a tuple differs from a list of the same items. False where `expected` comes from JSON.
        base: how many of the first tests are the benchmark's base tests; None means all.
    """

    entry_point: str
    inputs: Sequence[Sequence[Any]]
    expected: Sequence[Any]
    atol: float = 0.0
    oracle: str | None = None
    exact: bool = True
    base: int | None = None


@dataclass(frozen=True)
class Asserts:
    """Test code with `assert`, run in a confined process of its own that reaches the program only by messages.

    Args:
        code: the tests. With `entry_point`, they define `check(candidate)`.
        entry_point: function that is passed to `check`; None: `code` is plain assertions that name what they test.
        setup: trusted code that runs first in the tests' process (imports, helper functions of the prompt).
        recorded: the calls the tests make of a right program, and its answers (`ra3kit.verify.reference.complete`).
            Tests are deterministic, so a program that gives the same bytes passes; for any other the tests themselves
            are run.
    """

    code: str
    entry_point: str | None = None
    setup: str = ""
    recorded: Calls | None = None


@dataclass(frozen=True)
class Streams:
    """Tests that feed standard input and compare standard output, each in a fresh process.

    Args:
        inputs: what each run reads.
        outputs: what each run has to print; line by line, spaces around a line and numeric spelling apart.
        checker: Python source of a checker (open-r1/codeforces: `checker.py input answer output` prints 1 to accept);
            None: compare.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    checker: str | None = None


Tests = Calls | Asserts | Streams


@dataclass(frozen=True)
class Problem:
    """One problem with its tests.

    Args:
        id: name, unique in its benchmark.
        prompt: what a model is given.
        tests: how a program is judged.
        limits: what a program may use.
        solution: a whole program that is known to pass, for checks of the grader; None where there is none.
        meta: anything else worth keeping (difficulty, date, platform, starter code).
    """

    id: str
    tests: Tests
    prompt: str = ""
    limits: Limits = Limits()
    solution: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What became of one program.

    Args:
        status: the verdict.
        reason: one line for a person; "" on a pass.
        passed: tests that passed. total: tests there are (asserts count as one). Not all are run when stopping early.
        base: verdict on the base tests alone, where the problem has some (evalplus).
        failure: the first failing test, cut to a readable length: any of `test`, `input`, `expected`, `got`, `error`.
        seconds: CPU seconds of the program's processes.
        isolation: what held the program, as in "landlock+seccomp+namespaces".
        cached: whether it was judged before and remembered.
    """

    status: Status
    reason: str = ""
    passed: int = 0
    total: int = 0
    base: Status | None = None
    failure: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    isolation: str = ""
    cached: bool = False
