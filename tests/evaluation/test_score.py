"""Scores from real verdicts: counts, base tests, what was not judged, and a folder that compare and people can read."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ra3kit.errors import RecipeError, RunError
from ra3kit.evaluation import card as cards
from ra3kit.evaluation import score as scores
from ra3kit.evaluation.passk import pass_at_k
from ra3kit.evaluation.samples import Sample, Samples, read_samples
from ra3kit.verify.problem import Calls, Limits, Problem, Verdict

GOOD, WRONG_PLUS, WRONG, BROKEN, LOOP = (
    "def f(x):\n    return x * x\n",
    "def f(x):\n    return x * x if x < 9 else 0\n",
    "def f(x):\n    return x\n",
    "def f(x:\n",
    "def f(x):\n    while True: pass\n",
)
PROBLEMS = [
    Problem(f"t/{i}", Calls("f", [[2], [3], [10]], [4, 9, 100], base=2), prompt="def f(x):\n", limits=Limits(time=1.0))
    for i in range(3)
]


def samples_of(programs: dict[str, list[str]], **fields: Any) -> Samples:
    of = {name: [Sample(name, text, sample=i) for i, text in enumerate(texts)] for name, texts in programs.items()}
    return Samples(of=of, **fields)


def judge(programs: dict[str, list[str]], ks: Any = (1,), **fields: Any) -> Any:
    return scores.score(samples_of(programs, **fields), PROBLEMS, ks, benchmark="b", model="m", progress=False)


def test_pass_at_k_comes_from_the_verdicts() -> None:
    programs = {"t/0": [GOOD, WRONG, GOOD, BROKEN], "t/1": [WRONG_PLUS, GOOD, WRONG, LOOP], "t/2": [BROKEN] * 4}
    results, judged = judge(programs, (1, 2))
    assert results.outcomes == {
        "t/0": ["pass", "fail", "pass", "fail"],
        "t/1": ["fail", "pass", "fail", "timeout"],
        "t/2": ["fail"] * 4,
    }
    assert results.base_outcomes == {
        "t/0": ["pass", "fail", "pass", "fail"],
        "t/1": ["pass", "pass", "fail", "timeout"],
        "t/2": ["fail"] * 4,
    }
    assert results.scores["pass@1"].value == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    assert results.scores["pass@2"].value == pytest.approx((pass_at_k(4, 2, 2) + pass_at_k(4, 1, 2) + 0) / 3)
    assert results.base_scores["pass@1"].value == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert results.compiling == 7 / 12
    assert not any("WARNING" in note for note in results.notes)
    assert [(row.task_id, row.sample) for row, _ in judged] == [(f"t/{t}", i) for t in range(3) for i in range(4)]


def test_the_share_of_answers_that_were_cut_is_told_and_noted_where_it_matters() -> None:
    def ending(*finish: Any) -> Any:
        samples = Samples(of={"t/0": [Sample("t/0", GOOD, sample=i, finish=each) for i, each in enumerate(finish)]})
        return scores.score(samples, PROBLEMS, (1,), benchmark="b", model="m", progress=False)[0]

    results = ending("end", "length", "stop")
    assert results.cut == results.as_dict()["cut"] == 1 / 3
    assert cards.table_lines(results)[-1].endswith("100% compile, 33% cut at the token limit")
    assert any("33% of the answers were cut" in note for note in results.notes)
    assert ending("end", "end").cut == 0
    for unlimited in (ending("end", *["stop"] * 19), ending("length", *["end"] * 19)):  # 5 % is not above it
        assert not any("cut" in note for note in unlimited.notes)
    unsaid = ending("length", None)
    assert unsaid.cut is None
    assert cards.table_lines(unsaid)[-1].endswith("compile")
    assert not any("cut" in note for note in unsaid.notes)


def test_few_programs_that_compile_are_said_loudly() -> None:
    results, _ = judge({"t/0": [BROKEN, GOOD, BROKEN]})
    assert results.notes[0].startswith("WARNING: only 33% of the programs are Python.")
    assert results.notes[0] in cards.card(results)


def test_what_was_not_judged_is_apart_from_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(pairs: Any, **settings: Any) -> list[Verdict]:
        statuses: list[Any] = ["pass", "internal", "fail", "refused", "refused"]
        return [Verdict(status, base="pass" if status == "pass" else None) for status in statuses]

    monkeypatch.setattr(scores, "verify_all", verify)
    results, _ = judge({"t/0": [GOOD, GOOD, GOOD], "t/1": [GOOD, GOOD]})
    assert results.scores["pass@1"].value == 0.5  # one of two judged samples of t/0; t/1 has none and is no failure
    assert results.base_outcomes == {"t/0": ["pass", "internal", "fail"], "t/1": ["refused", "refused"]}
    text = "\n".join(results.notes)
    assert "3 samples were not judged (2 refused, 1 internal)" in text
    assert "between 2 and 3 samples" in text
    assert "t/1 (0)" in text


def test_the_names_of_the_benchmark_are_given_to_programs_when_they_are_judged() -> None:
    problem = replace(PROBLEMS[0], meta={"preamble": "from math import isqrt\n"})
    samples = samples_of({"t/0": ["def f(x):\n    return isqrt(x) ** 0 * x * x\n"]})
    results, judged = scores.score(samples, [problem], [1], progress=False)
    assert results.outcomes == {"t/0": ["pass"]}
    assert "isqrt(x)" in judged[0][0].solution
    assert "import" not in judged[0][0].solution  # and are no part of the sample


@pytest.mark.parametrize(("ks", "n", "message"), [((5,), 3, "k=5 .* n=3"), ((), 3, "k="), ((0,), 3, "at least 1")])
def test_k_is_checked_against_n(ks: tuple[int, ...], n: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        scores.check_ks(ks, n)
    assert scores.check_ks((3, 1, 3), 3) == (1, 3)


def test_a_part_of_a_benchmark_is_scored_only_when_asked_for() -> None:
    samples = samples_of({"t/0": [GOOD]}, missing=["t/1", "t/2"], source="s.jsonl")
    with pytest.raises(RunError, match=r"2 of 3 tasks have no sample \(t/1, t/2\).*missing=skip"):
        scores.require_all(samples, PROBLEMS, "error")
    scores.require_all(samples, PROBLEMS, "skip")
    scores.require_all(samples_of({}), PROBLEMS, "error")
    with pytest.raises(RecipeError, match="missing='zero'"):
        scores.require_all(samples, PROBLEMS, "zero")


def test_the_folder_holds_all_that_was_measured(tmp_path: Path) -> None:
    results, judged = judge({"t/0": [GOOD, WRONG], "t/1": [WRONG_PLUS, GOOD]}, (1, 2), missing=["t/2"])
    results.settings["sampling"] = {"n": 2, "seed": 0}
    scores.write(tmp_path, results, judged, cards.card(results))
    read = json.loads((tmp_path / "results.json").read_text())
    assert (read["benchmark"], read["model"], read["n"], read["k"], read["tasks"]) == ("b", "m", 2, [1, 2], 2)
    assert read["outcomes"] == {"t/0": ["pass", "fail"], "t/1": ["fail", "pass"]}
    assert read["base_outcomes"] == {"t/0": ["pass", "fail"], "t/1": ["pass", "pass"]}
    assert read["scores"]["pass@1"]["value"] == 0.5
    assert read["scores"]["pass@1"]["lo"] <= 0.5 <= read["scores"]["pass@1"]["hi"]
    assert read["base_scores"]["pass@1"]["value"] == 0.75
    assert {status: n for status, n in read["verdicts"].items() if n} == {"pass": 2, "fail": 2}
    assert read["missing"] == ["t/2"]
    assert read["settings"]["sampling"] == {"n": 2, "seed": 0}
    assert "landlock" in read["settings"]["isolation"] or "bubblewrap" in read["settings"]["isolation"]
    again = read_samples(tmp_path, PROBLEMS)
    assert [row.solution for row in again.of["t/1"]] == [WRONG_PLUS, GOOD]
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [(v["task_id"], v["sample"], v["status"], v["base"]) for v in verdicts] == [
        ("t/0", 0, "pass", "pass"),
        ("t/0", 1, "fail", "fail"),
        ("t/1", 0, "fail", "pass"),
        ("t/1", 1, "pass", "pass"),
    ]
    card = (tmp_path / "card.md").read_text()
    for part in (
        "# m on b",
        "| pass@1 | 75.0%",
        "| 50.0%",
        "Tasks without a sample: t/2",
        "- seed: `0`",
        "- isolation:",
    ):
        assert part in card


def test_samples_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("mine\n")
    results, judged = judge({"t/0": [GOOD]})
    scores.write(tmp_path, results, judged, "card")
    assert (tmp_path / "samples.jsonl").read_text() == "mine\n"


def test_a_program_with_a_lone_surrogate_is_written_and_fails(tmp_path: Path) -> None:
    results, judged = judge({"t/0": ["x = '\ud800'\n", GOOD]})
    assert results.outcomes == {"t/0": ["fail", "pass"]}
    scores.write(tmp_path, results, judged, "card")
    assert read_samples(tmp_path, PROBLEMS).of["t/0"][0].solution == "x = '\ud800'\n"


def test_the_table_has_a_column_for_base_tests_where_there_are_any() -> None:
    results, _ = judge({"t/0": [GOOD, WRONG]})
    lines = cards.table_lines(results)
    assert lines[0].split() == ["base", "tests", "base", "+", "plus"]
    assert lines[1].split()[:2] == ["pass@1", "50.0%"]
    assert lines[-1] == "verdicts   1 pass, 1 fail; 1 tasks, 100% compile"
    results.base_outcomes = None
    del results.base_scores  # computed once
    assert cards.table_lines(results)[0].split() == ["all", "tests"]


def test_the_picture_shows_every_verdict(tmp_path: Path) -> None:
    results, _ = judge({"t/0": [GOOD, WRONG], "t/1": [BROKEN]})
    path = tmp_path / "report.png"
    if importlib.util.find_spec("matplotlib") is None:
        assert not cards.picture(results, path)
        pytest.skip("no matplotlib")
    from matplotlib import image

    assert cards.picture(results, path)
    pixels = {tuple(round(255 * float(v)) for v in pixel[:3]) for row in image.imread(path) for pixel in row}
    shown = {status for status, color in cards.COLORS.items() if tuple(bytes.fromhex(color[1:])) in pixels}
    assert shown == {"pass", "fail"}
