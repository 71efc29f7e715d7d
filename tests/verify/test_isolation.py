"""Where walls are missing: containers that deny namespaces or Landlock, users without capabilities, bubblewrap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from ra3kit.verify.isolation import NoSandbox, label, readable, refusal, shorten

RECORD = {"solution": "def f(x): return 2 * x", "entry_point": "f", "inputs": [[3]], "expected": [6]}

# runs a command in a process that was denied some system calls first, as a container does it: number -> errno
DENY = """
import json, os, struct, sys
from ra3kit.verify.jail import kernel
from ra3kit.verify.jail.seccomp import ALLOW, ERRNO, JUMP_EQ, LOAD, NR, RETURN, _op
denied, no_capabilities, command = json.loads(sys.argv[1])
program = _op(LOAD, NR)
for number, errno in denied:
    program += _op(JUMP_EQ, number, 0, 1) + _op(RETURN, ERRNO | errno)
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.set_seccomp(program + _op(RETURN, ALLOW))
if no_capabilities:
    kernel.drop_capabilities()
os.execv(command[0], command)
"""
NO_LANDLOCK = (444, 38)  # landlock_create_ruleset: ENOSYS
NO_NAMESPACES = ({"x86_64": 272, "aarch64": 97}.get(os.uname().machine, 272), 1)  # unshare: EPERM


def run(*verb, denied=(), no_capabilities=False, path=None):
    command = [sys.executable, "-m", "ra3kit.cli", *verb]
    words = [sys.executable, "-c", DENY, json.dumps([list(denied), no_capabilities, command])]
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    return subprocess.run(
        words, input=json.dumps(RECORD), capture_output=True, text=True, timeout=200, check=False, env=environment
    )


def verdict(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_where_nothing_holds_nothing_is_run_and_the_reason_is_exact(tmp_path):
    done = run("verify", denied=[NO_LANDLOCK, NO_NAMESPACES], path=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "No sandbox: Landlock ENOSYS, namespaces EPERM, bubblewrap not installed (kernel" in done.stderr
    assert "Install bubblewrap, or use a kernel >= 5.13" in done.stderr
    assert "Nothing was run." in done.stderr


def test_landlock_is_enough_where_namespaces_are_denied():
    found = verdict(run("verify", denied=[NO_NAMESPACES]))
    assert found["verdict"] == "pass"
    assert found["isolation"].startswith("landlock+seccomp+rlimits")
    assert "namespaces" not in found["isolation"]


def test_without_capabilities():
    found = verdict(run("verify", no_capabilities=True))
    assert found["verdict"] == "pass"
    assert found["isolation"].startswith("landlock+seccomp+rlimits")


@pytest.mark.parametrize(("denied", "capabilities"), [([NO_NAMESPACES], True), ([NO_NAMESPACES], False)])
def test_the_zoos_escapes_are_contained_in_a_container(denied, capabilities):
    done = run("doctor", "--only", "escape", denied=denied, no_capabilities=not capabilities)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "The sandbox holds." in done.stdout


def test_namespaces_can_be_declined():
    assert "namespaces" not in verdict(run("verify", "--no-namespaces"))["isolation"]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_where_landlock_is_missing():
    found = verdict(run("verify", denied=[NO_LANDLOCK]))
    assert found["verdict"] == "pass"
    assert found["isolation"].startswith("bubblewrap+seccomp")
    done = run("doctor", "--only", "escape", denied=[NO_LANDLOCK])
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_ordinary_user_has_a_sandbox_too(tmp_path):
    if os.getuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    nobody = 65534

    def as_nobody(*words, text=""):
        command = [sys.executable, *words]
        options = {"user": nobody, "group": nobody, "capture_output": True, "text": True, "check": False, "cwd": "/"}
        return subprocess.run(command, input=text, **options)

    try:
        readable_by_others = as_nobody("-c", "import ra3kit.verify.verifier").returncode == 0
    except PermissionError:
        readable_by_others = False
    if not readable_by_others:
        pytest.skip("other users can't read this Python or this folder")
    done = as_nobody("-m", "ra3kit.cli", "verify", text=json.dumps(RECORD))
    found = verdict(done)
    assert found["verdict"] == "pass"
    assert "uid" not in found["isolation"]


def test_only_the_standard_library_and_what_was_asked_for_can_be_read():
    view = readable(("numpy",))
    assert not any("site-packages" in path and "numpy" not in path for path in view.paths)
    assert set(view.packages) == {"numpy"}
    assert not any(os.path.isdir(os.path.join(folder, "numpy")) for folder in view.listed)
    assert not any(path in ("/", "/etc", "/proc", "/home", "/root", "/tmp", "/dev") for path in view.paths)
    with pytest.raises(NoSandbox, match="no_such_package"):
        readable(("no_such_package",))


def test_labels_and_reasons():
    walls = {"namespaces": "yes", "uid": 5}
    assert label("landlock", walls) == "landlock+seccomp+rlimits+namespaces+uid"
    assert label("landlock", {"namespaces": "unshare: no", "uid": None}) == "landlock+seccomp+rlimits"
    assert label("none", walls) == "none"
    assert shorten("[Errno 38] landlock_create_ruleset: Function not implemented") == "ENOSYS"
    assert shorten("not installed") == "not installed"
    assert "seccomp no table" in str(refusal({"seccomp": "no table"}))
