"""What a run of GRPO leaves for a person: a Markdown report and a picture, from its `results.json`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ra3kit.guards import Finding
from ra3kit.reports.curves import Curve, area_under, end_of, running_mean
from ra3kit.reports.document import NO_PICTURE, Block, Items, Picture, Section, Table, as_markdown
from ra3kit.reports.several import PICTURE

SMOOTH = 10
"""Steps of the running mean in the picture."""

CURVES = {
    "reward": ("mean reward", "reward"),
    "pass_rate": ("pass rate", "share of answers"),
    "completions/mean_length": ("length of answers", "tokens"),
    "entropy": ("entropy", "nats per token"),
}
"""Key of the history -> what it is called, and its unit."""

COLOURS = {"reward": "#2b6ca3", "pass_rate": "#5f9e6e", "completions/mean_length": "#d1813a", "entropy": "#7f63b8"}
NOTE = (
    "Figures of the sampled answers to training problems, before each step; no held-out score is among them. A reward "
    "that rises says that these problems are answered better, not others: for that, evaluate the model."
)


def rlvr_markdown(results: Mapping[str, Any]) -> str:
    """The report of a run of GRPO.

    Args:
        results: `history` (curve -> a value a step, NaN or None where there is none), and, where they are known,
            `settings`, `reward`, `isolation`, `data`, `guards` and `stopped`.
    """
    picture: list[Block] = []
    if "stopped" not in results:
        drawn = importlib.util.find_spec("matplotlib") is not None
        picture = [Picture(PICTURE, "reward, pass rate, length and entropy by step") if drawn else NO_PICTURE]
    stopped = [f"Stopped before its end: {results['stopped']}"] if "stopped" in results else []
    found = [str(Finding(**finding)) for finding in results.get("guards", ())]
    told = [line for line in found if line not in results.get("stopped", "")]
    sections = [
        Section("RLVR run", [*stopped, *picture]),
        Section("Training", [Table(history_table(results["history"])), NOTE]),
        *([Section("To keep in mind", [Items(told)])] if told else []),
        *_facts("Data", results.get("data", {})),
        *_facts(
            "Settings", {**results.get("settings", {}), **_single(results, ("reward", "isolation", "reproducible"))}
        ),
    ]
    return as_markdown(sections)


def history_table(history: Mapping[str, Sequence[float | None]]) -> list[list[str]]:
    """First and last values, the best of those of which more is better, and the mean height, a row a curve."""
    rows = [["", "unit", "first", "last 10 %", "highest", "area per step", "steps"]]
    for key, (name, unit) in CURVES.items():
        curve = history_curve(history.get(key, ()))
        if len(curve.values):
            values = [curve.values[0], end_of(curve.values), curve.values.max(), area_under(curve.steps, curve.values)]
            rows.append([name, unit, *(f"{value:.4g}" for value in values), str(len(curve.values))])
    return rows


def history_curve(values: Sequence[float | None]) -> Curve:
    """A curve of a history by the number of the step, without the steps that have no value."""
    found = np.array([np.nan if value is None else value for value in values], float)
    return Curve(np.arange(len(found)), found, np.zeros(len(found))).finite()


def _single(results: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: results[name] for name in names if name in results}


def _facts(title: str, facts: Mapping[str, Any]) -> list[Section]:
    """A table of plain facts; longer ones are in results.json."""
    plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float | bool | None)}
    if not plain:
        return []
    return [Section(title, [Table([["what", "value"], *([key, str(value)] for key, value in plain.items())])])]


def rlvr_picture(results: Mapping[str, Any], path: Path) -> bool:
    """Draw reward and pass rate, length, and entropy by step; False where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = (("reward", "pass_rate"), ("completions/mean_length",), ("entropy",))
    figure = Figure(figsize=(13.5, 3.8), layout=ConstrainedLayoutEngine(w_pad=0.12))
    for axes, keys in zip(figure.subplots(1, 3), panels, strict=True):
        for key in keys:
            curve = history_curve(results["history"].get(key, ()))
            if len(curve.values):
                mean = running_mean(curve.steps, curve.values, SMOOTH)
                axes.plot(curve.steps, curve.values, color=COLOURS[key], linewidth=0.7, alpha=0.4)
                axes.plot(curve.steps, mean, color=COLOURS[key], linewidth=1.8, label=CURVES[key][0])
        axes.set(title=" and ".join(CURVES[key][0] for key in keys), xlabel="step", ylabel=CURVES[keys[-1]][1])
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(keys) > 1:
            axes.set_ylabel("reward, share of answers")
            axes.legend(frameon=False)
    figure.supxlabel(f"thin: each step; thick: mean of the last {SMOOTH} steps", fontsize=9, color="#5a6570")
    figure.savefig(path, dpi=130)
    return True
