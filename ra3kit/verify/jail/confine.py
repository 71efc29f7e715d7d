"""The walls around one process, in the order they must go up."""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass

from . import kernel, seccomp

_OPEN_FILES = 64
_UIDS = ((2_000_000_000, 100_000_000), (60_000, 5_000))  # first, how many; the second for containers that map 65,536


@dataclass(frozen=True)
class Cage:
    """What the server prepared once for all its children.

    Args:
        ruleset: Landlock ruleset, None under bubblewrap.
        filters: seccomp filter with threads, and without.
        uid: own user id for programs, None where we can't change it.
        threads: whether programs may start any.
        address_space: bytes of address space the server takes itself.
    """

    ruleset: int | None
    filters: tuple[bytes, bytes]
    uid: int | None
    threads: bool
    address_space: int


def own_uid(serial: int, readable: str) -> int | None:
    """A user id that nobody else has, if we may take one and can still read the standard library with it.

    Args:
        serial: differs between servers, so that one's programs don't count against another's limits.
    """
    if os.getuid() != 0:
        return None
    for first, count in _UIDS:
        uid = first + 2 * (serial % (count // 2))  # the next one is the referee's
        pid = os.fork()
        if pid == 0:
            try:
                _become(uid)
                with open(readable, "rb"):
                    os._exit(0)
            except OSError:
                os._exit(1)
        if os.waitpid(pid, 0)[1] == 0:
            return uid
    return None


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def apply(cage: Cage, seconds: float, memory: int, threads: int, others: int, referee: bool) -> None:
    """Put the calling process, which has one thread, behind the walls, for good.

    Args:
        seconds: CPU seconds, a second line behind the server's own clock.
        memory: bytes of address space on top of the server's.
        threads: most threads. others: processes and threads which the kernel counts with ours, at most.
        referee: the process runs trusted code: it gets a user id other than the programs'.

    Raises:
        OSError: a wall could not be put up; nothing may be run.
    """
    os.setsid()
    if cage.uid is not None:
        _become(cage.uid + 1 if referee else cage.uid)
    else:
        _drop_capabilities()
    # after the change of user, which clears it: die with the server
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    cpu = int(seconds) + 2
    _limit(resource.RLIMIT_AS, cage.address_space + memory)
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    _limit(resource.RLIMIT_NPROC, threads + others)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if cage.ruleset is not None:
        kernel.landlock_restrict(cage.ruleset)
        os.close(cage.ruleset)
    program = cage.filters[0] if cage.threads and threads > 1 else cage.filters[1]
    kernel.set_seccomp(seccomp.for_process(program, os.getpid()))


def _drop_capabilities() -> None:
    try:
        kernel.drop_capabilities()
    except OSError as error:
        if error.errno != errno.EPERM:  # an ordinary user who holds none
            raise


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
