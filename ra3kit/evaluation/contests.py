"""Contest problems judged on standard input: open-r1/codeforces, CodeContests, and the JSON files of rLLM/DeepCoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ra3kit.errors import DataError
from ra3kit.evaluation.prompts import statement_docstring
from ra3kit.evaluation.records import Problems, convert, field_of, json_field, strings
from ra3kit.verify.problem import Limits, Problem, Streams

SECONDS = 10.0
"""CPU seconds of one test where the data says nothing."""
MEMORY = 1024


def codeforces(path: str | Path | None = None, time_factor: float = 1.0) -> Problems:
    """open-r1/codeforces: official tests, the generated checker where several answers are right, the problem's limits.

    Args:
        path: a file or folder of the data set, .parquet, .jsonl or .json.
        time_factor: the official time limit is multiplied by this, > 0; it was set for C++.

    Raises:
        DataError: no path, nothing usable in it, or time_factor out of range.
    """
    if not time_factor > 0:
        raise DataError(f"time_factor={time_factor}: must be above 0")
    return convert(
        _needed(path, "codeforces", "open-r1/codeforces"), lambda i, r: codeforces_problem(i, r, time_factor)
    )


def codeforces_problem(index: int, record: dict[str, Any], time_factor: float) -> Problem:
    """Raises DataError: the record is no problem that can be judged."""
    mode = field_of(record, "input_mode", default="stdio")
    if mode != "stdio":
        raise DataError(f"input_mode={mode!r}: it reads files, and only stdio is judged")
    pairs = json_field(field_of(record, "official_tests", kind=(list, str), default=[]), "official_tests")
    if not pairs:
        raise DataError("it has no official_tests")
    tests = _pairs(pairs, "official_tests")
    checker = field_of(record, "generated_checker", default=None)
    parts = [
        field_of(record, "description"),
        *(
            f"{title}\n{text}"
            for title, key in (("Input", "input_format"), ("Output", "output_format"), ("Note", "note"))
            if (text := field_of(record, key, default=None))
        ),
        *_examples(record),
    ]
    return Problem(
        id=str(field_of(record, "id")),
        tests=Streams(tests.inputs, tests.outputs, checker),
        prompt=statement_docstring("\n\n".join(parts), reads_input=True),
        limits=Limits(
            time=time_factor * float(field_of(record, "time_limit", kind=(int, float), default=SECONDS)),
            memory=int(field_of(record, "memory_limit", kind=(int, float), default=MEMORY)),
        ),
        meta={
            "form": "program",
            **{key: record[key] for key in ("rating", "contest_start", "title") if record.get(key) is not None},
            # without all of them a wrong program may pass
            "tests_complete": bool(record.get("official_tests_complete", False)),
        },
    )


def _examples(record: dict[str, Any]) -> list[str]:
    examples = field_of(record, "examples", kind=list, default=[])
    shown = _pairs(examples, "examples") if examples else Streams([], [])
    return [f"Example\n{given}\n{answer}" for given, answer in zip(shown.inputs, shown.outputs, strict=True)]


def codecontests(path: str | Path | None = None) -> Problems:
    """CodeContests: public, private and generated tests; also rLLM's and DeepCoder's JSON (`problem`, `tests`).

    Many of these problems accept several answers and the data has no checker: exact comparison under-counts there.

    Args:
        path: a file or folder, .parquet, .jsonl or .json, gzipped or not.

    Raises:
        DataError: no path, or nothing usable in it.
    """
    return convert(_needed(path, "codecontests", "deepmind/code_contests"), codecontests_problem)


def codecontests_problem(index: int, record: dict[str, Any]) -> Problem:
    """Raises DataError: the record is no problem that can be judged."""
    inputs: list[str] = []
    outputs: list[str] = []
    for key in ("public_tests", "private_tests", "generated_tests", "tests"):
        group = json_field(record.get(key), key)
        if group:
            tests = _pairs(group, key)
            inputs += tests.inputs
            outputs += tests.outputs
    if not inputs:
        raise DataError("it has no tests")
    if record.get("input_file"):
        raise DataError(f"input_file={record['input_file']!r}: it reads files, and only standard input is judged")
    return Problem(
        id=str(field_of(record, "name", "id", kind=(str, int), default=f"codecontests/{index}")),
        tests=Streams(inputs, outputs),
        prompt=statement_docstring(field_of(record, "description", "problem", "content"), reads_input=True),
        limits=Limits(time=_seconds(record), memory=_mebibytes(record)),
        meta={"form": "program", **({"difficulty": record["difficulty"]} if "difficulty" in record else {})},
    )


def _seconds(record: dict[str, Any]) -> float:
    """CodeContests' time_limit {seconds, nanos}."""
    limit = field_of(record, "time_limit", kind=(dict, int, float), default=None)
    if isinstance(limit, dict):
        limit = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    return float(limit) if limit else SECONDS


def _mebibytes(record: dict[str, Any]) -> int:
    limit = field_of(record, "memory_limit_bytes", kind=int, default=0)
    return max(1, limit // 2**20) if limit else MEMORY


def _pairs(tests: Any, name: str) -> Streams:
    """Tests from [{input, output}], {input: [], output: []} or {inputs: [], outputs: []}.

    Raises:
        DataError: another form, unequal lengths, or something that is no text.
    """
    if isinstance(tests, list):
        if not all(isinstance(test, dict) and {"input", "output"} <= set(test) for test in tests):
            raise DataError(f"{name}: a test has no input or no output")
        kinds = {str(test.get("testtype") or test.get("type") or "stdin") for test in tests}
        if not kinds <= {"stdin", "stdin_stdout"}:
            raise DataError(f"{name}: tests of the kinds {', '.join(sorted(kinds))}; only stdin is judged")
        columns = [[test[key] for test in tests] for key in ("input", "output")]
    elif isinstance(tests, dict):
        if tests.get("fn_name"):
            raise DataError(f"{name}: it calls a function ({tests['fn_name']}); only stdin is judged")
        columns = [field_of(tests, key + "s", key, kind=list) for key in ("input", "output")]
    else:
        raise DataError(f"{name} is {type(tests).__name__}, not a list or an object of lists")
    inputs, outputs = (
        strings(column, f"{name}.{key}") for column, key in zip(columns, ("input", "output"), strict=True)
    )
    if len(inputs) != len(outputs):
        raise DataError(f"{name}: {len(inputs)} inputs and {len(outputs)} outputs")
    return Streams(inputs, outputs)


def _needed(path: str | Path | None, name: str, data_set: str) -> Path:
    if path is None:
        raise DataError(
            f"benchmark {name!r} is read from a local file: download the data set {data_set} and give "
            "path=FILE_OR_FOLDER"
        )
    return Path(path).expanduser()
