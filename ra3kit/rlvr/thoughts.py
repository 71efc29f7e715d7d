"""Thoughts in sampled answers: where they stand, how many there are, and credit for each stretch of an answer.

A thought is a comment line at column 0 at the beginning of a logical line (method, part 1). Its place in the program
decides, the prompt included: the same line inside a string or a bracket is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ra3kit.evaluation.prompts import FENCE, PYTHON, cut, prompt_text
from ra3kit.pylex import scan
from ra3kit.ranges import check_number
from ra3kit.rlvr.tasks import Answer, Task

_THOUGHT = re.compile(r"#[^\S\r\n]*\S[^\r\n]*\n", re.ASCII)  # with a content, and finished


@dataclass(frozen=True)
class Thoughts:
    """What was found in an answer.

    Args:
        spans: half-open spans of its tokens, one for each thought, line end included.
        decisions: the tokens before which a thought could be begun: those that stand where a logical line begins, and
            the first token of the answer. In order. Whether a token is one of them depends on the tokens before it
            alone, not on what it is itself.
        lines: lines of code; neither thoughts nor blank lines, and nothing outside of a chat answer's code blocks.
    """

    spans: list[tuple[int, int]]
    decisions: list[int]
    lines: int

    @property
    def tokens(self) -> int:
        """Tokens of all thoughts."""
        return sum(end - start for start, end in self.spans)


def thoughts_of(task: Task, ids: Sequence[int], texts: Sequence[bytes | None]) -> Thoughts:
    """The thoughts of an answer.

    Args:
        task: what was asked: its prompt is what the answer goes on from, its stop strings end the program.
        ids: sampled, as in `Completion.ids`.
        texts: bytes of every token (`ra3kit.latents.token_bytes`).
    """
    pieces = [(texts[token] if token < len(texts) else None) or b"" for token in ids]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    starts = np.concatenate([[0], ends])[: len(ids)]
    text = _bytewise(b"".join(pieces))
    program = len(cut(text, [_bytewise(stop.encode()) for stop in task.stops]))
    spans: list[tuple[int, int]] = []
    decisions, lines = set(range(len(ids))[:1]), 0
    for before, begin, end in _code(task, text):
        for at in _logical_starts(before, text[begin:end]):
            token = int(np.searchsorted(starts, begin + at))
            if token < len(ids) and starts[token] == begin + at:
                decisions.add(token)
            found = _THOUGHT.match(text, begin + at)
            if found is not None and found.end() <= min(end, program):
                spans.append(_tokens(starts, ends, *found.span()))
        lines += sum(bool(line.strip()) for line in text[begin : min(end, program)].split("\n"))
    return Thoughts(spans, sorted(decisions), lines - len(spans))


def _bytewise(data: bytes) -> str:
    """Bytes as text in which offsets count bytes. All that the structure of Python's lines is made of is ASCII."""
    return data.decode("latin-1")


def _code(task: Task, text: str) -> Iterator[tuple[str, int, int]]:
    """Where the code of an answer begins and ends, each with the code that it goes on from."""
    if task.style != "chat":
        yield _bytewise(prompt_text(task.problem, task.style).encode()), 0, len(text)
        return
    for block in FENCE.finditer(text):
        if block[1].lower() in ("", *PYTHON):
            yield "", *block.span(2)


def _logical_starts(before: str, code: str) -> list[int]:
    """Where logical lines begin in the code, its end included; each depends on the text before it alone."""
    whole, first = before + code, len(before)
    found = sorted(scan(whole, recover=False).logical_starts)
    # not after "\r", which what comes next may make a "\r\n"
    return [at - first for at in found if at >= first and (at == 0 or whole[at - 1] == "\n")]


def _tokens(starts: Int[np.ndarray, " t"], ends: Int[np.ndarray, " t"], begin: int, end: int) -> tuple[int, int]:
    """The tokens that hold any of the bytes from `begin` to `end`."""
    return int(np.searchsorted(ends, begin, "right")), int(np.searchsorted(starts, end))


# ---- figures --------------------------------------------------------------------------------------------------------


def thought_sums(answers: Sequence[Answer], found: Sequence[Thoughts]) -> dict[str, float]:
    """Sums that `thought_metrics` needs, to be added over processes (`ra3kit.ranks.summed`).

    Args:
        answers: with their rewards; those without one count in no mean of rewards.
        found: the thoughts of each.
    """
    rewards = [(answer.reward, bool(one.spans)) for answer, one in zip(answers, found, strict=True)]
    thinking = [reward for reward, thinks in rewards if reward is not None and thinks]
    plain = [reward for reward, thinks in rewards if reward is not None and not thinks]
    return {
        "answers": len(answers),
        "thoughts": sum(len(one.spans) for one in found),
        "tokens": sum(one.tokens for one in found),
        "lines": sum(one.lines for one in found),
        "with": len(thinking),
        "without": len(plain),
        "reward_with": sum(thinking),
        "reward_without": sum(plain),
    }


def thought_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """The figures logged as `rlvr/<name>`; a mean of nothing is left out.

    >>> sums = {"answers": 4, "thoughts": 6, "tokens": 24, "lines": 30, "with": 3, "without": 0}
    >>> thought_metrics(sums | {"reward_with": 1.5, "reward_without": 0.0})  # doctest: +NORMALIZE_WHITESPACE
    {'thoughts_per_answer': 1.5, 'thought_rate': 0.2, 'tokens_per_thought': 4.0, 'reward_with_thoughts': 0.5,
     'answers_with_thoughts': 3.0, 'answers_without_thoughts': 0.0}
    """
    ratios = {
        "thoughts_per_answer": ("thoughts", "answers"),
        "thought_rate": ("thoughts", "lines"),
        "tokens_per_thought": ("tokens", "thoughts"),
        "reward_with_thoughts": ("reward_with", "with"),
        "reward_without_thoughts": ("reward_without", "without"),
    }
    means = {name: sums[above] / sums[below] for name, (above, below) in ratios.items() if sums[below]}
    counts = {"answers_with_thoughts": float(sums["with"]), "answers_without_thoughts": float(sums["without"])}
    return means | counts


# ---- credit ---------------------------------------------------------------------------------------------------------


def segment_advantages(
    ids: Sequence[Sequence[int]],
    rewards: Sequence[float | None],
    decisions: Sequence[Sequence[int]],
    least: int = 1,
) -> list[Float[np.ndarray, " tokens"] | None]:
    """Credit for options: each stretch between two decisions has a baseline of its own, the value of where it begins.

    The advantage of the tokens from decision s of answer i up to its next one is r_i - b, where b is the mean reward of
    the other answers of the group whose first s tokens are those of i. Where fewer than `least` others share them, b is
    that of the nearest decision before with enough; at the first token all others share the (empty) prefix, which is
    the leave-one-out baseline (RLOO). A prefix that fails tells nothing about what came after it, and one that succeeds
    does not praise it.

    Unbiased: the others are drawn independently of i, and which of them share a prefix of i, and whether s is a
    decision, follow from the tokens of i before s. So given these tokens and the others, b is a constant for every
    token from s on, and E[grad log pi(token) b] = 0.

    This is why stretches begin wherever a thought *could* begin. Were they to begin at thoughts only, the token that
    opens a thought would be compared with another baseline than its alternatives at the same place, and the gradient
    would favour thoughts by the difference of the two, whatever thoughts are worth.

    Args:
        ids: sampled tokens of each answer of a group.
        rewards: None for an answer that is left out.
        decisions: of each answer, see `Thoughts.decisions`; [0] alone is credit for the whole answer.
        least: others that have to share a prefix, >= 1. More make a baseline less noisy and less specific.

    Returns:
        For each answer float32 [tokens], or None where it has no reward. Exactly 0 where all rewards are equal, and
        where it is the only one with a reward.

    Raises:
        RecipeError: least is below 1.

    >>> ids, rewards = [[1, 5, 6], [1, 5, 7], [2, 8, 9]], [1.0, 0.0, 0.0]
    >>> [a.tolist() for a in segment_advantages(ids, rewards, [[0, 2], [0, 2], [0]])]
    [[1.0, 1.0, 1.0], [-0.5, -0.5, -1.0], [-0.5, -0.5, -0.5]]
    """
    check_number("least", least, least=1, whole=True)
    judged = [i for i, reward in enumerate(rewards) if reward is not None]
    arrays = [np.asarray(each, np.int64) for each in ids]
    advantages: list[Float[np.ndarray, " tokens"] | None] = [None] * len(ids)
    for i in judged:
        others = [j for j in judged if j != i]
        shared = np.array([_common(arrays[i], arrays[j]) for j in others])
        better = np.array([rewards[i] - rewards[j] for j in others])  # type: ignore[operator]
        advantage = np.zeros(len(ids[i]), np.float32)
        for start in sorted({0, *decisions[i]}):
            same = shared >= start
            if same.sum() >= (least if start else 1):
                advantage[start:] = better[same].mean()
        advantages[i] = advantage
    return advantages


def _common(a: Int[np.ndarray, " s"], b: Int[np.ndarray, " t"]) -> int:
    """How many tokens two answers have in common from their beginning."""
    length = min(len(a), len(b))
    differ = a[:length] != b[:length]
    return int(differ.argmax()) if differ.any() else length
