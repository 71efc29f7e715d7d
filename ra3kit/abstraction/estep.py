"""The E-step's arithmetic: rollouts to padded tensors, rewards, advantages, and the policy-gradient loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ra3kit.abstraction.credit import Baseline, Credit, Scale, group_advantage, line_reward, returns
from ra3kit.abstraction.prior import LatentPrior
from ra3kit.rollout import Rollout, line_logps


@dataclass(frozen=True)
class LineTable:
    """Per-line quantities of b snippets with k rollouts each, padded to n lines; float64, nats.

    Args:
        line_logp: [b k n], log pi(a_t | s_t, z_0:t), summed over the line's tokens, log pi(act) included.
        thought_logp: [b k n], raw log pi of the thought's tokens before the line; 0 without a thought.
        log_q: [b k n], log q of the latent before the line; 0 where none was drawn.
        line_tokens: [b k n], int64.
        is_line: [b k n], True on real lines.
        is_thought: [b k n], True where a thought was written.
        decided: [b k n], True where q made a choice.
        end_logp: [b k], raw log pi of the end token.
    """

    line_logp: Float[Tensor, "b k n"]
    thought_logp: Float[Tensor, "b k n"]
    log_q: Float[Tensor, "b k n"]
    line_tokens: Tensor
    is_line: Bool[Tensor, "b k n"]
    is_thought: Bool[Tensor, "b k n"]
    decided: Bool[Tensor, "b k n"]
    end_logp: Float[Tensor, "b k"]

    @property
    def log_joint(self) -> Float[Tensor, "b k"]:
        """log pi(z, a), nats: the raw log-probability of every thought, code and end token."""
        return (self.line_logp + self.thought_logp).sum(-1) + self.end_logp

    @property
    def code_tokens(self) -> Tensor:
        """int64 [b]: code tokens of each snippet, its end token included."""
        return self.line_tokens[:, 0].sum(-1) + 1


def line_table(groups: Sequence[Sequence[Rollout]], logps: Sequence[Sequence[np.ndarray]]) -> LineTable:
    """Pad rollouts and pi's log-probabilities of their tokens (float64 [t - 1] each) to one table."""
    b, k = len(groups), len(groups[0])
    n = max(len(group[0].trajectory.lines) for group in groups)
    names = ("line_logp", "thought_logp", "log_q", "line_tokens", "is_line", "is_thought", "decided")
    out = {name: np.zeros((b, k, n)) for name in names}
    end_logp = np.zeros((b, k))
    for i, (group, rows) in enumerate(zip(groups, logps, strict=True)):
        for j, (rollout, logp) in enumerate(zip(group, rows, strict=True)):
            trajectory = rollout.trajectory
            m = len(trajectory.lines)
            has_thought = trajectory.has_thought()
            out["line_logp"][i, j, :m] = line_logps(trajectory, logp)
            for line, (start, end) in zip(np.flatnonzero(has_thought), trajectory.thoughts, strict=True):
                out["thought_logp"][i, j, line] = logp[start - 1 : end - 1].sum()
            out["log_q"][i, j, :m] = rollout.log_q
            out["line_tokens"][i, j, :m] = trajectory.lines[:, 1] - trajectory.lines[:, 0]
            out["is_line"][i, j, :m] = 1
            out["is_thought"][i, j, :m] = has_thought
            out["decided"][i, j, :m] = rollout.decided
            end_logp[i, j] = logp[-1]
    tensors = {name: torch.from_numpy(values) for name, values in out.items()}
    for name in ("is_line", "is_thought", "decided"):
        tensors[name] = tensors[name].bool()
    tensors["line_tokens"] = tensors["line_tokens"].long()
    return LineTable(**tensors, end_logp=torch.from_numpy(end_logp))


@dataclass(frozen=True)
class Credits:
    """reward [b k n]: r_t = line reward - penalty; advantage [b k n]: of the latent before each line, 0 on padding."""

    reward: Float[Tensor, "b k n"]
    advantage: Float[Tensor, "b k n"]


def credits(
    table: LineTable,
    prior: LatentPrior,
    scale: Scale,
    credit: Credit,
    horizon: int | None,
    discount: float,
    baseline: Baseline,
) -> Credits:
    """r_t = log pi(a_t | s_t, z_0:t) - penalty(z_t), credited to the latents and compared within each group."""
    likelihood = line_reward(table.line_logp, table.line_tokens, scale)
    penalty = prior.penalty(table.is_thought, table.log_q, table.decided)
    reward = torch.where(table.is_line, likelihood - penalty, 0.0)
    return Credits(
        reward, group_advantage(returns(reward, table.is_line, credit, horizon, discount), table.is_line, baseline)
    )


def policy_gradient(log_q: Float[Tensor, " p"], advantage: Float[Tensor, " p"], decisions: int) -> Float[Tensor, ""]:
    """-1/D sum_t A_t log q(z_t): each choice of a latent carries the latent's advantage; D latents in the batch."""
    return -(advantage.detach().to(log_q.dtype) * log_q).sum() / decisions
