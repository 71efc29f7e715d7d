"""What stands outside the sandbox while hostile programs run inside, and how to tell that it was touched."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ra3kit.verify.isolation import JAIL, owner
from ra3kit.verify.zoo import Canary

_SHARED_MEMORY = Path("/dev/shm")
_PLACES = (Path("/tmp"), Path("/var/tmp"), _SHARED_MEMORY, Path.home())
_IPC = ("shm", "sem", "msg")
_SLEEPER = "import time; time.sleep(3600)"


class Canaries:
    """Sets them out; use as `with Canaries() as canaries`. `canaries.canary` is what the zoo's programs are told."""

    def __enter__(self) -> Canaries:
        self._folder = Path(tempfile.mkdtemp(prefix="ra3kit-canary-"))
        self._folder.chmod(0o755)
        secret, earlier = secrets.token_hex(16), secrets.token_hex(24)
        secret_file = self._folder / "secret.txt"
        secret_file.write_text(secret)
        secret_file.chmod(0o644)
        self._writable = self._folder / "open"
        self._writable.mkdir()
        self._writable.chmod(0o777)
        self._bait = self._writable / "bait"
        self._bait.write_text("bait")
        self._bait.chmod(0o666)
        self._name = f"RA3KIT_CANARY_{secrets.token_hex(4).upper()}"
        os.environ[self._name] = secret
        self._shm = _SHARED_MEMORY / f"ra3kit-canary-{secrets.token_hex(4)}"
        if _SHARED_MEMORY.is_dir():
            self._shm.write_text(secret)
            self._shm.chmod(0o666)
        self._process = subprocess.Popen([sys.executable, "-c", _SLEEPER], stdin=subprocess.DEVNULL)
        self._tcp = _bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._tcp.listen()
        port = self._tcp.getsockname()[1]
        self._udp = _bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port))
        abstract = f"ra3kit-canary-{secrets.token_hex(4)}"
        self._abstract = _bound(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}")
        self._abstract.listen()
        self.canary = Canary(
            secret_file=str(secret_file),
            secret=secret,
            writable_dir=str(self._writable),
            env_name=self._name,
            tcp_port=port,
            abstract_socket=abstract,
            pid=self._process.pid,
            earlier_secret=earlier,
            shm_name=self._shm.name,
        )
        self._before = self._state()
        self._places = _listing()
        self._ipc = _ipc()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for one in (self._tcp, self._udp, self._abstract):
            one.close()
        with suppress(FileNotFoundError):
            self._shm.unlink()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.environ.pop(self._name, None)

    def _state(self) -> dict[str, object]:
        """What must stay as it is."""
        state: dict[str, object] = {}
        for path in (Path(self.canary.secret_file), self._writable, self._bait, self._shm):
            with suppress(FileNotFoundError):
                found = path.stat()
                # not the access time: reading is noticed by the secret turning up
                times = (found.st_mtime_ns, found.st_ctime_ns)
                state[f"{path} itself"] = (found.st_mode, found.st_uid, found.st_size, times)
        state[f"what is in {self._writable}"] = sorted(path.name for path in self._writable.iterdir())
        state["the canary process"] = _alive(self.canary.pid)
        return state

    def touched(self) -> list[str]:
        """Canaries that an attack has reached since the last call."""
        now = self._state()
        found = [f"{what} changed" for what, before in self._before.items() if now.get(what) != before]
        self._before = now
        for name, listening in (("TCP", self._tcp), ("abstract socket", self._abstract)):
            with suppress(BlockingIOError):
                listening.accept()[0].close()
                found.append(f"the {name} canary was called")
        with suppress(BlockingIOError):
            self._udp.recv(100)
            found.append("the UDP canary was called")
        return found

    def left_behind(self, owned: Callable[[str, os.stat_result], bool]) -> list[str]:
        """Processes, files and shared memory that are here now and were not before. Call it when the sandbox is closed.

        Args:
            owned: whether a new file counts; others may be at work on this machine.
        """
        found = [f"process {pid}" for pid in _servers()]
        for path in sorted(_listing() - self._places):
            with suppress(FileNotFoundError):
                if owned(path, os.lstat(path)):
                    found.append(f"file {path}")
        found += [f"{kind}: {line}" for kind, line in sorted(_ipc() - self._ipc)]
        return found


def _bound(family: int, kind: int, address: object) -> socket.socket:
    made = socket.socket(family, kind)
    made.setblocking(False)
    made.bind(address)  # type: ignore[arg-type]
    return made


def _alive(pid: int) -> bool:
    """Running or asleep: neither gone nor stopped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZTtX"


def _listing() -> set[str]:
    return {str(path) for place in _PLACES if place.is_dir() for path in place.iterdir()}


def _ipc() -> set[tuple[str, str]]:
    found = set()
    for kind in _IPC:
        with suppress(FileNotFoundError):  # a kernel without it
            lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
            found |= {(kind, line.split()[1]) for line in lines}
    return found


def _servers() -> Iterator[int]:
    """Fork servers and their children that are still there; children keep the server's command line."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if str(JAIL).encode() in words and owner().encode() in words:
                yield pid
