"""Which walls this machine can put up: probed, never assumed. Nothing is run where none holds."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ra3kit.errors import RA3Error

Isolation = Literal["auto", "landlock", "bubblewrap", "none"]
"""auto: Landlock, with namespaces where they can be had; bubblewrap where Landlock is missing; else refuse.
none: no walls at all, for code you trust; recorded in every verdict."""

JAIL = Path(__file__).parent / "jail"

OPTIONS = ("-P", "-s", "-S")
"""Of a server's interpreter: nothing installed is found, no folder is searched but the standard library's. Not -E or
-I, which would ignore PYTHONHASHSEED; its whole environment is ours."""

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/null", "/dev/zero", "/dev/urandom")
_INSTALLED = ("site-packages", "dist-packages")


class NoSandbox(RA3Error):
    """No isolation holds on this machine. Nothing was run."""


class WallsDown(Exception):
    """Walls that one kind of isolation needs do not stand.

    Args:
        reasons: wall -> what the kernel said.
    """

    def __init__(self, reasons: dict[str, str]):
        super().__init__(", ".join(f"{wall}: {why}" for wall, why in reasons.items()))
        self.reasons = reasons


@dataclass(frozen=True)
class Readable:
    """What a program may see of the file system.

    Args:
        paths: files and folders it may read.
        listed: folders whose names it may list, but not read.
        mounts: folders and files that hold the paths, fewer and larger: what a root of its own is made of.
        packages: module -> folder it is imported from, besides the standard library.
        links: symbolic links that lead to `paths`, and where to: on most systems /lib is /usr/lib.
    """

    paths: tuple[str, ...]
    listed: tuple[str, ...]
    mounts: tuple[str, ...]
    packages: dict[str, str]
    links: dict[str, str]


def readable(packages: tuple[str, ...] = ("numpy",)) -> Readable:
    """The standard library and the named packages, with the shared libraries they need; nothing else that is installed.

    Raises:
        NoSandbox: a package that was asked for is not installed (numpy may be missing).
    """
    # of the Python under a virtual environment, whose own folders hold what is installed
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    stdlib = {sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")}
    libraries = [os.path.realpath(path) for path in _LIBRARIES if os.path.isdir(path)]
    paths: list[str] = [path for folder in libraries for path in _without_python(folder)]
    paths += [path for path in _FILES if os.path.exists(path)]
    for folder in stdlib:
        paths += [entry.path for entry in os.scandir(folder) if entry.name not in _INSTALLED]
    found: dict[str, str] = {}
    for name in packages:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            if name == "numpy":
                continue
            raise NoSandbox(f"packages: {name!r} is not an installed package of this Python.")
        place = Path(next(iter(spec.submodule_search_locations)))
        found[name] = str(place.parent)
        paths += [str(path) for path in (place, place.with_name(f"{place.name}.libs")) if path.exists()]
    links = {path: os.readlink(path) for path in _LIBRARIES if os.path.islink(path)}
    folders = tuple({*libraries, *stdlib})
    mounts = {*folders, *(path for path in paths if not path.startswith(folders))}
    return Readable(
        tuple(sorted(set(map(os.path.realpath, paths)))), tuple(sorted(stdlib)), tuple(sorted(mounts)), found, links
    )


def _without_python(folder: str) -> list[str]:
    """A library folder, or what is in it but for other Pythons and what is installed for them."""
    entries = list(os.scandir(folder))
    pythons = [entry for entry in entries if entry.name.startswith(("python", "pypy")) and entry.is_dir()]
    if not pythons:
        return [folder]
    # a link leads to another entry, or out of here, where a program has no business
    return [entry.path for entry in entries if entry not in pythons and not entry.is_symlink()]


def command(control: int, view: Readable, isolation: Isolation, namespaces: bool, preload: bool) -> list[str]:
    """The command that starts a fork server."""
    import json

    config = {
        "control": control,
        "serial": secrets.randbelow(1 << 30),
        "paths": view.paths,
        "listed": view.listed,
        "mounts": view.mounts,
        "packages": view.packages,
        "links": view.links,
        "preload": preload,
        "landlock": isolation == "landlock",
        "namespaces": namespaces and isolation == "landlock",
        "bubblewrap": isolation == "bubblewrap",
        "unconfined": isolation == "none",
    }
    server = [_interpreter(), *OPTIONS, str(JAIL), json.dumps(config), owner()]
    return _bubblewrap(view) + server if isolation == "bubblewrap" else server


def owner() -> str:
    """A word on every server's command line: whose it is, for those who look for left-over processes."""
    return f"ra3kit:{os.getpid()}"


def _interpreter() -> str:
    """Ours without a virtual environment around it, which is found through paths a program may not read."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _bubblewrap(view: Readable) -> list[str]:
    binds = [_interpreter(), str(JAIL), *view.mounts]
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    for path in binds:
        words += ["--dev-bind" if path.startswith("/dev/") else "--ro-bind", path, path]
    for key, value in environment().items():
        words += ["--setenv", key, value]
    for path, target in view.links.items():
        words += ["--symlink", target, path]
    for hidden in _hidden(view):
        words += ["--tmpfs", hidden]
    return [*words, "--remount-ro", "/", "--"]


def _hidden(view: Readable) -> list[str]:
    """What lies in the mounts and may not be read: installed packages, other Pythons."""
    installed = [os.path.join(folder, name) for folder in view.listed for name in _INSTALLED]
    pythons = [
        entry.path
        for folder in view.mounts
        if os.path.isdir(folder)
        for entry in os.scandir(folder)
        if entry.name.startswith(("python", "pypy")) and entry.is_dir(follow_symlinks=False)
        if not any(path == entry.path or path.startswith(entry.path + "/") for path in view.listed)
    ]
    return [path for path in (*installed, *pythons) if os.path.isdir(path)]


def environment() -> dict[str, str]:
    """A server's whole environment."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # threads would reserve 64 MiB of address space each
    }


def holds(isolation: Isolation, walls: dict[str, Any]) -> bool:
    """Whether the walls a server reports are those it needs."""
    if isolation == "none":
        return True
    return walls["seccomp"] == "yes" and (isolation == "bubblewrap" or walls["landlock"] == "yes")


def label(isolation: Isolation, walls: dict[str, Any]) -> str:
    """For results: "landlock+seccomp+rlimits+namespaces+uid"."""
    if isolation == "none":
        return "none"
    extra = ["namespaces"] if walls["namespaces"] == "yes" or isolation == "bubblewrap" else []
    extra += ["uid"] if walls["uid"] is not None else []
    return "+".join([isolation, "seccomp", "rlimits", *extra])


def refusal(reasons: dict[str, str]) -> NoSandbox:
    """Why nothing holds, and what helps.

    Args:
        reasons: wall -> what the kernel said.
    """
    said = ", ".join(f"{wall} {shorten(why)}" for wall, why in reasons.items())
    return NoSandbox(
        f"No sandbox: {said} (kernel {platform.release()}). Install bubblewrap, or use a kernel >= 5.13 with Landlock "
        "switched on. Nothing was run. (isolation='none', --unsandboxed, runs programs you trust without any wall.)"
    )


def shorten(reason: str) -> str:
    """ENOSYS and its kin by name, for a reason that ends in the kernel's words."""
    for name in ("ENOSYS", "EOPNOTSUPP", "EPERM", "EACCES", "ENOSPC", "EINVAL"):
        if reason.endswith(os.strerror(getattr(errno, name))):
            return name
    return reason


def has_bubblewrap() -> bool:
    """Whether `bwrap` is on the path."""
    return shutil.which("bwrap") is not None
