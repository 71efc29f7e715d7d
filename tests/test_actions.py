from __future__ import annotations

import ast

import pytest
from hypothesis import given
from samples import AWKWARD, programs, texts

from ra3kit.actions import Action, ActionSegmenter, PythonLines, PythonStatements, Sentences
from ra3kit.data.comments import parse
from ra3kit.errors import DataError

SEGMENTERS = [PythonLines(), PythonLines("own"), PythonStatements(), Sentences()]
PYTHON = SEGMENTERS[:3]


def cut(text: str, segmenter: ActionSegmenter | None = None) -> list[tuple[str, bool]]:
    return [(a.text, a.may_think) for a in (segmenter or PythonLines()).segment(text)]


def with_comments(actions: list[Action]) -> str:
    return "".join(("# thought\n" if action.may_think else "") + action.text for action in actions)


@pytest.mark.parametrize("segmenter", SEGMENTERS, ids=["attach", "own", "statements", "sentences"])
@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_joined_actions_are_the_text(text: str, segmenter: ActionSegmenter) -> None:
    actions = segmenter.segment(text)
    assert "".join(action.text for action in actions) == text
    assert all(action.text for action in actions)
    assert len(segmenter.strong_starts(actions)) == len(actions)


@given(texts)
def test_joined_actions_are_any_text(text: str) -> None:
    for segmenter in SEGMENTERS:
        actions = segmenter.segment(text)
        assert "".join(action.text for action in actions) == text
        assert all(action.text for action in actions)
        strong = segmenter.strong_starts(actions)
        assert all(action.may_think for action, start in zip(actions, strong, strict=True) if start)


@given(programs)
def test_comments_where_a_latent_may_stand_leave_the_program_as_it_is(program: str) -> None:
    tree = ast.dump(ast.parse(program))
    for segmenter in PYTHON:
        assert ast.dump(ast.parse(with_comments(segmenter.segment(program)))) == tree


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_comments_leave_awkward_programs_as_they_are(text: str) -> None:
    tree = parse(text)
    if tree is not None:
        for segmenter in PYTHON:
            assert ast.dump(ast.parse(with_comments(segmenter.segment(text)))) == ast.dump(tree)


def test_comments_leave_real_files_as_they_are(stdlib_texts: list[tuple[str, str]]) -> None:
    for name, text in stdlib_texts[:60]:
        for segmenter in PYTHON:
            changed = parse(with_comments(segmenter.segment(text)))
            assert changed is not None, name
            assert ast.dump(changed) == ast.dump(ast.parse(text)), name


def test_a_latent_may_stand_before_every_statement(stdlib_texts: list[tuple[str, str]]) -> None:
    for name, text in stdlib_texts[:60]:
        if "\r" in text:
            continue
        allowed, line = set(), 1
        for action in PythonLines("own").segment(text):
            if action.may_think:
                allowed.add(line)
            line += 1
        lines = text.split("\n")
        for node in ast.walk(ast.parse(text)):
            # statements that share a line with what is before them (`a; b`, `if x: y`) have no line of their own
            if isinstance(node, ast.stmt) and not lines[node.lineno - 1].encode()[: node.col_offset].strip():
                assert node.lineno in allowed, (name, node.lineno)


def test_blank_lines_go_with_the_line_before_them() -> None:
    assert cut("a\n\n \t\nb\n\n") == [("a\n\n \t\n", True), ("b\n\n", True)]
    assert cut("\n\na\n") == [("\n\na\n", True)]
    assert cut("a\n\nb\n", PythonLines("own")) == [("a\n", True), ("\n", True), ("b\n", True)]
    assert cut("\n \n") == [("\n \n", True)]


def test_line_ends_are_those_of_python() -> None:
    assert [t for t, _ in cut("a\r\nb\rc\nd")] == ["a\r\n", "b\r", "c\n", "d"]
    assert cut("x = 'a\u2028b\x85c\x0bd\x1ce'\n") == [("x = 'a\u2028b\x85c\x0bd\x1ce'\n", True)]
    assert cut("\f\n\fx\n") == [("\f\n\fx\n", True)]


@pytest.mark.parametrize(
    ("text", "may_think"),
    [
        ("x = 1 + \\\n  2\ny\n", [True, False, True]),
        ("x = 1 + \\\r\n  2\r\ny\r\n", [True, False, True]),
        ('x = """a\nb\n"""\ny\n', [True, False, False, True]),
        ("x = (1,\n 2,\n)\ny\n", [True, False, False, True]),
        ("x = 'a\\\nb'\ny\n", [True, False, True]),
        ("x = '(' + \"[\"\ny\n", [True, True]),
        ("x = 1  # (\ny\n", [True, True]),
        ("# a comment \\\ny\n", [True, True]),  # a backslash in a comment continues nothing
        ("x = f'{a[\"(\"]}'\ny\n", [True, True]),
        ("x = f'''{\na}'''\ny\n", [True, False, True]),
        ("x = f'{{('\ny\n", [True, True]),
        ("x = f'{a:>{w}}' + '('\ny\n", [True, True]),
        ("x = f'{a:(}'\ny\n", [True, True]),
        ("x = rf'\\{a}'\ny\n", [True, True]),
        ("x = bf'{'\ny\n", [True, True]),  # no such prefix, but the text must be got over
        ("iff'{a}'\ny\n", [True, True]),
        ("x = '''a\n", [True]),
        ("x = 'a\ny\n", [True, True]),  # a one-line string that is not closed ends with its line
        ("x = f'a{\ny = 1\nimport z\nw\n", [True, False, True, True]),
        ("x = (1,\n  2\ndef f():\n  pass\n", [True, False, True, True]),  # no statement stands in a bracket
        ("x = (yield\nfrom y)\n", [True, False]),
        (")\nx\n", [True, True]),
    ],
)
def test_may_think(text: str, may_think: list[bool]) -> None:
    assert [m for _, m in cut(text)] == may_think


def test_statements_hold_all_their_lines() -> None:
    text = (
        "import a; import b\n\n# c\n# d\n@e\n@f(\n  1)\nclass A(\n    B):\n    '''doc\n\n    more'''\n"
        "    x = [1,\n         2]\n    def m(self): return 1\nif x:\n    y\nelse:\n    z\n# last\n"
    )
    assert [t for t, m in cut(text, PythonStatements()) if m] == [
        "import a; import b\n\n",
        "# c\n# d\n@e\n@f(\n  1)\nclass A(\n    B):\n",
        "    '''doc\n\n    more'''\n",
        "    x = [1,\n         2]\n",
        "    def m(self): return 1\n",
        "if x:\n",
        "    y\n",
        "else:\n",
        "    z\n",
        "# last\n",
    ]


def test_statements_agree_with_the_syntax_tree(stdlib_texts: list[tuple[str, str]]) -> None:
    """Every statement of the tree that begins its line lies in one action, and no two of them share one."""
    for name, text in stdlib_texts[:40]:
        if "\r" in text:
            continue
        lines = text.split("\n")
        holder, line = {}, 1
        for number, action in enumerate(PythonStatements().segment(text)):
            for _ in range(action.text.count("\n") or 1):
                holder[line] = number
                line += 1
        seen = set()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.stmt) or lines[node.lineno - 1].encode()[: node.col_offset].strip():
                continue
            decorators = getattr(node, "decorator_list", [])
            first = min([node.lineno, *(d.lineno for d in decorators)])
            assert holder[first] == holder[node.lineno], (name, node.lineno)
            assert holder[node.lineno] not in seen, (name, node.lineno)
            seen.add(holder[node.lineno])


def test_sentences() -> None:
    text = 'Dr. A. Smith came, e.g. at 3.14 pm. "Really?" He said so...\nThen\nhe left!\n\n- one\n\n  two. three? Four'
    assert [t for t, _ in cut(text, Sentences())] == [
        "Dr. A. Smith came, e.g. at 3.14 pm.",
        ' "Really?"',
        " He said so...\n",
        "Then\nhe left!\n\n",
        "- one\n\n",
        "  two. three?",
        " Four",
    ]
    assert all(m for _, m in cut(text, Sentences()))


def test_snippets_best_begin_at_top_level() -> None:
    text = (
        "import a\n# about f\n# more\n@d\ndef f():\n    x\n# in column 0, inside\n    y\n"
        "if x:\n    y\nelif z:\n    y\nelse:\n    z\n"
        "try:\n    x\nexcept E:\n    y\nfinally:\n    z\nx = (1,\n2)\n# end\n"
    )
    actions = PythonLines().segment(text)
    strong = [a.text for a, s in zip(actions, PythonLines().strong_starts(actions), strict=True) if s]
    assert strong == ["import a\n", "# about f\n", "if x:\n", "try:\n", "x = (1,\n"]
    actions = PythonStatements().segment(text)
    strong = [a.text for a, s in zip(actions, PythonStatements().strong_starts(actions), strict=True) if s]
    assert strong == ["import a\n", "# about f\n# more\n@d\ndef f():\n", "if x:\n", "try:\n", "x = (1,\n2)\n"]
    actions = Sentences().segment("One. Two.\n\nThree. Four.")
    assert Sentences().strong_starts(actions) == [True, False, True, False]


def test_unknown_choice_is_refused() -> None:
    with pytest.raises(DataError, match="'attach' and 'own'"):
        PythonLines("drop")  # type: ignore[arg-type]
