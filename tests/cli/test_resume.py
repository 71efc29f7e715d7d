"""`ra3kit fit --resume`: which run goes on, what is refused, what a killed process leaves."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from ra3kit import checkpoints
from ra3kit.cli import main
from ra3kit.testing.kills import (
    RLVR_PHASES,
    Killer,
    corpus,
    equal_but_for_seconds,
    equal_results,
    problems,
    recipe,
    rlvr_recipe,
    store_faults,
    unequal_steps,
    unequal_weights,
)

FIT = ["fit", "--recipe", "toy.yaml"]
RECORDER = "{class_path: toys.Recorder, file: losses.txt}"
SAVE = f"trainer.callbacks=[{RECORDER}, {{class_path: ra3kit.callbacks.checkpoints.Checkpoints, keep: null}}]"


def losses(desk: Path) -> list[str]:
    return (desk / "losses.txt").read_text().split()


def unfinish(run: Path, *steps: int) -> None:
    """As if the process had been killed: no mark of the end, and only these checkpoints."""
    (run / ".finished").unlink()
    for path in checkpoints.find(run):
        if int(path.name[5:]) not in steps:
            (path / "about.json").unlink()
            path.rename(path.with_name(path.name + ".part"))


def test_a_shuffled_loader_goes_on_at_the_end_of_an_epoch(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, SAVE, "trainer.max_epochs=3"]) == 0
    whole = losses(desk)
    run = desk / "runs" / "toy" / "001"
    assert [path.name[-2:] for path in checkpoints.find(run)] == ["04", "08", "12"]
    unfinish(run, 4, 8)
    capsys.readouterr()
    assert main(["fit", "--resume", "runs/toy/001"]) == 0
    out = capsys.readouterr().out
    assert "passed over: runs/toy/001/checkpoints/step-00000012.part was not written to its end" in out
    assert "resumed     at step-00000008 of runs/toy/001" in out
    assert losses(desk) == whole[8:]
    assert [path.name for path in (desk / "runs" / "toy").iterdir()] == ["001"]
    (run / ".finished").unlink()
    assert main(["fit", "--resume", "runs/toy/001/checkpoints/step-00000004"]) == 0  # one of several
    assert losses(desk) == whole[4:]


def test_a_finished_run_is_left_as_it_is(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--resume", "auto"]) == 0
    assert "nothing to resume: a new run begins" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in sorted((desk / "runs").rglob("*"))}
    for arguments in ([*FIT, "--resume", "auto"], ["fit", "--resume", "runs/toy/001"]):
        assert main(arguments) == 0
        assert "runs/toy/001: this run is finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in sorted((desk / "runs").rglob("*"))} == before


def test_a_run_that_ended_after_its_last_step_still_gets_its_reports(desk: Path) -> None:
    assert main(FIT) == 0
    (desk / "runs" / "toy" / "001" / ".finished").unlink()
    (desk / "losses.txt").unlink()  # written at the end of training
    assert main([*FIT, "--resume", "auto"]) == 0
    assert (desk / "losses.txt").exists()


def test_without_a_checkpoint_it_starts_again_in_the_same_folder(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FIT, SAVE, "run.dir=mine"]) == 0
    whole = losses(desk)
    unfinish(desk / "mine")
    assert main([*FIT, SAVE, "run.dir=mine", "--resume", "auto"]) == 0
    assert "the run starts again from the beginning, in the same folder" in capsys.readouterr().out
    assert losses(desk) == whole


def test_another_recipe_is_refused_with_each_key_and_both_values(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FIT, "trainer.max_epochs=3"]) == 0
    run = desk / "runs" / "toy" / "001"
    unfinish(run, 8)
    before = sorted(run.rglob("*"))
    assert main([*FIT, "--resume", "auto", "model.lr=0.5", "trainer.max_epochs=3", "run.seed=1"]) == 2
    error = capsys.readouterr().err
    assert "run.seed: the run has 0, given 1; model.lr: the run has 0.05, given 0.5)" in error
    assert main(["fit", "--resume", "runs/toy/001", "trainer.gradient_clip_val=1.0"]) == 2
    assert "trainer.gradient_clip_val: the run has 'not set', given 1.0" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before
    free = ["trainer.log_every_n_steps=2", "trainer.logger=false", "trainer.enable_progress_bar=false", "run.name=b"]
    assert main(["fit", "--resume", "runs/toy/001", *free, SAVE]) == 0


def test_what_cannot_go_on_is_named(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "empty").mkdir()
    for arguments, wanted in [
        (["--resume", "auto"], "give --recipe too"),
        (["--resume", "nowhere"], "no such run or checkpoint folder"),
        (["--resume", "empty"], "no whole checkpoint is there"),
        (["--recipe", "toy.yaml", "--resume", "auto", "--dry-run"], "leave --resume out"),
        ([], "--recipe NAME|FILE is missing"),
    ]:
        assert main(["fit", *arguments]) == 2
        assert wanted in capsys.readouterr().err
    lightning = f"trainer.callbacks=[{RECORDER}, {{class_path: lightning.pytorch.callbacks.ModelCheckpoint}}]"
    assert main([*FIT, lightning]) == 0
    (desk / "runs" / "toy" / "001" / ".finished").unlink()
    assert main(["fit", "--resume", "runs/toy/001"]) == 2
    assert "saved by Lightning's ModelCheckpoint" in capsys.readouterr().err


def test_another_version_is_a_warning(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, SAVE]) == 0
    run = desk / "runs" / "toy" / "001"
    unfinish(run, 4)
    path = checkpoints.find(run)[0] / "about.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"ra3kit": "0.0.9", "versions": {**content["versions"], "torch": "1.0"}}))
    assert main(["fit", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert "warning: the checkpoint was made with ra3kit 0.0.9" in out
    assert "warning: the checkpoint was made with torch 1.0" in out
    assert "made with numpy" not in out


def hold(run: str, ready: object, free: object) -> None:
    from ra3kit.runs import alone_in

    with alone_in(Path(run), True):
        ready.set()  # type: ignore[attr-defined]
        free.wait()  # type: ignore[attr-defined]


def test_a_run_that_is_going_on_is_left_alone(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FIT) == 0
    run = desk / "runs" / "toy" / "001"
    (run / ".finished").unlink()
    context = multiprocessing.get_context("fork")
    ready, free = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(run), ready, free))
    other.start()
    ready.wait()
    assert main(["fit", "--resume", str(run)]) == 2
    assert f"this run is going on already (process {other.pid} on" in capsys.readouterr().err
    free.set()
    other.join()
    assert main(["fit", "--resume", str(run)]) == 0


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Killer:
    """A world with an unbroken run in it."""
    made = Killer(tmp_path_factory.mktemp("kills"))
    made.write_recipe(recipe(corpus(made.folder / "corpus", 8)))
    assert made.start("unbroken", lambda phase, seconds: False).code == 0
    return made


def kill_and_compare(killer: Killer, name: str, *phases: str) -> None:
    for phase in phases:
        end = killer.start(name, lambda now, seconds, wanted=phase: now == wanted and seconds > 0.01)  # type: ignore[misc]
        assert (end.code, end.phase) == (-9, phase), (killer.folder / f"{name}.log").read_text()
    assert killer.start(name, lambda phase, seconds: False).code == 0
    run, unbroken = killer.folder / name, killer.folder / "unbroken"
    assert unequal_steps(run, unbroken) == unequal_weights(run, unbroken) == 0
    assert equal_results(run, unbroken)
    assert set(store_faults(run, unbroken).values()) == {0}


@pytest.mark.slow
def test_kill_9_in_annotation_and_while_saving(killer: Killer) -> None:
    kill_and_compare(killer, "run", "annotation", "saving")


@pytest.mark.slow
def test_kill_9_in_every_phase(killer: Killer) -> None:
    kill_and_compare(killer, "long", "start", "warmup", "saving", "e", "annotation", "validation", "m", "report")


@pytest.mark.slow
def test_kill_9_in_every_phase_of_grpo_leaves_no_verifier_behind(tmp_path: Path) -> None:
    killer = Killer(tmp_path)
    killer.write_recipe(rlvr_recipe(problems(tmp_path / "problems.jsonl")))
    assert killer.start("unbroken", lambda phase, seconds: False).code == 0
    for phase in RLVR_PHASES:
        end = killer.start("run", lambda now, seconds, wanted=phase: now == wanted and seconds > 0.01)  # type: ignore[misc]
        assert (end.code, end.phase) == (-9, phase), (tmp_path / "run.log").read_text()
        assert bool(end.started) == (phase != "start")
        assert not end.left
    assert killer.start("run", lambda phase, seconds: False).code == 0
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    assert unequal_steps(run, unbroken) == unequal_weights(run, unbroken) == 0
    assert equal_but_for_seconds(run, unbroken)
