"""Sample files of every format; what does not belong is named and counted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ra3kit.errors import DataError
from ra3kit.evaluation.samples import Sample, read_samples
from ra3kit.verify.problem import Asserts, Problem

PROBLEMS = [Problem(f"HumanEval/{i}", Asserts(""), prompt=f"def f{i}():\n") for i in range(3)]
BODY = "    return 1\n"


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def programs(found: Any) -> dict[str, list[str]]:
    return {name: [sample.solution for sample in samples] for name, samples in found.of.items()}


def test_completions_are_joined_to_the_prompt_and_solutions_win(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "s.jsonl",
        {"task_id": "HumanEval/1", "completion": BODY},
        {"task_id": "HumanEval/0", "solution": "x = 1\n", "completion": BODY},
        {"task_id": "HumanEval/1", "completion": "    pass\n"},
        {"task_id": "HumanEval/2", "completion": ""},
    )
    found = read_samples(path, PROBLEMS)
    assert programs(found) == {
        "HumanEval/0": ["x = 1\n"],
        "HumanEval/1": ["def f1():\n" + BODY, "def f1():\n    pass\n"],
        "HumanEval/2": ["def f2():\n"],
    }
    assert list(found.of) == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert [sample.sample for sample in found.of["HumanEval/1"]] == [0, 1]
    assert (len(found), found.missing, found.notes([])) == (4, [], [])
    packed = tmp_path / "s.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert programs(read_samples(packed, PROBLEMS)) == programs(found)


def test_our_own_lines_come_back_as_they_were(tmp_path: Path) -> None:
    samples = [Sample("HumanEval/0", "p", "c", "r", number, finish) for number, finish in ((1, "stop"), (0, "length"))]
    (tmp_path / "samples.jsonl").write_text("".join(sample.line() for sample in samples))
    found = read_samples(tmp_path, PROBLEMS)  # the folder of an evaluation
    assert found.of == {"HumanEval/0": [samples[1], samples[0]]}
    assert found.missing == ["HumanEval/1", "HumanEval/2"]


def test_what_does_not_belong_is_named_and_counted(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "s.jsonl",
        {"task_id": "HumanEval/0", "solution": "x", "sample": 0},
        {"task_id": "HumanEval/0", "solution": "y", "sample": 0},
        {"task_id": "HumanEvil/0", "solution": "x"},
        {"task_id": "HumanEvil/0", "solution": "x"},
        {"task_id": "HumanEval/1"},
        {"solution": "x"},
        {"task_id": "HumanEval/1", "solution": 3},
        '{"task_id": "HumanEv',
        "[1]",
    )
    found = read_samples(path, PROBLEMS)
    assert programs(found) == {"HumanEval/0": ["x"]}
    assert found.missing == ["HumanEval/1", "HumanEval/2"]
    assert found.unknown == {"HumanEvil/0": 2}
    reasons = {malformed.where: malformed.reason for malformed in found.malformed}
    assert sorted(reasons) == [f"s.jsonl:{i}" for i in (2, 5, 6, 7, 8, 9)]
    assert reasons["s.jsonl:2"] == "sample 0 of HumanEval/0 was there before"
    assert reasons["s.jsonl:5"] == "HumanEval/1: neither solution nor completion"
    assert "no field 'task_id'" in reasons["s.jsonl:6"]
    assert reasons["s.jsonl:7"] == "solution=3 is int, not str"
    assert "not JSON" in reasons["s.jsonl:8"]
    notes = "\n".join(found.notes([problem.id for problem in PROBLEMS]))
    assert "2 tasks have no sample: HumanEval/1; HumanEval/2" in notes
    assert "2 samples are of tasks not in the benchmark: 'HumanEvil/0' Did you mean 'HumanEval/0'?" in notes
    assert "6 records were left out" in notes
    assert "and 3 more" in notes


def test_a_folder_of_evalplus(tmp_path: Path) -> None:
    for task, numbers in (("HumanEval_0", (0, 2, 10)), ("HumanEval_7", (0,))):
        (tmp_path / task).mkdir()
        for number in numbers:
            (tmp_path / task / f"{number}.py").write_text(f"x = {number}\n")
    (tmp_path / "HumanEval_0" / "notes.txt").write_text("no sample")
    (tmp_path / "HumanEval_0" / "11.py").write_bytes(b"\xff\xfe")
    found = read_samples(tmp_path, PROBLEMS)
    assert programs(found) == {"HumanEval/0": ["x = 0\n", "x = 2\n", "x = 10\n"]}
    assert found.unknown == {"HumanEval_7": 1}
    assert "cannot be read" in found.malformed[0].reason


def test_generations_of_bigcode_stand_in_the_order_of_the_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([["a", "b"], [3], ["c"], ["d"]]))
    found = read_samples(path, PROBLEMS)
    assert programs(found) == {"HumanEval/0": ["a", "b"], "HumanEval/2": ["c"]}
    assert found.missing == ["HumanEval/1"]
    assert [str(malformed) for malformed in found.malformed] == ["generations.json[1]: not a list of texts"]
    assert found.unknown == {"problem 3": 1}


def test_code_lists_of_livecodebench(tmp_path: Path) -> None:
    problems = [Problem("abc_a", Asserts("")), Problem("1873_A", Asserts(""))]
    path = tmp_path / "out.json"
    rows = [
        {"question_id": "1873_A", "code_list": ["a", "b"]},
        {"question_id": "1873_A", "code_list": ["c"]},
        {"question_id": "abc_a", "code_list": [None]},
        {"question_id": "abd_a", "code_list": ["e"]},
    ]
    path.write_text(json.dumps(rows))
    found = read_samples(path, problems)
    assert programs(found) == {"1873_A": ["a", "b"]}
    assert found.missing == ["abc_a"]
    assert found.unknown == {"abd_a": 1}
    assert ["was there before" in m.reason for m in found.malformed] == [True, False]


def test_mbpp_may_be_named_by_number(tmp_path: Path) -> None:
    problems = [Problem(f"Mbpp/{i}", Asserts("")) for i in (11, 12)]
    path = lines(tmp_path / "s.jsonl", {"task_id": 11, "solution": "x"}, {"task_id": "12", "solution": "y"})
    assert programs(read_samples(path, problems)) == {"Mbpp/11": ["x"], "Mbpp/12": ["y"]}
    mixed = [Problem("1/7", Asserts("")), Problem("2/7", Asserts(""))]
    with pytest.raises(DataError, match="no sample of this benchmark"):
        read_samples(lines(tmp_path / "t.jsonl", {"task_id": 7, "solution": "x"}), mixed)


def test_nothing_of_this_benchmark_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample of this benchmark(.|\n)*'Mbpp/1'"):
        read_samples(lines(tmp_path / "s.jsonl", {"task_id": "Mbpp/1", "solution": "x"}), PROBLEMS)
    with pytest.raises(DataError, match="no such file"):
        read_samples(tmp_path / "absent.jsonl", PROBLEMS)
