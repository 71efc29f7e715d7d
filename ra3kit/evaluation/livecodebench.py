"""LiveCodeBench's code generation problems from a local file: its own columns, no loading script, no trusted pickle.

Private tests come as JSON or as base64(zlib(pickle(JSON string))). The pickle's one
string is read off its opcodes; nothing is unpickled, and no more than `MOST_BYTES` are unpacked.
"""

from __future__ import annotations

import ast
import base64
import binascii
import pickletools
import re
import zlib
from datetime import date
from pathlib import Path
from typing import Any

from ra3kit.errors import DataError, nearest
from ra3kit.evaluation.prompts import statement_docstring
from ra3kit.evaluation.records import Problems, convert, field_of, json_field
from ra3kit.verify.problem import Calls, Limits, Problem, Streams, Tests

SECONDS = 6.0
"""CPU seconds of one test (LiveCodeBench's default)."""
MOST_SECONDS = 120.0
"""CPU seconds of all calls of one program; LiveCodeBench has no such bound, only `SECONDS` a call."""
MEMORY = 4096
MOST_BYTES = 512 * 2**20
"""Private tests that unpack to more than this are refused."""

RELEASES = {
    "release_v1": "2024-03-31",
    "release_v2": "2024-05-31",
    "release_v3": "2024-07-31",
    "release_v4": "2024-09-30",
    "release_v5": "2025-01-31",
    "release_v6": "2025-04-30",
}
"""The last contest date in each release of code_generation_lite; all begin in May 2023."""

PREAMBLE = """\
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from sys import *
from json import *
from builtins import *
from typing import *
import bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator, random, re
import statistics, string, sys, typing
sys.setrecursionlimit(50000)
"""
"""Names that LiveCodeBench's grader gives to every program before it runs; put before the program when it is judged."""


def livecodebench(
    path: str | Path | None = None,
    version: str | None = None,
    start: str | date | None = None,
    end: str | date | None = None,
) -> Problems:
    """LiveCodeBench: public and private tests, standard input or a method of `Solution`.

    Args:
        path: test.jsonl of code_generation_lite (or several in a folder), .gz, .json or .parquet alike.
        version: "release_v1" to "release_v6": contests up to that release's last date.
        start, end: first and last contest date, YYYY-MM-DD; both included.

    Raises:
        DataError: no path, nothing usable in it, an unknown version, or a date that is none.
    """
    if path is None:
        raise DataError(
            "benchmark 'livecodebench' is read from a local file: download test*.jsonl of the data set "
            "livecodebench/code_generation_lite and give path=FILE_OR_FOLDER"
        )
    if version is not None and version not in RELEASES:
        raise DataError(f"version={version!r}: allowed are {', '.join(RELEASES)}.{nearest(str(version), RELEASES)}")
    first = _date("start", start) if start is not None else date.min
    last = _date("end", end) if end is not None else date.max
    if version is not None:
        last = min(last, _date("version", RELEASES[version]))
    if first > last:
        raise DataError(f"start={first} is after end={last} (version={version})")
    dated = version is not None or start is not None or end is not None

    def make(index: int, record: dict[str, Any]) -> Problem | None:
        when = field_of(record, "contest_date", default=None, kind=(str, date))
        if dated and when is None:
            raise DataError("no contest_date, so it is not known whether it lies in the window")
        if when is not None and dated and not first <= _date("contest_date", when) <= last:
            return None
        return problem_of(index, record)

    return convert(Path(path).expanduser(), make)


def _date(name: str, value: str | date) -> date:
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError as error:
        raise DataError(f"{name}={value!r} is no date; write YYYY-MM-DD") from error


def problem_of(index: int, record: dict[str, Any]) -> Problem:
    tests = decode_tests(field_of(record, "public_test_cases", kind=(str, list)), "public_test_cases")
    private = field_of(record, "private_test_cases", kind=(str, list), default=[])
    tests = tests + (decode_tests(private, "private_test_cases") if private else [])
    starter = field_of(record, "starter_code", default="")
    metadata = json_field(field_of(record, "metadata", kind=(str, dict), default={}) or {}, "metadata")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    judged = as_tests(tests, starter, name)
    statement = field_of(record, "question_content", "problem")
    kept = ("question_title", "problem_title", "platform", "contest_id", "contest_date", "difficulty")
    form = "program" if isinstance(judged, Streams) else "function"
    return Problem(
        id=str(field_of(record, "question_id", kind=(str, int), default=f"livecodebench/{index}")),
        tests=judged,
        prompt=prompt_of(statement, starter),
        limits=limits_of(judged),
        meta={
            "form": form,
            "entry_point": judged.entry_point if isinstance(judged, Calls) else None,
            "preamble": PREAMBLE,
            "starter_code": starter,
            **{key: str(record[key]) for key in kept if record.get(key) is not None},
        },
    )


def limits_of(tests: Tests) -> Limits:
    """LiveCodeBench's limits: `SECONDS` a test."""
    if isinstance(tests, Calls):
        return Limits(time=min(MOST_SECONDS, SECONDS * len(tests.inputs)), call=SECONDS, memory=MEMORY)
    return Limits(time=SECONDS, memory=MEMORY)


def prompt_of(statement: str, starter: str) -> str:
    """The statement as a docstring; where a method is asked for, its head follows, for the model to go on with."""
    if not starter.strip():
        return statement_docstring(statement, reads_input=True)
    # without the head's trailing spaces, which would be half a token; typing's names stand in the heads
    return f"{statement_docstring(statement)}\nfrom typing import *\n\n{starter.rstrip()}\n"


# ---- tests ----------------------------------------------------------------------------------------------------------


def decode_tests(value: Any, name: str) -> list[dict[str, Any]]:
    """Tests as a list, from a list, JSON, or base64(zlib(pickle(JSON))).

    Raises:
        DataError: none of these, or a pickle that holds anything but one string.
    """
    if isinstance(value, str):
        text = value if value.lstrip()[:1] in ("[", "{") else _unpacked(value, name)
        value = json_field(text, name)
    if not isinstance(value, list) or not all(isinstance(test, dict) for test in value):
        raise DataError(f"{name} is no list of tests")
    return value


_TEXT = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
_BESIDE = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}


def _unpacked(packed: str, name: str) -> str:
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(packed, validate=True), MOST_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise DataError(f"{name} is neither JSON nor base64(zlib(pickle(text))): {error}") from error
    if not inflate.eof:
        raise DataError(f"{name} is cut short, or unpacks to more than {MOST_BYTES} bytes")
    return text_of_pickle(raw, name)


def text_of_pickle(raw: bytes, name: str) -> str:
    """The one string that a pickle holds, read from its opcodes without an unpickler: nothing is built, nothing runs.

    Raises:
        DataError: it holds anything else, a global say, or is damaged.
    """
    found: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            if opcode.name in _TEXT:
                found.append(str(argument))
            elif opcode.name not in _BESIDE and opcode.name != "STOP":
                shown = f" {argument!r:.60}" if argument is not None else ""
                raise DataError(f"{name}: only a pickle of text is read, and this one has {opcode.name}{shown}")
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: a damaged pickle ({error})") from error
    if len(found) != 1:
        raise DataError(f"{name}: the pickle holds {len(found)} strings instead of one")
    return found[0]


def as_tests(tests: list[dict[str, Any]], starter: str, name: str | None) -> Calls | Streams:
    """Tests of one kind, checked against the head of the function that they call.

    Args:
        tests: {"input", "output", "testtype": "stdin" or "functional"}; functional input is one JSON value a line.
        starter: the head of the function or of `Solution`; "" for standard input.
        name: function, where it is known; else the one defined in `starter`.

    Raises:
        DataError: no tests, tests of two kinds, a test whose text is no JSON or whose arguments are not as many as the
            function takes, or no name for the function.
    """
    if not tests:
        raise DataError("it has no tests")
    kinds = {str(test.get("testtype")) for test in tests}
    if len(kinds) > 1 or not kinds <= {"stdin", "functional"}:
        raise DataError(f"its tests are of the kinds {', '.join(sorted(kinds))}; one of stdin or functional is right")
    for i, test in enumerate(tests):
        for key in ("input", "output"):
            if not isinstance(test.get(key), str):
                raise DataError(f"test {i}: {key} is {type(test.get(key)).__name__}, not str")
    if kinds == {"stdin"}:
        return Streams([test["input"] for test in tests], [test["output"] for test in tests])
    name = name or _defined(starter)
    if name is None:
        raise DataError("it calls a function, but neither metadata nor starter_code names one")
    inputs = [
        [json_field(line, f"test {i}: input") for line in test["input"].split("\n") if line.strip()]
        for i, test in enumerate(tests)
    ]
    takes = _parameters(starter, name)
    for i, arguments in enumerate(inputs):
        if takes is not None and len(arguments) != takes:
            raise DataError(f"test {i} has {len(arguments)} arguments, but {name} takes {takes}")
    expected = [json_field(test["output"], f"test {i}: output") for i, test in enumerate(tests)]
    in_class = re.search(r"^class Solution\b", starter, re.MULTILINE) is not None or not starter.strip()
    return Calls(f"Solution().{name}" if in_class else name, inputs, expected, exact=False)


def _head(starter: str) -> list[ast.FunctionDef]:
    """The functions of a starter code, whose body is missing."""
    try:
        tree = ast.parse(starter.rstrip() + " pass\n")
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _defined(starter: str) -> str | None:
    names = [node.name for node in _head(starter) if not node.name.startswith("__")]
    return names[-1] if names else None


def _parameters(starter: str, name: str) -> int | None:
    """How many arguments the function takes, `self` aside; None where the head does not say."""
    for node in _head(starter):
        if node.name == name and not node.args.vararg and not node.args.defaults:
            names = [argument.arg for argument in node.args.args]
            return len(names) - (names[:1] == ["self"])
    return None
