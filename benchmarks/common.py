"""What all benchmark scripts share: interleaved timing, peak memory, the results file and its table.

A results file is `benchmarks/results/NAME.json`:
`{"name", "command", "date", "versions", "machine", "seed", "figures": {"<what>_<condition>": number},
"ratios": {"<ours>_vs_<peer>_<condition>": number}}`.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ra3kit import environment

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


@dataclass(frozen=True)
class Seconds:
    """Medians over the repeats: CPU seconds of this process (all threads) and wall seconds."""

    cpu: float
    wall: float


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, Seconds]:
    """Time the calls in turn, `repeats` rounds of all of them, so that a busy machine is unfair to none.

    Args:
        calls: what to time, by name. Warm up beforehand where the first call differs.
        repeats: rounds, >= 1.
        device: on "cuda" the clock stops when the device is done.
    """
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            synchronize(device)
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            synchronize(device)
            seen[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: Seconds(*(statistics.median(values) for values in zip(*times, strict=True)))
        for name, times in seen.items()
    }


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def peak_memory(call: Callable[[], Any], device: str = "cpu") -> float:
    """MiB that the call needs at its peak beyond what was there before; nan where the system does not tell."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(
            0
        )  # what earlier calls freed is given back, or it would hide this one's need
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from what is resident now
    except (OSError, AttributeError):
        call()
        return float("nan")
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / MIB


def _status(key: str) -> int:
    """Bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of the packages; "-" for one that is not installed."""
    return {"python": platform.python_version(), **environment.versions(packages)}


def machine(device: str = "cpu") -> str:
    """ "n cores, cpu", and the accelerator where one is used."""
    text = f"{os.cpu_count()} cores, {environment.cpu_model()}"
    if device == "cuda":
        import torch

        text += f", {torch.cuda.get_device_name()}"
    return text


@dataclass
class Report:
    """Collects figures and ratios; prints them as a table and writes the results file.

    Args:
        name: of the benchmark.
        seed: of everything random in it.
        packages: whose versions belong to the result.
        device: "cpu" or "cuda".
    """

    name: str
    seed: int
    packages: Sequence[str]
    device: str = "cpu"
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The results file's content."""
        return {
            "name": self.name,
            "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "date": datetime.date.today().isoformat(),
            "versions": versions(self.packages),
            "machine": machine(self.device),
            "seed": self.seed,
            "figures": {key: _short(value) for key, value in self.figures.items()},
            "ratios": {key: _short(value) for key, value in self.ratios.items()},
        }

    def finish(self, out: Path | None) -> None:
        """Print the table; write the file where a path is given."""
        content = self.as_dict()
        for title in ("figures", "ratios"):
            rows = [(key, f"{value:g}") for key, value in content[title].items()]
            print(f"\n{title}")
            print(table(rows))
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(content, indent=1) + "\n")
            print(f"\nwritten to {out}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def default_out(name: str, quick: bool) -> Path | None:
    """Where results go unless told otherwise: nowhere for a quick run, which is no result."""
    return None if quick else RESULTS / f"{name}.json"
