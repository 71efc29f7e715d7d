"""The kit's own benchmark: small problems that ship with it, for smoke tests, tiny models and offline runs.

Written for the kit; none is taken from another benchmark. The sources are `ra3kit/evaluation/problems/*.py` (its README
says how to add one). Scores on it say nothing about HumanEval or MBPP.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from copy import deepcopy
from types import ModuleType
from typing import Any

from ra3kit.evaluation.problems import easy, medium, tiny
from ra3kit.evaluation.problems.group import Group, Reference
from ra3kit.verify.problem import Calls, Limits, Problem

VERSION = 1
"""Raised whenever a statement or a test changes: scores of different versions can't be compared."""

LIMITS = Limits(time=4.0)
"""The references need less than a tenth of a second each."""

SOURCES: tuple[tuple[ModuleType, Group], ...] = ((tiny, tiny.tiny), (easy, easy.easy), (medium, medium.medium))


SPLITS = ("train", "test")
"""Every second problem is of the test split: what RLVR trains on under the name ra3kit is none of these."""


def load(split: str = "all") -> list[Problem]:
    """The problems, easiest first. Expected values come from running the references, in some tens of milliseconds.

    Args:
        split: "all", or one of `SPLITS`.

    >>> problem = load()[0]
    >>> problem.id, problem.meta["difficulty"], problem.tests.entry_point
    ('RA3/seats_left', 'tiny', 'seats_left')
    """
    problems = [problem for module, group in SOURCES for problem in _problems(module, group)]
    return problems if split == "all" else problems[SPLITS.index(split) :: 2]


def _problems(module: ModuleType, group: Group) -> Iterable[Problem]:
    source = inspect.getsource(module)
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = source.splitlines(keepends=True)
    for reference in group.references:
        prompt, body = _cut(functions[reference.function.__name__], imports, lines)
        yield Problem(
            id=f"RA3/{reference.function.__name__}",
            prompt=prompt,
            tests=_calls(reference),
            limits=LIMITS,
            solution=prompt + body,
            meta={"difficulty": group.difficulty},
        )


def _cut(function: ast.FunctionDef, imports: list[ast.ImportFrom | ast.Import], lines: list[str]) -> tuple[str, str]:
    """(imports that the function uses, signature and docstring; body)."""
    # lineno is that of `def`: the decorator, which is no part of the problem, lies above it
    start, statement, end = function.lineno - 1, function.body[0].end_lineno, function.end_lineno
    signature, body = "".join(lines[start:statement]), "".join(lines[statement:end])
    names = {node.id for node in ast.walk(ast.parse(signature + body)) if isinstance(node, ast.Name)}
    used = [ast.unparse(node) for node in imports if names & {alias.asname or alias.name for alias in node.names}]
    return "\n".join([*used, "\n\n"] if used else []) + signature, body


def _calls(reference: Reference) -> Calls:
    inputs = reference.inputs()
    return Calls(
        entry_point=reference.function.__name__,
        inputs=inputs,
        expected=[_answer(reference, arguments) for arguments in inputs],
        atol=reference.atol,
        base=len(reference.base),
    )


def _answer(reference: Reference, arguments: Any) -> Any:
    """Copied on the way in and out: a reference may change its arguments, or return a part of them."""
    return deepcopy(reference.function(*deepcopy(arguments)))
