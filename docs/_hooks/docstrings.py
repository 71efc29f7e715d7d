"""A griffe extension: docstrings of this package as the Markdown of the site wants them.

Doctests, which stand in the text as they are, become code blocks; `[b][k]`, a shape, is no link, and <act> no tag.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)
"""From a prompt to the next blank line."""
CODE_OR_MARKUP = re.compile(r"(^ *```.*?^ *```|`[^`]*`)|\]\[|<(?=[a-z/])", re.MULTILINE | re.DOTALL)


def as_markdown(docstring: str) -> str:
    r"""Put each doctest into a fence, and hide from Markdown what only looks like markup, outside code.

    >>> as_markdown("Sums [b][k] of <act>, not `[b][k]`.\n\n>>> 1 + 1\n2\n\nMore.")
    'Sums [b]\\[k] of &lt;act>, not `[b][k]`.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore.'
    """

    def put(match: re.Match[str]) -> str:
        return f"{match['indent']}```pycon\n{match[0]}\n{match['indent']}```"

    hidden = {"][": r"]\[", "<": "&lt;"}
    return CODE_OR_MARKUP.sub(lambda match: match[1] or hidden[match[0]], DOCTEST.sub(put, docstring))


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
