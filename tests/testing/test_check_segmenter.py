"""`check_segmenter`: the kit's segmenters keep the contract, and each clause can be broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from clauses import assert_all_shown, assert_breaks

from ra3kit.actions import Action, ActionSegmenter, PythonLines, PythonStatements, Sentences
from ra3kit.testing import check_segmenter


class NoSegmenter:
    segment = PythonLines().segment


class Parses(PythonLines):
    def segment(self, text: str) -> list[Action]:
        compile(text, "text", "exec")
        return super().segment(text)


class Pairs(PythonLines):
    def segment(self, text: str) -> Any:
        return [(action.text, action.may_think) for action in super().segment(text)]


class EmptyFirst(PythonLines):
    def segment(self, text: str) -> list[Action]:
        return [Action("", False), *super().segment(text)] if text else []


class OnesAndZeros(PythonLines):
    def segment(self, text: str) -> list[Action]:
        return [Action(action.text, int(action.may_think)) for action in super().segment(text)]  # type: ignore[arg-type]


class Lazy(PythonLines):
    def segment(self, text: str) -> Any:
        return tuple(super().segment(text))


class UniversalNewlines(PythonLines):
    def segment(self, text: str) -> list[Action]:
        return super().segment(text.replace("\r\n", "\n"))


class NeverNothing(PythonLines):
    def segment(self, text: str) -> list[Action]:
        return super().segment(text) or [Action("\n", True)]


class Forgetful(PythonLines):
    seen = 0

    def segment(self, text: str) -> list[Action]:
        self.seen += 1
        return super().segment(text) if self.seen < 30 or not text else [Action(text, True)]


class TooFew(PythonLines):
    def strong_starts(self, actions: Sequence[Action]) -> list[bool]:
        return super().strong_starts(actions)[1:]


class NeverThinks(PythonLines):
    def segment(self, text: str) -> list[Action]:
        return [Action(action.text, False) for action in super().segment(text)]


class ThinksInStrings(PythonLines):
    def segment(self, text: str) -> list[Action]:
        return [Action(line, True) for line in text.splitlines(keepends=True)]


BROKEN = [
    pytest.param(NoSegmenter, "base"),
    pytest.param(Parses, "total"),
    pytest.param(Pairs, "actions"),
    pytest.param(EmptyFirst, "actions"),
    pytest.param(OnesAndZeros, "actions"),
    pytest.param(Lazy, "actions"),
    pytest.param(UniversalNewlines, "lossless"),
    pytest.param(NeverNothing, "empty"),
    pytest.param(Forgetful, "pure"),
    pytest.param(TooFew, "strong_starts"),
    pytest.param(NeverThinks, "begins"),
    pytest.param(ThinksInStrings, "harmless"),
]


@pytest.mark.parametrize(
    "segmenter", [PythonLines(), PythonLines("own"), PythonStatements()], ids=["lines", "own", "statements"]
)
def test_sound_segmenters_pass(segmenter: ActionSegmenter, stdlib_texts: list[tuple[str, str]]) -> None:
    report = check_segmenter(segmenter, [text for _, text in stdlib_texts[:1] if len(text) < 4000])
    assert "harmless" in report.checked


def test_segmenters_of_other_texts_need_leave_no_program_as_it_is() -> None:
    report = check_segmenter(Sentences(), python=False)
    assert "harmless" not in report.checked
    assert "(not checked: its texts are no programs)" in str(report)
    assert_breaks(check_segmenter, Sentences(), "harmless")  # a comment inside a line is no comment line


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_each_clause_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_segmenter, broken(), clause)


def test_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN, check_segmenter(PythonLines()))


def test_a_text_of_ones_own_is_checked_too() -> None:
    class NotOnTabs(PythonLines):
        def segment(self, text: str) -> list[Action]:
            return super().segment(text.replace("\t\t", "  "))

    check_segmenter(NotOnTabs())
    assert_breaks(lambda s: check_segmenter(s, ["if x:\n\t\ty = 1\n"]), NotOnTabs(), "lossless")
