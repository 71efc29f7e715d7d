"""Jobs: their output, their cost, how they end, and that none outlives the study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ra3kit.study.files import write_json
from ra3kit.study.jobs import Jobs, cost

START = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from ra3kit.study.jobs import Jobs
folder, jobs = Path(sys.argv[1]), Jobs(())
jobs.start(1, folder / "log", folder / "costs", "test_jobs.linger", {"pid": str(folder / "pid")})
jobs.finished()
"""


def say(text: str, code: int, burn: float = 0.0) -> None:
    """A job that works for so many CPU seconds."""
    until = time.process_time() + burn
    while time.process_time() < until:
        pass
    print(text, flush=True)
    if code:
        raise SystemExit(code)


def linger(pid: str) -> None:
    """A job that would never end."""
    Path(pid).with_suffix(".tmp").write_text(str(os.getpid()))
    Path(pid).with_suffix(".tmp").rename(pid)
    while True:
        time.sleep(1)


def test_output_cost_and_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    jobs = Jobs()
    for key, code in (("good", 0), ("bad", 3)):
        settings = {"text": f"I am {key}", "code": code, "burn": 0.3}
        jobs.start(key, tmp_path / f"{key}.log", tmp_path / key, "test_jobs.say", settings)
    ended = dict(jobs.finished())
    while jobs.running:
        ended |= dict(jobs.finished())
    assert ended == {"good": 0, "bad": 3}
    assert "I am good" in (tmp_path / "good.log").read_text()
    for key in ended:
        found = cost(tmp_path / key)
        assert found["tries"] == 1
        assert found["cpu_seconds"] >= 0.3
        assert found["wall_seconds"] >= 0.3


def test_no_job_outlives_the_study(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    study = subprocess.Popen([sys.executable, "-c", START, str(tmp_path), here])
    while not (tmp_path / "pid").exists():
        assert study.poll() is None
        time.sleep(0.02)
    job = int((tmp_path / "pid").read_text())
    study.send_signal(signal.SIGKILL)
    study.wait()
    for _ in range(500):
        try:
            os.kill(job, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        os.kill(job, signal.SIGKILL)
        pytest.fail("it goes on")
    assert cost(tmp_path / "costs")["tries"] == 1  # what it cost is known all the same


def test_stop_ends_what_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    jobs = Jobs()
    jobs.start(1, tmp_path / "log", tmp_path / "costs", "test_jobs.linger", {"pid": str(tmp_path / "pid")})
    while not (tmp_path / "pid").exists():
        time.sleep(0.02)
    jobs.stop()
    assert not jobs.running
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_all_tries_count(tmp_path: Path) -> None:
    for number, seconds in ((1, 2.0), (2, 0.5)):
        write_json(tmp_path / f"{number:03d}.json", {"cpu_seconds": seconds, "wall_seconds": 2 * seconds})
    assert cost(tmp_path) == {"cpu_seconds": 2.5, "wall_seconds": 5.0, "tries": 2}
