"""Recipes changed at random: they load, fit and build, or a RA3Error names what was changed. Never anything else."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, composite
from tiny_recipes import NTP, RA3, RLVR, write_code

from ra3kit.errors import RA3Error
from ra3kit.recipe import load, shipped
from ra3kit.signatures import check

Path_ = tuple[str | int, ...]


@pytest.fixture(scope="module", autouse=True)
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One working folder for all examples."""
    folder = tmp_path_factory.mktemp("desk")
    write_code(folder / "code", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    assert [path.name for path in folder.iterdir() if path.name != "x.yaml"] == ["code"]  # a plan writes nothing


BASES = [yaml.safe_load(recipe) for recipe in (NTP, RA3, RLVR)]
SHIPPED = [yaml.safe_load(path.read_text()) for path in shipped().values()]

numbers = st.sampled_from(
    [-1, 0, 1, 2, 3, 7, 64, 2**31, 2**63, 10**30, 0.0, -0.5, 0.5, 1e308, float("nan"), float("inf"), float("-inf")]
)
WORDS = [
    *("a.b.C", "..", "os.system", "subprocess.Popen", "builtins.dict", "builtins.len", "json", "torch.nn.Linear"),
    *("collections.OrderedDict", "lightning.pytorch.LightningModule", "ra3kit.policy", "ra3kit.policy.BasePolicy"),
    *("ra3kit.callbacks.report.RunReport", "ra3kit.abstraction.prior.LatentPrior", "ra3kit.data.corpora.SourceFile"),
    *("${run.seed}", "${model}", "${", "${oc.env:NOPE}", "${oc.env:HOME}", "???", "code", "code/f0.py", "nowhere"),
    *("ra3kit.rlvr.rewards.VerifierReward", "ra3kit.rlvr.judge.Judge", "segment", "partial", "chat", "mbpp"),
    *("hf:a/b", "cpu", "auto", "gpu", "ddp", "qwen2", "llama", "null", "1e-3", "[", "&a", "*a", "!!set", "%", "@"),
]
words = st.text(max_size=6) | st.sampled_from(WORDS)
scalars = st.one_of(st.none(), st.booleans(), numbers, words)
KEYS = [
    *("class_path", "init_args", "dict_kwargs", "seed", "path", "lr", "config", "callbacks", "max_steps", "name"),
    *(1, None),
]
keys = st.text(max_size=4) | st.sampled_from(KEYS)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


@dataclass(frozen=True)
class Broken:
    """A recipe's tree, and the keys that lead to what was changed."""

    tree: Any
    names: frozenset[str]


def places(node: Any, here: Path_ = ()) -> Iterator[Path_]:
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


def at(tree: Any, place: Path_) -> Any:
    for key in place:
        tree = tree[key]
    return tree


@composite
def broken(draw: DrawFn, bases: list[Any]) -> Broken:
    """One to three changes: a key dropped, renamed or inserted, a value replaced, nested, or taken from elsewhere."""
    tree = copy.deepcopy(draw(st.sampled_from(bases)))
    names: set[str] = set()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(tree))))
        parent, key = at(tree, place[:-1]), place[-1]
        change = draw(st.sampled_from(["drop", "rename", "insert", "replace", "nest", "splice"]))
        names |= {str(part) for part in place}
        if change == "drop":
            parent.pop(key)
        elif change == "replace":
            parent[key] = draw(values)
        elif change == "nest":
            parent[key] = {draw(keys): parent[key]} if draw(st.booleans()) else [parent[key]]
        elif change == "splice":
            parent[key] = copy.deepcopy(at(tree, draw(st.sampled_from(list(places(tree))))))
        elif isinstance(parent, dict):
            name = draw(keys)
            names.add(str(name))
            parent[name] = parent.pop(key) if change == "rename" else draw(values)
        else:
            parent.insert(0, draw(values))
    return Broken(tree, frozenset(names))


def written(recipe: Broken) -> str:
    Path("x.yaml").write_text(yaml.safe_dump(recipe.tree, sort_keys=False))
    return "x.yaml"


def said(error: RA3Error, recipe: Broken) -> None:
    """The message is for people: it names a key that was touched, or where in the file YAML stopped; on few lines."""
    message = str(error)
    assert message.strip()
    assert len(message) < 5000
    words = {word for name in recipe.names for word in (name, repr(name)) if word}
    assert any(word in message for word in words) or re.search(r"x\.yaml", message), (message, sorted(words))


def model(**keys: Any) -> Broken:
    return Broken({"model": keys, "data": {"class_path": "a.D"}}, frozenset(map(str, keys)))


@settings(suppress_health_check=list(HealthCheck))
@given(recipe=broken(SHIPPED + BASES))
@example(model(class_path="a.B", init_args=5))
@example(model(class_path="..", x=1))
@example(model(**{"class_path": "ra3kit.policy.BasePolicy", "1": None}))
def test_any_recipe_is_loaded_and_checked_or_refused(recipe: Broken) -> None:
    try:
        loaded = load(written(recipe))
        check(loaded.tree, loaded.touched)
    except RA3Error as error:
        said(error, recipe)


@settings(suppress_health_check=list(HealthCheck), max_examples=max(30, settings().max_examples // 4))
@given(recipe=broken(BASES))
@example(model(class_path="ra3kit.policy.BasePolicy", optimization={"init_args": "x"}))
@example(model(class_path="ra3kit.policy.BasePolicy", tokenizer="code", config={"model_type": {"a": 1}}))
def test_any_recipe_is_planned_or_refused(recipe: Broken) -> None:
    from ra3kit.cli.plan import plan

    try:
        plan(load(written(recipe)), Path("never"))
    except RA3Error as error:
        said(error, recipe)
    finally:
        assert not Path("PWNED").exists()
