"""Oracle and random annotation: the contract of posteriors, and what they write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, RecipeError
from ra3kit.study.agreement import agreement, spans_of
from ra3kit.study.family import Program, Segment
from ra3kit.study.lists import ListFamily
from ra3kit.study.posteriors import OraclePosterior, RandomPosterior
from ra3kit.study.truth import Truth
from ra3kit.testing import check_posterior
from ra3kit.testing.conformance.world import TEXTS, tiny_policy

CORPUS = "family:expert:n=40:world=5"
SLOTS = {"max_length": 40, "slots": 8, "capacity": 512}


class TinyPrograms:
    """The snippets that posteriors are checked on, as a family with intents at their first lines."""

    def __init__(self, world: int = 0) -> None:
        self.world = world

    def expert_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        for i, text in enumerate(TEXTS):
            yield Program(f"snippet{i}", text, (Segment(0, f"do {i}"),))


TINY = f"family:{__name__}.TinyPrograms:expert"


def snippets(n: int = 40) -> list[Trajectory]:
    """The programs of `CORPUS`, as the data module would name them."""
    tokenizer = tiny_policy().tokenizer
    programs = ListFamily(world=5).expert_corpus(n)
    return [trajectory_from_text(tokenizer, f"{p.name}#0", p.text, PythonLines()) for p in programs]


@pytest.mark.parametrize("posterior", [OraclePosterior(TINY, **SLOTS), RandomPosterior(TINY, rate=0.4, **SLOTS)])
def test_contract(posterior: OraclePosterior) -> None:
    check_posterior(posterior)


def test_the_oracle_agrees_with_the_truth() -> None:
    policy = tiny_policy()
    q = OraclePosterior(CORPUS, **SLOTS)
    q.bind(policy)
    written = q.annotate(snippets(), policy, 0)
    found = agreement(spans_of(written, Truth.of(CORPUS), policy.tokenizer))
    assert (found.precision, found.recall, found.purity, found.named) == (1, 1, 1, 1)
    assert found.thoughts == sum(len(program.truth) for program in ListFamily(world=5).expert_corpus(40))


def test_random_thoughts_have_the_oracles_rate_and_words_but_not_its_places() -> None:
    policy = tiny_policy()
    q = RandomPosterior(CORPUS, **SLOTS)
    q.bind(policy)
    written = [trajectory for seed in range(8) for trajectory in q.annotate(snippets(), policy, seed)]
    truth = Truth.of(CORPUS)
    spans = spans_of(written, truth, policy.tokenizer)
    lines, thoughts = sum(s.lines for s in spans), sum(len(s.found) for s in spans)
    rate = sum(len(s.true) for s in spans) / lines
    assert thoughts / lines == pytest.approx(rate, abs=4 * (rate / lines) ** 0.5)
    assert agreement(spans).precision == pytest.approx(rate, abs=0.06)
    words = Counter(text for s in spans for text in s.found.values())
    assert set(words) == set(truth.intents)
    assert max(words.values()) < 3 * min(words.values())


def test_random_thoughts_do_not_read_the_program() -> None:
    """The same name and the same places: the same thoughts, whatever the lines are."""
    policy = tiny_policy()
    q = RandomPosterior(CORPUS, rate=0.5, **SLOTS)
    q.bind(policy)
    texts = ("x = 1\ny = 2\nz = 3\nprint(x)\n", "import os\nimport re\nimport sys\nimport json\n")
    made = [trajectory_from_text(policy.tokenizer, "same#0", text, PythonLines()) for text in texts]
    one, other = q.annotate(made, policy, 3)
    assert np.array_equal(one.has_thought(), other.has_thought())
    assert len(one.thoughts)
    assert [one.thought_ids(line) for line in range(4)] == [other.thought_ids(line) for line in range(4)]


def test_what_they_refuse() -> None:
    policy = tiny_policy()
    with pytest.raises(RecipeError, match="rate"):
        RandomPosterior(rate=0.0)
    short = OraclePosterior(CORPUS, **{**SLOTS, "max_length": 3})
    short.bind(policy)
    with pytest.raises(RecipeError, match="max_length=3"):
        short.annotate(snippets(), policy, 0)
    q = OraclePosterior("family:expert:n=3:world=6", **SLOTS)
    q.bind(policy)
    with pytest.raises(DataError, match="no program of this corpus"):
        q.annotate(snippets(1), policy, 0)
    with pytest.raises(DataError, match="which corpus"):
        Truth.of("family:world=1")
