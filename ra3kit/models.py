"""The Hugging Face model under its wraps."""

from __future__ import annotations

import weakref
from typing import cast

import torch
from transformers import PreTrainedModel

WHOLE: weakref.WeakKeyDictionary[torch.nn.Module, PreTrainedModel] = weakref.WeakKeyDictionary()
"""Sharded models that are gathered now, and the whole copy that stands in for each (`ra3kit.sharding.gathered`)."""


def base_model(model: torch.nn.Module) -> PreTrainedModel:
    """The Hugging Face model itself, out of a peft wrapper where there is one (its LoRA layers stay in place).

    Where it is sharded and gathered, its whole copy.
    """
    hf = unwrapped(model)
    return WHOLE.get(hf, hf)


def unwrapped(model: torch.nn.Module) -> PreTrainedModel:
    """The same, but a sharded model stays as it is."""
    is_peft = hasattr(model, "peft_config") and hasattr(model, "get_base_model")
    return cast(PreTrainedModel, model.get_base_model() if is_peft else model)  # type: ignore[operator]


def merge_adapters(model: torch.nn.Module) -> PreTrainedModel:
    """The Hugging Face model with its LoRA adapters in its weights; a model without adapters as it is. In place.

    Adapters on a head (or embedding) that is tied end the tie: merged, the two matrices differ.
    """
    hf = unwrapped(model)
    if hf is model:
        return hf
    embeddings, head = hf.get_input_embeddings(), hf.get_output_embeddings()
    adapted = [part for part in (embeddings, head) if hasattr(part, "base_layer")]
    if adapted and hf.config.tie_word_embeddings:
        plain = head.base_layer if hasattr(head, "base_layer") else head
        plain.weight = torch.nn.Parameter(plain.weight.detach().clone())
        hf.config.tie_word_embeddings = False
    return cast(PreTrainedModel, model.merge_and_unload())  # type: ignore[operator]
