"""Find the walls that hold on this machine: start a server behind them, and let a program try what must not work."""

from __future__ import annotations

from ra3kit.verify import isolation as walls_of
from ra3kit.verify.isolation import Isolation
from ra3kit.verify.jail import frames, wire
from ra3kit.verify.sandbox import Job, Sandbox, SandboxLost


async def first_that_holds(
    view: walls_of.Readable, isolation: Isolation, namespaces: bool = True
) -> tuple[Sandbox, Isolation]:
    """A server behind the first walls that stand here, in the order of `Isolation`, and which they are.

    Raises:
        NoSandbox: none do; with what the kernel said about each.
    """
    if isolation == "none":
        return await Sandbox.start(view, "none"), "none"
    reasons: dict[str, str] = {}
    if isolation in ("auto", "landlock"):
        try:
            return await probed(await Sandbox.start(view, "landlock", namespaces)), "landlock"
        except walls_of.WallsDown as error:
            reasons |= error.reasons
    if isolation in ("auto", "bubblewrap"):
        if not walls_of.has_bubblewrap():
            reasons["bubblewrap"] = "not installed"
        else:
            try:
                return await probed(await Sandbox.start(view, "bubblewrap")), "bubblewrap"
            except walls_of.WallsDown as error:
                reasons |= error.reasons
            except SandboxLost as error:
                reasons["bubblewrap"] = str(error).splitlines()[-1]
    raise walls_of.refusal(reasons)


_PROBE = """
import os

def attempts():
    done = []
    for name, attempt in {
        "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "list a folder": lambda: os.listdir("/etc").index("passwd"),
        "write a file": lambda: os.open("/tmp/ra3kit-probe", os.O_WRONLY | os.O_CREAT),
        "see processes": lambda: os.listdir("/proc"),
        "make a process": lambda: os.fork() or os._exit(0),
        "open a socket": lambda: __import__("socket").socket(),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
    }.items():
        try:
            attempt()
            done.append(name)
        except (OSError, ValueError):
            pass
    import email.mime.text  # the standard library can be read
    return done
"""


async def probed(sandbox: Sandbox) -> Sandbox:
    """The same sandbox, after a program in it has tried what must not work.

    Raises:
        WallsDown: something worked.
    """
    tests = b"".join(wire.encode(("attempts", [()], None)))
    ended = await sandbox.run(Job("calls", [_PROBE.encode(), tests], 5.0, 1 << 28, 1 << 16))
    answers = frames.unpack(ended.data, 2)[0]
    nothing = frames.Frame(*wire.encode([]))
    if answers[:1] != [nothing]:
        sandbox.close()
        said = answers[0].payload.decode("utf-8", "replace") if answers else f"exit code {ended.code}"
        raise walls_of.WallsDown({"the probe": f"could do what it must not, or could not start: {said!r}"})
    return sandbox
