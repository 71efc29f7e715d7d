"""Readers of HumanEval(+) and MBPP(+): right kinds of tests, types that JSON lost, and nothing left out in silence."""

from __future__ import annotations

import ast
import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ra3kit.errors import DataError, RecipeError
from ra3kit.evaluation import evalplus
from ra3kit.evaluation.benchmarks import BENCHMARKS, load
from ra3kit.evaluation.records import read_records
from ra3kit.verify.problem import Asserts, Calls, Problem

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def helper(x):\n    return x\n\ndef f(x):\n    '''One more.'''\n",
    "entry_point": "f",
    "canonical_solution": "    return helper(x) + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == helper(2)\n",
}
PLUS = {**HUMANEVAL, "base_input": [[1], [2]], "plus_input": [[3]], "atol": 0}
MBPP = {
    "task_id": 11,
    "text": "Write a function.",
    "code": "class Node:\r\n    pass\r\ndef f(x):\r\n    return x\r\n",
    "test_setup_code": "n = Node()",
    "test_list": ["assert f(n) is n", "assert f(2) == 2"],
    "challenge_test_list": [],
}
MBPP_PLUS = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nShared.\n"""\n',
    "entry_point": "g",
    "canonical_solution": "\ndef g(a, b):\n  return a\n",
    "base_input": [[[1, 2], [[1], "x"]]],
    "plus_input": {},
    "atol": 0,
    "assertion": "\nassert g((1, 2), [{1}, 'x']) == (1,)\n",
}


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of evalplus's is found by accident."""
    for name in ("HUMANEVAL_OVERRIDE_PATH", "MBPP_OVERRIDE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "evalplus", None)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> list[list[Problem]]:
    """Stands for running reference solutions: every call returns 42; what it was asked for."""
    asked: list[list[Problem]] = []

    def complete(problems: Sequence[Problem], failed: dict[str, str]) -> list[Problem]:
        asked.append(list(problems))
        failed |= {p.id: "it raises" for p in problems if "raise" in str(p.solution)}
        problems = [p for p in problems if p.id not in failed]
        return [replace(p, tests=replace(p.tests, expected=[42] * len(p.tests.inputs))) for p in problems]  # type: ignore[type-var, union-attr]

    module = ModuleType("ra3kit.verify.reference")
    module.complete = complete  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ra3kit.verify.reference", module)
    return asked


# ---- HumanEval ------------------------------------------------------------------------------------------------------


def test_humaneval_is_judged_by_its_own_tests_after_the_prompt(tmp_path: Path) -> None:
    [problem] = load("humaneval", {"path": write(tmp_path / "h.jsonl", [HUMANEVAL])}).problems
    assert problem.id == "HumanEval/0"
    assert replace(problem.tests, recorded=None) == Asserts(HUMANEVAL["test"], "f", setup=HUMANEVAL["prompt"])
    assert problem.prompt == HUMANEVAL["prompt"]
    namespace: dict[str, Any] = {}
    exec(str(problem.solution), namespace)
    assert namespace["f"](1) == 2


def test_plus_tests_are_calls_whose_values_come_from_the_reference(
    tmp_path: Path, reference: list[list[Problem]]
) -> None:
    path = write(tmp_path / "h.jsonl", [{**PLUS, "task_id": f"HumanEval/{i}"} for i in range(3)])
    problems = load("humaneval+", {"path": path}, limit=2).problems
    assert [p.id for p in problems] == ["HumanEval/0", "HumanEval/1"]
    assert [len(asked) for asked in reference] == [2]  # the limit comes first: no solution is run for nothing
    assert reference[0][0].tests == Calls("f", inputs=[[1], [2], [3]], expected=(), base=2)
    tests = problems[0].tests
    assert isinstance(tests, Calls)
    assert (list(tests.expected), tests.base, tests.exact) == ([42, 42, 42], 2, True)


def test_a_task_whose_reference_fails_is_named_and_left_out(tmp_path: Path, reference: list[list[Problem]]) -> None:
    bad = {**PLUS, "task_id": "HumanEval/1", "canonical_solution": "    raise ValueError\n"}
    read = load("humaneval+", {"path": write(tmp_path / "h.jsonl", [PLUS, bad])})
    assert [p.id for p in read.problems] == ["HumanEval/0"]
    assert [str(m) for m in read.malformed] == ["HumanEval/1: its reference solution fails: it raises"]
    with pytest.raises(DataError, match=r"no usable problem\. HumanEval/1: its reference"):
        load("humaneval+", {"path": write(tmp_path / "h.jsonl", [bad])})


def test_special_oracles_go_by_entry_point(tmp_path: Path, reference: list[list[Problem]]) -> None:
    names = {"find_zero": "poly_root", "f": None}
    rows = [{**PLUS, "task_id": f"HumanEval/{i}", "entry_point": name} for i, name in enumerate(names)]
    problems = load("humaneval+", {"path": write(tmp_path / "h.jsonl", rows)}).problems
    assert [p.tests.oracle for p in problems if isinstance(p.tests, Calls)] == list(names.values())
    rows = [
        {**MBPP_PLUS, "task_id": f"Mbpp/{i}", "entry_point": name, "assertion": f"assert {name}([1], [[2], 3])"}
        for i, name in enumerate(evalplus.MBPP_ORACLES)
    ]
    problems = load("mbpp+", {"path": write(tmp_path / "m.jsonl", rows)}).problems
    found = [p.tests.oracle for p in problems if isinstance(p.tests, Calls)]
    assert found == list(evalplus.MBPP_ORACLES.values())


# ---- MBPP -----------------------------------------------------------------------------------------------------------


def test_mbpp_keeps_its_split_and_builds_test_data_with_the_program(tmp_path: Path) -> None:
    rows = [{**MBPP, "task_id": i} for i in (10, 11, 510, 511)]
    path = write(tmp_path / "m.jsonl", rows)
    problems = load("mbpp", {"path": path}).problems
    assert [p.id for p in problems] == ["Mbpp/11", "Mbpp/510"]
    assert problems[0].tests == Asserts("n = Node()\nassert f(n) is n\nassert f(2) == 2\n")
    assert problems[0].prompt == '"""\nWrite a function.\nassert f(n) is n\nassert f(2) == 2\n"""\n'
    assert "\r" not in str(problems[0].solution)
    assert len(load("mbpp", {"path": path, "split": "all"}).problems) == 4
    assert [p.id for p in load("mbpp", {"path": path, "split": "validation"}).problems] == ["Mbpp/511"]
    with pytest.raises(DataError, match=r"split='tests'.*Did you mean 'test'"):
        load("mbpp", {"path": path, "split": "tests"})


def test_sanitized_mbpp_imports_before_its_tests(tmp_path: Path) -> None:
    row = {
        "task_id": 82,
        "prompt": "Volume.",
        "code": "def v(r):\n  return r",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(v(1), 1)"],
    }
    path = tmp_path / "sanitized-mbpp.json"
    path.write_text(json.dumps([row]))
    [problem] = load("mbpp", {"path": path}).problems
    assert replace(problem.tests, recorded=None) == Asserts("assert math.isclose(v(1), 1)\n", setup="import math")


# ---- types that JSON lost -------------------------------------------------------------------------------------------


def test_argument_types_are_read_off_the_assertion() -> None:
    calls = evalplus.example_calls("assert g((1, 2), [{1}, 'x'], {'a': (1,)}) == g(2)", "g")

    def restored(*arguments: Any) -> list[Any]:
        return evalplus.restore_arguments("Mbpp/0", list(arguments), calls)

    assert restored([3], [[1, 1], "y"], {"b": [2], "c": 1}) == [(3,), [{1}, "y"], {"b": (2,), "c": 1}]
    assert restored([], [], {}) == [(), [], {}]
    assert restored([[5]], [[1]], {}) == [([5],), [{1}], {}]  # nothing is known of what lies deeper than the examples
    mixed = evalplus.example_calls("assert g([1]) == g((1,))", "g")
    assert evalplus.restore_arguments("Mbpp/0", [[1]], mixed) == [[1]]
    with pytest.raises(DataError, match="types of the assertion"):
        restored([1], [[[1]], "y"], {})  # a list cannot be in a set
    with pytest.raises(DataError, match="never calls h"):
        evalplus.example_calls("assert g(1)", "h")


def test_mbpp_plus_reads_an_empty_object_as_no_inputs(tmp_path: Path, reference: list[list[Problem]]) -> None:
    [problem] = load("mbpp+", {"path": write(tmp_path / "m.jsonl", [MBPP_PLUS])}).problems
    assert isinstance(problem.tests, Calls)
    assert problem.tests.inputs == [[(1, 2), [{1}, "x"]]]
    assert problem.tests.base == 1


def _same(a: Any, b: Any) -> bool:
    """Equal with equal types throughout."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    return bool(a == b) or a != a


def test_all_mbpp_plus_inputs_have_evalplus_types(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "evalplus")
    theirs = pytest.importorskip("evalplus.data.mbpp", reason="needs evalplus, to compare with")
    problems = evalplus.mbpp_plus(shared_data / "mbpp_plus" / "MbppPlus.jsonl.gz").problems
    assert len(problems) == 378
    records, _ = read_records(shared_data / "mbpp_plus" / "MbppPlus.jsonl.gz")
    for problem, record in zip(problems, records, strict=True):
        rows = [*record.value["base_input"], *record.value["plus_input"]]
        expected = [list(row) for row in theirs.mbpp_deserialize_inputs(problem.id, rows)]
        assert isinstance(problem.tests, Calls)
        assert _same([list(row) for row in problem.tests.inputs], expected), problem.id


# ---- malformed records ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{not json", "not JSON"),
        ([1], "an object with named fields, not list"),
        ({**HUMANEVAL, "prompt": None}, "no field 'prompt'; it has canonical_solution, entry_point"),
        ({**HUMANEVAL, "entry_point": 3}, "entry_point=3 is int, not str"),
        ({**HUMANEVAL, "test": "def check(candidate:"}, "test is no Python"),
        ({**HUMANEVAL, "test": "assert f(1) == 2"}, "no check"),
        (HUMANEVAL, "'HumanEval/0' was there before"),
    ],
)
def test_a_malformed_record_is_named_and_left_out(tmp_path: Path, bad: Any, reason: str) -> None:
    read = load("humaneval", {"path": write(tmp_path / "h.jsonl", [HUMANEVAL, bad])})
    assert len(read.problems) == 1
    [malformed] = read.malformed
    assert malformed.where == "h.jsonl:2"
    assert reason in malformed.reason


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("humaneval+", {**PLUS, "plus_input": [[1], 2]}, "list of a call's arguments, not int"),
        ("humaneval+", {**PLUS, "atol": "small"}, "atol='small' is str"),
        ("mbpp", {**MBPP, "test_list": []}, "test_list is empty"),
        ("mbpp", {**MBPP, "test_list": [3]}, r"test_list\[0\]=3 is int"),
        ("mbpp+", {**MBPP_PLUS, "assertion": "assert other(1)"}, "never calls g"),
    ],
)
def test_a_file_with_nothing_usable_is_an_error(tmp_path: Path, name: str, row: Any, reason: str) -> None:
    with pytest.raises(DataError, match=f"no usable record \\(1 malformed(.|\\n)*{reason}"):
        load(name, {"path": write(tmp_path / "x.jsonl", [row])})


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(HUMANEVAL).encode() * 50)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load("humaneval", {"path": cut})
    with pytest.raises(DataError, match="no such file"):
        load("humaneval", {"path": tmp_path / "absent.jsonl"})
    with pytest.raises(DataError, match=r"ends with \.json"):
        load("humaneval", {"path": write(tmp_path / "x.csv", [HUMANEVAL])})


# ---- where files come from ------------------------------------------------------------------------------------------


def test_the_file_is_found_by_path_then_variable_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"HUMANEVAL_OVERRIDE_PATH.*HumanEval\.jsonl.*HF_HUB_OFFLINE is set"):
        load("humaneval")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    monkeypatch.setitem(sys.modules, "evalplus", None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="evalplus is not installed"):
        load("humaneval")
    folder = tmp_path / "cache" / "evalplus"
    folder.mkdir(parents=True)
    cached = write(folder / "HumanEval.jsonl", [HUMANEVAL])
    assert load("humaneval").source == str(cached)
    named = write(tmp_path / "named.jsonl", [HUMANEVAL])
    monkeypatch.setenv("HUMANEVAL_OVERRIDE_PATH", str(named))
    assert load("humaneval").source == str(named)
    given = write(tmp_path / "given.jsonl", [HUMANEVAL])
    assert load("humaneval", {"path": given}).source == str(given)


def test_the_newest_version_in_the_cache_is_taken(tmp_path: Path, reference: list[list[Problem]]) -> None:
    folder = tmp_path / "cache" / "evalplus"
    folder.mkdir(parents=True)
    for version in ("v0.1.9", "v0.1.10"):
        write(folder / f"HumanEvalPlus-{version}.jsonl", [PLUS])
    assert load("humaneval+").source.endswith("HumanEvalPlus-v0.1.10.jsonl")


def test_an_installed_evalplus_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_human_eval() -> None:
        folder = tmp_path / "cache" / "evalplus"
        folder.mkdir(parents=True)
        write(folder / "HumanEval.jsonl", [HUMANEVAL])

    def get_mbpp() -> None:
        raise OSError("no network")

    data = SimpleNamespace(get_human_eval=get_human_eval, get_mbpp=get_mbpp)
    monkeypatch.setitem(sys.modules, "evalplus", SimpleNamespace(data=data))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "evalplus.data", data)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not downloaded: HF_HUB_OFFLINE is set"):
        load("humaneval")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    assert len(load("humaneval").problems) == 1
    with pytest.raises(DataError, match="could not download it: no network"):
        load("mbpp")


def test_unknown_names_and_options_have_a_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"No benchmark 'humanevl'.*Did you mean 'humaneval'"):
        load("humanevl")
    with pytest.raises(RecipeError, match=r"spilt: benchmark 'mbpp'.*Did you mean 'split'"):
        load("mbpp", {"spilt": "test"})
    with pytest.raises(RecipeError, match="limit=0"):
        load("humaneval", {"path": write(tmp_path / "h.jsonl", [HUMANEVAL])}, limit=0)


def test_every_benchmark_has_a_reader() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert callable(benchmark.function()), name
        assert name in ("ra3kit", "family") or "path" in benchmark.options()


# ---- the real files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "file", "count"),
    [
        (evalplus.humaneval, "humaneval/HumanEval.jsonl.gz", 164),
        (evalplus.humaneval, "humaneval_plus/HumanEvalPlus.jsonl.gz", 164),
        (evalplus.humaneval_plus, "humaneval_plus/HumanEvalPlus.jsonl.gz", 164),
        (evalplus.humaneval_plus, "humaneval_plus/HumanEvalPlus-Mini.jsonl.gz", 164),
        (evalplus.mbpp, "mbpp/mbpp.jsonl", 500),
        (evalplus.mbpp, "mbpp/sanitized-mbpp.json", 257),
        (evalplus.mbpp_plus, "mbpp_plus/MbppPlus.jsonl.gz", 378),
    ],
)
def test_the_real_files_are_read_whole(shared_data: Path, read: Any, file: str, count: int) -> None:
    found = read(shared_data / file)
    assert (len(found.problems), found.malformed) == (count, [])
    for problem in found.problems:
        assert problem.meta["entry_point"]
        if problem.meta["form"] == "module":
            ast.parse(problem.prompt)  # a docstring that the task's own quotes do not end
