"""Every recipe file: found by rglob, built through the real command line; the tiny ones trained and compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from ra3kit.cli import main
from ra3kit.data.tokenizer import train_byte_level_bpe
from ra3kit.testing.models import CORPUS, TINY_CONFIG

ROOT = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(ROOT.rglob("*.yaml"))
NAMES = [recipe.relative_to(ROOT).with_suffix("").as_posix() for recipe in RECIPES]
PINNED = Path(__file__).parent / "pinned_losses.json"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text embedded in the tests, as files."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(24):
        text = CORPUS.replace("total", f"total_{i}").replace("Stack", f"Stack{i}")
        (folder / f"file_{i}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as the hub has them, at small size: the architectures and the tokenizer rules of the published models."""
    folders = {}
    for name, model_type, rules in (("qwen2.5", "qwen2", "qwen2"), ("llama", "llama", "llama3")):
        folder = tmp_path_factory.mktemp(name)
        tokenizer = train_byte_level_bpe([CORPUS] * 8, 400, rules)  # type: ignore[arg-type]
        config = {**TINY_CONFIG, "model_type": model_type, "vocab_size": 512, "tie_word_embeddings": True}
        config["max_position_embeddings"] = 2048
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[name] = folder
    return folders


def small(recipe: Path, corpus: Path, published: dict[str, Path]) -> list[str]:
    """Overrides that let a recipe run here: its own text, and for a published model its small likeness."""
    tree = yaml.safe_load(recipe.read_text())
    if tree["data"]["class_path"].endswith("RLVRDataModule"):
        overrides = ["data.path=ra3kit", "data.max_prompt_tokens=800", "model.max_new_tokens=200"]
    else:
        overrides = [f"data.path={corpus}", "data.max_val_snippets=6", "data.val_fraction=0.2"]
    model = tree["model"]
    where, policy = ("model.policy", model["policy"]) if "policy" in model else ("model", model)
    if "model" in policy:
        likeness = published["llama" if "Llama" in policy["model"] else "qwen2.5"]
        overrides += [f"{where}.model={likeness}", "trainer.accelerator=cpu"]
    if "warmup_path" in tree["data"]:
        overrides += [f"data.warmup_path={corpus}"]
    return overrides


def test_there_are_recipes() -> None:
    names = {recipe.stem for recipe in RECIPES}
    assert {"quickstart", "tiny-ntp", "tiny-ra3", "tiny-brite", "qwen2.5-1.5b-ra3", "llama-3.2-1b-ra3"} <= names
    assert {f"llama-3.1-8b-{stage}{way}" for stage in ("ntp", "ra3") for way in ("", "-lora")} <= names


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_builds(
    recipe: Path, corpus: Path, published: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--recipe", str(recipe), "--dry-run", *small(recipe, corpus, published)]) == 0
    out = capsys.readouterr().out
    assert "train_snippets" in out or "prompt_tokens" in out
    assert "peak, activations aside" in out or "moments" in out


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_header_names_its_launch_command(recipe: Path) -> None:
    text = recipe.read_text()
    assert text.startswith("# ")
    name = recipe.relative_to(ROOT).with_suffix("").as_posix()
    for word in ("# Hardware", f"# Launch    ra3kit fit --recipe {name}", "# Override"):
        assert word in text, f"{recipe.name}: header line {word!r} is missing"


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.stem.endswith("-fsdp")], ids=lambda recipe: recipe.stem)
def test_a_sharded_recipe_is_its_plain_one_on_more_devices(recipe: Path) -> None:
    sharded, plain = (yaml.safe_load(path.read_text()) for path in (recipe, Path(str(recipe).replace("-fsdp", ""))))
    assert sharded["trainer"].pop("strategy") == {"class_path": "ra3kit.sharding.FullyShardedStrategy"}
    assert (sharded["trainer"].pop("devices"), plain["trainer"].pop("devices")) == (8, 1)
    assert sharded == plain


def test_a_sharded_plan_is_of_one_process(
    corpus: Path, published: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for name in ("qwen2.5-1.5b-ra3", "qwen2.5-1.5b-ra3-fsdp"):
        recipe = next(r for r in RECIPES if r.stem == name)
        assert main(["fit", "--recipe", str(recipe), "--dry-run", *small(recipe, corpus, published)]) == 0
        shown.append({line.split("  ")[0]: line for line in map(str.strip, capsys.readouterr().out.splitlines())})
    plain, sharded = shown
    assert "in 8 parts; memory is that of one process" in sharded["sharded"]
    sizes = [float(rows["q, AdamW moments"].split()[-2]) for rows in shown]
    assert sizes[0] == pytest.approx(8 * sizes[1], rel=0.02)
    assert "gathered for rollouts, q or pi" in sharded
    assert "gathered for rollouts, q or pi" not in plain


def trained(recipe: str, corpus: Path, published: dict[str, Path], folder: Path) -> dict[str, list[float]]:
    """Train a tiny recipe for a few steps through the command line; its losses and scores."""
    path = next(r for r in RECIPES if r.stem == recipe)
    shrink = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    at = "model" if recipe == "tiny-ntp" else "model.policy"
    overrides = [
        *small(path, corpus, published),
        *(f"{at}.config.{key}={value}" for key, value in shrink.items()),
        f"{at}.tokenizer.vocab_size=400",
        f"{at}.tokenizer.corpus={corpus}",
        "data.tokens_per_step=1500",
        f"run.dir={folder}",
    ]
    if recipe == "tiny-ntp":
        overrides += ["trainer.max_steps=6", "trainer.max_epochs=3"]
    else:
        overrides += ["trainer.callbacks.0.warmup_steps=4", "trainer.callbacks.0.e_steps=2", "data.max_snippets=20"]
    assert main(["fit", "--recipe", str(path), *overrides]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["guards"] == []
    if recipe == "tiny-ntp":
        return {"ntp/loss": [results["metrics"]["ntp/loss"]], "eval": [results["metrics"]["eval/ntp/plain_ce"]]}
    history = results["history"]
    last = results["scores"][-1]["models"]["ra3"]
    return {**{name: values for name, values in history.items()}, "iwae": [last["iwae_ce"]]}


@pytest.mark.parametrize("recipe", ["tiny-ntp", "tiny-ra3", pytest.param("tiny-brite", marks=pytest.mark.slow)])
def test_tiny_recipes_train_to_pinned_losses(
    recipe: str, corpus: Path, published: dict[str, Path], tmp_path: Path
) -> None:
    """Losses as they were when the recipe was last changed on purpose (float32; another machine may differ a little).

    To pin anew: delete the entry in tests/pinned_losses.json and run this test.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        got = trained(recipe, corpus, published, tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    pinned = json.loads(PINNED.read_text()) if PINNED.exists() else {}
    if recipe not in pinned:
        PINNED.write_text(json.dumps({**pinned, recipe: got}, indent=1) + "\n")
        pytest.fail(f"{recipe} had no pinned losses; they are written to {PINNED.name}, look at them and run again")
    assert got.keys() == pinned[recipe].keys()
    for name, values in pinned[recipe].items():
        assert got[name] == pytest.approx(values, abs=2e-3), name
