"""A trajectory: one snippet of expert code as token ids, cut into primitive actions, with the thoughts woven into it.

The ids are fixed once, on strings (see `ra3kit.data.encode`), and kept from there on: the E-step forces them, the store
saves them and the M-step trains on them. Thoughts are spans of ids and are never parsed back from text, because an
expert line may itself be a comment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ra3kit.errors import DataError

START, CODE, THOUGHT, END = 0, 1, 2, 3
"""What a token is: the start token, part of a primitive action a_t, part of a thought z_t, the end token."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One snippet: start token, then per line an optional thought and the line, then the end token.

    Args:
        snippet_id: stable name, unique in its corpus (`path#k`); the key of every random draw made for this snippet.
        ids: int32 [t], t >= 2: every token id, `ids[0]` the start token and `ids[-1]` the end token.
        lines: int32 [n, 2], half-open spans of the primitive actions a_1..a_n in `ids`, in order.
        may_think: bool [n], True where a latent may precede the line.
        thoughts: int32 [m, 2], half-open spans of the thoughts in `ids`, in order; each ends where a line begins.
    """

    snippet_id: str
    ids: np.ndarray
    lines: np.ndarray
    may_think: np.ndarray
    thoughts: np.ndarray

    @staticmethod
    def from_lines(
        snippet_id: str, line_ids: Sequence[Sequence[int]], may_think: Sequence[bool], start_id: int, end_id: int
    ) -> Trajectory:
        """Build an expert trajectory (no thoughts) from the ids of each line."""
        empty = np.zeros((0, 2), np.int32)
        ends = 1 + np.cumsum([len(ids) for ids in line_ids], dtype=np.int32)
        lines = np.stack([np.concatenate([[1], ends[:-1]]), ends], axis=1) if len(line_ids) else empty
        flat = [start_id, *(i for ids in line_ids for i in ids), end_id]
        return Trajectory(
            snippet_id, np.asarray(flat, np.int32), lines.astype(np.int32), np.asarray(may_think, bool), empty
        )

    def line_ids(self, line: int) -> list[int]:
        """The ids of line a_t."""
        start, end = self.lines[line]
        return self.ids[start:end].tolist()

    def thought_ids(self, line: int) -> list[int]:
        """The ids of the thought written before line a_t; empty when the latent there is `<act>`."""
        here = self.thoughts[self.thoughts[:, 1] == self.lines[line, 0]]
        return self.ids[here[0, 0] : here[0, 1]].tolist() if len(here) else []

    def has_thought(self) -> np.ndarray:
        """bool [n]: True where a thought precedes the line."""
        return np.isin(self.lines[:, 0], self.thoughts[:, 1])

    def kinds(self) -> np.ndarray:
        """uint8 [t]: what each token is, one of START, CODE, THOUGHT, END."""
        kinds = np.full(len(self.ids), CODE, np.uint8)
        kinds[0], kinds[-1] = START, END
        for start, end in self.thoughts:
            kinds[start:end] = THOUGHT
        return kinds

    def weave(self, thoughts: Mapping[int, Sequence[int]]) -> Trajectory:
        """A copy with the given thoughts (line index -> ids) before their lines, replacing any thoughts it had.

        Raises:
            DataError: a thought is empty, or stands before a line that may not be preceded by one.
        """
        ids, lines, spans = [int(self.ids[0])], [], []
        for line in range(len(self.lines)):
            if line in thoughts:
                if not len(thoughts[line]) or not self.may_think[line]:
                    raise DataError(f"{self.snippet_id}: no thought may be woven in before line {line}, or it is empty")
                spans.append((len(ids), len(ids) + len(thoughts[line])))
                ids.extend(int(i) for i in thoughts[line])
            code = self.line_ids(line)
            lines.append((len(ids), len(ids) + len(code)))
            ids.extend(code)
        ids.append(int(self.ids[-1]))
        return Trajectory(
            self.snippet_id,
            np.asarray(ids, np.int32),
            np.asarray(lines, np.int32).reshape(-1, 2),
            self.may_think,
            np.asarray(spans, np.int32).reshape(-1, 2),
        )

    def without_thoughts(self) -> Trajectory:
        """The expert trajectory: exactly the ids that next-token prediction trains on."""
        return self.weave({})

    def check(self) -> None:
        """Raise DataError unless start, thoughts, lines and end tile the ids in order."""
        spans = sorted([*map(tuple, self.lines.tolist()), *map(tuple, self.thoughts.tolist())])
        position = 1
        for start, end in spans:
            if start != position or end <= start:
                raise DataError(f"{self.snippet_id}: span [{start}, {end}) does not begin at token {position}")
            position = end
        if position != len(self.ids) - 1 or len(self.may_think) != len(self.lines):
            raise DataError(
                f"{self.snippet_id}: spans end at {position} of {len(self.ids)} tokens, or may_think is off"
            )
        line_starts = set(self.lines[self.may_think][:, 0].tolist())
        for start, end in self.thoughts.tolist():
            if end not in line_starts:
                raise DataError(f"{self.snippet_id}: thought [{start}, {end}) precedes no line that may have one")
