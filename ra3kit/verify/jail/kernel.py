"""The few system calls Python doesn't wrap, through ctypes; each raises OSError with its name."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_python_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock during a call

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 1, 2, 4, 8, 32, 1024, 2048
MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}

EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3


class FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def fork() -> int:
    """fork(2) without Python's at-fork hooks.

    They reseed generators and rebuild locks, which touches (so copies) some 180 pages and doubles the price of a
    child. The server has one thread and holds no lock, and a job seeds what it uses.
    """
    return _check(_python_libc.fork(), "fork")


def _check(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _syscall(name: str, number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), name)


def prctl(option: int, value: int = 0, pointer: object = 0) -> None:
    """prctl(2)."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0), f"prctl({option})")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None),
        f"mount {target}",
    )


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _syscall("pivot_root", _PIVOT_ROOT[os.uname().machine], new.encode(), old.encode())


def unmount(target: str) -> None:
    """umount2(2), lazily."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    _check(_libc.sethostname(name.encode(), len(name)), "sethostname")


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _syscall("capset", _CAPSET[os.uname().machine], header, (ctypes.c_uint32 * 6)())


def set_seccomp(program: bytes) -> None:
    """Install a filter on the calling thread, for good."""
    holder = FilterProgram(len(program) // 8, program)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(holder))


def landlock_abi() -> int:
    """The kernel's Landlock version, at least 1.

    Raises:
        OSError: ENOSYS or EOPNOTSUPP, no Landlock here.
    """
    return _syscall("landlock_create_ruleset", _LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)


def landlock_ruleset(paths: Sequence[str], listed: Sequence[str]) -> int:
    """A ruleset (file descriptor) that forbids all it knows, but reading and mapping files at or below `paths`, and
    listing folders at or below `listed`."""
    abi = landlock_abi()
    # 13 kinds of access to files in the first version; REFER, TRUNCATE and IOCTL_DEV came later
    kinds = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    network = 3 if abi >= 4 else 0  # bind and connect TCP
    scope = 3 if abi >= 6 else 0  # abstract sockets and signals
    attribute = (ctypes.c_uint64 * 3)((1 << kinds) - 1, network, scope)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _syscall("landlock_create_ruleset", _LANDLOCK_CREATE, attribute, ctypes.c_size_t(size), 0)
    for path in (*paths, *listed):
        access = READ_DIR if os.path.isdir(path) else 0
        access |= 0 if path in listed else EXECUTE | READ_FILE
        below = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = access.to_bytes(8, "little") + below.to_bytes(4, "little")  # a packed struct
            _syscall("landlock_add_rule", _LANDLOCK_ADD, ruleset, 1, rule, 0)
        finally:
            os.close(below)
    return ruleset


def landlock_restrict(ruleset: int) -> None:
    """Put the calling thread under a ruleset, for good."""
    _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, ruleset, 0)
