"""LiveCodeBench's file: private tests without unpickling, date windows, function heads, and its two kinds of tests."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from ra3kit.errors import DataError
from ra3kit.evaluation import livecodebench as lcb
from ra3kit.evaluation.livecodebench import decode_tests, livecodebench
from ra3kit.evaluation.prompts import with_preamble
from ra3kit.verify.problem import Calls, Streams

STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
HEAD = "class Solution:\n    def addAll(self, xs: List[int], k: int) -> int:\n        "
FUNCTIONAL = [{"input": "[1, 2]\n3", "output": "[true, 6]", "testtype": "functional"}]


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def record(**fields: Any) -> dict[str, Any]:
    return {
        "question_title": "Add",
        "question_content": "Add $a \\le b$.",
        "platform": "atcoder",
        "question_id": "abc1_a",
        "contest_id": "abc1",
        "contest_date": "2024-06-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(STDIN),
        "private_test_cases": packed(json.dumps(STDIN * 2)),
        "metadata": "{}",
        **fields,
    }


def read(tmp_path: Path, *records: dict[str, Any], **options: Any) -> Any:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in records))
    return livecodebench(path, **options)


def test_public_and_private_tests_of_standard_input(tmp_path: Path) -> None:
    [problem] = read(tmp_path, record()).problems
    assert problem.id == "abc1_a"
    assert problem.tests == Streams(["1 2\n"] * 3, ["3\n"] * 3)
    assert problem.limits.time == lcb.SECONDS
    assert problem.meta["difficulty"] == "easy"
    assert problem.meta["form"] == "program"
    assert problem.prompt.startswith('r"""\nAdd $a \\le b$.')


def test_functional_tests_call_a_method_of_solution(tmp_path: Path) -> None:
    row = record(
        starter_code=HEAD,
        public_test_cases=json.dumps(FUNCTIONAL),
        private_test_cases=json.dumps(FUNCTIONAL),  # plain JSON is read as well
        metadata=json.dumps({"func_name": "addAll"}),
    )
    [problem] = read(tmp_path, row).problems
    tests = problem.tests
    assert tests == Calls("Solution().addAll", [[[1, 2], 3]] * 2, [[True, 6]] * 2, exact=False)
    assert (problem.limits.call, problem.limits.time) == (lcb.SECONDS, 2 * lcb.SECONDS)
    program = problem.prompt + "        return [True, sum(xs) + k]\n"
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    assert namespace["Solution"]().addAll([1, 2], 3) == [True, 6]


def test_the_function_is_found_in_the_head_when_metadata_is_silent(tmp_path: Path) -> None:
    functional = {"public_test_cases": json.dumps(FUNCTIONAL), "private_test_cases": "[]", "metadata": "{}"}
    [in_class] = read(tmp_path, record(starter_code=HEAD, **functional)).problems
    assert in_class.tests.entry_point == "Solution().addAll"
    [plain] = read(tmp_path, record(starter_code="def add(xs, k):\n    ", **functional)).problems
    assert plain.tests.entry_point == "add"
    with pytest.raises(DataError, match="neither metadata nor starter_code names one"):
        read(tmp_path, record(**functional))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/never",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_text_of_any_protocol_is_read(protocol: int) -> None:
    text = json.dumps(STDIN) + " " * 300
    raw = pickle.dumps(text, protocol)
    assert decode_tests(base64.b64encode(zlib.compress(raw)).decode(), "x") == STDIN


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Evil(), "only a pickle of text"),
        ({"input_output": "x"}, "EMPTY_DICT"),
        (["x"], "only a pickle of text"),
        (("a", "b"), "only a pickle of text"),
        (3, "only a pickle of text"),
        (b"x", "only a pickle of text"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_and_nothing_runs(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_tests(packed(value), "private_test_cases")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x04\x8c\x01a\x8c\x01b.", "2 strings"),
        (b"\x80\x04.", "0 strings"),
        (b"\x80\x04\x8c\x05a", "damaged"),
        (b"\x80\x04X\xff\xff\xff\x7fa.", "damaged"),
        (b"\xff", "damaged"),
        (b"", "damaged"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x93.", "STACK_GLOBAL"),
        (b"\x80\x04\x8c\x02[]r\xff\xff\xff\xff.", None),  # the memo's index allocates nothing here
    ],
)
def test_damaged_pickles(raw: bytes, message: str | None) -> None:
    text = base64.b64encode(zlib.compress(raw)).decode()
    if message is None:
        assert decode_tests(text, "x") == []
        return
    with pytest.raises(DataError, match=message):
        decode_tests(text, "x")


def test_what_is_not_packed_right_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = packed(json.dumps(STDIN))
    for bad in ("not base64!", base64.b64encode(b"not zlib").decode(), "é"):
        with pytest.raises(DataError, match="neither JSON nor base64"):
            decode_tests(bad, "x")
    cut = base64.b64encode(base64.b64decode(good)[:-6]).decode()
    with pytest.raises(DataError, match="cut short"):
        decode_tests(cut, "x")
    monkeypatch.setattr(lcb, "MOST_BYTES", 1000)
    assert decode_tests(good, "x") == STDIN
    with pytest.raises(DataError, match="more than 1000 bytes"):
        decode_tests(packed("[" + " " * 2000 + "]"), "x")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "no tests"),
        ({"private_test_cases": json.dumps(FUNCTIONAL)}, "of the kinds functional, stdin"),
        ({"private_test_cases": '[{"input": "1", "output": 2, "testtype": "stdin"}]'}, "output is int"),
        ({"private_test_cases": '[{"input": "1", "output": "2"}]'}, "of the kinds None, stdin"),
        ({"private_test_cases": "[1]"}, "no list of tests"),
        ({"question_content": None}, "no field 'question_content' or 'problem'"),
        ({"metadata": "{"}, "metadata is no JSON"),
    ],
)
def test_malformed_records_are_named(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    found = read(tmp_path, record(), record(question_id="bad", **fields))
    assert [problem.id for problem in found.problems] == ["abc1_a"]
    [malformed] = found.malformed
    assert malformed.where == "test.jsonl:2"
    assert reason in malformed.reason


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"input": '"7"', "output": "1"}, "test 1 has 1 arguments, but addAll takes 2"),
        ({"input": "[1]\nx", "output": "1"}, "test 1: input is no JSON"),
        ({"input": "[1]\n2", "output": "yes"}, "test 1: output is no JSON"),
    ],
)
def test_functional_tests_are_checked_against_the_head(tmp_path: Path, test: dict[str, str], reason: str) -> None:
    tests = [*FUNCTIONAL, {**test, "testtype": "functional"}]
    row = record(
        question_id="bad", starter_code=HEAD, public_test_cases=json.dumps(tests), private_test_cases=json.dumps([])
    )
    [malformed] = read(tmp_path, record(), row).malformed
    assert reason in malformed.reason


def test_windows_of_dates_and_releases(tmp_path: Path) -> None:
    dates = ["2023-05-07", "2024-03-31", "2024-04-01", "2024-07-30T00:00:00", "2025-03-01"]
    rows = [record(question_id=str(i), contest_date=when) for i, when in enumerate(dates)]

    def ids(**options: Any) -> list[str]:
        return [problem.id for problem in read(tmp_path, *rows, **options).problems]

    assert ids() == ["0", "1", "2", "3", "4"]
    assert ids(version="release_v1") == ["0", "1"]
    assert ids(version="release_v3", start="2024-04-01") == ["2", "3"]
    assert ids(start="2024-03-31", end="2024-07-30") == ["1", "2", "3"]
    assert ids(version="release_v6", end="2023-12-31") == ["0"]
    with pytest.raises(DataError, match=r"version='release_v7'.*release_v6"):
        ids(version="release_v7")
    with pytest.raises(DataError, match=r"start='soon' is no date"):
        ids(start="soon")
    with pytest.raises(DataError, match="is after"):
        ids(start="2024-01-02", end="2024-01-01")
    undated = record(question_id="u")
    del undated["contest_date"]
    assert len(read(tmp_path, undated).problems) == 1
    assert "no contest_date" in str(read(tmp_path, *rows, undated, version="release_v2").malformed[0])


def test_programs_get_the_names_that_the_benchmark_gives_them(tmp_path: Path) -> None:
    [problem] = read(tmp_path, record()).problems
    program = "class Solution:\n    def f(self, x: List[int]) -> Optional[int]:\n        return heappop(x)\n"
    namespace: dict[str, Any] = {}
    exec(
        with_preamble(problem, program + "d = datetime.datetime\nassert pow(2, 3, 5) == 3\nc = Counter('aa')\n"),
        namespace,
    )
    assert namespace["Solution"]().f([2, 3]) == 2


def test_a_path_is_needed() -> None:
    with pytest.raises(DataError, match="code_generation_lite"):
        livecodebench()


def test_the_real_file(shared_data: Path) -> None:
    path = shared_data / "rlvr" / "third_party_statements" / "livecodebench_v5_public_tests.json.gz"
    if not path.is_file():
        pytest.skip("no LiveCodeBench file")
    found = livecodebench(path)
    assert (len(found.problems), found.malformed) == (711, [])
    assert sum(isinstance(problem.tests, Calls) for problem in found.problems) == 318
