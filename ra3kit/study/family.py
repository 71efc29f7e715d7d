"""What a family of generated programs is, and how a name in a recipe or on a command line becomes one.

family:base                                the default family, its corpus for a base model
family:expert:n=1500:world=3               so many programs, of another world
family:my.module.MyFamily:base:depth=2     yours by import path; keys but n and seed are its own arguments
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ra3kit.errors import DataError, nearest
from ra3kit.ranges import check_number
from ra3kit.verify.problem import Problem

Split = Literal["train", "val", "test"]
SIZES = {"base": 3000, "expert": 1500, "train": 600, "val": 200, "test": 200}
"""How many programs or tasks there are of each part, unless `n` says otherwise."""
DEFAULT = "ra3kit.study.lists.ListFamily"


@dataclass(frozen=True)
class Segment:
    """The lines of one intent in a program.

    Args:
        line: its first code line, counted from 0; a comment that names it lies before.
        intent: name.
        comment: name in the comment before it, None where there is none; another intent's name in a noise comment.
        bugged: whether the lines do something else than the intent.
    """

    line: int
    intent: str
    comment: str | None = None
    bugged: bool = False


@dataclass(frozen=True)
class Program:
    """A generated program and the truth about it.

    Args:
        name: unique in its corpus.
        text: Python.
        truth: which intent begins at which line, in order.
    """

    name: str
    text: str
    truth: tuple[Segment, ...]


class Family(Protocol):
    """Generated programs of one world, with known intents. Its class is called with `world`, the seed of the world, and
    with the other keys of a name.

    Everything is a pure function of the family's arguments, the corpus or split, `seed` and the index: the first n are
    the same whatever n is. Tasks of two splits never have the same composition of intents, and no program of a corpus
    has that of a task of val or test.
    """

    def base_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        """n programs to pretrain a base model on."""

    def expert_corpus(self, n: int, seed: int = 0) -> Iterator[Program]:
        """n programs to mid-train on."""

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        """n tasks with tests and a reference solution; `meta["intents"]` names its intents in order."""


@dataclass(frozen=True)
class FamilySource:
    """What a name says: a family and which part of it.

    Args:
        family: as named.
        part: of `SIZES`, or None where the name doesn't say.
        n: how many; None for the default of the part.
        seed: of the draw.
    """

    family: Family
    part: str | None = None
    n: int | None = None
    seed: int = 0

    def programs(self) -> Iterator[Program]:
        """The programs of the part base or expert."""
        n = SIZES[self.part or "base"] if self.n is None else self.n
        return (
            self.family.expert_corpus(n, self.seed) if self.part == "expert" else self.family.base_corpus(n, self.seed)
        )

    def problems(self, split: Split) -> list[Problem]:
        """The tasks of a split."""
        return self.family.problems(split, SIZES[split] if self.n is None else self.n, self.seed)


def is_family(name: object) -> bool:
    """Whether this is the name of a family."""
    return isinstance(name, str) and (name == "family" or name.startswith("family:"))


def find_family(name: str, parts: tuple[str, ...], **given: Any) -> FamilySource:
    """The family that `family[:import.path][:part][:key=value...]` names.

    Args:
        name: as above; keys are n, seed and the arguments of the family.
        parts: what may be named here.
        given: further arguments of the family, which the name must not contradict.

    Raises:
        DataError: no such family, part or key, or a value out of its range.
    """
    path, part, keys = DEFAULT, None, dict(given)
    for piece in name.split(":")[1:]:
        key, equals, value = piece.partition("=")
        if equals:
            if key in keys:
                raise DataError(f"{name}: {key} is given twice.")
            keys[key] = _value(value)
        elif piece in parts and part is None:
            part = piece
        elif "." in piece:
            path = piece
        else:
            allowed = f"one of {', '.join(parts)}, " if parts else ""
            raise DataError(
                f"{name}: {piece!r} is none of what can stand here: {allowed}an import path, key=value."
                f"{nearest(piece, parts)}"
            )
    n, seed = keys.pop("n", None), keys.pop("seed", 0)
    check_number("n", n, least=1, whole=True, optional=True, error=DataError)
    check_number("seed", seed, whole=True, error=DataError)
    return FamilySource(_build(name, path, keys), part, n, seed)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _build(name: str, path: str, keys: Mapping[str, Any]) -> Family:
    make = _imported(name, path)
    known = [key for key in inspect.signature(make).parameters]
    for key in keys:
        if key not in known:
            allowed = ["n", "seed", *known]
            raise DataError(f"{name}: unknown key {key!r}, allowed are {', '.join(allowed)}.{nearest(key, allowed)}")
    return make(**keys)


def _imported(name: str, path: str) -> Callable[..., Family]:
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{name}: cannot import {path}: {error}. Give package.module.Class.") from error
    if not callable(found):
        raise DataError(f"{name}: {path} is no class. Give package.module.Class.")
    return found
