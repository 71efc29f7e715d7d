"""One rank of the two-process tests: trains the small world and writes down what it saw.

    python -m torch.distributed.run --nproc-per-node 2 worker.py OUT JOB [JOB ...]

A job is STAGE:STRATEGY[:OPTION], such as ra3:fsdp2, ntp:fsdp2:bf16 or grpo:ddp:ahead. OUT/corpus is there already; what
the rank saw in a job is in OUT/JOB/rank-R.pt.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lightning as L
import torch
from small_grpo import SmallData, TextJudge, ending_policy, even, grpo
from small_world import data, fit, policy, ra3

from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.abstraction.prior import FixedPenalty
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.pass_at_k import PassAtK
from ra3kit.callbacks.report import RunReport
from ra3kit.models import base_model
from ra3kit.optimize import Optimization
from ra3kit.ranks import gather, rank, world_size
from ra3kit.rlvr.difficulty import DifficultyFilter
from ra3kit.rlvr.grpo import GRPOModule
from ra3kit.rlvr.rows import split
from ra3kit.sharding import FullyShardedStrategy, gathered, shard

LEARNER: dict[str, Any] = {
    "rollouts": 3,
    "scale": "line_sum",
    "kl_coef": 0.1,
    "entropy_coef": 0.01,
    "tokens_per_forward": 300,
    "optimization": Optimization(lr=1e-3, warmup=0.0),
}


class Record(L.Callback):
    """Keeps every logged number of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def settings_of(how: str, option: str) -> dict[str, Any]:
    """Trainer settings; "one" is a single process without a strategy."""
    precision = "bf16-mixed" if option == "bf16" else "32-true"
    strategy = FullyShardedStrategy() if how == "fsdp2" else "auto" if how == "one" else how
    return {"strategy": strategy, "devices": 1 if how == "one" else 2, "precision": precision}


def train(out: Path, stage: str, how: str, option: str = "") -> dict[str, Any]:
    """One run of the small world in OUT/JOB; what it logged. Its models are there, too."""
    record = Record()
    settings = settings_of(how, option)
    # with these sizes the ranks have different numbers of rows in most steps
    sizes = {"tokens_per_step": 600, "tokens_per_forward": 220} if option == "recompute" else {}
    feed = data(out / "corpus", snippets_per_step=4, **sizes)
    folder = out / ":".join(part for part in (stage, how, option) if part)
    callbacks: list[L.Callback] = [record, RunReport()]
    module: Any
    if stage == "ntp":
        module = policy(seed=3)
        if option == "passk":
            callbacks.append(PassAtK(limit=3, max_new_tokens=6, n=2, temperature=1.0))
        if option == "recompute":
            base_model(module.model).gradient_checkpointing_enable({"use_reentrant": False})
        fit(folder, module, feed, None, callbacks, max_epochs=2, **settings)
        return {"steps": record.steps, "scores": []}
    q = CausalPosterior(max_length=5, slots=4, capacity=400, weights="shared" if stage == "shared" else "separate")
    # in double precision: rounding that depends on how rows are shared out must not turn a draw, on any processor
    module = ra3(policy(think=4.0, seed=3).double(), posterior=q, learner=AbstractionLearner(**LEARNER))
    fit(folder, module, feed, EMSwitch(iterations=2, warmup_steps=2, e_steps=3, m_steps=4), callbacks, **settings)
    return {"steps": record.steps, "scores": module.scores}


def uneven(out: Path, stage: str, how: str, option: str = "") -> dict[str, Any]:
    """One E-step update of a sharded q with one snippet on rank 0 and all others on rank 1, and what each rank did."""
    module, q = policy(think=4.0, seed=3), CausalPosterior(max_length=5, slots=2, capacity=400)
    q.bind(module)
    learner, prior = AbstractionLearner(**LEARNER), FixedPenalty(0.5, "line_sum")
    feed = data(out / "corpus", tokenizer=module.tokenizer)
    feed.setup("fit")
    own = feed.train[:6]
    if how == "fsdp2":
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
        for model in (module.model, q.model):
            shard(model, mesh)
        own = own[:1] if rank() == 0 else own[1:]
    optimizer = learner.optimization.optimizer(q.model.parameters())
    owner: Any = SimpleNamespace(manual_backward=lambda loss: loss.backward(), trainer=SimpleNamespace(strategy=None))
    seen: list[dict[str, float]] = []
    calls = []
    for seed in range(2):
        q.equals_policy = seed == 0
        metrics, _ = learner.update(q, prior, module.model, own, optimizer, seed, 1e-3, owner)
        seen.append({f"estep/{name}": value for name, value in metrics.items()})
        calls.append(gather(q.engine.stats.calls))
    with gathered(q.model):
        weights = {name: value.clone() for name, value in base_model(q.model).state_dict().items()}
    return {"steps": seen, "scores": [], "calls": calls, "weights": weights}


RLVR: dict[str, dict[str, Any]] = {
    "": {"beta": 0.1, "credit": "segment"},
    "ahead": {"staleness": 1, "minibatches": 2, "advantage": "std"},
    "bf16": {},
    "idle": {"beta": 0.1},
}
"""Settings of the jobs grpo:*:OPTION."""


class OneLesson(TextJudge):
    """Nobody ever solves anything but p0, which is of one rank: in its steps the other has nothing to learn from."""

    def submit(self, program: str, problem: Any, stop_early: bool = True) -> Any:
        self.rule = even if problem.id == "p0" else lambda _: False
        return super().submit(program, problem, stop_early)


class Answers(Record):
    """Keeps the answers of all ranks, too."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[dict[str, list[list[int]]]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        super().on_train_batch_end(trainer, pl_module)
        own = {group[0].task.problem.id: [a.completion.ids for a in group] for group in pl_module.last_answers}
        self.answers.append({name: ids for part in gather(own) for name, ids in part.items()})


class Counted(GRPOModule):
    """Counts the rows of each update on this rank."""

    def _update(self, answers: Any, old: Any) -> dict[str, float]:
        pairs = [(answer.task.prompt, answer.completion.ids) for answer in answers]
        self.rows = [*getattr(self, "rows", []), len(split(pairs, self.tokens_per_forward))]
        return super()._update(answers, old)


def rlvr(out: Path, stage: str, how: str, option: str = "") -> dict[str, Any]:
    """GRPO for two epochs: 8 problems, 3 in a step, so that ranks have 2 and 1 of them, and rows of unequal number."""
    record = Answers()
    module = grpo(
        ending_policy(seed=3),
        judge=OneLesson() if option == "idle" else TextJudge(),
        mask_truncated=False,
        tokens_per_forward=40,
        optimization=Optimization(lr=3e-3, warmup=0.2),
        **RLVR[option],
    )
    module.__class__ = Counted
    easy = DifficultyFilter(samples=3, low=-1.0, high=0.9, chunk=2) if option == "" else None
    feed = SmallData(8, difficulty=easy)
    folder = out / ":".join(part for part in (stage, how, option) if part)
    limits = {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 0}
    fit(folder, module, feed, None, [record], **limits, **settings_of(how, option))
    with gathered(module.policy.model):
        weights = {name: value.clone() for name, value in base_model(module.policy.model).state_dict().items()}
    kept = None if feed._chosen is None else feed._chosen.kept
    return {
        "steps": record.steps,
        "scores": [],
        "answers": record.answers,
        "rows": list(zip(*gather(module.rows), strict=True)),
        "weights": weights,
        "kept": kept,
    }


def do(out: Path, job: str) -> None:
    """Do one job and write what this rank saw."""
    seen = {"uneven": uneven, "grpo": rlvr}.get(job.split(":")[0], train)(out, *job.split(":"))
    assert job.split(":")[1] == "one" or world_size() == 2
    folder = out / job
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(seen, folder / f"rank-{rank()}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    for name in sys.argv[2:]:
        do(Path(sys.argv[1]), name)
    gc.collect()  # a sharded model that outlives its process group can abort the process
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
