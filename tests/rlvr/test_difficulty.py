"""Problems chosen by pass rate: which stay, and that nothing is measured twice, or missed."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ra3kit.errors import DataError
from ra3kit.rlvr import difficulty
from ra3kit.rlvr.difficulty import Chosen, DifficultyFilter, read_cache
from ra3kit.rlvr.tasks import Task
from ra3kit.verify.problem import Problem, Streams

RATES = {"p0": (0, 4), "p1": (1, 4), "p2": (4, 4), "p3": (0, 0), "p4": (3, 3), "p5": (1, 2), "p6": (0, 1)}
TASKS = [Task(Problem(name, Streams([name], ["1"]), name), [1, 2 + i], ("\n",)) for i, name in enumerate(RATES)]


class Start:
    """A policy with known pass rates that notes what it is asked; it fails at the task named `dies_at`."""

    def __init__(self, weight: float = 1.0, dies_at: str = "") -> None:
        self.policy = SimpleNamespace(model=torch.nn.Linear(1, 1, bias=False))
        torch.nn.init.constant_(self.policy.model.weight, weight)
        self.temperature, self.max_new_tokens = 1.0, 64
        self.dies_at = dies_at
        self.asked: list[tuple[list[str], int, int]] = []

    def pass_rates(self, tasks: Sequence[Task], samples: int, seed: int) -> list[tuple[int, int]]:
        names = [task.problem.id for task in tasks]
        if self.dies_at in names:
            raise KeyboardInterrupt
        self.asked.append((names, samples, seed))
        return [RATES[name] for name in names]

    @property
    def names(self) -> list[str]:
        return [name for names, _, _ in self.asked for name in names]


def choose(folder: Path, module: Start | None = None, tasks: Sequence[Task] = TASKS, **settings: Any) -> Chosen:
    return DifficultyFilter(**{"samples": 4, "chunk": 3, **settings}).choose(tasks, module or Start(), folder)


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ({}, {"p1", "p5"}),
        ({"low": 0.25}, {"p5"}),
        ({"high": 0.5}, {"p1"}),
        ({"low": -1}, {"p0", "p1", "p5", "p6"}),
        ({"high": 2}, {"p1", "p2", "p4", "p5"}),
    ],
)
def test_what_is_kept_and_the_counts_of_what_is_not(tmp_path: Path, bounds: dict[str, float], kept: set[str]) -> None:
    chosen = choose(tmp_path, **bounds)
    assert set(chosen.kept) == kept
    fates = [chosen.counts[name] for name in ("kept", "too easy", "too hard", "not judged")]
    assert sum(fates) == len(TASKS)
    assert (fates[0], fates[3]) == (len(kept), 1)  # of p3 nothing is known: that is neither hard nor easy
    assert chosen.counts["mean pass rate"] == round((0 + 1 / 4 + 1 + 1 + 1 / 2 + 0) / 6, 4)


def test_it_is_measured_in_chunks_and_never_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Start(), Start()
    chosen = choose(tmp_path, first, seed=5)
    assert first.asked == [(["p0", "p1", "p2"], 4, 5), (["p3", "p4", "p5"], 4, 5), (["p6"], 4, 5)]
    assert "2 of 7 problems have 0 < pass rate < 1, 4 answers each (kept 2, too easy 2, " in capsys.readouterr().out
    again = choose(tmp_path, second, seed=5)
    assert (second.asked, again.kept) == ([], chosen.kept)
    assert f"0 measured in 0 s, 7 from {tmp_path / 'difficulty.jsonl'}" in capsys.readouterr().out
    later = Start()
    more = [*TASKS[:2], Task(Problem("p4", Streams(["p4"], ["other"]), "p4"), [1, 6], ("\n",))]  # another test
    choose(tmp_path, later, more, seed=5)
    assert later.names == ["p4"]


def test_other_weights_and_other_sampling_are_measured_anew(tmp_path: Path) -> None:
    def measured(module: Start, tasks: Sequence[Task] = TASKS, **settings: Any) -> int:
        choose(tmp_path, module, tasks, cache=str(tmp_path / "shared.jsonl"), **settings)
        return len(module.names)

    hot, long = Start(), Start()
    hot.temperature, long.max_new_tokens = 0.5, 65
    restyled = [Task(task.problem, [1, 99], task.stops, "stub") for task in TASKS]
    assert measured(Start()) == 7
    for module, tasks, settings in [
        (Start(1.0 + 1e-7), TASKS, {}),
        (hot, TASKS, {}),
        (long, TASKS, {}),
        (Start(), restyled, {}),
        (Start(), TASKS, {"samples": 5}),
        (Start(), TASKS, {"seed": 1}),
    ]:
        assert measured(module, tasks, **settings) == 7
    assert measured(Start()) == measured(Start(), high=0.3) == 0  # bounds are no part of a measurement
    assert len(read_cache(tmp_path / "shared.jsonl")) == 7 * 7


def test_a_killed_measurement_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        choose(tmp_path, Start(dies_at="p4"))
    cache = tmp_path / "difficulty.jsonl"
    whole = cache.read_bytes()
    assert [json.loads(line)["id"] for line in whole.splitlines()] == ["p0", "p1", "p2"]
    cache.write_bytes(whole[:-20])  # killed while it wrote, so p2 is not there
    module = Start()
    assert set(choose(tmp_path, module).kept) == {"p1", "p5"}
    assert module.names == ["p2", "p3", "p4", "p5", "p6"]
    assert [json.loads(line)["id"] for line in cache.read_text().splitlines()] == ["p0", "p1", *module.names]


def test_a_file_that_is_no_cache_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match=r"notes.jsonl: line 1 is no measurement"):
        choose(tmp_path, cache=str(path))
    assert path.read_text() == '{"a": 1}\n'


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 3 problems none has 0 < pass rate < 1: kept 0, too easy 1, too hard 1"):
        choose(tmp_path, tasks=[TASKS[0], TASKS[2], TASKS[3]])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"samples": 0}, "samples=0"),
        ({"low": 1.0}, "low=1.0"),
        ({"low": 0.5, "high": 0.5}, "high=0.5"),
        ({"high": float("nan")}, "high=nan"),
        ({"chunk": 0}, "chunk=0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=f"data.difficulty.{named}"):
        DifficultyFilter(**settings)


def test_processes_share_the_work_and_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads as processes. The second has no folder in common with the first, and another cache there."""
    choose(tmp_path / "1", tasks=TASKS[1:3])
    world, here = 2, threading.local()
    meeting, told = threading.Barrier(world, timeout=20), [None] * world

    def gather(value: Any) -> list[Any]:
        told[here.rank] = value
        meeting.wait()
        everywhere = list(told)
        meeting.wait()
        return everywhere

    monkeypatch.setattr(difficulty, "gather", gather)
    monkeypatch.setattr(difficulty, "rank", lambda: here.rank)
    monkeypatch.setattr(difficulty, "world_size", lambda: world)
    modules, chosen = [Start(), Start()], [Chosen([], {})] * world

    def work(rank: int) -> None:
        here.rank = rank
        chosen[rank] = choose(tmp_path / str(rank), modules[rank], chunk=2)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(chosen[0].kept) == {"p1", "p5"}
    assert chosen[0] == chosen[1]
    assert [names for names, _, _ in modules[0].asked] == [["p0", "p2"], ["p4", "p6"]]
    assert [names for names, _, _ in modules[1].asked] == [["p1", "p3"], ["p5"]]
    assert len(read_cache(tmp_path / "0" / "difficulty.jsonl")) == len(TASKS)
    assert len(read_cache(tmp_path / "1" / "difficulty.jsonl")) == 2  # the first says what is known, and writes
