"""Do discovered thoughts agree with the true intents: in where they begin, and in which lines they put together?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ra3kit.data.encode import decode_ids
from ra3kit.data.trajectory import Trajectory
from ra3kit.study.truth import Truth


@dataclass(frozen=True)
class Spans:
    """One program: which intent begins at which line in truth, and which thought stands before which line.

    Args:
        lines: how many lines it has.
        true: line -> intent that begins there.
        found: line -> the thought before it, without "#" and spaces around.
    """

    lines: int
    true: Mapping[int, str]
    found: Mapping[int, str]


@dataclass(frozen=True)
class Agreement:
    """Agreement over a set of programs; NaN where there is nothing it could be measured on.

    Args:
        precision: share of the thoughts that stand where an intent begins.
        recall: share of the intents that begin after a thought.
        f1: harmonic mean of these two; 0 where both are 0.
        nmi: mutual information of the thought in force and the intent, over the lines of intents, divided by the mean
            of their entropies: 1 where each says the other, 0 where they are independent. Lines before the first
            thought count as a thought of their own.
        purity: share of the lines under a thought whose intent is the one that this thought's text most often covers.
        named: share of the thoughts whose text is the name of the intent of the line they stand before.
        thoughts, intents, programs: counts.
    """

    precision: float
    recall: float
    f1: float
    nmi: float
    purity: float
    named: float
    thoughts: int
    intents: int
    programs: int


def spans_of(trajectories: Sequence[Trajectory], truth: Truth, tokenizer: Any) -> list[Spans]:
    """What was written into programs of a family's corpus, beside the truth about them.

    Raises:
        DataError: a snippet is no whole program of the corpus.
    """
    out = []
    for trajectory in trajectories:
        starts = np.flatnonzero(trajectory.has_thought()).tolist()
        texts = decode_ids(tokenizer, [trajectory.thought_ids(line) for line in starts]) if starts else []
        found = {line: text.strip().lstrip("#").strip() for line, text in zip(starts, texts, strict=True)}
        out.append(Spans(len(trajectory.lines), truth.intents_of(trajectory, tokenizer), found))
    return out


def agreement(programs: Sequence[Spans]) -> Agreement:
    """Agreement of thoughts and intents over programs; all lines and thoughts count alike.

    >>> half = Spans(4, {0: "sort", 2: "sum"}, {0: "sort", 1: "sum"})
    >>> found = agreement([half])
    >>> found.precision, found.recall, found.purity, found.named
    (0.5, 0.5, 0.75, 0.5)
    """
    thoughts = sum(len(program.found) for program in programs)
    intents = sum(len(program.true) for program in programs)
    hits = sum(len(program.found.keys() & program.true.keys()) for program in programs)
    pairs: Counter[tuple[str | None, str]] = Counter()
    named = 0
    for program in programs:
        true, found = _in_force(program.true, program.lines), _in_force(program.found, program.lines)
        named += sum(true[line] == text for line, text in program.found.items())
        pairs.update((latent, intent) for latent, intent in zip(found, true, strict=True) if intent is not None)
    return Agreement(
        precision=_ratio(hits, thoughts),
        recall=_ratio(hits, intents),
        f1=_ratio(2 * hits, thoughts + intents),
        nmi=normalised_information(pairs),
        purity=purity({pair: count for pair, count in pairs.items() if pair[0] is not None}),
        named=_ratio(named, thoughts),
        thoughts=thoughts,
        intents=intents,
        programs=len(programs),
    )


def normalised_information(pairs: Mapping[tuple[Any, Any], int]) -> float:
    """Mutual information of two labels, divided by the mean of their entropies; from counts of pairs.

    1 where both have one and the same value throughout (nothing is left to say); NaN without pairs.

    >>> round(normalised_information({("a", 1): 5, ("b", 2): 5}), 12)
    1.0
    >>> normalised_information({("a", 1): 1, ("a", 2): 1, ("b", 1): 1, ("b", 2): 1})
    0.0
    """
    if not pairs:
        return math.nan
    first, second = (_marginal(pairs, place) for place in (0, 1))
    h_first, h_second, h_both = _entropy(first), _entropy(second), _entropy(pairs)
    if h_first + h_second == 0:
        return 1.0
    return max(0.0, 2 * (h_first + h_second - h_both) / (h_first + h_second))


def purity(pairs: Mapping[tuple[Any, Any], int]) -> float:
    """Share of the items whose second label is the most frequent one of their first; NaN without items.

    >>> purity({("a", 1): 3, ("a", 2): 1, ("b", 2): 4})
    0.875
    """
    most: dict[Any, int] = {}
    for (first, _), count in pairs.items():
        most[first] = max(most.get(first, 0), count)
    return _ratio(sum(most.values()), sum(pairs.values()))


def _in_force(begins: Mapping[int, str], lines: int) -> list[str | None]:
    """At each line the label that was set last; None before the first."""
    out, current = [], None
    for line in range(lines):
        current = begins.get(line, current)
        out.append(current)
    return out


def _marginal(pairs: Mapping[tuple[Any, Any], int], place: int) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for pair, count in pairs.items():
        counts[pair[place]] += count
    return counts


def _entropy(counts: Mapping[Any, int]) -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values() if count)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
