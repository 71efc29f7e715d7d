import json

import pytest

from ra3kit.verify.problem import Asserts, Calls, Limits, Streams, Verdict
from ra3kit.verify.records import RecordError, parse, to_json

CALLS = {"solution": "def f(x): return x", "entry_point": "f", "inputs": [[1]], "expected": [1]}


def read(record, **more):
    return parse(json.dumps({**record, **more}), 7)


def test_function_calls():
    got = read(CALLS, id="a", atol=0.5, time_limit=2, memory_limit=64)
    assert got.id == "a"
    assert got.program == CALLS["solution"]
    assert got.problem.tests == Calls("f", [[1]], [1], 0.5, exact=False)
    assert got.problem.limits == Limits(time=2.0, memory=64)


def test_outputs_with_a_function_name_are_calls_too():
    record = {"solution": "s", "fn_name": "f", "inputs": [[1], [2]], "outputs": [1, 2]}
    assert read(record).problem.tests == Calls("f", [[1], [2]], [1, 2], exact=False)


def test_standard_input_and_output():
    record = {"solution": "s", "inputs": ["1", "2"], "outputs": ["a", "b"], "checker": "print(1)"}
    assert read(record).problem.tests == Streams(["1", "2"], ["a", "b"], "print(1)")


def test_check_function_gets_the_prompts_helpers():
    record = {"prompt": "def f(x):\n    'doc'\n", "completion": "    return x", "entry_point": "f"}
    got = read(record, test="def check(candidate):\n    assert candidate(1) == 1", task_id="HumanEval/0")
    assert got.id == "HumanEval/0"
    assert got.program == "def f(x):\n    'doc'\n    return x"
    assert isinstance(got.problem.tests, Asserts)
    assert got.problem.tests.entry_point == "f"
    assert got.problem.tests.setup == record["prompt"]


def test_a_prompt_in_words_is_no_setup():
    got = read(CALLS | {"inputs": None}, prompt="Write a function f.", test="def check(c):\n    assert c(1)")
    assert got.problem.tests.setup == ""


def test_plain_assertions():
    got = read(
        {"solution": "s", "test_list": ["assert f(1) == 1", "assert f(2) == 2"], "test_setup_code": "import math"}
    )
    assert got.problem.tests == Asserts("assert f(1) == 1\nassert f(2) == 2", None, "import math")


def test_a_whole_solution_wins_over_a_completion():
    assert read(CALLS, prompt="p", completion="c").program == CALLS["solution"]


def test_a_record_without_an_id_goes_by_its_line():
    assert read(CALLS).id == 7


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"entry_point": "f", "inputs": [[1]], "expected": [1], "soluton": "x"}, "Did you mean 'solution'"),
        ({"solution": "s"}, "no tests"),
        (CALLS | {"solution": 3}, "'solution' must be text, is int 3"),
        (CALLS | {"expected": [1, 2]}, "1 'inputs' and 2 'expected'"),
        (CALLS | {"inputs": [], "expected": []}, "at least one"),
        (CALLS | {"inputs": [1]}, "'inputs'[0] must be the list"),
        (CALLS | {"inputs": "abc"}, "'inputs' must be a list"),
        (CALLS | {"outputs": [1]}, "'expected' and 'outputs'"),
        (CALLS | {"entry_point": "f("}, "'entry_point'"),
        (CALLS | {"entry_point": None}, "'entry_point'"),
        (CALLS | {"atol": -1}, "'atol'"),
        (CALLS | {"time_limit": 0}, "'time_limit'"),
        (CALLS | {"time_limit": True}, "'time_limit'"),
        (CALLS | {"memory_limit": "1g"}, "'memory_limit'"),
        ({"solution": "s", "inputs": ["1"], "outputs": [1]}, "'outputs'[0] must be text"),
        ({"solution": "s", "test": "assert ("}, "don't parse"),
        ({"solution": "s", "test": "x = 1"}, "neither define check"),
        ({"solution": "s", "test": "def check(c): pass"}, "'entry_point'"),
        ({"solution": "s", "test_list": [1]}, "'test_list'"),
        ({"solution": "s", "test": "assert f()", "test_setup_code": "import ("}, "don't parse"),
    ],
)
def test_bad_records_are_named(record, says):
    with pytest.raises(RecordError) as caught:
        read(record, id="mine")
    assert str(caught.value).startswith("line 7: ")
    assert says in str(caught.value)
    assert caught.value.id == "mine"


@pytest.mark.parametrize("line", ["{", "[1]", "3", '{"a": }', "[" * 100_000])
def test_lines_that_are_no_objects(line):
    with pytest.raises(RecordError, match="line 2: "):
        parse(line, 2)


def test_a_verdict_as_json():
    verdict = Verdict("fail", "why", 1, 2, "pass", {"got": "3"}, 0.25, "landlock", False)
    assert json.loads(to_json("a", verdict)) == {
        "id": "a",
        "verdict": "fail",
        "reason": "why",
        "passed": 1,
        "total": 2,
        "failure": {"got": "3"},
        "seconds": 0.25,
        "isolation": "landlock",
        "cached": False,
        "base": "pass",
    }
    assert "base" not in json.loads(to_json("a", Verdict("pass")))
