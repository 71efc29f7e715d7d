"""`ra3kit explain`: a component from its signature and docstring, by path, by name and by its place in a recipe."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ra3kit.cli import main
from ra3kit.cli.explain import find
from ra3kit.contracts import CONTRACTS, members
from ra3kit.explanation import by_path, explained, in_yaml
from ra3kit.signatures import check, signature_of

MINE = '''
from ra3kit.abstraction.prior import FixedPenalty


class Mine(FixedPenalty):
    """Dearer on Mondays.

    Args:
        monday: factor on Mondays, >= 1; the other arguments as in `FixedPenalty`.

    Raises:
        ValueError: monday is below 1.
    """

    def __init__(self, monday: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        self.monday = monday
'''


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_alone_it_lists_the_components_of_every_contract(capsys: pytest.CaptureFixture[str]) -> None:
    out = explain(capsys)
    for contract in CONTRACTS:
        assert f"\n{contract.name}  ({contract.key or 'no recipe key'})\n" in "\n" + out
        for item in members(contract):
            assert f"\n  {item.name} " in out
    assert max(map(len, out.splitlines())) <= 120


def test_the_list_is_there_without_torch() -> None:
    code = "import sys; from ra3kit.cli import main; main(['explain']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["HindsightPosterior", "ra3kit.abstraction.posterior.HindsightPosterior"])
def test_a_class_by_name_and_by_path(capsys: pytest.CaptureFixture[str], name: str) -> None:
    out = explain(capsys, name)
    assert out.startswith("ra3kit.abstraction.posterior.HindsightPosterior\nq also sees the next lines")
    assert "source       ra3kit" in out or "abstraction/posterior.py, line " in out
    assert "contract     posterior: docstring of ra3kit.abstraction.posterior.LatentPosterior" in out
    assert "check yours  ra3kit.testing.check_posterior" in out
    assert "  lines_ahead  (int; default 3)\n      coming lines that q sees, >= 1\n" in out
    assert "  think  ('free', 'always', 'never'; default free)\n" in out
    assert "most tokens of a thought, its opening and line end included" in out  # said by the base class


def test_the_snippet_is_a_recipe_with_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    out = explain(capsys, "FixedPenalty")
    snippet = yaml.safe_load(out.partition("in a recipe\n")[2])
    path = "ra3kit.abstraction.prior.FixedPenalty"
    assert snippet == {"model": {"prior": {"class_path": path, "c": 0.05, "scale": "token_mean"}}}
    assert "  RecipeError: c is negative, infinite or NaN" in out


@pytest.mark.parametrize("path", sorted({m.path for c in CONTRACTS if c.key for m in members(c)}))
def test_every_snippet_fits_the_signatures(path: str) -> None:
    asked = by_path(path)
    tree = in_yaml(asked, signature_of(asked.target))
    (section, rest) = next(iter(tree.items()))
    if section == "trainer":
        check({"trainer": rest}, only=["trainer"])
        return
    while "class_path" not in rest:
        rest = next(iter(rest.values()))
    given = {name: value for name, value in rest.items() if value != "???"}
    assert set(given) <= {"class_path", *signature_of(asked.target).arguments}
    missing = [name for name, value in rest.items() if value == "???"]
    required = [n for n, a in signature_of(asked.target).arguments.items() if a.default is inspect.Parameter.empty]
    assert set(required) <= set(missing)
    assert "\n".join(explained(asked)).count("(not described)") == 0


def test_a_class_of_ones_own_is_explained_like_the_kits(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "mine.py").write_text(MINE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    out = explain(capsys, "mine.Mine")
    assert out.startswith("mine.Mine\nDearer on Mondays.\n\nsource       mine.py, line 5\n")
    assert "bases        FixedPenalty, LatentPrior, LightningModule\n" in out
    assert (
        "  monday  (float; default 2.0)\n      factor on Mondays, >= 1\n  c  (float; default 0.05)\n      price of a"
        in out
    )
    assert "  ValueError: monday is below 1.\n  RecipeError: c is negative" in out
    assert yaml.safe_load(out.partition("in a recipe\n")[2])["model"]["prior"] == {
        "class_path": "mine.Mine",
        "monday": 2.0,
        "c": 0.05,
        "scale": "token_mean",
    }


def test_a_place_in_a_recipe_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    out = explain(capsys, "tiny-ra3:model.learner")
    assert "key          model.learner\n" in out
    assert "  horizon  (int or null; default null; here 6)\n" in out
    snippet = yaml.safe_load(out.partition("in a recipe\n")[2])["model"]["learner"]
    assert snippet["scale"] == "line_sum"
    assert snippet["optimization"]["schedule"] == "constant"
    assert "entropy_coef" not in snippet


@pytest.mark.parametrize(
    ("place", "start"),
    [
        ("model.learner.rollouts", "model.learner.rollouts, an argument of ra3kit.abstraction.learner.Abstr"),
        ("model.learner.optimization", "ra3kit.optimize.Optimization\nAdamW with a learning-rate schedule"),
        ("model.policy.tokenizer", "ra3kit.data.tokenizer.TrainedTokenizer\n"),
        ("model.policy.lora", "model.policy.lora, an argument of ra3kit.policy.BasePolicy\n"),
        ("trainer.callbacks.0", "ra3kit.callbacks.em_switch.EMSwitch\n"),
        ("trainer.max_epochs", "trainer.max_epochs, an argument of lightning.pytorch"),
        ("data.segmenter", "data.segmenter, an argument of ra3kit.data.module.TrajectoryDataModule\n"),
        ("data", "ra3kit.data.module.TrajectoryDataModule\n"),
    ],
)
def test_places_of_a_recipe(capsys: pytest.CaptureFixture[str], place: str, start: str) -> None:
    assert explain(capsys, f"tiny-ra3:{place}").startswith(start)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("CausalPosteror", "No class 'CausalPosteror' in the kit. Did you mean 'CausalPosterior'?"),
        ("posterior", "It is a contract"),
        ("ra3kit.abstraction.prior.FixedPenlty", "Did you mean 'FixedPenalty'?"),
        ("ra3kit.actions", "ra3kit.actions is a module. Name a class of it: ra3kit.actions.Action"),
        ("nowhere.Class", "nowhere.Class: there is no module 'nowhere'."),
        ("tiny-ra33:model", "No recipe 'tiny-ra33'. Did you mean 'tiny-ra3'?"),
        ("tiny-ra3:model.lerner", "tiny-ra3:model.lerner: no such key. Did you mean 'learner'?"),
        ("tiny-ra3:modell", "Did you mean 'model'? Sections with components: model, data, trainer."),
        ("tiny-ra3:run.seed", "Sections with components: model, data, trainer."),
        ("tiny-ra3:trainer.callbacks.99", "a list with the indices 0 to "),
        ("tiny-ra3:model.policy.config.hidden_size", "no component there, but the value 128."),
        ("tiny-ra3:model.learner.rollouts.x", "model.learner.rollouts is the value 8, which has no keys of its own."),
    ],
)
def test_what_cannot_be_explained_is_named_with_the_nearest(
    capsys: pytest.CaptureFixture[str], asked: str, says: str
) -> None:
    assert says in refused(capsys, asked)


def test_a_name_that_several_classes_have_needs_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert find("PassAtK") == "ra3kit.callbacks.pass_at_k.PassAtK"  # the component, not the metric
    assert "is the name of several classes. Give the import path: ra3kit." in refused(capsys, "Difference")
