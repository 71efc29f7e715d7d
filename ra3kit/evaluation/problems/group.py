"""How the problem files say what a problem is: a reference function, under a decorator that gives its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

Arguments = Sequence[Any]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reference:
    """A problem as written in its file.

    Args:
        function: the reference; its signature and docstring are the statement.
        base: arguments of the base tests, written by hand.
        draw: arguments of one more test, from the problem's own random numbers.
        count: how many are drawn; what comes again is left out.
        atol: absolute tolerance for floats; 0 for the verifier's default.
    """

    function: Callable[..., Any]
    base: Sequence[Arguments]
    draw: Callable[[Random], Arguments]
    count: int
    atol: float

    def inputs(self) -> list[Arguments]:
        """Base inputs, then drawn ones that are new: the same in every process, whatever other problems there are."""
        rng = Random(self.function.__name__)  # a string seed goes through sha512, not through hash()
        drawn = [*self.base, *(self.draw(rng) for _ in range(self.count))]
        return list({repr(arguments): deepcopy(arguments) for arguments in drawn}.values())


class Group:
    """The problems of one file, in the order written.

    Args:
        difficulty: of all of them.
    """

    def __init__(self, difficulty: str):
        self.difficulty = difficulty
        self.references: list[Reference] = []

    def problem(
        self, base: Sequence[Arguments], draw: Callable[[Random], Arguments], count: int = 40, atol: float = 0.0
    ) -> Callable[[F], F]:
        """Decorator: the function below is a reference. It comes back as it is, so that its doctests are found."""

        def add(function: F) -> F:
            self.references.append(Reference(function, base, draw, count, atol))
            return function

        return add
