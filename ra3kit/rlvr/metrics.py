"""What the answers of a step look like, over all processes: rewards, verdicts, lengths, groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ra3kit.ranks import summed
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
