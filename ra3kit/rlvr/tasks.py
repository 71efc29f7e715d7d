"""Tasks and answers: a problem as a policy is asked it, and one sampled answer with all that becomes known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from ra3kit.evaluation.prompts import Style, cut, program_of, prompt_ids, stops_of
from ra3kit.rollout.jobs import Completion
from ra3kit.verify.prepared import Prepared
from ra3kit.verify.problem import Problem, Verdict


@dataclass(frozen=True)
class Task:
    """A problem as a policy is asked it.

    Args:
        problem: with its tests.
        prompt: ids the policy is given, start token included.
        stops: strings that end an answer.
        style: of the prompt, see `ra3kit.evaluation.prompts.Style`.
    """

    problem: Problem
    prompt: list[int]
    stops: tuple[str, ...]
    style: Style = "complete"

    @classmethod
    def of(cls, problem: Problem, tokenizer: PreTrainedTokenizerBase, style: Style = "complete") -> Task:
        """The task of a problem; prompt and stop list are those of `ra3kit eval`."""
        return cls(problem, prompt_ids(problem, style, tokenizer), stops_of(problem, style), style)

    @cached_property
    def content(self) -> str:
        """A hash of what is asked and how it is judged (id, prompt, stops, tests, limits), 32 hex digits.

        Raises:
            WireError: tests that cannot be sent to the sandbox.
        """
        asked = repr((self.problem.id, self.prompt, self.stops, self.style)).encode("utf-8", "replace")
        return hashlib.sha256(asked + Prepared(self.problem).digest).hexdigest()[:32]

    def program(self, text: str) -> str:
        """The program that is judged, of the text of an answer."""
        return program_of(self.problem, cut(text, self.stops), self.style)


@dataclass
class Answer:
    """One sampled answer.

    Args:
        task: what was asked.
        number: of the answer in its group, from 0.
        completion: what was sampled.
        program: what is judged.
        verdict: None until it is known.
        reward: None where nothing is known about the program (verdict internal or refused): such an answer is neither
            trained on nor part of its group's baseline.
        advantage: of each sampled token; None where it is not trained on.
        outcome: whether it is a success; None where nothing is known.
    """

    task: Task
    number: int
    completion: Completion
    program: str
    verdict: Verdict | None = None
    reward: float | None = None
    advantage: Float[np.ndarray, " tokens"] | None = field(default=None, repr=False)
    outcome: bool | None = None


Groups = Sequence[Sequence[Answer]]
"""The answers to each task of a step."""
