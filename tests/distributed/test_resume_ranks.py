"""A run of two processes, stopped, goes on with two, with one, and under another strategy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from interrupted import Stopped
from small_grpo import SmallData, ending_policy, grpo
from small_world import corpus, data, fit, ra3

from ra3kit import checkpoints
from ra3kit.callbacks.checkpoints import Checkpoints, Resume
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.data.store import BootstrappedStore
from ra3kit.ranks import gather
from ra3kit.sharding import FullyShardedStrategy

EM = {"iterations": 2, "warmup_steps": 2, "e_steps": 2, "m_steps": 2, "shard_size": 4}


class StopAt(L.Callback):
    """Ends the process after a step, or the training where it is that of the tests."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            if "RANK" not in os.environ:
                raise Stopped
            os._exit(9)


class Answers(L.Callback):
    """Writes down what every step was trained on, of all ranks."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        own = {group[0].task.problem.id: [a.completion.ids for a in group] for group in pl_module.last_answers}
        everywhere = sorted(pair for part in gather(own) for pair in part.items())
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / f"answers-{trainer.global_step}.json"
            path.write_text(json.dumps(everywhere))


def train(how: str, run: Path, stop: int, devices: int, stage: str = "ra3") -> None:
    """The small world, or GRPO that samples ahead, from its newest checkpoint."""
    found = checkpoints.find(run)
    feed: L.LightningDataModule
    if stage == "grpo":
        module: L.LightningModule = grpo(ending_policy(seed=3), mask_truncated=False, staleness=1, minibatches=2)
        feed, own = SmallData(8), [Answers()]
        settings = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 0}
    else:
        module, feed, own = ra3(), data(run.parent / "corpus", snippets_per_step=4), [EMSwitch(**EM)]
        settings = {"max_epochs": -1}
    fit(
        run,
        module,
        feed,
        None,
        [Resume(found[-1] if found else None), *own, StopAt(stop), Checkpoints(every_n_steps=1)],
        enable_checkpointing=True,
        strategy=FullyShardedStrategy() if how == "fsdp2" else how,
        devices=devices,
        **settings,
    )


def two(how: str, run: Path, stop: int = 0, stage: str = "ra3") -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    paths = [str(Path(checkpoints.__file__).parent.parent), str(Path(__file__).parent.parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [*command, how, str(run), str(stop), stage],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == (1 if stop else 0), done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_go_on_as_two_as_one_and_replicated(tmp_path: Path) -> None:
    corpus(tmp_path / "corpus")
    two("fsdp2", tmp_path / "unbroken")
    wanted = checkpoints.weights(tmp_path / "unbroken")
    for stop in (3, 7):  # inside an E-step, after annotation by both
        for how in ("fsdp2", "one", "ddp"):
            run = tmp_path / f"{how}-{stop}"
            two("fsdp2", run, stop)
            assert checkpoints.about(checkpoints.resolve(run))["processes"] == 2
            train("auto", run, 0, 1) if how == "one" else two(how, run)
            for name, value in checkpoints.weights(run).items():
                if how == "fsdp2":
                    assert torch.equal(value, wanted[name]), name
                else:  # sums are rounded in another order, which AdamW makes more of where gradients are tiny
                    assert (value - wanted[name]).norm() <= 1e-2 * wanted[name].norm(), f"{how}, {name}"
            for iteration in ("iteration-0", "iteration-1"):
                mine, its = (BootstrappedStore.open(r / "store" / iteration) for r in (run, tmp_path / "unbroken"))
                assert [t.snippet_id for t in mine] == [t.snippet_id for t in its]


@pytest.mark.slow
def test_answers_sampled_ahead_go_along_whoever_trains_on_them(tmp_path: Path) -> None:
    """Two processes stop, one goes on and stops, then two others: each trains on what an unbroken run trains on."""
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    unbroken.mkdir()
    run.mkdir()
    train("auto", unbroken, 0, 1, "grpo")
    two("fsdp2", run, 4, "grpo")
    with pytest.raises(Stopped):
        train("auto", run, 8, 1, "grpo")
    two("ddp", run, 12, "grpo")
    two("fsdp2", run, 0, "grpo")
    for step in range(2, 19, 2):
        mine, its = (json.loads((folder / f"answers-{step}.json").read_text()) for folder in (run, unbroken))
        assert mine == its, step
    wanted = checkpoints.weights(unbroken)
    for name, value in checkpoints.weights(run).items():
        assert (value - wanted[name]).norm() <= 1e-3 * wanted[name].norm(), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    strategy, folder, at, what = sys.argv[1:]
    train(strategy, Path(folder), int(at), 2, what)
