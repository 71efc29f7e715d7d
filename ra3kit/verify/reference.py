"""Expected values from reference solutions: run in the sandbox once, kept on disk by their content."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ra3kit.errors import DataError
from ra3kit.verify import isolation as walls_of
from ra3kit.verify.isolation import Isolation
from ra3kit.verify.jail import frames, wire
from ra3kit.verify.problem import Calls, Limits, Problem
from ra3kit.verify.sandbox import Job
from ra3kit.verify.verifier import first_that_holds, run_async

GOLD_SECONDS = 120.0
GOLD_MEMORY = 4 << 30
CALL_SECONDS, CALL_FACTOR = 4.0, 4.0
"""evalplus's limits for one call: four seconds, or four times what the reference takes."""
LEAST_SECONDS, MOST_SECONDS = 20.0, 60.0
_VERSION = b"1"


def complete(
    problems: Sequence[Problem], failed: dict[str, str] | None = None, isolation: Isolation = "auto"
) -> list[Problem]:
    """Problems with `Calls` whose expected values are what their `solution` returns, and limits by the time it takes.

    Args:
        problems: those with other tests, or with expected values, are returned as they are.
        failed: collects the problems whose solution fails (id -> reason), which are then left out. None: they are an error.
        isolation: as for `Verifier`.

    Raises:
        DataError: a solution fails and `failed` is None; all such problems are named.
        NoSandbox: no isolation holds here.
    """
    broken: dict[str, str] = {}
    found = run_async(_answers([p for p in problems if _lacks_expected(p)], isolation))
    completed = []
    for problem in problems:
        if problem.id not in found:
            completed.append(problem)
            continue
        try:
            completed.append(_filled(problem, found[problem.id]))
        except DataError as error:
            broken[problem.id] = str(error)
    if broken and failed is None:
        raise DataError(f"Reference solutions that fail: {'; '.join(f'{id}: {why}' for id, why in broken.items())}")
    if failed is not None:
        failed.update(broken)
    return completed


def _lacks_expected(problem: Problem) -> bool:
    return isinstance(problem.tests, Calls) and len(problem.tests.expected) != len(problem.tests.inputs)


def cache_folder() -> Path:
    """Where expected values are kept: `$XDG_CACHE_HOME/ra3kit/expected`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ra3kit" / "expected"


async def _answers(problems: Sequence[Problem], isolation: Isolation) -> dict[str, bytes]:
    """id -> CPU seconds (text, a line) and frames."""
    found: dict[str, bytes] = {}
    missing: list[tuple[Problem, bytes, Path]] = []
    for problem in problems:
        tests = _sent(problem)
        digest = hashlib.sha256(_VERSION + (problem.solution or "").encode() + b"\0" + tests).hexdigest()
        path = cache_folder() / digest[:2] / digest
        try:
            found[problem.id] = path.read_bytes()
        except FileNotFoundError:
            missing.append((problem, tests, path))
    if not missing:
        return found
    sandbox, _ = await first_that_holds(walls_of.readable(), isolation)
    try:
        for problem, tests, path in missing:
            source = (problem.solution or "").encode()
            job = Job("calls", [source, tests], GOLD_SECONDS, GOLD_MEMORY, 1 << 28, threads=problem.limits.threads)
            ended = await sandbox.run(job)
            found[problem.id] = b"%.6f %d\n" % (ended.seconds, ended.code) + ended.data
            if ended.data.endswith(frames.pack(frames.DONE)):
                await asyncio.to_thread(_keep, path, found[problem.id])
    finally:
        sandbox.close()
    return found


def _sent(problem: Problem) -> bytes:
    tests = problem.tests
    assert isinstance(tests, Calls)
    return b"".join(wire.encode((tests.entry_point, list(tests.inputs), None)))


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _filled(problem: Problem, answer: bytes) -> Problem:
    tests = problem.tests
    assert isinstance(tests, Calls)
    head, _, data = answer.partition(b"\n")
    seconds = float(head.split()[0])
    found, _ = frames.unpack(data)
    expected: list[Any] = []
    for index, frame in enumerate(found[: len(tests.inputs)]):
        if frame.kind not in (wire.PLAIN, wire.TREE):
            said = frame.payload.decode("utf-8", "replace") or frame.kind.decode()
            raise DataError(f"input {index}: {said}")
        expected.append(wire.decode(*frame))
    if len(expected) != len(tests.inputs):
        raise DataError(f"{len(expected)} of {len(tests.inputs)} inputs answered, then exit code {head.split()[1].decode()}")
    limits = replace(
        problem.limits,
        time=min(MOST_SECONDS, max(LEAST_SECONDS, 10 * seconds)),
        call=max(CALL_SECONDS, CALL_FACTOR * seconds),
    )
    if problem.limits != Limits():
        limits = problem.limits
    return replace(problem, tests=replace(tests, expected=tuple(expected)), limits=limits)
