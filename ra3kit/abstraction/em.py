"""RA3Module: the whole of RA3 as one LightningModule. It owns pi, q, the prior and the learner; EMSwitch says when.

One Lightning epoch is one phase: `warmup` (next-token prediction of pi), `e` (RL on q, pi fixed) and `m` (next-token
prediction of pi on the corpus that q annotated), then `e` again. Two optimizers, so the optimisation is manual; one
batch is one optimizer step, so `trainer.global_step` counts optimizer steps, of pi or q (not those of the control).
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import lightning as L
import torch

from ra3kit.abstraction.evaluate import HeldOut, held_out, paired_difference
from ra3kit.abstraction.learner import AbstractionLearner, noise_floor
from ra3kit.abstraction.posterior import CausalPosterior, LatentPosterior
from ra3kit.abstraction.prior import LatentPrior
from ra3kit.data.packing import StepBatch
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RecipeError
from ra3kit.guards import findings
from ra3kit.policy import BasePolicy, gathered_bytes, parameter_counts, training_memory
from ra3kit.ranges import check_number
from ra3kit.ranks import gather
from ra3kit.reports.ra3 import notes, table_lines
from ra3kit.rollout import Rollout
from ra3kit.sharding import gathered, shard_models

Phase = Literal["warmup", "e", "m"]
ANNOTATE_CHUNK = 256
"""Snippets annotated by one engine call; results do not depend on it."""


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one purpose, independent of all others."""
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class RA3Module(L.LightningModule):
    """RA3 mid-training: pi, q, p and the learner, trained in alternating phases.

    Args:
        policy: pi.
        posterior: q.
        prior: p, what a thought costs. A prior that forbids thinking (alpha = 1) masks it: next-token prediction.
        learner: the E-step.
        control: also train a copy of pi by plain next-token prediction on the same snippets in the same order, with the
            same settings: NTP beside RA3 at the same code tokens. Costs its share of every M-step.
        m_start: what pi starts each M-step from: "pi" as it is, or "base", its weights before the first E-step.
        eval_rollouts: draws of each held-out snippet for the bounds, >= 1.
        noise_floor_every: E-step updates between two measurements of the log-probability noise floor.
        seed: of every rollout and annotation.
    """

    def __init__(
        self,
        policy: BasePolicy,
        posterior: LatentPosterior,
        prior: LatentPrior,
        learner: AbstractionLearner,
        control: bool = True,
        m_start: Literal["pi", "base"] = "pi",
        eval_rollouts: int = 8,
        noise_floor_every: int = 20,
        seed: int = 0,
    ):
        super().__init__()
        self.automatic_optimization = False
        if eval_rollouts < 1 or noise_floor_every < 1:
            raise RecipeError(f"eval_rollouts={eval_rollouts} and noise_floor_every={noise_floor_every} must be >= 1")
        check_number("model.seed", seed, least=0, whole=True)
        learner.check(posterior, prior)
        self.policy, self.posterior, self.prior, self.learner = policy, posterior, prior, learner
        if prior.forbids_thinking:
            posterior.forbid_thinking()
        posterior.bind(policy)
        self.control = copy.deepcopy(policy) if control else None
        self.m_start, self.eval_rollouts = m_start, eval_rollouts
        self.noise_floor_every, self.seed = noise_floor_every, seed
        # copies of pi that training needs: the scorer of rewards where q trains pi's own weights, and the base
        wanted = {"scorer": posterior.weights == "shared", "base": posterior.needs_base or m_start == "base"}
        self.frozen = torch.nn.ModuleDict({name: policy.snapshot() for name, needed in wanted.items() if needed})
        # kept out of the module tree: they hold no weights of their own, and would be saved a second time
        self._own = {"ra3": own_latents(policy, posterior)}
        if self.control is not None:
            self._own["ntp"] = own_latents(self.control, posterior)

        self.phase: Phase = "warmup"
        self.iteration = 0
        self.phase_step = 0
        self.phase_steps = 1
        self.phase_over = False
        self.e_updates = 0
        self.last_rollouts: list[list[Rollout]] = []
        self.scores: list[dict[str, Any]] = []
        self.samples: list[str] = []  # annotated snippets as text, set by LatentMonitor
        self.history: dict[str, list[float]] = {
            name: [] for name in ("reward", "thought_rate", "ra3_code_loss", "ntp_loss")
        }
        self._held_out: dict[str, list[HeldOut]] = {}

    @property
    def tokenizer(self) -> Any:
        """pi's tokenizer; the data module takes it from here."""
        return self.policy.tokenizer

    @property
    def max_positions(self) -> int:
        """Most tokens of a snippet: what a slot of the rollout engine holds, which is within the model's context."""
        return self.posterior.capacity

    @property
    def scorer(self) -> torch.nn.Module:
        """The frozen pi that rewards come from: pi itself where q has weights of its own, else the copy taken last."""
        return self.frozen["scorer"] if self.posterior.weights == "shared" else self.policy.model

    def gathered(self) -> AbstractContextManager[None]:
        """The whole weights of pi and q on every rank, where they are sharded (`ra3kit.sharding.gathered`)."""
        return gathered(self.policy.model, self.posterior.model)

    # ---- phases (called by EMSwitch) ------------------------------------------------------------------------------

    def begin_phase(self, phase: Phase, steps: int, iteration: int) -> None:
        """Get ready for a phase of at most `steps` optimizer steps.

        Each phase is an optimisation problem of its own: schedules start anew and AdamW's moments are cleared.
        """
        self.phase, self.iteration = phase, iteration
        self.phase_step, self.phase_steps, self.phase_over = 0, max(1, steps), False
        if phase == "e":
            pi = self.policy.model.state_dict()
            if iteration == 0 and "base" in self.frozen:
                self.frozen["base"].load_state_dict(pi)
            if iteration == 0 and self.control is not None:
                self.control.model.load_state_dict(pi)
            if "scorer" in self.frozen:
                self.frozen["scorer"].load_state_dict(pi)
            base = self.frozen["base"].state_dict() if "base" in self.frozen else {}
            self.posterior.start_iteration(self.policy, base, iteration)
        if phase == "m":
            self.posterior.engine.free()
            if self.m_start == "base":
                base = self.frozen["base"].state_dict()
                self.policy.model.load_state_dict(base)
                if self.control is not None:  # NTP has the same start, or the comparison would be of other things
                    self.control.model.load_state_dict(base)
        if self._trainer is not None:
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad()
                optimizer.state.clear()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """-1 ends the epoch, and so the phase, when EMSwitch has said so."""
        return -1 if self.phase_over else None

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A phase that is over has had its last batch: what Lightning does after that one, validation say, follows."""
        if self.phase_over:
            self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
            self.trainer.val_check_batch = batch_idx + 1

    # ---- training -------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Shard every copy of the weights where the strategy says so."""
        own = [self.policy.model, self.posterior.model, *self.frozen.values()]
        shard_models(self, own if self.control is None else [*own, self.control.model])

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """pi's, q's, and the control's where there is one."""
        optimizers = [
            self.policy.configure_optimizers(),
            self.learner.optimization.optimizer(self.posterior.model.parameters()),
        ]
        if self.control is not None:
            optimizers.append(self.control.configure_optimizers())
        return optimizers

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One optimizer step of the running phase."""
        if self.phase == "e":
            self._e_step(batch)
        else:
            self._m_step(batch)
        self.phase_step += 1

    def _e_step(self, batch: list[Trajectory]) -> None:
        optimizer = self._optimizers()[1]
        lr = self.learner.optimization.lr_at(self.phase_step, self.phase_steps)
        seed = derive_seed(self.seed, "e-step", self.e_updates)
        pi = self.scorer
        metrics, self.last_rollouts = self.learner.update(
            self.posterior, self.prior, pi, batch, optimizer, seed, lr, self
        )
        if self.e_updates % self.noise_floor_every == 0:
            floor = noise_floor(pi, self.last_rollouts[0], self.learner.scale)
            self.log("estep/noise_floor", floor, logger=False, batch_size=len(batch))
            for logger in self.trainer.loggers:  # Lightning would write it again at every step until the next one
                logger.log_metrics({"estep/noise_floor": floor}, step=self.trainer.global_step - 1)
        self.e_updates += 1
        self.history["reward"].append(metrics["reward"])
        self.history["thought_rate"].append(metrics["thought_rate"])
        self.log_dict({f"estep/{name}": value for name, value in metrics.items()}, batch_size=len(batch))
        self.log("reward", metrics["reward"], prog_bar=True, logger=False, batch_size=len(batch))
        self.log("thought_rate", metrics["thought_rate"], prog_bar=True, logger=False, batch_size=len(batch))
        limit = self.learner.kl_limit
        if limit is not None and metrics["kl"] > limit:
            self.phase_over = True

    def _m_step(self, batch: StepBatch) -> None:
        started = time.perf_counter()
        optimizers = self._optimizers()
        lr = self.policy.optimization.lr_at(self.phase_step, self.phase_steps)
        logs = self.policy.fit_step(self, optimizers[0], batch.micro, batch.world_trained_tokens, lr, batch.world_rows)
        logs["tokens_per_second"] = logs["tokens"] / (time.perf_counter() - started)
        tag = "mstep" if self.phase == "m" else "warmup"
        shown = {f"{tag}/{name}": value for name, value in logs.items() if value == value}
        if self.phase == "m":
            self.history["ra3_code_loss"].append(logs["code_loss"])
        if self.phase == "m" and self.control is not None:
            # the raw optimizer: its steps are not counted in trainer.global_step
            raw = self.trainer.optimizers[2]
            beside = self.control.fit_step(self, raw, batch.plain, batch.world_plain_tokens, lr, batch.world_plain_rows)
            shown |= {f"ntp/{name}": beside[name] for name in ("loss", "code_loss", "grad_norm")}
            self.history["ntp_loss"].append(beside["code_loss"])
        self.log_dict(shown, batch_size=1)
        self.log("loss", logs["loss"], prog_bar=True, logger=False, batch_size=1)

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        return optimizers

    # ---- annotation (the E -> M boundary) -------------------------------------------------------------------------

    def annotate(
        self, trajectories: Sequence[Trajectory], on_done: Callable[[], None] | None = None
    ) -> list[Trajectory]:
        """The bootstrapped trajectories of the running iteration: q writes its thoughts into expert snippets.

        The draws depend on (seed, iteration, snippet) alone, so any split of the corpus gives the same store. Ranks
        that call it at different times must do so inside `gathered()`.
        """
        seed = derive_seed(self.seed, "annotate", self.iteration)
        with self.gathered(), self.trainer.precision_plugin.forward_context():
            return self.posterior.annotate(trajectories, self.policy, seed, on_done)

    # ---- evaluation -----------------------------------------------------------------------------------------------

    def validation_step(self, batch: list[Trajectory], batch_idx: int) -> None:
        """Measure pi, q's bound on it, and the control on held-out snippets (skipped at the end of an E-phase)."""
        if self.phase == "e" and not self.trainer.sanity_checking:
            return
        k, seed = self.eval_rollouts, derive_seed(self.seed, "held-out")
        measured = {"ra3": held_out(self._own["ra3"], self.policy.model, batch, k, seed, True)}
        if self.iteration > 0 or self.phase == "m":  # before the first E-step, all three are the base
            measured["posterior"] = held_out(self.posterior, self.policy.model, batch, k, seed, False)
            if self.control is not None:
                measured["ntp"] = held_out(self._own["ntp"], self.control.model, batch, k, seed, True)
        for name, result in measured.items():
            self._held_out.setdefault(name, []).append(result)

    def on_validation_epoch_end(self) -> None:
        """Log `eval/*`, keep the scores of this phase, and give the memory of the engines back."""
        if not self._held_out:
            return
        for posterior in (*self._own.values(), self.posterior):
            posterior.engine.free()
        joined = {
            name: HeldOut.join([part for rank in gather(parts) for part in rank])
            for name, parts in self._held_out.items()
        }
        self._held_out = {}
        entry: dict[str, Any] = {
            "phase": "start" if self.trainer.sanity_checking else self.phase,
            "iteration": self.iteration,
            "step": self.trainer.global_step,
            "models": {name: result.per_token() for name, result in joined.items()},
        }
        if "ntp" in joined:
            ra3, ntp = joined["ra3"], joined["ntp"]
            entry["ra3_minus_ntp"] = {
                measure: vars(paired_difference(getattr(ra3, measure), getattr(ntp, measure), ra3.tokens))
                for measure in ("plain", "own", "iwae")
            }
        self.scores.append(entry)
        logs = {
            f"eval/{model}/{name}": value
            for model, values in entry["models"].items()
            for name, value in values.items()
            if value == value  # a model without thoughts has no thought length
        }
        if self.trainer.sanity_checking:  # Lightning logs nothing there; these are the base's scores, at step 0
            for logger in self.trainer.loggers:
                logger.log_metrics(logs, step=0)
        else:
            self.log_dict(logs, sync_dist=True)  # the same on every rank already; says so to Lightning

    # ---- state, planning ------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ra3"] = {
            name: getattr(self, name)
            for name in (
                "phase",
                "iteration",
                "phase_step",
                "phase_steps",
                "phase_over",
                "e_updates",
                "scores",
                "samples",
                "history",
            )
        } | {"equals_policy": self.posterior.equals_policy}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = dict(checkpoint["ra3"])
        self.posterior.equals_policy = state.pop("equals_policy")
        for name, value in state.items():
            setattr(self, name, value)

    def summary_lines(self, trainer: L.Trainer) -> list[str]:
        """What `ra3kit fit` prints at the end: held-out scores, and annotated snippets."""
        results = {"scores": self.scores, "guards": [vars(finding) for finding in findings(trainer.callbacks)]}  # type: ignore[attr-defined]
        shown = [line for sample in self.samples[:3] for line in [*sample.split("\n")[:14], ""]]
        lines = [
            "",
            f"held-out code, nats per code token (IWAE-{self.eval_rollouts})",
            *table_lines(results),
            *notes(results),
        ]
        if not shown:
            return lines
        return [*lines, "", "annotated snippets (> thought [nats it adds to its lines])", *shown]

    def plan(self, shards: int = 1) -> dict[str, Any]:
        """Parameters, and memory of one process: each phase clears the moments and gradients of the other's.

        Args:
            shards: processes that share the weights.
        """
        pi, q = (training_memory(module.model, shards) for module in (self.policy, self.posterior))
        separate = self.posterior.weights == "separate"
        e_phase = {
            "pi, frozen": pi.weights,
            "q, weights": q.weights if separate else 0,
            "q, gradients": q.gradients,
            "q, AdamW moments": q.moments,
            "rollout slots": self.posterior.engine.cache_bytes(),
        }
        m_phase = {
            "pi, weights": pi.weights,
            "pi, gradients": pi.gradients,
            "pi, AdamW moments": pi.moments,
            "q, kept": q.weights if separate else 0,
        }
        for name in self.frozen:
            e_phase[f"{name}, a copy of pi"] = m_phase[f"{name}, a copy of pi"] = pi.weights
        if shards > 1:
            e_phase["gathered for rollouts, q or pi"] = gathered_bytes(self.policy.model, self._trainer)
        if self.control is not None:
            e_phase["NTP control, kept"] = pi.weights
            m_phase["NTP control"] = pi.weights + pi.gradients + pi.moments
        peak = max(sum(e_phase.values()), sum(m_phase.values()))
        memory = {"E-phase": e_phase, "M-phase": m_phase, "peak, activations aside": peak}
        return {"parameters": parameter_counts(self.policy.model), "memory": memory}


def own_latents(policy: BasePolicy, like: LatentPosterior) -> LatentPosterior:
    """A causal posterior that is pi itself, with the rules and slots of another: how a model thinks on its own."""
    own = CausalPosterior(
        like.rules.max_length,
        like.rules.think,
        like.rules.where,
        weights="shared",
        slots=like.slots,
        capacity=like.capacity,
    )
    own.bind(policy)
    own.equals_policy = True
    return own
