"""The system calls a program may make: an allow-list, by architecture, as a seccomp filter (classic BPF).

What is not listed fails with EPERM, so that a program which merely tries goes on with an exception. A call through
another architecture's table (int 0x80, x32) kills.
"""

from __future__ import annotations

import struct

ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOSYS, EAGAIN = 1, 38, 11
LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NR, ARCH, ARGS = 0, 4, 16  # offsets in struct seccomp_data

X32_BIT = 0x40000000

CLONE_THREAD_FLAGS = 0x00010000 | 0x00000100 | 0x00000800  # CLONE_THREAD | CLONE_VM | CLONE_SIGHAND
CLONE_NAMESPACE_FLAGS = 0x7E020000 | 0x00000080  # every CLONE_NEW*
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)  # DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
OWN_CLOCKS = 12  # clock ids below this are clocks of the machine or of the caller; CPU clocks of others are negative

# name -> number on x86-64, aarch64 (None: not there)
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    # paths: Landlock decides what can be opened
    "open": (2, None),
    "openat": (257, 56),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # signals to oneself, threads, time
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "gettid": (186, 178),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "alarm": (37, None),
    "sched_yield": (24, 124),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "getrandom": (318, 278),
    "uname": (63, 160),
}

CONDITIONAL: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "prlimit64": (302, 261),
    "sched_getaffinity": (204, 123),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "kill": (62, 129),
    "tgkill": (234, 131),
}

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

OWN_PID = 0x7E57ED01
"""Stands for the caller's process id in a filter, until `for_process` puts it in."""


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, k)


def _argument(index: int) -> bytes:
    return _op(LOAD, ARGS + 8 * index)


def _one_of(index: int, values: tuple[int, ...], denied: int) -> bytes:
    """Allow when the low half of an argument is one of `values`. The calls this is used for take 32-bit arguments."""
    checks = [_op(JUMP_EQ, value, len(values) - 1 - i + 1, 0) for i, value in enumerate(values)]
    return _argument(index) + b"".join(checks) + _op(RETURN, denied) + _op(RETURN, ALLOW)


def _rules(threads: bool) -> dict[str, bytes]:
    """Body of each conditional call; every path through it returns."""
    no, yes = _op(RETURN, ERRNO | EPERM), _op(RETURN, ALLOW)
    no_thread = _op(RETURN, ERRNO | EAGAIN)
    clone = (
        _argument(0)
        + _op(JUMP_SET, CLONE_NAMESPACE_FLAGS, 3, 0)
        + _op(AND, CLONE_THREAD_FLAGS)
        + _op(JUMP_EQ, CLONE_THREAD_FLAGS, 0, 1)
        + yes
        + no
    )
    own_clock = _argument(0) + _op(JUMP_GE, OWN_CLOCKS, 1, 0) + yes + no
    return {
        "clone": clone if threads else no_thread,
        # its flags are behind a pointer, which a filter can't follow; ENOSYS makes libc use clone
        "clone3": _op(RETURN, ERRNO | ENOSYS),
        "fcntl": _one_of(1, FCNTL_COMMANDS, ERRNO | EPERM),
        "ioctl": _one_of(1, IOCTL_REQUESTS, ERRNO | EPERM),
        "prlimit64": _one_of(0, (0,), ERRNO | EPERM),
        "sched_getaffinity": _one_of(0, (0,), ERRNO | EPERM),
        "clock_gettime": own_clock,
        "clock_getres": own_clock,
        "clock_nanosleep": own_clock,
        "kill": _one_of(0, (OWN_PID,), ERRNO | EPERM),
        "tgkill": _one_of(0, (OWN_PID,), ERRNO | EPERM),
    }


def build(machine: str, threads: bool = True) -> bytes:
    """The filter for an architecture.

    Args:
        machine: as `os.uname().machine` spells it.
        threads: whether threads may be started.

    Raises:
        KeyError: no table for this architecture.
    """
    column, audit = ARCHITECTURES[machine]
    out = _op(LOAD, ARCH) + _op(JUMP_EQ, audit, 1, 0) + _op(RETURN, KILL_PROCESS) + _op(LOAD, NR)
    if machine == "x86_64":
        out += _op(JUMP_GE, X32_BIT, 0, 1) + _op(RETURN, KILL_PROCESS)
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            out += _op(JUMP_EQ, number, 0, 1) + _op(RETURN, ALLOW)
    for name, body in _rules(threads).items():
        out += _op(JUMP_EQ, CONDITIONAL[name][column], 0, len(body) // 8) + body
    return out + _op(RETURN, ERRNO | EPERM)


def for_process(program: bytes, pid: int) -> bytes:
    """The filter with the process id put in."""
    return program.replace(struct.pack("I", OWN_PID), struct.pack("I", pid))
