"""A problem made ready once for many programs."""

from __future__ import annotations

import ast
import hashlib
import os
from typing import Any

from ra3kit.verify.jail import compare, frames, wire
from ra3kit.verify.problem import Asserts, Calls, Problem, Streams
from ra3kit.verify.recording import independent
from ra3kit.verify.sandbox import sealed


def count_tests(problem: Problem) -> int:
    tests = problem.tests
    return 1 if isinstance(tests, Asserts) else len(tests.inputs)


def unfit(problem: Problem) -> str | None:
    """Why a problem can't tell right from wrong, None if it may."""
    tests = problem.tests
    if count_tests(problem) == 0:
        return f"{problem.id} has no tests"
    if isinstance(tests, (Calls, Streams)):
        expected = tests.expected if isinstance(tests, Calls) else tests.outputs
        if len(expected) != len(tests.inputs):
            return f"{problem.id} has {len(tests.inputs)} inputs and {len(expected)} expected answers"
    if isinstance(tests, Streams) and tests.checker is not None:
        return _unfit_checker(tests.checker)
    return None


def _unfit_checker(source: str) -> str | None:
    """A checker that executes what it is given would let a program accept itself."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"the checker does not parse: {error}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("eval", "exec", "compile", "__import__"):
            return f"the checker uses {node.id}(), with which a program's output could accept itself"
    return None


class Prepared:
    """A problem made ready once for many programs: what its processes read, and what right answers look like."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.users = 0
        self.file: int | None = None
        self.recorded: Prepared | None = None
        self.digest = b""
        tests = problem.tests
        if isinstance(tests, Calls):
            self.expected = [_golden(tests, index) for index in range(len(tests.inputs))]
            sent = b"".join(wire.encode((tests.entry_point, list(tests.inputs), problem.limits.call)))
            settings: Any = (tests.atol, tests.oracle, tests.exact, tests.base)
            self.golden = b"".join(frame or b"?" for frame in self.expected) + frames.pack(frames.DONE)
            self.whole = None not in self.expected
            self.tests = sent
            # where the reference differs from itself its bytes stand in no frame
            unclear = wire.encode(
                [value for value, frame in zip(tests.expected, self.expected, strict=True) if not frame]
            )
            contents = [sent, self.golden, *unclear]
        elif isinstance(tests, Asserts):
            self.tests = asserts_payload(tests)
            settings = "asserts"
            contents = [self.tests]
            if (calls := tests.recorded) is not None and independent(tests.code, tests.entry_point, calls.entry_point):
                recorded = Prepared(Problem(problem.id, calls, limits=problem.limits))
                if recorded.whole:  # a NaN among the answers equals nothing
                    self.recorded = recorded
                    contents.append(recorded.digest)
        else:
            self.tests = b""
            settings = "streams"
            contents = list(wire.encode((list(tests.inputs), list(tests.outputs), tests.checker)))
        hasher = hashlib.sha256(repr((settings, problem.limits)).encode())
        for content in contents:
            hasher.update(len(content).to_bytes(8, "little"))
            hasher.update(content)
        self.digest = hasher.digest()

    def tests_file(self) -> int:
        """A sealed memory file with the tests, made when first needed."""
        if self.file is None:
            self.file = sealed(self.tests)
        return self.file

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None
        if self.recorded is not None:
            self.recorded.close()


def asserts_payload(tests: Asserts, record: bool = False) -> bytes:
    """What a referee needs to run tests against a served program."""
    return b"".join(wire.encode((tests.code, tests.entry_point, tests.setup, record, [], [])))


def may_hold_nan(payload: bytes) -> bool:
    """Whether there are bytes as a NaN's last two."""
    return b"\xf8\x7f" in payload or b"\xf8\xff" in payload


def _golden(tests: Calls, index: int) -> bytes | None:
    """The frame an exactly right answer makes; None where even that has to be looked at (NaN differs from itself)."""
    value = tests.expected[index]
    if isinstance(value, wire.Packed):
        return frames.digest(value.digest, value.size)
    kind, payload = wire.encode(value)
    if tests.oracle is not None or kind == wire.TREE or may_hold_nan(payload):
        try:
            again, arguments = wire.own(kind, payload), tests.inputs[index]
            if not compare.accepts(again, value, arguments, tests.atol, tests.oracle, tests.exact):
                return None
        except (TypeError, ValueError, ArithmeticError):  # the oracle doesn't apply to the expected value itself
            return None
    return frames.answer(kind, payload, frames.LONG)
