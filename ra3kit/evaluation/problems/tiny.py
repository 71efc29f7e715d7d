"""Tiny problems: one expression, said almost word by word in the statement, for very small models."""

from __future__ import annotations

from ra3kit.evaluation.problems.draw import integers, text
from ra3kit.evaluation.problems.group import Group

tiny = Group("tiny")


@tiny.problem(
    base=[(10, 4), (3, 7), (0, 0), (5, 5), (250, 1)],
    draw=lambda rng: (rng.randint(0, 300), rng.randint(0, 300)),
)
def seats_left(total: int, taken: int) -> int:
    """Return how many of the total seats are free when some are taken.

    A negative result says that more seats were sold than there are.

    >>> seats_left(10, 4)
    6
    >>> seats_left(3, 7)
    -4
    """
    return total - taken


@tiny.problem(
    base=[("robot",), ("",), ("x",), ("ab ",), ("Zoe!",)],
    draw=lambda rng: (text(rng, "abcxyzABC 01!", 0, 9),),
)
def final_letter(word: str) -> str:
    """Return the last character of word, or the empty string if word is empty.

    >>> final_letter("robot")
    't'
    >>> final_letter("")
    ''
    """
    return word[-1:]


@tiny.problem(
    base=[(4,), (0,), (-3,), (1,), (100,)],
    draw=lambda rng: (rng.randint(-500, 500),),
)
def double_plus_one(number: int) -> int:
    """Return one more than the double of number.

    >>> double_plus_one(4)
    9
    >>> double_plus_one(-3)
    -5
    """
    return 2 * number + 1


@tiny.problem(
    base=[(13,), (19,), (12,), (20,), (16,), (0,), (70,)],
    draw=lambda rng: (rng.randint(5, 30),),
    count=80,
)
def is_teen(age: int) -> bool:
    """Return True if age is from 13 to 19, both included, and False otherwise.

    >>> is_teen(13)
    True
    >>> is_teen(20)
    False
    """
    return 13 <= age <= 19


@tiny.problem(
    base=[("Ada",), ("Bo",), ("",), ("Mary Ann",)],
    draw=lambda rng: (text(rng, "abdeorstAB -", 0, 9),),
)
def greeting(name: str) -> str:
    """Return a greeting for name: Hello, a comma, a space, the name and an exclamation mark.

    >>> greeting("Ada")
    'Hello, Ada!'
    >>> greeting("Bo")
    'Hello, Bo!'
    """
    return f"Hello, {name}!"


@tiny.problem(
    base=[(1.0, 4.0), (2.5, 2.5), (-3.0, 3.0), (0.0, 7.0), (-1.5, -2.0), (10.0, 0.0)],
    draw=lambda rng: (rng.randint(-400, 400) / 4, rng.randint(-400, 400) / 4),
)
def halfway(left: float, right: float) -> float:
    """Return the number halfway between left and right.

    >>> halfway(1.0, 4.0)
    2.5
    >>> halfway(-3.0, 3.0)
    0.0
    """
    return (left + right) / 2


@tiny.problem(
    base=[("stop",), ("Go on",), ("",), ("WAIT",), ("what?!",)],
    draw=lambda rng: (text(rng, "abcdXYZ 12!?", 0, 12),),
)
def shout(message: str) -> str:
    """Return message in capital letters with one exclamation mark added at the end.

    >>> shout("stop")
    'STOP!'
    >>> shout("what?!")
    'WHAT?!!'
    """
    return message.upper() + "!"


@tiny.problem(
    base=[([5, 1, 2],), ([],), ([9],), ([-1, -2, -3, -4],), ([3, 3, 7, 3],)],
    draw=lambda rng: (integers(rng, -9, 9),),
)
def sum_without_first(numbers: list[int]) -> int:
    """Return the sum of all numbers but the first one, 0 if none are left.

    >>> sum_without_first([5, 1, 2])
    3
    >>> sum_without_first([])
    0
    """
    return sum(numbers[1:])


@tiny.problem(
    base=[(2, 15), (0, 0), (0, 59), (1, 0), (24, 90)],
    draw=lambda rng: (rng.randint(0, 30), rng.randint(0, 120)),
)
def to_minutes(hours: int, minutes: int) -> int:
    """Return how many minutes there are in the given hours and minutes together.

    >>> to_minutes(2, 15)
    135
    >>> to_minutes(1, 0)
    60
    """
    return hours * 60 + minutes


@tiny.problem(
    base=[((3, "pears"),), ((0, ""),), ((-1, "x"),), ((12, "12"),)],
    draw=lambda rng: ((rng.randint(-9, 99), text(rng, "abcde1", 0, 6)),),
)
def swapped(pair: tuple[int, str]) -> tuple[str, int]:
    """Return a tuple with the two items of pair in the opposite order.

    >>> swapped((3, "pears"))
    ('pears', 3)
    """
    return pair[1], pair[0]
