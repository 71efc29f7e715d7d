"""One fork server and the jobs it runs, from the judge's side."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ra3kit.verify import isolation as walls_of
from ra3kit.verify.isolation import Isolation, Readable
from ra3kit.verify.jail import frames

Kind = Literal["calls", "stream", "serve", "asserts", "compare", "lines", "checker"]

START_SECONDS = 30.0
GRACE_SECONDS = 10.0
_MAX_REPLY = 1 << 16
_CHUNK = 1 << 18


class SandboxLost(Exception):
    """Our own machinery failed: the server died, or a wall could not be put up. Says nothing about the program."""


@dataclass
class Ended:
    """How a job's process ended.

    Args:
        data: what it wrote to its pipe.
        code: exit code; negative: the signal that ended it.
        killed: "time", "wall", "threads" or "asked" when the server ended it.
        seconds: CPU seconds.
        overflow: it wrote more than allowed and was ended.
    """

    data: bytes
    code: int
    killed: str | None
    seconds: float
    overflow: bool = False


@dataclass
class Job:
    """What a child is started with.

    Args:
        kind: what it does. files: contents it reads (program, tests; standard input).
        seconds, memory, threads, output: limits; bytes for memory and output.
        trusted: it runs our code, or a benchmark's.
        stop_early: answers are wanted as they come.
        long: bytes from which an answer comes as its digest.
    """

    kind: Kind
    files: Sequence[bytes | int]
    seconds: float
    memory: int
    output: int
    threads: int = 1
    trusted: bool = False
    stop_early: bool = False
    long: int = frames.LONG


def sealed(data: bytes) -> int:
    """A memory file that nobody can change any more; the caller closes it."""
    descriptor = os.memfd_create("ra3kit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    )
    return descriptor


class Sandbox:
    """A fork server of our own and its control socket. Start with `await Sandbox.start(...)`, end with `close`."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, walls: dict[str, Any], label: str):
        self.process = process
        self.control = control
        self.walls = walls
        self.label = label
        self._jobs: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control, self._receive)

    @classmethod
    async def start(
        cls, view: Readable, isolation: Isolation, namespaces: bool = True, preload: bool = False
    ) -> Sandbox:
        """Start a server and hear what holds there.

        Args:
            view: what programs may read. isolation: not "auto". namespaces: try to have them.
            preload: import the packages of `view` before the first program.

        Raises:
            WallsDown: the walls this isolation needs don't stand.
            SandboxLost: the server didn't start.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                walls_of.command(theirs.fileno(), view, isolation, namespaces, preload),
                pass_fds=(theirs.fileno(),),
                env=walls_of.environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            message = await asyncio.wait_for(loop.sock_recv(ours, _MAX_REPLY), START_SECONDS)
        except TimeoutError:
            message = b""
        if not message:
            ours.close()
            process.kill()
            said = process.communicate()[1].decode("utf-8", "replace").strip()
            raise SandboxLost(f"the fork server did not start: {said[-1000:] or 'no word from it'}")
        walls = json.loads(message)["hello"]
        sandbox = cls(process, ours, walls, walls_of.label(isolation, walls))
        if not walls_of.holds(isolation, walls):
            sandbox.close()
            reasons = {"Landlock": walls["landlock"], "seccomp": walls["seccomp"], "namespaces": walls["namespaces"]}
            raise walls_of.WallsDown({wall: why for wall, why in reasons.items() if why != "yes"})
        return sandbox

    @property
    def alive(self) -> bool:
        return self.control.fileno() >= 0

    def close(self) -> None:
        """Hang up: the server ends all its children and itself. Waits for it."""
        if self.alive:
            self._loop.remove_reader(self.control)
            self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self._fail("the fork server was closed")

    def _receive(self) -> None:
        while True:
            try:
                message = self.control.recv(_MAX_REPLY)
            except BlockingIOError:
                return
            except ConnectionError:
                message = b""
            if not message:
                self._loop.remove_reader(self.control)
                self.control.close()
                self._fail("the fork server ended")
                return
            reply = json.loads(message)
            # a job that nobody waits for any more is done already, by its cancellation
            if "failed" in reply:
                future = self._jobs[reply["job"]]
                if not future.done():
                    future.set_exception(SandboxLost(f"a wall could not be put up: {reply['failed']}"))
            else:
                future = self._jobs.pop(reply["job"])
                if not future.done():
                    future.set_result(reply)

    def _fail(self, why: str) -> None:
        jobs, self._jobs = self._jobs, {}
        for future in jobs.values():
            if not future.done():
                future.set_exception(SandboxLost(why))

    async def run(
        self,
        job: Job,
        channel: int | None = None,
        on_data: Callable[[bytes], bool] | None = None,
    ) -> Ended:
        """Run a job to its end and take what it wrote.

        Args:
            channel: a socket the child gets besides; closed here once it is sent.
            on_data: called with each piece as it comes; returning False ends the job.

        Raises:
            SandboxLost: our own failure.
        """
        number, self._next = self._next, self._next + 1
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        mine = [sealed(item) for item in job.files if isinstance(item, bytes)]
        fresh = iter(mine)
        files = [item if isinstance(item, int) else next(fresh) for item in job.files]
        descriptors = [writing, *files, *([channel] if channel is not None else [])]
        wall = 3 * job.seconds + 2
        header = {
            "job": number,
            "kind": job.kind,
            "seconds": job.seconds,
            "wall": wall,
            "memory": job.memory,
            "threads": job.threads,
            "trusted": job.trusted,
            "stop_early": job.stop_early,
            "long": job.long,
        }
        future = self._loop.create_future()
        self._jobs[number] = future
        try:
            if not self.alive:
                raise SandboxLost("the fork server ended")
            socket.send_fds(self.control, [json.dumps(header).encode()], descriptors)
        except OSError as error:
            self._jobs.pop(number, None)
            os.close(reading)
            raise SandboxLost(f"the fork server can't be reached: {error}") from error
        finally:
            for descriptor in (writing, *mine, *([channel] if channel is not None else [])):
                os.close(descriptor)
        collector = _Collector(reading, job.output, self._loop, lambda: self._kill(number), on_data)
        try:
            end = await asyncio.wait_for(asyncio.shield(future), wall + GRACE_SECONDS)
        except TimeoutError:
            self.process.kill()
            raise SandboxLost("the fork server stopped answering") from None
        except asyncio.CancelledError:
            self._kill(number)
            future.cancel()
            raise
        finally:
            data, overflow = collector.close()
        return Ended(data, end["code"], end["killed"], end["seconds"], overflow)

    def _kill(self, number: int) -> None:
        with contextlib.suppress(OSError):  # the server has gone, and its children with it
            self.control.send(json.dumps({"kill": number}).encode())


class _Collector:
    """Reads a pipe as data comes, up to a limit."""

    def __init__(
        self,
        descriptor: int,
        limit: int,
        loop: asyncio.AbstractEventLoop,
        kill: Callable[[], None],
        on_data: Callable[[bytes], bool] | None,
    ):
        self.descriptor = descriptor
        self.limit = limit
        self.loop = loop
        self.kill = kill
        self.on_data = on_data
        self.pieces: list[bytes] = []
        self.size = 0
        self.stopped = False
        loop.add_reader(descriptor, self.read)

    def read(self) -> bool:
        """Take what is there; False at the end."""
        while True:
            try:
                piece = os.read(self.descriptor, _CHUNK)
            except BlockingIOError:
                return True
            if not piece:
                self.loop.remove_reader(self.descriptor)
                return False
            if self.stopped:
                continue
            self.pieces.append(piece)
            self.size += len(piece)
            if self.size > self.limit or (self.on_data is not None and not self.on_data(piece)):
                self.stopped = True
                self.kill()

    def close(self) -> tuple[bytes, bool]:
        """All that was written, and whether it was too much. The writer has ended."""
        self.read()
        self.loop.remove_reader(self.descriptor)
        os.close(self.descriptor)
        return b"".join(self.pieces), self.size > self.limit
