"""The verifier beside generation: programs are judged in a thread of their own while the next answers are sampled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from threading import Thread
from typing import Any

from ra3kit.ranges import check_number
from ra3kit.verify.isolation import Isolation
from ra3kit.verify.prepared import count_tests
from ra3kit.verify.problem import Problem, Verdict
from ra3kit.verify.verifier import Verifier


class Judge:
    """A `Verifier` that judges while its caller does something else.

    Programs run in the verifier's confined processes; the thread here only passes messages. Use it as a context, or
    call `open` and `close`.

    Args:
        workers: programs at a time; None: the processors there are.
        deadline: seconds that `wait` waits for the verdicts of one step, > 0. What isn't judged by then is reported as
            "internal": it was not proved wrong.
        isolation, packages: of the verifier.

    Raises:
        RecipeError: a number out of range.
    """

    def __init__(
        self,
        workers: int | None = None,
        deadline: float = 300.0,
        isolation: Isolation = "auto",
        packages: tuple[str, ...] = ("numpy",),
    ):
        check_number("judge.workers", workers, least=1, whole=True, optional=True)
        check_number("judge.deadline", deadline, above=0)
        self.deadline = deadline
        self._settings: dict[str, Any] = {
            "workers": workers,
            "isolation": isolation,
            "packages": packages,
        }
        self._loop: asyncio.AbstractEventLoop | None = None
        self._verifier: Verifier | None = None

    def open(self) -> Judge:
        """Start it.

        Raises:
            NoSandbox: no isolation holds here; nothing is run.
        """
        if self._loop is None:
            loop = asyncio.new_event_loop()
            self._thread = Thread(target=loop.run_forever, name="judge", daemon=True)
            self._thread.start()
            self._loop = loop
            try:
                self._verifier = self._run(self._entered())
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """End it and all its processes; what is still being judged is given up."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        if self._verifier is not None:
            asyncio.run_coroutine_threadsafe(self._verifier.__aexit__(), loop).result()
            self._verifier = None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def __enter__(self) -> Judge:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def label(self) -> str:
        """What holds the programs, as in "landlock+seccomp+namespaces"."""
        return "" if self._verifier is None else self._verifier.label

    def submit(self, program: str, problem: Problem, stop_early: bool = True) -> Future[Verdict]:
        """Begin to judge a program as soon as a worker is free.

        Args:
            stop_early: stop at its first failing test: enough for a reward of all or nothing.
        """
        self.open()
        assert self._loop is not None
        assert self._verifier is not None
        return asyncio.run_coroutine_threadsafe(self._verifier.verify(program, problem, stop_early), self._loop)

    def wait(self, futures: Sequence[tuple[Future[Verdict], Problem]]) -> list[Verdict]:
        """The verdicts, in order; at most `deadline` seconds from now, then "internal" for what is still open."""
        end = time.monotonic() + self.deadline
        return [self._verdict(future, problem, end) for future, problem in futures]

    def _verdict(self, future: Future[Verdict], problem: Problem, end: float) -> Verdict:
        try:
            return future.result(max(0.0, end - time.monotonic()))
        except NotInTime:
            future.cancel()
            why = f"not judged within the step's {self.deadline:g} s"
            return Verdict("internal", why, total=count_tests(problem), isolation=self.label)

    async def _entered(self) -> Verifier:
        return await Verifier(**self._settings).__aenter__()

    def _run(self, work: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _cancel_all() -> None:
    """Cancel every task of the loop but this one, and wait for their ends."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
