"""Every clause of a contract goes red: a component broken in one place, and the name of the clause it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ra3kit.errors import ConformanceError, RA3Error
from ra3kit.testing import Report


def assert_breaks(check: Callable[..., Report], component: Any, clause: str, **settings: Any) -> str:
    """The component breaks this clause and no earlier one; returns the message."""
    with pytest.raises(ConformanceError) as caught:
        check(component, **settings)
    message = str(caught.value)
    assert f"breaks the clause {clause!r} of its contract" in message, message
    assert "Seen: " in message
    assert "The contract is in the docstring of ra3kit." in message or "docstring of lightning." in message
    assert isinstance(caught.value, RA3Error)
    assert isinstance(caught.value, AssertionError)
    return message


def assert_all_shown(broken: Iterable[Any], *reports: Report) -> None:
    """Each clause that a sound component is checked for has a component that breaks it."""
    shown = {param.values[-1] for param in broken}
    assert shown == {clause.name for report in reports for clause in report.clauses}
