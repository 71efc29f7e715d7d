"""`check_reward`: does a reward do what `GRPOModule` relies on?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ra3kit.evaluation.prompts import Style
from ra3kit.rlvr.rewards import Reward, is_judged
from ra3kit.rlvr.tasks import Answer, Task
from ra3kit.rollout.jobs import Completion
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.verify.problem import STATUSES, Calls, Problem, Verdict

MAX_NEW_TOKENS = 512
PROBLEM = Problem(
    "double", Calls("double", [[1], [2], ["a"], [3]], [2, 4, "aa", 6]), 'def double(x):\n    """Twice x."""\n'
)
TEXTS: tuple[tuple[Style, str], ...] = (
    ("complete", "    return 2 * x\n"),
    ("complete", "# twice\n    return x + x\n"),
    ("complete", "    return (\n"),
    ("complete", ""),
    ("chat", "```python\ndef double(x):\n    return 2 * x\n```\n"),
    ("chat", "Double it."),
)
"""Answers that are right and that are no Python, without and with a code block."""
LENGTHS = (1, MAX_NEW_TOKENS // 2, MAX_NEW_TOKENS - 1, MAX_NEW_TOKENS)


def check_reward(reward: Reward) -> Report:
    """Check a reward on made-up answers with every verdict: the clauses of `Reward`.

    Raises:
        ConformanceError: the first clause that is broken, and by what.

    >>> from ra3kit.rlvr.rewards import VerifierReward
    >>> check_reward(VerifierReward()).checked
    ['base', 'bounds', 'stop_early', 'judged', 'bounded', 'pure', 'own', 'repeatable', 'early', 'outcome', 'better']
    """
    check = Checking(reward, Reward)
    with check.clause("base", "it is a Reward"):
        check.that(isinstance(reward, Reward), f"the bases {[base.__name__ for base in type(reward).__mro__]}")
    with check.clause("bounds", "`bounds` are two finite numbers, the lower one first", "bounds"):
        low, high = reward.bounds
        check.that(math.isfinite(low) and math.isfinite(high) and low < high, f"{reward.bounds}")
    with check.clause("stop_early", "`stop_early` is True or False", "stop_early"):
        check.that(isinstance(reward.stop_early, bool), f"{reward.stop_early!r}")
    answers = made_up()
    rewards: list[float | None] = []
    with check.clause("judged", "None exactly where the answer was not judged, elsewhere a finite float", "__call__"):
        for answer in answers:
            given = reward(answer, MAX_NEW_TOKENS)
            fits = isinstance(given, float) and math.isfinite(given) if is_judged(answer.verdict) else given is None
            check.that(fits, f"{given!r} for {said(answer)}")
            rewards.append(given)
    with check.clause("bounded", "every reward lies within `bounds`"):
        for answer, given in zip(answers, rewards, strict=True):
            check.that(given is None or low <= given <= high, f"{given} for {said(answer)}, bounds {low} and {high}")
    with check.clause("pure", "the same answer has the same reward again, and is left as it is"):
        for answer, kept, given in zip(answers, made_up(), rewards, strict=True):
            again = reward(answer, MAX_NEW_TOKENS)
            check.that(again == given, f"{given}, then {again} for {said(answer)}")
            check.that(answer == kept, f"{answer} was {kept}")
    with check.clause("own", "it does not depend on the answer's number, nor on a reward or advantage set before"):
        for answer, given in zip(answers, rewards, strict=True):
            other = replace(answer, number=7, reward=0.5, advantage=np.ones(len(answer.completion.ids), np.float32))
            moved = reward(other, MAX_NEW_TOKENS)
            check.that(moved == given, f"{given}, and {moved} with another number, reward and advantage")
    with check.clause("repeatable", "it does not depend on seconds, on isolation, or on whether a verdict is cached"):
        for answer, given in zip(answers, rewards, strict=True):
            if answer.verdict is not None:
                verdict = replace(answer.verdict, seconds=9.0, isolation="landlock", cached=True)
                moved = reward(replace(answer, verdict=verdict), MAX_NEW_TOKENS)
                check.that(moved == given, f"{given}, and {moved} with a verdict from memory, for {said(answer)}")
    early = "with `stop_early`, the reward of a failure does not depend on how many tests it passed"
    if reward.stop_early:
        with check.clause("early", early, "stop_early"):
            for answer, given in zip(answers, rewards, strict=True):
                if answer.verdict is not None and answer.verdict.status != "pass":
                    moved = reward(replace(answer, verdict=replace(answer.verdict, passed=2)), MAX_NEW_TOKENS)
                    check.that(moved == given, f"{given} with none passed, {moved} with 2 of 4, for {said(answer)}")
    else:
        check.skip("early", early, "all tests are run")
    with check.clause("outcome", "`outcome` is True or False where there is a reward, None elsewhere", "outcome"):
        for answer, given in zip(answers, rewards, strict=True):
            told = reward.outcome(answer)
            check.that(told is None if given is None else isinstance(told, bool), f"{told!r} for {said(answer)}")
    with check.clause("better", "of answers that differ in their verdicts alone, a success is worth more"):
        for style, text in TEXTS:
            judged = [answer for answer in made_up([(style, text)], [1]) if is_judged(answer.verdict)]
            worth = [(reward.outcome(answer), reward(answer, MAX_NEW_TOKENS) or 0.0) for answer in judged]
            good, bad = ([value for success, value in worth if success is kind] for kind in (True, False))
            check.that(bool(good and bad), f"all verdicts are successes, or none is, for {text!r}")
            check.that(min(good) > max(bad), f"{min(good)} for a success, {max(bad)} for a failure, {text!r}")
    return check.report()


def made_up(texts: Sequence[tuple[Style, str]] = TEXTS, lengths: Sequence[int] = LENGTHS) -> list[Answer]:
    """Answers of each text and length, with every verdict and without one."""
    verdicts = [None, *(Verdict(status, passed=4 if status == "pass" else 0, total=4) for status in STATUSES)]
    made = []
    for (style, text), length, verdict in product(texts, lengths, verdicts):
        task = Task(PROBLEM, [0], ("\ndef ",), style)
        zeros = [0.0] * length
        completion = Completion([1] * length, text, zeros, list(zeros), "length" if length == MAX_NEW_TOKENS else "end")
        made.append(Answer(task, 0, completion, task.program(text), verdict))
    return made


def said(answer: Answer) -> str:
    """An answer for a message."""
    verdict = answer.verdict.status if answer.verdict else "none yet"
    return f"verdict {verdict}, {len(answer.completion.ids)} tokens, {answer.completion.text!r}"
