"""Models from the hub, a folder or a config, refused where something about them is not as it seems.

transformers takes unknown config keys in silence, and starts weights that a folder lacks at random with no more than a
table in the log. A run of days on such a model would be wasted, so both are errors here.
"""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ra3kit.errors import ModelError, nearest
from ra3kit.hub import hub_advice
from ra3kit.ranges import check_number
from ra3kit.rollout import attention
from ra3kit.runs import absent_model

SIZES = {
    "vocab_size": 10_000_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 1_000_000,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "max_position_embeddings": 1_000_000_000,
}
"""Sizes in a config, with a limit far above any model's: transformers builds a list of layers, however long."""


def load_model(name: str, dtype: str, attention_name: str | None = attention.NAME) -> PreTrainedModel:
    """A pretrained model.

    Args:
        name: hub id or folder.
        dtype: of the weights, or "auto".
        attention_name: the kit's; None is the model's own.

    Raises:
        ModelError: not loadable, or its files lack weights of the model.
    """
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            name,
            attn_implementation=attention_name,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, like those that are missing
        )
    except MemoryError:
        raise
    except Exception as error:  # a damaged folder fails in as many ways as there are model classes
        if advice := absent_model(name):
            raise ModelError(f"model {name!r}: {advice}") from error
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        what = "" if Path(name).exists() else hub_advice(f"hf download {name} --local-dir FOLDER", "model=FOLDER")
        raise ModelError(
            f"model {name!r} cannot be loaded: {why}. Give a folder with config.json and safetensors, or a hub id. "
            f"{what}".rstrip()
        ) from error
    model, report = found
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"model {name!r}: its files lack {len(missing)} weights of a {type(model).__name__}, "
            f"{missing[0]!r} for one, which would start at random. The files are of another model, or not all there."
        )
    if mismatched := sorted(map(str, report["mismatched_keys"])):
        raise ModelError(
            f"model {name!r}: {len(mismatched)} weights have other sizes than its config.json says, {mismatched[0]} "
            "for one (file, config). Weights and config are of different models."
        )
    return model


def fresh_model(config: dict[str, Any] | None, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model with random weights.

    Args:
        config: of transformers, `model_type` included; vocab_size is the tokenizer's unless given.
        tokenizer: the model's.

    Raises:
        ModelError: no config, or one that makes no causal language model.
    """
    settings = dict(config or {})
    if "model_type" not in settings:
        raise ModelError(f"config={config!r} needs a model_type, qwen2 or llama say")
    _check_config(settings)
    settings.setdefault("vocab_size", len(tokenizer))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    try:
        full = AutoConfig.for_model(**{**ids, **settings})
        return AutoModelForCausalLM.from_config(full, attn_implementation=attention.NAME)
    except MemoryError:
        raise
    except Exception as error:  # a config class or a model class refuses a value in whatever way it likes
        why = " ".join(line.strip() for line in str(error).splitlines()[:2]) or "no reason given"
        raise ModelError(f"config={config!r} makes no causal language model: {type(error).__name__}: {why}") from error


_OLD_NAMES = ("head_dim", "partial_rotary_factor", "rope_scaling", "rope_theta", "torch_dtype")
"""Keys that transformers still takes without declaring them."""


def _check_config(settings: dict[str, Any]) -> None:
    """Refuse what transformers would take in silence: keys it does not know, sizes that fail in the first forward."""
    kind = settings["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        close = nearest(str(kind), CONFIG_MAPPING)
        raise ModelError(
            f"config.model_type={kind!r}: transformers knows none of this name.{close} Try qwen2 or llama."
        )
    config = CONFIG_MAPPING[kind]
    known = {"model_type", *(field.name for field in fields(config)), *config.attribute_map, *_OLD_NAMES}
    for key, value in settings.items():
        if key not in known:
            close = nearest(str(key), known) or f" It has: {', '.join(sorted(known))}."
            raise ModelError(f"config.{key}: a {kind} model has no such setting.{close}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"config.{key}={value}: must be finite.")
    for key, most in SIZES.items():
        if settings.get(key) is not None:
            check_number(f"config.{key}", settings[key], least=1, most=most, whole=True, error=ModelError)
    heads, groups, width = (settings.get(k) for k in ("num_attention_heads", "num_key_value_heads", "hidden_size"))
    if heads and groups and heads % groups:
        raise ModelError(f"config.num_attention_heads={heads} must be a multiple of num_key_value_heads={groups}.")
    if heads and width and not settings.get("head_dim") and width % (2 * heads):
        raise ModelError(
            f"config.hidden_size={width} must be a multiple of 2 * num_attention_heads={2 * heads}: positions "
            "turn pairs of a head's dimensions."
        )


def check_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model that does not fit its tokenizer, or whose attention cannot be replaced.

    Raises:
        ModelError: so it is.
    """
    config = model.config
    if config.vocab_size < len(tokenizer):
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens but the model's vocabulary is {config.vocab_size}: they do not "
            "belong together"
        )
    if config._attn_implementation != attention.NAME:
        raise ModelError(
            f"{type(model).__name__} does not let its attention be replaced (got {config._attn_implementation})"
        )
