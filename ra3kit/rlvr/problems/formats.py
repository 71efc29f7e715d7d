"""The formats of training sets, told apart by their columns: a record becomes a `Problem`, or is `Rejected`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ra3kit.errors import DataError
from ra3kit.evaluation import contests, evalplus, livecodebench
from ra3kit.evaluation.prompts import compiles, statement_docstring
from ra3kit.rlvr.problems.cases import parsed, read_tests
from ra3kit.rlvr.problems.rows import Rejected
from ra3kit.verify.problem import Calls, Limits, Problem, Streams

SECONDS = 10.0
MOST_SECONDS = 60.0
"""CPU seconds of one problem, where the data says nothing and at most."""

Record = Mapping[str, Any]
_PYTHON3 = 3  # of code_contests' enum; 1 is Python 2


@dataclass(frozen=True)
class Format:
    """A format: the columns it is known by, and its reader of (id, record)."""

    columns: frozenset[str]
    read: Callable[[str, Record], Problem]


def detect(record: Record) -> str | None:
    """The first format all of whose columns are there."""
    return next((name for name, form in FORMATS.items() if form.columns <= set(record)), None)


# ---- one reader a format --------------------------------------------------------------------------------------------


def _apps(name: str, record: Record) -> Problem:
    """APPS, TACO; AReaL has `metadata.fn_name`, and `prompt` in its training rows."""
    starter, gold = str(record.get("starter_code") or ""), _first_python(record.get("solutions"))
    metadata = parsed(record.get("metadata") or {}, "metadata")
    function = metadata.get("fn_name") if isinstance(metadata, dict) else None
    tests = read_tests(record["input_output"], "input_output", starter or gold or "", function)
    own = record.get("query_id", record.get("problem_id", record.get("id")))
    prefix = "areal/" if "query_id" in record else "apps/"
    _python_only(record.get("language"))
    return _problem(
        name if own is None else f"{prefix}{own}",
        tests,
        _statement(record, "question", "prompt"),
        starter,
        gold,
        record,
    )


def _deepcoder(name: str, record: Record) -> Problem:
    starter, gold = str(record.get("starter_code") or ""), _first_python(record.get("solutions"))
    metadata = parsed(record.get("metadata") or {}, "metadata")
    function = metadata.get("func_name") if isinstance(metadata, dict) else None
    tests = read_tests(record["tests"], "tests", starter or gold or "", function)
    return _problem(name, tests, _statement(record, "problem"), starter, gold, record)


def _synthetic1(name: str, record: Record) -> Problem:
    info = parsed(record["verification_info"], "verification_info")
    if not isinstance(info, dict):
        raise Rejected("malformed", f"verification_info is {type(info).__name__}, not an object")
    _python_only(info.get("language"))
    gold = _first_python([record.get("gold_standard_solution")])
    tests = read_tests(info.get("test_cases"), "verification_info.test_cases", gold or "")
    own = str(record.get("problem_id") or name)
    return _problem(own, tests, _statement(record, "prompt", "problem_statement"), "", gold, record)


def _nemo_gym(name: str, record: Record) -> Problem:
    """NeMo Gym's copy of TACO: the statement is the last message of the user."""
    metadata, request = record["verifier_metadata"], record["responses_create_params"]
    if not isinstance(metadata, dict) or not isinstance(request, dict):
        raise Rejected("malformed", "verifier_metadata and responses_create_params must be objects")
    tests = read_tests(metadata.get("unit_tests"), "verifier_metadata.unit_tests")
    messages = request.get("input") if isinstance(request.get("input"), list) else []
    asked = [
        m["content"] for m in messages or [] if isinstance(m, dict) and m.get("role") == "user" and m.get("content")
    ]
    if not asked or not isinstance(asked[-1], str):
        raise Rejected("no statement", "responses_create_params has no message of the user")
    return _problem(str(record.get("hash_id") or name), tests, asked[-1], "", None, record)


def _sandbox_fusion(name: str, record: Record) -> Problem:
    value = record["test"]
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        raise Rejected("unsupported tests", "test is packed as a pickle of objects, which is never opened")
    value = parsed(value, "test")
    if not isinstance(value, list) or not all(
        isinstance(t, dict) and isinstance(t.get("input"), dict) and isinstance(t.get("output"), dict) for t in value
    ):
        raise Rejected("malformed", "test is no list of {input: {stdin}, output: {stdout}}")
    if any(set(t["input"]) != {"stdin"} or set(t["output"]) != {"stdout"} for t in value):
        raise Rejected("unsupported tests", "a test has more than stdin and stdout")
    pairs = [{"input": t["input"]["stdin"], "output": t["output"]["stdout"]} for t in value]
    return _problem(name, read_tests(pairs, "test"), _statement(record, "content"), "", None, record)


def _codeforces(name: str, record: Record) -> Problem:
    if record.get("input_mode") not in (None, "stdio"):
        raise Rejected("unsupported tests", f"input_mode={record['input_mode']!r}: it reads files")
    if record.get("interaction_format"):
        raise Rejected("unsupported tests", "it is interactive")
    read_tests(record["official_tests"], "official_tests")  # its reasons
    return contests.codeforces_problem(0, dict(record), 1.0)


def _code_contests(name: str, record: Record) -> Problem:
    if record.get("input_file"):
        raise Rejected("unsupported tests", f"input_file={record['input_file']!r}: it reads files")
    groups = [parsed(record.get(key), key) for key in ("public_tests", "private_tests", "generated_tests")]
    found = [read_tests(g, "tests") for g in groups if isinstance(g, dict) and (g.get("input") or g.get("output"))]
    if not found:
        raise Rejected("no tests", "public_tests, private_tests and generated_tests are empty")
    statement = _statement(record, "description", "problem")
    solutions = record.get("solutions") or {}
    pairs = zip(solutions.get("language", ()), solutions.get("solution", ()), strict=False)
    gold = _first_python([text for language, text in pairs if language in (_PYTHON3, "PYTHON3")])
    problem = contests.codecontests_problem(0, {**record, "description": statement})
    return replace(problem, id=str(record.get("name") or name), solution=gold)


def _livecodebench(name: str, record: Record) -> Problem:
    problem = livecodebench.problem_of(0, dict(record))
    return replace(problem, id=str(record.get("question_id") or name))


def _mbpp(name: str, record: Record) -> Problem:
    if not record["test_list"]:
        raise Rejected("no tests", "test_list is empty")
    if not isinstance(record["task_id"], int):
        raise Rejected("malformed", f"task_id={record['task_id']!r} is no number")
    return evalplus.mbpp_problem(record["task_id"], dict(record))


def _humaneval(name: str, record: Record) -> Problem:
    return evalplus.humaneval_problem(0, dict(record))


def _plus(name: str, record: Record) -> Problem:
    raise Rejected("unsupported tests", "evalplus's files hold no expected answers; they are for evaluation")


def _form(read: Callable[[str, Record], Problem], *columns: str) -> Format:
    return Format(frozenset(columns), read)


FORMATS: dict[str, Format] = {
    "evalplus": _form(_plus, "base_input", "plus_input"),
    "humaneval": _form(_humaneval, "canonical_solution", "entry_point", "test"),
    "mbpp": _form(_mbpp, "task_id", "test_list", "code"),
    "livecodebench": _form(_livecodebench, "public_test_cases"),
    "codeforces": _form(_codeforces, "official_tests"),
    "code_contests": _form(_code_contests, "public_tests"),
    "synthetic1": _form(_synthetic1, "verification_info"),
    "nemo_gym": _form(_nemo_gym, "verifier_metadata", "responses_create_params"),
    "areal": _form(_apps, "input_output", "query_id"),
    "apps": _form(_apps, "input_output"),
    "sandbox_fusion": _form(_sandbox_fusion, "content", "test"),
    "deepcoder": _form(_deepcoder, "problem", "tests"),
}
"""Name -> format, in the order in which they are tried. TACO has APPS's columns and more."""


# ---- parts ----------------------------------------------------------------------------------------------------------


def _statement(record: Record, *names: str) -> str:
    found = next((record[name] for name in names if record.get(name)), None)
    if not isinstance(found, str) or not found.strip():
        raise Rejected("no statement", f"no text in {' or '.join(names)}")
    return found


def _python_only(language: Any) -> None:
    if language is not None and str(language).lower() not in ("python", "python3", "py"):
        raise Rejected("unsupported language", f"language={language!r}; only Python is judged")


def _first_python(solutions: Any) -> str | None:
    """The first solution that is Python 3 (some are Python 2), without a fence around it."""
    if isinstance(solutions, str):
        try:
            solutions = parsed(solutions, "solutions")
        except DataError:
            solutions = [solutions]  # one program, as text
    for text in solutions if isinstance(solutions, list) else []:
        if isinstance(text, str) and text.strip():
            program = re.sub(r"\A\s*```\w*\n|\n```\s*\Z", "", text).replace("\r\n", "\n")
            if compiles(program):
                return program
    return None


def _problem(
    name: str, tests: Streams | Calls, statement: str, starter: str, gold: str | None, record: Record
) -> Problem:
    function = tests.entry_point.rpartition(".")[2] if isinstance(tests, Calls) else None
    if function and starter.strip():
        form, prompt = "function", livecodebench.prompt_of(statement, starter)
    elif function:
        named = f"class `Solution` with the method `{function}`" if "." in tests.entry_point else f"`{function}`"  # type: ignore[union-attr]
        form, prompt = "module", statement_docstring(f"{statement.strip()}\n\nWrite {named}.")
    else:
        form, prompt = "program", statement_docstring(statement, reads_input=True)
    solution = f"from typing import *\n\n{gold}" if gold and function else gold
    kept = {key: record[key] for key in ("difficulty", "source", "url", "dataset") if record.get(key) is not None}
    meta = {"form": form, "entry_point": function, **({"starter_code": starter} if starter.strip() else {}), **kept}
    return Problem(name, tests, prompt, _limits(record), solution, meta)


def _limits(record: Record) -> Limits:
    """TACO writes "2.0 seconds" and "256.0 megabytes"."""
    seconds, memory = (_number(record.get(key)) for key in ("time_limit", "memory_limit"))
    return Limits(
        time=min(seconds, MOST_SECONDS) if seconds else SECONDS,
        memory=max(1, int(memory)) if memory and 1 <= memory <= 1 << 20 else Limits().memory,
    )


def _number(value: Any) -> float | None:
    found = re.match(r"\s*(\d+(?:\.\d+)?)", str(value))
    return float(found[1]) if found and float(found[1]) > 0 else None
