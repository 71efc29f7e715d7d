"""The report of `ra3kit theory`: for each statement what it says, what is assumed, what was done, what came out.

Tables for the terminal, Markdown, and one HTML file that holds its pictures. All from the results, never from memory.
"""

from __future__ import annotations

import base64
import html
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def markdown(results: Mapping[str, Any], pictures: list[str]) -> str:
    """`theory.md`: statement, assumptions, experiment, picture, table.

    Args:
        pictures: names of the files drawn; none without matplotlib.
    """
    parts = ["# The theory, measured", header(results), verdict(results)]
    if not pictures:
        parts.append("No pictures: matplotlib is missing (`pip install 'ra3kit[plot]'`).")
    for part in PARTS:
        parts += [f"## {part.title}", *(f"**{name}.** {text}" for name, text in _words(part))]
        parts += [f"![{part.title}]({part.key}.png)", part.caption] if f"{part.key}.png" in pictures else []
        rows = [HEADS, ("---",) * 4, *(_cells(finding) for finding in results[part.key]["findings"])]
        parts.append("\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def _words(part: Part) -> list[tuple[str, str]]:
    return [("Statement", part.statement), ("Assumptions", part.assumptions), ("Experiment", part.experiment)]


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}table{border-collapse:collapse;font-size:14px;width:100%}
td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}
.no{color:#b3261e;font-weight:bold}figcaption{color:#555;font-size:14px}figure{margin:1rem 0}"""


def page(results: Mapping[str, Any], folder: Path, pictures: list[str]) -> str:
    """`theory.html`: the same as one file, its pictures inside.

    Args:
        folder: where the pictures are.
        pictures: names of the files drawn.
    """
    body = ["<h1>The theory, measured</h1>", f"<p>{_text(header(results))}</p>", f"<p>{_text(verdict(results))}</p>"]
    if not pictures:
        body.append("<p>No pictures: matplotlib is missing.</p>")
    for part in PARTS:
        body.append(f"<h2>{_text(part.title)}</h2>")
        body += [f"<p><b>{name}.</b> {_text(text)}</p>" for name, text in _words(part)]
        if f"{part.key}.png" in pictures:
            data = base64.b64encode((folder / f"{part.key}.png").read_bytes()).decode()
            picture = f'<img alt="{_text(part.title)}" src="data:image/png;base64,{data}">'
            body.append(f"<figure>{picture}<figcaption>{_text(part.caption)}</figcaption></figure>")
        body.append("<table><tr>" + "".join(f"<th>{_text(head)}</th>" for head in HEADS) + "</tr>")
        for finding in results[part.key]["findings"]:
            *cells, holds = _cells(finding)
            row = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
            body.append(f'<tr>{row}<td class="{holds.lower()}">{holds}</td></tr>')
        body.append("</table>")
    head = f'<meta charset="utf-8"><title>The theory, measured</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _text(text: str) -> str:
    return html.escape(text)
