"""The verifier: programs in, verdicts out, several at a time, whatever the programs do."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ra3kit.verify import isolation as walls_of
from ra3kit.verify.isolation import Isolation, NoSandbox
from ra3kit.verify.jail import wire
from ra3kit.verify.judging import judge
from ra3kit.verify.prepared import Prepared, count_tests, unfit
from ra3kit.verify.probe import first_that_holds
from ra3kit.verify.problem import JUDGED, Problem, Verdict
from ra3kit.verify.sandbox import Sandbox, SandboxLost

MAX_PROGRAM = 4 * 2**20
"""Bytes of source; longer programs fail."""

ATTEMPTS = 3
_PREPARED = 128  # problems kept ready, a descriptor each
_CACHED = 100_000

T = TypeVar("T")


class Verifier:
    """Judges programs, several at a time.

    The contract of whatever stands in its place: every program gets a `Verdict`, whatever it does, the same alone, in a
    batch and stopping early; answers are compared outside the program's process; a batch comes in the order of its
    pairs, each reported once; what was not judged is `internal` or `refused`, never a pass or a fail.
    `ra3kit.testing.check_verifier_backend` checks these.

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
        self._prepared: collections.OrderedDict[int, Prepared] = collections.OrderedDict()
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
            return Verdict("refused", why, total=count_tests(problem))
        try:
            source = program.encode()
        except UnicodeEncodeError as error:
            return Verdict("fail", f"the program is not Unicode text: {error}", total=count_tests(problem))
        if len(source) > MAX_PROGRAM:
            why = f"the program has {len(source)} bytes, {MAX_PROGRAM} are allowed"
            return Verdict("fail", why, total=count_tests(problem))
        try:
            prepared = self._prepare(problem)
        except wire.WireError as error:
            return Verdict("refused", f"the tests of {problem.id} can't be sent: {error}", total=count_tests(problem))
        prepared.users += 1
        try:
            return await self._remembered(source, prepared, early)
        finally:
            prepared.users -= 1

    async def _remembered(self, source: bytes, prepared: Prepared, early: bool) -> Verdict:
        key = hashlib.sha256(prepared.digest + bytes([early]) + source).digest()
        if self._cache is not None and (known := self._cache.get(key)) is not None:
            return replace(known, cached=True)
        verdict = await self._attempts(source, prepared, early)
        if self._cache is not None and verdict.status in JUDGED - {"timeout"}:
            self._cache[key] = verdict
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return verdict

    async def _attempts(self, source: bytes, prepared: Prepared, early: bool) -> Verdict:
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
        return Verdict(
            "internal", f"{why} ({ATTEMPTS} attempts)", total=count_tests(prepared.problem), isolation=self.label
        )

    def _prepare(self, problem: Problem) -> Prepared:
        prepared = self._prepared.get(id(problem))
        if prepared is None:
            prepared = self._prepared[id(problem)] = Prepared(problem)
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
        verdict = Verdict("internal", why, total=count_tests(pairs[index][1]), isolation=self.label)
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


def _for_people(verdict: Verdict, label: str) -> Verdict:
    """What a program wrote, without the characters that would steer a terminal."""
    failure = {key: printable(value) if isinstance(value, str) else value for key, value in verdict.failure.items()}
    return replace(verdict, reason=printable(verdict.reason), failure=failure, isolation=label)


def printable(text: str) -> str:
    """A text without the characters that would steer a terminal.

    >>> printable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
