"""Texts that are awkward to cut and to encode, and hypothesis strategies that make more of them."""

from __future__ import annotations

from hypothesis import strategies as st

AWKWARD = {
    "empty": "",
    "one newline": "\n",
    "only blank lines": "\n \n\t\n\r\n",
    "no final newline": "x = 1\ny = 2",
    "leading blank lines": "\n\n  \nx = 1\n",
    "blank lines": "def f(x):\n\n    return x\n\n\n\nf(1)\n",
    "blank lines with spaces": "def f(x):\n    \n    return x\n  \t \nf(1)\n",
    "tabs": "if x:\n\ty = 1\n\tif y:\n\t\tz = 2\n",
    "crlf": "def f(x):\r\n    return x\r\n\r\nf(1)\r\n",
    "carriage returns": "x = 1\ry = 2\r\rz = 3",
    "mixed line ends": "x = 1\r\ny = 2\nz = 3\r",
    "multi-line string": 'x = """one\n  # two\n\n three"""\ny = 1\n',
    "unclosed string": 'x = """one\n# two\n',
    "unclosed one-line string": "x = 'one\ny = 2  # c\n",
    "string with a hash": "x = '# no' + \"# no\"  # yes\n",
    "escaped quotes": "x = 'it\\'s # no'\ny = \"\\\\\"  # yes\n",
    "escaped line end in a string": "x = 'one\\\n# two'\ny = 1\n",
    "continuation": "x = 1 + \\\n    2\ny = 3\n",
    "continuation, crlf": "x = 1 + \\\r\n    2\r\ny = 3\r\n",
    "comment after a continuation": "x = 1 \\\n# c\ny = 2\n",
    "brackets": "x = [1,  # one\n     (2,\n\n      3)]\ny = {\n}\n",
    "unclosed bracket": "x = (1,\ndef f():\n    return 2\n",
    "closing too much": "x = 1)\ny = 2]\n",
    "very long line": "x = [" + "1234567, " * 3000 + "]\ny = 2\n",
    "non-ASCII": "größe = 'straße 日本語 🙂'  # ñandú\nΔ = 1\n",
    "combining": "x = 'e\u0301 and \u00e9'\n",
    "form feed": "x = 1\n\f\nclass A:\n    pass\n\f# c\n",
    "unicode line separators": "x = 'a\u2028b\x85c\x0b\x1cd'\ny = 1\n",
    "null": "x = '\0'\n",
    "byte-order mark": "\ufeffx = 1\n",
    "f-strings": "x = f\"{a['b']:>{w}} {{#}} {c!r}\"  # c\ny = f'''{\n1}'''\nz = rf'\\{a}'\n",
    "nested f-strings": 'x = f"{f"{a["b"]}"}"  # c\ny = f"{x:%H:%M}"\nz = 1\n',
    "decorators": "@a\n@b(\n    1)\n# c\ndef f(): pass\n",
    "two statements": "x = 1; y = 2\nif x: y\nelse: z\n",
    "shebang and encoding": "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nx = 1  # type: ignore\n",
    "only comments": "# one\n  # two\n",
    "special tokens": "x = '<|endoftext|>' + '<|begin_of_text|>'\n",
}

_PIECES = [
    *["\n", "\r\n", "\r", "\n\n", "\t", " ", "    ", "\f", "\v", "\x1c", "\x85", "\u2028", "\u00a0"],
    *["#", '"', "'", '"""', "'''", "\\", "\\\n", "(", ")", "[", "]", "{", "}", "{{", "}}", ":", "f'", 'rb"', "F'''"],
    *[
        "x",
        "x = 1",
        "def f(x):",
        "):\n",
        "return",
        "import a",
        "@d",
        "é",
        "日本",
        "🙂",
        "e\u0301",
        "...",
        ".",
        " A",
        "123",
    ],
]

texts = st.one_of(st.text(), st.lists(st.sampled_from(_PIECES), max_size=40).map("".join))
"""Any text, and texts made of the pieces that matter to a Python lexer and to a tokenizer."""

_SIMPLE = [
    "x = 1",
    "y = (1,\n  2)",
    "z = '''a\n# b\n'''",
    "w = 1 + \\\n  2",
    "pass",
    "f(x)  # c",
    "# comment",
    "'doc'",
    "a; b",
]
_HEADERS = ["if x:", "for i in (1,\n   2):", "def f(a,\n\n  b):", "@d\ndef g():", "class A:  # c", "while x: # d"]
_BETWEEN = ["", "\n", "\n\n", "   \n", "\f\n", "\t\n"]


def _block(children: list[tuple[str, list[str]]]) -> str:
    lines = []
    for header, body in children:
        indented = [line.replace("@d\ndef", "@d\n    def") for line in body]
        lines += [header, *("    " + line for line in ["pass", *indented])]
    return "\n".join(lines)


_simple = st.tuples(st.sampled_from(_SIMPLE), st.sampled_from(_BETWEEN)).map("\n".join)
_compound = st.lists(
    st.tuples(st.sampled_from(_HEADERS), st.lists(st.sampled_from(_SIMPLE), max_size=3)), min_size=1, max_size=2
).map(_block)

programs = st.lists(st.one_of(_simple, _compound), max_size=8).map("\n".join)
"""Programs that parse, with blank lines, comments, brackets, strings and continuations in many combinations."""
