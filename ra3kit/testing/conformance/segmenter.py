"""`check_segmenter`: are texts cut without loss, whatever they hold?"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from ra3kit.actions import Action, ActionSegmenter
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.models import CORPUS

ODD_TEXTS = (
    "x = 1",
    "\n",
    "\n\n  \n\t\n",
    "x = 1\r\ny = 2\r\n\r\n",
    "x = 1\ry = 2\r",
    "\ufeffx = 1\n",
    "if x:\n\ty = 1\n        z = 2\n",
    "x = 1\n\x0c\ny = 2\n",
    "s = 'a\x85b\u2028c'\nt = '\x00'\n",
    "é = '日本 🙂'\nprint(é)\n",
    'def f(:\n  """never closed\n  x = (1,\n',
    "x = [1,\n2,\n",
    "x = 1 + \\\n    2\n",
    "One. Two! Is it three? e.g. four\n\nFive",
    "a" * 3000 + "\n",
    "# only a comment",
    "    indented\n  less\n",
)
"""Texts that a corpus may hold: other line ends or none, form feeds, NUL, what does not parse, nothing but space."""

PYTHON_TEXTS = (
    CORPUS,
    '''def f(x):
    """One. Two:
    more. Three."""
    if x:
        return [
            1,
            2,
        ]
    return x
''',
    '''@wraps
@other(1)
def g():
    s = """a
# no comment
b"""
    return s + \\
        "c"


class A:

    x = 1
''',
    """for i in range(3):
    pass
else:
    print(i); print(i)
try:
    x = {1: (2,
 3)}
except ValueError: pass
""",
)
"""Python in which a comment line may not stand everywhere: inside brackets, strings and after a backslash."""

_COMMENT = "# a thought\n"


def check_segmenter(segmenter: ActionSegmenter, texts: Sequence[str] = (), python: bool = True) -> Report:
    """Check a segmenter on odd texts and on Python: the clauses of `ActionSegmenter`.

    Args:
        segmenter: what is checked.
        texts: more texts, of the corpus it is meant for.
        python: whether its texts are programs, in which a comment line must change nothing where a latent may stand.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(segmenter, ActionSegmenter)
    everything = [*ODD_TEXTS, *PYTHON_TEXTS, *texts]
    cuts: dict[str, list[Action]] = {}
    with check.clause("base", "it is an ActionSegmenter"):
        check.that(isinstance(segmenter, ActionSegmenter), type(segmenter).__mro__)
    with check.clause("total", "`segment` does not fail on text that is not well formed", "segment"):
        for text in everything:
            cuts[text] = segmenter.segment(text)
    with check.clause("actions", "`segment` gives a list of Action, none of them empty, may_think a bool", "segment"):
        for text, actions in cuts.items():
            check.that(isinstance(actions, list), f"{type(actions).__name__} for {_short(text)}")
            for action in actions:
                check.that(isinstance(action, Action), f"{type(action).__name__} in the actions of {_short(text)}")
                check.that(action.text != "", f"an empty action in {_short(text)}")
                check.that(isinstance(action.may_think, bool), f"may_think = {action.may_think!r} in {_short(text)}")
    with check.clause("lossless", '"".join(action.text) is the text, exactly'):
        for text, actions in cuts.items():
            joined = "".join(action.text for action in actions)
            check.that(joined == text, f"{_short(joined)} for {_short(text)}")
    with check.clause("empty", "`segment` gives [] for an empty text", "segment"):
        check.that(segmenter.segment("") == [], segmenter.segment(""))
    with check.clause("pure", "the same text is cut the same again"):
        for text in reversed(everything):
            check.that(segmenter.segment(text) == cuts[text], f"another cut of {_short(text)} the second time")
    with check.clause("strong_starts", "`strong_starts` gives a bool for each action", "strong_starts"):
        for text, actions in cuts.items():
            strong = segmenter.strong_starts(actions)
            fits = len(strong) == len(actions) and all(isinstance(flag, bool) for flag in strong)
            check.that(fits, f"{strong!r:.60} for {len(actions)} actions of {_short(text)}")
    with check.clause("begins", "a snippet may begin somewhere: a latent may stand before some action of a program"):
        for text in PYTHON_TEXTS:
            check.that(any(a.may_think for a in cuts[text]), f"may_think is False throughout {_short(text)}")
    harmless = "a comment line put before an action with may_think leaves the program as it is"
    if python:
        with check.clause("harmless", harmless):
            for text in (*PYTHON_TEXTS, *texts):
                _check_comments(check, text, cuts[text])
    else:
        check.skip("harmless", harmless, "its texts are no programs")
    return check.report()


def _check_comments(check: Checking, text: str, actions: Sequence[Action]) -> None:
    before = _program(text)
    if before is None:
        return
    for at, action in enumerate(actions):
        if action.may_think:
            joined = "".join(_COMMENT * (i == at) + a.text for i, a in enumerate(actions))
            check.that(_program(joined) == before, f"a comment before {_short(action.text)} makes another program")


def _program(text: str) -> str | None:
    """What a text means to Python; None where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return ast.dump(ast.parse(text))
        except (SyntaxError, ValueError):
            return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
