"""Recipes are found, loaded, overridden, resolved and normalised as documented; every mistake names itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ra3kit import recipe as recipes
from ra3kit.errors import RecipeError
from ra3kit.overrides import parse_override, set_value
from ra3kit.recipe import describe, find, flatten, load, normalise, shipped, to_yaml

TEXT = """\
# one line about it
vars:
  width: 4
model:
  class_path: pkg.Model
  width: ${vars.width}
  policy:
    class_path: pkg.Policy
    init_args:
      depth: 1
data:
  class_path: pkg.Data
  path: [a, b]
  width: ${vars.width}
  seed: ${run.seed}
trainer:
  callbacks:
    - class_path: pkg.Stop
      patience: 2
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return str(path)


def test_interpolations_are_resolved_after_overrides(file: str) -> None:
    tree = load(file, ["vars.width=7", "run.seed=5"]).tree
    assert (tree["model"]["width"], tree["data"]["width"], tree["data"]["seed"]) == (7, 7, 5)
    assert "vars" not in tree  # their values are in place; an override of one would do nothing


def test_run_defaults_are_there_without_a_run_section(file: str) -> None:
    loaded = load(file)
    assert loaded.tree["run"] == {"name": None, "dir": None, "seed": 0}
    assert loaded.name == "mine"
    assert load(file, ["run.name=other"]).name == "other"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-4", 1e-4),
        ("[1,2]", [1, 2]),
        ("null", None),
        ("true", True),
        ("word", "word"),
        ("a=b", "a=b"),
        ("'1'", "1"),
        ("{x: 1, y: [2]}", {"x": 1, "y": [2]}),
        ("stdlib:expert", "stdlib:expert"),
    ],
)
def test_values_are_yaml(text: str, value: Any) -> None:
    assert parse_override(f"data.x={text}") == ("data.x", value)


def test_overrides_reach_arguments_at_any_depth_whichever_way_they_are_written(file: str) -> None:
    tree = load(file, ["model.policy.depth=3", "trainer.callbacks.0.patience=9", "data.path.1=c", "model.new=1"]).tree
    assert tree["model"]["policy"]["init_args"]["depth"] == 3
    assert tree["trainer"]["callbacks"][0]["patience"] == 9
    assert tree["data"]["path"] == ["a", "c"]
    assert tree["model"]["new"] == 1


def test_a_mapping_replaces_a_component_and_later_overrides_win(file: str) -> None:
    tree = load(file, ["model.policy={class_path: pkg.Other, x: 1}", "model.policy.x=2", "model.width=1"]).tree
    assert tree["model"]["policy"] == {"class_path": "pkg.Other", "x": 2}
    assert tree["model"]["width"] == 1


def test_added_names_the_keys_that_need_a_look_at_the_class(file: str) -> None:
    overrides = ["model.width=1", "model.policy.depth=2", "data.new=1", "data.class_path=pkg.Data2"]
    assert load(file, overrides).added == ("data.new", "data.class_path")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.width=1", "no such section 'modle'. Did you mean 'model'?"),
        ("vars.widht=1", "vars.widht: no such key. Did you mean 'width'? Allowed in vars: width"),
        ("run.sed=1", "run.sed: no such key. Did you mean 'seed'? Allowed in run: name, dir, seed"),
        ("run.seed=abc", "run.seed='abc': allowed is a whole number"),
        ("run.seed=true", "run.seed=True: allowed is a whole number"),
        ("run.name=../x", "run.name='../x'"),
        ("run.dir=3", "run.dir=3: allowed is a non-empty text or null"),
        ("trainer.callbacks.1.patience=3", "trainer.callbacks is a list; '1' is not one of its indices (0 to 0)"),
        ("trainer.callbacks.stop.patience=3", "'stop' is not one of its indices"),
        ("data.path.0.x=1", "data.path.0 holds the value 'a'"),
        ("model.width.x=1", "model.width is ${vars.width}; override what it points at"),
        ("model=3", "model=3: a section needs keys, for example model.class_path=package.module.Class"),
        ("data.x", "Write key=value"),
        ("=3", "Write key=value"),
        ("data..x=3", "Write key=value"),
        ("data.x=", "data.x=null for none"),
        ("data.x=[1", "data.x: the value '[1' is not YAML"),
        ("--data.x=1", "overrides are written without dashes: data.x=1"),
        ("data.x=${vars.widht}", "data.x: ${vars.widht} points at nothing in this recipe. Did you mean 'vars.width'?"),
        ("vars.width=${vars.width}", "cannot be resolved"),
        ("model.width=???", "model.width: this recipe asks for a value"),
    ],
)
def test_overrides_that_fit_nowhere_say_why(file: str, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load(file, [override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  class_path: [a\ndata: 1\n", "line 3"),
        ("model:\n\tx: 1\n", "line 2, column 1"),
        ("model:\n  a: 1\n  a: 2\n", "line 3"),
        ("- a\n- b\n", "it holds a list"),
        ("just a text\n", "no such section 'just a text'"),
        ("", "section 'model' is missing"),
        ("model: {class_path: a.B}\n", "section 'data' is missing"),
        ("model: {class_path: a.B}\ndata: {class_path: a.B}\ntrianer: {}\n", "Did you mean 'trainer'?"),
        ("model: 3\n", "section 'model' holds 3"),
        ("run: {sead: 1}\nmodel: {class_path: a.B}\ndata: {class_path: a.B}\n", "run.sead. Did you mean 'seed'?"),
        ("model: {class_path: a.B, x: 1, init_args: {x: 2}}\ndata: {class_path: a.B}\n", "model.x is given twice"),
    ],
)
def test_malformed_files_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load(str(path))
    assert message in str(error.value)


def test_a_binary_file_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        load(str(path))


def test_recipes_are_found_by_name_in_sub_folders_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes" / "deep").mkdir(parents=True)
    (tmp_path / "recipes" / "deep" / "one.yaml").write_text(TEXT)
    (tmp_path / "recipes" / "two.yml").write_text("model: {}\n")
    (tmp_path / "recipes" / "notes.md").write_text("not a recipe")
    monkeypatch.setattr(recipes.resources, "files", lambda package: tmp_path)
    assert list(shipped()) == ["deep/one", "two"]
    assert load("deep/one").name == "deep/one"
    assert describe(find("deep/one")) == "one line about it"
    assert describe(find("two")) == ""
    with pytest.raises(RecipeError, match=r"No recipe 'twoo'\. Did you mean 'two'\? `ra3kit ls` lists the 2 "):
        find("twoo")
    with pytest.raises(RecipeError, match=r"No recipe file 'twoo\.yaml'"):
        find("twoo.yaml")


def test_normalise_and_flatten_are_each_others_reverse(file: str) -> None:
    tree = load(file).tree
    normal = normalise(tree)
    assert normal["model"]["init_args"]["policy"] == {"class_path": "pkg.Policy", "init_args": {"depth": 1}}
    assert normal["trainer"]["callbacks"] == [{"class_path": "pkg.Stop", "init_args": {"patience": 2}}]
    assert normalise(normal) == normal
    assert normalise(flatten(normal)) == normal


def test_yaml_of_a_tree_loads_as_the_same_tree(tmp_path: Path, file: str) -> None:
    tree = load(file, ["data.lr=1e-5", "data.text='1e-5'", "data.yes='true'", "data.none=null", "data.third=0.1"]).tree
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(tree))
    again = load(str(path)).tree
    assert again == tree
    assert isinstance(again["data"]["text"], str)


def test_setting_a_whole_run_section_keeps_its_defaults() -> None:
    tree: dict[str, Any] = {"run": {"seed": 0}}
    set_value(tree, "run", {"seed": 4})
    assert tree["run"] == {"name": None, "dir": None, "seed": 4}
