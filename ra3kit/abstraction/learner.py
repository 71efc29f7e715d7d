"""The RL abstraction learner: one E-step update of q from rollouts scored by a frozen pi.

Follows RA3's E-step: r_t = log pi(a_t | s_t, z_0:t) - c [z_t is a new thought], a group baseline over the k rollouts of
a snippet, one on-policy policy-gradient step a batch. What the paper leaves open is an option with the default named in
docs/algorithm.md: return-to-go credit, leave-one-out baseline, no division by the standard deviation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch

from ra3kit.abstraction.bound import elbo_terms
from ra3kit.abstraction.credit import Baseline, Credit, Scale, check_baseline, check_credit
from ra3kit.abstraction.estep import LineTable, credits, line_table, policy_gradient
from ra3kit.abstraction.posterior import LatentPosterior, pi_logps
from ra3kit.abstraction.prior import LatentPrior
from ra3kit.abstraction.statistics import distinct_ratio, intents, most_common_share
from ra3kit.abstraction.views import View, chunk_views, idle_view, view_log_q
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RecipeError, RunError
from ra3kit.optimize import Optimization, average_gradients, backward, clip_gradients, set_lr
from ra3kit.policy import BasePolicy, score
from ra3kit.ranges import check_choice, check_number
from ra3kit.ranks import gather, summed, world_size
from ra3kit.rollout import Rollout, line_logps
from ra3kit.sharding import gathered, is_sharded, run


class AbstractionLearner(L.LightningModule):
    """Group-baseline policy gradient on the latents. Usable alone: `bind` it, give it E-phase batches, call `fit`.

    The contract, which `RA3Module` relies on and `ra3kit.testing.check_learner` checks:

    - `check` refuses parts that do not fit together, a prior on another scale first of all.
    - `update` changes q and not pi, sets `equals_policy` to False, and returns metrics (numbers, `reward` and
      `thought_rate` among them, `kl` where `kl_limit` is set) and `rollouts` rollouts of each snippet.
    - the same update again gives the same weights; where nothing was decided it changes none.
    - updates make what is rewarded more likely.

    Args:
        rollouts: k, rollouts of each snippet; >= 2 with a baseline.
        credit: "return_to_go" (default), "immediate" or "whole" (one reward for the trajectory).
        horizon: lines a latent is credited for, >= 1; null for all that follow.
        discount: per line, in (0, 1].
        scale: "line_sum" (nats) or "token_mean" (nats per token) of a line's log-likelihood; the prior's must agree.
        baseline: "loo" (leave one out, unbiased), "mean" or "none"; never divided by a standard deviation.
        entropy_coef: weight of an entropy bonus on every choice, >= 0.
        kl_coef: weight of a KL penalty towards the frozen pi (k3 estimate, per choice), >= 0.
        kl_limit: end the E-phase when the KL of q to the frozen pi exceeds this, nats per latent; null never does.
        optimization: AdamW and schedule, over one E-phase.
        tokens_per_forward: of the gradient and scoring passes.

    Raises:
        RecipeError: settings that contradict each other.
    """

    def __init__(
        self,
        rollouts: int = 8,
        credit: Credit = "return_to_go",
        horizon: int | None = None,
        discount: float = 1.0,
        scale: Scale = "token_mean",
        baseline: Baseline = "loo",
        entropy_coef: float = 0.0,
        kl_coef: float = 0.0,
        kl_limit: float | None = None,
        optimization: Optimization | None = None,
        tokens_per_forward: int = 4096,
    ):
        super().__init__()
        self.automatic_optimization = False
        check_credit(credit, horizon, discount)
        check_baseline(baseline, rollouts)
        check_choice("learner.scale", scale, Scale)
        check_number("learner.rollouts", rollouts, least=1, whole=True)
        check_number("learner.entropy_coef", entropy_coef, least=0)
        check_number("learner.kl_coef", kl_coef, least=0)
        check_number("learner.kl_limit", kl_limit, above=0, optional=True)
        check_number("learner.tokens_per_forward", tokens_per_forward, least=1, whole=True)
        self.rollouts, self.credit, self.horizon, self.discount = rollouts, credit, horizon, discount
        self.scale, self.baseline = scale, baseline
        self.entropy_coef, self.kl_coef, self.kl_limit = entropy_coef, kl_coef, kl_limit
        self.optimization = optimization or Optimization(lr=1e-6, warmup=0.0, schedule="constant")
        self.tokens_per_forward = tokens_per_forward
        self._parts: tuple[BasePolicy, LatentPosterior, LatentPrior] | None = None

    # ---- contract -------------------------------------------------------------------------------------------------

    def check(self, posterior: LatentPosterior, prior: LatentPrior) -> None:
        """Refuse parts that do not fit together.

        Raises:
            RecipeError: the prior is measured on another scale than the reward, or a KL to pi was asked of a posterior
                that sees other text than pi.
        """
        if prior.scale != self.scale:
            raise RecipeError(
                f"prior.scale={prior.scale!r} but learner.scale={self.scale!r}: the penalty and the reward it is taken "
                "from must be measured on one scale. c = 0.05 is meant for token_mean; on line_sum try 0.5 to 4."
            )
        if posterior.lookahead and (self.kl_coef or self.kl_limit is not None):
            raise RecipeError("learner.kl_coef and kl_limit compare q with pi on the same text; not with hindsight")

    def update(
        self,
        posterior: LatentPosterior,
        prior: LatentPrior,
        pi: torch.nn.Module,
        batch: Sequence[Trajectory],
        optimizer: Any,
        seed: int,
        lr: float,
        owner: L.LightningModule,
    ) -> tuple[dict[str, float], list[list[Rollout]]]:
        """One E-step update of q.

        Args:
            posterior: q; its `equals_policy` tells whether pi's log-probabilities can be read off the sampling pass.
            prior: what a thought costs.
            pi: the frozen model that rewards come from.
            batch: b expert snippets of this rank.
            optimizer: over q's weights.
            seed: of the rollouts; a new one each update.
            lr: learning rate of this update.
            owner: the LightningModule whose trainer runs this.

        Returns:
            Metrics of all ranks by leaf name (see docs/metrics.md, `estep/*`), and this rank's rollouts [b][k].
        """
        started = time.perf_counter()
        with gathered(posterior.model):
            groups = posterior.draw(batch, self.rollouts, seed)
        sampled = time.perf_counter()
        flat = [rollout for group in groups for rollout in group]
        with gathered(pi):
            logps = pi_logps(pi, flat, posterior.equals_policy)
        k = self.rollouts
        table = line_table(groups, [logps[i : i + k] for i in range(0, len(flat), k)])
        credit = credits(table, prior, self.scale, self.credit, self.horizon, self.discount, self.baseline)
        metrics = self._gradient_step(posterior, pi, flat, table, credit.advantage, optimizer, lr, owner)
        posterior.equals_policy = False
        metrics |= reward_metrics(table, credit.reward, prior, groups)
        speeds = {
            "rollout_tokens_per_second": sum(len(rollout.trajectory.ids) for rollout in flat) / (sampled - started),
            "slot_occupancy": posterior.engine.stats.occupancy / world_size(),
            "withheld": float(sum(rollout.withheld for rollout in flat)),
        }
        return metrics | summed(speeds) | {"seconds": time.perf_counter() - started}, groups

    # ---- alone ----------------------------------------------------------------------------------------------------

    def bind(self, policy: BasePolicy, posterior: LatentPosterior, prior: LatentPrior) -> None:
        """Give the learner its parts, to be fitted alone: an E-step and nothing else."""
        self.check(posterior, prior)
        if prior.forbids_thinking:
            posterior.forbid_thinking()
        posterior.bind(policy)
        posterior.start_iteration(policy, {}, 0)
        self._parts = (policy, posterior, prior)
        self._pi = policy.snapshot() if posterior.weights == "shared" else policy.model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self._parts is None:
            raise RunError("AbstractionLearner.bind(policy, posterior, prior) must be called before it is fitted alone")
        return self.optimization.optimizer(self._parts[1].model.parameters())

    def training_step(self, batch: list[Trajectory], batch_idx: int) -> None:
        """One update on its own; logs `estep/*`."""
        assert self._parts is not None
        _, posterior, prior = self._parts
        total = int(self.trainer.estimated_stepping_batches)
        step = self.trainer.global_step
        lr = self.optimization.lr_at(step, total)
        metrics, _ = self.update(posterior, prior, self._pi, batch, self.optimizers(), step, lr, self)
        self.log_dict({f"estep/{name}": value for name, value in metrics.items()}, batch_size=len(batch))

    # ---- parts ----------------------------------------------------------------------------------------------------

    def _gradient_step(
        self,
        posterior: LatentPosterior,
        pi: torch.nn.Module,
        flat: Sequence[Rollout],
        table: LineTable,
        advantage: torch.Tensor,
        optimizer: Any,
        lr: float,
        owner: L.LightningModule,
    ) -> dict[str, float]:
        device = next(posterior.model.parameters()).device
        weights = advantage.flatten(0, 1)  # [b * k, n]
        views = [view for row, rollout in enumerate(flat) for view in posterior.views(rollout, row) if len(view.at)]
        chunks = chunk_views(views, self.tokens_per_forward)
        here = {"decisions": int(table.decided.sum()), "choices": sum(len(view.at) for view in views)}
        world = summed(here)  # what the sums of all ranks' gradients are divided by
        decisions, choices = int(world["decisions"]), int(world["choices"])
        if not decisions:
            return {"loss": 0.0, "entropy": 0.0, "kl": 0.0, "lr": lr}
        if is_sharded(posterior.model):  # every rank makes the same number of passes
            most = max(gather(len(chunks)))
            chunks += [[idle_view()]] * (most - len(chunks))
        totals = {"loss": 0.0, "entropy": 0.0, "kl": 0.0}
        again = np.zeros((len(flat), table.log_q.shape[-1]))  # log q of each latent, recomputed
        posterior.model.train()
        optimizer.zero_grad()
        for chunk in chunks:
            is_idle = chunk[0].row < 0
            rows = np.concatenate([np.full(len(view.at), view.row) for view in chunk])
            lines = np.concatenate([view.lines for view in chunk])
            log_q, entropy = self._log_q(posterior, posterior.model, chunk)
            loss = policy_gradient(log_q, weights[rows, lines].to(device), decisions)
            loss = loss - self.entropy_coef * entropy.sum() / choices
            if self.kl_coef or self.kl_limit is not None:
                k3 = self._k3(pi, posterior, chunk, log_q)
                loss = loss + self.kl_coef * k3.sum() / decisions
                totals["kl"] += 0.0 if is_idle else float(k3.detach().sum()) / decisions
            # ranks' gradients are averaged: each contributes its sum times the number of ranks
            backward(owner, loss * (0.0 if is_idle else world_size()))
            if not is_idle:
                totals["loss"] += float(loss.detach())
                totals["entropy"] += float(entropy.detach().sum()) / choices
                np.add.at(again, (rows, lines), log_q.detach().double().cpu().numpy())
        average_gradients(optimizer)
        norm = clip_gradients(optimizer, self.optimization.clip)
        set_lr(optimizer, lr)
        optimizer.step()
        gap = np.abs(again - table.log_q.flatten(0, 1).numpy())[table.decided.flatten(0, 1).numpy()]
        gaps = gather((float(gap.sum()), float(gap.max(initial=0.0))))
        return summed(totals) | {
            "grad_norm": float(norm),
            "logp_gap_mean": sum(total for total, _ in gaps) / decisions,
            "logp_gap_max": max(largest for _, largest in gaps),
            "lr": lr,
        }

    @staticmethod
    def _log_q(
        posterior: LatentPosterior, model: torch.nn.Module, chunk: Sequence[View]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        grammar = posterior.engine.grammar.to(next(model.parameters()).device)
        return run(model, lambda: view_log_q(model, grammar, chunk))

    def _k3(
        self, pi: torch.nn.Module, posterior: LatentPosterior, chunk: Sequence[View], log_q: torch.Tensor
    ) -> torch.Tensor:
        """KL(q || pi) of each choice by the k3 estimate, >= 0: exp(d) - 1 - d with d = log pi - log q."""
        with torch.no_grad():
            log_pi, _ = self._log_q(posterior, pi, chunk)
        d = log_pi - log_q
        return d.exp() - 1 - d


def reward_metrics(
    table: LineTable, reward: torch.Tensor, prior: LatentPrior, groups: Sequence[Sequence[Rollout]]
) -> dict[str, float]:
    """What the rollouts of all ranks look like: reward, likelihood, the terms of both bounds, and their thoughts.

    The bounds are in nats per code token: `elbo*` under pi's own prior, `elbo_fixed*` under the prior given, where a
    penalty stands for its KL.
    """
    terms = elbo_terms(table.line_logp, table.thought_logp, table.log_q, table.is_line)
    penalty = prior.penalty(table.is_thought, table.log_q, table.decided)
    in_nats = penalty if prior.scale == "line_sum" else penalty * table.line_tokens
    fixed = elbo_terms(table.line_logp, -in_nats, torch.zeros_like(in_nats), table.is_line)
    texts = [
        tuple(rollout.trajectory.ids[start:end].tolist())
        for group in groups
        for rollout in group
        for start, end in rollout.trajectory.thoughts
    ]
    per_line = {"reward": reward, "line_logp": table.line_logp}
    per_token = {
        "elbo": terms.total,
        "elbo_reconstruction": terms.reconstruction,
        "elbo_prior": terms.prior,
        "elbo_entropy": terms.entropy,
        "elbo_fixed": fixed.total,
        "elbo_fixed_kl": fixed.kl,
    }
    sums = summed({name: float(values.sum()) for name, values in (per_line | per_token).items()})
    counts = summed(
        {
            "lines": int(table.is_line.sum()),
            "tokens": int(table.line_tokens.sum()),
            "decided": int(table.decided.sum()),
            "thoughts": int((table.is_thought & table.decided).sum()),
            "intents": int(intents(table.is_thought, table.is_line).sum()),
        }
    )
    metrics = {name: sums[name] / counts["lines"] for name in per_line}
    metrics |= {name: sums[name] / counts["tokens"] for name in per_token}
    metrics["thought_rate"] = counts["thoughts"] / counts["decided"] if counts["decided"] else 0.0
    metrics["lines_per_thought"] = counts["lines"] / counts["intents"]
    everywhere = [text for texts in gather(texts) for text in texts]
    if everywhere:
        metrics["thought_length"] = sum(map(len, everywhere)) / len(everywhere)
        metrics["thought_distinct"] = distinct_ratio(everywhere)
        metrics["thought_most_common"] = most_common_share(everywhere)
    return metrics


def noise_floor(pi: torch.nn.Module, rollouts: Sequence[Rollout], scale: Scale) -> float:
    """Largest difference of a line's reward between two batch shapes of the same model: alone, and all in one row.

    In the unit of the reward, over all ranks. A penalty c that is not well above it cannot be told from noise.
    """
    trajectories = [rollout.trajectory for rollout in rollouts]
    worst = 0.0
    with gathered(pi):
        together = score(pi, trajectories, 10**9)
        each = [score(pi, [trajectory])[0] for trajectory in trajectories]
    for trajectory, packed, alone in zip(trajectories, together, each, strict=True):
        difference = np.abs(line_logps(trajectory, packed) - line_logps(trajectory, alone))
        tokens = trajectory.lines[:, 1] - trajectory.lines[:, 0] if scale == "token_mean" else 1
        worst = max(worst, float((difference / tokens).max(initial=0.0)))
    return max(gather(worst))
