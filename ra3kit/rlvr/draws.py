"""Answers drawn from a sampler, each on its way to the judge as soon as it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ra3kit.rlvr.backend import Request, RolloutBackend
from ra3kit.rlvr.judge import Judge
from ra3kit.rlvr.tasks import Answer, Task
from ra3kit.rollout.jobs import Completion
from ra3kit.verify.problem import Verdict


@dataclass
class Draws:
    """So many answers to each of some tasks, sampled and being judged.

    Args:
        answers: task by task.
        verdicts: of the answers, in their order.
        version: optimizer steps that the weights had seen which sampled them.
        old: log-probabilities of each answer's tokens under those weights by the trainer's own pass; empty where the
            update makes that pass anyway.
    """

    answers: list[Answer]
    verdicts: list[Future[Verdict]]
    version: int
    old: list[Float[np.ndarray, " tokens"]] = field(default_factory=list)

    def judged(self, judge: Judge) -> list[Verdict]:
        """The verdicts; waits for them."""
        problems = (answer.task.problem for answer in self.answers)
        return judge.wait(list(zip(self.verdicts, problems, strict=True)))


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn.

    Args:
        samples: to each task.
        seed: of the draws.
        label: with seed, task and number of the answer the key of its draws: answers of another label are others.
        max_new_tokens, temperature: of sampling.
        stop_early: whether the judge may stop at a program's first failing test.
    """

    samples: int
    seed: int
    label: str
    max_new_tokens: int
    temperature: float
    stop_early: bool = True


def draw(backend: RolloutBackend, judge: Judge, tasks: Sequence[Task], how: Drawing) -> Draws:
    """Sample answers; every program goes to the judge at once. Call it inside the backend's session."""
    wanted = [(task, number) for task in tasks for number in range(how.samples)]
    found: dict[int, tuple[Answer, Future[Verdict]]] = {}

    def keep(index: int, completion: Completion) -> None:
        found[index] = handed_over(judge, *wanted[index], completion, how.stop_early)

    requests = [Request(task.prompt, f"{task.problem.id}\0{how.label}\0{n}", task.stops) for task, n in wanted]
    if requests:
        backend.sample(requests, how.seed, how.max_new_tokens, how.temperature, keep)
    ordered = [found[index] for index in range(len(wanted))]
    return Draws([answer for answer, _ in ordered], [verdict for _, verdict in ordered], backend.version)


def handed_over(
    judge: Judge, task: Task, number: int, completion: Completion, stop_early: bool
) -> tuple[Answer, Future[Verdict]]:
    """The answer of a completion, and its verdict to come."""
    answer = Answer(task, number, completion, task.program(completion.text))
    return answer, judge.submit(answer.program, task.problem, stop_early)


# ---- in a checkpoint ------------------------------------------------------------------------------------------------


def saved(draws: Draws) -> list[dict[str, Any]]:
    """What a checkpoint keeps of draws that were not trained on yet. Verdicts are made again."""
    return [
        {
            "problem": answer.task.problem.id,
            "number": answer.number,
            "version": draws.version,
            "completion": vars(answer.completion),
            "old": draws.old[place].tolist() if draws.old else None,
        }
        for place, answer in enumerate(draws.answers)
    ]


def restored(
    judge: Judge, tasks: Sequence[Task], how: Drawing, states: Mapping[tuple[str, int], Mapping[str, Any]]
) -> Draws | None:
    """The draws that `saved` wrote, by (problem, number); None unless every answer is there."""
    wanted = [(task, number) for task in tasks for number in range(how.samples)]
    if any((task.problem.id, number) not in states for task, number in wanted):
        return None
    draws = Draws([], [], 0)
    for task, number in wanted:
        state = states[task.problem.id, number]
        answer, verdict = handed_over(judge, task, number, Completion(**state["completion"]), how.stop_early)
        draws.answers.append(answer)
        draws.verdicts.append(verdict)
        draws.version = state["version"]
        if state["old"] is not None:
            draws.old.append(np.asarray(state["old"], np.float32))
    return draws
