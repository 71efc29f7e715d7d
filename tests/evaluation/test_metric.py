"""PassAtK through torchmetrics' own calls, on one process and on two."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ra3kit.errors import DataError
from ra3kit.evaluation.metric import PassAtK, problem_key
from ra3kit.evaluation.passk import estimate

ROWS = [
    ("HumanEval/0", 3, 1),
    ("HumanEval/1", 2, 0),
    ("HumanEval/0", 2, 2),
    ("HumanEval/2", 0, 0),
    ("HumanEval/3", 5, 4),
]
KS = (1, 5)


def metric_of(rows: list[tuple[str, int, int]], ks: tuple[int, ...] = KS) -> PassAtK:
    metric = PassAtK(ks=ks, resamples=199)
    for row in rows:
        metric.update(*row)
    return metric


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key].nan_to_num(-1), b[key].nan_to_num(-1)) for key in a)


def test_samples_are_merged_by_problem_before_anything_is_computed() -> None:
    found = metric_of(ROWS).compute()
    assert found["pass@1"].item() == pytest.approx((3 / 5 + 0 / 2 + 4 / 5) / 3)
    assert found["pass@5"].item() == 1.0  # problems 0 and 3; no update alone has 5 samples of problem 0
    assert found["pass@1_left_out"].item() == 1  # nothing of problem 2 was judged
    assert found["pass@5_left_out"].item() == 2
    assert list(found) == [f"pass@{k}{what}" for k in KS for what in ("", "_lo", "_hi", "_left_out")]
    assert all(value.dtype == torch.float64 for value in found.values())


def test_the_figures_are_those_of_estimate() -> None:
    outcomes = {f"t{i}": ["pass"] * (i % 4) + ["fail"] * (4 - i % 4) for i in range(40)}
    metric = PassAtK(ks=(1, 3), resamples=499, seed=5)
    for task, statuses in outcomes.items():
        metric.update(task, len(statuses), statuses.count("pass"))
    found = metric.compute()
    for key, score in estimate(outcomes, (1, 3), seed=5, resamples=499).items():
        assert [found[key], found[f"{key}_lo"], found[f"{key}_hi"]] == [score.value, score.lo, score.hi]


def test_the_order_of_updates_does_not_matter() -> None:
    assert same(metric_of(ROWS).compute(), metric_of(ROWS[::-1]).compute())
    assert same(metric_of(ROWS).compute(), metric_of(ROWS[2:] + ROWS[:2]).compute())


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    metric = PassAtK(ks=KS, resamples=199)
    for row in ROWS:
        assert same(metric(*row), metric_of([row]).compute())
    assert same(metric.compute(), metric_of(ROWS).compute())
    metric.reset()
    assert metric.rows == []
    metric.update("HumanEval/9", 1, 1)
    assert metric.compute()["pass@1"].item() == 1.0


def test_nothing_seen_is_nan_and_not_zero() -> None:
    metric = metric_of([("a", 2, 2)])
    assert math.isnan(metric.compute()["pass@5"])
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        found = metric.compute()
    assert math.isnan(found["pass@1"])
    assert found["pass@1_left_out"].item() == 0


def test_the_state_is_kept_when_asked_for() -> None:
    assert metric_of(ROWS).state_dict() == {}
    kept = metric_of(ROWS[:3])
    kept.persistent(True)
    loaded = PassAtK(ks=KS, resamples=199)
    loaded.persistent(True)
    loaded.load_state_dict(kept.state_dict())
    for row in ROWS[3:]:
        loaded.update(*row)
    assert same(loaded.compute(), metric_of(ROWS).compute())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_counts_stay_whole_in_a_module_of_a_shorter_dtype(dtype: torch.dtype) -> None:
    owner = torch.nn.Module()
    owner.metric = metric_of(ROWS)
    owner.to(dtype)
    owner.metric.update("HumanEval/1", 1001, 1)
    whole = metric_of([*ROWS, ("HumanEval/1", 1001, 1)])
    assert same(owner.metric.compute(), whole.compute())


def test_an_index_will_do_for_an_id() -> None:
    metric = PassAtK(resamples=199)
    metric.update(7, 1, 1)
    metric.update(7, 1, 0)
    assert metric.compute()["pass@1"].item() == 0.5


def test_ids_have_fixed_keys_that_fit_int64() -> None:
    keys = {problem_key(f"HumanEval/{i}") for i in range(1000)}
    assert len(keys) == 1000
    assert all(0 <= key < 2**63 for key in keys)
    assert problem_key("HumanEval/0") == 0x6B2E620B09A40C8  # in every process, on every machine


@pytest.mark.parametrize(("judged", "passed"), [(1, 2), (-1, -1), (2, -1)])
def test_counts_that_cannot_be_are_refused(judged: int, passed: int) -> None:
    with pytest.raises(DataError, match=f"HumanEval/0: {passed} of {judged} samples passed"):
        PassAtK().update("HumanEval/0", judged, passed)


@pytest.mark.parametrize("ks", [(), (1, 0)])
def test_ks_that_mean_nothing_are_refused(ks: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least one k"):
        PassAtK(ks=ks)


def on_rank(rank: int, folder: Path) -> None:
    """One of two processes; saves what it computed."""
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meet'}", rank=rank, world_size=2)
    spread = metric_of(ROWS[rank::2])
    spread.update("HumanEval/4", 5, rank)
    lonely = metric_of(ROWS if rank == 1 else [])  # the other process sees nothing: it must still take part
    before = len(spread.rows)
    torch.save((spread.compute(), lonely.compute(), before == len(spread.rows)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow  # the fast tests see it at work in tests/distributed
def test_two_processes_are_one(tmp_path: Path) -> None:
    # run as a script: a spawned function is found by its module's name, and installed packages may claim `tests`
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    try:
        assert [process.wait(timeout=100) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    whole = metric_of([*ROWS, ("HumanEval/4", 10, 1)])
    for rank in range(2):
        spread, lonely, unsynced = torch.load(tmp_path / f"{rank}.pt")
        assert same(spread, whole.compute())
        assert same(lonely, metric_of(ROWS).compute())
        assert unsynced  # torchmetrics takes the others' rows out again


if __name__ == "__main__":
    on_rank(int(sys.argv[1]), Path(sys.argv[2]))
