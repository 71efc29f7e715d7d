"""Rewards: from the verdict on a sampled answer to the number that it is trained with, or to none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeGuard

from ra3kit.evaluation.prompts import code_block, compiles, cut
from ra3kit.ranges import check_choice, check_number
from ra3kit.rlvr.tasks import Answer
from ra3kit.verify.problem import JUDGED, Verdict

Kind = Literal["binary", "partial"]
"""binary: 1 for a pass, else 0. partial: the share of the tests that passed."""


class Reward(ABC):
    """Base class: what an answer is worth.

    The contract, which `GRPOModule` relies on:

    - an answer that was not judged (no verdict yet, or `internal` or `refused`) has no reward, `None`: nothing is known
      about its program, so it is neither a success nor a failure. Every other answer has one, a finite float.
    - every reward lies within `bounds`, both ends included.
    - the reward is a function of the answer's task, completion, program and verdict: not of its group, of its number in
      it, of a reward or an advantage set before, nor of what differs from run to run (seconds, whether a verdict came
      from memory). The same answer has the same reward again, and it is left as it is.
    - `stop_early` True: the verifier may stop at the first failing test, so `verdict.passed` means nothing unless the
      program passes, and the reward of a failure must not depend on it.
    - `outcome` says whether the answer is a success, for every answer that has a reward. Of two answers that differ in
      their verdicts alone, a success is worth more than a failure.

    Whether a group is trained on is decided by outcomes, not by rewards: where all pass or all fail, a shaped term
    (format, length) would be all that advantages see, and training would follow it alone.

    `ra3kit.testing.check_reward` checks these. Your own reward, here one that prefers short programs:

    >>> class Brief(Reward):
    ...     bounds = (0.0, 1.0)
    ...     stop_early = True
    ...
    ...     def __call__(self, answer, max_new_tokens):
    ...         passed = self.outcome(answer)
    ...         return None if passed is None else passed / (1 + answer.program.count("\\n") / 100)
    """

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest reward there can be."""

    @property
    def stop_early(self) -> bool:
        """Whether the verifier may stop at a program's first failing test. By default all tests are run."""
        return False

    @abstractmethod
    def __call__(self, answer: Answer, max_new_tokens: int) -> float | None:
        """The reward of an answer.

        Args:
            answer: with its verdict; reward and advantage are not set yet.
            max_new_tokens: most tokens that an answer may have.

        Returns:
            A reward within `bounds`, or None where the answer was not judged.
        """

    def check(self, max_new_tokens: int) -> None:
        """Refuse, before anything is sampled, answers of a length that the reward can't be given for.

        Raises:
            RecipeError: settings of the reward contradict the length.
        """
        return None

    def outcome(self, answer: Answer) -> bool | None:
        """Whether the answer is a success: its program passes all tests. None where it was not judged."""
        return answer.verdict.status == "pass" if is_judged(answer.verdict) else None


class VerifierReward(Reward):
    """Right or wrong by the tests, less what is charged for answers that are no code, or nearly too long.

    Args:
        kind: "binary": 1 for a pass, else 0. "partial": the share of the tests that passed, below 1 for whatever does
            not pass; runs all tests of every program, and a problem tested by assertions counts as one test.
        format_penalty: subtracted where a chat answer has no code block, or where another answer's program is not
            Python, >= 0.
        overlong_buffer: tokens before `max_new_tokens` in which an answer is charged for its length, 0 for none
            (DAPO, arXiv 2503.14476, eq. 13: soft overlong punishment); at most `max_new_tokens`.
        overlong_penalty: what an answer of `max_new_tokens` tokens is charged, >= 0; within the buffer in proportion.

    Raises:
        RecipeError: an unknown kind, or a number out of range.
    """

    def __init__(
        self,
        kind: Kind = "binary",
        format_penalty: float = 0.0,
        overlong_buffer: int = 0,
        overlong_penalty: float = 1.0,
    ):
        check_choice("reward.kind", kind, Kind)
        check_number("reward.format_penalty", format_penalty, least=0)
        check_number("reward.overlong_buffer", overlong_buffer, least=0, whole=True)
        check_number("reward.overlong_penalty", overlong_penalty, least=0)
        self.kind, self.format_penalty = kind, float(format_penalty)
        self.overlong_buffer, self.overlong_penalty = overlong_buffer, float(overlong_penalty)

    @property
    def bounds(self) -> tuple[float, float]:
        """From a failure that is charged for everything to 1."""
        return -self.format_penalty - (self.overlong_penalty if self.overlong_buffer else 0.0), 1.0

    @property
    def stop_early(self) -> bool:
        """True but for "partial", which counts the tests that pass."""
        return self.kind == "binary"

    def check(self, max_new_tokens: int) -> None:
        """Raises RecipeError: the buffer is longer than an answer may be."""
        most = max_new_tokens
        check_number("reward.overlong_buffer (at most max_new_tokens)", self.overlong_buffer, least=0, most=most)

    def __call__(self, answer: Answer, max_new_tokens: int) -> float | None:
        """The reward of an answer.

        Raises:
            RecipeError: the buffer is longer than an answer may be.
        """
        verdict = answer.verdict
        if not is_judged(verdict):
            return None
        reward = share_passed(verdict) if self.kind == "partial" else float(verdict.status == "pass")
        if self.format_penalty and not is_well_formed(answer):
            reward -= self.format_penalty
        if self.overlong_buffer:
            tokens = len(answer.completion.ids)
            reward -= self.overlong_penalty * overlong(tokens, self.overlong_buffer, max_new_tokens)
        return reward


def is_judged(verdict: Verdict | None) -> TypeGuard[Verdict]:
    """Whether a verdict is known and is about the program."""
    return verdict is not None and verdict.status in JUDGED


def share_passed(verdict: Verdict) -> float:
    """The share of tests that passed, below 1 unless the program passes (it may crash after the last test).

    >>> share_passed(Verdict("fail", passed=3, total=4)), share_passed(Verdict("crash", passed=4, total=4))
    (0.75, 0.75)
    """
    if verdict.status == "pass":
        return 1.0
    return min(verdict.passed, verdict.total - 1) / verdict.total if verdict.total > 0 else 0.0


def is_well_formed(answer: Answer) -> bool:
    """Whether an answer has the form that was asked for: a code block (chat), or Python."""
    if answer.task.style == "chat":
        return code_block(cut(answer.completion.text, answer.task.stops)) is not None
    return compiles(answer.program)


def overlong(tokens: int, buffer: int, most: int) -> float:
    """How far an answer reaches into the last `buffer` of `most` tokens, in [0, 1].

    Raises:
        RecipeError: the buffer is longer than an answer may be.

    >>> [overlong(tokens, buffer=20, most=100) for tokens in (50, 80, 90, 100)]
    [0.0, 0.0, 0.5, 1.0]
    """
    check_number("reward.overlong_buffer (at most max_new_tokens)", buffer, least=1, most=most, whole=True)
    return min(1.0, max(0.0, (tokens - (most - buffer)) / buffer))
