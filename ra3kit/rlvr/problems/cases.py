"""Tests in the forms that training sets have, as `Streams` or `Calls`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ra3kit.errors import DataError
from ra3kit.ranges import check_number
from ra3kit.rlvr.problems.rows import Rejected
from ra3kit.verify.problem import Calls, Streams

STDIN = {"stdin", "stdin_stdout"}
CALLS = {"functional", "function_call"}


@dataclass(frozen=True)
class Caps:
    """What is kept of one record. What goes over is counted, never dropped in silence.

    Args:
        record: bytes of a record in its file, >= 1; a longer one is rejected.
        tests: tests of a problem, >= 1; of more, so many evenly spaced ones are kept: the first are often the easiest.
        test_bytes: characters of all its tests, >= 1; the longest are left out above that.

    Raises:
        DataError: a number out of range.
    """

    record: int = 64 * 2**20
    tests: int = 200
    test_bytes: int = 8 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(f"data.caps.{name}", value, least=1, whole=True, error=DataError)


def parsed(value: Any, name: str) -> Any:
    """A field that may be text: JSON, or the `repr` of a Python literal (TACO, DeepCoder).

    Raises:
        Rejected: malformed: text that is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Rejected("malformed", f"{name} is neither JSON nor a Python literal: {value[:60]!r}") from error


def read_tests(value: Any, name: str, starter: str = "", function: str | None = None) -> Streams | Calls:
    """Tests from [{input, output, type or testtype}], {inputs, outputs, fn_name} or {input: [], output: []}.

    Args:
        name: of the field, for messages.
        starter: code the answer begins with, or a solution: where it has a class `Solution`, its method is called.
        function: name of the function, where the record has it elsewhere.

    Raises:
        Rejected: no tests, length mismatch, mixed tests, unsupported tests, malformed.
    """
    value = parsed(value, name)
    if not value:
        raise Rejected("no tests", f"{name} is {json.dumps(value)}")
    if isinstance(value, dict):
        inputs, outputs = (_column(value, key, name) for key in ("input", "output"))
        function = value.get("fn_name") or function
        calls = bool(function)
    elif isinstance(value, list):
        inputs, outputs, function, calls = _from_list(value, name, function)
    else:
        raise Rejected("malformed", f"{name} is {type(value).__name__}, not a list or an object of lists")
    if len(inputs) != len(outputs):
        raise Rejected("length mismatch", f"{name}: {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise Rejected("no tests", f"{name} has empty lists")
    if calls:
        return _calls(inputs, outputs, name, starter, function)
    texts = [
        [_text(item, f"{name}.{key}[{i}]") for i, item in enumerate(column)]
        for key, column in (("inputs", inputs), ("outputs", outputs))
    ]
    return Streams(texts[0], texts[1])


def _column(value: dict[str, Any], key: str, name: str) -> list[Any]:
    found = value.get(key + "s", value.get(key))
    if found is None:
        raise Rejected("no tests", f"{name} has no {key}s")
    if not isinstance(found, list):
        raise Rejected("malformed", f"{name}.{key}s is {type(found).__name__}, not a list")
    return found


def _from_list(value: list[Any], name: str, function: str | None) -> tuple[list[Any], list[Any], str | None, bool]:
    if not all(isinstance(test, dict) and {"input", "output"} <= set(test) for test in value):
        raise Rejected("malformed", f"{name}: a test has no input or no output")
    kinds = {str(test.get("testtype") or test.get("type") or "stdin") for test in value}
    if not kinds <= STDIN | CALLS:
        raise Rejected("unsupported tests", f"{name}: tests of the kind {', '.join(sorted(kinds - STDIN - CALLS))}")
    if kinds & STDIN and kinds & CALLS:
        raise Rejected("mixed tests", f"{name}: some tests feed standard input, others call a function")
    metadata = [test["metadata"] for test in value if isinstance(test.get("metadata"), dict)]
    names = {str(n) for n in [*(t.get("fn_name") for t in value), *(m.get("func_name") for m in metadata)] if n}
    if len(names) > 1:
        raise Rejected("mixed tests", f"{name}: tests of the functions {', '.join(sorted(names))}")
    inputs, outputs = ([test[key] for test in value] for key in ("input", "output"))
    return inputs, outputs, names.pop() if names else function, bool(kinds & CALLS)


def _text(value: Any, where: str) -> str:
    """Standard input or output; a list of lines is joined (APPS)."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise Rejected("malformed", f"{where}={repr(value)[:60]} is {type(value).__name__}, not text")
    return value


def _calls(inputs: list[Any], outputs: list[Any], name: str, starter: str, function: str | None) -> Calls:
    function = function or defined(starter)
    if function is None or not function.isidentifier():
        raise Rejected("malformed", f"{name}: its tests call a function, and its name is {function!r}")
    arguments = [_arguments(item, f"{name}.inputs[{i}]") for i, item in enumerate(inputs)]
    if all(isinstance(item, str) for item in inputs):  # LiveCodeBench: both sides are JSON as text
        expected = [parsed(item, f"{name}.outputs[{i}]") for i, item in enumerate(outputs)]
    elif all(isinstance(item, list) and len(item) == 1 for item in outputs):
        expected = [item[0] for item in outputs]  # APPS and TACO wrap a call's answer into a list of one
    else:
        expected = outputs
    in_class = re.search(r"^class Solution\b", starter, re.MULTILINE) is not None
    return Calls(f"Solution().{function}" if in_class else function, arguments, expected, exact=False)


def _arguments(value: Any, where: str) -> list[Any]:
    """A list, or JSON values one a line."""
    if isinstance(value, str):
        return [parsed(line, where) for line in value.split("\n") if line.strip()]
    if not isinstance(value, list):
        raise Rejected("malformed", f"{where} is {type(value).__name__}, not the list of a call's arguments")
    return value


def defined(starter: str) -> str | None:
    """The last function or method that the head of a program defines."""
    names = [name for name in re.findall(r"^\s*def\s+(\w+)", starter, re.MULTILINE) if not name.startswith("__")]
    return names[-1] if names else None


def capped(tests: Streams | Calls, caps: Caps) -> tuple[Streams | Calls, str]:
    """The tests within the caps, in their order, and what was left out ("" for nothing).

    Raises:
        Rejected: too large: no single test fits.
    """
    answers: Sequence[Any] = tests.outputs if isinstance(tests, Streams) else tests.expected
    count = len(tests.inputs)
    keep = list(range(count)) if count <= caps.tests else [i * count // caps.tests for i in range(caps.tests)]
    sizes = {i: _size(tests.inputs[i]) + _size(answers[i]) for i in keep}
    total = sum(sizes.values())
    for i in sorted(keep, key=lambda i: -sizes[i]):
        if total <= caps.test_bytes:
            break
        total -= sizes.pop(i)
    if not sizes:
        raise Rejected("too large", f"none of its {count} tests has {caps.test_bytes} characters or less")
    if len(sizes) == count:
        return tests, ""
    chosen = sorted(sizes)
    note = f"{len(chosen)} of {count} tests kept"
    if isinstance(tests, Streams):
        return replace(tests, inputs=[tests.inputs[i] for i in chosen], outputs=[answers[i] for i in chosen]), note
    return replace(tests, inputs=[tests.inputs[i] for i in chosen], expected=[answers[i] for i in chosen]), note


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(repr(value))
