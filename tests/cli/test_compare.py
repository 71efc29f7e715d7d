"""`ra3kit compare`: what it prints, in which order, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ra3kit.cli import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Evaluations of 20 problems, named by how many of them pass: in runs/p2, ..., and their working directory."""
    monkeypatch.chdir(tmp_path)
    for passing in (2, 3, 4, 8, 12, 13, 14):
        write(tmp_path / "runs" / f"p{passing}", passing)
    return tmp_path


def write(folder: Path, passing: int, tasks: int = 20, **changed: Any) -> None:
    outcomes = {f"T/{i}": ["pass" if i < passing else "fail"] for i in range(tasks)}
    results = {"benchmark": "HumanEval", "model": folder.name, "n": 1, "k": [1], "outcomes": outcomes, "settings": {}}
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results | changed))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["compare", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_two_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs/p2", "runs/p12/results.json")
    assert lines[0] == "HumanEval: p12 minus p2, 20 problems"
    assert lines[1].split() == ["p12", "p2", "difference", "95", "%", "interval", "p", "real", "at", "5", "%"]
    cells = lines[2].split()
    assert cells[:4] == ["pass@1", "60.0", "10.0", "+50.0"]
    assert cells[-2:] == ["0.0020", "yes"]  # 2^(1 - 10): ten problems differ
    assert lines[3] == ("First samples alone: 10 problems pass in p12 only, 0 in p2 only; McNemar's exact p = 0.002.")
    assert lines[4] == "Pass rate higher on 10 problems, lower on 0."
    assert lines[5] == "One seed a side: says nothing about other training seeds."
    assert lines[6].startswith("The difference is real at the 5 % level: +50.0 points [+")
    assert lines[7:] == ["", "Next, with more training seeds: ra3kit compare A1 A2 A3 --against B1 B2 B3"]


def test_the_other_way_round_only_signs_change(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = (said(capsys, *pair)[2].split() for pair in (("runs/p2", "runs/p12"), ("runs/p12", "runs/p2")))
    flip = str.maketrans("+-", "-+")
    assert (back[1], back[2], back[3]) == (there[2], there[1], there[3].translate(flip))
    lo, hi = (cell.strip("[],") for cell in there[4:6])
    assert [cell.strip("[],") for cell in back[4:6]] == [hi.translate(flip), lo.translate(flip)]
    assert back[6:] == there[6:]


def test_several_runs_are_compared_with_the_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs/p2", "runs/p12", "runs/p3")
    assert [line for line in lines if line.startswith("HumanEval")] == [
        "HumanEval: p12 minus p2, 20 problems",
        "HumanEval: p3 minus p2, 20 problems",
    ]
    assert "p, Holm" in lines[1]
    assert lines[2].split()[-3:] == ["0.0020", "0.0039", "yes"]
    answers = [line for line in lines if line.startswith(("The difference is real", "Can't be told apart"))]
    assert len(answers) == 2
    assert answers[1].endswith("Problems that differ: 1; fewer than 6 can't show a difference at the 5 % level.")


def test_the_last_column_goes_by_the_adjusted_p_value(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "runs/p2", "runs/p8")[2].split()[-2:] == ["0.0312", "yes"]
    assert said(capsys, "runs/p2", "runs/p8", "runs/p3")[2].split()[-3:] == ["0.0312", "0.0625", "-"]


def test_seeds_of_two_arms(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = ["runs/p12", "runs/p13", "runs/p14", "--against", "runs/p2", "runs/p3", "runs/p4"]
    lines = said(capsys, *arms)
    assert lines[0] == "HumanEval: p12, p13, p14 minus p2, p3, p4, 20 problems"
    assert lines[1].split()[:4] == ["p12", "and", "2", "more"]
    assert lines[2].split()[:4] == ["pass@1", "65.0", "15.0", "+50.0"]
    assert lines[3] == "pass@1 by seed: p12 60.0, p13 65.0, p14 70.0, p2 10.0, p3 15.0, p4 20.0"
    assert lines[5].startswith("The difference is real")
    assert lines[-1] == "Next: the same with --problems lists the problems won and lost."


def test_problems_are_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs/p4", "runs/p2", "--problems")
    assert lines[5:9] == ["won (0):", "lost (2):", "  T/2  1.00 -> 0.00", "  T/3  1.00 -> 0.00"]


def test_warnings_name_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"temperature": 0.8, "stop": ["\nclass " * 20], "seed": 7}
    outcomes = {f"T/{i}": ["pass", "internal"] for i in range(10)} | {
        "T/10": ["internal", "refused"],
        "extra": ["pass"],
    }
    write(runs / "other", 0, settings=settings, n=2, outcomes=outcomes)
    lines = said(capsys, "runs/p2", "other")
    shown = "\n".join(line for line in lines if line.startswith("warning: "))
    assert "n: 2 / 1; stop: ['\\nclass" in shown
    assert "... / not stated; temperature: 0.8 / not stated" in shown
    assert "seed" not in shown
    assert "compared on the 11 problems that all have; left out: 1 of other, 9 of p2" in shown
    assert "problems left out of pass@1 for want of judged samples: 1 (T/10)" in shown
    assert "samples not judged (internal or refused), which count nowhere: 12" in shown


def test_everything_is_written_and_nothing_overwritten(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs/p2", "runs/p12", "--json", "out.json", "--resamples", "999", "--seed", "3")
    assert "Everything is in out.json." in lines[-2:]
    text = (runs / "out.json").read_text()
    written = json.loads(text)
    assert {key: written[key] for key in ("level", "resamples", "seed")} == {"level": 0.95, "resamples": 999, "seed": 3}
    (comparison,) = written["comparisons"]
    assert (comparison["ours"], comparison["theirs"], comparison["real"]) == (["p12"], ["p2"], True)
    assert comparison["scores"]["pass@1"]["value"] == pytest.approx(0.5)
    assert comparison["mcnemar"] == {"only_ours": 10, "only_theirs": 0, "p": 2**-9}
    assert comparison["verdict"] in lines
    assert main(["compare", "runs/p2", "runs/p12", "--json", "out.json"]) == 2
    assert "exists and was left as it is" in capsys.readouterr().err
    assert (runs / "out.json").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/p2"], "Only one run, runs/p2"),
        (["runs/p2", "runs/p33"], "No evaluation at runs/p33. Did you mean 'p3'?"),
        (["runs/p2", "runs/p3", "--json", "no/out.json"], "there is no folder no"),
        (["runs/p2", "runs/p3", "--resamples", "10"], "resamples=10: a 95 % interval needs at least 39"),
        (["runs/p2", "runs/p3", "--seed", "-1"], "--seed -1: has to be 0 or more"),
        (["runs/p2", "runs/p2", "--against", "runs/p3"], "is given twice in one arm"),
        (["runs/p2", "mbpp"], "mbpp is an evaluation on 'MBPP', p2 on 'HumanEval'"),
    ],
)
def test_what_cannot_be_done_is_said(
    runs: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(runs / "mbpp", 3, benchmark="MBPP")
    assert main(["compare", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_base_scores_are_rows_of_the_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, passing in (("x", 5), ("y", 9)):
        write(runs / name, passing, base_outcomes={f"T/{i}": ["pass"] for i in range(20)})
    lines = said(capsys, "x", "y")
    assert lines[3].split()[:5] == ["base", "pass@1", "100.0", "100.0", "+0.0"]
