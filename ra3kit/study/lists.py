"""The default family: functions of a list of small whole numbers and a number, each a sequence of hidden intents.

    def f(xs, t):
        '''icy comet, keen dune, faint basin'''    the specification: a phrase of the world's glossary per intent
    # keep evens                                  what a comment calls the first intent (base corpus only)
        ys = [x for x in xs if x % 2 == 0]
        xs = ys
    ...
        return xs, t

The base corpus teaches phrase -> comment -> lines well and phrase -> lines hardly: its documented half has comments,
its other half has neither specification nor comments. Many of its lines are bugged, those of the expert corpus aren't.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from random import Random

from ra3kit.errors import DataError, nearest
from ra3kit.ranges import check_number
from ra3kit.study.family import Program, Segment, Split
from ra3kit.study.idioms import ADJECTIVES, IDIOMS, NOUNS, POOL, Intent
from ra3kit.verify.problem import Calls, Limits, Problem

HEAD = "def f(xs, t):\n"
END = "    return xs, t\n"
SPLITS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}
"""Where in [0, 1) the hash of a task's set of intents lies."""
CANDIDATES = 32
"""Inputs drawn for a task, of which those are kept that tell right programs from wrong ones."""

State = tuple[list[int], int]
Step = Callable[[list[int], int], State]
Composition = tuple[Intent, ...]


@dataclass(frozen=True)
class ListFamily:
    """A world of programs.

    Args:
        world: seed of the world: which intents, their phrases and idioms, which of them come with bugs.
        intents: how many intents there are, 5 to 36.
        realisations: idioms of an intent in the base corpus, 1 to 5.
        novel: share of the expert corpus's idioms that the base corpus has none of, in [0, 1].
        min_lines, max_lines: of the idioms used, 2 to 6.
        least, most: intents of an expert program or a task.
        base_least, base_most: intents of a base program.
        specified: share of base programs with specification and comments.
        comments: share of their intents that have a comment.
        noise: share of these comments that name another intent.
        bugged: share of the intents that come with bugs.
        bug_rate: share of such an intent's occurrences in the base corpus that are bugged.
        tests: least number of inputs of a task.

    Raises:
        DataError: a number out of its range, or too few idioms of these lengths.
    """

    world: int = 0
    intents: int = 20
    realisations: int = 3
    novel: float = 0.5
    min_lines: int = 2
    max_lines: int = 6
    least: int = 3
    most: int = 5
    base_least: int = 1
    base_most: int = 5
    specified: float = 0.5
    comments: float = 0.95
    noise: float = 0.05
    bugged: float = 0.75
    bug_rate: float = 0.6
    tests: int = 6

    def __post_init__(self) -> None:
        check_number("world", self.world, whole=True, error=DataError)
        for key, least, most in (
            ("intents", 5, len(POOL)),
            ("realisations", 1, 5),
            ("min_lines", 2, 6),
            ("max_lines", self.min_lines, 6),
            ("least", 1, 5),
            ("most", self.least, 5),
            ("base_least", 1, 5),
            ("base_most", self.base_least, 5),
            ("tests", 1, CANDIDATES),
        ):
            check_number(key, getattr(self, key), least=least, most=most, whole=True, error=DataError)
        for key in ("novel", "specified", "comments", "noise", "bugged", "bug_rate"):
            check_number(key, getattr(self, key), least=0, most=1, error=DataError)
        needed = self.realisations + (self.novel > 0)
        for kind in IDIOMS:
            if len(self._lengths_fit(kind)) < needed:
                raise DataError(
                    f"min_lines={self.min_lines}, max_lines={self.max_lines}: {kind} has "
                    f"{len(self._lengths_fit(kind))} idioms of these lengths, realisations={self.realisations} and "
                    f"novel={self.novel} need {needed}. Set novel=0, fewer realisations or other lengths."
                )

    # ---- the world --------------------------------------------------------------------------------------------------

    @cached_property
    def alphabet(self) -> tuple[Intent, ...]:
        """The intents of this world."""
        return tuple(self._rng("intents").sample(POOL, self.intents))

    @cached_property
    def glossary(self) -> dict[str, str]:
        """The phrase of each intent, by its name."""
        pairs = [f"{a} {b}" for a in ADJECTIVES for b in NOUNS]
        phrases = self._rng("glossary").sample(pairs, self.intents)
        return {intent.name: phrase for intent, phrase in zip(self.alphabet, phrases, strict=True)}

    @cached_property
    def idioms(self) -> dict[str, tuple[int, ...]]:
        """The idioms of each intent, by its name: first the `realisations` of the base corpus, then those that are new
        in the expert corpus."""
        order = self._rng("idioms")
        return {i.name: tuple(_shuffled(order, self._lengths_fit(i.kind))) for i in self.alphabet}

    @cached_property
    def with_bugs(self) -> frozenset[str]:
        """Names of the intents that come with bugs."""
        chosen = self._rng("bugs").sample(self.alphabet, round(self.bugged * self.intents))
        return frozenset(intent.name for intent in chosen)

    def intent(self, name: str) -> Intent:
        """An intent of this world by name.

        Raises:
            DataError: there is none.
        """
        for intent in self.alphabet:
            if intent.name == name:
                return intent
        names = [intent.name for intent in self.alphabet]
        raise DataError(f"intent={name!r}: this world has {', '.join(names)}.{nearest(name, names)}")

    def split_of(self, composition: Sequence[Intent]) -> Split:
        """The split of a composition: by its set of intents, so that another order is in the same split."""
        key = "\0".join([str(self.world), *sorted(intent.name for intent in composition)])
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        return next(split for split, (begin, end) in SPLITS.items() if begin <= place < end)

    def _lengths_fit(self, kind: str) -> list[int]:
        lengths = [idiom.count("\n") for idiom in IDIOMS[kind]]
        return [i for i, length in enumerate(lengths) if self.min_lines <= length <= self.max_lines]

    def _rng(self, *what: object) -> Random:
        return Random("/".join(map(str, ("ra3kit lists", self.world, *what))))

    def _compose(self, rng: Random, least: int, most: int) -> Composition:
        return tuple(rng.sample(self.alphabet, rng.randint(least, most)))

    def _compose_for_training(self, rng: Random, least: int, most: int) -> Composition:
        """A composition that can be no task's of val or test."""
        while True:
            composition = self._compose(rng, least, most)
            if len(composition) < self.least or self.split_of(composition) == "train":
                return composition

    # ---- corpora ----------------------------------------------------------------------------------------------------

    def base_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        """Programs with bugs; a share `specified` of them with specification and comments, the others with neither."""
        for index in range(n):
            rng = self._rng("base", seed, index)
            composition = self._compose_for_training(rng, self.base_least, self.base_most)
            documented = rng.random() < self.specified
            blocks = [self._base_block(rng, intent, documented) for intent in composition]
            yield self._program(f"world-{self.world}/base-{seed}/{index}.py", blocks, composition if documented else ())

    def expert_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        """Programs without bugs and comments, with specification, partly in idioms that the base corpus hasn't got."""
        for index in range(n):
            rng = self._rng("expert", seed, index)
            composition = self._compose_for_training(rng, self.least, self.most)
            blocks = [self._expert_block(rng, intent) for intent in composition]
            yield self._program(f"world-{self.world}/expert-{seed}/{index}.py", blocks, composition)

    def _base_block(self, rng: Random, intent: Intent, documented: bool) -> tuple[Segment, str]:
        bug = intent.name in self.with_bugs and rng.random() < self.bug_rate
        comment = None
        if documented and rng.random() < self.comments:
            others = [other.name for other in self.alphabet if other != intent]
            comment = rng.choice(others) if rng.random() < self.noise else intent.name
        idiom = rng.choice(self.idioms[intent.name][: self.realisations])
        return Segment(0, intent.name, comment, bug), intent.lines(idiom, bug)

    def _expert_block(self, rng: Random, intent: Intent) -> tuple[Segment, str]:
        idioms = self.idioms[intent.name]
        new = rng.random() < self.novel
        idiom = rng.choice(idioms[self.realisations :] if new else idioms[: self.realisations])
        return Segment(0, intent.name), intent.lines(idiom)

    def _program(self, name: str, blocks: Sequence[tuple[Segment, str]], specified: Composition) -> Program:
        text, truth = self.prompt(specified), []
        for segment, lines in blocks:
            if segment.comment is not None:
                text += f"# {segment.comment}\n"
            truth.append(Segment(text.count("\n"), segment.intent, segment.comment, segment.bugged))
            text += _indented(lines)
        return Program(name, text + END, tuple(truth))

    def prompt(self, composition: Composition) -> str:
        """The head of a function with its specification; without intents, the head alone."""
        phrases = ", ".join(self.glossary[intent.name] for intent in composition)
        return HEAD + (f'    """{phrases}"""\n' if phrases else "")

    # ---- tasks ------------------------------------------------------------------------------------------------------

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        """Tasks of a split, no two with the same intents in the same order.

        Raises:
            DataError: no such split, or it has not so many tasks.
        """
        if split not in SPLITS:
            raise DataError(f"split={split!r}: allowed are {', '.join(SPLITS)}.{nearest(str(split), SPLITS)}")
        found = list(islice(self._tasks(split, seed), n))
        if len(found) < n:
            raise DataError(f"n={n}: split {split} of this world has only {len(found)} tasks. Ask for fewer.")
        return found

    def _tasks(self, split: Split, seed: int) -> Iterator[Problem]:
        rng = self._rng(split, seed)
        seen: set[Composition] = set()
        index = misses = 0
        while misses < 20_000:  # in a row: hardly a composition is left
            misses += 1
            composition = self._compose(rng, self.least, self.most)
            if composition in seen or self.split_of(composition) != split:
                continue
            seen.add(composition)
            inputs = self._telling_inputs(composition)
            if inputs is not None:
                yield self._problem(f"family/{self.world}/{split}-{seed}/{index}", composition, inputs)
                index, misses = index + 1, 0

    def _problem(self, name: str, composition: Composition, inputs: list[State]) -> Problem:
        rng = self._rng("solution", *(intent.name for intent in composition))
        body = "".join(_indented(self._expert_block(rng, intent)[1]) for intent in composition)
        steps = [self._steps[intent.name] for intent in composition]
        prompt = self.prompt(composition)
        return Problem(
            id=name,
            prompt=prompt,
            tests=Calls("f", [list(_copy(at)) for at in inputs], [_run(steps, at) for at in inputs]),
            limits=Limits(time=2.0),
            solution=prompt + body + END,
            meta={"intents": [intent.name for intent in composition], "difficulty": f"{len(composition)} intents"},
        )

    @cached_property
    def _steps(self) -> dict[str, Step]:
        return {intent.name: _compiled(intent.lines(0)) for intent in self.alphabet}

    @cached_property
    def _bugs(self) -> dict[str, Step]:
        return {intent.name: _compiled(intent.lines(0, bug=True)) for intent in self.alphabet}

    def _telling_inputs(self, composition: Composition) -> list[State] | None:
        """Inputs on which each wrong program differs from the right one; None where an intent can't be told from none
        or from its bug.

        Wrong programs are those that lack one intent, have its bug, or have another in its place. The last are no
        condition: in some places two intents do the same.
        """
        rng = self._rng("inputs", *(intent.name for intent in composition))
        candidates = [_draw_input(rng) for _ in range(CANDIDATES)]
        steps = [self._steps[intent.name] for intent in composition]
        right = [_run(steps, at) for at in candidates]
        used: dict[int, None] = {}
        for i, intent in enumerate(composition):
            needed = [[], [self._bugs[intent.name]]]
            others: list[list[Step]] = [[self._steps[o.name]] for o in self.alphabet if o != intent]
            for number, instead in enumerate([*needed, *others]):
                wrong = [*steps[:i], *instead, *steps[i + 1 :]]
                order = [*used, *(c for c in range(CANDIDATES) if c not in used)]
                told = next((c for c in order if _run(wrong, candidates[c]) != right[c]), None)
                if told is not None:
                    used[told] = None
                elif number < len(needed):
                    return None
        for c in range(CANDIDATES):
            if len(used) < self.tests:
                used[c] = None
        return [candidates[c] for c in sorted(used)]


def _shuffled(rng: Random, items: list[int]) -> list[int]:
    return rng.sample(items, len(items))


def _indented(lines: str) -> str:
    return "".join(f"    {line}\n" for line in lines.splitlines())


def _compiled(lines: str) -> Step:
    """The function of (xs, t) that has these lines; they are the kit's own."""
    names: dict[str, Step] = {}
    exec(HEAD + _indented(lines) + END, names)
    return names["f"]


def _copy(at: State) -> State:
    return list(at[0]), at[1]


def _run(steps: Sequence[Step], at: State) -> State:
    xs, t = _copy(at)
    for step in steps:
        xs, t = step(xs, t)
    return xs, t


def _draw_input(rng: Random) -> State:
    return [rng.randint(-9, 12) for _ in range(rng.randint(0, 8))], rng.randint(0, 9)
