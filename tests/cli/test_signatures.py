"""Every key and value of a recipe is compared with the signatures; each mistake names key, value, allowed, nearest."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from ra3kit.errors import RecipeError
from ra3kit.recipe import load
from ra3kit.signatures import Signature, check, choices_of, component_classes, import_class, signature_of, spell


def checked(*overrides: str) -> None:
    recipe = load("toy.yaml", overrides)
    check(recipe.tree, recipe.touched)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.head.per=token",),
        ("model.head={class_path: toys.Plain, scale: 2}",),
        ("model.head={class_path: toys.Costly, init_args: {cost: 1}}",),
        ("model.head.class_path=toys.Plain", "model.head={class_path: toys.Plain}"),
        ("model.body.width=4",),  # a concrete class need not be named
        ("model.tags={a: [1], b: {c: d}}",),
        ("data.path=[a, b]",),
        ("trainer.max_time=null", "trainer.devices=[0]", "trainer.precision=bf16-mixed"),
        ("trainer.callbacks=[]",),
        ("trainer.callbacks={class_path: toys.Recorder, file: a}",),
        ("model={class_path: toys.Forwarding, extra: 1, depth: 2}",),
        ("model.lr=1",),  # an int is a float
    ],
)
def test_what_fits_is_accepted(desk: Path, overrides: tuple[str, ...]) -> None:
    checked(*overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.lrr=1", "model.lrr: toys.ToyModel has no argument 'lrr'. Did you mean 'lr'? It takes: head, body, lr"),
        ("model.head.cots=1", "model.head.cots: toys.Costly has no argument 'cots'. Did you mean 'cost'?"),
        ("model.body.widht=4", "model.body.widht: toys.Body has no argument 'widht'. Did you mean 'width'?"),
        ("model.hed.cost=4", "model.hed: toys.ToyModel has no argument 'hed'. Did you mean 'head'?"),
        ("data.cuont=4", "Did you mean 'count'? It takes: count, path, seed."),
        ("trainer.max_step=4", "Did you mean 'max_steps'?"),
        ("trainer.callbacks.0.evry=4", "trainer.callbacks.0.evry: toys.Recorder has no argument"),
        ("model.lr=fast", "model.lr='fast': allowed is float."),
        ("model.lr=null", "model.lr=null: allowed is float."),
        ("data.count=2.5", "data.count=2.5: allowed is int."),
        ("data.path=3", "data.path=3: allowed is str or list[str]."),
        ("model.head=null", "model.head=null: allowed is Head."),
        ("model.reduction=men", "model.reduction='men': allowed is 'mean', 'sum'. Did you mean 'mean'?"),
        ("model.head.per=lin", "model.head.per='lin': allowed is 'line', 'token'. Did you mean 'line'?"),
        ("trainer.callbacks.0.every=x", "trainer.callbacks.0.every='x': allowed is int."),
        ("model.class_path=toys.ToyModl", "toys has no class 'ToyModl'. Did you mean 'ToyModel'? There: Body, Costly"),
        ("model.class_path=toyz.ToyModel", "there is no module 'toyz'. Did you mean 'toys'?"),
        ("model.class_path=ToyModel", "model.class_path='ToyModel': a dotted path is needed"),
        ("model.class_path=ra3kit.eror.X", "ra3kit has no module 'eror'. Did you mean 'errors'?"),
        ("model.class_path=ra3kit.errors.RecipeEror", "Did you mean 'RecipeError'?"),
        ("model.class_path=toys.ToyData", "model must be a LightningModule, this is none."),
        ("data.class_path=toys.ToyModel", "data must be a LightningDataModule, this is none."),
        ("model.head.class_path=toys.Body", "model.head must be a Head, this is none."),
        ("trainer.callbacks.0.class_path=os.sep", "this is no class but str"),
        ("model.head={scale: 1}", "model.head needs a class_path: Head is abstract."),
        ("model.head={class_path: toys.Costly}", "model.head (toys.Costly) needs cost: set model.head.cost=..."),
        ("model={class_path: toys.ToyModel}", "model (toys.ToyModel) needs head"),
    ],
)
def test_what_does_not_fit_says_what_would(desk: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        checked(override)
    assert message in str(error.value)


def test_a_swapped_class_does_not_inherit_arguments_it_does_not_take(desk: Path) -> None:
    with pytest.raises(RecipeError) as error:
        checked("model.head.class_path=toys.Plain")
    assert str(error.value) == (
        "model.head.class_path was swapped for toys.Plain, which does not take 'cost', set in the recipe for another "
        "class. It takes: scale. Replace the whole component: model.head='{class_path: toys.Plain}'"
    )
    with pytest.raises(RecipeError, match=r"model\.head\.cots: toys\.Plain has no argument 'cots'"):
        checked("model.head={class_path: toys.Plain}", "model.head.class_path=toys.Plain", "model.head.cots=1")


def test_a_module_that_needs_something_missing_says_what(desk: Path) -> None:
    (desk / "needy.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(RecipeError, match="importing needy needs 'not_installed_anywhere'"):
        import_class("needy.Model", "model")
    (desk / "halves.py").write_text("from json import not_there\n")
    with pytest.raises(RecipeError, match="importing halves failed: cannot import name 'not_there'"):
        import_class("halves.Model", "model")


def test_nested_classes_and_functions_can_be_named(desk: Path) -> None:
    assert import_class("collections.abc.Mapping", "x") is not None
    assert import_class("string.Template.substitute", "x").__name__ == "substitute"


class Base:
    def __init__(self, low: int, both: int = 1) -> None: ...


class Through(Base):
    def __init__(self, both: str, *args: Any, **kwargs: Any) -> None: ...


class Open(Through):
    def __init__(self, top: int, **kwargs: Any) -> None: ...


class Bare: ...


class Unevaluated:
    def __init__(self, x: NotImported = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def factory(size: int, *, name: str = "a") -> Base: ...  # type: ignore[empty-body]


def test_keyword_arguments_are_followed_through_the_bases() -> None:
    signature = signature_of(Open)
    assert list(signature.arguments) == ["top", "both", "low"]
    assert signature.arguments["both"].hint is str  # the nearest class decides
    assert not signature.is_open
    assert list(signature_of(factory).arguments) == ["size", "name"]
    assert signature_of(lambda **kwargs: None).is_open
    assert signature_of(dict).is_open  # a constructor written in C
    assert signature_of(complex).is_open  # made by __new__
    assert signature_of(Bare) == Signature({}, is_open=False)


def test_annotations_that_cannot_be_evaluated_are_left_to_the_builder() -> None:
    assert list(signature_of(Unevaluated).arguments) == ["x"]


class Colour(Enum):
    red = 1
    blue = 2


def test_annotations_in_words() -> None:
    assert spell(Colour) == "red, blue"
    assert spell(dict[str, int] | None) == "dict[str, int] or null"
    assert choices_of(Literal["a", 1] | Colour | None) == ["a", "red", "blue"]
    assert component_classes(Base | int | None) == [Base]
    assert component_classes(Callable[[int], Base]) == []
