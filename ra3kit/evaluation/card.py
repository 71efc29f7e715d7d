"""The eval card: the score, what it was measured with, and what to keep in mind, for a person."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ra3kit import __version__
from ra3kit.environment import versions as installed
from ra3kit.evaluation.passk import Score, verdict_counts
from ra3kit.evaluation.score import PICTURE, Results
from ra3kit.verify.problem import Status

VERSIONED = ("torch", "transformers", "tokenizers", "numpy")
COLORS: dict[Status, str] = {
    "pass": "#2a9d8f",
    "fail": "#e76f51",
    "timeout": "#e9c46a",
    "memory": "#8d6a9f",
    "crash": "#6d4c41",
    "refused": "#b0bec5",
    "internal": "#37474f",
}


def versions() -> dict[str, str]:
    """What a score may depend on: Python, ra3kit and the libraries."""
    return {"python": platform.python_version(), "ra3kit": __version__, **installed(VERSIONED)}


def table_lines(results: Results) -> list[str]:
    """The table that an evaluation ends with."""
    columns: list[tuple[str, Mapping[str, Score]]] = [("all tests", results.scores)]
    base = results.base_scores
    if base is not None:
        columns = [("base tests", base), ("base + plus", results.scores)]
    width = 24
    lines = [f"{'':10}" + "".join(f"{title:>{width}}" for title, _ in columns)]
    lines += [f"{name:10}" + "".join(f"{scores[name]!s:>{width}}" for _, scores in columns) for name in results.scores]
    counts = verdict_counts(results.outcomes)
    judged = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    cut = "" if results.cut is None else f", {results.cut:.0%} cut at the token limit"
    lines.append(f"{'verdicts':10} {judged}; {len(results.outcomes)} tasks, {results.compiling:.0%} compile{cut}")
    return lines


PICTURE_MISSING = "No picture: matplotlib is missing (`pip install 'ra3kit[plot]'`)."


def card(results: Results, with_picture: bool = False) -> str:
    """card.md."""
    base = results.base_scores
    titles = ["all tests"] if base is None else ["base tests", "base + plus tests"]
    columns = [results.scores] if base is None else [base, results.scores]
    rows = [f"| {name} | " + " | ".join(str(column[name]) for column in columns) + " |" for name in results.scores]
    counts = verdict_counts(results.outcomes)
    parts = [
        f"# {results.model} on {results.benchmark}",
        "\n".join([f"| | {' | '.join(titles)} |", "|---|" + "---|" * len(titles), *rows]),
        "Mean over tasks of the unbiased estimator, in brackets the 95 % bootstrap interval over tasks.",
        "Verdicts: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count) + ".",
    ]
    if with_picture:
        parts.append(f"![verdicts of every sample]({PICTURE})")
    if results.notes:
        parts.append("## To keep in mind\n\n" + "\n".join(f"- {line}" for line in results.notes))
    if results.missing:
        parts.append(f"Tasks without a sample: {', '.join(results.missing)}.")
    parts.append("## How it was measured\n\n" + "\n".join(_settings(results.settings)))
    return "\n\n".join(parts) + "\n"


def _settings(settings: Mapping[str, Any], indent: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}- {key}:", *_settings(value, indent + "  ")]
        else:
            shown = ", ".join(f"`{item!r}`" for item in value) if isinstance(value, list | tuple) else f"`{value}`"
            lines.append(f"{indent}- {key}: {shown}")
    return lines


def picture(results: Results, path: Path) -> bool:
    """A strip of verdicts, a column a task, from the most to the least solved; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    statuses: Sequence[Status] = tuple(COLORS)
    tasks = sorted(results.outcomes.values(), key=lambda row: -row.count("pass") / len(row))
    height = max(map(len, tasks))
    ranks = [sorted(map(statuses.index, row)) for row in tasks]
    image = [[float(row[i]) if i < len(row) else float("nan") for row in ranks] for i in range(height)]
    figure = Figure(figsize=(9, 2.2 + min(3.0, 0.1 * height)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        image,
        cmap=ListedColormap([COLORS[status] for status in statuses]),
        vmin=-0.5,
        vmax=len(statuses) - 0.5,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
    )
    name, score = next(iter(results.scores.items()))
    axes.set_title(f"{results.model} on {results.benchmark}: {name} {score}", fontsize=10)
    axes.set(xlabel="tasks, most solved first", ylabel="samples", yticks=[])
    seen = [status for status in statuses if any(status in row for row in tasks)]
    figure.legend(
        handles=[Patch(color=COLORS[status], label=status) for status in seen],
        loc="outside lower center",
        ncols=len(seen),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=130)
    return True
