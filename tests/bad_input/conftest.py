"""A desk with a corpus and recipes that train in seconds, and a way to see what is said of a mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_recipes import NTP, RA3, RLVR, write_code

from ra3kit.cli import main

Refused = Callable[..., str]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder: `code/` and the recipes. What is imported from it is forgotten afterwards."""
    write_code(tmp_path / "code")
    (tmp_path / "ntp.yaml").write_text(NTP)
    (tmp_path / "ra3.yaml").write_text(RA3)
    (tmp_path / "rlvr.yaml").write_text(RLVR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def refused(desk: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line; it must end in 2, say one line that begins with "error:", and leave the desk as it was."""

    def run(*arguments: str) -> str:
        before = sorted(desk.rglob("*"))
        capsys.readouterr()
        assert main(list(arguments)) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "Traceback"))]
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        made = {path for path in desk.rglob("*") if "__pycache__" not in path.parts} - set(before)
        assert {path.relative_to(desk).as_posix() for path in made} <= {"runs", "runs/ntp", "runs/ra3", "runs/rlvr"}
        return lines[0]

    return run
