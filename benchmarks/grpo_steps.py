"""GRPO steps of the kit on a small model: as the GRPO benchmark times them and as its test compares gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from transformers import PreTrainedTokenizerBase

from ra3kit.policy import BasePolicy
from ra3kit.rlvr.backend import EngineBackend, Health, Request, RolloutBackend
from ra3kit.rlvr.data import RLVRBatch
from ra3kit.rlvr.grpo import GRPOModule
from ra3kit.rlvr.judge import Judge
from ra3kit.rlvr.tasks import Task
from ra3kit.rollout.jobs import Completion
from ra3kit.verify.problem import Calls, Problem, Verdict


@dataclass
class Ticks:
    """CPU and wall seconds at the end of every step, and seconds spent and tokens sampled while sampling by then."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    sampling_cpu: list[float] = field(default_factory=list)
    sampling_wall: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    spent_cpu: float = 0.0
    spent_wall: float = 0.0
    sampled: int = 0

    def sampling(self, call: Callable[[], Any]) -> Any:
        """Run `call` on the clock of sampling."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = call()
        self.spent_cpu += time.process_time() - cpu
        self.spent_wall += time.perf_counter() - wall
        return result

    def tick(self) -> None:
        """A step has ended."""
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())
        self.sampling_cpu.append(self.spent_cpu)
        self.sampling_wall.append(self.spent_wall)
        self.tokens.append(self.sampled)


@dataclass
class Outcome:
    """What training did.

    Args:
        ticks: of its steps.
        gradients: of each optimizer step, after clipping; where they were asked for.
        weights: at the end; where gradients were asked for.
        logs: of each step, as the trainer names them.
    """

    ticks: Ticks
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    logs: list[dict[str, float]] = field(default_factory=list)


def passes(text: str) -> bool:
    """A verdict on any text, cheap and always the same: half of all texts pass."""
    return crc32(text.encode()) % 2 == 0


class Told(Judge):
    """A judge that runs nothing: its verdict is `passes`."""

    def open(self) -> Judge:
        return self

    def close(self) -> None:
        pass

    def submit(self, program: str, problem: Problem, stop_early: bool = True) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        future.set_result(Verdict("pass" if passes(program) else "fail", total=1))
        return future


class WholeText(Task):
    """A task whose program is the answer's text as it is."""

    def program(self, text: str) -> str:
        return text


class Given(RolloutBackend):
    """Answers that were decided before, in the order of the requests."""

    def __init__(self, completions: Sequence[Completion]):
        self.waiting = list(completions)

    def refresh(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, version: int) -> None:
        self.version = version

    def sample(
        self,
        requests: Sequence[Request],
        seed: int,
        max_new_tokens: int,
        temperature: float,
        on_done: Callable[[int, Completion], None],
    ) -> list[Completion]:
        taken = [self.waiting.pop(0) for _ in requests]
        for index, completion in enumerate(taken):
            on_done(index, completion)
        return taken

    def health(self) -> Health:
        return Health(True, self.version)

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def free(self) -> None:
        pass


class Clocked(EngineBackend):
    """The engine, on the clock of sampling."""

    def __init__(self, ticks: Ticks, slots: int):
        super().__init__(slots)
        self.ticks = ticks

    def sample(self, *args: Any, **kwargs: Any) -> list[Completion]:
        done = self.ticks.sampling(lambda: super(Clocked, self).sample(*args, **kwargs))
        self.ticks.sampled += sum(len(completion.ids) for completion in done)
        return done


class Notes(Callback):
    """Ticks at the end of a step; keeps gradients where asked for."""

    def __init__(self, outcome: Outcome, keep: bool):
        self.outcome, self.keep = outcome, keep

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if self.keep:
            assert isinstance(pl_module, GRPOModule)
            model = pl_module.policy.model
            self.outcome.gradients.append(
                {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            )

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.outcome.ticks.tick()
        self.outcome.logs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Steps:
    """Batches of so many steps of tasks, each with those that follow; beyond the end they begin again."""

    def __init__(self, steps: Sequence[Sequence[Task]], ahead: int):
        self.steps, self.ahead = [list(tasks) for tasks in steps], ahead

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[RLVRBatch]:
        n = len(self.steps)
        for at in range(n):
            coming = range(at, at + 1 + self.ahead)
            yield RLVRBatch([self.steps[i % n] for i in coming], at, [i // n for i in coming])


class StepData(L.LightningDataModule):
    """`Steps` as a data module, whose batches stay where they are: they hold no tensors."""

    def __init__(self, steps: Steps):
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> Steps:
        return self.steps

    def transfer_batch_to_device(self, batch: RLVRBatch, device: torch.device, dataloader_idx: int) -> RLVRBatch:
        return batch


def completion(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Completion:
    """Given ids as a completion; what the sampler thought of them is left open."""
    unknown = [0.0] * len(ids)
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    return Completion(list(ids), text, unknown, unknown, "end" if ids[-1] == tokenizer.eos_token_id else "length")


def whole_text_tasks(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Task]:
    """Tasks of plain texts, without stop strings."""
    nothing = Calls("f", [], [])
    return [
        WholeText(Problem(f"{i}", nothing, prompt=text), tokenizer(text)["input_ids"], ())
        for i, text in enumerate(prompts)
    ]


def train(
    policy: BasePolicy,
    steps: Sequence[Sequence[Task]],
    folder: Path,
    given: Sequence[Sequence[int]] | None = None,
    keep: bool = False,
    judge: Judge | None = None,
    slots: int = 64,
    precision: Any = "32-true",
    **settings: Any,
) -> Outcome:
    """Train with the kit.

    Args:
        policy: to be trained, in place.
        steps: tasks of each step.
        given: sampled ids to train on in the place of sampling, group by group.
        keep: keep gradients and weights.
        judge: default one that runs nothing.
        slots: of the engine.
        precision: of Lightning's Trainer.
        settings: of GRPOModule.
    """
    outcome = Outcome(Ticks())
    backend: RolloutBackend = Clocked(outcome.ticks, slots)
    if given is not None:
        backend = Given([completion(ids, policy.tokenizer) for ids in given])
    module = GRPOModule(policy, backend=backend, judge=judge or Told(), **settings)
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        logger=TensorBoardLogger(str(folder), name="run"),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Notes(outcome, keep)],
    )
    trainer.fit(module, StepData(Steps(steps, settings.get("staleness", 0))))
    if keep:
        outcome.weights = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    return outcome
