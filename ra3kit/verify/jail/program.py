"""The harness around a program, in the program's own process. Nothing here is trusted after the program has begun: it
can change every line of it, and gains nothing, because no expected value and no verdict is ever in this process."""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
import threading
import time
import types
from typing import Any

from . import frames, wire

_FLUSH_BYTES = 1 << 16
_TICK = 0.25  # CPU seconds between looks at the clock of the current call

write, pack, answer, encode = frames.write, frames.pack, frames.answer, wire.encode


class CallTimeout(BaseException):
    """The current call has used up its CPU time."""


def load(source: bytes, name: str) -> dict[str, Any]:
    """Run a program's text as a module; its namespace."""
    module = types.ModuleType(name)
    sys.modules[name] = sys.modules["__main__"] = module
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module.__dict__


def run_calls(result: int, source: bytes, tests: bytes, stop_early: bool, long: int) -> None:
    """Call the entry point on each input and send each answer.

    Args:
        result: pipe to the judge.
        tests: kind and payload of (entry_point, inputs, CPU seconds a call or None), from the judge, trusted.
        stop_early: send the first answers at once, so that the judge can end this process.
        long: bytes from which an answer is sent as its digest.
    """
    entry_point, inputs, call_seconds = wire.own(tests[:1], tests[1:])
    sender = _Sender(result, stop_early)
    try:
        namespace = load(source, "solution")
        function = eval(entry_point, namespace)
    except MemoryError:
        sender.finish(pack(frames.MEMORY))
        return
    except BaseException as error:  # SystemExit too: the program ended itself
        sender.finish(pack(frames.LOAD_ERROR, frames.describe_error(error)))
        return
    sender.watch(call_seconds)
    for arguments in inputs:
        try:
            kind, payload = encode(function(*arguments))
            frame = answer(kind, payload, long)
        except CallTimeout:
            frame = pack(frames.CALL_TIME)
        except MemoryError:
            frame = pack(frames.MEMORY)
        except BaseException as error:  # whatever it raises is its answer
            frame = pack(frames.ERROR, frames.describe_error(error))
        sender.add(frame)
    sender.finish(pack(frames.DONE))


class _Sender:
    """Collects frames and sends them now and then; keeps the time of the current call."""

    def __init__(self, result: int, eager: bool):
        self.result = result
        self.pending: list[bytes] = []
        self.size = 0
        self.count = 0
        self.eager_until = 1 if eager else sys.maxsize
        self.seconds: float | None = None
        self.seen = -1
        self.since = 0.0

    def watch(self, seconds: float | None) -> None:
        self.seconds = seconds
        signal.signal(signal.SIGPROF, self.tick)
        signal.setitimer(signal.ITIMER_PROF, _TICK, _TICK)

    def tick(self, signum: int, frame: object) -> None:
        """Now and then: let the judge have what there is, and end a call that takes too long."""
        now = time.process_time()
        if self.count != self.seen:
            self.seen, self.since = self.count, now
            self.flush()
        elif self.seconds is not None and now - self.since >= self.seconds - _TICK:
            self.since = now
            raise CallTimeout

    def add(self, frame: bytes) -> None:
        self.pending.append(frame)
        self.size += len(frame)
        self.count += 1
        if self.size >= _FLUSH_BYTES or self.count == self.eager_until:
            self.eager_until *= 4
            self.flush()

    def flush(self) -> None:
        pending, self.pending, self.size = self.pending, [], 0
        if pending:
            write(self.result, b"".join(pending))

    def finish(self, frame: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.pending.append(frame)
        self.flush()


def run_stream(source: bytes) -> int:
    """Run the program as a script on standard input and output (descriptors 0 and 1).

    Returns:
        The exit code: SCRIPT_ERROR after an uncaught exception, which is then written behind the output, with its
        length.
    """
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="replace")
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.argv = ["solution.py"]
    code, message = 0, b""
    try:
        load(source, "__main__")
    except MemoryError:
        code = frames.SCRIPT_MEMORY
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            code, message = frames.SCRIPT_ERROR, frames.describe_error(end)
        else:
            code = (end.code or 0) & 0xFF
    except BaseException as error:  # an uncaught exception of the script
        code, message = frames.SCRIPT_ERROR, frames.describe_error(error)
    # what the interpreter does at the end of a script
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if message:
        write(1, message + len(message).to_bytes(4, "little"))
    return code


def serve(channel: int, source: bytes) -> None:
    """Load the program and do what the tests' process asks: call, look up, iterate. Only data goes back."""
    kept: list[Any] = []
    numbers: dict[int, int] = {}  # id -> place in `kept`, which keeps ids from being used again

    def export(value: Any) -> int:
        if id(value) not in numbers:
            numbers[id(value)] = len(kept)
            kept.append(value)
        return numbers[id(value)]

    def resolve(value: wire.Opaque) -> Any:
        return kept[value.number]

    try:
        namespace = load(source, "solution")
    except MemoryError:
        write(channel, pack(frames.MEMORY))
        return
    except BaseException as error:  # SystemExit too: the program ended itself
        write(channel, pack(frames.LOAD_ERROR, frames.describe_error(error)))
        return
    write(channel, pack(frames.DONE))
    while (request := frames.read_frame(channel)) is not None:
        what, target, name, arguments, keywords = wire.decode(request.kind, request.payload, resolve)
        try:
            frame = pack(*encode(_do(namespace, what, target, name, arguments, keywords), export))
        except MemoryError:
            frame = pack(frames.MEMORY)
        except BaseException as error:  # whatever it raises is its answer
            frame = pack(frames.ERROR, frames.describe_error(error))
        write(channel, frame)


def _do(namespace: dict[str, Any], what: str, target: Any, name: Any, arguments: Any, keywords: Any) -> Any:
    if what == "name":
        return eval(name, namespace)
    if what == "own":  # a builtin's name: only if the program defines it itself
        return namespace[name]
    if what == "call":
        return target(*arguments, **keywords)
    if what == "get":
        return getattr(target, name)
    if what == "set":
        return setattr(target, name, arguments)
    if what == "item":
        return target[name]
    if what == "list":
        return list(target)
    return len(target)


def read_all(descriptor: int) -> bytes:
    """What a sealed memory file holds."""
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return data
