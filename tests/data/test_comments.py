from __future__ import annotations

import ast
import itertools

import pytest
from hypothesis import given
from samples import AWKWARD, programs, texts

from ra3kit.data.comments import comments_as_thoughts, parse, strip_comments, strip_docstrings
from ra3kit.pylex import scan


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("x = 1  # c\ny\n", "x = 1\ny\n"),
        ("x = 1\t# c", "x = 1"),
        ("# c\nx\n", "x\n"),
        ("    # c\nx\n", "x\n"),
        ("x\n# c", "x\n"),
        ("# a\n# b\n", ""),
        ("x\n\n# c\n\ny\n", "x\n\n\ny\n"),
        ("x = 1  # c\r\n# d\r\ny\r\n", "x = 1\r\ny\r\n"),
        ("x = 1 # c\r# d\ry\r", "x = 1\ry\r"),
        ("\f# c\nx\n", "x\n"),
        ("x = '# s'  # c\n", "x = '# s'\n"),
        ('x = """\n# s\n"""  # c\n', 'x = """\n# s\n"""\n'),
        ("x = f'{a}#{b}'  # c\n", "x = f'{a}#{b}'\n"),
        ("x = (1,  # c\n     # d\n     2)\n", "x = (1,\n     2)\n"),
        ("x = 1 \\\n# c\ny = 2\n", "x = 1 \\\n\ny = 2\n"),
        ("x = 1 \\\n  # c\ny = 2\n", "x = 1 \\\n\ny = 2\n"),
        ("#!/usr/bin/env python\n# -*- coding: latin-1 -*-\nx\n", "x\n"),
        ("x = f()  # type: ignore[a]\n", "x = f()\n"),
        ("def f():\n    # type: (int) -> int\n    pass  # noqa\n", "def f():\n    pass\n"),
        ("x = 'not closed  # s\n", "x = 'not closed  # s\n"),
        ("x = (1  # c\n", "x = (1\n"),
    ],
)
def test_strip_comments(text: str, stripped: str) -> None:
    assert strip_comments(text) == stripped


def test_stripping_comments_keeps_real_programs(stdlib_texts: list[tuple[str, str]]) -> None:
    gone = 0
    for name, text in stdlib_texts[:80]:
        stripped = strip_comments(text)
        assert ast.dump(ast.parse(stripped)) == ast.dump(ast.parse(text)), name
        assert scan(stripped).comments == [], name
        gone += len(text) - len(stripped)
    assert gone > 10_000


@given(programs)
def test_stripping_comments_keeps_generated_programs(program: str) -> None:
    stripped = strip_comments(program)
    assert ast.dump(ast.parse(stripped)) == ast.dump(ast.parse(program))
    assert scan(stripped).comments == []


@pytest.mark.parametrize(
    ("text", "dedented"),
    [
        ("def f():\n    # c\n    x  # d\n\t# e\r\n", "def f():\n# c\n    x  # d\n# e\r\n"),
        ("x = (1,\n     # c\n     2)\n", "x = (1,\n     # c\n     2)\n"),
        ("x = 1 \\\n  # c\ny = 2\n", "x = 1 \\\n  # c\ny = 2\n"),
        ('x = """\n  # s\n"""\n', 'x = """\n  # s\n"""\n'),
        ("\f # c\n", "# c\n"),
        ("  # a\n  # b\n\n  # c\nx\n", "# a\n\n# c\nx\n"),
    ],
)
def test_comments_as_thoughts(text: str, dedented: str) -> None:
    assert comments_as_thoughts(text) == dedented


@given(programs)
def test_comments_as_thoughts_keeps_programs_and_the_first_line_of_a_block(program: str) -> None:
    changed = comments_as_thoughts(program)
    assert ast.dump(ast.parse(changed)) == ast.dump(ast.parse(program))
    before, after = ([text[start:end] for start, end in scan(text).comments] for text in (program, changed))
    rest = iter(before)
    assert all(comment in rest for comment in after)  # in order, none new
    assert (len(after) > 0) == (len(before) > 0)
    found = scan(changed)
    own_line = [s for s, _ in found.comments if s in found.logical_starts]
    lines = [changed.count("\n", 0, start) for start in own_line]
    assert all(second - first > 1 for first, second in itertools.pairwise(lines))


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_stripping_comments_keeps_awkward_programs(text: str) -> None:
    tree = parse(text)
    stripped = parse(strip_comments(text))
    assert (tree is None) == (stripped is None)
    if tree is not None and stripped is not None:
        assert ast.dump(tree) == ast.dump(stripped)


@given(texts)
def test_stripping_never_fails_and_only_takes_away(text: str) -> None:
    stripped = strip_comments(text)
    rest = iter(text)
    assert all(ch in rest for ch in stripped)  # a subsequence
    if "#" not in text:
        assert stripped == text


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ('"""Doc."""\nx\n', "x\n"),
        ('"""Doc."""', ""),
        ('"""Doc."""; x = 1\n', "pass; x = 1\n"),
        ('def f():\n    """Doc."""\n    return 1\n', "def f():\n    return 1\n"),
        ('def f():\n    """Doc."""\n', "def f():\n    pass\n"),
        ('def f(): "doc"\n', "def f(): pass\n"),
        ('async def f():\r\n    """Doc.\r\n    more"""\r\n    return 1\r\n', "async def f():\r\n    return 1\r\n"),
        ('class A:\n    """Doc."""  # c\n    x = 1\n', "class A:\n    # c\n    x = 1\n"),
        ('class A:\n    """日本 🙂"""\n    x = "日本"\n', 'class A:\n    x = "日本"\n'),
        ('class A:\n    "é"; x = 1\n', "class A:\n    pass; x = 1\n"),
        ('x = 1\n"""not a docstring"""\n', 'x = 1\n"""not a docstring"""\n'),
        ("def f():\n    b'bytes'\n", "def f():\n    b'bytes'\n"),
        ('def f(:\n    "doc"\n', 'def f(:\n    "doc"\n'),
    ],
)
def test_strip_docstrings(text: str, stripped: str) -> None:
    assert strip_docstrings(text) == stripped


def without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return ast.dump(tree)


def test_stripping_docstrings_keeps_real_programs(stdlib_texts: list[tuple[str, str]]) -> None:
    for name, text in stdlib_texts[:60]:
        assert ast.dump(ast.parse(strip_docstrings(text))) == without_docstrings(ast.parse(text)), name


def test_parse_gives_none_for_what_python_cannot_read() -> None:
    assert parse("x = 1") is not None
    for bad in ("x = ", "x = '\0'", "(" * 100_000, "-" * 100_000 + "1", "print 'x'", "\tx\n  y\n"):
        assert parse(bad) is None
