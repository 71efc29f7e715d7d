"""Hostile programs for the sandbox's test of itself, and odd honest ones that it must let through.

Run them in the sandbox only. Should its walls fail, each does only bounded harm.
"""

from __future__ import annotations

from ra3kit.verify.problem import Problem
from ra3kit.verify.zoo import honest as _honest
from ra3kit.verify.zoo.attack import Attack, Canary, Category
from ra3kit.verify.zoo.escape import ESCAPE
from ra3kit.verify.zoo.exhaustion import EXHAUSTION
from ra3kit.verify.zoo.forging import FORGING
from ra3kit.verify.zoo.insider import INSIDER_ESCAPE, INSIDER_EXHAUSTION, INSIDER_FORGING

__all__ = ["Attack", "Canary", "Category", "attacks", "honest"]

_COLLECTIONS = (FORGING, INSIDER_FORGING, EXHAUSTION, INSIDER_EXHAUSTION, ESCAPE, INSIDER_ESCAPE)


def attacks(canary: Canary) -> list[Attack]:
    """All attacks.

    Args:
        canary: what stands outside. The program before each attack must have had `earlier_secret` in its source for the
            attacks that look for it to mean anything.
    """
    return [attack for collection in _COLLECTIONS for attack in collection.attacks(canary)]


def honest() -> list[tuple[str, Problem]]:
    """Programs that must pass, with their problems."""
    return _honest.programs()
