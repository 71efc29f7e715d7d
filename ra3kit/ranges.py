"""One check for every numeric setting (in range, finite, whole where it counts), and one for every choice of words."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, get_args

from ra3kit.errors import RA3Error, RecipeError, nearest


def check_number(
    key: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    optional: bool = False,
    error: type[RA3Error] = RecipeError,
) -> None:
    """Refuse a setting that is no number of the range. NaN and infinity are in no range.

    Args:
        key: what the message calls it, as a recipe spells it.
        value: the setting.
        least, above: the lower end, with and without itself; most, below: the upper end.
        whole: only whole numbers.
        optional: None is allowed too.
        error: what to raise.

    Raises:
        RA3Error: of the kind `error`.

    >>> check_number("data.max_lines", 0, least=1, whole=True)
    Traceback (most recent call last):
    ra3kit.errors.RecipeError: data.max_lines=0: must be a whole number of at least 1.
    """
    if value is None and optional:
        return
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if (
        is_number
        and (isinstance(value, Integral) or math.isfinite(value))  # not every whole number has a float
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        return
    ends = {"of at least": least, "above": above, "of at most": most, "below": below}
    limits = " and ".join(f"{word} {end:,}" for word, end in ends.items() if end is not None)
    kind = "a whole number" if whole else "a finite number"
    null = ", or null" if optional else ""
    raise error(f"{key}={value!r}: must be {kind}{f' {limits}' if limits else ''}{null}.")


def check_choice(key: str, value: str, kind: object) -> None:
    """Raise RecipeError unless `value` is one of the strings of the Literal `kind`."""
    allowed = get_args(kind)
    if value not in allowed:
        raise RecipeError(
            f"{key} = {value!r} is none of {', '.join(map(repr, allowed))}.{nearest(str(value), allowed)}"
        )
