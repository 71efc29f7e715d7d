from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import programs

from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.tokenizer import train_byte_level_bpe
from ra3kit.data.trajectory import CODE, END, START, THOUGHT, Trajectory
from ra3kit.errors import DataError

TOKENIZER = train_byte_level_bpe(["def f(x):\n    # comment\n    return x\n"] * 9, 300)


@given(programs, st.data())
def test_weaving_and_stripping_give_the_same_trajectory(program: str, data: st.DataObject) -> None:
    expert = trajectory_from_text(TOKENIZER, "p#0", program, PythonLines())
    legal = np.flatnonzero(expert.may_think).tolist()
    chosen = data.draw(st.sets(st.sampled_from(legal))) if legal else set()
    thoughts = {line: TOKENIZER.encode(f"# thought {line}\n") for line in chosen}
    woven = expert.weave(thoughts)
    woven.check()
    assert {line: woven.thought_ids(line) for line in np.flatnonzero(woven.has_thought()).tolist()} == thoughts
    assert [woven.line_ids(i) for i in range(len(woven.lines))] == [
        expert.line_ids(i) for i in range(len(expert.lines))
    ]
    stripped = woven.without_thoughts()
    for part in ("ids", "lines", "may_think", "thoughts"):
        assert np.array_equal(getattr(stripped, part), getattr(expert, part)), part
    # every token is accounted for once, and thoughts are where the kinds say
    kinds = woven.kinds()
    assert kinds[0] == START
    assert kinds[-1] == END
    assert (kinds == CODE).sum() == len(expert.ids) - 2
    assert woven.ids[kinds == THOUGHT].tolist() == [i for line in sorted(thoughts) for i in thoughts[line]]
    assert woven.ids[kinds != THOUGHT].tolist() == expert.ids.tolist()


def test_weaving_again_replaces_the_thoughts() -> None:
    expert = trajectory_from_text(TOKENIZER, "p#0", "# not a thought\nx = 1\ny = 2\n", PythonLines())
    once = expert.weave({0: [5, 6], 2: [7]})
    assert once.weave({1: [8, 9]}).ids.tolist() == expert.weave({1: [8, 9]}).ids.tolist()
    assert once.thought_ids(1) == []


def test_illegal_thoughts_are_refused() -> None:
    expert = trajectory_from_text(TOKENIZER, "p#0", "x = (1,\n2)\n", PythonLines())
    with pytest.raises(DataError, match="line 1"):
        expert.weave({1: [5]})
    with pytest.raises(DataError, match="line 0"):
        expert.weave({0: []})


def test_check_finds_bad_spans() -> None:
    expert = Trajectory.from_lines("t", [[5, 6], [7]], [True, False], 1, 2)
    expert.check()
    gap = Trajectory("t", expert.ids, np.array([[1, 2], [3, 4]], np.int32), expert.may_think, expert.thoughts)
    with pytest.raises(DataError, match="does not begin at token 2"):
        gap.check()
    short = Trajectory("t", expert.ids, expert.lines[:1], expert.may_think[:1], expert.thoughts)
    with pytest.raises(DataError, match="spans end at 3"):
        short.check()
    illegal = Trajectory(
        "t", expert.ids, np.array([[1, 2], [3, 4]], np.int32), expert.may_think, np.array([[2, 3]], np.int32)
    )
    with pytest.raises(DataError, match="precedes no line"):
        illegal.check()
