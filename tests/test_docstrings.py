"""What docstrings say of arguments: the forms this package and Google write, along bases and to the class named."""

from __future__ import annotations

import importlib
import inspect

import pytest

from ra3kit import docstrings
from ra3kit.contracts import CONTRACTS, classes, members
from ra3kit.signatures import signature_of

TEXT = """Draws, in
two lines.

More about it.

Args:
    a, b: summands, on
        two lines.

        And a paragraph.
    c (int, optional): a type before it. d: further on; e, f: both.
    *rest: the others.

Returns:
    g: no argument.

Raises:
    ValueError: a is 0.
    KeyError: b is
        missing.
"""


def test_every_form_of_an_item() -> None:
    parsed = docstrings.parse(TEXT, ["a", "b", "c", "d", "e", "f", "rest"])
    assert parsed.summary == "Draws, in two lines."
    assert parsed.arguments == {
        "a": "summands, on two lines. And a paragraph.",
        "b": "summands, on two lines. And a paragraph.",
        "c": "a type before it",
        "d": "further on",
        "e": "both.",
        "f": "both.",
        "rest": "the others.",
    }
    assert parsed.raises == [("ValueError", "a is 0."), ("KeyError", "b is missing.")]


def test_a_colon_begins_no_argument_that_does_not_exist() -> None:
    text = "Says.\n\nArgs:\n    a: one of two. note: this is text; b: too.\n"
    assert docstrings.parse(text, ["a"]).arguments == {"a": "one of two. note: this is text; b: too."}


def test_nothing_is_said_by_nothing() -> None:
    assert docstrings.parse(None) == docstrings.Docstring()


class Elsewhere:
    """Not a base.

    Args:
        far: away.
    """


class Base:
    """The base.

    Args:
        near: by.
        own: of the base.

    Raises:
        KeyError: near is off.
    """


class Derived(Base):
    """The derived one.

    Args:
        own: of the derived one; the other arguments as in `Elsewhere`.
    """

    def __init__(self, own: int, near: int, far: int, init: int) -> None:
        """Make it.

        Args:
            init: said here.
        """


def test_bases_and_the_class_named_are_asked_the_nearest_first() -> None:
    said = docstrings.of(Derived, ["own", "near", "far", "init"])
    assert said.summary == "The derived one."
    assert said.arguments == {"own": "of the derived one", "init": "said here.", "near": "by.", "far": "away."}
    assert said.raises == [("KeyError", "near is off.")]


COMPONENTS = sorted({item.path for contract in CONTRACTS for item in members(contract)})


@pytest.mark.parametrize("path", COMPONENTS)
def test_every_argument_of_every_component_is_described(path: str) -> None:
    module, _, name = path.rpartition(".")
    target = getattr(importlib.import_module(module), name)
    names = signature_of(target).arguments
    said = docstrings.of(target, names)
    assert said.summary
    assert [name for name in names if not said.arguments.get(name)] == []


def test_the_classes_read_from_the_source_are_those_that_are_imported() -> None:
    for contract in CONTRACTS:
        module, _, name = contract.base.rpartition(".")
        base = getattr(importlib.import_module(module), name)
        for item in members(contract):
            where, _, short = item.path.rpartition(".")
            found = getattr(importlib.import_module(where), short)
            assert issubclass(found, base), item
            assert not inspect.isabstract(found), item
    assert len(COMPONENTS) > 15
    assert {"FixedPenalty", "EMSwitch", "PythonLines", "TrainedTokenizer"} <= {item.name for item in classes()}
