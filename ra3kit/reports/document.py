"""Documents: sections that become Markdown for the repository and one HTML file to send."""

from __future__ import annotations

import base64
import html
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ra3kit.environment import CORE, kit, versions
from ra3kit.provenance import now
from ra3kit.reports.annotated import STYLE as ANNOTATED_STYLE
from ra3kit.reports.annotated import Annotated, as_divs, as_text, fenced

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


Block = str | Table | Picture | Items | Code | Annotated
"""A paragraph, plain text without markup, or one of the others."""


@dataclass(frozen=True)
class Section:
    """A title and what is below it."""

    title: str
    blocks: Sequence[Block]


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


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
            return fenced(text)
        case Annotated(legend, snippets):
            keys = Items([f"{mark}: {meaning}" for mark, meaning in legend.items()])
            shown = [part for title, rows in snippets for part in (_plain(title), fenced(as_text(rows)))]
            return "\n\n".join([_markdown(keys), *shown])
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
    has_annotated = any(isinstance(block, Annotated) for section in sections for block in section.blocks)
    style = STYLE + (ANNOTATED_STYLE if has_annotated else "")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block, folder: Path) -> str:
    match block:
        case Picture(name, about):
            data = base64.b64encode((folder / name).read_bytes()).decode("ascii")
            return f'<img src="data:image/png;base64,{data}" alt="{html.escape(about)}">'
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>"
        case Annotated():
            return as_divs(block)
        case Items(lines):
            return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        case Table(rows):
            titles, *rest = [[html.escape(cell) for cell in row] for row in rows]
            head = "".join(f"<th>{cell}</th>" for cell in titles)
            body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rest)
            inside = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
            return f'<div class="table"><table>\n{inside}\n</table></div>'
    return f"<p>{html.escape(block)}</p>"
