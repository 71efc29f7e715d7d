"""One rank of the two-process tests: trains the small world and writes what it saw. Started by `torch.distributed.run`.

python -m torch.distributed.run --nproc-per-node 2 worker.py STRATEGY STAGE OUT
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch
from small_world import data, fit, policy, ra3

from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.report import RunReport
from ra3kit.optimize import Optimization
from ra3kit.ranks import gather, rank
from ra3kit.sharding import FullyShardedStrategy

LEARNER: dict[str, Any] = {"rollouts": 3, "scale": "line_sum", "optimization": Optimization(lr=1e-3, warmup=0.0)}


class Record(L.Callback):
    """Keeps every logged number of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.calls: list[list[int]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        if getattr(pl_module, "phase", None) == "e":
            self.calls.append(gather(pl_module.posterior.engine.stats.calls))


def strategy(name: str) -> Any:
    return FullyShardedStrategy() if name == "fsdp2" else name


def train(stage: str, out: Path, how: str, devices: int) -> dict[str, Any]:
    """One run of the small world; what it logged, and its weights are in OUT/model."""
    record = Record()
    settings: dict[str, Any] = {"strategy": strategy(how), "devices": devices}
    world = out.parent / "corpus"
    if stage == "ntp":
        module: L.LightningModule = policy(seed=3)
        feed = data(world, snippets_per_step=4)
        trainer = fit(out, module, feed, None, [record, RunReport()], max_epochs=2, **settings)
        scores: list[Any] = []
    else:
        shared = stage == "shared"
        module = ra3(
            posterior=CausalPosterior(max_length=5, slots=4, capacity=400, weights="shared" if shared else "separate"),
            learner=AbstractionLearner(**LEARNER, kl_coef=0.1, entropy_coef=0.01),
        )
        feed = data(world, snippets_per_step=4)
        switch = EMSwitch(iterations=2, warmup_steps=2, e_steps=3, m_steps=4)
        trainer = fit(out, module, feed, switch, [record, RunReport()], **settings)
        scores = module.scores
    assert trainer.world_size == devices
    return {"steps": record.steps, "scores": scores, "calls": record.calls}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    how, stage, out = sys.argv[1:]
    seen = train(stage, Path(out), how, 2)
    Path(out).mkdir(parents=True, exist_ok=True)
    torch.save(seen, Path(out) / f"rank-{rank()}.pt")
