"""What a check of a component says: the clauses that hold, or the first one that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ra3kit.errors import ConformanceError

MOST_SEEN = 400
"""Characters of what was seen in a message."""


@dataclass(frozen=True)
class Clause:
    """One sentence of a contract.

    Args:
        name: short, unique in its contract.
        rule: what has to hold.
        skipped: why it could not be checked on this component; "" when it was checked and holds.
    """

    name: str
    rule: str
    skipped: str = ""


@dataclass(frozen=True)
class Report:
    """What was checked, all of which holds. Printed, it lists the clauses.

    Args:
        component: what was checked.
        contract: import path of the base class, or the name of the contract.
        clauses: in the order they were checked.
    """

    component: str
    contract: str
    clauses: tuple[Clause, ...]

    @property
    def checked(self) -> list[str]:
        """Names of the clauses that were checked and hold."""
        return [clause.name for clause in self.clauses if not clause.skipped]

    def __str__(self) -> str:
        width = max((len(clause.name) for clause in self.clauses), default=0)
        lines = [f"{self.component} keeps the contract of {self.contract}"]
        for clause in self.clauses:
            note = f"  (not checked: {clause.skipped})" if clause.skipped else ""
            lines.append(f"  {clause.name:<{width}}  {clause.rule}{note}")
        return "\n".join(lines)


class Checking:
    """A check in progress: clauses are entered one after the other, and the first broken one ends it.

    Args:
        component: what is checked; its class names it in messages.
        contract: the base class, or a name where there is none.
    """

    def __init__(self, component: Any, contract: type | str):
        named = component if hasattr(component, "__qualname__") else type(component)
        self.component = f"{named.__module__}.{named.__qualname__}"
        self.contract = contract if isinstance(contract, str) else f"{contract.__module__}.{contract.__qualname__}"
        self._clauses: list[Clause] = []
        self._place = ""

    @contextmanager
    def clause(self, name: str, rule: str, method: str = "", place: str = "") -> Iterator[None]:
        """Check one clause in the block. What the component raises there breaks the clause as well.

        Args:
            name, rule: of the clause.
            method: the method whose docstring has the clause; "" for that of the class.
            place: import path of whatever else has it in its docstring.

        Raises:
            ConformanceError: the clause is broken.
        """
        self._clauses.append(Clause(name, rule))
        self._place = place or (f"{self.contract}.{method}" if method else self.contract)
        try:
            yield
        except ConformanceError:
            raise
        except Exception as error:  # noqa: BLE001  (a component may raise anything; it is raised again as the clause's)
            self.broken(f"{type(error).__name__}: {error}", error)

    def that(self, holds: bool, seen: object) -> None:
        """Go on if it holds; else the running clause is broken, by what was `seen`."""
        if not holds:
            self.broken(str(seen))

    def broken(self, seen: str, cause: Exception | None = None) -> None:
        """The running clause is broken.

        Raises:
            ConformanceError: always.
        """
        clause = self._clauses[-1]
        seen = seen if len(seen) <= MOST_SEEN else seen[: MOST_SEEN - 3] + "..."
        raise ConformanceError(
            f"{self.component} breaks the clause {clause.name!r} of its contract: {clause.rule}. Seen: {seen}. "
            f"The contract is in the docstring of {self._place}."
        ) from cause

    def skip(self, name: str, rule: str, why: str) -> None:
        """Report a clause that cannot be checked on this component."""
        self._clauses.append(Clause(name, rule, why))

    def report(self) -> Report:
        """The clauses so far."""
        return Report(self.component, self.contract, tuple(self._clauses))
