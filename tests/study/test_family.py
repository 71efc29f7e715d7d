"""The generated family: what its programs do against its own truth, its splits, and the three ways to it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from ra3kit.data.corpora import read_files
from ra3kit.data.tokenizer import TrainedTokenizer
from ra3kit.errors import DataError, RecipeError
from ra3kit.evaluation import benchmarks, embedded
from ra3kit.evaluation.prompts import base_form
from ra3kit.rlvr.problems.read import read
from ra3kit.rlvr.tasks import Task
from ra3kit.study.family import Program, Split, find_family
from ra3kit.study.idioms import IDIOMS, POOL, Intent
from ra3kit.study.lists import ListFamily
from ra3kit.testing import check_benchmark
from ra3kit.verify.problem import Calls, Problem
from ra3kit.verify.verifier import Verifier

FAMILY = ListFamily()
EXPERT = list(FAMILY.expert_corpus(400))
BASE = list(FAMILY.base_corpus(1200))
TASKS: dict[Split, list[Problem]] = {split: FAMILY.problems(split, 120) for split in ("train", "val", "test")}


class OtherFamily:
    """Somebody else's, by import path."""

    def __init__(self, world: int = 0, depth: int = 1) -> None:
        self.depth = depth

    def base_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        for i in range(n):
            yield Program(f"{seed}/{i}", f"x = {self.depth}\ny = {i}\n", ())

    def expert_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        return self.base_corpus(n, seed)

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        return [Problem(f"{split}/{i}", Calls("f", [[]], [i]), f"def f():  # {i}\n") for i in range(n)]


def answers(program: str, inputs: Any) -> list[Any]:
    names: dict[str, Any] = {}
    exec(program, names)
    return [names["f"](list(xs), t) for xs, t in inputs]


def draws(n: int) -> list[tuple[list[int], int]]:
    rng = Random(7)
    return [([rng.randint(-9, 12) for _ in range(rng.randint(0, 8))], rng.randint(0, 9)) for _ in range(n)]


def function(lines: str) -> str:
    return "def f(xs, t):\n" + "".join(f"    {line}\n" for line in lines.splitlines()) + "    return xs, t\n"


def segments(program: Program) -> list[str]:
    """The lines of each segment of a program, without indentation and comments."""
    lines = program.text.splitlines()
    begins = [segment.line for segment in program.truth]
    blocks = [lines[a:b] for a, b in zip(begins, [*begins[1:], len(lines) - 1], strict=True)]
    return ["".join(f"{line[4:]}\n" for line in block if line.startswith("    ")) for block in blocks]


# --- idioms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", POOL, ids=lambda intent: intent.name)
def test_all_idioms_of_an_intent_do_the_same_and_its_bug_does_not(intent: Intent) -> None:
    inputs = draws(200)
    right = [answers(function(intent.lines(idiom)), inputs) for idiom in range(5)]
    wrong = [answers(function(intent.lines(idiom, bug=True)), inputs) for idiom in range(5)]
    assert right[1:] == right[:-1]
    assert wrong[1:] == wrong[:-1]
    assert sum(a != b for a, b in zip(right[0], wrong[0], strict=True)) >= 20


def test_intents_have_names_and_effects_of_their_own() -> None:
    inputs = draws(200)
    assert len({intent.name for intent in POOL}) == len(POOL)
    effects = {repr(answers(function(intent.lines(0, bug)), inputs)) for intent in POOL for bug in (False, True)}
    assert len(effects) == 2 * len(POOL)  # no bug is another intent
    assert {2, 3, 4, 5, 6} == {idiom.count("\n") for idioms in IDIOMS.values() for idiom in idioms}


def test_what_intents_do_on_one_list() -> None:
    xs, t = [3, -4, 0, 7, 3], 2
    expected = {
        "keep small": ([3, -4, 0, 3], 2),
        "halve each": ([1, -2, 0, 3, 1], 2),
        "count odds": ([3, -4, 0, 7, 3], 5),
        "running swing": ([3, -7, 7, 0, 3], 2),
        "take gaps": ([-7, 4, 7, -4], 2),
        "sort unique": ([-4, 0, 3, 7], 2),
        "shift left": ([-4, 0, 7, 3, 3], 2),
    }
    found = {i.name: answers(function(i.lines(0)), [(xs, t)])[0] for i in POOL if i.name in expected}
    assert found == expected


# --- programs and their truth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", [BASE, EXPERT], ids=["base", "expert"])
def test_the_lines_at_each_segment_do_what_the_truth_says(corpus: list[Program]) -> None:
    inputs = draws(60)
    does = {i.name: tuple(answers(function(i.lines(0, bug)), inputs) for bug in (False, True)) for i in POOL}
    for program in corpus[:200]:
        lines = program.text.splitlines()
        blocks = segments(program)
        for segment, block in zip(program.truth, blocks, strict=True):
            assert answers(function(block), inputs) == does[segment.intent][segment.bugged], program.text
            above = lines[segment.line - 1]
            assert above == f"# {segment.comment}" if segment.comment else not above.startswith("#")
        # nothing but head, comments and segments
        assert answers(program.text, inputs) == answers(function("".join(blocks)), inputs)


def test_expert_programs_are_specified_clean_uncommented_and_partly_new() -> None:
    old = new = 0
    for program in EXPERT:
        phrases = ", ".join(FAMILY.glossary[segment.intent] for segment in program.truth)
        assert program.text.startswith(f'def f(xs, t):\n    """{phrases}"""\n')
        assert 3 <= len(program.truth) <= 5
        assert "#" not in program.text
        assert not any(segment.bugged for segment in program.truth)
        for segment, block in zip(program.truth, segments(program), strict=True):
            intent = FAMILY.intent(segment.intent)
            seen = {intent.lines(idiom) for idiom in FAMILY.idioms[intent.name][:3]}
            old, new = old + (block in seen), new + (block not in seen)
    assert 0.45 < new / (old + new) < 0.55
    seen_by_base = {block for program in BASE for block in segments(program)}
    unseen = {i.lines(idiom) for i in FAMILY.alphabet for idiom in FAMILY.idioms[i.name][3:]}
    assert not seen_by_base & unseen


def test_the_base_corpus_has_the_shares_that_are_asked_for() -> None:
    documented = [program for program in BASE if '"""' in program.text]
    assert 0.45 < len(documented) / len(BASE) < 0.55
    assert not any(segment.comment for program in BASE if '"""' not in program.text for segment in program.truth)
    found = [segment for program in documented for segment in program.truth]
    commented = [segment for segment in found if segment.comment]
    assert 0.93 < len(commented) / len(found) < 0.97
    assert 0.03 < sum(s.comment != s.intent for s in commented) / len(commented) < 0.07
    prone = [s for program in BASE for s in program.truth if s.intent in FAMILY.with_bugs]
    assert len(FAMILY.with_bugs) == 15
    assert 0.56 < sum(s.bugged for s in prone) / len(prone) < 0.64
    assert not any(s.bugged for program in BASE for s in program.truth if s.intent not in FAMILY.with_bugs)
    assert {len(program.truth) for program in BASE} == {1, 2, 3, 4, 5}


def test_knobs_at_their_ends() -> None:
    plain = ListFamily(specified=0, bug_rate=0, novel=0, intents=5, realisations=5)
    program = next(iter(plain.base_corpus(1)))
    assert '"""' not in program.text
    assert not any(segment.bugged for segment in program.truth)
    assert len(plain.alphabet) == len(set(plain.glossary.values())) == 5
    noisy = ListFamily(specified=1, comments=1, noise=1, bugged=1, bug_rate=1, base_least=2, base_most=2)
    for program in noisy.base_corpus(20):
        assert len(program.truth) == 2
        assert all(segment.bugged and segment.comment not in (None, segment.intent) for segment in program.truth)
    short = ListFamily(max_lines=3, realisations=1, novel=0)
    assert max(block.count("\n") for p in short.expert_corpus(50) for block in segments(p)) == 3


# --- a pure function of world, split and index -----------------------------------------------------------------------


def test_the_first_programs_are_the_same_whatever_n_is() -> None:
    again = ListFamily()
    assert list(again.base_corpus(7)) == BASE[:7]
    assert list(again.expert_corpus(7)) == EXPERT[:7]
    for split, tasks in TASKS.items():
        assert again.problems(split, 9) == tasks[:9]


def test_worlds_and_seeds_differ() -> None:
    other = ListFamily(world=1)
    assert other.glossary != FAMILY.glossary
    assert other.problems("val", 3)[0].prompt != TASKS["val"][0].prompt
    assert [p.text for p in FAMILY.base_corpus(5, seed=1)] != [p.text for p in BASE[:5]]
    assert [p.prompt for p in FAMILY.problems("val", 5, seed=1)] != [p.prompt for p in TASKS["val"][:5]]


def test_a_world_is_the_same_in_every_process() -> None:
    assert list(FAMILY.glossary.items())[:2] == [("square each", "jolly ember"), ("double each", "brisk falcon")]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_splits_share_no_set_of_intents_and_corpora_have_none_of_val_and_test() -> None:
    sets = {split: {frozenset(task.meta["intents"]) for task in tasks} for split, tasks in TASKS.items()}
    assert not any(a & b for a, b in itertools.combinations(sets.values(), 2))
    for program in [*BASE, *EXPERT]:
        assert frozenset(segment.intent for segment in program.truth) not in sets["val"] | sets["test"]
    for tasks in TASKS.values():
        assert len({task.prompt for task in tasks}) == len(tasks)
        assert set(Counter(len(task.meta["intents"]) for task in tasks)) == {3, 4, 5}


def test_each_intent_of_a_task_matters() -> None:
    for task in [*TASKS["val"], *TASKS["train"]]:
        assert isinstance(task.tests, Calls)
        inputs, expected = task.tests.inputs, list(task.tests.expected)
        blocks = [FAMILY.intent(name).lines(0) for name in task.meta["intents"]]
        assert answers(function("".join(blocks)), inputs) == expected
        for i, name in enumerate(task.meta["intents"]):
            without = [*blocks[:i], *blocks[i + 1 :]]
            assert answers(function("".join(without)), inputs) != expected
            bugged = [*blocks[:i], FAMILY.intent(name).lines(0, bug=True), *blocks[i + 1 :]]
            assert answers(function("".join(bugged)), inputs) != expected


def test_another_intent_in_place_of_one_passes_only_where_both_do_the_same() -> None:
    many = draws(100)
    for task in TASKS["val"][:12]:
        assert isinstance(task.tests, Calls)
        blocks = [FAMILY.intent(name).lines(0) for name in task.meta["intents"]]
        right = answers(function("".join(blocks)), many)
        for i, other in itertools.product(range(len(blocks)), FAMILY.alphabet):
            program = function("".join([*blocks[:i], other.lines(0), *blocks[i + 1 :]]))
            if answers(program, task.tests.inputs) == list(task.tests.expected):
                same = sum(a == b for a, b in zip(answers(program, many), right, strict=True))
                assert same >= 95, (task.prompt, other.name)


def test_references_and_commented_answers_pass_in_the_sandbox_and_bugged_ones_fail() -> None:
    tasks = TASKS["val"][:6]
    programs: list[tuple[str, Problem]] = []
    for task in tasks:
        assert task.solution is not None
        intents = [FAMILY.intent(name) for name in task.meta["intents"]]
        with_bug = "".join(intent.lines(1, bug=i == 1) for i, intent in enumerate(intents))
        programs += [(task.solution, task), (task.prompt + commented(intents), task), (function(with_bug), task)]

    async def judged() -> list[str]:
        async with Verifier(workers=1) as verifier:
            return [verdict.status for verdict in await verifier.verify_batch(programs)]

    assert asyncio.run(judged()) == ["pass", "pass", "fail"] * len(tasks)


def commented(intents: list[Intent]) -> str:
    """The body of a function with thoughts at column 0."""
    body = ""
    for intent in intents:
        body += f"# {intent.name}\n" + "".join(f"    {line}\n" for line in intent.lines(2).splitlines())
    return body + "    return xs, t\n"


def test_an_answer_is_cut_after_the_function_and_not_at_its_comments() -> None:
    tokenizer = TrainedTokenizer(corpus="family:base:n=200", vocab_size=500).load()
    problem = TASKS["val"][0]
    task = Task.of(problem, tokenizer)
    body = commented([FAMILY.intent(name) for name in problem.meta["intents"]])
    assert base_form(problem) == "function"
    assert task.program(body + "\ndef f(xs, t):\n    pass\n") == problem.prompt + body
    assert len(task.prompt) < 64


# --- the ways to it --------------------------------------------------------------------------------------------------


def test_as_a_corpus() -> None:
    files = list(read_files("family:base:n=20"))
    assert [file.text for file in files] == [program.text for program in BASE[:20]]
    assert [f.text for f in read_files("family:expert:n=5:world=0")] == [program.text for program in EXPERT[:5]]
    assert (
        len({file.name for file in read_files(["family:base:n=9", "family:expert:n=9", "family:base:n=9:seed=1"])})
        == 27
    )
    assert next(read_files("family:base:n=1:bug_rate=0.0:world=3")).text
    other = list(read_files(f"family:{__name__}.OtherFamily:base:n=2:depth=5"))
    assert [file.text for file in other] == ["x = 5\ny = 0\n", "x = 5\ny = 1\n"]


def test_as_a_benchmark() -> None:
    assert benchmarks.load("family", {"n": 9}).problems == TASKS["val"][:9]
    assert benchmarks.load("family", {"n": 9, "split": "test", "world": 0}, limit=4).problems == TASKS["test"][:4]
    assert len(benchmarks.load("family").problems) == 200
    check_benchmark(lambda: benchmarks.family(n=4, split="test"))
    two = benchmarks.load("family", {"family": "least=2:most=2", "n": 5}).problems
    assert {len(problem.meta["intents"]) for problem in two} == {2}
    other = benchmarks.load("family", {"family": f"{__name__}.OtherFamily:depth=2", "n": 2, "split": "test"})
    assert [problem.id for problem in other.problems] == ["test/0", "test/1"]


def test_as_training_problems() -> None:
    found = read("family:n=50", against=[])
    assert found.for_training() == TASKS["train"][:50]
    assert found.records == 50
    assert len(read("family").problems) == 600
    for split in ("val", "test"):
        refused = read(f"family:{split}:n=5")
        assert not refused.problems
        assert refused.evaluation == TASKS[split][:5]  # type: ignore[index]
        with pytest.raises(DataError, match=f"evaluation data of family, {split} split"):
            refused.for_training()
        forced = read(f"family:{split}:n=5", force=True)
        assert {problem.meta["evaluation"] for problem in forced.for_training()} == {f"family, {split} split"}


def test_the_splits_of_the_kits_own_problems_are_what_rlvr_trains_on_and_the_rest() -> None:
    train = benchmarks.load("ra3kit", {"split": "train"}).problems
    test = benchmarks.load("ra3kit", {"split": "test"}).problems
    assert train == read("ra3kit").problems
    assert test == read("ra3kit").evaluation
    assert len(train) + len(test) == len(embedded.load()) == len(benchmarks.load("ra3kit", {"split": "all"}).problems)
    with pytest.raises(RecipeError, match=r"split='tset'.*Did you mean 'test'"):
        benchmarks.load("ra3kit", {"split": "tset"})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("family:bsae", "Did you mean 'base'"),
        ("family:base:wrold=1", "Did you mean 'world'"),
        ("family:base:world=x", "world='x': must be a whole number"),
        ("family:base:n=0", "n=0: must be a whole number of at least 1"),
        ("family:base:n=1:n=2", "n is given twice"),
        ("family:base:bug_rate=1.5", "bug_rate=1.5: must be a finite number of at least 0 and of at most 1"),
        ("family:base:intents=99", "intents=99"),
        ("family:base:least=4:most=3", "most=3"),
        ("family:base:max_lines=2", "filter has 2 idioms of these lengths"),
        ("family:base:min_lines=3:max_lines=2", "max_lines=2"),
        ("family:no.such.Class:base", "cannot import no.such.Class"),
        ("family:ra3kit.study.lists.HEAD:base", "is no class"),
        ("family:expert:train", "'train' is none of what can stand here: one of base, expert, an import path"),
        ("family:", "'' is none of"),
        ("family:world=1", "which corpus"),
    ],
)
def test_names_that_mean_nothing(source: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        list(read_files(source))


def test_more_tasks_than_there_are() -> None:
    with pytest.raises(DataError, match="has only"):
        ListFamily(intents=5, least=2, most=2).problems("train", 500)
    with pytest.raises(DataError, match=r"split='vla'.*Did you mean 'val'"):
        FAMILY.problems("vla", 1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="Did you mean 'keep evens'"):
        ListFamily(intents=36).intent("keep even")
    with pytest.raises(RecipeError, match="split='dev'"):
        benchmarks.load("family", {"split": "dev"})
    with pytest.raises(DataError, match="'test' is none of what can stand here: an import path, key=value"):
        benchmarks.load("family", {"family": "test"})
    assert find_family("family", ()).part is None
