"""What the answers of a step look like, and what an update did, over all processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ra3kit.ranks import gather, summed
from ra3kit.rlvr.losses import TokenLoss, k3
from ra3kit.rlvr.tasks import Answer, Groups
from ra3kit.verify.problem import STATUSES


def answer_metrics(groups: Groups, kept: Groups, trained: Groups) -> dict[str, float]:
    """Metrics by leaf name (docs/metrics.md, `rlvr/*`).

    Args:
        groups: of this process, judged.
        kept: those that have a signal.
        trained: their answers that are trained on.
    """
    answers = [answer for group in groups for answer in group]
    lengths = [len(answer.completion.ids) for answer in answers]
    rewards = [[a.reward for a in group if a.reward is not None] for group in groups]
    statuses = [answer.verdict.status for answer in answers if answer.verdict is not None]
    own = {
        "groups": len(groups),
        "groups_judged": sum(bool(known) for known in rewards),
        "answers": len(answers),
        "judged": sum(map(len, rewards)),
        "reward": sum(map(sum, rewards)),
        "std": sum(float(np.std(known)) for known in rewards if known),
        "equal": sum(len(set(known)) == 1 for known in rewards if known),
        "passed": sum(answer.outcome is True for answer in answers),
        "all_pass": sum(outcomes(group) == {True} for group in groups),
        "all_fail": sum(outcomes(group) == {False} for group in groups),
        "kept": len(kept),
        "trained": sum(map(len, trained)),
        "tokens": sum(lengths),
        "clipped": sum(answer.completion.finish == "length" for answer in answers),
    } | {status: statuses.count(status) for status in STATUSES}
    world = summed(own)
    logs = {
        "completions/mean_length": world["tokens"] / world["answers"],
        "completions/clipped_ratio": world["clipped"] / world["answers"],
        "groups_all_pass": world["all_pass"] / world["groups"],
        "groups_all_fail": world["all_fail"] / world["groups"],
        "groups_skipped": 1 - world["kept"] / world["groups"],
        "answers_trained": world["trained"],
    } | {f"verdict_{status}": world[status] for status in STATUSES}
    if world["judged"]:  # else nothing is known about rewards
        logs |= {
            "reward": world["reward"] / world["judged"],
            "pass_rate": world["passed"] / world["judged"],
            "reward_std": world["std"] / world["groups_judged"],
            "frac_reward_zero_std": world["equal"] / world["groups_judged"],
        }
    return logs


def outcomes(group: Sequence[Answer]) -> set[bool]:
    """The outcomes there are among the judged answers of a group."""
    return {answer.outcome for answer in group if answer.outcome is not None}


class UpdateMetrics:
    """Sums over the tokens of one optimizer step on this process.

    Args:
        with_kl: whether there is a reference; the same on every process, also on one that has no tokens.
    """

    def __init__(self, with_kl: bool = False) -> None:
        self.sums = dict.fromkeys(("loss", "entropy", "kl", "low", "high", "gap", "importance"), 0.0)
        self.largest = 0.0
        self.with_kl = with_kl

    def add(self, terms: TokenLoss, loss: float, logps: Tensor, entropies: Tensor) -> None:
        """One row: its loss, and log-probability and entropy of its targets."""
        assert terms.sampler is not None
        low, high = terms.is_clipped(logps)
        gap = ((logps if terms.old is None else terms.old) - terms.sampler).abs()
        self.sums["loss"] += loss
        self.sums["entropy"] += float(entropies.sum())
        self.sums["low"] += float(low.sum())
        self.sums["high"] += float(high.sum())
        self.sums["gap"] += float(gap.sum())
        self.sums["importance"] += float(terms.importance(logps).sum())
        self.largest = max(self.largest, float(gap.max()))
        if terms.reference is not None:
            self.sums["kl"] += float(k3(logps, terms.reference).sum())

    def means(self, tokens: int) -> dict[str, float]:
        """Means over the tokens of all processes, by tag."""
        world = summed(self.sums)
        largest = max(gather(self.largest))
        means = {name: world[name] / tokens for name in world}
        kl = {"kl": means["kl"]} if self.with_kl else {}
        return kl | {
            "loss": world["loss"],
            "entropy": means["entropy"],
            "clip_ratio/low_mean": means["low"],
            "clip_ratio/high_mean": means["high"],
            "logp_gap_mean": means["gap"],
            "logp_gap_max": largest,
            "is_weight_mean": means["importance"],
        }
