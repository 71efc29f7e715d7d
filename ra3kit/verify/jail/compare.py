"""When is an answer right? Equality of exact types with evalplus's tolerances, and its special rules by name.

Runs in the referee, a confined process of its own: what it is given to compare may be hostile.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RTOL = 1e-7
FLOAT_ATOL = 1e-6
"""numpy's relative tolerance, and the absolute one evalplus gives to float answers; an answer may be off by
atol + rtol * |expected|."""


def accepts(got: Any, expected: Any, arguments: Sequence[Any], atol: float, oracle: str | None, exact: bool) -> bool:
    """Whether `got` is a right answer. TypeErrors and the like of a strange `got` come through.

    Args:
        got: the program's answer, plain values. expected: the reference's.
        arguments: of the call, before it.
        atol: absolute tolerance; 0 means FLOAT_ATOL for floats.
        oracle: a name of ORACLES, None for equality.
        exact: whether tuples and lists differ.
    """
    if oracle is not None:
        return ORACLES[oracle](got, expected, arguments, atol)
    if not exact:
        got, expected = jsonlike(got), jsonlike(expected)
    return same(got, expected, atol or FLOAT_ATOL)


def same(got: Any, expected: Any, atol: float) -> bool:
    """Equal, or equal up to floats within tolerance at the same places of the same structure."""
    if hasattr(got, "shape") or hasattr(expected, "shape"):
        return _same_arrays(got, expected, atol)
    if _equal(got, expected):
        return True
    if type(got) is not type(expected):
        return False
    if isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(same(g, e, atol) for g, e in zip(got, expected, strict=True))
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[key], e, atol) for key, e in expected.items())
    if isinstance(expected, (float, complex)):
        # an infinity is near nothing but itself, and inf <= inf would say otherwise
        return cmath.isfinite(expected) and abs(got - expected) <= atol + RTOL * abs(expected)
    return False


def _equal(got: Any, expected: Any) -> bool:
    try:
        return bool(got == expected)
    except ValueError:  # lists of arrays, whose equality is an array: to be compared one by one
        return False


def _same_arrays(got: Any, expected: Any, atol: float) -> bool:
    """numpy's scalars equal plain numbers; arrays must have the same shape, and be arrays both."""
    import numpy

    if numpy.ndim(got) == numpy.ndim(expected) == 0:
        return bool(got == expected) or (
            type(got) is type(expected) and bool(numpy.allclose(got, expected, RTOL, atol))
        )
    if type(got) is not type(expected) or got.shape != expected.shape:
        return False
    return bool(numpy.array_equal(got, expected)) or bool(numpy.allclose(got, expected, RTOL, atol))


def jsonlike(value: Any) -> Any:
    """As JSON would have kept it: tuples are lists, keys are strings."""
    if isinstance(value, (list, tuple)):
        return [jsonlike(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): jsonlike(item) for key, item in value.items()}
    return value


def _key(key: Any) -> Any:
    return str(key).lower() if isinstance(key, bool) else str(key) if isinstance(key, (int, float)) else key


def _poly_root(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool:
    (coefficients,) = arguments
    return abs(sum(c * math.pow(got, i) for i, c in enumerate(coefficients))) <= atol


def _surface_area(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool:
    base, height = arguments
    slant = math.sqrt((base / 2) ** 2 + height**2)
    return got == expected or abs(got - round(base**2 + 2 * base * slant)) <= atol


def _digit_distance(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool:
    first, second = map(str, arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return got == expected or got == sum(abs(int(a) - int(b)) for a, b in pairs)


def _not_none(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool:
    return got == expected if isinstance(got, bool) else bool(expected == (got is not None))


ORACLES: Mapping[str, Callable[[Any, Any, Sequence[Any], float], bool]] = {
    "any": lambda got, expected, arguments, atol: True,  # Mbpp/164: the reference is wrong for some inputs
    "or_zero": lambda got, expected, arguments, atol: got == expected or got == 0,  # Mbpp/295
    "set": lambda got, expected, arguments, atol: set(got) == set(expected),
    "not_none": _not_none,  # answers such as re.Match, which only count as found or not
    "poly_root": _poly_root,  # HumanEval/32: any root will do
    "surface_area": _surface_area,  # Mbpp/581: or with the height taken for the slant height
    "digit_distance": _digit_distance,  # Mbpp/558: or with the numbers aligned at their last digit
}
"""Rules of evalplus 0.3.1 for tasks where equality is not the question."""


def lines_agree(got: str, expected: str) -> bool:
    """Standard output: the same lines, spaces around them and blank ends apart; numbers may be spelled differently."""
    mine, theirs = got.strip().splitlines(), expected.strip().splitlines()
    if len(mine) != len(theirs):
        return False
    return all(a.strip() == b.strip() or _numbers_agree(a, b) for a, b in zip(mine, theirs, strict=True))


def _numbers_agree(got: str, expected: str) -> bool:
    from decimal import Decimal, InvalidOperation

    mine, theirs = got.split(), expected.split()
    if len(mine) != len(theirs):
        return False
    try:
        return all(Decimal(a) == Decimal(b) for a, b in zip(mine, theirs, strict=True))
    except InvalidOperation:  # words
        return False


def short(value: Any, limit: int = 400) -> str:
    """repr of a value for a person, cut."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4300 digits, somewhere in it
        text = f"<{type(value).__name__}: too many digits to show>"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
