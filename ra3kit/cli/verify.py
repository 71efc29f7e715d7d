"""Judge programs: one JSON record a line in, one JSON verdict a line out, as soon as it is known.

A record holds a program (`solution`, or `prompt` and `completion`) and its tests: `test` with `entry_point`, or
`inputs` with `expected` and `entry_point`, or `inputs` with `outputs` for standard input and output; `time_limit`
(CPU seconds) and `memory_limit` (MiB) if it likes. Programs run in a sandbox. The exit code is 0 whatever they do.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from ra3kit.errors import DataError
from ra3kit.verify import records
from ra3kit.verify.problem import Limits, Verdict
from ra3kit.verify.verifier import Verifier

EXAMPLES = """examples:
  ra3kit verify programs.jsonl > verdicts.jsonl
  producer | ra3kit verify --unordered | consumer       # a stream: no file named
  echo '{"solution": "def f(x): return 2 * x", "entry_point": "f", "inputs": [[3]], "expected": [6]}' | ra3kit verify
"""

_AHEAD = 4
"""Records read ahead per worker, so that a slow program doesn't starve the others and memory stays bounded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where programs come from, and how they are judged."""
    parser.add_argument("file", metavar="FILE.jsonl", nargs="?", help="default: standard input")
    parser.add_argument("--unordered", action="store_true", help="verdicts as they come, told apart by their id")
    parser.add_argument("--stop-early", action="store_true", help="stop at a program's first failing test")
    parser.add_argument("--workers", type=int, metavar="N", help="programs at a time (default: processors)")
    parser.add_argument(
        "--time-limit", type=float, default=Limits.time, metavar="S", help="CPU seconds, where not given"
    )
    parser.add_argument("--memory-limit", type=int, default=Limits.memory, metavar="MIB", help="MiB, where not given")
    parser.add_argument("--package", action="append", default=[], metavar="NAME", help="importable besides numpy")
    add_isolation(parser)


def add_isolation(parser: argparse.ArgumentParser) -> None:
    """Options of every verb that runs programs."""
    parser.add_argument(
        "--isolation",
        choices=("auto", "landlock", "bubblewrap"),
        default="auto",
        help="which walls (default: the first that hold here)",
    )
    parser.add_argument("--no-namespaces", action="store_true", help="do without namespaces where they could be had")
    parser.add_argument("--unsandboxed", action="store_true", help="no walls at all; recorded in every verdict")


def run(args: argparse.Namespace) -> int:
    """Judge to the end of the stream.

    Raises:
        NoSandbox: nothing was run. DataError: the file can't be read.
    """
    if args.workers is not None and args.workers < 1:
        raise DataError(f"--workers {args.workers}: at least 1")
    try:
        defaults = Limits(time=args.time_limit, memory=args.memory_limit)
    except ValueError as error:
        raise DataError(str(error)) from error
    verifier = Verifier(
        args.workers,
        "none" if args.unsandboxed else args.isolation,
        not args.no_namespaces,
        args.stop_early,
        ("numpy", *args.package),
    )
    with _source(args.file) as source:
        counts = asyncio.run(stream(source, sys.stdout, verifier, defaults, not args.unordered))
    print(summary(counts, verifier), file=sys.stderr)
    return 0


def _source(file: str | None) -> TextIO:
    if file is None:
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        return sys.stdin
    try:
        return open(file, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error


def summary(counts: collections.Counter[str], verifier: Verifier) -> str:
    """The last line, for a person."""
    total = sum(counts.values())
    said = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{total} programs: {said or 'none'} (isolation: {verifier.label})"


async def stream(
    source: TextIO, target: TextIO, verifier: Verifier, defaults: Limits, ordered: bool
) -> collections.Counter[str]:
    """Read records, judge them side by side, write verdicts; how many of each there were."""
    counts: collections.Counter[str] = collections.Counter()
    write = _writer(target, ordered, counts)
    async with verifier:
        room = asyncio.Semaphore(verifier.workers * _AHEAD)
        running: set[asyncio.Task[None]] = set()
        failures: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            if not task.cancelled() and (failure := task.exception()) is not None:
                failures.append(failure)

        async def one(position: int, line: str) -> None:
            try:
                write(position, *await _judge(verifier, line, position + 1, defaults))
            finally:
                room.release()

        position = 0
        lines = _lines(source)
        await room.acquire()
        while not failures and (line := await lines.get()) is not None:
            if not line.strip():
                continue
            task = asyncio.create_task(one(position, line))
            running.add(task)
            task.add_done_callback(ended)
            position += 1
            await room.acquire()
        await asyncio.gather(*running)
        if failures:  # the reader of the verdicts has gone away
            raise failures[0]
    return counts


async def _judge(verifier: Verifier, line: str, number: int, defaults: Limits) -> tuple[Any, Verdict]:
    try:
        submission = records.parse(line, number, defaults)
    except records.RecordError as error:
        return error.id, Verdict("refused", str(error))  # type: ignore[attr-defined]
    return submission.id, await verifier.verify(submission.program, submission.problem)


def _writer(target: TextIO, ordered: bool, counts: collections.Counter[str]) -> Callable[[int, Any, Verdict], None]:
    waiting: dict[int, str] = {}
    following = 0

    def write(position: int, name: Any, verdict: Verdict) -> None:
        nonlocal following
        counts[verdict.status] += 1
        text = records.to_json(name, verdict)
        if not ordered:
            print(text, file=target, flush=True)
            return
        waiting[position] = text
        while following in waiting:
            print(waiting.pop(following), file=target, flush=True)
            following += 1

    return write


def _lines(source: TextIO) -> asyncio.Queue[str | None]:
    """Lines of a stream as they come; None at its end. A thread of its own, because reading blocks."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)

    def read() -> None:
        for line in source:
            asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()
        asyncio.run_coroutine_threadsafe(queue.put(None), loop).result()

    threading.Thread(target=read, daemon=True).start()
    return queue
