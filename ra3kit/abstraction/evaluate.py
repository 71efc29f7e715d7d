"""How well a model explains held-out code, with and without thoughts, measured so that NTP and RA3 can be compared.

Each model is its own prior and draws its own thoughts (q = pi under the latent grammar), so one measure serves both:
- plain: -log pi(a) with `<act>` everywhere, one term of the marginal;
- own latents: -E_q[log pi(z, a) - log q(z)], an upper bound of the marginal's cross-entropy;
- iwae: the same bound with k importance-weighted draws, tighter.
All in nats per code token, end token included. Cross-entropy given oracle or annotated comments is no such comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ra3kit.abstraction.bound import information_gain, iwae, learned_bound
from ra3kit.abstraction.estep import line_table
from ra3kit.abstraction.posterior import LatentPosterior, pi_logps
from ra3kit.abstraction.statistics import effective_horizon, thought_rate, thought_spans
from ra3kit.data.trajectory import Trajectory
from ra3kit.policy import score
from ra3kit.rollout import line_logps


@dataclass(frozen=True)
class HeldOut:
    """Nats of each of b held-out snippets (smaller is better), and what its thoughts were like.

    Args:
        plain, own, iwae: float64 [b] nats.
        tokens: int64 [b], code tokens, end token included.
        thought_rate: share of the decisions that were thoughts; thought_length: mean tokens of one; nan without any.
        lines_per_thought: effective horizon.
    """

    plain: np.ndarray
    own: np.ndarray
    iwae: np.ndarray
    tokens: np.ndarray
    thought_rate: float
    thought_length: float
    lines_per_thought: float

    def per_token(self) -> dict[str, float]:
        """Nats per code token by measure, and the thoughts' figures."""
        total = float(self.tokens.sum())
        means = {name: float(getattr(self, name).sum()) / total for name in ("plain", "own", "iwae")}
        figures = {name: getattr(self, name) for name in ("thought_rate", "thought_length", "lines_per_thought")}
        return {"plain_ce": means["plain"], "own_latents_ce": means["own"], "iwae_ce": means["iwae"], **figures}


def held_out(
    q: LatentPosterior, pi: torch.nn.Module, snippets: Sequence[Trajectory], k: int, seed: int, sampled_by_pi: bool
) -> HeldOut:
    """Measure pi on expert snippets with k draws of q each.

    Args:
        q: draws the thoughts.
        pi: explains the code.
        snippets: held out, without thoughts.
        k: draws of each, >= 1.
        seed: of the draws.
        sampled_by_pi: q has pi's weights, so its log-probabilities are pi's.
    """
    groups = q.draw(snippets, k, seed)
    flat = [rollout for group in groups for rollout in group]
    logps = pi_logps(pi, flat, sampled_by_pi)
    table = line_table(groups, [logps[i : i + k] for i in range(0, len(flat), k)])
    log_q = table.log_q.sum(-1)
    thoughts = int(table.is_thought.sum())
    thought_tokens = sum(int((r.trajectory.thoughts[:, 1] - r.trajectory.thoughts[:, 0]).sum()) for r in flat)
    return HeldOut(
        plain=np.asarray([-values.sum() for values in score(pi, snippets)]),
        own=-learned_bound(table.log_joint, log_q).numpy(),
        iwae=-iwae(table.log_joint, log_q).numpy(),
        tokens=table.code_tokens.numpy(),
        thought_rate=float(thought_rate(table.is_thought, table.decided)) if table.decided.any() else 0.0,
        thought_length=thought_tokens / thoughts if thoughts else float("nan"),
        lines_per_thought=float(effective_horizon(table.is_thought, table.is_line)),
    )


@dataclass(frozen=True)
class Difference:
    """a minus b in nats per code token (negative: a is better), with the 95 % bootstrap interval over snippets."""

    mean: float
    low: float
    high: float


def paired_difference(a: np.ndarray, b: np.ndarray, tokens: np.ndarray, draws: int = 2000, seed: int = 0) -> Difference:
    """Paired bootstrap over snippets of (sum a - sum b) / sum tokens."""
    gap, rng = a - b, np.random.default_rng(seed)
    pick = rng.integers(0, len(gap), (draws, len(gap)))
    sampled = gap[pick].sum(1) / tokens[pick].sum(1)
    low, high = np.quantile(sampled, [0.025, 0.975])
    return Difference(float(gap.sum() / tokens.sum()), float(low), float(high))


@dataclass(frozen=True)
class ThoughtGain:
    """What one thought was worth.

    Args:
        snippet: index of the trajectory; line: index of the line it stands before.
        lines: how many lines it covers, up to the next thought or the end; tokens: their code tokens.
        nats: log-likelihood of these lines with the thought minus without it, everything else and the weights the same.
    """

    snippet: int
    line: int
    lines: int
    tokens: int
    nats: float


def thought_gains(pi: torch.nn.Module, trajectories: Sequence[Trajectory]) -> list[ThoughtGain]:
    """Information gain of every thought: the lines up to the next thought, with it and with only this one removed."""
    where = [
        (i, int(line)) for i, trajectory in enumerate(trajectories) for line in np.flatnonzero(trajectory.has_thought())
    ]
    if not where:
        return []
    without = []
    for i, line in where:
        starts = np.flatnonzero(trajectories[i].has_thought()).tolist()
        kept = {t: trajectories[i].thought_ids(t) for t in starts if t != line}
        without.append(trajectories[i].weave(kept))
    involved = sorted({i for i, _ in where})
    full = dict(zip(involved, score(pi, [trajectories[i] for i in involved]), strict=True))
    gains = []
    for (i, line), other, logp in zip(where, without, score(pi, without), strict=True):
        spans = thought_spans(torch.from_numpy(trajectories[i].has_thought())).tolist()
        (end,) = (stop for start, stop in spans if start == line)
        covered = trajectories[i].lines[line:end]
        tokens = int((covered[:, 1] - covered[:, 0]).sum())
        with_it, without_it = (
            torch.tensor(line_logps(t, values)[line:end].sum())
            for t, values in ((trajectories[i], full[i]), (other, logp))
        )
        gain = information_gain(with_it, without_it, torch.tensor(tokens))
        gains.append(ThoughtGain(i, line, end - line, tokens, float(gain.total)))
    return gains
