"""Namespaces around the whole server, entered once: no network, no other processes, a root that holds only what is
read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from . import kernel

_KEPT_FLAGS = kernel.MS_NOEXEC | kernel.MS_NOATIME | kernel.MS_NODIRATIME | kernel.MS_RELATIME
_MOUNTPOINTS = ("/tmp", "/mnt", "/srv", "/var", "/usr")


def enter() -> None:
    """Move the calling process into new namespaces; its next child is process 1 of a new process namespace.

    Called in a process of its own: after a failure half-way it can only exit.

    Raises:
        OSError: the kernel, or the container we are in, doesn't let us.
    """
    wanted = kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWPID | kernel.NEWNET
    try:
        kernel.unshare(wanted)
    except OSError:
        user, group = os.getuid(), os.getgid()
        kernel.unshare(wanted | kernel.NEWUSER)
        _map_ids(user, group)
    kernel.sethostname("sandbox")
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)


def _map_ids(user: int, group: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            raise OSError(error.errno, f"{name}: {error.strerror}") from error


def change_root(paths: Sequence[str], links: Mapping[str, str]) -> None:
    """Replace the root by an empty one into which `paths` are bound, read-only, at the places they have now.

    Args:
        links: symbolic links to make besides: path -> target.

    Raises:
        OSError: a mount is refused.
    """
    root = next(path for path in _MOUNTPOINTS if os.path.isdir(path) and path not in paths)
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in _outermost(paths)}
    for path, source in sources.items():
        target = root + path
        if os.path.isdir(f"/proc/self/fd/{source}"):
            os.makedirs(target, 0o755, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        kernel.mount(f"/proc/self/fd/{source}", target, "", kernel.MS_BIND)
        # a mount made in a parent namespace keeps its flags locked: they must be repeated
        kept = os.statvfs(target).f_flag & _KEPT_FLAGS
        device = 0 if path.startswith("/dev/") else kernel.MS_NODEV
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID
        kernel.mount("", target, "", flags | device | kept)
        os.close(source)
    for path, target in links.items():
        os.makedirs(os.path.dirname(root + path), 0o755, exist_ok=True)
        os.symlink(target, root + path)
    old = root + "/old"
    os.mkdir(old)
    kernel.pivot_root(root, old)
    os.chdir("/")
    kernel.unmount("/old")
    os.rmdir("/old")
    kernel.mount(
        "", "/", "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    )


def _outermost(paths: Sequence[str]) -> list[str]:
    """Without those that lie in another one."""
    chosen: list[str] = []
    for path in sorted(paths):
        if not any(path == other or path.startswith(other.rstrip("/") + "/") for other in chosen):
            chosen.append(path)
    return chosen
