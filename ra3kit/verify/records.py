"""Programs with their tests as JSON records, one a line: what `ra3kit verify` reads and writes."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ra3kit.errors import DataError, nearest
from ra3kit.verify.problem import Asserts, Calls, Limits, Problem, Streams, Tests, Verdict

FIELDS = (
    "id",
    "task_id",
    "prompt",
    "completion",
    "solution",
    "test",
    "test_list",
    "test_setup_code",
    "test_imports",
    "entry_point",
    "fn_name",
    "inputs",
    "expected",
    "outputs",
    "checker",
    "atol",
    "time_limit",
    "memory_limit",
)

DEFAULTS = Limits()
MOST_SECONDS = 3600.0
_FORMS = (
    "`test` with `entry_point` (or plain assertions, or `test_list`), `inputs` with `expected` and `entry_point`, or "
    "`inputs` with `outputs` for standard input and output"
)


class RecordError(DataError):
    """A record that isn't a program with tests. Nothing was run for it."""


@dataclass(frozen=True)
class Submission:
    """A program and how to judge it."""

    id: Any
    program: str
    problem: Problem


def parse(line: str, number: int, defaults: Limits = DEFAULTS) -> Submission:
    """A submission from a line of JSON.

    Args:
        number: of the line, from 1; the id of a record that has none.
        defaults: limits where the record gives none.

    Raises:
        RecordError: names the line, the field, what it holds and what is allowed. Its `id` attribute is the record's.
    """
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _wrong(number, number, f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _wrong(number, number, f"a JSON object is needed, this is a {type(record).__name__}")
    name = record.get("id", record.get("task_id", number))
    try:
        problem = Problem(str(name), _tests(record), _text(record, "prompt", ""), _limits(record, defaults))
        return Submission(name, _program(record), problem)
    except RecordError as error:
        raise _wrong(number, name, str(error)) from error


def _wrong(number: int, name: Any, what: str) -> RecordError:
    error = RecordError(f"line {number}: {what}")
    error.id = name  # type: ignore[attr-defined]
    return error


def _text(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if not isinstance(value, str):
        raise RecordError(f"{key!r} must be text, is {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"


def _program(record: Mapping[str, Any]) -> str:
    if record.get("solution") is not None:
        return _text(record, "solution")
    if record.get("completion") is not None:
        return _text(record, "prompt", "") + _text(record, "completion")
    hints = "".join(nearest(key, FIELDS) for key in record if key not in FIELDS)
    raise RecordError(f"no program: 'solution', or 'completion' (after 'prompt'), is needed.{hints}")


def _tests(record: Mapping[str, Any]) -> Tests:
    if record.get("test") is not None or record.get("test_list") is not None:
        return _asserts(record)
    if "inputs" not in record:
        hints = "".join(nearest(key, FIELDS) for key in record if key not in FIELDS)
        raise RecordError(f"no tests: {_FORMS}.{hints}")
    inputs = record["inputs"]
    given = [key for key in ("expected", "outputs") if record.get(key) is not None]
    if len(given) != 1:
        found = " and ".join(map(repr, given)) or "neither"
        raise RecordError(f"'inputs' need 'expected' or 'outputs', one of them; this has {found}")
    outputs = record[given[0]]
    for key, value in (("inputs", inputs), (given[0], outputs)):
        if not isinstance(value, list):
            raise RecordError(f"{key!r} must be a list, is {_shown(value)}")
    if len(inputs) != len(outputs) or not inputs:
        raise RecordError(f"{len(inputs)} 'inputs' and {len(outputs)} {given[0]!r}: as many of each, and at least one")
    entry_point = record.get("entry_point") or record.get("fn_name")
    if entry_point is not None or given == ["expected"]:
        return _calls(record, entry_point, inputs, outputs)
    for key, values in (("inputs", inputs), (given[0], outputs)):
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise RecordError(f"{key!r}[{index}] must be text without an 'entry_point', is {_shown(value)}")
    checker = _text(record, "checker") if record.get("checker") is not None else None
    return Streams(inputs, outputs, checker)


def _calls(record: Mapping[str, Any], entry_point: Any, inputs: list[Any], outputs: list[Any]) -> Calls:
    for index, arguments in enumerate(inputs):
        if not isinstance(arguments, list):
            raise RecordError(f"'inputs'[{index}] must be the list of a call's arguments, is {_shown(arguments)}")
    atol = record.get("atol", 0)
    if isinstance(atol, bool) or not isinstance(atol, (int, float)) or not 0 <= atol < float("inf"):
        raise RecordError(f"'atol' must be a number >= 0, is {_shown(atol)}")
    return Calls(_expression(entry_point), inputs, outputs, float(atol), exact=False)


def _expression(value: Any) -> str:
    if not isinstance(value, str):
        raise RecordError(f"'entry_point' must name the function to call, is {_shown(value)}")
    try:
        ast.parse(value, mode="eval")
    except (SyntaxError, ValueError) as error:
        raise RecordError(f"'entry_point' must be a name or an expression, is {value!r} ({error})") from error
    return value


def _asserts(record: Mapping[str, Any]) -> Asserts:
    lists = record.get("test_list")
    if record.get("test") is not None:
        code = _text(record, "test")
    elif isinstance(lists, list) and all(isinstance(item, str) for item in lists):
        code = "\n".join(lists)
    else:
        raise RecordError(f"'test_list' must be a list of assertions, is {_shown(lists)}")
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise RecordError(f"the tests don't parse: {error}") from error
    defines_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    if defines_check:
        return Asserts(code, _expression(record.get("entry_point")), _setup(record))
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise RecordError("the tests neither define check(candidate) nor assert anything")
    return Asserts(code, None, _setup(record))


def _setup(record: Mapping[str, Any]) -> str:
    """What tests may build on: imports, set-up code, and the prompt where it is Python (it may define helpers)."""
    imports = record.get("test_imports") or []
    if isinstance(imports, str):
        imports = [imports]
    if not isinstance(imports, list) or not all(isinstance(item, str) for item in imports):
        raise RecordError(f"'test_imports' must be a list of import lines, is {_shown(imports)}")
    pieces = [*imports, _text(record, "test_setup_code", "")]
    prompt = _text(record, "prompt", "")
    if record.get("entry_point") is not None and _is_python(prompt):
        pieces.append(prompt)
    setup = "\n".join(piece for piece in pieces if piece)
    if not _is_python(setup):
        raise RecordError("'test_setup_code' or 'test_imports' don't parse")
    return setup


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def _limits(record: Mapping[str, Any], defaults: Limits) -> Limits:
    seconds = _number(record, "time_limit", defaults.time, MOST_SECONDS, "CPU seconds")
    memory = _number(record, "memory_limit", defaults.memory, 1 << 20, "MiB")
    return Limits(seconds, defaults.call, max(1, int(memory)), defaults.output, defaults.threads)


def _number(record: Mapping[str, Any], key: str, default: float, most: float, unit: str) -> float:
    value = record.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise RecordError(f"{key!r} must be a number of {unit} above 0 and at most {most:g}, is {_shown(value)}")
    return float(value)


def to_json(name: Any, verdict: Verdict) -> str:
    """A verdict as a line of JSON."""
    record: dict[str, Any] = {
        "id": name,
        "verdict": verdict.status,
        "reason": verdict.reason,
        "passed": verdict.passed,
        "total": verdict.total,
        "failure": dict(verdict.failure),
        "seconds": round(verdict.seconds, 6),
        "isolation": verdict.isolation,
        "cached": verdict.cached,
    }
    if verdict.base is not None:
        record["base"] = verdict.base
    return json.dumps(record)
