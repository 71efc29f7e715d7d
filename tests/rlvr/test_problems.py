"""Readers of training sets: every record is a problem or has a counted reason; evaluation data is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ra3kit.errors import DataError
from ra3kit.evaluation.records import read_records
from ra3kit.rlvr.problems.__main__ import main
from ra3kit.rlvr.problems.cases import Caps, read_tests
from ra3kit.rlvr.problems.evaluation_sets import Index, by_name
from ra3kit.rlvr.problems.read import Problems, read
from ra3kit.rlvr.problems.rows import rows
from ra3kit.verify.problem import Calls, Streams
from ra3kit.verify.verifier import verify_all

STDIN = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
PAIRS = [{"input": "1 2\n", "output": "3\n", "type": "stdin_stdout"}]
CALL = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]]}
SUM = "print(sum(map(int, input().split())))"
ADD = "def add(a, b):\n    return a + b\n"
APPS = {
    "problem_id": 7,
    "question": "Add two numbers.",
    "input_output": json.dumps(STDIN),
    "solutions": json.dumps(["print 1", SUM]),
}
APPS_CALL = {
    **APPS,
    "input_output": json.dumps(CALL),
    "solutions": json.dumps([ADD]),
    "starter_code": "def add(a, b):\n\t",
}
DEEPCODER = {"problem": "Add two numbers.", "tests": repr(PAIRS), "solutions": [f"```python\n{SUM}\n```"]}
AREAL = {
    "query_id": "q1",
    "prompt": "Add two numbers.",
    "input_output": STDIN,
    "solutions": [SUM],
    "language": "PYTHON",
}
SYNTHETIC = {
    "problem_id": "vfc_1",
    "prompt": "Add two numbers.",
    "gold_standard_solution": SUM,
    "verification_info": {"language": "python", "test_cases": PAIRS},
}
CODEFORCES = {
    "id": "1/A",
    "description": "Add two numbers.",
    "official_tests": PAIRS,
    "input_mode": "stdio",
    "generated_checker": None,
}
CONTESTS = {
    "name": "1_A",
    "description": "Add two numbers.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
    "solutions": {"language": [2, 1, 3], "solution": ["int main(){}", "print 3", SUM]},
}
SANDBOX = {"content": "Add two numbers.", "test": json.dumps([{"input": {"stdin": "1 2"}, "output": {"stdout": "3"}}])}
MBPP = {"task_id": 700, "text": "Add two numbers.", "code": ADD, "test_list": ["assert add(1, 2) == 3"]}
GYM = {
    "responses_create_params": {"input": [{"role": "system", "content": "Hi"}, {"role": "user", "content": "Add."}]},
    "verifier_metadata": {"unit_tests": STDIN},
}
LCB = {
    "question_content": "Add.",
    "public_test_cases": json.dumps([{"input": "1", "output": "1", "testtype": "stdin"}]),
}
GOOD = {
    "apps": APPS,
    "deepcoder": DEEPCODER,
    "areal": AREAL,
    "synthetic1": SYNTHETIC,
    "codeforces": CODEFORCES,
    "code_contests": CONTESTS,
    "sandbox_fusion": SANDBOX,
    "mbpp": MBPP,
    "nemo_gym": GYM,
}


def write(tmp_path: Path, *records: Any, name: str = "x.jsonl") -> Path:
    path = tmp_path / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def adds_up(result: Problems) -> bool:
    rejected = sum(group.count for group in result.rejected.values())
    refused = 0 if result.forced else sum(group.count for group in result.evaluation_sets.values())
    return result.records == len(result.problems) + rejected + refused


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_a_record_of_each_format_is_detected_and_read(tmp_path: Path, name: str) -> None:
    result = read(write(tmp_path, GOOD[name]), against=())
    assert (len(result.problems), dict(result.formats)) == (1, {name: 1}), result.account()
    assert "Add" in result.problems[0].prompt


def test_gold_solutions_pass_and_wrong_ones_do_not(tmp_path: Path) -> None:
    problems = [
        read(write(tmp_path, record), against=()).problems[0]
        for record in (APPS, APPS_CALL, DEEPCODER, AREAL, SYNTHETIC, CONTESTS, MBPP)
    ]
    gold = [(problem.solution or "", problem) for problem in problems]
    assert [v.status for v in verify_all(gold, workers=1)] == ["pass"] * len(gold)
    wrong = [(program.replace("sum(", "max(").replace("a + b", "a - b"), problem) for program, problem in gold]
    assert [v.status for v in verify_all(wrong, workers=1)] == ["fail"] * len(gold)


def test_tests_and_limits_are_those_of_the_record(tmp_path: Path) -> None:
    [apps] = read(write(tmp_path, {**APPS, "time_limit": "2.5 seconds", "memory_limit": "64.0 megabytes"})).problems
    assert apps.tests == Streams(STDIN["inputs"], STDIN["outputs"])
    assert (apps.limits.time, apps.limits.memory) == (2.5, 64)
    [contest] = read(write(tmp_path, CONTESTS)).problems
    assert contest.tests == Streams(["1 2\n", "3 4\n"], ["3\n", "7\n"])


@pytest.mark.parametrize(
    ("value", "starter", "tests"),
    [
        (CALL, "", Calls("add", [[1, 2], [3, 4]], [3, 7], exact=False)),
        ({**CALL, "outputs": [[3], [7, 8]]}, "", Calls("add", [[1, 2], [3, 4]], [[3], [7, 8]], exact=False)),
        (
            CALL,
            "class Solution:\n    def add(self, a, b):\n",
            Calls("Solution().add", CALL["inputs"], [3, 7], exact=False),
        ),
        (
            [{"input": "1\n[2]", "output": "[3]", "testtype": "functional", "metadata": {"func_name": "add"}}],
            "",
            Calls("add", [[1, [2]]], [[3]], exact=False),
        ),
        ({"inputs": [["1", "2"]], "outputs": [["3"]], "fn_name": ""}, "", Streams(["1\n2"], ["3"])),
    ],
)
def test_forms_of_tests(value: Any, starter: str, tests: Any) -> None:
    assert read_tests(value, "tests", starter) == tests


# ---- reasons --------------------------------------------------------------------------------------------------------

BAD = [
    ("no tests", {**APPS, "input_output": "null"}),
    ("no tests", {**APPS, "input_output": {"inputs": [], "outputs": []}}),
    ("no tests", {**CODEFORCES, "official_tests": []}),
    ("no tests", {**CONTESTS, "public_tests": {"input": [], "output": []}, "private_tests": None}),
    ("no tests", {**MBPP, "test_list": []}),
    ("no tests", {**SYNTHETIC, "verification_info": {"language": "python"}}),
    ("length mismatch", {**APPS, "input_output": {"inputs": ["1"], "outputs": ["1", "2"]}}),
    ("length mismatch", {**CONTESTS, "public_tests": {"input": ["1"], "output": []}}),
    ("mixed tests", {**DEEPCODER, "tests": [*PAIRS, {**PAIRS[0], "type": "functional"}]}),
    ("mixed tests", {**DEEPCODER, "tests": [{**PAIRS[0], "type": "functional", "fn_name": f} for f in "ab"]}),
    ("unsupported tests", {**DEEPCODER, "tests": [{**PAIRS[0], "type": "html"}]}),
    ("unsupported tests", {**CODEFORCES, "input_mode": "file"}),
    ("unsupported tests", {**CODEFORCES, "interaction_format": "Ask."}),
    ("unsupported tests", {**CONTESTS, "input_file": "in.txt"}),
    ("unsupported tests", {**SANDBOX, "test": "eJxrYJnq"}),
    ("unsupported tests", {"base_input": [], "plus_input": []}),
    ("unsupported checker", {**CODEFORCES, "generated_checker": "print(eval(open('o').read()))"}),
    ("unsupported checker", {**CODEFORCES, "generated_checker": "print 1"}),
    ("unsupported language", {**SYNTHETIC, "verification_info": {"language": "cpp", "test_cases": PAIRS}}),
    ("unsupported language", {**AREAL, "language": "CPP"}),
    ("no statement", {**APPS, "question": " "}),
    ("no statement", {**GYM, "responses_create_params": {"input": []}}),
    ("malformed", {**APPS, "input_output": "{'inputs': [f()]}"}),
    ("malformed", {**APPS, "input_output": {"inputs": [1], "outputs": ["1"]}}),
    ("malformed", {**APPS, "input_output": {**CALL, "fn_name": "os.system"}}),
    ("malformed", {**APPS, "input_output": {**CALL, "inputs": [1, 2]}}),
    ("malformed", {**DEEPCODER, "tests": [{"input": "1"}]}),
    ("malformed", {**MBPP, "code": "def ("}),
    ("malformed", ["a list"]),
    ("unknown format", {"text": "x"}),
]


@pytest.mark.parametrize(("reason", "record"), BAD)
def test_every_rejection_has_its_reason_and_first_example(tmp_path: Path, reason: Any, record: Any) -> None:
    result = read(write(tmp_path, GOOD["areal"], record), against=())
    assert list(result.rejected) == [reason], result.account()
    assert result.rejected[reason].first.startswith("x.jsonl:2: ")
    assert len(result.problems) == 1
    assert adds_up(result)


def test_duplicates_by_id_and_by_content(tmp_path: Path) -> None:
    twice = [DEEPCODER, {**DEEPCODER, "problem": "Add  two NUMBERS"}, APPS, {**APPS, "question": "Another"}]
    result = read(write(tmp_path, *twice), against=())
    assert (len(result.problems), result.rejected["duplicate"].count) == (2, 2)


def test_a_given_format_is_the_only_one(tmp_path: Path) -> None:
    result = read(write(tmp_path, APPS, DEEPCODER), format="apps", against=())
    assert (len(result.problems), list(result.rejected)) == (1, ["unknown format"])
    with pytest.raises(DataError, match="Did you mean 'apps'"):
        read(write(tmp_path, APPS), format="aps")
    with pytest.raises(DataError, match="Did you mean 'mbpp'"):
        read("mbp")


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_what_is_too_large_is_limited_and_counted(tmp_path: Path) -> None:
    many = {"inputs": [str(i) for i in range(10)], "outputs": ["y" * (100 if i == 4 else 1) for i in range(10)]}
    path = write(tmp_path, {**APPS, "input_output": many}, {**AREAL, "prompt": "z" * 5000}, DEEPCODER)
    result = read(path, caps=Caps(record=3000, tests=5, test_bytes=50), against=())
    assert isinstance(result.problems[0].tests, Streams)
    assert list(result.problems[0].tests.inputs) == ["0", "2", "6", "8"]  # evenly spaced, without the long one
    assert result.limited.count == 1
    assert "4 of 10 tests" in result.limited.first
    assert result.rejected["too large"].count == 1
    assert len(result.problems) == 2
    assert adds_up(result)
    none = read(write(tmp_path, APPS), caps=Caps(test_bytes=1), against=())
    assert list(none.rejected) == ["too large"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.json.gz", "list.json", "x.parquet"])
def test_every_container_gives_the_records_that_a_whole_read_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("ra3kit.rlvr.problems.rows._CHUNK", 7)  # records over many chunks
    records = [{"id": i, "text": "é]},{" * i, "more": [1, {"a": None}]} for i in range(6)]
    path = tmp_path / name
    if name.endswith(".parquet"):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist([{"id": r["id"], "text": r["text"]} for r in records]), path)
    else:
        lines = "\n".join(json.dumps(r, ensure_ascii=False) for r in records)
        text = json.dumps(records, indent=1, ensure_ascii=False) if "list" in name or "gz" in name else lines
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    whole, _ = read_records(path)
    assert [(row.where, row.value) for row in rows(path, 10**6)] == [(r.where, r.value) for r in whole]
    assert len(whole) == 6


def test_a_number_over_two_chunks_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ra3kit.rlvr.problems.rows._CHUNK", 7)
    (tmp_path / "x.json").write_text("[1234567890, 2]")
    assert [row.value for row in rows(tmp_path / "x.json", 100)] == [1234567890, 2]


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(APPS) + '\n{"a": \n' + json.dumps(DEEPCODER) + "\n")
    result = read(tmp_path / "a.jsonl", against=())
    assert (len(result.problems), list(result.rejected)) == (2, ["malformed"])
    (tmp_path / "b.json").write_text(f"[{json.dumps(APPS)}, {{oops}}, {json.dumps(DEEPCODER)}]")
    result = read(tmp_path / "b.json", against=())
    assert len(result.problems) == 1
    assert "rest of this JSON list was not read" in result.rejected["malformed"].first
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps(APPS).encode())[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "c.jsonl.gz", against=())


# ---- evaluation data ------------------------------------------------------------------------------------------------

LONG = " ".join(f"word{i}" for i in range(100))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("HumanEvalPlus-Mini.jsonl.gz", "HumanEval"),
        ("code_contests_test.json.gz", "a test split"),
        ("lcb_v5.jsonl", "LiveCodeBench"),
        ("train.jsonl", None),
        ("latest_contests.jsonl", None),
        ("test-00000-of-00002.parquet", "a test split"),
    ],
)
def test_evaluation_files_by_name(name: str, found: str | None) -> None:
    assert by_name(Path("x") / name) == found


def test_evaluation_data_is_read_refused_and_forced(tmp_path: Path) -> None:
    path = write(tmp_path, {**MBPP, "task_id": 600}, {**MBPP, "task_id": 601, "text": "Sum two."}, LCB)
    result = read(path, against=())
    assert [p.id for p in result.problems] == ["Mbpp/601"]
    assert len(result.evaluation) == 2
    assert {name: group.count for name, group in result.evaluation_sets.items()} == {"MBPP": 1, "LiveCodeBench": 1}
    assert adds_up(result)
    forced = read(path, force=True, against=())
    assert [p.meta.get("evaluation") for p in forced.problems] == ["MBPP", None, "LiveCodeBench"]
    assert forced.summary()["forced"] is True
    assert "FORCED" in forced.account()
    assert adds_up(forced)
    only = read(write(tmp_path, LCB), against=())
    with pytest.raises(DataError, match="force=True"):
        only.for_training()


def test_a_statement_of_an_evaluation_set_is_found_within_other_words(tmp_path: Path) -> None:
    other = write(tmp_path, {"task_id": "HumanEval/0", "prompt": LONG}, name="HumanEval.jsonl")
    copied = {**APPS, "question": f"Answer in Python!\n\n{LONG.upper().replace(' ', ',  ')}\nGood luck."}
    path = write(tmp_path, copied, DEEPCODER, {**AREAL, "prompt": " ".join(LONG.split()[::-1])})
    result = read(path, against=[other])
    assert result.compared == {"HumanEval": 1}
    assert result.evaluation_sets["HumanEval"].first == "x.jsonl:1"
    assert len(result.problems) == 2
    unknown = read(path, against=())
    assert len(unknown.problems) == 3
    assert "not compared" in unknown.account()


def test_half_of_the_pieces_is_a_match_and_less_is_none() -> None:
    index = Index()
    index.add("A", LONG)
    index.add("B", "sort the list")
    words = LONG.split()
    assert index.find(" ".join(["x", *words[:60], "y"])) == "A"
    assert index.find(" ".join(["x", *words[:30], "y"])) is None
    assert index.find("Sort the list!") == "B"
    assert index.find("Now sort the list of numbers") is None


def test_the_kits_own_problems_have_a_split() -> None:
    own = read("ra3kit")
    assert len(own.problems) == len(own.evaluation) == 24
    assert not {p.id for p in own.problems} & {p.id for p in own.evaluation}
    assert {p.meta["difficulty"] for p in own.problems} == {"tiny", "easy", "medium"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path, APPS, {"a": 1})), "--against"]) == 0
    printed = capsys.readouterr().out
    assert "2 records (apps)" in printed
    assert "1  unknown format, first x.jsonl:2: its columns are a" in printed
    assert main(["nothing-here"]) == 2
    assert "sets by name: ra3kit, mbpp" in capsys.readouterr().err


def test_gold_solutions_are_counted_and_failures_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {**APPS, "problem_id": 8, "question": "Multiply.", "input_output": {"inputs": ["2 3"], "outputs": ["6"]}}
    loops = {
        **APPS,
        "problem_id": 9,
        "question": "Wait.",
        "solutions": ["while True: pass"],
        "time_limit": "0.2 seconds",
    }
    without = {**DEEPCODER, "problem": "Nothing.", "solutions": []}
    path = str(write(tmp_path, APPS, wrong, loops, without))
    assert main([path, "--against", "--verify-gold"]) == 0
    printed = capsys.readouterr().out
    assert "gold solutions: 1 of 3 pass their tests; 1 of 4 problems have none" in printed
    assert "     1  fail\n" in printed
    assert "     1  timeout\n" in printed
    assert "apps/8: fail, " in printed
    assert "apps/9: timeout, " in printed
    assert main([path, "--against", "--verify-gold", "--limit", "2"]) == 0
    assert "gold solutions: 1 of 2 pass their tests; 0 of 2 problems" in capsys.readouterr().out  # apps/7 and apps/9
    assert main([path, "--limit", "0"]) == 2


def test_of_several_sets_with_a_statement_the_first_is_named() -> None:
    """Not the first that a set of hashes happens to give."""
    words, index = [f"word{i}" for i in range(200)], Index()
    for start in range(0, 100, 4):
        index.add(f"from {start}", " ".join(words[start : start + 100]))
    assert index.find(" ".join(words)) == "from 0"


# ---- real files -----------------------------------------------------------------------------------------------------


def test_every_record_of_the_public_files_is_accounted_for(shared_data: Path) -> None:
    files = sorted(path for path in (shared_data / "rlvr").rglob("*") if path.is_file())
    assert files
    trained = {}
    for path in files:
        result = read(path, against=[shared_data])
        records, malformed = read_records(path)
        assert result.records == len(records) + len(malformed)
        assert adds_up(result), result.account()
        assert not {"malformed", "unknown format"} & set(result.rejected), result.account()
        if result.problems:
            trained[path.parent.name] = len(result.problems)
    assert trained == {"apps": 4, "taco": 5}  # the data's README: all else is evaluation data, or has no statements


def test_mbpp_trains_on_its_train_split_only(shared_data: Path) -> None:
    result = read(shared_data / "mbpp" / "mbpp.jsonl", against=[shared_data])
    numbers = {int(problem.id.split("/")[1]) for problem in result.problems}
    assert numbers <= set(range(601, 975))
    assert len(numbers) > 350  # a few have the text of a test problem


def test_gold_solutions_of_public_files(shared_data: Path) -> None:
    problems = read(shared_data / "rlvr" / "apps" / "apps_train_samples.jsonl.gz", force=True).problems
    verdicts = verify_all([(problem.solution or "", problem) for problem in problems], workers=1)
    assert [(p.id, v.reason) for p, v in zip(problems, verdicts, strict=True) if v.status != "pass"] == []


@pytest.mark.slow
def test_gold_solutions_of_mbpp_train(shared_data: Path) -> None:
    problems = read(shared_data / "mbpp" / "mbpp.jsonl", against=()).problems
    verdicts = verify_all([(problem.solution or "", problem) for problem in problems], workers=1)
    assert [p.id for p, v in zip(problems, verdicts, strict=True) if v.status != "pass"] == []
    assert len(problems) == 374
