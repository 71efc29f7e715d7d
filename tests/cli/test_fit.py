"""`ra3kit fit`: trains into a new folder, says what it does, and can be repeated from what it saved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ra3kit.cli import main
from ra3kit.errors import DataError, RA3Error, RunError

FIT = ["fit", "--recipe", "toy.yaml"]


def losses(desk: Path) -> list[float]:
    return [float(line) for line in (desk / "losses.txt").read_text().split()]


def test_a_run_says_where_it_is_and_leaves_its_files_there(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "run.seed=4"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:5] == [
        "recipe      toy (toy.yaml)",
        "run folder  runs/toy/001",
        "seed        4",
        "devices     1 x cpu",
        "precision   32-true",
    ]
    assert lines[-4].startswith("toy loss ")
    assert lines[-3:] == [
        "results     runs/toy/001",
        "TensorBoard tensorboard --logdir runs/toy/001",
        "next        ra3kit fit --recipe runs/toy/001/recipe.yaml run.seed=5",
    ]
    assert "epoch 2/2, step 4/4" in out  # plain progress, as stdout is no terminal
    folder = desk / "runs" / "toy" / "001"
    assert (folder / "checkpoints" / "step-00000008" / "about.json").exists()
    assert list(folder.glob("events.out.tfevents*"))
    assert len(losses(desk)) == 8


def test_the_saved_recipe_repeats_the_run_exactly_in_a_new_folder(desk: Path) -> None:
    assert main([*FIT, "vars.seed=5", "run.seed=1", "model.lr=1e-2"]) == 0
    first = losses(desk)
    assert main(["fit", "--recipe", "runs/toy/001/recipe.yaml"]) == 0
    assert losses(desk) == first
    saved = [(desk / "runs" / "toy" / number / "recipe.yaml").read_text() for number in ("001", "002")]
    assert saved[0] == saved[1]
    tree = yaml.safe_load(saved[0])
    assert tree["run"] == {"name": "toy", "seed": 1}
    assert (tree["model"]["lr"], tree["model"]["reduction"], tree["data"]["count"]) == (1e-2, "mean", 16)
    assert main(["fit", "--recipe", "runs/toy/001/recipe.yaml", "run.seed=2"]) == 0
    assert losses(desk) != first  # the seed is what makes them equal


def test_an_explicit_folder_is_used_once(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "run.dir=out/mine", "trainer.max_epochs=1"]) == 0
    assert "run folder  out/mine" in capsys.readouterr().out
    before = sorted((desk / "out" / "mine").rglob("*"))
    assert main([*FIT, "run.dir=out/mine", "trainer.max_epochs=1"]) == 2
    assert "out/mine: this folder is not empty. Nothing is overwritten" in capsys.readouterr().err
    assert sorted((desk / "out" / "mine").rglob("*")) == before
    assert "dir" not in yaml.safe_load((desk / "out" / "mine" / "recipe.yaml").read_text())["run"]


def test_a_run_that_cannot_be_built_leaves_no_folder(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "model.lr=fast"]) == 2
    assert main([*FIT, "model.lr=fast", "run.dir=mine"]) == 2
    assert not list((desk / "runs" / "toy").glob("*"))
    assert not (desk / "mine").exists()


def test_errors_of_the_kit_are_one_line_unless_debugging(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "data.path=missing"]) == 2
    assert "error: data.path='missing': no such folder.\n" in capsys.readouterr().err
    with pytest.raises(RA3Error, match="no such folder"):
        main([*FIT, "data.path=missing", "--debug"])


@pytest.mark.parametrize("where", ["model.head", "model.tags", "model"])  # of type Head, str | Head, LightningModule
def test_an_error_of_a_constructor_is_shown_as_it_was_raised(
    desk: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    name = "RefusingModel" if where == "model" else "Refusing"
    refusing = f"{where}={{class_path: toys.{name}, kind: %s}}"
    assert main([*FIT, refusing % "kit"]) == 2
    assert capsys.readouterr().err.endswith("error: weights='nowhere': no such folder.\n")
    with pytest.raises(DataError, match=r"^weights='nowhere': no such folder") as error:
        main([*FIT, refusing % "kit", "--debug"])
    assert isinstance(error.value.__cause__, OSError)  # the reason it gave is still there
    with pytest.raises(ValueError, match=r"^a plain mistake$"):
        main([*FIT, refusing % "python"])
    assert not list((desk / "runs" / "toy").glob("*"))


def test_two_callbacks_that_cannot_be_saved_apart_are_refused_in_one_line(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning tells saved states apart by class and what a callback adds, and raises a RuntimeError."""
    one = "{class_path: toys.Counting}"
    assert main([*FIT, f"trainer.callbacks=[{one}]"]) == 0
    capsys.readouterr()
    assert main([*FIT, f"trainer.callbacks=[{one}, {one}]"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert line.startswith("error: trainer: Found more than one stateful callback of type `Counting`.")
    assert sorted(folder.name for folder in (desk / "runs" / "toy").iterdir()) == ["001"]


def test_an_interrupted_run_says_where_its_files_are(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*FIT, "trainer.callbacks.0={class_path: toys.Interrupt}"])
    captured = capsys.readouterr()
    assert "interrupted; what was written so far is in runs/toy/001" in captured.err
    assert "results" not in captured.out


def test_what_the_recipe_says_about_logger_and_progress_stands(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "trainer.logger=false", "trainer.enable_progress_bar=false"]) == 0
    out = capsys.readouterr().out
    assert "TensorBoard" not in out
    assert "epoch 1/2" not in out
    assert not list((desk / "runs" / "toy" / "001").glob("events*"))


def test_the_folder_of_the_trainer_is_the_run_folder(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "trainer.default_root_dir=elsewhere"]) == 2
    assert "Set run.dir instead" in capsys.readouterr().err


def test_a_shipped_recipe_ends_with_how_to_own_it(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {"toy": desk / "toy.yaml"}
    monkeypatch.setattr("ra3kit.recipe.shipped", lambda: shipped)
    monkeypatch.setattr("ra3kit.cli.fit.shipped", lambda: shipped)
    assert main(["fit", "--recipe", "toy", "trainer.max_epochs=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next        ra3kit cp toy my-toy.yaml"


def test_several_processes_from_outside_need_one_folder(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ra3kit.recipe import load
    from ra3kit.runs import claim

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RunError, match=r"run\.dir=runs/my-run"):
        claim(load("toy.yaml"))
    assert claim(load("toy.yaml", ["run.dir=shared"])) == Path("shared")
    assert not (desk / "shared").exists()  # the first process creates it
    monkeypatch.setenv("RANK", "0")
    claim(load("toy.yaml", ["run.dir=shared"]))
    assert (desk / "shared").is_dir()


@pytest.mark.slow
def test_two_processes_share_one_run_folder(desk: Path) -> None:
    command = [sys.executable, "-m", "ra3kit.cli", *FIT, "trainer.devices=2", "trainer.strategy=ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (desk / "runs" / "toy").iterdir()] == ["001"]
    assert done.stdout.count("run folder") == done.stdout.count("results ") == 1
    assert "devices     2 x cpu" in done.stdout
    assert "after 4 steps" in done.stdout  # 16 points, batches of 4, two processes, two epochs
