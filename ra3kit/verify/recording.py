"""May the calls that tests make be recorded? Only if no argument depends on an earlier answer: a program is given all
recorded arguments at once, and would read its answers there."""

from __future__ import annotations

import ast

_PURE = frozenset(
    {
        "abs",
        "all",
        "any",
        "bool",
        "complex",
        "dict",
        "float",
        "frozenset",
        "int",
        "isinstance",
        "len",
        "list",
        "max",
        "min",
        "repr",
        "round",
        "set",
        "sorted",
        "str",
        "sum",
        "tuple",
        "type",
        "zip",
    }
)
_PURE_MODULES = frozenset({"math", "np", "numpy"})


def independent(code: str, entry_point: str | None, name: str) -> bool:
    """Whether every use of the tested function is a call inside an assertion whose result goes nowhere but into a
    comparison.

    Args:
        code: the tests. entry_point: of `check(candidate)`, None for plain assertions.
        name: of the function, as the record has it.
    """
    tree = ast.parse(code)
    names = {name}
    if entry_point is not None:
        checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
        if len(checks) != 1 or not checks[0].args.args:
            return False
        names.add(checks[0].args.args[0].arg)
    finder = _Uses(names)
    finder.visit(tree)
    return finder.fine


class _Uses(ast.NodeVisitor):
    def __init__(self, names: set[str]):
        self.names = names
        self.fine = True
        self.asserting = False
        self.blocked = False

    def visit_Assert(self, node: ast.Assert) -> None:
        self.asserting = True
        self.visit(node.test)
        self.asserting = False
        if node.msg is not None:
            self.visit(node.msg)

    def visit_Call(self, node: ast.Call) -> None:
        tested = isinstance(node.func, ast.Name) and node.func.id in self.names
        if tested and (not self.asserting or self.blocked):
            self.fine = False
        if not tested:
            self.visit(node.func)
        before, self.blocked = self.blocked, self.blocked or tested or not _is_pure(node.func)
        for child in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.visit(child)
        self.blocked = before

    def _binds(self, node: ast.AST) -> None:
        """What is bound to a name may come back as an argument."""
        before, self.blocked = self.blocked, True
        self.generic_visit(node)
        self.blocked = before

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_NamedExpr = visit_Lambda = _binds

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.names:  # as a value: handed on, stored, replaced
            self.fine = False


def _is_pure(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in _PURE
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id in _PURE_MODULES
    )
