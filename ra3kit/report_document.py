"""A report of runs as a document: sections that become Markdown for the repository and one HTML file to send."""

from __future__ import annotations

import base64
import html
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ra3kit.curves import Curve
from ra3kit.environment import CORE, kit, versions
from ra3kit.guards import Finding
from ra3kit.provenance import now
from ra3kit.report_curves import Line, caption, choose_tags, lines_of, table_of, unequal_ends, unit_of
from ra3kit.report_runs import Arm, Run, differences

PICTURE, MARKDOWN, PAGE = "report.png", "report.md", "report.html"
NO_PICTURE = "No picture: matplotlib is missing. To have it: pip install 'ra3kit[plot]'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
body { color: #1d2329; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { width: 100%; height: auto; }
pre { background: #f4f5f7; padding: .7rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #e3e6ea; }
th { color: #5a6570; font-weight: 600; white-space: nowrap; }
"""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first are titles."""

    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A picture that lies beside the document."""

    name: str
    about: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text to be shown as it is."""

    text: str


Block = str | Table | Picture | Items | Code
"""A paragraph, plain text without markup, or one of the others."""


@dataclass(frozen=True)
class Section:
    """A title and what is below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """What a report says.

    Args:
        sections: in their order.
        lines: what the picture shows.
        tables: the figures of the curves again, by tag, for the terminal.
        notes: what was left out, and what a reader must keep in mind.
    """

    sections: list[Section]
    lines: list[Line]
    tables: dict[str, Table]
    notes: list[str]


@dataclass(frozen=True)
class View:
    """How the curves are to be shown.

    Args:
        tags: globs; None: those of the stages.
        smooth: steps of the running mean, >= 1.
        threshold: of rewards and pass rates.
    """

    tags: Sequence[str] | None = None
    smooth: int = 10
    threshold: float = 0.5


# --- what is in it ---------------------------------------------------------------------------------------------------


def report_of(arms: Sequence[Arm], view: View, command: str, notes: Sequence[str] = ()) -> Report:
    """Put a report together. Its picture, `PICTURE`, is still to be drawn: `ra3kit.report_curves.draw`.

    Args:
        arms: what is reported, at least one run in each.
        view: how.
        command: that asked for it.
        notes: what is known to be left out already.

    Raises:
        RunError: no curve has such a tag.
    """
    runs = [run for arm in arms for run in arm.runs]
    lines, left_out = lines_of(arms, choose_tags(runs, view.tags), view.smooth)
    shown = list(dict.fromkeys(line.tag for line in lines))
    tables = {tag: Table(table_of(tag, lines, view.threshold, view.smooth)) for tag in shown}
    uneven = [note for tag in shown if (note := unequal_ends(tag, lines)) is not None]
    told = [*notes, *left_out, *uneven, *(line for run in runs for line in findings_of(run))]
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
        *(section for run in runs[:1] if len(runs) == 1 for section in run_sections(run)),
        Section("How it was made", [Code(command), made_table()]),
    ]
    return Report(sections, lines, tables, told)


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def run_sections(run: Run) -> list[Section]:
    """What a report of a single run says beside its curves."""
    ends = {tag: curve.finite() for tag, curve in run.curves.items() if not tag.endswith(("_lo", "_hi"))}
    rows = [["tag", "first", "last", "points"], *(_ends(tag, curve) for tag, curve in sorted(ends.items()))]
    return [Section("Every curve of the run", [Table(rows)])]


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


def made_table() -> Table:
    """When, and with which versions, a report is made."""
    about = kit()
    own = " ".join(str(about[key]) for key in ("version", "commit") if key in about)
    found = versions([*CORE, "matplotlib"])
    return Table([["made (UTC)", now()[:19]], ["ra3kit", own], *([name, found[name]] for name in found)])


# --- as text ---------------------------------------------------------------------------------------------------------


def as_markdown(sections: Sequence[Section]) -> str:
    """The document, with its pictures as links. The first section's title is the document's."""
    parts = []
    for number, section in enumerate(sections):
        parts.append(f"{'##' if number else '#'} {section.title}")
        parts += [_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Picture(name, about):
            return f"![{about}]({name})"
        case Code(text):
            return f"```text\n{text}\n```"
        case Items(lines):
            return "\n".join(f"- {_plain(line)}" for line in lines)
        case Table(rows):
            titles, *rest = [[_plain(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rest))
    return _plain(block)


def _plain(text: str) -> str:
    """A text whose stars are no markup."""
    return text.replace("*", "\\*")


def as_html(sections: Sequence[Section], folder: Path) -> str:
    """The document as one file that needs no other and no network: pictures are inside.

    Args:
        sections: of the document.
        folder: where its pictures are.
    """
    title = html.escape(sections[0].title)
    parts = []
    for number, section in enumerate(sections):
        level = 2 if number else 1
        parts.append(f"<h{level}>{html.escape(section.title)}</h{level}>")
        parts += [_html(block, folder) for block in section.blocks]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block, folder: Path) -> str:
    match block:
        case Picture(name, about):
            data = base64.b64encode((folder / name).read_bytes()).decode("ascii")
            return f'<img src="data:image/png;base64,{data}" alt="{html.escape(about)}">'
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>"
        case Items(lines):
            return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        case Table(rows):
            titles, *rest = [[html.escape(cell) for cell in row] for row in rows]
            head = "".join(f"<th>{cell}</th>" for cell in titles)
            body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rest)
            inside = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
            return f'<div class="table"><table>\n{inside}\n</table></div>'
    return f"<p>{html.escape(block)}</p>"
