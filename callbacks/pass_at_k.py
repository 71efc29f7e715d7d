"""PassAtK: pass@k of pi on a benchmark while training runs, without a trace in the training itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from ra3kit.abstraction.em import RA3Module
from ra3kit.callbacks.latent_monitor import indent, log_scalars, log_text
from ra3kit.errors import AbsentData, RecipeError
from ra3kit.evaluation.benchmarks import benchmark as known_benchmark
from ra3kit.evaluation.benchmarks import load
from ra3kit.evaluation.card import card, versions
from ra3kit.evaluation.passk import verdict_counts
from ra3kit.evaluation.prompts import Style
from ra3kit.evaluation.samples import Sample, Samples
from ra3kit.evaluation.sampling import Sampling, prompts_too_long, sample
from ra3kit.evaluation.score import Results, check_ks, score, write
from ra3kit.policy import BasePolicy
from ra3kit.ranges import check_choice
from ra3kit.ranks import gather, rank, world_size
from ra3kit.rlvr.grpo import GRPOModule
from ra3kit.sharding import gathered
from ra3kit.verify.problem import Problem, Verdict
from ra3kit.verify.verifier import verify_all


class PassAtK(Callback):
    """Samples pi on a benchmark on a schedule, judges the programs in the sandbox and logs `eval/<benchmark>/*`.

    Training is the same with it and without: the states of all random generators and the modes of all modules are put
    back, and the draws have generators of their own. Phases that leave pi as it is (the E-step) are not evaluated.
    The processes share the tasks, sampling from a whole copy of the weights, so it works under any strategy; a draw is
    the same whoever makes it. The first process judges all samples while the others wait.

    Tasks that the run trains on (RLVR on MBPP's train split has some of MBPP+'s) are named and left out.

    Each evaluation is left in the run folder as `ra3kit eval` would leave it, so `ra3kit compare` takes it:
    `eval/<benchmark>/step-<global step>`.

    Args:
        benchmark: name, see `ra3kit eval --help`.
        n: samples of each task, >= 1; above 1 with temperature above 0.
        k: of pass@k, one or several, <= n.
        every_n_epochs: epochs (for RA3: phases) between two evaluations, >= 1; null for none at their ends.
        every_n_steps: optimizer steps between two evaluations, >= 1; null for none between epochs.
        at_start: also before the first step.
        limit: only the first so many tasks; null for all.
        temperature: 0 is greedy.
        max_new_tokens: most tokens of an answer. A prompt that leaves no room for them counts as failed, and is named.
        show: tasks whose first sample is shown as text in TensorBoard, >= 0.
        control: also evaluate the NTP control of an RA3 run, as `eval/<benchmark>-ntp/*`.
        options: of the benchmark's reader: path, split, ...
        name: what tags, folder and benchmark are called in this run; null for the benchmark's own. Two evaluations on
            one benchmark (two splits of it, say) need two.
        if_absent: "error", or "skip": a benchmark whose data is not on this machine is named, and left out.
        style: of the prompt: "complete", "stub" or "chat".
        batch: answers drawn at once.
        seed: of the draws; the same at each evaluation.
        workers: programs judged at a time; null for as many as there are processors.

    Raises:
        RecipeError: settings out of range, or no schedule at all.
    """

    def __init__(
        self,
        benchmark: str = "ra3kit",
        n: int = 1,
        k: int | list[int] = 1,
        every_n_epochs: int | None = 1,
        every_n_steps: int | None = None,
        at_start: bool = False,
        limit: int | None = None,
        temperature: float = 0.0,
        max_new_tokens: int = 256,
        show: int = 2,
        control: bool = False,
        options: dict[str, Any] | None = None,
        name: str | None = None,
        if_absent: Literal["error", "skip"] = "error",
        style: Style = "complete",
        batch: int = 32,
        seed: int = 0,
        workers: int | None = None,
    ):
        for key, value in (
            ("every_n_epochs", every_n_epochs),
            ("every_n_steps", every_n_steps),
            ("limit", limit),
            ("workers", workers),
        ):
            if value is not None and value < 1:
                raise RecipeError(f"PassAtK: {key}={value} must be at least 1, or null")
        if every_n_epochs is None and every_n_steps is None and not at_start:
            raise RecipeError("PassAtK never evaluates: give every_n_epochs, every_n_steps or at_start")
        if show < 0:
            raise RecipeError(f"PassAtK: show={show} must be at least 0")
        known_benchmark(benchmark)
        check_choice("PassAtK: if_absent", if_absent, Literal["error", "skip"])
        self.ks = check_ks([k] if isinstance(k, int) else k, n)
        self.sampling = Sampling(
            n=n,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            style=style,
            batch=batch,
            too_long="empty",
        )
        self.benchmark, self.limit, self.options, self.workers = benchmark, limit, options or {}, workers
        self.every_n_epochs, self.every_n_steps, self.at_start = every_n_epochs, every_n_steps, at_start
        self.show, self.control, self.if_absent = show, control, if_absent
        self.name = name or benchmark
        self.problems: list[Problem] = []
        self._phase: str | None = None
        self._evaluated_at = self._seen = -1

    @property
    def state_key(self) -> str:
        """A run may evaluate on several benchmarks."""
        asked = {"benchmark": self.benchmark, "options": self.options, "limit": self.limit}
        return self._generate_state_key(name=self.name, sampling=vars(self.sampling), **asked)

    # ---- when -----------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Fail now, not after the first epoch: no benchmark, no sandbox, a module without a policy."""
        if stage != "fit":
            return
        policies(pl_module, self.control)
        others = [c for c in trainer.callbacks if isinstance(c, PassAtK) and c is not self]  # type: ignore[attr-defined]
        if any(other.name == self.name for other in others):
            raise RecipeError(
                f"PassAtK: two of them are called {self.name!r}, and would write over each other's scores. Give each a "
                "`name` of its own."
            )
        try:
            self.problems = load(self.benchmark, self.options, self.limit).problems
        except AbsentData as error:
            if self.if_absent == "error":
                raise
            if trainer.is_global_zero:
                print(f"not evaluated on {self.benchmark}: {error}", flush=True)
            return
        self._leave_out_trained(trainer)
        if trainer.is_global_zero:
            verify_all([])

    def _leave_out_trained(self, trainer: L.Trainer) -> None:
        """A score on problems that the run trains on would mean nothing."""
        trains_on = getattr(trainer.datamodule, "trains_on", None)  # type: ignore[attr-defined]
        if trains_on is None:
            return
        left_out = {problem.id for problem in self.problems if trains_on(problem)}
        kept = [problem for problem in self.problems if problem.id not in left_out]
        if left_out and trainer.is_global_zero:
            print(
                f"eval/{self.name}: {len(left_out)} of {len(self.problems)} tasks are left out, the run trains on them "
                f"(first: {min(left_out)})" + ("" if kept else "; none is left, so it is not evaluated"),
                flush=True,
            )
        self.problems = kept

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.problems and self.at_start and trainer.global_step == 0:
            self.evaluate(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._phase = getattr(pl_module, "phase", None)  # kept: at the end of the epoch the next phase may have begun

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, before = trainer.global_step, max(0, self._seen)
        self._seen = step
        if self.every_n_steps and step // self.every_n_steps > before // self.every_n_steps:  # a batch may be several
            self._evaluate_once(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._evaluate_once(trainer, pl_module)

    def _evaluate_once(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Unless pi has not changed since: an E-step leaves it as it is, and a step may end an epoch."""
        if self.problems and self._phase != "e" and trainer.global_step != self._evaluated_at:
            self.evaluate(trainer, pl_module)

    # ---- what -----------------------------------------------------------------------------------------------------

    def evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        """Sample, judge and log now; what was logged, on every process."""
        self._evaluated_at = trainer.global_step
        logged: dict[str, float] = {}
        for suffix, policy in policies(pl_module, self.control).items():
            name = self.name + suffix
            with untouched(pl_module), trainer.precision_plugin.forward_context():
                samples = self._sample(policy, trainer.is_global_zero)
            values = self._judge(trainer, samples, name) if trainer.is_global_zero else {}
            # the others wait here
            logged |= trainer.strategy.broadcast(values)
        log_scalars(trainer, logged)
        several = trainer.world_size > 1
        for tag, value in logged.items():  # for progress and for callbacks that watch a metric
            bar = "/pass@" in tag and tag[-1].isdigit()
            pl_module.log(tag, value, logger=False, prog_bar=bar, sync_dist=several, batch_size=1)
        return logged

    def _sample(self, policy: BasePolicy, progress: bool) -> Samples:
        """The samples of all tasks; the processes share the tasks, and draws don't depend on who makes them."""
        model, tokenizer = policy.model, policy.tokenizer
        own = self.problems[rank() :: world_size()]
        with gathered(model):
            drawn = sample(model, tokenizer, own, self.sampling, progress=progress)
        everywhere = {name: rows for part in gather(drawn) for name, rows in part.items()}
        drawn = {problem.id: everywhere[problem.id] for problem in self.problems if problem.id in everywhere}
        return Samples(of=drawn, unanswered=prompts_too_long(model, tokenizer, self.problems, self.sampling))

    def _judge(self, trainer: L.Trainer, samples: Samples, name: str) -> dict[str, float]:
        results, judged = score(
            samples,
            self.problems,
            self.ks,
            benchmark=self.benchmark,
            model=f"{name} at step {trainer.global_step}",
            settings={
                "benchmark": {"name": self.benchmark, **self.options, "limit": self.limit},
                "sampling": vars(self.sampling),
                "step": trainer.global_step,
                "versions": versions(),
            },
            workers=self.workers,
        )
        folder = Path(trainer.default_root_dir) / "eval" / name / f"step-{trainer.global_step:06d}"
        if not folder.exists():  # a resumed run may come by again; the draws are the same
            write(folder, results, judged, card(results))
        log_text(trainer, f"eval/{name}/samples", as_markdown(judged, self.show, results.notes))
        return scalars(results, f"eval/{name}")

    # ---- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated_at": self._evaluated_at, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._evaluated_at, self._seen = state["evaluated_at"], state["seen"]


def policies(module: L.LightningModule, control: bool = False) -> dict[str, BasePolicy]:
    """The policies to evaluate, by what their tags have after the benchmark's name.

    Raises:
        RecipeError: the module has none, or no control where one is asked for.
    """
    if isinstance(module, RA3Module):
        if control and module.control is None:
            raise RecipeError("PassAtK: control=true, but this run trains no control (model.control=true)")
        return {"": module.policy, **({"-ntp": module.control} if control and module.control is not None else {})}
    if control:
        raise RecipeError(f"PassAtK: control=true is for RA3 runs; a {type(module).__name__} has no control")
    if isinstance(module, GRPOModule):
        return {"": module.policy}
    if not isinstance(module, BasePolicy):
        raise RecipeError(f"PassAtK works with RA3Module, GRPOModule and BasePolicy, not with {type(module).__name__}")
    return {"": module}


@contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """Put back the states of all random generators and the mode of every submodule."""
    modes = [(part, part.training) for part in module.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for part, training in modes:
            part.training = training


def scalars(results: Results, tag: str) -> dict[str, float]:
    """pass@k with its interval, and how many samples ended how; a score that could not be measured is left out."""
    values: dict[str, float] = {}
    groups: dict[str, Mapping[str, Any]] = {"": results.scores, "base_": results.base_scores or {}}
    for prefix, scores in groups.items():
        for name, found in scores.items():
            if found.problems:
                values[f"{tag}/{prefix}{name}"] = found.value
                values[f"{tag}/{prefix}{name}_lo"] = found.lo
                values[f"{tag}/{prefix}{name}_hi"] = found.hi
    counts = {f"{tag}/verdict_{status}": float(count) for status, count in verdict_counts(results.outcomes).items()}
    cut = {} if results.cut is None else {f"{tag}/cut": results.cut}
    return values | counts | {f"{tag}/compiling": results.compiling} | cut


def as_markdown(judged: Sequence[tuple[Sample, Verdict]], show: int, notes: Sequence[str]) -> str:
    """The first sample of the first tasks with its verdict, as TensorBoard shows text: indented blocks are code."""
    shown = [pair for pair in judged if pair[0].sample == 0][:show]
    blocks = [f"**{row.task_id}**: {v.status} {v.reason}".rstrip() + f"\n\n{indent(row.solution)}" for row, v in shown]
    return "\n\n".join([*(f"- {note}" for note in notes), *blocks]) or "nothing to show"
