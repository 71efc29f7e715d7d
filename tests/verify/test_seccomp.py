"""The filters, run by a small interpreter of classic BPF: both architectures on any machine."""

import struct

import pytest

from ra3kit.verify.jail import seccomp

AUDIT = {name: audit for name, (_, audit) in seccomp.ARCHITECTURES.items()}
DENIED = seccomp.ERRNO | seccomp.EPERM
PID = 4321


def run(program: bytes, number: int, arguments=(), audit: int = AUDIT["x86_64"]) -> int:
    """What the kernel would return for a call."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *[a & 2**64 - 1 for a in (*arguments, *[0] * (6 - len(arguments)))])
    instructions = list(struct.iter_unpack("HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code == seccomp.RETURN:
            return k
        if code == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == seccomp.AND:
            accumulator &= k
        else:
            taken = {
                seccomp.JUMP_EQ: accumulator == k,
                seccomp.JUMP_GE: accumulator >= k,
                seccomp.JUMP_SET: bool(accumulator & k),
            }[code]
            at += if_true if taken else if_false


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request):
    return request.param


def number(machine, name):
    table = {**seccomp.ALLOWED, **seccomp.CONDITIONAL}
    return table[name][seccomp.ARCHITECTURES[machine][0]]


def ask(machine, name, *arguments, threads=True):
    program = seccomp.for_process(seccomp.build(machine, threads), PID)
    return run(program, number(machine, name), arguments, AUDIT[machine])


def test_what_is_listed_is_allowed_and_all_else_is_not(machine):
    column = seccomp.ARCHITECTURES[machine][0]
    program = seccomp.build(machine)
    allowed = {numbers[column] for numbers in seccomp.ALLOWED.values()} - {None}
    conditional = {numbers[column] for numbers in seccomp.CONDITIONAL.values()}
    assert allowed
    for call in range(600):
        if call in allowed:
            assert run(program, call, audit=AUDIT[machine]) == seccomp.ALLOW
        elif call not in conditional:
            assert run(program, call, audit=AUDIT[machine]) == DENIED


@pytest.mark.parametrize(
    ("x86_64", "aarch64"),
    [
        pytest.param(59, 221, id="execve"),
        pytest.param(57, None, id="fork"),
        pytest.param(58, None, id="vfork"),
        pytest.param(41, 198, id="socket"),
        pytest.param(53, 199, id="socketpair"),
        pytest.param(101, 117, id="ptrace"),
        pytest.param(310, 270, id="process_vm_readv"),
        pytest.param(165, 40, id="mount"),
        pytest.param(272, 97, id="unshare"),
        pytest.param(308, 268, id="setns"),
        pytest.param(321, 280, id="bpf"),
        pytest.param(425, 425, id="io_uring_setup"),
        pytest.param(319, 279, id="memfd_create"),
        pytest.param(29, 194, id="shmget"),
        pytest.param(157, 167, id="prctl"),
        pytest.param(317, 277, id="seccomp"),
        pytest.param(434, 434, id="pidfd_open"),
        pytest.param(424, 424, id="pidfd_send_signal"),
        pytest.param(22, None, id="pipe"),
        pytest.param(293, 59, id="pipe2"),
        pytest.param(200, 130, id="tkill"),
        pytest.param(90, 52, id="chmod or fchmod"),
        pytest.param(87, 35, id="unlink(at)"),
        pytest.param(437, 437, id="openat2"),
        pytest.param(304, 265, id="open_by_handle_at"),
        pytest.param(160, 164, id="setrlimit"),
    ],
)
def test_dangerous_calls_are_denied(machine, x86_64, aarch64):
    call = {"x86_64": x86_64, "aarch64": aarch64}[machine]
    if call is not None:
        assert run(seccomp.build(machine), call, audit=AUDIT[machine]) == DENIED


def test_threads_but_no_processes(machine):
    thread = 0x3D0F00  # what libc passes
    assert ask(machine, "clone", thread) == seccomp.ALLOW
    assert ask(machine, "clone", 17) == DENIED  # fork: SIGCHLD
    assert ask(machine, "clone", 0x4111) == DENIED  # vfork: CLONE_VM | CLONE_VFORK | SIGCHLD
    assert ask(machine, "clone", thread | 0x10000000) == DENIED  # a user namespace besides
    assert ask(machine, "clone", thread, threads=False) == seccomp.ERRNO | seccomp.EAGAIN
    assert ask(machine, "clone3", 0) == seccomp.ERRNO | seccomp.ENOSYS


def test_signals_only_to_oneself(machine):
    for call in ("kill", "tgkill"):
        assert ask(machine, call, PID, PID) == seccomp.ALLOW
        for other in (1, PID + 1, 0, -1, -PID):
            assert ask(machine, call, other, PID) == DENIED


def test_clocks_of_others_are_hidden(machine):
    for call in ("clock_gettime", "clock_getres", "clock_nanosleep"):
        assert ask(machine, call, 0) == ask(machine, call, 3) == seccomp.ALLOW
        assert ask(machine, call, (~PID << 3) | 2) == DENIED


def test_arguments_decide_on_descriptors_and_limits(machine):
    assert ask(machine, "fcntl", 0, 3) == seccomp.ALLOW
    assert ask(machine, "fcntl", 0, 8) == DENIED  # F_SETOWN
    assert ask(machine, "fcntl", 0, 1031) == DENIED  # F_SETPIPE_SZ
    assert ask(machine, "ioctl", 0, 0x5401) == seccomp.ALLOW
    assert ask(machine, "ioctl", 0, 0x5412) == DENIED  # TIOCSTI
    assert ask(machine, "prlimit64", 0) == seccomp.ALLOW
    assert ask(machine, "prlimit64", PID) == DENIED
    assert ask(machine, "sched_getaffinity", 0) == seccomp.ALLOW
    assert ask(machine, "sched_getaffinity", 1) == DENIED


def test_another_architecture_kills(machine):
    program = seccomp.build(machine)
    assert run(program, 1, audit=0x40000003) == seccomp.KILL_PROCESS  # i386 through int 0x80
    if machine == "x86_64":
        assert run(program, seccomp.X32_BIT | 1) == seccomp.KILL_PROCESS


def test_the_filter_fits_the_kernel(machine):
    program = seccomp.build(machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096
    assert seccomp.for_process(program, PID) != program
