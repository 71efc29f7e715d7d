"""ls, cp and show."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ra3kit.cli import main
from ra3kit.recipe import describe, load, shipped


def test_ls_prints_a_line_for_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped())
    assert all(line.endswith(describe(path)) for line, path in zip(lines, shipped().values(), strict=True))


def test_cp_copies_byte_for_byte_and_never_overwrites_silently(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "toy.yaml", "mine.yaml"]) == 0
    assert "ra3kit fit --recipe mine.yaml" in capsys.readouterr().out
    assert (desk / "mine.yaml").read_bytes() == (desk / "toy.yaml").read_bytes()
    (desk / "mine.yaml").write_text("precious")
    assert main(["cp", "toy.yaml", "mine.yaml"]) == 2
    assert "mine.yaml exists and was left as it is" in capsys.readouterr().err
    assert (desk / "mine.yaml").read_text() == "precious"
    assert main(["cp", "toy.yaml", "mine.yaml", "--force"]) == 0
    assert (desk / "mine.yaml").read_bytes() == (desk / "toy.yaml").read_bytes()


def test_cp_into_a_folder_keeps_the_name(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "sub").mkdir()
    assert main(["cp", "toy.yaml", "sub"]) == 0
    assert (desk / "sub" / "toy.yaml").exists()


@pytest.mark.parametrize(
    ("destination", "message"),
    [("mine", "Try mine.yaml"), ("no/mine.yaml", "there is no folder no"), (".", "toy.yaml exists")],
)
def test_cp_refuses_what_could_not_be_run(
    desk: Path, destination: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "toy.yaml", destination]) == 2
    assert message in capsys.readouterr().err


def test_show_prints_a_recipe_that_is_the_resolved_one(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "toy.yaml", "vars.seed=8", "model.head.cost=0.25", "run.seed=2"]) == 0
    shown = capsys.readouterr().out
    tree = yaml.safe_load(shown)
    assert shown.startswith("# a toy that trains in milliseconds\n")
    assert tree["data"] == {"class_path": "toys.ToyData", "seed": 8}
    assert tree["model"]["head"]["cost"] == 0.25
    assert tree["run"] == {"name": "toy", "seed": 2}
    (desk / "shown.yaml").write_text(shown)
    again = load("shown.yaml")
    assert {key: again.tree[key] for key in ("model", "data", "trainer")} == {
        key: tree[key] for key in ("model", "data", "trainer")
    }
    assert again.name == "toy"


def test_show_looks_up_the_keys_that_an_override_adds(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "toy.yaml", "model.reduction=sum"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["reduction"] == "sum"
    assert main(["show", "toy.yaml", "model.reductoin=sum"]) == 2
    assert "Did you mean 'reduction'?" in capsys.readouterr().err
    assert main(["show", "toy.yaml", "model.head.class_path=toys.Plain"]) == 2
    assert "does not take 'cost'" in capsys.readouterr().err
