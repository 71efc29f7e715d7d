"""What must not be trained on."""

from __future__ import annotations

import re

_TEST = re.compile(r"^\s*(?:import (?:unittest|pytest)\b|from (?:unittest|pytest)\b|def test_)", re.MULTILINE)


def is_test(text: str) -> bool:
    """True for a text that holds tests."""
    return _TEST.search(text) is not None
