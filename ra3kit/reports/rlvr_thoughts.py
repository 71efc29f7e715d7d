"""Thoughts in the answers of a run of RLVR, from its curves."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ra3kit.reports.curves import LAST, Curve, end_of
from ra3kit.reports.document import Section, Table

FIGURES = {
    "thoughts_per_answer": "thoughts per answer",
    "thought_rate": "thoughts per line of code",
    "tokens_per_thought": "tokens of a thought",
}
NOTE = (
    "Rewards are means over the judged answers of the logged steps. Their difference is not what thoughts are worth: "
    "easy and hard problems may differ in how often they are thought about."
)


def rlvr_thoughts(curves: Mapping[str, Curve]) -> list[Section]:
    """One section, of a run whose answers were looked through for thoughts; none of any other.

    Args:
        curves: of a run, by tag.
    """
    found = {leaf: curves[f"rlvr/{leaf}"].finite() for leaf in FIGURES if f"rlvr/{leaf}" in curves}
    counted = found.get("thoughts_per_answer")
    if counted is None or not len(counted.values):
        return []
    if not counted.values.any():
        return [Section("Thoughts", [f"None in any answer of the {len(counted.values)} steps that were logged."])]
    rows = [["", "first", "last 10 %", "all steps"]]
    for leaf, curve in found.items():
        if len(curve.values):
            values = (curve.values[0], end_of(curve.values), curve.values.mean())
            rows.append([FIGURES[leaf], *(f"{value:.4g}" for value in values)])
    steps = counted.steps
    last = int(steps[-math.ceil(LAST * len(steps))])
    for which in ("with", "without"):
        spans = ((int(steps[0]), int(steps[0])), (last, int(steps[-1])), (int(steps[0]), int(steps[-1])))
        rows.append([f"reward {which} thoughts", *(reward_text(curves, which, *span) for span in spans)])
    return [Section("Thoughts", [Table(rows), NOTE])]


def reward_text(curves: Mapping[str, Curve], which: str, first: int, last: int) -> str:
    """Mean reward of the answers with or without thoughts, each answer once, and how many they are.

    Args:
        curves: of a run, by tag.
        which: "with" or "without".
        first, last: steps, both included.
    """
    reward, count = (curves.get(f"rlvr/{leaf}_{which}_thoughts") for leaf in ("reward", "answers"))
    if reward is None or count is None:
        return "-"
    counts = dict(zip(count.steps.tolist(), count.values.tolist(), strict=True))
    known = zip(reward.finite().steps.tolist(), reward.finite().values.tolist(), strict=True)
    pairs = [(value, counts[step]) for step, value in known if first <= step <= last and counts.get(step)]
    answers = sum(each for _, each in pairs)
    return f"{sum(value * each for value, each in pairs) / answers:.4g} ({answers:.0f} answers)" if answers else "-"
