"""Expected values from reference solutions: run in the sandbox once, kept on disk by their content."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ra3kit.errors import DataError
from ra3kit.progress import track
from ra3kit.verify import isolation as walls_of
from ra3kit.verify.isolation import Isolation
from ra3kit.verify.jail import frames, wire
from ra3kit.verify.judging import serve_tests
from ra3kit.verify.prepared import asserts_payload, may_hold_nan
from ra3kit.verify.probe import first_that_holds
from ra3kit.verify.problem import Asserts, Calls, Limits, Problem
from ra3kit.verify.recording import independent
from ra3kit.verify.sandbox import Ended, Job, Sandbox
from ra3kit.verify.verifier import run_async

GOLD_SECONDS = 120.0
GOLD_MEMORY, GOLD_OUTPUT = 8 << 30, 1 << 28
CALL_SECONDS, CALL_FACTOR = 4.0, 4.0
"""evalplus's limits for one call: four seconds, or four times what the reference takes."""
LEAST_SECONDS, MOST_SECONDS = 20.0, 60.0
FEW = 20
"""Solutions run without showing progress."""
_VERSION = b"3"


def complete(
    problems: Sequence[Problem],
    failed: dict[str, str] | None = None,
    isolation: Isolation = "auto",
) -> list[Problem]:
    """Problems with what their `solution` answers.

    `Calls` get their expected values and limits by the time the solution takes; `Asserts` get the record of the calls
    they make of it. Problems that have these already, or no solution, are returned as they are.

    Args:
        failed: collects the problems whose solution fails (id -> reason), which are then left out. None: they are an
            error.
        isolation: as for `Verifier`.

    Raises:
        DataError: a solution fails and `failed` is None; all such problems are named.
        NoSandbox: no isolation holds here.
    """
    wanting = [problem for problem in problems if _wants(problem)]
    found = run_async(_answers(wanting, isolation))
    broken = {key: answer.error for key, answer in found.items() if answer.error}
    if broken and failed is None:
        raise DataError(f"Reference solutions that fail: {'; '.join(f'{key}: {why}' for key, why in broken.items())}")
    if failed is not None:
        failed.update(broken)
    return [
        _filled(problem, found[problem.id]) if problem.id in found else problem
        for problem in problems
        if problem.id not in broken
    ]


def _wants(problem: Problem) -> bool:
    tests = problem.tests
    if problem.solution is None:
        return False
    if isinstance(tests, Calls):
        return len(tests.expected) != len(tests.inputs)
    return isinstance(tests, Asserts) and tests.recorded is None


def cache_folder() -> Path:
    """Where answers are kept: `expected/` in `RA3KIT_CACHE`, or in `~/.cache/ra3kit`."""
    return Path(os.environ.get("RA3KIT_CACHE") or Path.home() / ".cache" / "ra3kit") / "expected"


@dataclass(frozen=True)
class _Answer:
    """What a reference solution answered: its CPU seconds and a value, or why there is none.

    The value is the expected values of `Calls`; of `Asserts` None or (entry point, inputs, answers).
    """

    seconds: float
    value: Any = None
    error: str = ""


async def _answers(problems: Sequence[Problem], isolation: Isolation) -> dict[str, _Answer]:
    found: dict[str, _Answer] = {}
    missing: list[tuple[Problem, Path]] = []
    for problem in problems:
        digest = hashlib.sha256(_VERSION + (problem.solution or "").encode() + b"\0" + _sent(problem)).hexdigest()
        path = cache_folder() / digest[:2] / digest
        try:
            found[problem.id] = _recall(path.read_bytes())
        except FileNotFoundError:
            missing.append((problem, path))
    if not missing:
        return found
    waiting = iter(missing)
    view = walls_of.readable()

    async def work(on_done: Callable[[], None]) -> None:
        sandbox, _ = await first_that_holds(view, isolation)
        try:
            for problem, path in waiting:
                found[problem.id] = answer = await _run(sandbox, problem)
                if not answer.error:
                    _keep(path, answer)
                on_done()
        finally:
            sandbox.close()

    with track(len(missing), "reference solutions") if len(missing) > FEW else nullcontext(lambda: None) as on_done:
        await asyncio.gather(*(work(on_done) for _ in range(min(len(missing), len(os.sched_getaffinity(0))))))
    return found


def _sent(problem: Problem) -> bytes:
    tests = problem.tests
    if isinstance(tests, Asserts):
        return asserts_payload(tests, record=True)
    assert isinstance(tests, Calls)
    return b"".join(wire.encode((tests.entry_point, list(tests.inputs), None)))


async def _run(sandbox: Sandbox, problem: Problem) -> _Answer:
    source = (problem.solution or "").encode()
    if isinstance(problem.tests, Asserts):
        job = Job("serve", [source], GOLD_SECONDS, GOLD_MEMORY, GOLD_OUTPUT, threads=problem.limits.threads)
        served, tested = await serve_tests(sandbox, job, _sent(problem))
        return _recorded(json.loads(tested.data) if tested.data else None, served.seconds)
    job = Job("calls", [source, _sent(problem)], GOLD_SECONDS, GOLD_MEMORY, GOLD_OUTPUT, problem.limits.threads)
    job.long = frames.HUGE
    return _expected(await sandbox.run(job), len(problem.tests.inputs))


def _expected(ended: Ended, count: int) -> _Answer:
    found, _ = frames.unpack(ended.data, count + 1)
    values: list[Any] = []
    for index, frame in enumerate(found[:count]):
        if frame.kind not in (wire.PLAIN, wire.TREE, frames.DIGEST):
            said = frame.payload.decode("utf-8", "replace") or frame.kind.decode()
            return _Answer(ended.seconds, error=f"input {index}: {said}")
        try:
            values.append(_kept(frame))
        except wire.WireError as error:
            return _Answer(ended.seconds, error=f"input {index}: its answer can't be read: {error}")
    if len(values) != count:
        return _Answer(ended.seconds, error=f"{len(values)} of {count} inputs answered, then exit code {ended.code}")
    return _Answer(ended.seconds, values)


def _kept(frame: frames.Frame) -> Any:
    """A value as it is kept: a long one packed, for HumanEval+ alone has hundreds of megabytes of them."""
    if frame.kind == frames.DIGEST:
        return wire.Packed(frame.payload[:32], int.from_bytes(frame.payload[32:], "little"), None)
    value = wire.decode(*frame)
    if frame.kind == wire.PLAIN and len(frame.payload) >= frames.LONG and not may_hold_nan(frame.payload):
        return wire.packed(frame.payload)
    return value


def _recorded(report: dict[str, Any] | None, seconds: float) -> _Answer:
    if report is None:
        return _Answer(seconds, error="the tests came to no end")
    if report["outcome"] != "pass":
        return _Answer(seconds, error=f"{report['outcome']}: {report['failure']}"[:500])
    if report["record"] is None:
        return _Answer(seconds)
    name, calls = wire.own(wire.PLAIN, base64.b64decode(report["record"]))
    values = [(wire.decode(kind, sent), wire.decode(*answer)) for kind, sent, *answer in calls]
    if any(wire.holds_opaque(kind, payload) for _, _, kind, payload in calls):
        return _Answer(seconds)  # an answer that stays in the program's process can't be compared by bytes
    return _Answer(seconds, (name, [sent for sent, _ in values], [answer for _, answer in values]))


def _keep(path: Path, answer: _Answer) -> None:
    """Values read by our own decoder are written again in a form that is read fast."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"%.6f\n" % answer.seconds + b"".join(wire.encode(answer.value)))
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"expected values are not cached: {error}. Set RA3KIT_CACHE to a writable folder.", stacklevel=2)


def _recall(data: bytes) -> _Answer:
    seconds, _, value = data.partition(b"\n")
    return _Answer(float(seconds), wire.own(value[:1], value[1:]))


def _filled(problem: Problem, answer: _Answer) -> Problem:
    tests = problem.tests
    if isinstance(tests, Asserts):
        if answer.value is None or not independent(tests.code, tests.entry_point, answer.value[0]):
            return problem
        name, inputs, values = answer.value
        return replace(problem, tests=replace(tests, recorded=Calls(name, tuple(inputs), tuple(values))))
    assert isinstance(tests, Calls)
    limits = problem.limits
    if limits == Limits():  # those evalplus would give it
        limits = replace(
            limits,
            time=min(MOST_SECONDS, max(LEAST_SECONDS, 10 * answer.seconds)),
            call=max(CALL_SECONDS, CALL_FACTOR * answer.seconds),
            memory=GOLD_MEMORY >> 20 if any(map(_is_huge, answer.value)) else limits.memory,
            output=limits.output + 2 * _size(answer.value),
        )
    expected = tuple(answer.value)
    if tests.oracle is not None:
        expected = tuple(map(wire.unpacked, expected))
    if tests.oracle == "not_none":  # only this is asked, and a re.Match can't leave its process
        expected = tuple(value if isinstance(value, bool) else value is not None for value in expected)
    return replace(problem, tests=replace(tests, expected=expected), limits=limits)


def _is_huge(value: Any) -> bool:
    return isinstance(value, wire.Packed) and value.content is None


def _size(values: Sequence[Any]) -> int:
    """Bytes of all answers on the wire, those of which only the digest travels left out."""
    return sum(
        0 if _is_huge(value) else value.size if isinstance(value, wire.Packed) else len(wire.encode(value)[1])
        for value in values
    )
