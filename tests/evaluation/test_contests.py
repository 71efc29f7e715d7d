"""Codeforces and CodeContests records: tests, checkers, limits; what cannot be judged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ra3kit.errors import DataError
from ra3kit.evaluation.contests import codecontests, codeforces
from ra3kit.verify.problem import Streams

CF = {
    "id": "1/A",
    "time_limit": 2.0,
    "memory_limit": 256.0,
    "title": "Sum",
    "description": "Add.",
    "input_format": "Two numbers.",
    "output_format": "One number.",
    "note": None,
    "examples": [{"input": "1 1\n", "output": "2\n"}],
    "rating": 800,
    "official_tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "4 4\n", "output": "8\n"}],
    "official_tests_complete": True,
    "input_mode": "stdio",
    "generated_checker": None,
    "executable": True,
}
CC = {
    "name": "1_A. Sum",
    "description": "Add.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["2 2\n"], "output": ["4\n"]},
    "generated_tests": {"input": ["0 0\n"], "output": ["0\n"]},
    "difficulty": 7,
    "time_limit": {"seconds": 2, "nanos": 500000000},
    "memory_limit_bytes": 256000000,
}


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_codeforces_problem(tmp_path: Path) -> None:
    [problem] = codeforces(write(tmp_path, CF)).problems
    assert problem.id == "1/A"
    assert problem.tests == Streams(["1 2\n", "4 4\n"], ["3\n", "8\n"])
    assert (problem.limits.time, problem.limits.memory) == (2.0, 256)
    for part in ("Add.", "Input\nTwo numbers.", "Output\nOne number.", "Example\n1 1\n\n2\n", "standard input"):
        assert part in problem.prompt
    assert "Note" not in problem.prompt
    assert problem.meta["tests_complete"] is True
    [slow] = codeforces(write(tmp_path, CF), time_factor=2.5).problems
    assert slow.limits.time == 5.0
    with pytest.raises(DataError, match="time_factor=0"):
        codeforces(write(tmp_path, CF), time_factor=0)


def test_the_generated_checker_judges(tmp_path: Path) -> None:
    checker = "import sys\nprint(1)\n"
    [problem] = codeforces(write(tmp_path, {**CF, "generated_checker": checker})).problems
    assert problem.tests == Streams(["1 2\n", "4 4\n"], ["3\n", "8\n"], checker)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"input_mode": "file"}, "it reads files"),
        ({"official_tests": []}, "no official_tests"),
        ({"official_tests": [{"input": "1"}]}, "no input or no output"),
        ({"official_tests": [{"input": "1", "output": None}]}, "official_tests.output[0]=None is NoneType"),
        ({"description": None}, "no field 'description'"),
        ({"time_limit": "two"}, "time_limit='two' is str"),
    ],
)
def test_what_cannot_be_judged_is_named_and_left_out(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    found = codeforces(write(tmp_path, CF, {**CF, "id": "2/B", **fields}))
    assert [problem.id for problem in found.problems] == ["1/A"]
    [malformed] = found.malformed
    assert malformed.where == "x.jsonl:2"
    assert reason in malformed.reason


def test_a_codecontests_problem_has_all_its_tests(tmp_path: Path) -> None:
    [problem] = codecontests(write(tmp_path, CC)).problems
    assert problem.id == "1_A. Sum"
    assert problem.tests == Streams(["1 2\n", "2 2\n", "0 0\n"], ["3\n", "4\n", "0\n"])
    assert (problem.limits.time, problem.limits.memory) == (2.5, 244)
    [bare] = codecontests(write(tmp_path, {"problem": "Add.", "tests": {"inputs": ["1"], "outputs": ["2"]}})).problems
    assert (bare.id, bare.tests) == ("codecontests/0", Streams(["1"], ["2"]))
    listed = {"problem": "Add.", "tests": json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}])}
    assert codecontests(write(tmp_path, listed)).problems[0].tests == Streams(["1"], ["2"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"private_tests": {"input": ["1", "2"], "output": ["1"]}}, "private_tests: 2 inputs and 1 outputs"),
        ({"tests": {"inputs": [[1]], "outputs": ["1"], "fn_name": "f"}}, "it calls a function (f)"),
        ({"tests": [{"input": "1", "output": "1", "testtype": "functional"}]}, "of the kinds functional"),
        ({"tests": "{"}, "tests is no JSON"),
        ({"tests": 3}, "tests is int"),
        ({"input_file": "in.txt"}, "it reads files"),
        ({"public_tests": None, "private_tests": None, "generated_tests": None}, "no tests"),
    ],
)
def test_malformed_codecontests_records(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    found = codecontests(write(tmp_path, CC, {**CC, "name": "bad", **fields}))
    assert len(found.problems) == 1
    assert reason in found.malformed[0].reason


def test_parquet_files_and_folders_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(2):
        rows = [{**CF, "id": f"{i}/A"}]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"test-{i}.parquet")
    assert [problem.id for problem in codeforces(folder).problems] == ["0/A", "1/A"]
    (folder / "test-2.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="not a readable parquet"):
        codeforces(folder)
    with pytest.raises(DataError, match="open-r1/codeforces"):
        codeforces()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file here"):
        codeforces(tmp_path / "empty")


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("code_contests/code_contests_public_tests.json.gz", 126),
        ("deepcoder/code_contests_test.json.gz", 126),
    ],
)
def test_the_real_files(shared_data: Path, file: str, count: int) -> None:
    found = codecontests(shared_data / "rlvr" / file)
    assert (len(found.problems), found.malformed) == (count, [])


def test_mixed_kinds_in_a_real_file_are_refused(shared_data: Path) -> None:
    path = shared_data / "rlvr" / "third_party_statements" / "deepcoder_livecodebench_test.json.gz"
    if not path.is_file():
        pytest.skip("no such file")
    with pytest.raises(DataError, match="223 malformed"):
        codecontests(path)
