"""Annotated code as a block of a document: thoughts on their lines, and the lines that each covers, marked.

What a mark means is said by words and signs too, never by colour alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mark = Literal["paid", "gained", "lost"]

STYLE = """
.snippet { background: #f4f5f7; padding: .6rem .8rem; margin: .3rem 0 1.2rem; }
.row, .key { border-left: 6px solid transparent; padding-left: .7rem; }
.row { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 1.5em; }
.thought { display: flex; justify-content: space-between; gap: 1rem; margin-top: .3rem; }
.thought b { white-space: nowrap; padding-right: .5rem; }
.paid { border-left: 6px solid #0b6fa4; } .thought.paid { background: #d6e9f5; }
.gained { border-left: 6px dashed #b07d00; } .thought.gained { background: #f8ebc8; }
.lost { border-left: 6px dotted #b3402f; } .thought.lost { background: #f6dcd7; }
.key { margin: .2rem 0; }
.snippet, .row, .key { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
"""


@dataclass(frozen=True)
class Row:
    """A thought or an action.

    Args:
        text: without its last line end; it may hold others.
        is_thought: a thought.
        mark: of the option that the row is in; None before the first thought.
        note: what a thought was worth, in words and with a sign; "" for code.
    """

    text: str
    is_thought: bool
    mark: Mark | None
    note: str = ""


@dataclass(frozen=True)
class Annotated:
    """Snippets, and what the marks mean.

    Args:
        legend: mark -> its meaning.
        snippets: (title, rows) of each.
    """

    legend: Mapping[Mark, str]
    snippets: Sequence[tuple[str, Sequence[Row]]]


def fenced(text: str) -> str:
    """A Markdown block that shows a text as it is, whatever fences are in it.

    >>> print(fenced("a"))
    ```text
    a
    ```
    """
    longest = max((len(ticks) for ticks in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def as_text(rows: Sequence[Row]) -> str:
    """As `ra3kit annotate` prints: a thought begins with "> " and ends with its note, code begins with two spaces."""
    out = []
    for row in rows:
        if row.is_thought:
            out.append(f"> {row.text}   [{row.note}]")
        else:
            out += [f"  {line}" for line in row.text.split("\n")]
    return "\n".join(out)


def as_divs(block: Annotated) -> str:
    """As HTML that needs `STYLE`. Every text is escaped: what a thought says is no markup."""
    parts = [f'<div class="key {mark}">{html.escape(f"{mark}: {words}")}</div>' for mark, words in block.legend.items()]
    for title, rows in block.snippets:
        inside = "\n".join(_div(row) for row in rows)
        parts.append(f'<p>{html.escape(title)}</p>\n<div class="snippet">\n{inside}\n</div>')
    return "\n".join(parts)


def _div(row: Row) -> str:
    classes = " ".join(["row", *(["thought"] if row.is_thought else []), *([row.mark] if row.mark else [])])
    text = html.escape(row.text)
    inside = f"<span>{text}</span> <b>{html.escape(row.note)}</b>" if row.is_thought else text
    return f'<div class="{classes}">{inside}</div>'
