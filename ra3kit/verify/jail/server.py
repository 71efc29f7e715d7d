"""The fork server: forks one confined process a job, holds the clock, reaps. It never reads a program.

A job arrives as a header with file descriptors; the program and its tests are in sealed memory files that only the
child reads, so nothing of one program is in memory when the next is forked. Answers go from the child straight to the
judge.
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import gc
import importlib
import importlib.machinery
import json
import math
import os
import random
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from . import confine, kernel, namespaces, program, referee, seccomp

MAX_HEADER = 1 << 16
SLACK_PROCESSES = 8
_UNKNOWN_ADDRESS_SPACE = 700 << 20
_THREAD_STACK = 8 << 20
_WATCH_MILLISECONDS = 20
_COUNT_SECONDS, _COUNT_SLACK = 1.0, 32  # how long a count of the user's threads holds, and how many may come meanwhile
_RULESET, _CONTROL, _FIRST_DESCRIPTOR, _LAST_DESCRIPTOR = 30, 31, 32, 1 << 20  # descriptors of a child

# what programs import most; loaded once, before any program
PRELOADED = (
    "abc",
    "array",
    "bisect",
    "cmath",
    "collections",
    "collections.abc",
    "copy",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "io",
    "itertools",
    "json",
    "math",
    "numbers",
    "operator",
    "queue",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "sys",
    "textwrap",
    "threading",
    "time",
    "types",
    "typing",
    "unicodedata",
)


@dataclass
class Child:
    """A job's process."""

    job: int
    pid: int
    handle: int
    seconds: float
    wall_end: float
    next_look: float
    threads: int
    killed: str | None = None
    clock: int = field(init=False)

    def __post_init__(self) -> None:
        self.clock = (~self.pid << 3) | 2  # the kernel's id for the CPU clock of a process


def main(config: dict[str, Any]) -> None:
    """Set up, tell the judge what holds here, serve until it hangs up.

    Args:
        config: "control" (descriptor); "serial" (a number of its own); "paths" whose contents may be read, "listed"
            whose names may, "mounts" that hold them, "links" that lead there; "packages" (module -> parent folder); and
            bools: "preload" (import the packages now), "landlock", "namespaces", "bubblewrap" (which has made
            namespaces), "unconfined".
    """
    control = socket.socket(fileno=os.dup(config["control"]))  # a low number, so that a child's limit holds for it
    os.close(config["control"])
    walls: dict[str, Any] = {"namespaces": "not asked for", "user": os.getuid()}
    if config["bubblewrap"]:
        walls["namespaces"] = "yes"
    elif config["namespaces"] and not config["unconfined"]:
        walls["namespaces"] = _enter_namespaces(config["mounts"], config["links"])
    statm = _STATM.pop() if _STATM else _open("/proc/self/statm")
    _preload(config["packages"], config["preload"])
    cage = _prepare(config, walls, statm)
    sys.orig_argv = sys.argv = [""]
    control.send(json.dumps({"hello": walls}).encode())
    gc.collect()
    gc.freeze()
    Server(control, cage, config["unconfined"], walls["threads"] == "watched").serve()


_STATM: list[int] = []


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no /proc here
        return None


def _thread_limit(walls: dict[str, Any], proc: bool) -> str:
    """How the number of a program's threads is held.

    "counted": by the kernel, which counts them apart under a user id of their own, and in a user namespace since 5.14.
    "watched": it counts all of the user's processes together, or none for user 0; so the server looks, and kills.
    "denied": it can't look either, so there are none.
    """
    version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if walls["uid"] is not None or (walls["namespaces"] == "yes" and os.getuid() != 0 and version >= (5, 14)):
        return "counted"
    return "watched" if proc else "denied"


def _enter_namespaces(paths: list[str], links: dict[str, str]) -> str:
    """ "yes" in a process inside new namespaces; else the reason why there are none."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            namespaces.enter()
            inside = os.fork()
        except OSError as error:
            os.write(writing, str(error).encode())
            os._exit(1)
        if inside == 0:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            try:
                _STATM.append(os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC))
                namespaces.change_root(paths, links)
            except OSError as error:
                os.write(writing, str(error).encode())
                os._exit(1)
            os.write(writing, b"yes")
            os.close(writing)
            return "yes"
        os.close(writing)
        _become_parent_of(inside)
    os.close(writing)
    answer = os.read(reading, 1000).decode()
    os.close(reading)
    if answer == "yes":
        _become_parent_of(pid)
    os.waitpid(pid, 0)
    return answer or "the process that tried ended without a word"


def _become_parent_of(pid: int) -> None:
    """Nothing to do but to end with the server: a process of the outer namespace must stay, or the judge takes the
    server for dead."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.closerange(0, _LAST_DESCRIPTOR)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


class PackageFinder:
    """Lets programs import the packages they may have, and nothing else that is installed beside them.

    Args:
        packages: module -> folder it is in.
    """

    def __init__(self, packages: dict[str, str]):
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        folder = self.packages.get(name)
        return None if folder is None else importlib.machinery.PathFinder.find_spec(name, [folder])


def _preload(packages: dict[str, str], now: bool) -> None:
    """Import what programs import; packages only if `now`: they make every child dearer."""
    for name in PRELOADED:
        importlib.import_module(name)
    sys.meta_path.append(PackageFinder(packages))
    for name in packages if now else ():
        importlib.import_module(name)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    # what `site` would have brought, which is left out because it finds what is installed
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    threading.stack_size(_THREAD_STACK)  # libc would give each the main thread's, out of the program's address space
    # nothing of ours can be imported by a program
    for name in [name for name in sys.modules if name.partition(".")[0] in (__package__, "__main__")]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path.startswith((sys.base_prefix, sys.base_exec_prefix))]


def _prepare(config: dict[str, Any], walls: dict[str, Any], statm: int | None) -> confine.Cage:
    """What every child needs; how each wall stands is noted in `walls`."""
    ruleset = uid = None
    filters = (b"", b"")
    walls["seccomp"] = walls["landlock"] = "not asked for"
    if not config["unconfined"]:
        machine = os.uname().machine
        if machine in seccomp.ARCHITECTURES:
            filters = (seccomp.build(machine, True), seccomp.build(machine, False))
            walls["seccomp"] = "yes"
        else:
            walls["seccomp"] = f"no table of system calls for {machine}"
        if config["landlock"]:
            try:
                ruleset = kernel.landlock_ruleset(config["paths"], config["listed"])
                walls["landlock"] = "yes"
                walls["landlock version"] = kernel.landlock_abi()
            except OSError as error:
                walls["landlock"] = str(error)
        uid = confine.own_uid(config["serial"], os.__file__)
    walls["uid"] = uid
    walls["threads"] = _thread_limit(walls, os.path.exists("/proc/self/stat"))
    return confine.Cage(ruleset, filters, uid, walls["threads"] != "denied", _address_space(statm))


def _address_space(statm: int | None) -> int:
    if statm is None:
        return _UNKNOWN_ADDRESS_SPACE
    return int(os.pread(statm, 200, 0).split()[0]) * os.sysconf("SC_PAGE_SIZE")


class Server:
    """The loop."""

    def __init__(self, control: socket.socket, cage: confine.Cage, unconfined: bool, watching: bool):
        self.control = control
        self.cage = cage
        self.unconfined = unconfined
        self.watching = watching
        self.others, self.counted_at = 0, -_COUNT_SECONDS
        self.children: dict[int, Child] = {}  # by handle
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def serve(self) -> None:
        """Until the judge hangs up; then nothing of ours is alive."""
        while True:
            for descriptor, _ in self.poll.poll(self.patience()):
                if descriptor == self.control.fileno():
                    if not self.receive():
                        self.kill_all()
                        return
                else:
                    self.reap(self.children.pop(descriptor))
            self.look()

    def patience(self) -> int | None:
        """Milliseconds until a clock must be looked at."""
        if not self.children:
            return None
        next_look = min(min(child.next_look, child.wall_end) for child in self.children.values())
        patience = max(0, math.ceil((next_look - time.monotonic()) * 1000))
        return min(patience, _WATCH_MILLISECONDS) if self.watching else patience

    def receive(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self.control, MAX_HEADER, 8)
        if not message:
            return False
        header = json.loads(message)
        if "kill" in header:
            for child in self.children.values():
                if child.job == header["kill"]:
                    self.kill(child, "asked")
            return True
        self.start(header, descriptors)
        return True

    def start(self, header: dict[str, Any], descriptors: list[int]) -> None:
        # with a user id of its own a program is counted alone
        others = 0 if self.cage.uid is not None else SLACK_PROCESSES + (self.count_others() if self.watching else 0)
        pid = kernel.fork()
        if pid == 0:
            try:
                self.child(header, descriptors, others)
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        now = time.monotonic()
        handle = os.pidfd_open(pid)
        seconds = float(header["seconds"])
        self.children[handle] = Child(
            header["job"], pid, handle, seconds, now + header["wall"], now + seconds, header["threads"]
        )
        self.poll.register(handle, select.POLLIN)

    def count_others(self) -> int:
        """Threads of this user, with which the kernel counts ours; looked up now and then."""
        now = time.monotonic()
        if now - self.counted_at >= _COUNT_SECONDS:
            self.counted_at = now
            self.others = sum(_threads(int(name)) for name in os.listdir("/proc") if name.isdigit() and _is_ours(name))
        return self.others + _COUNT_SLACK

    def child(self, header: dict[str, Any], descriptors: list[int], others: int) -> None:
        """In the child: put up the walls, say so only if they don't stand, and become the job."""
        try:
            # all but what the job needs is closed first: behind the walls closing a range would go one by one
            os.dup2(1, 2)  # the server's own standard error leads to the judge; the others lead nowhere
            os.dup2(self.control.fileno(), _CONTROL)
            cage = self.cage
            if cage.ruleset is not None:
                os.dup2(cage.ruleset, _RULESET)
                cage = replace(cage, ruleset=_RULESET)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, _FIRST_DESCRIPTOR + number)
            os.closerange(3, _RULESET if cage.ruleset is not None else _CONTROL)
            os.closerange(_FIRST_DESCRIPTOR + len(descriptors), _LAST_DESCRIPTOR)
            self.control.detach()
            if not self.unconfined:
                confine.apply(cage, header["seconds"], header["memory"], header["threads"], others, header["trusted"])
        except BaseException as error:  # whatever it is, no program may run after it
            failed = json.dumps({"job": header["job"], "failed": f"{type(error).__name__}: {error}"})
            os.write(_CONTROL, failed.encode())
            os._exit(1)
        os.close(_CONTROL)
        run_job(header, list(range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + len(descriptors))))

    def look(self) -> None:
        """At the clocks."""
        now = time.monotonic()
        for child in self.children.values():
            if child.killed:
                continue
            if self.watching and _threads(child.pid) > child.threads:
                self.kill(child, "threads")
            elif now >= child.wall_end:
                self.kill(child, "wall")
            elif now >= child.next_look:
                left = child.seconds - _cpu(child)
                if left <= 0:
                    self.kill(child, "time")
                child.next_look = now + max(0.005, left / (os.cpu_count() or 1))

    def kill(self, child: Child, why: str) -> None:
        child.killed = child.killed or why
        os.kill(child.pid, signal.SIGKILL)

    def kill_all(self) -> None:
        for child in self.children.values():
            self.kill(child, "asked")
            os.waitpid(child.pid, 0)

    def reap(self, child: Child) -> None:
        self.poll.unregister(child.handle)
        os.close(child.handle)
        _, status, usage = os.wait4(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        end = {
            "job": child.job,
            "code": code,
            "seconds": usage.ru_utime + usage.ru_stime,
            "killed": child.killed,
            "cpu_limit": -code in (signal.SIGXCPU,),
        }
        self.control.send(json.dumps(end).encode())


def _threads(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[17])
    except OSError:  # it has just ended
        return 0


def _is_ours(name: str) -> bool:
    try:
        return os.stat(f"/proc/{name}").st_uid == os.getuid()
    except OSError:  # it has just ended
        return False


def _cpu(child: Child) -> float:
    try:
        return time.clock_gettime(child.clock)
    except OSError:  # it has just ended; its handle is readable by now
        return 0.0


def run_job(header: dict[str, Any], descriptors: list[int]) -> None:
    """What a child does behind the walls."""
    random.seed(0)  # after a fork Python seeds it from the system
    kind, (result, *rest) = header["kind"], descriptors
    if kind == "calls":
        source, tests = program.read_all(rest[0]), program.read_all(rest[1])
        program.run_calls(result, source, tests, header["stop_early"], header["long"])
    elif kind == "stream":
        source = program.read_all(rest[0])
        os.dup2(rest[1], 0)
        os.dup2(result, 1)
        os.close(rest[1])
        os.close(result)
        os._exit(program.run_stream(source))
    elif kind == "serve":
        os.close(result)
        program.serve(rest[1], program.read_all(rest[0]))
    elif kind == "asserts":
        channel = rest[1] if len(rest) > 1 else None
        referee.report(result, referee.referee_asserts(program.read_all(rest[0]), channel))
    else:
        judge = {
            "compare": referee.referee_compare,
            "lines": referee.referee_lines,
            "checker": referee.referee_checker,
        }[kind]
        referee.report(result, judge(program.read_all(rest[0])))
