"""A coarser primitive action than the line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ra3kit.actions import Action, ActionSegmenter, PythonLines

_ENDS_BLANK = re.compile(r"(?:\r\n|\n|\r)[^\S\r\n]*(?:\r\n|\n|\r)\s*\Z")


class Paragraphs(ActionSegmenter):
    """One paragraph of Python per action: lines up to a blank line after which a latent may stand.

    >>> [a.text for a in Paragraphs().segment("a = 1\\nb = 2\\n\\nc = 3\\n")]
    ['a = 1\\nb = 2\\n\\n', 'c = 3\\n']
    """

    def __init__(self) -> None:
        self.lines = PythonLines()

    def segment(self, text: str) -> list[Action]:
        """The paragraphs of a text, in order."""
        paragraphs: list[Action] = []
        for line in self.lines.segment(text):
            if paragraphs and not (line.may_think and _ENDS_BLANK.search(paragraphs[-1].text)):
                last = paragraphs.pop()
                paragraphs.append(Action(last.text + line.text, last.may_think))
            else:
                paragraphs.append(line)
        return paragraphs

    def strong_starts(self, actions: Sequence[Action]) -> list[bool]:
        """True where a paragraph begins a top-level statement."""
        return self.lines.strong_starts(actions)
