"""What one row of the engine does: small state machines that say which ids to feed and what to draw next.

The engine knows slots and model calls; a job knows its text. A job hands out a `Feed`, gets back the log-probabilities
of the tokens it asked about and one drawn token, and hands out the next feed until it is done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import ACT, Place, ThoughtRules, place_in_thought
from ra3kit.rollout.sampling import stream_key

NO_DRAW = -1


@dataclass(slots=True)
class Feed:
    """Ids to process in one model call.

    Args:
        ids: tokens to feed; at least one.
        start: position of the first one; earlier than the row's length means that what lay there is forgotten.
        target: id whose log-probability after the last fed token is wanted (the forced tokens in between are their own
            targets); NO_DRAW if none.
        place: a `Place` to draw the next token at, or NO_DRAW.
        counter: number of the draw, with the job's key the key of its uniform.
        score: whether log-probabilities are wanted at all (a prompt's are not).
    """

    ids: list[int]
    start: int
    target: int = NO_DRAW
    place: int = NO_DRAW
    counter: int = 0
    score: bool = True


R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class Job(Protocol[R_co]):
    """One row of the engine, which ends in a result."""

    key: int
    """64-bit key of its draws."""
    shared: tuple[int, ...]
    """Ids at its beginning that other jobs may begin with too. The engine puts them into the slot, by feeding them or
    by copying them from a slot that has them, before it asks for the first feed. () for none."""

    @property
    def positions(self) -> int:
        """The most positions the row can come to hold."""

    def first(self) -> Feed:
        """The first tokens to feed."""

    def next(self, logps: list[float], token: int, log_q: float, raw: float, think: float) -> Feed | None:
        """Take what came of the last feed; the next feed, or None when the row is done.

        Args:
            logps: log p(next | prefix) for every fed token but, without a target, the last; empty if not scored.
            token: what was drawn (ACT, an id, or NO_DRAW where nothing was).
            log_q: log-probability of the draw; raw: under the plain softmax; think: q(think) at DECIDE.
        """

    def result(self) -> R_co:
        """What came of it, once it is done."""


@dataclass
class Rollout:
    """A finished rollout of one snippet: the trajectory with its sampled thoughts, and what the model said of it.

    Args:
        trajectory: expert lines with the sampled thoughts woven in.
        rollout: which of the k rollouts of the snippet this is.
        log_q: float64 [n] nats, log q(z_t | s_t, z_<t) of the latent drawn before each line; 0 where none was drawn.
        think_prob: float64 [n], q(think) at each free decision, nan elsewhere.
        decided: bool [n], True where a latent was drawn (a decision of q).
        token_logp: float64 [t - 1] nats, raw log p(ids[i + 1] | ids[:i + 1]) under the model that sampled; None when it
            saw other text than the trajectory (hindsight).
        withheld: decisions not offered because a thought might not have fitted into the slot.
    """

    trajectory: Trajectory
    rollout: int
    log_q: np.ndarray
    think_prob: np.ndarray
    decided: np.ndarray
    token_logp: np.ndarray | None
    withheld: int


def line_logps(trajectory: Trajectory, token_logp: np.ndarray) -> np.ndarray:
    """float64 [n]: log pi(a_t | s_t, z_0:t), the sum over each line's tokens, in nats."""
    total = np.concatenate([[0.0, 0.0], np.cumsum(token_logp)])  # total[i + 1] covers the tokens up to ids[i]
    return total[trajectory.lines[:, 1]] - total[trajectory.lines[:, 0]]


class RolloutJob:
    """Force a snippet's lines and draw a latent before each line that may have one; q sees the prefix (the paper)."""

    lookahead = 0
    shared: tuple[int, ...] = ()

    def __init__(
        self,
        trajectory: Trajectory,
        rollout: int,
        seed: int,
        rules: ThoughtRules,
        ending_ids: frozenset[int],
        capacity: int,
    ):
        """capacity: positions of a slot; a decision whose thought might not fit any more is withheld and counted."""
        self.key = stream_key(seed, trajectory.snippet_id, rollout)
        self.trajectory, self.rollout, self.rules = trajectory, rollout, rules
        self.ending_ids, self.capacity = ending_ids, capacity
        n = len(trajectory.lines)
        self._lines = [trajectory.line_ids(t) for t in range(n)]
        self._open = rules.may_think(trajectory.may_think)
        sizes = [len(ids) for ids in self._lines]
        self._left = [*np.cumsum(sizes[::-1])[::-1].tolist(), 0]  # code tokens from line t on
        self._line = 0  # the line before which the row stands
        self._length = 0  # positions of the text so far, what is about to be fed included
        self._thought: list[int] = []
        self._thoughts: dict[int, list[int]] = {}
        self._raw: list[float] = []
        self._had_target = False
        self._log_q, self._think = np.zeros(n), np.full(n, np.nan)
        self._decided = np.zeros(n, bool)
        self._withheld = 0

    @property
    def positions(self) -> int:
        most = len(self.trajectory.ids) + int(self._open.sum()) * self.rules.max_length
        return min(most, self.capacity)

    def first(self) -> Feed:
        return self._lines_feed([int(self.trajectory.ids[0])], settled=False)

    def next(self, logps: list[float], token: int, log_q: float, raw: float, think: float) -> Feed | None:
        self._raw += logps
        if token == NO_DRAW and self._line == len(self._lines):
            return None
        t = self._line
        self._log_q[t] += log_q
        if not self._thought:
            self._think[t], self._decided[t] = think, True
            if token == ACT:
                return self._lines_feed([], settled=True)
        if self._had_target:
            self._raw.pop()  # the target was the line's first token, but a thought came
        self._raw.append(raw)
        self._had_target = False
        self._thought.append(token)
        if token in self.ending_ids:
            thought, self._thought = self._thought, []
            self._thoughts[t] = thought
            return self._lines_feed(self._unfed(thought), settled=True)
        place = place_in_thought(len(self._thought), self.rules.max_length)
        return self._thought_feed(token, place)

    def result(self) -> Rollout:
        return Rollout(
            self.trajectory.weave(self._thoughts),
            self.rollout,
            self._log_q,
            self._think,
            self._decided,
            np.asarray(self._raw) if self.lookahead == 0 else None,
            self._withheld,
        )

    def _lines_feed(self, ids: list[int], settled: bool) -> Feed:
        """Feed `ids`, then lines up to the next decision; `settled`: the latent of the line at hand is chosen."""
        start = self._length
        ids = list(ids)
        self._length += len(ids)
        while self._line < len(self._lines) and (settled or not self._decides()):
            ids += self._lines[self._line]
            self._length += len(self._lines[self._line])
            self._line += 1
            settled = False
        self._had_target = True
        if self._line == len(self._lines):
            return Feed(ids, start, target=int(self.trajectory.ids[-1]))
        return self._decision_feed(ids, start)

    def _decision_feed(self, ids: list[int], start: int) -> Feed:
        place = self.rules.decision_place()
        return Feed(ids, start, self._lines[self._line][0], place, self._line << 20)

    def _thought_feed(self, token: int, place: Place) -> Feed:
        start = self._length
        self._length += 1
        return Feed([token], start, NO_DRAW, place, (self._line << 20) + len(self._thought))

    def _unfed(self, thought: list[int]) -> list[int]:
        return thought[-1:]

    def _decides(self) -> bool:
        """Whether a latent is drawn before the line at hand: it may have one, and the longest thought would fit."""
        if not self._open[self._line]:
            return False
        most = self._length + self.rules.max_length + self._left[self._line]
        if most > self.capacity:
            self._withheld += 1
            return False
        return True


class HindsightJob(RolloutJob):
    """As RolloutJob, but q also sees the next `lookahead` lines (a true posterior, conditioned on a_t).

    At a decision the coming lines are fed after the prefix, the latent is drawn from what follows them, and then they
    are forgotten: the slot is rolled back and goes on with the thought and the first of those lines. So sight needs no
    room of its own: what was seen is written again after the thought.
    """

    def __init__(self, *args: Any, lookahead: int, **kwargs: Any):
        """lookahead: lines that q sees ahead, >= 1; the other arguments as in RolloutJob."""
        super().__init__(*args, **kwargs)
        self.lookahead = lookahead

    def _decision_feed(self, ids: list[int], start: int) -> Feed:
        peek = peeked(self._lines, self._line, self.lookahead)
        self._had_target = False
        self._peek_end = self._length + len(peek)
        return Feed(ids + peek, start, NO_DRAW, self.rules.decision_place(), self._line << 20, score=False)

    def _thought_feed(self, token: int, place: Place) -> Feed:
        start = self._peek_end + len(self._thought) - 1
        return Feed([token], start, NO_DRAW, place, (self._line << 20) + len(self._thought), score=False)

    def _unfed(self, thought: list[int]) -> list[int]:
        return thought


def peeked(lines: list[list[int]], line: int, lookahead: int) -> list[int]:
    """Ids of the next `lookahead` lines from `line` on: what a hindsight posterior sees of the future."""
    return [token for ids in lines[line : line + lookahead] for token in ids]


@dataclass
class Completion:
    """A finished free sample.

    Args:
        ids: sampled ids, the end token or the token that completed a stop string included.
        text: the sampled text, cut before the stop string.
        log_q: nats per sampled token under the sampling distribution (temperature, top-p).
        raw: nats per sampled token under the plain softmax.
        finish: "end" (end token), "stop" (stop string), "length" (max_new_tokens or a full slot).
    """

    ids: list[int]
    text: str
    log_q: list[float]
    raw: list[float]
    finish: Literal["end", "stop", "length"]


@lru_cache(maxsize=64)
def _any_of(strings: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """The first place where any of the strings begins; of none, nowhere."""
    return re.compile(b"|".join(map(re.escape, strings)) or b"(?!)")


class GenerateJob:
    """Sample freely after a prompt until the end token, a stop string or the length limit."""

    def __init__(
        self,
        prompt: tuple[int, ...],
        key: int,
        texts: list[bytes | None],
        end_ids: frozenset[int],
        stop: tuple[bytes, ...],
        max_new_tokens: int,
    ):
        """texts: the bytes of every token (`ra3kit.latents.token_bytes`), which stop strings are looked for in."""
        self.key, self._prompt, self._texts, self._end_ids = key, prompt, texts, end_ids
        self.shared = prompt[:-1]
        self._pattern, self._longest, self._most = _any_of(stop), max(map(len, stop), default=0), max_new_tokens
        self._ids: list[int] = []
        self._log_q: list[float] = []
        self._raw: list[float] = []
        self._bytes = bytearray()
        self._finish: Literal["end", "stop", "length"] = "length"

    @property
    def positions(self) -> int:
        return len(self._prompt) + self._most

    def first(self) -> Feed:
        return Feed([self._prompt[-1]], len(self._prompt) - 1, NO_DRAW, Place.FREE, 0, score=False)

    def next(self, logps: list[float], token: int, log_q: float, raw: float, think: float) -> Feed | None:
        self._ids.append(token)
        self._log_q.append(log_q)
        self._raw.append(raw)
        if token in self._end_ids:
            self._finish = "end"
            return None
        new = self._texts[token] if token < len(self._texts) else None
        self._bytes += new or b""
        if self._stopped(len(new or b"")):
            self._finish = "stop"
            return None
        if len(self._ids) == self._most:
            return None
        start = len(self._prompt) + len(self._ids) - 1
        return Feed([token], start, NO_DRAW, Place.FREE, len(self._ids), score=False)

    def _stopped(self, new: int) -> bool:
        """Whether a stop string was completed by the last token; if so the text is cut before the first of them."""
        found = self._pattern.search(self._bytes, max(0, len(self._bytes) - self._longest - new))
        if found is not None:
            del self._bytes[found.start() :]
        return found is not None

    def result(self) -> Completion:
        # a sample cut at the length limit may end within a multi-byte character
        text = self._bytes.decode("utf-8", errors="replace")
        return Completion(self._ids, text, self._log_q, self._raw, self._finish)
