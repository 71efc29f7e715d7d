"""What one primitive action a_t is: a line of Python (the paper), a statement, a sentence; yours by import path.

A segmenter cuts a text on strings, before any tokenizer sees it, and says for each action whether a latent may stand
before it. The joined actions are the text, exactly (method, part 1).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ra3kit.errors import DataError
from ra3kit.pylex import scan


@dataclass(frozen=True)
class Action:
    """One primitive action.

    Args:
        text: its text with its line end, never empty.
        may_think: True where a comment line put before it leaves the program as it is.
    """

    text: str
    may_think: bool


class ActionSegmenter(ABC):
    """Cuts a text into primitive actions. Contract: `"".join(a.text for a in segment(text)) == text` for every text.

    The same text is cut the same again. In a program, a comment line put before an action with `may_think` leaves it as
    it is, and some action has it. `ra3kit.testing.check_segmenter` checks these.
    """

    @abstractmethod
    def segment(self, text: str) -> list[Action]:
        """The actions of a text, in order; `[]` for an empty text. Must not fail on text that is not well formed."""

    def strong_starts(self, actions: Sequence[Action]) -> list[bool]:
        """bool [n]: True where a new snippet best begins when a text is too long for one. By default, wherever a latent
        may stand."""
        return [action.may_think for action in actions]


class PythonLines(ActionSegmenter):
    """One physical line per action, as in the paper.

    A latent may stand before a line unless the line follows a backslash continuation or lies inside a multi-line string
    or a bracket. Text that does not parse is cut by the same rules.

    Args:
        blank_lines: "attach" puts blank lines at the end of the line before them (leading ones before the first line),
            so that cutting leaves the ids of the whole text as they are under the Qwen2 and Llama-3 rules; "own" makes
            each an action, which costs a latent per blank line and changes the ids.

    >>> [(a.text, a.may_think) for a in PythonLines().segment("x = [1,\\n 2]\\n\\ny = 3")]
    [('x = [1,\\n', True), (' 2]\\n\\n', False), ('y = 3', True)]
    """

    def __init__(self, blank_lines: Literal["attach", "own"] = "attach") -> None:
        if blank_lines not in ("attach", "own"):
            raise DataError(f"blank_lines={blank_lines!r}: allowed are 'attach' and 'own'.")
        self.blank_lines = blank_lines

    def segment(self, text: str) -> list[Action]:
        found = scan(text)
        starts = _without_blank_lines(text, found.line_starts) if self.blank_lines == "attach" else found.line_starts
        return _cut(text, starts, found.logical_starts)

    def strong_starts(self, actions: Sequence[Action]) -> list[bool]:
        """True where a top-level statement begins, at its first comment or decorator if it has any."""
        return _top_level_starts(actions)


class PythonStatements(ActionSegmenter):
    """One statement per action: a simple statement or the header of a compound one, with all its physical lines.

    Comment lines and decorators belong to the statement after them, blank lines to the one before. Statements that
    share a line (`a; b`, `if x: y`) are one action. Works on logical lines, so text that does not parse is cut as well.

    >>> [a.text for a in PythonStatements().segment("# c\\nx = [1,\\n 2]\\n@d\\ndef f(): pass\\n")]
    ['# c\\nx = [1,\\n 2]\\n', '@d\\ndef f(): pass\\n']
    """

    def segment(self, text: str) -> list[Action]:
        found = scan(text)
        starts: list[int] = []
        leading = False  # the last logical line was a comment or a decorator
        for start in _without_blank_lines(text, found.line_starts):
            if start in found.logical_starts:
                if not leading:
                    starts.append(start)
                leading = _leads(text, start)
        return _cut(text, starts, found.logical_starts)

    def strong_starts(self, actions: Sequence[Action]) -> list[bool]:
        """True where a top-level statement begins."""
        return _top_level_starts(actions)


_SENTENCE_END = re.compile(r"""[^\S\r\n]*(?:\r\n|\n|\r)\s*(?:\r\n|\n|\r)|[.!?]+[^\s\w]*(?=\s|\Z)(?:\s*[\r\n]+)?""")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|cf|Fig|Eq|Sec|No|pp|al|e\.g|i\.e)|\b[A-Z])\.\Z")
_NEXT_BEGINS = re.compile(r"\s*[^\sa-z]")


class Sentences(ActionSegmenter):
    """One sentence of plain text per action: cut after `.`, `!`, `?` (with closing quotes) where white space and no
    small letter follow, and at blank lines. A latent may stand before every sentence.

    The space between two sentences of a line begins the second, line ends close the first, as pre-tokenizers have it.

    >>> [a.text for a in Sentences().segment("One, e.g. this. Two!\\nThree")]
    ['One, e.g. this.', ' Two!\\n', 'Three']
    """

    def segment(self, text: str) -> list[Action]:
        starts = [0] if text else []
        for found in _SENTENCE_END.finditer(text):
            end, word = found.end(), text[starts[-1] : found.end()].rstrip()
            blank_line = len(re.findall(r"\r\n|\n|\r", found.group())) > 1
            ends = blank_line or (_NEXT_BEGINS.match(text, end) and not _ABBREVIATION.search(word))
            if ends and end < len(text) and text[starts[-1] : end].strip():
                starts.append(end)
        return _cut(text, starts, set(starts))

    def strong_starts(self, actions: Sequence[Action]) -> list[bool]:
        """True where a paragraph begins."""
        paragraph = re.compile(r"(?:\r\n|\n|\r)\s*(?:\r\n|\n|\r)\s*\Z")
        return [i == 0 or paragraph.search(actions[i - 1].text) is not None for i in range(len(actions))]


def _cut(text: str, starts: Sequence[int], may_think: set[int]) -> list[Action]:
    return [Action(text[start:end], start in may_think) for start, end in pairwise([*starts, len(text)])]


def _without_blank_lines(text: str, starts: Sequence[int]) -> list[int]:
    """The starts of lines that are not blank; the first of them moved to 0, so that leading blank lines go with it."""
    full = [start for start, end in pairwise([*starts, len(text)]) if not text[start:end].isspace()]
    return [0, *full[1:]] if text else []


_LEADS = re.compile(r"\s*[#@]")
_TOP_LEVEL = re.compile(r"(?!(?:else|elif|except|finally)\b)[^\s#]")
_DEFINITION = re.compile(r"^(?:def|class|async)\b", re.MULTILINE)


def _leads(text: str, start: int) -> bool:
    """Whether the line is a comment or a decorator, which lead the statement after them."""
    return _LEADS.match(text, start) is not None


def _top_level_starts(actions: Sequence[Action]) -> list[bool]:
    """bool [n]: True where a top-level statement begins, moved up to the comments at column 0 that lead it."""
    strong = [False] * len(actions)
    block = False  # what the logical line after this one belongs to begins at top level
    for i in reversed(range(len(actions))):
        if not actions[i].may_think:
            continue
        kind = _kind(actions[i].text)
        block = kind == "top" or (kind == "lead" and block)
        strong[i] = block
    led = False
    for i, action in enumerate(actions):
        if action.may_think:
            strong[i] = strong[i] and not led
            led = _kind(action.text) == "lead"
    return strong


def _kind(text: str) -> Literal["top", "lead", "inner"]:
    """What an action is for cutting: a statement at column 0, comments or decorators at column 0 alone, or neither."""
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    for line in lines:
        if line[0] == "@":
            return "top" if _DEFINITION.search(text) else "lead"
        if line[0] != "#":
            return "top" if _TOP_LEVEL.match(line) else "inner"
    return "lead" if lines else "inner"
