"""What an attack is, what stands outside the sandbox for it to reach, and how a collection of them is written down."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from ra3kit.verify.problem import Asserts, Calls, Limits, Problem, Streams

Category = Literal["forging", "exhaustion", "escape"]

LIMITS = Limits(time=1.0, memory=256, output=1 << 20, threads=8)
"""Of every attack without reason for others. The wall clock is at 5 s then."""

HIDDEN = frozenset({"secret", "earlier_secret"})
"""Fields of Canary that no program may contain."""


@dataclass(frozen=True)
class Canary:
    """Things outside the sandbox, set up by whoever runs the zoo. One that was touched was reached by an attack.

    Args:
        secret_file: a readable file that holds exactly `secret`.
        secret: a random string. It must appear nowhere else but where this list says.
        writable_dir: an existing folder anyone may write to, holding one file `bait`. Nothing in it may change.
        env_name: an environment variable of the judge's process, with the value `secret`.
        tcp_port: on which someone listens on 127.0.0.1, TCP and UDP; nobody may call.
        abstract_socket: name of a listening Unix stream socket in the abstract namespace, without the leading NUL.
        pid: of a sacrificial process that must stay alive and unstopped; its environment has `env_name` too.
        earlier_secret: a random string of 24 characters or more that stood in the source of the program judged before.
        shm_name: name of a POSIX shared memory segment that holds `secret`, without the leading slash.
    """

    secret_file: str
    secret: str
    writable_dir: str
    env_name: str
    tcp_port: int
    abstract_socket: str
    pid: int
    earlier_secret: str
    shm_name: str

    @property
    def earlier_mark(self) -> str:
        """What a search through memory looks for: the first third of `earlier_secret`."""
        return self.earlier_secret[: len(self.earlier_secret) // 3]


@dataclass(frozen=True)
class Attack:
    """A hostile program with the problem it is judged on.

    It has won if the verdict is `pass` or `internal`, if a canary was touched, if something is left behind, or if it
    ran much over its limits.

    Args:
        name: unique.
        category: forging a verdict; exhausting what it may not use; escape.
        problem: posed so that a program passes only if the attack worked.
        program: the source.
        why: one line: what it would mean if it won.
        compiles: whether the text is a Python program at all; False where compiling is the attack.
        needs: the wall without which it wins as far as is known, by its word in a verdict's `isolation`: "namespaces";
            "" for what every wall has to hold.
    """

    name: str
    category: Category
    problem: Problem
    program: str
    why: str
    compiles: bool = True
    needs: str = ""


Tests = Calls | Asserts | Streams
Source = Callable[[], str]
"""Returns a program's text, indented as it stands in its file. `CANARY.field` in it stands for the field's value."""


@dataclass(frozen=True)
class _Entry:
    name: str
    why: str
    tests: Tests | Callable[[Canary], Tests]
    limits: Limits
    compiles: bool
    needs: str
    source: Source


class Collection:
    """Attacks of one category.

    >>> doors = Collection("escape")
    >>> @doors.add("reads a file", learned)
    ... def open_file() -> str:
    ...     return '''
    ...         def attack():
    ...             return open(CANARY.secret_file).read()
    ...     '''
    """

    def __init__(self, category: Category):
        self.category = category
        self._entries: list[_Entry] = []

    def add(
        self,
        why: str,
        tests: Tests | Callable[[Canary], Tests],
        limits: Limits = LIMITS,
        compiles: bool = True,
        needs: str = "",
    ) -> Callable[[Source], Source]:
        """Decorator: the function's name is the attack's.

        Args:
            why, limits, compiles, needs: of the attack.
            tests: of its problem, or a function that makes them from the canaries.
        """

        def added(source: Source) -> Source:
            self._entries.append(_Entry(source.__name__, why, tests, limits, compiles, needs, source))
            return source

        return added

    def attacks(self, canary: Canary) -> Iterator[Attack]:
        """All, for these canaries."""
        for entry in self._entries:
            tests = entry.tests(canary) if callable(entry.tests) else entry.tests
            problem = Problem(f"{self.category}/{entry.name}", tests, limits=entry.limits)
            program = fill(textwrap.dedent(entry.source()), canary)
            yield Attack(entry.name, self.category, problem, program, entry.why, entry.compiles, entry.needs)


def fill(program: str, canary: Canary) -> str:
    """The program with `CANARY.field` replaced by the values it may know."""
    values: dict[str, Any] = {field.name: getattr(canary, field.name) for field in fields(canary)}
    values["earlier_mark"] = canary.earlier_mark
    for name in sorted(values.keys() - HIDDEN, key=len, reverse=True):
        program = program.replace(f"CANARY.{name}", repr(values[name]))
    return program


def learned(canary: Canary) -> Calls:
    """`attack()` returns the secret."""
    return Calls("attack", [[]], [canary.secret])


def learned_earlier(canary: Canary) -> Calls:
    """`attack()` returns the secret of the program before."""
    return Calls("attack", [[]], [canary.earlier_secret])


DONE = Calls("attack", [[]], [True])
"""`attack()` returns True: it did what must not be possible."""
