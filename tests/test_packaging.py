"""What is shipped: one package with callbacks and recipes inside; pins that fit; make targets that work, once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(source: Path, target: str, folder: Path) -> Path:
    """Build a wheel or an sdist with the build backend, without a network."""
    pytest.importorskip("hatchling", reason="hatchling comes with the extra `dev`")
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl" if target == "wheel" else "*.tar.gz"))


def python_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if "__pycache__" not in path.parts}


def test_the_wheel_holds_one_package_with_callbacks_and_recipes(tmp_path: Path) -> None:
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = next((tmp_path / "unpacked").iterdir())
    for source, name in ((ROOT, "direct"), (unpacked, "from_sdist")):
        names = set(zipfile.ZipFile(build(source, "wheel", tmp_path / name)).namelist())
        tops = {item.split("/")[0] for item in names}
        assert {top for top in tops if not top.endswith(".dist-info")} == {"ra3kit"}
        assert {f"ra3kit/callbacks/{item}" for item in python_files(ROOT / "callbacks")} <= names
        recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.yaml")}
        assert {f"ra3kit/{item}" for item in recipes} <= names
        assert {f"ra3kit/{item}" for item in python_files(ROOT / "ra3kit")} <= names
        assert any(item.endswith("licenses/LICENSE") for item in names)
        entry_points = next(item for item in names if item.endswith("entry_points.txt"))
        wheel = next((tmp_path / name).glob("*.whl"))
        assert b"ra3kit = ra3kit.cli:main" in zipfile.ZipFile(wheel).read(entry_points)


def test_callbacks_and_recipes_are_relative_links() -> None:
    for name in ("callbacks", "recipes"):
        assert os.readlink(ROOT / "ra3kit" / name) == f"../{name}"


def test_a_second_copy_of_the_callbacks_cannot_be_imported() -> None:
    command = [sys.executable, "-c", "import callbacks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "import ra3kit.callbacks, not callbacks" in done.stderr


def test_every_dependency_is_pinned_to_a_version_that_fits() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(item for extra in extras.values() for item in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name == "ra3kit":
            continue
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow {pins[name]}"
    assert not [version for version in pins.values() if "+" in version]  # a local build would shut others out


# --- make and .ci/run, with a stub in the place of Python ------------------------------------------------------------

STUB = """#!/bin/sh
echo "$@" >> calls.txt
case "$*" in
  *pytest*) [ -f failing ] && { echo "1 failed, 2 passed in 0.10s"; exit 1; }; echo "3 passed in 0.10s";;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that make needs, and a `.venv` whose Python only writes down what it was asked."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return tmp_path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_make_installs_once_with_the_constraints_and_runs_the_fast_tests(checkout: Path) -> None:
    for _ in range(2):
        assert run(["make", "test"], checkout).returncode == 0
    calls = (checkout / "calls.txt").read_text().splitlines()
    installs = [call for call in calls if " install " in call]
    assert len(installs) == 1
    assert "--constraint constraints.txt --editable .[dev]" in installs[0]
    assert sum("pytest -m not slow and not gpu --timeout=" in call for call in calls) == 2
    os.utime(checkout / "constraints.txt", (2**31, 2**31))  # a later change of the pins
    run(["make", "test"], checkout)
    assert (checkout / "calls.txt").read_text().count(" install ") == 2


def test_quickstart_installs_and_fits(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "ra3kit").write_text('#!/bin/sh\necho "ran $@"\n')
    (checkout / ".venv" / "bin" / "ra3kit").chmod(0o755)
    done = run(["make", "quickstart"], checkout)
    assert done.stdout.endswith("ran fit --recipe quickstart\n")
    assert "--editable .[plot]" in (checkout / "calls.txt").read_text()


def test_make_lists_its_targets(checkout: Path) -> None:
    listed = {line.split()[0] for line in run(["make"], checkout).stdout.splitlines()}
    rules = re.findall(r"^([a-z-]+):", (checkout / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(rules)
    assert {"quickstart", "test", "test-slow", "check", "clean"} <= listed


def test_an_old_python_is_refused_with_a_way_out(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    (checkout / "old").write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1\nexit 1\n')
    (checkout / "old").chmod(0o755)
    done = run(["make", "test", "PYTHON=./old"], checkout)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed; ./old is Python 3.9.1. Try: make PYTHON=python3.11 test" in done.stdout


def test_the_check_of_a_clone_ends_with_the_closing_line_of_pytest(checkout: Path) -> None:
    passed = run([str(checkout / ".ci" / "run")], checkout.parent)
    assert (passed.returncode, passed.stdout.splitlines()[-1]) == (0, "3 passed in 0.10s")
    (checkout / "failing").touch()
    failed = run([str(checkout / ".ci" / "run")], checkout.parent)
    assert failed.returncode != 0
    assert failed.stdout.splitlines()[-1] == "1 failed, 2 passed in 0.10s"
