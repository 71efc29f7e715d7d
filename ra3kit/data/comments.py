"""Taking comments and docstrings out of Python text, leaving the program as it is.

A line that held only a comment disappears; a comment at the end of a line goes with the white space before it. Shebang
and encoding lines and `# type: ignore` are comments like others and go too: the text is decoded already, so an encoding
line would only be wrong. A `#` inside a string is never touched, and text that does not parse is handled by the same
lexer.
"""

from __future__ import annotations

import ast
import re
import warnings

from ra3kit.pylex import Scan, scan

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_LINE_END = re.compile(r"\r\n|\n|\r")


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None where the running Python cannot parse the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: too deeply nested
            return None


def strip_comments(text: str) -> str:
    """The text without comments.

    >>> strip_comments("#!/bin/sh\\nx = '#'  # why\\n  # alone\\ny = 1\\n")
    "x = '#'\\ny = 1\\n"
    """
    found = scan(text)
    starts, pieces, position = _LineStarts(found), [], 0
    for begin, end in found.comments:
        line = starts.before(begin)
        if text[line:begin].strip():  # code before it: the line stays, its white space goes
            begin = line + len(text[line:begin].rstrip())
        elif line in found.logical_starts or not starts.continued(text, line):
            begin, end = line, _after_line_end(text, end)
        else:  # after a backslash the line end still closes the statement
            begin = line
        pieces.append(text[position:begin])
        position = end
    return "".join([*pieces, text[position:]])


def comments_as_thoughts(text: str) -> str:
    """The text with its comments in the form thoughts have: one line at column 0. The program is the same.

    A comment that has a line to itself moves to column 0; of a block of such lines the first one stays. Comments inside
    brackets and those after code are left alone.

    >>> comments_as_thoughts("def f(x):\\n    # double it\\n    # and return\\n    return 2 * x  # done\\n")
    'def f(x):\\n# double it\\n    return 2 * x  # done\\n'
    """
    found = scan(text)
    starts, pieces, position, block_end = _LineStarts(found), [], 0, -1
    for begin, end in found.comments:
        line = starts.before(begin)
        if text[line:begin].strip() or line not in found.logical_starts:
            continue
        pieces.append(text[position:line])
        position = _after_line_end(text, end) if line == block_end else begin
        block_end = _after_line_end(text, end)
    return "".join([*pieces, text[position:]])


def strip_docstrings(text: str) -> str:
    """The text without docstrings; a body that held nothing else gets `pass`. Text that does not parse stays as it is.

    >>> strip_docstrings('def f():\\n    "doc"\\n    return 1\\n\\nclass A:\\n    "doc"\\n')
    'def f():\\n    return 1\\n\\nclass A:\\n    pass\\n'
    """
    tree = parse(text)
    if tree is None:
        return text
    starts = scan(text).line_starts
    spans = [_docstring_span(text, starts, n) for n in ast.walk(tree) if isinstance(n, _Documented) and _docstring(n)]
    pieces, position = [], 0
    for begin, end, instead in sorted(spans):
        pieces += [text[position:begin], instead]
        position = end
    return "".join([*pieces, text[position:]])


def _docstring(node: _Documented) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _docstring_span(text: str, starts: list[int], node: _Documented) -> tuple[int, int, str]:
    """(begin, end, replacement) for the docstring of a node: whole lines where it has them to itself, else `pass`."""
    statement = node.body[0]
    first, last = starts[statement.lineno - 1], starts[(statement.end_lineno or statement.lineno) - 1]
    begin = first + _characters(text, first, statement.col_offset)
    end = last + _characters(text, last, statement.end_col_offset or 0)
    line_end = _LINE_END.search(text, end)
    rest = text[end : line_end.start() if line_end else len(text)]
    alone = len(node.body) == 1 and not isinstance(node, ast.Module)
    comment = rest.lstrip().startswith("#")
    if alone or text[first:begin].strip() or (rest.strip() and not comment):
        return begin, end, "pass"
    if comment:
        return begin, end + len(rest) - len(rest.lstrip()), ""
    return first, line_end.end() if line_end else len(text), ""


def _characters(text: str, start: int, utf8_offset: int) -> int:
    """Characters of a line before an offset counted in UTF-8 bytes, as the syntax tree counts."""
    return len(text[start : start + utf8_offset].encode()[:utf8_offset].decode())


class _LineStarts:
    """Walks forward through the line starts of a text."""

    def __init__(self, found: Scan) -> None:
        self.starts, self.index = found.line_starts, 0

    def before(self, offset: int) -> int:
        """The start of the line that holds the offset; offsets must not decrease between calls."""
        while self.index + 1 < len(self.starts) and self.starts[self.index + 1] <= offset:
            self.index += 1
        return self.starts[self.index]

    def continued(self, text: str, start: int) -> bool:
        """Whether the line before this one ends in a backslash."""
        return text[:start].rstrip("\r\n").endswith("\\") if start else False


def _after_line_end(text: str, end: int) -> int:
    found = _LINE_END.match(text, end)
    return found.end() if found else end
