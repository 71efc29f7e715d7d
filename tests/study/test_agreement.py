"""Agreement of thoughts with true intents: exact figures by hand, and the way from a snippet to them."""

from __future__ import annotations

import math

import pytest

from ra3kit.actions import PythonLines
from ra3kit.data.encode import encode_texts, trajectory_from_text
from ra3kit.errors import DataError
from ra3kit.study.agreement import Spans, agreement, normalised_information, purity, spans_of
from ra3kit.study.family import Program, Segment
from ra3kit.study.truth import Truth
from ra3kit.testing.models import tiny_tokenizer

TEXT = "def f(x):\n    x += 1\n    x += 2\n    x *= 3\n    x -= 4\n    return x\n"
PROGRAM = Program("p", TEXT, (Segment(1, "add"), Segment(3, "scale"), Segment(4, "take")))


def test_perfect_thoughts() -> None:
    true = {1: "a", 3: "b"}
    found = agreement([Spans(5, true, dict(true)), Spans(5, {1: "b", 2: "c"}, {1: "b", 2: "c"})])
    assert (found.precision, found.recall, found.f1, found.nmi, found.purity, found.named) == (
        1,
        1,
        1,
        pytest.approx(1),
        1,
        1,
    )
    assert (found.thoughts, found.intents, found.programs) == (4, 4, 2)


def test_other_words_for_the_same_thing_agree_in_all_but_the_name() -> None:
    found = agreement([Spans(4, {0: "a", 2: "b"}, {0: "one", 2: "two"})])
    assert (found.precision, found.f1, found.nmi, found.purity, found.named) == (1, 1, pytest.approx(1), 1, 0)


def test_by_hand() -> None:
    """Lines 1-2 a, 3-5 b; thoughts "a" before 1, "c" before 2 and 5: line 1 a, lines 2-4 c, line 5 c."""
    found = agreement([Spans(6, {1: "a", 3: "b"}, {1: "a", 2: "c", 5: "c"})])
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == pytest.approx(1 / 2)
    assert found.f1 == pytest.approx(2 / 5)
    assert found.named == pytest.approx(1 / 3)
    assert found.purity == pytest.approx((1 + 3) / 5)
    # thought a 1, c 4 of 5 lines; intent a 2, b 3; pairs (a, a) 1, (c, a) 1, (c, b) 3
    h = lambda *counts: -sum(n / 5 * math.log(n / 5) for n in counts)  # noqa: E731
    assert found.nmi == pytest.approx(2 * (h(1, 4) + h(2, 3) - h(1, 1, 3)) / (h(1, 4) + h(2, 3)))


def test_without_thoughts_nothing_is_known() -> None:
    found = agreement([Spans(3, {0: "a", 1: "b"}, {})])
    assert math.isnan(found.precision)
    assert math.isnan(found.purity)
    assert math.isnan(found.named)
    assert (found.recall, found.f1, found.nmi) == (0, 0, 0)
    assert math.isnan(agreement([]).nmi)


def test_information_and_purity_do_not_depend_on_names() -> None:
    pairs = {("a", 1): 4, ("a", 2): 1, ("b", 2): 3, ("c", 1): 2}
    renamed = {(first.upper(), -second): n for (first, second), n in pairs.items()}
    assert normalised_information(renamed) == pytest.approx(normalised_information(pairs))
    assert normalised_information({(b, a): n for (a, b), n in pairs.items()}) == pytest.approx(
        normalised_information(pairs)
    )
    assert purity(pairs) == 9 / 10
    assert normalised_information({("a", 1): 7}) == 1


def test_snippet_to_spans() -> None:
    tokenizer = tiny_tokenizer()
    plain = trajectory_from_text(tokenizer, "p#0", TEXT, PythonLines())
    thoughts = dict(zip((1, 4), encode_texts(tokenizer, ["# add\n", "#take it \n"]), strict=True))
    (spans,) = spans_of([plain.weave(thoughts)], Truth([PROGRAM]), tokenizer)
    assert spans == Spans(6, {1: "add", 3: "scale", 4: "take"}, {1: "add", 4: "take it"})


def test_an_action_of_several_physical_lines() -> None:
    text = "def f(x):\n\n    x = 1\n\n\n    x += 2\n    return x\n"  # blank lines belong to the action before them
    program = Program("q", text, (Segment(2, "set"), Segment(5, "add"), Segment(6, "end")))
    snippet = trajectory_from_text(tiny_tokenizer(), "q#0", text, PythonLines())
    assert Truth([program]).intents_of(snippet, tiny_tokenizer()) == {1: "set", 2: "add", 3: "end"}


def test_snippets_that_are_no_whole_program() -> None:
    tokenizer = tiny_tokenizer()
    for name, text in (("other#0", TEXT), ("p#0", TEXT[: TEXT.index("    x *=")])):
        snippet = trajectory_from_text(tokenizer, name, text, PythonLines())
        with pytest.raises(DataError, match=name.split("#")[0]):
            Truth([PROGRAM]).intents_of(snippet, tokenizer)
