"""How well a model explains held-out code, with and without thoughts, measured so that NTP and RA3 can be compared.

Each model is its own prior and draws its own thoughts (q = pi under the latent grammar), so one measure serves both:
- plain: -log pi(a) with `<act>` everywhere, one term of the marginal;
- own latents: -E_q[log pi(z, a) - log q(z)], an upper bound of the marginal's cross-entropy;
- iwae: the same bound with k importance-weighted draws, tighter.
All in nats per code token, end token included. Cross-entropy given oracle or annotated comments is no such comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from ra3kit.abstraction.bound import information_gain, iwae, learned_bound
from ra3kit.abstraction.estep import line_table
from ra3kit.abstraction.posterior import LatentPosterior, pi_logps
from ra3kit.abstraction.statistics import intents, thought_spans
from ra3kit.data.trajectory import Trajectory
from ra3kit.policy import score
from ra3kit.rollout import line_logps
from ra3kit.sharding import gathered


@dataclass(frozen=True)
class HeldOut:
    """Nats of each of b held-out snippets (smaller is better), and what the thoughts in its k draws were like.

    Args:
        plain, own, iwae: float64 [b] nats.
        tokens: int64 [b], code tokens, end token included.
        decisions, thoughts: int64 [b], choices of a latent in all draws, and those that were thoughts.
        thought_tokens: int64 [b], tokens of these thoughts.
        lines, intents: int64 [b], lines of all draws, and the intents they belong to.
        names: b snippet ids.
    """

    plain: np.ndarray
    own: np.ndarray
    iwae: np.ndarray
    tokens: np.ndarray
    decisions: np.ndarray
    thoughts: np.ndarray
    thought_tokens: np.ndarray
    lines: np.ndarray
    intents: np.ndarray
    names: tuple[str, ...]

    def per_token(self) -> dict[str, float]:
        """Nats per code token by measure; share of the decisions that were thoughts, mean tokens of one (nan without
        any), and lines per intent."""
        total = {f.name: float(getattr(self, f.name).sum()) for f in fields(self) if f.name != "names"}
        return {
            "plain_ce": total["plain"] / total["tokens"],
            "own_latents_ce": total["own"] / total["tokens"],
            "iwae_ce": total["iwae"] / total["tokens"],
            "thought_rate": total["thoughts"] / total["decisions"] if total["decisions"] else 0.0,
            "thought_length": total["thought_tokens"] / total["thoughts"] if total["thoughts"] else float("nan"),
            "lines_per_thought": total["lines"] / total["intents"],
        }

    @staticmethod
    def join(parts: Sequence[HeldOut]) -> HeldOut:
        """One measurement out of several, in the order of snippet ids: the same however they were shared out."""
        names = tuple(name for part in parts for name in part.names)
        order = sorted(range(len(names)), key=names.__getitem__)
        joined = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts])[order]
            for f in fields(HeldOut)
            if f.name != "names"
        }
        return HeldOut(**joined, names=tuple(names[i] for i in order))


def held_out(
    q: LatentPosterior, pi: torch.nn.Module, snippets: Sequence[Trajectory], k: int, seed: int, sampled_by_pi: bool
) -> HeldOut:
    """Measure pi on expert snippets with k draws of q each.

    Args:
        q: draws the thoughts; its weights are gathered for it where they are sharded, and so are pi's.
        pi: explains the code.
        snippets: held out, without thoughts.
        k: draws of each, >= 1.
        seed: of the draws.
        sampled_by_pi: q has pi's weights, so its log-probabilities are pi's.
    """
    with gathered(q.model):
        groups = q.draw(snippets, k, seed)
    flat = [rollout for group in groups for rollout in group]
    with gathered(pi):
        logps = pi_logps(pi, flat, sampled_by_pi)
        plain = score(pi, snippets)
    table = line_table(groups, [logps[i : i + k] for i in range(0, len(flat), k)])
    log_q = table.log_q.sum(-1)
    thoughts = [np.concatenate([rollout.trajectory.thoughts for rollout in group]) for group in groups]
    return HeldOut(
        plain=np.asarray([-values.sum() for values in plain]),
        own=-learned_bound(table.log_joint, log_q).numpy(),
        iwae=-iwae(table.log_joint, log_q).numpy(),
        tokens=table.code_tokens.numpy(),
        decisions=table.decided.sum((1, 2)).numpy(),
        thoughts=np.asarray([len(spans) for spans in thoughts]),
        thought_tokens=np.asarray([int((spans[:, 1] - spans[:, 0]).sum()) for spans in thoughts]),
        lines=table.is_line.sum((1, 2)).numpy(),
        intents=intents(table.is_thought, table.is_line).sum((1, 2)).numpy(),
        names=tuple(snippet.snippet_id for snippet in snippets),
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
        logp_with, logp_without: log-likelihood of each of these lines, nats; their sums differ by `nats`.
    """

    snippet: int
    line: int
    lines: int
    tokens: int
    nats: float
    logp_with: tuple[float, ...]
    logp_without: tuple[float, ...]


def gain_summary(gains: Sequence[ThoughtGain]) -> dict[str, float]:
    """Mean gain per thought and per token of the lines it covers, nats, and the share of thoughts that gained
    anything; empty without thoughts."""
    if not gains:
        return {}
    nats = sum(gain.nats for gain in gains)
    return {
        "gain_per_thought": nats / len(gains),
        "gain_per_token": nats / sum(gain.tokens for gain in gains),
        "gain_positive": sum(gain.nats > 0 for gain in gains) / len(gains),
    }


def thought_gains(pi: torch.nn.Module, trajectories: Sequence[Trajectory]) -> list[ThoughtGain]:
    """Information gain of every thought: the lines up to the next thought, with it and with only this one removed."""
    where = [
        (i, int(line)) for i, trajectory in enumerate(trajectories) for line in np.flatnonzero(trajectory.has_thought())
    ]
    without = []
    for i, line in where:
        starts = np.flatnonzero(trajectories[i].has_thought()).tolist()
        kept = {t: trajectories[i].thought_ids(t) for t in starts if t != line}
        without.append(trajectories[i].weave(kept))
    involved = sorted({i for i, _ in where})
    with gathered(pi):  # also where there is nothing to score: other ranks may have something
        full = dict(zip(involved, score(pi, [trajectories[i] for i in involved]), strict=True))
        removed = score(pi, without)
    gains = []
    for (i, line), other, logp in zip(where, without, removed, strict=True):
        spans = thought_spans(torch.from_numpy(trajectories[i].has_thought())).tolist()
        (end,) = (stop for start, stop in spans if start == line)
        covered = trajectories[i].lines[line:end]
        tokens = int((covered[:, 1] - covered[:, 0]).sum())
        with_it, without_it = (
            line_logps(t, values)[line:end] for t, values in ((trajectories[i], full[i]), (other, logp))
        )
        totals = torch.tensor(with_it.sum()), torch.tensor(without_it.sum())
        gain = information_gain(*totals, torch.tensor(tokens))
        per_line = tuple(with_it.tolist()), tuple(without_it.tolist())
        gains.append(ThoughtGain(i, line, end - line, tokens, float(gain.total), *per_line))
    return gains
