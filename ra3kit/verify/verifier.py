"""The judge: runs programs in the sandbox, compares what they answered, says what became of them.

This process never runs a program and never parses what one wrote. It compares bytes; where they differ, a referee, a
confined process that holds no secret but the answer it compares, decides.
"""

from __future__ import annotations

import ast
import asyncio
import collections
import hashlib
import json
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ra3kit.verify import isolation as walls_of
from ra3kit.verify.isolation import Isolation, NoSandbox
from ra3kit.verify.jail import compare, frames, wire
from ra3kit.verify.problem import JUDGED, Asserts, Calls, Problem, Status, Streams, Verdict
from ra3kit.verify.recording import independent
from ra3kit.verify.sandbox import Ended, Job, Sandbox, SandboxLost, sealed

MAX_PROGRAM = 4 * 2**20
"""Bytes of source; longer programs fail."""

ATTEMPTS = 3
REFEREE_SECONDS = 3.0
_REFEREE_BYTES_PER_SECOND = 1 << 21  # what it decodes and compares, with room
REFEREE_MEMORY = 1 << 30
_REPORT_BYTES = 1 << 22
_LAST_WORDS = 0.5  # seconds a program has to end after its tests have
_PREPARED = 128  # problems kept ready, a descriptor each
_CACHED = 100_000

T = TypeVar("T")


class Verifier:
    """Judges programs, several at a time.

    >>> async def rewards(pairs):
    ...     async with Verifier(stop_early=True) as verifier:
    ...         return await verifier.verify_batch(pairs, deadline=60)

    Args:
        workers: programs at a time; default: the processors there are.
        isolation: see `Isolation`.
        namespaces: whether to use namespaces where they can be had.
        stop_early: stop at the first failing test (for rewards); False runs all tests (for evaluation).
        packages: importable by programs besides the standard library.
        cache: whether a program already judged on the same tests gets its verdict from memory. Timeouts and our own
            failures are never remembered.
    """

    def __init__(
        self,
        workers: int | None = None,
        isolation: Isolation = "auto",
        namespaces: bool = True,
        stop_early: bool = False,
        packages: tuple[str, ...] = ("numpy",),
        cache: bool = True,
    ):
        self.workers = workers or len(os.sched_getaffinity(0))
        self.isolation = isolation
        self.namespaces = namespaces
        self.stop_early = stop_early
        self.view = walls_of.readable(packages)
        self.internal_errors: list[str] = []
        self._cache: collections.OrderedDict[bytes, Verdict] | None = collections.OrderedDict() if cache else None
        self._prepared: collections.OrderedDict[int, _Prepared] = collections.OrderedDict()
        self._idle: asyncio.Queue[_Slot] = asyncio.Queue()
        self._packages = [name.encode() for name in self.view.packages]
        self._backend: Isolation | None = None
        self.label = ""
        self.walls: dict[str, Any] = {}

    async def __aenter__(self) -> Verifier:
        """Raises NoSandbox when no isolation holds; then nothing is run."""
        self._slots = [_Slot() for _ in range(self.workers)]
        await self._server(self._slots[0], False)  # the others are started when they are needed
        for slot in self._slots:
            self._idle.put_nowait(slot)
        return self

    async def __aexit__(self, *_: object) -> None:
        for slot in self._slots:
            slot.close()
        for prepared in self._prepared.values():
            prepared.close()
        self._prepared.clear()

    async def _server(self, slot: _Slot, preload: bool) -> Sandbox:
        """The slot's server; one with the packages already imported costs every child more, so there are two kinds."""
        sandbox = slot.servers.get(preload)
        if sandbox is not None and sandbox.alive:
            return sandbox
        if sandbox is not None:
            sandbox.close()
        if self._backend is None:
            sandbox, self._backend = await first_that_holds(self.view, self.isolation, self.namespaces)
        else:
            sandbox = await Sandbox.start(self.view, self._backend, self.namespaces, preload)
        self.label, self.walls = sandbox.label, sandbox.walls
        slot.servers[preload] = sandbox
        return sandbox

    async def verify(self, program: str, problem: Problem, stop_early: bool | None = None) -> Verdict:
        """The verdict on one program; waits for a free worker. Never raises for what a program does."""
        early = self.stop_early if stop_early is None else stop_early
        if (why := unfit(problem)) is not None:
            return Verdict("refused", why, total=_count(problem))
        try:
            source = program.encode()
        except UnicodeEncodeError as error:
            return Verdict("fail", f"the program is not Unicode text: {error}", total=_count(problem))
        if len(source) > MAX_PROGRAM:
            why = f"the program has {len(source)} bytes, {MAX_PROGRAM} are allowed"
            return Verdict("fail", why, total=_count(problem))
        try:
            prepared = self._prepare(problem)
        except wire.WireError as error:
            return Verdict("refused", f"the tests of {problem.id} can't be sent: {error}", total=_count(problem))
        prepared.users += 1
        try:
            return await self._remembered(source, prepared, early)
        finally:
            prepared.users -= 1

    async def _remembered(self, source: bytes, prepared: _Prepared, early: bool) -> Verdict:
        key = hashlib.sha256(prepared.digest + bytes([early]) + source).digest()
        if self._cache is not None and (known := self._cache.get(key)) is not None:
            return replace(known, cached=True)
        verdict = await self._attempts(source, prepared, early)
        if self._cache is not None and verdict.status in JUDGED - {"timeout"}:
            self._cache[key] = verdict
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return verdict

    async def _attempts(self, source: bytes, prepared: _Prepared, early: bool) -> Verdict:
        """Our own failures are tried again on a new server, then reported as such."""
        why = ""
        preload = any(name in source for name in self._packages)
        for _ in range(ATTEMPTS):
            slot = await self._idle.get()
            try:
                sandbox = await self._server(slot, preload)
                return _for_people(await judge(sandbox, source, prepared, early), sandbox.label)
            except (SandboxLost, walls_of.WallsDown, NoSandbox, OSError, json.JSONDecodeError) as error:
                why = f"{type(error).__name__}: {error}"
                self.internal_errors.append(f"{prepared.problem.id}: {why}")
                slot.close()
            finally:
                self._idle.put_nowait(slot)
        return Verdict("internal", f"{why} ({ATTEMPTS} attempts)", total=_count(prepared.problem), isolation=self.label)

    def _prepare(self, problem: Problem) -> _Prepared:
        prepared = self._prepared.get(id(problem))
        if prepared is None:
            prepared = self._prepared[id(problem)] = _Prepared(problem)
            for key, old in list(self._prepared.items()):
                if len(self._prepared) <= _PREPARED:
                    break
                if not old.users and old is not prepared:
                    self._prepared.pop(key).close()
        else:
            self._prepared.move_to_end(id(problem))
        return prepared

    async def verify_batch(
        self,
        pairs: Sequence[tuple[str, Problem]],
        deadline: float | None = None,
        on_done: Callable[[int, Verdict], None] | None = None,
    ) -> list[Verdict]:
        """Verdicts in the order of `pairs`; `on_done(index, verdict)` as each is known.

        Args:
            deadline: seconds for the whole batch. What isn't judged by then is ended and reported as `internal`: it
                was not proved wrong.
        """
        results: list[Verdict | None] = [None] * len(pairs)
        waiting = iter(range(len(pairs)))

        async def work() -> None:
            for index in waiting:
                verdict = await self.verify(*pairs[index])
                results[index] = verdict
                if on_done is not None:
                    on_done(index, verdict)

        tasks = [asyncio.create_task(work()) for _ in range(min(self.workers, len(pairs)))]
        try:
            if tasks:
                done, _ = await asyncio.wait(tasks, timeout=deadline)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [result or self._late(index, pairs, deadline, on_done) for index, result in enumerate(results)]

    def _late(
        self,
        index: int,
        pairs: Sequence[tuple[str, Problem]],
        deadline: float | None,
        on_done: Callable[[int, Verdict], None] | None,
    ) -> Verdict:
        why = f"not judged within the batch's {deadline:g} s"
        verdict = Verdict("internal", why, total=_count(pairs[index][1]), isolation=self.label)
        if on_done is not None:
            on_done(index, verdict)
        return verdict


class _Slot:
    """Room for one program at a time: a fork server without and one with the packages."""

    def __init__(self) -> None:
        self.servers: dict[bool, Sandbox] = {}

    def close(self) -> None:
        servers, self.servers = self.servers, {}
        for sandbox in servers.values():
            sandbox.close()


def verify_all(
    pairs: Sequence[tuple[str, Problem]],
    *,
    workers: int | None = None,
    stop_early: bool = False,
    deadline: float | None = None,
    on_done: Callable[[int, Verdict], None] | None = None,
    isolation: Isolation = "auto",
    namespaces: bool = True,
    packages: tuple[str, ...] = ("numpy",),
) -> list[Verdict]:
    """`Verifier.verify_batch` for callers that aren't async: opens a verifier, judges, closes it.

    Raises:
        NoSandbox: no isolation holds here; nothing was run.
    """

    async def judge_all() -> list[Verdict]:
        async with Verifier(workers, isolation, namespaces, stop_early, packages) as verifier:
            return await verifier.verify_batch(pairs, deadline, on_done)

    return run_async(judge_all())


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop is already running (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def first_that_holds(
    view: walls_of.Readable, isolation: Isolation, namespaces: bool = True
) -> tuple[Sandbox, Isolation]:
    """A server behind the first walls that stand here, in the order of `Isolation`, and which they are.

    Raises:
        NoSandbox: none do; with what the kernel said about each.
    """
    if isolation == "none":
        return await Sandbox.start(view, "none"), "none"
    reasons: dict[str, str] = {}
    if isolation in ("auto", "landlock"):
        try:
            return await probed(await Sandbox.start(view, "landlock", namespaces)), "landlock"
        except walls_of.WallsDown as error:
            reasons |= error.reasons
    if isolation in ("auto", "bubblewrap"):
        if not walls_of.has_bubblewrap():
            reasons["bubblewrap"] = "not installed"
        else:
            try:
                return await probed(await Sandbox.start(view, "bubblewrap")), "bubblewrap"
            except walls_of.WallsDown as error:
                reasons |= error.reasons
            except SandboxLost as error:
                reasons["bubblewrap"] = str(error).splitlines()[-1]
    raise walls_of.refusal(reasons)


_PROBE = """
import os

def attempts():
    done = []
    for name, attempt in {
        "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "list a folder": lambda: os.listdir("/etc").index("passwd"),
        "write a file": lambda: os.open("/tmp/ra3kit-probe", os.O_WRONLY | os.O_CREAT),
        "see processes": lambda: os.listdir("/proc"),
        "make a process": lambda: os.fork() or os._exit(0),
        "open a socket": lambda: __import__("socket").socket(),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
    }.items():
        try:
            attempt()
            done.append(name)
        except (OSError, ValueError):
            pass
    import email.mime.text  # the standard library can be read
    return done
"""


async def probed(sandbox: Sandbox) -> Sandbox:
    """The same sandbox, after a program in it has tried what must not work.

    Raises:
        WallsDown: something worked.
    """
    tests = b"".join(wire.encode(("attempts", [()], None)))
    ended = await sandbox.run(Job("calls", [_PROBE.encode(), tests], 5.0, 1 << 28, 1 << 16))
    answers = frames.unpack(ended.data, 2)[0]
    nothing = frames.Frame(*wire.encode([]))
    if answers[:1] != [nothing]:
        sandbox.close()
        said = answers[0].payload.decode("utf-8", "replace") if answers else f"exit code {ended.code}"
        raise walls_of.WallsDown({"the probe": f"could do what it must not, or could not start: {said!r}"})
    return sandbox


def _count(problem: Problem) -> int:
    tests = problem.tests
    return 1 if isinstance(tests, Asserts) else len(tests.inputs)


def unfit(problem: Problem) -> str | None:
    """Why a problem can't tell right from wrong, None if it may."""
    tests = problem.tests
    if _count(problem) == 0:
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


def _for_people(verdict: Verdict, label: str) -> Verdict:
    """What a program wrote, without the characters that would steer a terminal."""
    failure = {key: _printable(value) if isinstance(value, str) else value for key, value in verdict.failure.items()}
    return replace(verdict, reason=_printable(verdict.reason), failure=failure, isolation=label)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class _Prepared:
    """A problem made ready once for many programs: what its processes read, and what right answers look like."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.users = 0
        self.file: int | None = None
        self.recorded: _Prepared | None = None
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
                recorded = _Prepared(Problem(problem.id, calls, limits=problem.limits))
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


async def judge(sandbox: Sandbox, source: bytes, prepared: _Prepared, early: bool) -> Verdict:
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


def _program_job(kind: Any, files: Sequence[bytes | int], prepared: _Prepared, early: bool = False) -> Job:
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


async def _judge_calls(sandbox: Sandbox, source: bytes, prepared: _Prepared, tests: Calls, early: bool) -> Verdict:
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
    sandbox: Sandbox, source: bytes, prepared: _Prepared, tests: Calls, early: bool, long: int
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
    prepared: _Prepared,
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


async def _run_early(sandbox: Sandbox, job: Job, prepared: _Prepared, tests: Calls, answers: _Answers) -> Ended:
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


async def _judge_asserts(sandbox: Sandbox, source: bytes, prepared: _Prepared) -> Verdict:
    """On a record if there is one: right by its bytes, or a replay to the tests; else tests and program together."""
    if prepared.recorded is None:
        return await _judge_live(sandbox, source, prepared)
    verdict = await _judge_recorded(sandbox, source, prepared, prepared.recorded)
    if verdict is None:  # what the tests asked was not in the record
        return await _judge_live(sandbox, source, prepared)
    return verdict


async def _judge_recorded(sandbox: Sandbox, source: bytes, prepared: _Prepared, recorded: _Prepared) -> Verdict | None:
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


async def _judge_live(sandbox: Sandbox, source: bytes, prepared: _Prepared) -> Verdict:
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


async def _judge_streams(sandbox: Sandbox, source: bytes, prepared: _Prepared, tests: Streams, early: bool) -> Verdict:
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
