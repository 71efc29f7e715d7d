"""The verdict on one program: run it, compare bytes, ask a referee where they differ.

This process never parses what a program wrote. A referee does, a confined process that holds no secret but the answer
it compares.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ra3kit.verify.jail import compare, frames, wire
from ra3kit.verify.prepared import Prepared
from ra3kit.verify.problem import Asserts, Calls, Status, Streams, Verdict
from ra3kit.verify.sandbox import Ended, Job, Sandbox, sealed

REFEREE_SECONDS = 3.0
_REFEREE_BYTES_PER_SECOND = 1 << 21  # what it decodes and compares, with room
REFEREE_MEMORY = 1 << 30
_REPORT_BYTES = 1 << 22
_LAST_WORDS = 0.5  # seconds a program has to end after its tests have


async def judge(sandbox: Sandbox, source: bytes, prepared: Prepared, early: bool) -> Verdict:
    """The verdict on one program.

    Raises:
        SandboxLost: our own failure.
    """
    tests = prepared.problem.tests
    if isinstance(tests, Calls):
        return await _judge_calls(sandbox, source, prepared, tests, early)
    if isinstance(tests, Asserts):
        return await _judge_asserts(sandbox, source, prepared)
    return await _judge_streams(sandbox, source, prepared, tests, early)


def _program_job(kind: Any, files: Sequence[bytes | int], prepared: Prepared, early: bool = False) -> Job:
    limits = prepared.problem.limits
    return Job(kind, files, limits.time, limits.memory << 20, limits.output, limits.threads, stop_early=early)


_WORN_OUT = {"right": [], "failure": {"error": "the answer could not be compared within the referee's limits"}}


async def _referee(sandbox: Sandbox, kind: Any, value: Any, worn_out: dict[str, Any] = _WORN_OUT) -> dict[str, Any]:
    """Ask a referee. A referee that a hostile answer wore out says the answer is wrong."""
    payload = b"".join(wire.encode(value))
    seconds = REFEREE_SECONDS + len(payload) / _REFEREE_BYTES_PER_SECOND
    job = Job(kind, [payload], seconds, REFEREE_MEMORY + 4 * len(payload), _REPORT_BYTES, trusted=True)
    ended = await sandbox.run(job)
    if ended.code == 0 and ended.data:
        report: dict[str, Any] = json.loads(ended.data)
        return report
    return worn_out


def _end_status(ended: Ended) -> tuple[Status, str]:
    """What a process's end says where its answers say nothing."""
    if ended.overflow:
        return "fail", "it wrote more than its output limit"
    if ended.killed in ("time", "wall"):
        what = "CPU" if ended.killed == "time" else "wall clock"
        return "timeout", f"out of {what} time after {ended.seconds:.1f} CPU seconds"
    if ended.killed == "threads":
        return "crash", "it had more threads than allowed"
    if ended.code == -24:
        return "timeout", "out of CPU time"
    if ended.code < 0:
        return "crash", f"ended by signal {-ended.code}"
    return "crash", f"ended with exit code {ended.code} before it had answered"


def _too_long(expected: Any) -> bool:
    """Whether only the digest of an expected value is known."""
    return isinstance(expected, wire.Packed) and expected.content is None


_VALUES = (wire.PLAIN, wire.TREE)
_FRAME_STATUS: dict[bytes, Status] = {frames.CALL_TIME: "timeout", frames.MEMORY: "memory"}


@dataclass
class _Answers:
    """What is known of a program's answers so far."""

    right: dict[int, bool]
    status: dict[int, Status]
    failure: dict[int, dict[str, Any]]


async def _judge_calls(sandbox: Sandbox, source: bytes, prepared: Prepared, tests: Calls, early: bool) -> Verdict:
    """Long answers come as digests at first; if one of them isn't the right one, the program runs again and shows
    it."""
    try:
        return await _judge_calls_once(sandbox, source, prepared, tests, early, frames.LONG)
    except _DigestDiffers as first:
        verdict = await _judge_calls_once(sandbox, source, prepared, tests, early, frames.HUGE)
        return replace(verdict, seconds=verdict.seconds + first.seconds)


class _DigestDiffers(Exception):
    """A long answer isn't byte for byte the expected one."""

    seconds = 0.0


async def _judge_calls_once(
    sandbox: Sandbox, source: bytes, prepared: Prepared, tests: Calls, early: bool, long: int
) -> Verdict:
    total = len(tests.inputs)
    answers = _Answers({}, {}, {})
    job = _program_job("calls", [source, prepared.tests_file()], prepared, early)
    job.long = long
    if early and prepared.whole:
        ended = await _run_early(sandbox, job, prepared, tests, answers)
    else:
        ended = await sandbox.run(job)
    if prepared.whole and ended.data == prepared.golden:
        return Verdict("pass", passed=total, total=total, base=_base(tests, None), seconds=ended.seconds)
    found, _ = frames.unpack(ended.data, total + 1)
    if found[:1] and found[0].kind in (frames.LOAD_ERROR, frames.MEMORY) and len(found) == 1:
        return _not_loaded(found[0], total, tests, ended.seconds)
    try:
        await _look_at(sandbox, found[:total], prepared, tests, answers, early, long)
    except _DigestDiffers as differs:
        differs.seconds = ended.seconds
        raise
    return _conclude(found, answers, tests, ended, early)


def _not_loaded(frame: frames.Frame, total: int, tests: Calls, seconds: float) -> Verdict:
    message = frame.payload.decode("utf-8", "replace")
    status: Status = "memory" if frame.kind == frames.MEMORY else "fail"
    reason = "out of memory before the first test" if status == "memory" else f"the program did not load: {message}"
    return Verdict(status, reason, 0, total, _base(tests, status), {"error": message} if message else {}, seconds)


async def _look_at(
    sandbox: Sandbox,
    found: Sequence[frames.Frame],
    prepared: Prepared,
    tests: Calls,
    answers: _Answers,
    early: bool,
    long: int,
) -> None:
    """Sort the answers: right by their bytes, wrong by their kind, and the rest to a referee."""
    if early and False in answers.right.values():
        return
    unclear = []
    for index, frame in enumerate(found):
        if index in answers.right:
            continue
        if prepared.expected[index] in (frames.pack(*frame), frames.answer(*frame, frames.LONG)):
            answers.right[index] = True
        elif frame.kind == frames.DIGEST and long < frames.HUGE and not _too_long(tests.expected[index]):
            raise _DigestDiffers
        elif frame.kind == frames.DIGEST or (frame.kind in _VALUES and _too_long(tests.expected[index])):
            answers.right[index] = False
            answers.failure[index] = {"error": "wrong answer, too long to show"}
        elif frame.kind in _VALUES:
            unclear.append(index)
        else:
            answers.right[index] = False
            answers.status[index] = _FRAME_STATUS.get(frame.kind, "fail")
            if frame.payload:
                answers.failure[index] = {"error": frame.payload.decode("utf-8", "replace")}
            if early:
                break
    size = 1 if early else len(unclear)
    while unclear:
        batch, unclear = unclear[:size], unclear[size:]
        items = [(tests.inputs[i], wire.unpacked(tests.expected[i]), *found[i]) for i in batch]
        report = await _referee(sandbox, "compare", (tests.atol, tests.oracle, tests.exact, items))
        right = report["right"] or [False] * len(batch)
        answers.right.update(zip(batch, right, strict=True))
        if False in right:
            first = batch[right.index(False)]
            answers.failure.setdefault(first, report["failure"])
            if early:
                return
        size *= _BATCH_GROWTH  # most wrong programs are wrong at once; right ones shall not wait for many referees


_BATCH_GROWTH = 16


def _conclude(found: Sequence[frames.Frame], answers: _Answers, tests: Calls, ended: Ended, early: bool) -> Verdict:
    total = len(tests.inputs)
    passed = sum(answers.right.values())
    wrong = next((index for index in range(total) if not answers.right.get(index, False)), None)
    if wrong is None:
        return Verdict("pass", "", passed, total, _base(tests, None), {}, ended.seconds)
    shown = answers.failure.get(wrong, {})
    if wrong not in answers.right:
        status, reason = _end_status(ended)
    else:
        status = answers.status.get(wrong, "fail")
        reason = {"timeout": "out of the call's CPU time", "memory": "out of memory"}.get(status, "wrong answer")
        if "got" not in shown:
            reason = shown.get("error", reason)
    reason = f"test {wrong}: {reason}"
    failure = {"test": wrong, "input": compare.short(tests.inputs[wrong]), **shown}
    failure.setdefault("expected", compare.short(tests.expected[wrong]))
    base_count = total if tests.base is None else tests.base
    base: Status | None = status if wrong < base_count else "pass"
    return Verdict(status, reason, passed, total, base if tests.base is not None else None, failure, ended.seconds)


def _base(tests: Calls, status: Status | None) -> Status | None:
    """The verdict on the base tests where all tests share one: None passes."""
    return None if tests.base is None else status or "pass"


class _Progress:
    """Follows a stream of frames against the right one, to see the first difference as soon as it is there."""

    def __init__(self, golden: bytes):
        self.golden = golden
        self.agreed = 0
        self.differs = asyncio.Event()
        self.pieces: list[bytes] = []

    def see(self, piece: bytes) -> None:
        self.pieces.append(piece)
        if not self.differs.is_set():
            if self.golden.startswith(piece, self.agreed):
                self.agreed += len(piece)
            else:
                self.differs.set()


async def _run_early(sandbox: Sandbox, job: Job, prepared: Prepared, tests: Calls, answers: _Answers) -> Ended:
    """Run the calls, and end them as soon as an answer is known to be wrong."""
    progress = _Progress(prepared.golden)
    stop = asyncio.Event()

    def see(piece: bytes) -> bool:
        progress.see(piece)
        return not stop.is_set()

    running = asyncio.create_task(sandbox.run(job, on_data=see))
    differing = asyncio.create_task(progress.differs.wait())
    try:
        await asyncio.wait({running, differing}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            found, _ = frames.unpack(b"".join(progress.pieces), len(tests.inputs) + 1)
            await _look_at(sandbox, found[: len(tests.inputs)], prepared, tests, answers, True, job.long)
            if False in answers.right.values():
                stop.set()
                if not running.done():
                    running.cancel()
                    return await _stopped(running, progress)
        return await running
    finally:
        differing.cancel()
        if not running.done():
            running.cancel()


async def _stopped(running: asyncio.Task[Ended], progress: _Progress) -> Ended:
    """The end of a run that was no longer needed."""
    await asyncio.wait({running})
    if not running.cancelled() and running.exception() is None:
        return running.result()
    return Ended(b"".join(progress.pieces), 0, "asked", 0.0)


async def _judge_asserts(sandbox: Sandbox, source: bytes, prepared: Prepared) -> Verdict:
    """On a record if there is one: right by its bytes, or a replay to the tests; else tests and program together."""
    if prepared.recorded is None:
        return await _judge_live(sandbox, source, prepared)
    verdict = await _judge_recorded(sandbox, source, prepared, prepared.recorded)
    if verdict is None:  # what the tests asked was not in the record
        return await _judge_live(sandbox, source, prepared)
    return verdict


async def _judge_recorded(sandbox: Sandbox, source: bytes, prepared: Prepared, recorded: Prepared) -> Verdict | None:
    """None: the record can't tell."""
    tests, calls = prepared.problem.tests, recorded.problem.tests
    assert isinstance(tests, Asserts)
    assert isinstance(calls, Calls)
    job = _program_job("calls", [source, recorded.tests_file()], recorded)
    ended = await sandbox.run(job)
    if ended.data == recorded.golden:
        return Verdict("pass", "", 1, 1, None, {}, ended.seconds)
    found, _ = frames.unpack(ended.data, len(calls.inputs) + 1)
    if len(found) == 1 and found[0].kind in (frames.LOAD_ERROR, frames.MEMORY):
        return _not_loaded(found[0], 1, calls, ended.seconds)
    inputs = [wire.encode(list(arguments)) for arguments in calls.inputs]
    answers = [tuple(frame) for frame in found[: len(inputs)]]
    report = await _referee(
        sandbox, "asserts", (tests.code, tests.entry_point, tests.setup, False, inputs, answers), _LOST
    )
    if report["outcome"] == "deviates":
        return None
    return _conclude_asserts(report, ended)


_LOST = {"outcome": "lost", "failure": {"error": "the tests did not come to an end with its answers"}}


async def _judge_live(sandbox: Sandbox, source: bytes, prepared: Prepared) -> Verdict:
    """The program in one process, its tests in another, a socket between them."""
    served, tested = await serve_tests(sandbox, _program_job("serve", [source], prepared), prepared.tests_file())
    report = json.loads(tested.data) if tested.code == 0 and tested.data else _LOST
    return _conclude_asserts(report, served)


async def serve_tests(sandbox: Sandbox, program: Job, tests: bytes | int) -> tuple[Ended, Ended]:
    """How the program's process and the tests' process ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    tests_end, program_end = ours.detach(), theirs.detach()
    serving = asyncio.create_task(sandbox.run(program, channel=program_end))
    seconds = REFEREE_SECONDS + program.seconds
    try:
        testing = Job("asserts", [tests], seconds, REFEREE_MEMORY, _REPORT_BYTES, trusted=True)
        tested = await sandbox.run(testing, channel=tests_end)
        await asyncio.wait({serving}, timeout=_LAST_WORDS)
        if serving.done():
            return serving.result(), tested
        return Ended(b"", 0, "asked", 0.0), tested  # it goes on without anyone listening
    finally:
        serving.cancel()


def _conclude_asserts(report: dict[str, Any], ended: Ended) -> Verdict:
    outcome, failure = report["outcome"], {key: value for key, value in report["failure"].items() if value}
    if outcome == "pass":
        return Verdict("pass", "", 1, 1, None, {}, ended.seconds)
    if outcome == "gone" or (outcome == "lost" and ended.killed in ("time", "wall")):
        status, reason = _end_status(ended)
    elif outcome == "memory":
        status, reason = "memory", "out of memory"
    elif outcome == "time":
        status, reason = "timeout", "out of a call's CPU time"
    elif outcome == "broken":
        status, reason = "refused", f"the tests can't be run: {failure['error']}"
    elif outcome == "load":
        status, reason = "fail", f"the program did not load: {failure.get('error', '')}"
    elif outcome == "nonsense":
        status, reason = "fail", "the program's process answered what its harness never writes"
    else:
        status, reason = "fail", failure.get("error") or f"failed: {failure.get('test', 'a test')}"
    return Verdict(status, reason, 0, 1, None, failure, ended.seconds)


async def _judge_streams(sandbox: Sandbox, source: bytes, prepared: Prepared, tests: Streams, early: bool) -> Verdict:
    """A fresh process for each test. Ends after the first that isn't passed when stopping early, or on a timeout."""
    program = sealed(source)
    total, passed, seconds = len(tests.inputs), 0, 0.0
    first: Verdict | None = None
    try:
        for index, (given, expected) in enumerate(zip(tests.inputs, tests.outputs, strict=True)):
            ended = await sandbox.run(_program_job("stream", [program, given.encode()], prepared))
            seconds += ended.seconds
            status, reason, failure = await _judge_stream(sandbox, ended, given, expected, tests.checker)
            if status == "pass":
                passed += 1
                continue
            if first is None:
                failure = {"test": index, "input": given[:400], **failure}
                first = Verdict(status, f"test {index}: {reason}", 0, total, None, failure)
            if early or status == "timeout":
                break
    finally:
        os.close(program)
    return replace(first or Verdict("pass", total=total), passed=passed, seconds=seconds)


async def _judge_stream(
    sandbox: Sandbox, ended: Ended, given: str, expected: str, checker: str | None
) -> tuple[Status, str, dict[str, Any]]:
    if ended.overflow or ended.killed or ended.code < 0:
        status, reason = _end_status(ended)
        return status, reason, {}
    if ended.code == frames.SCRIPT_MEMORY:
        return "memory", "out of memory", {}
    if ended.code == frames.SCRIPT_ERROR:
        error = _script_error(ended.data)
        return "fail", error, {"error": error}
    if ended.code:
        return "fail", f"exit status {ended.code}", {}
    shown = {"expected": expected[:400], "got": ended.data[:400].decode("utf-8", "replace")}
    if checker is not None:
        report = await _referee(sandbox, "checker", (checker, given, expected, ended.data))
    elif _stripped(ended.data) == _stripped(expected.encode()):
        return "pass", "", {}
    else:
        report = await _referee(sandbox, "lines", (ended.data, expected))
    if report["right"] == [True]:
        return "pass", "", {}
    return "fail", "wrong output", {**shown, **report["failure"]}


def _stripped(data: bytes) -> list[bytes]:
    return [line.strip() for line in data.strip().splitlines()]


def _script_error(data: bytes) -> str:
    size = int.from_bytes(data[-4:], "little")
    return data[-4 - size : -4].decode("utf-8", "replace") if 0 < size <= frames.MAX_MESSAGE else "an exception"
