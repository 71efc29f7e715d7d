"""Model folders that are damaged or foreign, and configs that make no model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ra3kit.policy import BasePolicy
from ra3kit.testing.models import TINY_CONFIG, tiny_tokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_tokenizer().save_pretrained(folder)
    policy = BasePolicy(config={"model_type": "qwen2", **TINY_CONFIG}, tokenizer=str(folder))
    policy.save(folder)
    return folder


def changed(file: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def written(file: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(content)


def without(file: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).unlink()


def other_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no config": (without("config.json"), ["model 'm' cannot be loaded", "config.json"]),
    "config is no JSON": (written("config.json", b"{bad"), ["'m' cannot be loaded", "JSON"]),
    "config is a list": (written("config.json", b"[]"), ["'m' cannot be loaded"]),
    "config is empty": (written("config.json", b"{}"), ["model 'm' cannot be loaded", "model_type"]),
    "config of another size": (
        changed("config.json", hidden_size=64),
        ["model 'm'", "other sizes than its config.json"],
    ),
    "config of another vocabulary": (
        changed("config.json", vocab_size=200),
        ["model 'm'", "other sizes", "[400, 32]"],
    ),
    "config of wrong types": (changed("config.json", hidden_size="x"), ["'m' cannot be loaded", "hidden_size"]),
    "a foreign architecture": (changed("config.json", model_type="foo"), ["model 'm' cannot be loaded", "foo"]),
    "weights of another architecture": (
        changed("config.json", model_type="gpt_neox", layer_types=None),
        ["model 'm'", "lack", "would start at random"],
    ),
    "a checkpoint of something else": (other_weights, ["model 'm'", "lack", "would start at random"]),
    "no weights": (without("model.safetensors"), ["model 'm' cannot be loaded", "model.safetensors"]),
    "weights cut": (lambda f: os.truncate(f / "model.safetensors", 1000), ["model 'm' cannot be loaded", "header"]),
    "weights empty": (written("model.safetensors", b""), ["model 'm' cannot be loaded", "header"]),
    "no tokenizer": (without("tokenizer.json"), ["tokenizer 'm' cannot be loaded", "tokenizer.json"]),
    "tokenizer is no JSON": (written("tokenizer.json", b"{bad"), ["tokenizer 'm' cannot be loaded", "line 1"]),
    "tokenizer is a list": (written("tokenizer.json", b"[]"), ["tokenizer 'm' cannot be loaded"]),
    "code of its own": (
        changed("config.json", model_type="foo", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}),
        ["model 'm' cannot be loaded"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_holds_no_whole_model(refused, desk: Path, whole: Path, name: str) -> None:
    change, words = BROKEN[name]
    shutil.copytree(whole, desk / "m")
    change(desk / "m")
    (desk / "m" / "evil.py").write_text("open('PWNED', 'w')\n")
    message = refused(*FIT, "model.model=m")
    assert all(word in message for word in words), message
    assert "hub" not in message.partition("Give a folder")[2].partition("hub id")[2]  # the folder is there
    assert not (desk / "PWNED").exists()


FIT = ["fit", "--recipe", "ntp.yaml", "--dry-run", "model.config=null", "model.tokenizer=null"]
NAMES: dict[str, list[str]] = {
    "Qwen/Qwen2.5-1.5B": ["HF_HUB_OFFLINE is set", "hf download Qwen/Qwen2.5-1.5B --local-dir", "tokenizer=FOLDER"],
    "code": ["'code' cannot be loaded"],
    "ntp.yaml": ["'ntp.yaml' cannot be loaded"],
    "a b": ["'a b' cannot be loaded"],
}


@pytest.mark.parametrize("model", NAMES)
def test_a_name_that_leads_to_no_model(refused, model: str) -> None:
    message = refused(*FIT, f"model.model={model}")
    assert all(word in message for word in NAMES[model]), message


def test_a_model_that_is_not_there_but_its_tokenizer_is(refused, whole: Path) -> None:
    message = refused(*FIT, "model.model=no/such", f"model.tokenizer={whole}")
    assert "model 'no/such' cannot be loaded" in message
    assert "hf download no/such" in message
    assert "model=FOLDER" in message


CONFIGS: dict[str, tuple[str, list[str]]] = {
    "no type": ("{hidden_size: 32}", ["model_type"]),
    "unknown type": ("{model_type: qwenn2}", ["config.model_type='qwenn2'", "Did you mean 'qwen"]),
    "no language model": ("{model_type: clip}", ["causal language model", "CLIPConfig"]),
    "unknown setting": ("{model_type: qwen2, num_layers: 2}", ["config.num_layers", "Did you mean"]),
    "setting without a name": ("{model_type: qwen2, 1: 2}", ["config.1"]),
    "no width": ("{model_type: qwen2, hidden_size: 0}", ["config.hidden_size=0", "at least 1"]),
    "no context": ("{model_type: qwen2, max_position_embeddings: 0}", ["config.max_position_embeddings=0"]),
    "half a layer": ("{model_type: qwen2, num_hidden_layers: 1.5}", ["config.num_hidden_layers=1.5", "whole"]),
    "heads that share unevenly": (
        "{model_type: qwen2, num_attention_heads: 4, num_key_value_heads: 3}",
        ["num_attention_heads=4", "num_key_value_heads=3"],
    ),
    "odd heads": (
        "{model_type: qwen2, hidden_size: 30, num_attention_heads: 2, num_key_value_heads: 1}",
        ["config.hidden_size=30"],
    ),
    "not a number": ("{model_type: qwen2, rms_norm_eps: .nan}", ["config.rms_norm_eps=nan", "finite"]),
    "unknown activation": ("{model_type: qwen2, hidden_size: 32, hidden_act: foo}", ["hidden_act", "foo"]),
    "smaller than its tokenizer": ("{model_type: qwen2, hidden_size: 32, vocab_size: 10}", ["300 tokens", "is 10"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_makes_no_model(refused, name: str) -> None:
    config, words = CONFIGS[name]
    message = refused("fit", "--recipe", "ntp.yaml", "--dry-run", f"model.config={config}")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("recipe", "override", "room"),
    [
        ("ntp.yaml", "model.config.max_position_embeddings=64", 64),  # a context shorter than a snippet
        ("ra3.yaml", "model.posterior.capacity=70", 70),  # a slot of the engine shorter than one
    ],
)
def test_no_room_for_the_longest_snippet_is_found_before_training(
    refused, recipe: str, override: str, room: int
) -> None:
    message = refused("fit", "--recipe", recipe, "--dry-run", override)
    assert "snippet 'f" in message
    assert f"room for {room}" in message
    assert f"data.max_tokens={room} or less, now 128" in message
