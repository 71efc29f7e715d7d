"""Small random arguments. Short lists over few values, so that ties, repeats and empty cases come up often."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def some(rng: Random, items: Sequence[T], fewest: int = 0, most: int = 8) -> list[T]:
    """Between `fewest` and `most` items, each may come again. From a string: characters."""
    return [rng.choice(items) for _ in range(rng.randint(fewest, most))]


def text(rng: Random, alphabet: str, shortest: int = 0, longest: int = 10) -> str:
    return "".join(some(rng, alphabet, shortest, longest))


def integers(rng: Random, low: int, high: int, fewest: int = 0, most: int = 8) -> list[int]:
    """Between `fewest` and `most` integers of low..high, both included."""
    return some(rng, range(low, high + 1), fewest, most)


def distinct(rng: Random, items: Sequence[T], fewest: int = 0, most: int = 6) -> list[T]:
    """Between `fewest` and `most` different items in random order, fewer where there are no more."""
    return rng.sample(items, rng.randint(fewest, min(most, len(items))))
