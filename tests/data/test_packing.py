from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ra3kit.data.packing import pack, pack_rows, plain_length, rows_of, step_batch
from ra3kit.data.trajectory import CODE, END, START, THOUGHT, Trajectory
from ra3kit.errors import DataError


def trajectory(name: str, lines: int, thoughts: int = 0) -> Trajectory:
    """`lines` lines of two tokens, and a thought of three tokens before the first `thoughts` of them."""
    expert = Trajectory.from_lines(name, [[10 + i, 50 + i] for i in range(lines)], [True] * lines, 1, 2)
    return expert.weave({i: [90, 91, 92] for i in range(thoughts)}) if thoughts else expert


def test_pack() -> None:
    row = pack([trajectory("a", 2, thoughts=1), trajectory("b", 1)])
    assert row.ids.tolist() == [1, 90, 91, 92, 10, 50, 11, 51, 2, 1, 10, 50, 2]
    assert row.positions.tolist() == [*range(9), *range(4)]
    assert row.lengths == [9, 4]
    assert row.kinds.tolist() == [START, *[THOUGHT] * 3, *[CODE] * 4, END, START, CODE, CODE, END]
    assert (row.ids.dtype, row.positions.dtype, row.kinds.dtype) == (torch.int64, torch.int64, torch.uint8)
    assert row.trained_tokens == 11


def test_a_row_without_a_trained_token_is_an_error() -> None:
    with pytest.raises(DataError, match="no trajectory"):
        pack([])
    empty = np.zeros((0, 2), np.int32)
    with pytest.raises(DataError, match="broken: a trajectory needs a start and an end"):
        pack([trajectory("a", 1), Trajectory("broken", np.array([1], np.int32), empty, np.zeros(0, bool), empty)])


def test_an_empty_snippet_still_trains_its_end() -> None:
    assert pack([trajectory("a", 0)]).trained_tokens == 1


def test_rows_are_filled_to_the_last_token() -> None:
    assert rows_of([3, 4, 9, 1, 2], 7) == [[0, 1], [2], [3, 4]]
    assert rows_of([], 7) == []


def test_moving_keeps_everything() -> None:
    step = step_batch([trajectory("a", 2, thoughts=1), trajectory("b", 1)], 9, with_plain=True)
    moved = step.to("meta")
    assert all(row.ids.device.type == "meta" and row.kinds.device.type == "meta" for row in moved.micro + moved.plain)
    assert [row.lengths for row in moved.micro] == [row.lengths for row in step.micro]
    assert moved.trained_tokens == step.trained_tokens
    assert step.micro[0].ids.device.type == "cpu"


def test_step_counts() -> None:
    step = step_batch([trajectory("a", 2, thoughts=2), trajectory("b", 3)], 12, with_plain=True)
    assert [row.lengths for row in step.micro] == [[12], [8]]
    assert [row.lengths for row in step.plain] == [[6], [8]]
    assert step.code_tokens == 10
    assert (step.trained_tokens, step.world_trained_tokens, step.world_rows) == (18, 18, 2)
    assert (step.world_plain_tokens, step.world_plain_rows) == (12, 2)
    assert step_batch([trajectory("a", 2)], 12).plain == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=12), st.integers(2, 30))
def test_rows_hold_every_sequence_once(shapes: list[tuple[int, int]], limit: int) -> None:
    made = [trajectory(str(i), lines, min(thoughts, lines)) for i, (lines, thoughts) in enumerate(shapes)]
    rows = pack_rows(made, limit)
    assert torch.cat([row.ids for row in rows]).tolist() == [i for t in made for i in t.ids.tolist()]
    assert all(len(row.ids) <= limit or len(row.lengths) == 1 for row in rows)
    assert all(row.positions[0] == 0 and int((row.positions == 0).sum()) == len(row.lengths) for row in rows)
    assert sum(row.trained_tokens for row in rows) == sum(len(t.ids) - 1 for t in made)
    assert [i for row in rows_of([len(t.ids) for t in made], limit) for i in row] == list(range(len(made)))
    assert [plain_length(t) for t in made] == [len(t.without_thoughts().ids) for t in made]
