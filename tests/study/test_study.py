"""The study from end to end at micro size: killed, resumed, and the same as one that was not."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ra3kit.cli import main
from ra3kit.cli.study import next_command
from ra3kit.errors import RecipeError, RunError
from ra3kit.study.regime import Preset, Regime
from ra3kit.study.run import Study, begin

MICRO = Regime(
    base_steps=12,
    base_overrides=(
        "model.config.hidden_size=16",
        "model.config.num_hidden_layers=1",
        "model.config.num_attention_heads=2",
        "model.config.num_key_value_heads=1",
        "model.config.intermediate_size=32",
        "model.tokenizer.vocab_size=400",
        "data.path=family:base:n=60:world=1",
        "data.max_val_snippets=2",
    ),
    programs=24,
    steps=4,
    updates=1,
    held_out=6,
    rollouts=2,
    tasks=3,
    samples=2,
    max_new_tokens=24,
    gate=0.0,
)
TINY = Preset("micro", "for the tests", MICRO, (1, 2), ("base", "ntp", "oracle"), split="val", smoke=True)


RUN = """
import sys

sys.path.insert(0, sys.argv[2])
from test_study import small

small(sys.argv[1], tuple(map(int, sys.argv[3:]))).run()
"""


def small(folder: Path | str, seeds: tuple[int, ...], jobs: int = 1) -> Study:
    """The micro study in a folder, new or gone on with."""
    folder = Path(folder)
    return begin(folder, TINY, seeds=seeds, bases=folder.parent / "bases", resume=True, jobs=jobs)


def until(there: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a file that a process is to write."""
    while not there.exists():
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.02)


def killed(folder: Path, seeds: tuple[int, ...]) -> Study:
    """The study of these seeds, killed while its second arm was trained."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(Path(__file__).parent), *map(str, seeds)])
    until(folder / "seed-1" / "ntp" / "run" / "recipe.yaml", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "seed-1" / "ntp" / "result.json").exists()
    return small(folder, seeds, jobs=2)


@pytest.mark.timeout(200)
def test_killed_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    study = killed(folder, (1,))
    done = folder / "seed-1" / "base" / "result.json"
    before = done.stat().st_mtime_ns

    assert [str(task) for task in study.tasks()][:2] == ["seed 1, ntp: training", "seed 1, ntp: measuring"]
    study.run()
    assert done.stat().st_mtime_ns == before
    found = json.loads((folder / "results.json").read_text())
    assert found["complete"] == [3, 3]
    assert found["results"]["1"]["ntp"]["tries"] == 2
    assert found["results"]["1"]["oracle"]["tries"] == 1
    assert study.tasks() == []

    oracle = found["results"]["1"]["oracle"]
    assert oracle["agreement"]["q"]["named"] == 1
    assert oracle["annotated"]["thoughts"] > 0
    assert "ra3kit fit --recipe study/oracle" in oracle["commands"]["train"]
    page = (folder / "report.html").read_text()
    assert "a smoke run" in page
    assert "not judged" in page
    assert "about" in capsys.readouterr().out  # the time left


@pytest.mark.slow
def test_killed_and_resumed_it_has_the_figures_of_one_that_was_not(tmp_path: Path) -> None:
    study, again = killed(tmp_path / "study", (1, 2)), small(tmp_path / "again", (1,), 2)
    again.now = again.arms[:2], again.seeds
    for each in (study, again):
        each.run()
    found = study.results()
    assert found[1]["ntp"]["tries"] == 2
    assert found[2]["ntp"]["tries"] == 1
    for arm in ("base", "ntp"):
        first, second = found[1][arm], again.results()[1][arm]
        for key in ("held_out", "agreement", "sampled", "greedy", "m_step", "trained_tokens"):
            assert first[key] == second[key], (arm, key)


def test_it_goes_on_from_its_results_alone(tmp_path: Path) -> None:
    """results.json is what is carried; an arm without a result is trained, and again what it starts from."""
    study = begin(tmp_path / "there", TINY, ["base", "ntp"])
    for seed, arm in ((1, "base"), (1, "ntp"), (2, "base")):
        place = study.folder / f"seed-{seed}" / arm
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps({"arm": arm, "seed": seed, "sampled": {"pass@1": seed / 4}}))
    found = {"study": json.loads((study.folder / "study.json").read_text()), "results": study.results()}

    here = tmp_path / "here"
    here.mkdir()
    (here / "results.json").write_text(json.dumps(found))
    with pytest.raises(RunError, match="something else"):
        begin(here, TINY)
    carried = begin(here, TINY, resume=True)
    assert carried.results() == study.results()
    assert [str(task) for task in carried.tasks()] == [
        *("seed 2, base: training", "seed 2, ntp: training", "seed 2, ntp: measuring")
    ]

    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "results.json").write_text('{"scores": 1}')
    with pytest.raises(RunError, match="not the results of a study"):
        begin(tmp_path / "odd", TINY, resume=True)


def test_a_job_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    wrong = replace(TINY, regime=replace(MICRO, base_overrides=("model.config.hidden_size=3",)))
    study = begin(tmp_path / "study", wrong, ["base"], (1,), bases=tmp_path / "bases")
    with pytest.raises(RunError, match="seed 1, base: training failed with exit code 2"):
        study.run()
    assert (study.folder / "results.json").is_file()  # what there was is written


def test_what_is_said_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "--preset", "quick", "--out", str(tmp_path / "a study")]
    monkeypatch.setattr("sys.argv", ["ra3kit", *command])

    def interrupted(self: Study) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "run", interrupted)
    assert main(command) == 130
    assert f"Go on: ra3kit study --preset quick --out '{tmp_path}/a study' --resume" in capsys.readouterr().err

    monkeypatch.setattr(Study, "run", lambda self: None)
    assert main([*command, "--resume"]) == 0
    *_, results, following = capsys.readouterr().out.splitlines()
    assert results.endswith("report.html")
    assert "ra3kit study --preset full" in following
    assert next_command(Path("runs/mine"), smoke=False) == "tensorboard --logdir runs/mine"


def test_a_folder_is_one_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    begin(folder, TINY)
    with pytest.raises(RunError, match="--resume"):
        begin(folder, TINY)
    with pytest.raises(RunError, match=r"regime\.steps is 4, and now it would be 6"):
        begin(folder, replace(TINY, regime=replace(MICRO, steps=6)), resume=True)
    more = begin(folder, TINY, ["grpo-from-ra3"], (5, 1), resume=True)  # more arms and seeds are the same study
    assert {(task.arm.name, task.seed) for task in more.tasks()} == set(
        itertools.product(["base", "ra3", "grpo-from-ra3"], (5, 1))
    )
    for study in (more, begin(folder, TINY, resume=True)):
        assert [arm.name for arm in study.arms] == ["base", "ntp", "ra3", "grpo-from-ra3", "oracle"]
        assert study.seeds == [1, 2, 5]
    assert {task.seed for task in begin(folder, TINY, resume=True).tasks()} == {1, 2, 5}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunError, match="something else"):
        begin(tmp_path / "other", TINY)
    with pytest.raises(RecipeError, match="Did you mean 'oracle'"):
        begin(tmp_path / "new", TINY, ["orakle"])
