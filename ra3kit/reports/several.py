"""The report of one run or several: curves in one picture, tables, what differs between the runs, how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ra3kit.guards import Finding
from ra3kit.reports.curves import Curve
from ra3kit.reports.document import NO_PICTURE, Block, Code, Items, Picture, Section, Table, can_draw, made_table
from ra3kit.reports.panels import Line, caption, choose_tags, lines_of, table_of, unequal_ends, unit_of
from ra3kit.reports.rlvr_thoughts import rlvr_thoughts
from ra3kit.reports.runs import Arm, Run, differences, stores_of
from ra3kit.reports.thoughts_sections import thoughts_sections

if TYPE_CHECKING:
    from ra3kit.reports.run_thoughts import RunThoughts

PICTURE, MARKDOWN, PAGE = "report.png", "report.md", "report.html"


@dataclass(frozen=True)
class Report:
    """What a report says.

    Args:
        sections: in their order.
        lines: what the picture shows.
        tables: the figures of the curves again, by tag, for the terminal.
        notes: what was left out, and what a reader must keep in mind.
        thoughts: of a single run with annotated stores.
    """

    sections: list[Section]
    lines: list[Line]
    tables: dict[str, Table]
    notes: list[str]
    thoughts: RunThoughts | None = None


@dataclass(frozen=True)
class View:
    """How the curves are to be shown.

    Args:
        tags: globs; None: those of the stages.
        smooth: steps of the running mean, >= 1.
        threshold: of rewards and pass rates.
        snippets: annotated snippets of a single run that are weighed, at most; 0 for none.
        gamma: discount per line of code, above 0 and below 1.
    """

    tags: Sequence[str] | None = None
    smooth: int = 10
    threshold: float = 0.5
    snippets: int = 64
    gamma: float = 0.99


def report_of(arms: Sequence[Arm], view: View, command: str, notes: Sequence[str] = ()) -> Report:
    """Put a report together. Its pictures are still to be drawn: `PICTURE` by `ra3kit.reports.panels.draw`, and, where
    there are thoughts, theirs by `ra3kit.reports.thoughts_picture.draw_thoughts`.

    Args:
        arms: what is reported, at least one run in each.
        view: how.
        command: that asked for it.
        notes: what is known to be left out already.

    Raises:
        RunError: no curve has such a tag.
        DataError: an annotated store and the model of a run are of different tokenizers.
    """
    runs = [run for arm in arms for run in arm.runs]
    lines, left_out = lines_of(arms, choose_tags(runs, view.tags), view.smooth)
    shown = list(dict.fromkeys(line.tag for line in lines))
    tables = {tag: Table(table_of(tag, lines, view.threshold, view.smooth)) for tag in shown}
    uneven = [note for tag in shown if (note := unequal_ends(tag, lines)) is not None]
    thoughts = thoughts_of(runs[0], view) if len(runs) == 1 else None
    missing = thoughts.notes if thoughts else []
    told = [*notes, *left_out, *uneven, *(line for run in runs for line in findings_of(run)), *missing]
    about = "curves of " + ", ".join(arm.label for arm in arms)
    top: list[Block] = [Picture(PICTURE, about), caption(lines, view.smooth)] if can_draw() else [NO_PICTURE]
    differing = differences([arm.runs for arm in arms])
    sections = [
        Section(f"Report: {', '.join(arm.label for arm in arms)}", top),
        *(Section(f"{tag}{_unit(tag)}", [table]) for tag, table in tables.items()),
        Section("How to read the tables", reading(view)),
        *([Section("To keep in mind", [Items(told)])] if told else []),
        Section("Runs", [runs_table(arms)]),
        *([settings_section(arms, differing)] if len(runs) > 1 else []),
        *(section for run in runs[:1] if len(runs) == 1 for section in run_sections(run, thoughts, view)),
        Section("How it was made", [Code(command), made_table()]),
    ]
    return Report(sections, lines, tables, told, thoughts)


def thoughts_of(run: Run, view: View) -> RunThoughts | None:
    """The thoughts in the annotated stores of a run; None of a run without."""
    if not stores_of(run.folder):
        return None
    from ra3kit.reports.run_thoughts import read_thoughts  # loads torch

    return read_thoughts(run, view.snippets)


def run_sections(run: Run, thoughts: RunThoughts | None, view: View) -> list[Section]:
    """What a report of a single run says beside its curves."""
    own = rlvr_thoughts(run.curves) if thoughts is None else thoughts_sections(thoughts, run.curves, view.gamma)
    ends = {tag: curve.finite() for tag, curve in run.curves.items() if not tag.endswith(("_lo", "_hi"))}
    rows = [["tag", "first", "last", "points"], *(_ends(tag, curve) for tag, curve in sorted(ends.items()))]
    return [*own, Section("Every curve of the run", [Table(rows)])]


def _ends(tag: str, curve: Curve) -> list[str]:
    there = len(curve.values) > 0
    return [tag, *(f"{curve.values[at]:.4g}" if there else "-" for at in (0, -1)), str(len(curve.values))]


def _unit(tag: str) -> str:
    unit = unit_of(tag)
    return f" ({unit})" if unit and unit not in tag else ""


def reading(view: View) -> list[Block]:
    """What the columns of the tables are."""
    columns = {
        "first": "the first value",
        "last 10 %": "mean of the last tenth of the values",
        "best": "the highest or the lowest value, where one of them is better",
        "area per step": "area under the curve by trapezoids, divided by the range of its steps: its mean height",
        f"step at {view.threshold:g}": f"first step at which the mean of the last {view.smooth} steps (of eval/*: the "
        f"value) is at least {view.threshold:g}",
        "last step, seconds": "where the curve ends, and after how much time of running",
    }
    seeds = "Of several training seeds: the mean, and after ± half the width of its 95 % t-interval."
    return [Table([["column", "meaning"], *([name, meaning] for name, meaning in columns.items())]), seeds]


def findings_of(run: Run) -> list[str]:
    """What a reader must know of a run: how it was stopped, and what its guards found."""
    lines = [f"{run.folder}: {Finding(**finding)}" for finding in run.results.get("guards", ())]
    return [*([f"{run.folder}: {run.state}"] if "stopped" in run.results else []), *lines]


def runs_table(arms: Sequence[Arm]) -> Table:
    """A row a run: where it is, what it is, how far it is, and what it was made with."""
    rows = [["run", "curve", "seed", "stage", "state", "last step", "seconds", "started (UTC)", "ra3kit"]]
    for arm in arms:
        for run in arm.runs:
            seed = "-" if run.seed is None else str(run.seed)
            state = "stopped" if run.state.startswith("stopped") else run.state
            cells = [seed, run.stage or "-", state, str(run.last_step), f"{run.seconds:,.0f}", *_first_start(run)]
            rows.append([str(run.folder), arm.label, *cells])
    return Table(rows)


def _first_start(run: Run) -> tuple[str, str]:
    """When it began, and the version and commit it was last started with."""
    if not run.starts:
        return "-", "-"
    made = run.starts[-1].get("environment", {}).get("ra3kit", {})
    said = [str(made[key])[:12] for key in ("version", "commit") if made.get(key)] if isinstance(made, dict) else []
    return str(run.starts[0]["started"])[:19], " ".join(said) or "-"


def settings_section(arms: Sequence[Arm], differing: dict[str, list[str]]) -> Section:
    """The settings that are not the same in all runs."""
    without = [str(run.folder) for arm in arms for run in arm.runs if not run.settings]
    blocks: list[Block] = [f"Without a recipe: {', '.join(without)}."] if without else []
    if differing:
        blocks.append(Table([["setting", *(arm.label for arm in arms)], *([k, *v] for k, v in differing.items())]))
    else:
        blocks.append("None but seeds, names and folders.")
    return Section("Settings that differ", blocks)
