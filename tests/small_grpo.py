"""A small world for GRPO: short prompts, a tiny policy, and a judge that passes an answer for its text, in no time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import lightning as L
import torch
from small_world import fit, policy

from ra3kit.models import base_model
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy
from ra3kit.rlvr.data import RLVRDataModule, tasks_hash
from ra3kit.rlvr.grpo import GRPOModule
from ra3kit.rlvr.judge import Judge
from ra3kit.rlvr.tasks import Answer, Task
from ra3kit.verify.problem import Problem, Streams, Verdict

LIMIT = 12


def ending_policy(seed: int = 0, ends: float = 4.0) -> BasePolicy:
    """A fresh policy whose answers end by themselves about as often as they are cut."""
    made = policy(seed=seed)
    head: Any = base_model(made.model).get_output_embeddings()
    bias = torch.zeros(len(head.weight))
    bias[made.tokenizer.eos_token_id] = ends
    head.bias = torch.nn.Parameter(bias)
    return made


def even(text: str) -> bool:
    """About half of all texts, spread evenly."""
    return len(text) % 2 == 0


class TextJudge(Judge):
    """Passes what the rule says; "internal" for texts that hold `broken`."""

    def __init__(self, rule: Callable[[str], bool] = even, broken: str | None = None) -> None:
        super().__init__()
        self.rule, self.broken, self.seen, self.closed = rule, broken, 0, False

    def open(self) -> Judge:
        return self

    def close(self) -> None:
        self.closed = True

    def submit(self, program: str, problem: Problem, stop_early: bool = True) -> Future[Verdict]:
        self.seen += 1
        answer = program.removeprefix(problem.prompt)
        found: Future[Verdict] = Future()
        if self.broken is not None and self.broken in answer:
            found.set_result(Verdict("internal", "broken", total=1))
        else:
            passed = self.rule(answer)
            found.set_result(Verdict("pass" if passed else "fail", passed=int(passed), total=1))
        return found


def problems(count: int = 6) -> list[Problem]:
    return [Problem(f"p{i}", Streams([str(i)], [str(i)]), f"def f{i}(x):\n" * (1 + i % 3)) for i in range(count)]


class SmallData(RLVRDataModule):
    """The problems above, not those of a file."""

    def __init__(self, count: int = 6, **settings: Any) -> None:
        super().__init__(**{"path": "ra3kit", "prompts_per_step": 3, **settings})
        self.count, self._told = count, True

    def setup(self, stage: str | None = None) -> None:
        if not self.tasks:
            self.tasks = [Task.of(problem, self.tokenizer) for problem in problems(self.count)]
            self._hash = tasks_hash(self.tasks)


def grpo(pi: BasePolicy | None = None, **settings: Any) -> GRPOModule:
    """Plain, unclipped steps, so that what is measured is the gradient."""
    pi = pi or ending_policy()
    pi.optimization = settings.pop("optimization", Optimization(lr=3e-3, warmup=0.0, schedule="constant", clip=None))
    given = {"judge": TextJudge(), "group_size": 4, "max_new_tokens": LIMIT, "tokens_per_forward": 60}
    return GRPOModule(pi, **{**given, **settings})


class Watch(L.Callback):
    """Of every step: what was logged, the answers, and the gradients that the optimizer was given."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.answers: list[list[list[Answer]]] = []
        self.gradients: list[list[torch.Tensor | None]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        parameters = pl_module.policy.model.parameters()
        self.gradients.append([None if p.grad is None else p.grad.clone() for p in parameters])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.answers.append(pl_module.last_answers)


def run(folder: Path, module: GRPOModule, steps: int = 1, data: SmallData | None = None, **settings: Any) -> Watch:
    """Train for so many optimizer steps; what was seen."""
    watch = Watch()
    given = {"max_steps": steps, "max_epochs": -1, "reload_dataloaders_every_n_epochs": 0}
    callbacks = [watch, *settings.pop("callbacks", [])]
    fit(folder, module, data or SmallData(), None, callbacks, **{**given, **settings})
    return watch
