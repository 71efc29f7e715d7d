"""GRPOModule: post-training of a policy by GRPO on verified rewards.

One batch is one step: sample a group of answers to each task, judge the programs while others are still sampled, turn
verdicts into rewards and advantages, and take a policy-gradient step on packed rows (several with `updates_per_batch`
or `minibatches`). `trainer.global_step` counts optimizer steps; one in which no group had anything to say leaves
weights and moments as they are, and counts too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, TypeVar

import lightning as L
import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ra3kit.errors import RecipeError, RolloutError
from ra3kit.latents import token_bytes
from ra3kit.optimize import average_gradients, backward, clip_gradients, set_lr, steps_of_run
from ra3kit.policy import BasePolicy, gathered_bytes, parameter_counts, training_memory
from ra3kit.ranges import check_choice, check_number
from ra3kit.ranks import gather, summed, world_size
from ra3kit.rlvr.backend import EngineBackend, RolloutBackend
from ra3kit.rlvr.data import RLVRBatch
from ra3kit.rlvr.draws import Drawing, Draws, draw, restored, saved
from ra3kit.rlvr.judge import Judge
from ra3kit.rlvr.losses import Advantage, Gate, Normalise, TokenLoss, advantages, has_signal, weights
from ra3kit.rlvr.metrics import UpdateMetrics, answer_metrics
from ra3kit.rlvr.rewards import Reward, VerifierReward
from ra3kit.rlvr.rows import idle_row, packed_rows, row_loss, sampled_logps
from ra3kit.rlvr.tasks import Answer, Groups, Task
from ra3kit.rlvr.thoughts import (
    Thoughts,
    segment_advantages,
    thought_metrics,
    thought_sums,
    thoughts_of,
)
from ra3kit.sharding import gathered, is_sharded, shard_models
from ra3kit.verify.problem import JUDGED

Credit = Literal["answer", "segment"]
"""answer: every token of an answer has the answer's advantage. segment: each stretch of an answer from one place where
a thought could begin to the next has one of its own, see `ra3kit.rlvr.thoughts.segment_advantages`."""

T = TypeVar("T")

HISTORY = ("reward", "pass_rate", "entropy", "completions/mean_length")
"""What is kept of every step for the report of the run."""

SETTINGS = (
    *("group_size", "max_new_tokens", "temperature", "advantage", "credit", "gate", "normalise"),
    *("clip_low", "clip_high", "beta", "mask_truncated", "importance_cap"),
    *("updates_per_batch", "minibatches", "staleness", "seed"),
)
"""What a report says of how a run was trained."""


class GRPOModule(L.LightningModule):
    """GRPO on a policy: base, NTP or RA3, whatever wrote its weights.

    Args:
        policy: pi; its `optimization` is that of the run.
        reward: of a judged answer.
        backend: who samples.
        judge: who judges.
        group_size: G, answers to each task, >= 2.
        max_new_tokens: most tokens of an answer.
        temperature: of sampling and of every log-probability, > 0. There is no top-p: it would bias the ratio.
        advantage: see `ra3kit.rlvr.losses.Advantage`.
        credit: "answer" or "segment"; the latter has a leave-one-out baseline whatever `advantage` says.
        gate: what a group must differ in to be trained on; other groups are skipped and counted.
        normalise: see `ra3kit.rlvr.losses.Normalise`.
        clip_low, clip_high: of the ratio, in [0, 1) and >= 0.
        beta: weight of the KL to the policy as it was at the start, >= 0; 0 keeps no copy of it.
        mask_truncated: answers cut at max_new_tokens are not trained on; their rewards stay in the baseline.
        importance_cap: most that the weight trainer / sampler of a token may be, > 0; null corrects nothing.
        updates_per_batch: passes over the answers of a step, >= 1.
        minibatches: optimizer steps of each pass, >= 1; groups are dealt to them in turn.
        staleness: steps that answers are sampled ahead, >= 0. 0: from the very weights that they train; n: their
            programs are judged while n other steps are sampled and trained, and the sampler is n steps behind.
        tokens_per_forward: of the gradient and scoring passes.
        seed: of the draws.

    Raises:
        RecipeError: settings out of range, or that contradict each other.
    """

    phase = "rlvr"

    def __init__(
        self,
        policy: BasePolicy,
        reward: Reward | None = None,
        backend: RolloutBackend | None = None,
        judge: Judge | None = None,
        group_size: int = 8,
        max_new_tokens: int = 512,
        temperature: float = 1.0,
        advantage: Advantage = "mean",
        credit: Credit = "answer",
        gate: Gate = "outcome",
        normalise: Normalise = "token",
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        beta: float = 0.0,
        mask_truncated: bool = True,
        importance_cap: float | None = 2.0,
        updates_per_batch: int = 1,
        minibatches: int = 1,
        staleness: int = 0,
        tokens_per_forward: int = 4096,
        seed: int = 0,
    ):
        super().__init__()
        self.automatic_optimization = False
        check_number("model.group_size", group_size, least=2, whole=True)
        check_number("model.max_new_tokens", max_new_tokens, least=1, whole=True)
        check_number("model.temperature", temperature, above=0)
        check_number("model.clip_low", clip_low, least=0, below=1)
        check_number("model.clip_high", clip_high, least=0)
        check_number("model.beta", beta, least=0)
        check_number("model.importance_cap", importance_cap, above=0, optional=True)
        check_number("model.updates_per_batch", updates_per_batch, least=1, whole=True)
        check_number("model.minibatches", minibatches, least=1, whole=True)
        check_number("model.staleness", staleness, least=0, whole=True)
        check_number("model.tokens_per_forward", tokens_per_forward, least=1, whole=True)
        check_number("model.seed", seed, least=0, whole=True)
        choices = {"advantage": (advantage, Advantage), "credit": (credit, Credit), "gate": (gate, Gate)}
        for key, (value, kind) in (choices | {"normalise": (normalise, Normalise)}).items():
            check_choice(f"model.{key}", value, kind)
        room = policy.max_positions
        if room is not None and max_new_tokens >= room:
            raise RecipeError(
                f"model.max_new_tokens={max_new_tokens}: the policy's context of {room} positions leaves no room for a "
                "prompt. Lower it."
            )
        self.policy = policy
        self.reward: Reward = reward or VerifierReward()
        self.reward.check(max_new_tokens)
        self.backend = backend or EngineBackend()
        self.judge = judge or Judge()
        self.group_size, self.max_new_tokens, self.temperature = group_size, max_new_tokens, temperature
        self.advantage, self.credit, self.gate, self.normalise = advantage, credit, gate, normalise
        self.clip_low, self.clip_high, self.beta = clip_low, clip_high, beta
        self.mask_truncated, self.importance_cap = mask_truncated, importance_cap
        self.updates_per_batch, self.minibatches, self.staleness = updates_per_batch, minibatches, staleness
        self.tokens_per_forward, self.seed = tokens_per_forward, seed
        self.frozen = torch.nn.ModuleDict({"reference": policy.snapshot()} if beta else {})
        self.last_answers: list[list[Answer]] = []
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self._texts: list[bytes | None] | None = None
        self._sampled: dict[int, Draws] = {}
        self._restored: dict[int, dict[tuple[str, int], dict[str, Any]]] = {}

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer; the data module takes it from here."""
        return self.policy.tokenizer

    @property
    def max_positions(self) -> int | None:
        """Most tokens of a prompt and an answer together: the policy's context; None where its config names none."""
        return self.policy.max_positions

    # ---- training -------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Shard the weights where the strategy says so."""
        shard_models(self, [self.policy.model, *self.frozen.values()])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.policy.configure_optimizers()

    def on_fit_start(self) -> None:
        """Start the judge, so that a machine without a sandbox says so now."""
        self.judge.open()

    def on_train_start(self) -> None:
        """Refuse a run without an end now, not after its first answers."""
        self._total_steps()

    def teardown(self, stage: str) -> None:
        """End the judge; answers sampled ahead are of no use to another run."""
        self.judge.close()
        self.backend.free()
        self._sampled, self._restored = {}, {}

    def configure_callbacks(self) -> list[Callback]:
        """One that calls `teardown` where a run ends by an error or by Ctrl-C, which a module is not told of."""
        return [_TearDownOnException()]

    def transfer_batch_to_device(self, batch: RLVRBatch, device: torch.device, dataloader_idx: int) -> RLVRBatch:
        """Tasks hold no tensors; also where a plain loader gives them."""
        return batch

    def training_step(self, batch: RLVRBatch, batch_idx: int) -> None:
        """Sample what is missing, judge, and learn from the oldest step; logs `rlvr/*`."""
        if not isinstance(batch, RLVRBatch):
            given = type(getattr(self.trainer, "datamodule", None)).__name__
            raise RecipeError(f"data: GRPOModule is trained on the batches of RLVRDataModule, not on those of {given}.")
        started = time.perf_counter()
        ahead = enumerate(zip(batch.steps, batch.visits, strict=True), batch.number)
        missing = [(number, tasks, visit) for number, (tasks, visit) in ahead if number not in self._sampled]
        if missing:
            self._sample(missing)
        sampled = time.perf_counter()
        step = self._sampled.pop(batch.number)
        groups = self._judged(step)
        judged = time.perf_counter()
        stale = self.trainer.global_step - step.version
        logs = self._learn(step, groups)
        ended = time.perf_counter()
        tokens = summed({"tokens": sum(len(answer.completion.ids) for answer in step.answers)})["tokens"]
        logs |= {
            "staleness": float(stale),
            "seconds/sampling": sampled - started,
            "seconds/judging_wait": judged - sampled,
            "seconds/training": ended - judged,
            "seconds": ended - started,
            "tokens_per_second": tokens / (ended - started),
        }
        self.last_answers = groups
        for name in HISTORY:
            self.history[name].append(logs.get(name, float("nan")))
        self.log_dict({f"rlvr/{name}": value for name, value in logs.items()}, batch_size=len(groups))
        for name in ("reward", "pass_rate"):
            if name in logs:
                self.log(name, logs[name], prog_bar=True, logger=False, batch_size=len(groups))

    # ---- sampling and judging -------------------------------------------------------------------------------------

    def _sample(self, steps: Sequence[tuple[int, list[Task], int]]) -> None:
        """Sample steps (number, tasks, visit) with the weights as they are; every program goes to the judge at once."""
        self._refresh()
        with self.backend.session(), gathered(self.policy.model) if self._needs_old else nullcontext():
            for number, tasks, visit in steps:
                self._sampled[number] = self._one_step(number, tasks, visit)

    def _refresh(self) -> None:
        """Give the sampler the weights as they are. Raises RolloutError when it can't be relied on."""
        self.backend.refresh(self.policy.model, self.tokenizer, self.trainer.global_step)
        health = self.backend.health()
        if not health.ok or health.version != self.trainer.global_step:
            why = health.reason or "it cannot sample"
            raise RolloutError(
                f"{type(self.backend).__name__}: {why} (weights of step {health.version}, wanted "
                f"{self.trainer.global_step}). Checkpoints are as they were: ra3kit fit --resume goes on."
            )

    @property
    def _needs_old(self) -> bool:
        """Whether answers are trained on by other weights than those that sampled them."""
        return self.staleness > 0 or self.updates_per_batch * self.minibatches > 1

    def _one_step(self, number: int, tasks: Sequence[Task], visit: int) -> Draws:
        how = Drawing(
            self.group_size, self.seed, str(visit), self.max_new_tokens, self.temperature, self.reward.stop_early
        )
        draws = restored(self.judge, tasks, how, self._restored.pop(number, {}))
        if draws is None:
            draws = draw(self.backend, self.judge, tasks, how)
            if self._needs_old:
                pairs = [ids_of(answer) for answer in draws.answers]
                draws.old = sampled_logps(self.policy.model, pairs, self.temperature, self.tokens_per_forward)
        return draws

    def _judged(self, step: Draws) -> list[list[Answer]]:
        """Wait for the verdicts, and give rewards."""
        for answer, verdict in zip(step.answers, step.judged(self.judge), strict=True):
            answer.verdict = verdict
            if verdict.status in JUDGED:
                answer.reward = self.reward(answer, self.max_new_tokens)
                answer.outcome = self.reward.outcome(answer)
        return grouped(step.answers, self.group_size)

    def pass_rates(self, tasks: Sequence[Task], samples: int, seed: int) -> list[tuple[int, int]]:
        """How many of so many answers to each task pass, and how many were judged, with the weights as they are.

        On several processes each measures tasks of its own; all must call it.
        """
        self.judge.open()
        self._refresh()
        how = Drawing(samples, seed, "pass rate", self.max_new_tokens, self.temperature)
        with self.backend.session():
            draws = draw(self.backend, self.judge, tasks, how)
        statuses = [verdict.status for verdict in draws.judged(self.judge)]
        return [
            (group.count("pass"), sum(status in JUDGED for status in group)) for group in grouped(statuses, samples)
        ]

    # ---- learning -------------------------------------------------------------------------------------------------

    def _learn(self, step: Draws, groups: Groups) -> dict[str, float]:
        """Advantages, then the optimizer steps of this batch; metrics of all processes."""
        found = {id(answer): self._thoughts(answer) for answer in step.answers}
        kept = [group for group in groups if self._has_signal(group)]
        for group in kept:
            self._give_advantages(group, found)
        place_of = {id(answer): place for place, answer in enumerate(step.answers)}
        old = {key: step.old[place] for key, place in place_of.items()} if step.old else {}
        trained = [[answer for answer in group if self._is_trained(answer)] for group in kept]
        updates = [
            self._update([answer for group in part for answer in group], old)
            for _ in range(self.updates_per_batch)
            for part in self._minibatches(trained)
        ]
        logs = answer_metrics(groups, kept, trained)
        logs |= thought_metrics(summed(thought_sums(step.answers, list(found.values()))))
        means = {name: float(np.mean([u[name] for u in updates if name in u])) for u in updates for name in u}
        return logs | {name: value for name, value in means.items() if value == value}

    def _has_signal(self, group: Sequence[Answer]) -> bool:
        rewards = [answer.reward for answer in group]
        return has_signal(rewards, [answer.outcome for answer in group], self.gate)

    def _thoughts(self, answer: Answer) -> Thoughts:
        if self._texts is None:
            self._texts = token_bytes(self.tokenizer)
        return thoughts_of(answer.task, answer.completion.ids, self._texts)

    def _give_advantages(self, group: Sequence[Answer], found: Mapping[int, Thoughts]) -> None:
        if self.credit == "segment":
            ids, rewards = [answer.completion.ids for answer in group], [answer.reward for answer in group]
            decisions = [found[id(answer)].decisions for answer in group]
            for answer, values in zip(group, segment_advantages(ids, rewards, decisions), strict=True):
                answer.advantage = values
            return
        judged = [answer for answer in group if answer.reward is not None]
        of_each = advantages(np.array([answer.reward for answer in judged], np.float64), self.advantage)
        for answer, value in zip(judged, of_each, strict=True):
            answer.advantage = np.full(len(answer.completion.ids), value, np.float32)

    def _is_trained(self, answer: Answer) -> bool:
        truncated = self.mask_truncated and answer.completion.finish == "length"
        return answer.advantage is not None and not truncated

    def _minibatches(self, groups: Sequence[Sequence[Answer]]) -> list[list[Sequence[Answer]]]:
        """Deal the groups of all processes to minibatches in turn, so that it doesn't matter who has which."""
        names = [group[0].task.problem.id if group else "" for group in groups]
        everywhere = sorted(name for part in gather(names) for name in part if name)
        turn = {name: place % self.minibatches for place, name in enumerate(everywhere)}
        return [
            [group for group, name in zip(groups, names, strict=True) if name and turn[name] == number]
            for number in range(self.minibatches)
        ]

    def _update(self, answers: Sequence[Answer], old: dict[int, Float[np.ndarray, " tokens"]]) -> dict[str, float]:
        """One optimizer step on answers that have an advantage."""
        optimizer: Any = self.optimizers()
        lr = self.policy.optimization.lr_at(self.trainer.global_step, self._total_steps())
        set_lr(optimizer, lr)
        optimizer.zero_grad()
        pairs = [ids_of(answer) for answer in answers]
        lengths = [len(sampled) for _, sampled in pairs]
        world = summed({"tokens": sum(lengths), "answers": len(answers)})
        tokens, count = int(world["tokens"]), int(world["answers"])
        if not tokens:  # without gradients the optimizer changes nothing, not even by weight decay
            optimizer.step()
            return {"lr": lr}
        model = self.policy.model
        model.train()
        weight = weights(lengths, self.normalise, self.max_new_tokens, tokens, count)
        reference = self._reference(pairs)
        totals = UpdateMetrics(with_kl="reference" in self.frozen)
        rows = list(packed_rows(pairs, self.tokens_per_forward, self.device))
        most = max(gather(len(rows)))
        for places, row in rows:
            terms = self._terms([answers[i] for i in places], [weight[i] for i in places], old, places, reference)
            loss, logps, entropies = row_loss(model, row, terms, self.temperature)
            # processes' gradients are averaged: each contributes its sum times their number
            backward(self, loss * world_size())
            totals.add(terms, float(loss.detach()), logps, entropies)
        if is_sharded(model):  # every process makes the same number of passes
            for _ in range(len(rows), most):
                backward(self, self._idle_loss())
        average_gradients(optimizer)
        norm = clip_gradients(optimizer, self.policy.optimization.clip)
        optimizer.step()
        return totals.means(tokens) | {"grad_norm": float(norm), "lr": lr}

    def _terms(
        self,
        answers: Sequence[Answer],
        weight: Sequence[float],
        old: dict[int, Float[np.ndarray, " tokens"]],
        places: Sequence[int],
        reference: Sequence[Float[np.ndarray, " tokens"]],
    ) -> TokenLoss:
        """What the loss of a row needs, token by token."""

        def joined(parts: Iterable[Any]) -> Tensor:
            return torch.from_numpy(np.concatenate([np.asarray(part, np.float32) for part in parts])).to(self.device)

        lengths = [len(answer.completion.ids) for answer in answers]
        return TokenLoss(
            advantage=joined(answer.advantage for answer in answers),
            weight=joined(np.full(n, w) for n, w in zip(lengths, weight, strict=True)),
            old=joined(old[id(answer)] for answer in answers) if old else None,
            sampler=joined(answer.completion.log_q for answer in answers),
            reference=joined(reference[i] for i in places) if reference else None,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            beta=self.beta,
            cap=self.importance_cap,
        )

    def _reference(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Float[np.ndarray, " tokens"]]:
        if "reference" not in self.frozen:
            return []
        model = self.frozen["reference"]
        with gathered(model):
            return sampled_logps(model, pairs, self.temperature, self.tokens_per_forward)

    def _idle_loss(self) -> Tensor:
        nothing = torch.zeros(1, device=self.device)
        loss, _, _ = row_loss(self.policy.model, idle_row(self.device), TokenLoss(nothing, nothing), self.temperature)
        return loss

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run, for the schedule of the learning rate."""
        return steps_of_run(self.trainer, self.updates_per_batch * self.minibatches)

    # ---- state ----------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The answers that were sampled ahead go along: other weights would give others. Verdicts are made again."""
        own = [entry | {"step": number} for number, draws in self._sampled.items() for entry in saved(draws)]
        everywhere = [entry for part in gather(own) for entry in part]
        checkpoint["rlvr"] = {"history": self.history, "sampled": everywhere}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["rlvr"]
        self.history = state["history"]
        self._restored = {}
        for entry in state["sampled"]:
            self._restored.setdefault(entry["step"], {})[entry["problem"], entry["number"]] = entry

    # ---- for people -----------------------------------------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        """Settings and curves of the run, as JSON."""
        return {
            "stage": "rlvr",
            "settings": {name: getattr(self, name) for name in SETTINGS},
            "reward": type(self.reward).__name__,
            "reproducible": self.backend.reproducible,
            "isolation": self.judge.label,
            "history": self.history,
        }

    def summary_lines(self, trainer: L.Trainer) -> list[str]:
        """What `ra3kit fit` prints at the end: first and last steps."""
        done = self.history["reward"]
        if not done:
            return []
        part = max(1, len(done) // 10)
        lines = ["", f"{f'mean of {part} of {len(done)} steps':<28}{'first':>10}{'last':>10}"]
        for name in HISTORY:
            known = [value for value in self.history[name] if value == value]  # steps without a lesson have no entropy
            if known:
                lines.append(f"{name:<28}{np.mean(known[:part]):>10.4f}{np.mean(known[-part:]):>10.4f}")
        return lines

    def plan(self, shards: int = 1) -> dict[str, Any]:
        """Parameters, and memory of one process, for `fit --dry-run`.

        Args:
            shards: processes that share the weights.
        """
        own = training_memory(self.policy.model, shards)
        memory: dict[str, Any] = dict(vars(own))
        if self.frozen:
            memory["reference"] = own.weights
        most = min(self.max_positions or 2**62, 2 * self.max_new_tokens)
        if slots := self.backend.memory(self.policy.model, most):
            memory[f"sampling, {most:,} tokens a slot"] = slots
        if shards > 1:
            memory["gathered for sampling"] = gathered_bytes(self.policy.model, self._trainer)
        return {"parameters": parameter_counts(self.policy.model), "memory": memory}


class _TearDownOnException(Callback):
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        pl_module.teardown("fit")


def ids_of(answer: Answer) -> tuple[list[int], list[int]]:
    """Prompt and sampled ids."""
    return answer.task.prompt, answer.completion.ids


def grouped(items: Sequence[T], size: int) -> list[list[T]]:
    """Consecutive groups of one size."""
    return [list(items[at : at + size]) for at in range(0, len(items), size)]
