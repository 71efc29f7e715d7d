"""The report of `ra3kit theory`: for each statement what it says, what is assumed, what was done, what came out.

Tables for the terminal, Markdown, and one HTML file that holds its pictures. All from the results, never from memory.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ra3kit.reports.document import NO_PICTURE, Block, Picture, Section, Table

WIDTHS = (46, 42, 20, 6)
"""Columns of a table on the terminal: claim, measured, interval, holds."""
HEADS = ("claim", "measured", "95 % interval", "holds")


@dataclass(frozen=True)
class Part:
    """One experiment in words.

    Args:
        key: in the results, and of its picture.
        title, statement, assumptions, experiment: what a reader needs before the picture.
        caption: how to read the picture.
    """

    key: str
    title: str
    statement: str
    assumptions: str
    experiment: str
    caption: str


PARTS = (
    Part(
        "pruning",
        "(a) Pruning: how many expert samples (Theorem 3.5)",
        "About |Z_eps| log(|Z| / delta) / sigma expert samples prune, with probability 1 - delta, every subset of"
        " |Z_eps| options that loses more than eps on tasks of mass sigma or more. The order is claimed, not the "
        "constant. The union bound behind it gives (|Z_eps| log|Z| + log(1/delta)) / sigma: log(1/delta) is "
        "added.",
        "Tasks are drawn independently. An expert sample is a task with its optimal value; it prunes the subsets "
        "that lose more than eps on it.",
        "Tasks come in |Z_eps| blocks of |Z| / |Z_eps| options. One option of a block is sound, the others fail "
        "on each of its tasks with chance 0.25. A subset is bad when it is unsound in half of the blocks, which "
        "makes the family about as hard as the bound says. Samples are drawn until no bad subset is left. "
        "Exponents are fitted at delta 0.5, where log(1/delta) is small.",
        "Left: each dot is one choice of |Z_eps|, |Z| and sigma; all lie in the grey band, a constant times the "
        "order. Right: what a smaller delta costs. Were log(1/delta) multiplied by |Z_eps|, the curves would "
        "follow the dotted lines.",
    ),
    Part(
        "convergence",
        "(b) RL convergence: how many sweeps of value iteration (Theorem 3.6)",
        "Value iteration over options is within eps of their optimum after log(R_max / (eps (1 - gbar))) / (1 - "
        "gbar) sweeps, gbar = sup E[gamma^tau]: the longer the options last, the fewer. With the primitive "
        "actions kept, gbar is gamma, and the bound promises nothing.",
        "A tabular MDP; the options' models are known exactly; the values begin no further than R_max / (1 - "
        "gbar) from the optimum.",
        "Random MDPs (30 states, 4 actions, gamma 0.95) with 6 options of mean duration tau, eps 0.01. Expert "
        "options follow the task's optimal policy, the first without a slip; random options follow any. The "
        "values start from below (V = 0) or from above (V = R_max / (1 - gbar)). The primitive actions are "
        "pruned, or kept.",
        "Left: only the options. Right: the primitive actions beside them. From above, or with options that are "
        "no good, they undo the speed-up. From below, with an option that already does the right thing, they do "
        "not: the bound is about the worst start.",
    ),
    Part(
        "regret",
        "(c) The regret decomposition",
        "E[V*_M - V^pi_M] = E[Delta(M, Z')] + E[V*_{M,Z'} - V^pi_M]: what the pruned options cost, plus what RL "
        "loses within those kept.",
        "None: it is algebra. The check is that the left side is computed in primitive steps, and the right side "
        "through the options' semi-Markov models.",
        'A house of four rooms. A task is a goal; Z is 4 steps and 40 options "walk to cell c". Mid-training '
        "keeps, one after the other, the option that lowers the mean Delta over expert tasks most. Q-learning "
        "then learns fresh tasks within the first n options, with a budget of primitive steps for each.",
        "Left: where the first options kept lead. Middle and right: mean regret by the number of options kept, "
        "with 95 % intervals. Too few, and the pruning error is large; too many, and RL is slow."
        " The more RL, the flatter the right arm.",
    ),
    Part(
        "loose",
        "(d) Where the bounds are loose",
        "A bound is about the worst case. How far is it from other cases?",
        "As above.",
        "Pruning on tasks of the same kind, where one unsound option already makes a subset bad: bad subsets then"
        " have much in common, and few samples prune them all. Value iteration from below: the worst start does "
        "not happen.",
        "How many times larger the bound is than what was needed; 1 is tight.",
    ),
)


def terminal(results: Mapping[str, Any]) -> list[str]:
    """The tables as lines of 120 columns."""
    lines = []
    for part in PARTS:
        lines += ["", part.title, *_row(HEADS), "-" * (sum(WIDTHS) + 5)]
        for finding in results[part.key]["findings"]:
            lines += _row(_cells(finding))
    return lines


def _cells(finding: Mapping[str, Any]) -> tuple[str, str, str, str]:
    interval = finding["interval"] or "all counted"
    return finding["claim"], finding["measured"], interval, "yes" if finding["holds"] else "NO"


def _row(cells: tuple[str, ...]) -> list[str]:
    columns = [textwrap.wrap(cell, width - 1) for cell, width in zip(cells, WIDTHS, strict=True)]
    height = max(map(len, columns))
    return [
        " ".join(
            f"{column[i] if i < len(column) else '':<{width}}" for column, width in zip(columns, WIDTHS, strict=True)
        ).rstrip()
        for i in range(height)
    ]


def verdict(results: Mapping[str, Any]) -> str:
    """How many claims held, and which did not."""
    findings = [finding for part in PARTS for finding in results[part.key]["findings"]]
    failed = [finding["claim"] for finding in findings if not finding["holds"]]
    text = f"{len(findings) - len(failed)} of {len(findings)} claims hold."
    return text + (f" Not: {'; '.join(failed)}." if failed else "")


def header(results: Mapping[str, Any]) -> str:
    """What was run."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    quick = " A quick look: too small for some intervals to decide." if results["quick"] else ""
    return f"Seed {results['seed']}; {versions}. Intervals are 95 % percentile bootstraps.{quick}"


def sections(results: Mapping[str, Any], pictures: list[str]) -> list[Section]:
    """`theory.md` and `theory.html`: statement, assumptions, experiment, picture, table.

    Args:
        pictures: names of the files drawn; none without matplotlib.
    """
    missing = [] if pictures else [NO_PICTURE]
    made = [Section("The theory, measured", [header(results), verdict(results), *missing])]
    for part in PARTS:
        words = {"Statement": part.statement, "Assumptions": part.assumptions, "Experiment": part.experiment}
        drawn = f"{part.key}.png" in pictures
        shown: list[Block] = [Picture(f"{part.key}.png", part.title), part.caption] if drawn else []
        table = Table([HEADS, *(_cells(finding) for finding in results[part.key]["findings"])])
        made.append(Section(part.title, [*(f"{name}: {text}" for name, text in words.items()), *shown, table]))
    return made
