"""Work in processes of its own: what each prints goes to a file, and what it costs is measured, also over kills.

The processes are children of a fork server that has loaded the kit once, so one starts in a moment. One ends when the
study does, however that ends. Its CPU seconds are written down while it works: those of a job that was killed and goes
on count all its tries.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ra3kit.study.files import write_json

BEAT = 2.0
"""Seconds between two notes of the cost."""
PRELOAD = (
    "ra3kit.study.measures",
    "ra3kit.study.posteriors",
    "ra3kit.build",
    "ra3kit.cli.eval",
    "ra3kit.cli.fit",
    "ra3kit.evaluation.sampling",
    "ra3kit.callbacks.report",
    "ra3kit.rlvr.data",
    "ra3kit.study.lists",
    "omegaconf",
    "pandas",
    "torch.utils.tensorboard",
    "transformers.models.qwen2.modeling_qwen2",
    "matplotlib.backends.backend_agg",
)
"""What every job needs; what is not installed is left out."""


class Jobs:
    """Starts jobs, and tells when one is done.

    Args:
        preload: modules that the fork server loads.
    """

    def __init__(self, preload: tuple[str, ...] = PRELOAD) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))
        self.running: dict[ForkServerProcess, Any] = {}

    def start(self, key: Any, log: Path, costs: Path, work: str, settings: Mapping[str, Any]) -> None:
        """Start a job.

        Args:
            key: what `finished` will name it by.
            log: file that its output is appended to.
            costs: folder that its cost is written into.
            work: import path of a function.
            settings: its keyword arguments.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = (os.getcwd(), str(log), str(costs), work, dict(settings))
        process = self.context.Process(target=_job, args=arguments)
        process.start()
        self.running[process] = key

    def finished(self, timeout: float | None = None) -> list[tuple[Any, int]]:
        """Wait until a job is done: (key, exit code) of each that is; empty when `timeout` seconds have passed."""
        sentinels = {process.sentinel: process for process in self.running}
        done = []
        for sentinel in wait(list(sentinels), timeout):
            process = sentinels[sentinel]  # type: ignore[index]
            process.join()
            done.append((self.running.pop(process), process.exitcode or 0))
        return done

    def stop(self) -> None:
        """End all jobs; what they have written stays, and they can go on."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.join()
        self.running.clear()


def cost(folder: Path) -> dict[str, float]:
    """CPU and wall seconds of all tries of a job, and how many there were."""
    tries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {
        "cpu_seconds": sum(one["cpu_seconds"] for one in tries),
        "wall_seconds": sum(one["wall_seconds"] for one in tries),
        "tries": len(tries),
    }


# --- in the process --------------------------------------------------------------------------------------------------


def _job(cwd: str, log: str, costs: str, work: str, settings: dict[str, Any]) -> None:
    os.chdir(cwd)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    with _Meter(Path(costs)):
        module, _, name = work.rpartition(".")
        function: Callable[..., None] = getattr(importlib.import_module(module), name)
        function(**settings)


class _Meter:
    """Notes what the process has cost so far, every few seconds and at its end; ends it when its parent has ended."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{1 + len(list(folder.glob('*.json'))):03d}.json"
        self.begun, self.before = time.monotonic(), _cpu_seconds()
        self.over, self.end = os.pipe()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _Meter:
        self._note()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self.end, b"x")
        self.thread.join()
        self._note()

    def _note(self) -> None:
        spent = {"cpu_seconds": _cpu_seconds() - self.before, "wall_seconds": time.monotonic() - self.begun}
        write_json(self.path, spent)

    def _beat(self) -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        while True:
            told = wait([self.over, parent.sentinel], BEAT)
            if self.over in told:
                return
            if told:  # as if killed with its parent: what is whole on disk counts
                os.kill(os.getpid(), signal.SIGKILL)
            self._note()


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)
