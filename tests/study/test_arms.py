"""Arms and regime: recipes take what is set in them, their own numbers are the regime's, presets can be run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from ra3kit.errors import RecipeError
from ra3kit.recipe import find, load
from ra3kit.study.arms import ARMS, Arm, chosen, of_sweep
from ra3kit.study.regime import CLAIMS, FULL, PRESETS, Regime, preset_of
from ra3kit.study.run import Clock, Task, content_hash, words


@pytest.mark.parametrize("arm", ARMS.values(), ids=list(ARMS))
def test_recipes_take_what_an_arm_sets(arm: Arm) -> None:
    start = Path("some/model") if arm.after else None
    overrides = arm.overrides(FULL, 7, start)
    recipe = load(arm.recipe, overrides)
    assert recipe.tree["run"]["seed"] == 7
    assert not recipe.added  # every key is in the file
    assert "world=7" in recipe.tree["data"]["path"]
    if start is not None:
        assert "some/model" in find(arm.recipe).read_text().replace("${vars.base}", "some/model")
    assert all(other in list(ARMS)[: list(ARMS).index(arm.name)] for other in arm.needs)


ALONE = [arm for arm in ARMS.values() if not arm.sweep and arm.name != "ntp-compute"]


@pytest.mark.parametrize("arm", ALONE, ids=lambda arm: arm.name)
def test_a_recipe_alone_is_the_arm_of_the_full_regime(arm: Arm) -> None:
    """Run by hand, without the study's overrides, a recipe has the regime's numbers."""
    start = Path("runs/tiny-base/001/model")
    alone = load(arm.recipe).tree
    in_study = load(arm.recipe, arm.overrides(FULL, 0, start if arm.after else None)).tree
    assert alone == in_study


def test_a_sweep_changes_its_number_alone() -> None:
    trees = [load(arm.recipe, arm.overrides(FULL, 1, Path("m"))).tree for arm in of_sweep("c", ARMS.values())]
    values = [tree["model"]["prior"].pop("c") for tree in trees]
    assert values == [0, 0.25, 4, 16]
    assert all(tree == trees[0] for tree in trees)


def test_more_compute_is_more_steps_alone() -> None:
    plain, longer = (load(ARMS[a].recipe, ARMS[a].overrides(FULL, 1, Path("m"))).tree for a in ("ntp", "ntp-compute"))
    assert (plain["trainer"].pop("max_steps"), longer["trainer"].pop("max_steps")) == (FULL.steps, FULL.compute_steps)
    for tree in (plain, longer):
        tree.pop("vars", None)
    assert plain == longer


def test_what_arms_need_comes_with_them() -> None:
    assert [arm.name for arm in chosen(["grpo-from-ra3", "ntp-compute"])] == [
        *("base", "ra3", "ntp-compute", "grpo-from-ra3")
    ]
    with pytest.raises(RecipeError, match="Did you mean 'ntp'"):
        chosen(["ntpp"])


def test_presets_name_arms_and_full_has_what_is_claimed() -> None:
    for preset in PRESETS.values():
        assert {arm.name for arm in chosen(preset.arms)} == set(preset.arms)
    full = preset_of("full")
    assert len(full.seeds) >= 5
    assert {name for claim in CLAIMS for name in (claim.ours, claim.theirs)} <= set(full.arms)
    assert not set(full.seeds) & set(preset_of("quick").seeds)
    assert max(full.seeds) < 100  # worlds from 100 on are for development
    with pytest.raises(RecipeError, match="Did you mean 'full'"):
        preset_of("ful")


def test_every_number_of_the_regime_is_explained() -> None:
    for field in fields(Regime):
        assert f"        {field.name}: " in (Regime.__doc__ or "").replace("    Args:\n", "")


def test_a_base_is_known_by_recipe_and_corpus() -> None:
    base = ARMS["base"]
    assert content_hash(base, FULL, 3) == content_hash(base, FULL, 3)
    assert content_hash(base, FULL, 3) != content_hash(base, FULL, 4)
    shorter = Regime(base_steps=10)
    assert content_hash(base, FULL, 3) != content_hash(base, shorter, 3)


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """One arm of 4 minutes took 2: of 6 minutes 3 are left, 1.5 with two at a time."""
    now = [0.0]
    monkeypatch.setattr("ra3kit.study.run.time.monotonic", lambda: now[0])
    clock = Clock(jobs=2)
    done, left = Task(1, ARMS["base"], False), Task(1, ARMS["grpo-from-ra3"], False)
    assert clock.left([left]) == left.minutes / 2
    clock.start(done)
    now[0] = 120.0
    clock.end(done)
    assert clock.left([left]) == pytest.approx(left.minutes / 2 * 2 / done.minutes)
    assert words(89) == "89 min"
