"""What a docstring says of each argument: the `Args` and `Raises` sections, as this package and Google write them.

Beside `name: text`, an item may stand for several arguments (`slots, capacity: ...`), may hold a second one further on
(`code: ...; thought: ...`), may give a type (`lr (float, optional): ...`), and a class may leave arguments to another
(`the other arguments as in X`): they are looked up along the bases.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Raises|Returns|Yields|Attributes|Examples?|Note)s?:\s*$")
_ITEM = re.compile(r"^\*{0,2}([A-Za-z_]\w*(?:,\s*\*{0,2}[A-Za-z_]\w*)*)(?:\s*\([^)]*\))?:\s?(.*)$")
_ELSEWHERE = re.compile(r"[;,.]?\s*the other arguments(?: are)? as in `?([\w.]+)`?\.?\s*$")


@dataclass
class Docstring:
    """A docstring in parts.

    Args:
        summary: its first paragraph, in one line.
        arguments: name -> what is said of it, in one line.
        raises: (name of the exception, when), in order.
    """

    summary: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    raises: list[tuple[str, str]] = field(default_factory=list)


def parse(text: str | None, names: Collection[str] = ()) -> Docstring:
    """The parts of one docstring.

    Args:
        text: the docstring; None is an empty one.
        names: arguments there are: an item is searched for these, to find those it holds further on.

    >>> parse("Adds.\\n\\nArgs:\\n    a, b: summands; c: the\\n        carry.\\n", ["a", "b", "c"]).arguments
    {'a': 'summands', 'b': 'summands', 'c': 'the carry.'}
    """
    lines = inspect.cleandoc(text or "").split("\n")
    parsed = Docstring(summary=_first_paragraph(lines))
    for section, body in _sections(lines):
        for key, said in _items(body):
            if section == "Raises":
                parsed.raises.append((key, said))
            elif section in ("Args", "Arguments", "Parameters"):
                for name, own in _split_item(key, said, names):
                    parsed.arguments.setdefault(name, own)
    return parsed


def of(target: Callable[..., Any], names: Collection[str] = ()) -> Docstring:
    """What is said of a class or function, arguments of base classes included.

    The nearest class along the bases that describes an argument is taken, its own docstring before its `__init__`'s. A
    class named by "the other arguments as in X" that is no base is asked as well.
    """
    return _merged(target, names, set())


def _merged(target: Any, names: Collection[str], seen: set[Any]) -> Docstring:
    seen.add(target)
    whole = Docstring()
    for owner, text in _texts(target):
        own = parse(text, names)
        whole.summary = whole.summary or own.summary
        whole.raises += [pair for pair in own.raises if pair not in whole.raises]
        for name, said in own.arguments.items():
            whole.arguments.setdefault(name, _ELSEWHERE.sub("", said))
        other = _named(owner, text)
        if other is not None and other not in seen and not (inspect.isclass(target) and other in target.__mro__):
            for name, said in _merged(other, names, seen).arguments.items():
                whole.arguments.setdefault(name, said)
    return whole


def _texts(target: Any) -> Iterator[tuple[Any, str]]:
    """(owner, docstring) of a function, or of a class and its bases, the nearest first."""
    if not inspect.isclass(target):
        yield target, inspect.getdoc(target) or ""
        return
    for base in target.__mro__[:-1]:
        text = vars(base).get("__doc__") or ""
        if not text.startswith(f"{base.__name__}("):  # what a dataclass without a docstring gets
            yield base, text
        init = vars(base).get("__init__")
        if init is not None and init.__doc__ and not isinstance(init, type(object.__init__)):
            yield base, init.__doc__


def _named(owner: Any, text: str) -> Any:
    """The class that a docstring leaves its other arguments to, as its module knows it; None where it names none."""
    for line in text.split("\n"):
        if found := re.search(r"the other arguments(?: are)? as in `?([A-Za-z_]\w*)", line):
            return getattr(inspect.getmodule(owner), found.group(1), None)
    return None


def _first_paragraph(lines: list[str]) -> str:
    until = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    return " ".join(line.strip() for line in lines[:until])


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, indented lines) of each section."""
    for at, line in enumerate(lines):
        if found := _SECTION.match(line):
            body = []
            for inner in lines[at + 1 :]:
                if inner.strip() and not inner.startswith(" "):
                    break
                body.append(inner)
            yield found.group(1), inspect.cleandoc("\n".join(["", *body])).split("\n")


def _items(body: list[str]) -> Iterator[tuple[str, str]]:
    """(names, text in one line) of each item of a section; deeper lines belong to the item before them."""
    key, said = "", list[str]()
    for line in body:
        found = None if line.startswith(" ") else _ITEM.match(line)
        if found:
            if key:
                yield key, " ".join(said).strip()
            key, said = found.group(1), [found.group(2)]
        elif line.startswith(" ") or not line.strip():
            said.append(line.strip())
    if key:
        yield key, " ".join(said).strip()


def _split_item(key: str, said: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """(argument, text) of an item: of each name before the colon, and of those it goes on to."""
    if names:
        known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        further = re.compile(rf"[;.]\s+((?:{known})(?:, (?:{known}))*):\s+")
        parts = further.split(said)
    else:
        parts = [said]
    for group, text in zip([key, *parts[1::2]], parts[::2], strict=True):
        for name in group.split(","):
            yield name.strip().lstrip("*"), " ".join(text.split())
