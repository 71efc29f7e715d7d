"""A small lexer of Python that never fails: where logical lines begin, and where comments are.

The standard `tokenize` raises on text that does not parse, and mid-training corpora hold such text. This one follows
Python's rules for line ends (`\\n`, `\\r\\n`, `\\r`; nothing else), backslash continuations, brackets, comments, string
literals and, with the nesting that Python 3.12 allows, f-strings; on text that parses it agrees with `tokenize`. In
broken text an open bracket is given up at the next line that begins with a word that only a statement can begin with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_CODE = re.compile(r"\\(?:\r\n|\n|\r)|#[^\r\n]*|\r\n|\n|\r|\"\"\"|'''|[\"'()\[\]{}]")
_FIELD = re.compile(_CODE.pattern + "|:")  # inside the braces of an f-string a colon begins the format specification
_LINE_END = re.compile(r"\r\n|\n|\r")
_BODY = {  # the rest of a string that is not an f-string
    '"""': re.compile(r'(?:[^"\\]++|\\[\s\S]|"(?!""))*+'),
    "'''": re.compile(r"(?:[^'\\]++|\\[\s\S]|'(?!''))*+"),
    '"': re.compile(r'(?:[^"\\\r\n]++|\\(?:\r\n|[\s\S]))*+'),
    "'": re.compile(r"(?:[^'\\\r\n]++|\\(?:\r\n|[\s\S]))*+"),
}
_LITERAL = {  # what matters in the text of an f-string
    '"""': re.compile(r'\\(?:\r\n|[^{}])|\{\{|\}\}|\{|"""'),
    "'''": re.compile(r"\\(?:\r\n|[^{}])|\{\{|\}\}|\{|'''"),
    '"': re.compile(r'\\(?:\r\n|[^{}])|\{\{|\}\}|[{"\r\n]'),
    "'": re.compile(r"\\(?:\r\n|[^{}])|\{\{|\}\}|[{'\r\n]"),
}
_SPEC = {quote: re.compile(r"[{}]|" + (quote if len(quote) == 3 else rf"[\r\n{quote}]")) for quote in _LITERAL}
_PREFIX = re.compile(r"(?<![\w])(?i:[ft]r?|r[ft])\Z")
_STATEMENT = re.compile(
    r"[ \t\f]*(?:def|class|import|return|while|with|try|raise|del|pass|break|continue|global|nonlocal|assert|except"
    r"|finally)\b"
)


@dataclass(frozen=True)
class Scan:
    """What the lexer found, as offsets into the text.

    Args:
        line_starts: where each physical line begins; the first is 0. A final line end opens no further line.
        logical_starts: the line starts that are not inside a string or a bracket and do not follow a continuation;
            the end of the text too, when a logical line ends there.
        comments: half-open spans of the comments, line end not included, in order.
    """

    line_starts: list[int]
    logical_starts: set[int]
    comments: list[tuple[int, int]]


def scan(text: str, recover: bool = True) -> Scan:
    """Find lines, logical lines and comments. Never fails.

    Args:
        recover: give up an open bracket where only a statement can follow. False: never, so that whether a logical line
            begins somewhere depends on the text before it alone.

    >>> found = scan("x = (1,  # one\\n     2)\\ny = '#'\\n")
    >>> found.line_starts, sorted(found.logical_starts), found.comments
    ([0, 15, 23], [0, 23, 31], [(9, 14)])
    """
    starts = [0, *(m.end() for m in _LINE_END.finditer(text))]
    lexer = _Lexer(text, recover)
    lexer.run()
    return Scan([s for s in starts if s < len(text)], lexer.logical, lexer.comments)


@dataclass
class _Frame:
    """One open thing: a bracket, or an f-string in its literal text, a replacement field or a format specification."""

    kind: str  # "bracket", "literal", "field", "spec"
    quote: str = ""


@dataclass
class _Lexer:
    text: str
    recover: bool
    stack: list[_Frame] = field(default_factory=list)
    logical: set[int] = field(default_factory=lambda: {0})
    comments: list[tuple[int, int]] = field(default_factory=list)

    def run(self) -> None:
        position = 0
        while position < len(self.text):
            top = self.stack[-1] if self.stack else None
            if top is not None and top.kind == "literal":
                position = self._literal(position, top)
            elif top is not None and top.kind == "spec":
                position = self._spec(position, top)
            else:
                position = self._code(position, top)

    def _code(self, position: int, top: _Frame | None) -> int:
        """Take one token in code (top level, a bracket or a replacement field); returns where to go on."""
        pattern = _FIELD if top is not None and top.kind == "field" else _CODE
        found = pattern.search(self.text, position)
        if found is None:
            return len(self.text)
        token, end = found.group(), found.end()
        if token[0] == "#":
            self.comments.append(found.span())
        elif token[0] in "\r\n":
            self._newline(end)
        elif token[0] in "\"'":
            return self._string(found.start(), end, token)
        elif token in "([{":
            self.stack.append(_Frame("bracket"))
        elif token == ":" and top is not None:
            top.kind = "spec"
        elif token in ")]}" and top is not None and (top.kind == "bracket" or token == "}"):
            self.stack.pop()
        return end

    def _newline(self, end: int) -> None:
        if self.recover and self.stack and _STATEMENT.match(self.text, end):
            self.stack.clear()  # broken text: no bracket can hold a statement
        if not self.stack:
            self.logical.add(end)

    def _string(self, start: int, end: int, quote: str) -> int:
        if _PREFIX.search(self.text[max(0, start - 3) : start]):
            self.stack.append(_Frame("literal", quote))
            return end
        body = _BODY[quote].match(self.text, end)
        assert body is not None  # the patterns match the empty string
        if self.text.startswith(quote, body.end()):
            return body.end() + len(quote)
        return body.end() if len(quote) == 1 else len(self.text)

    def _literal(self, position: int, top: _Frame) -> int:
        found = _LITERAL[top.quote].search(self.text, position)
        if found is None:
            return len(self.text)
        if found.group() == "{":
            self.stack.append(_Frame("field", top.quote))
        elif found.group() == top.quote:
            self.stack.pop()
        elif found.group() in "\r\n":  # broken text: a one-line string that is not closed ends here
            self.stack.pop()
            return found.start()
        return found.end()

    def _spec(self, position: int, top: _Frame) -> int:
        found = _SPEC[top.quote].search(self.text, position)
        if found is None:
            return len(self.text)
        if found.group() == "{":
            self.stack.append(_Frame("field", top.quote))
        elif found.group() == "}":
            self.stack.pop()
        else:  # broken text: the string ends before its replacement field
            self._drop_string()
            return found.start() if found.group() in "\r\n" else found.end()
        return found.end()

    def _drop_string(self) -> None:
        while self.stack and self.stack.pop().kind != "literal":
            pass
