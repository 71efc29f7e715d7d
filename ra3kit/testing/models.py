"""Tiny models and tokenizers for tests, with the architectures and tokenizer rules of the published ones."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from ra3kit.data.tokenizer import train_byte_level_bpe
from ra3kit.rollout import attention

CORPUS = '''def total(values):
    result = 0
    for value in values:
        result += value
    return result


# sort by the second item
def order(pairs):
    return sorted(pairs, key=lambda pair: pair[1])


class Stack:
    """A last-in, first-out list."""

    def __init__(self):
        self.items = []

    def push(self, item):
        # add to the end
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("empty")
        return self.items.pop()
'''


TINY_CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
"""A Hugging Face config of two layers with grouped-query attention; `model_type` is still to be added."""


@cache
def tiny_tokenizer(
    rules: Literal["qwen2", "llama3", "gpt2"] = "qwen2", vocab_size: int = 400
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few lines of Python; under the qwen2 rules "):\\n" is one token of it."""
    return train_byte_level_bpe([CORPUS] * 8, vocab_size, rules)


def tiny_model(
    vocab_size: int = 400,
    model_type: Literal["qwen2", "llama"] = "qwen2",
    seed: int = 0,
    scale: float = 1.0,
    implementation: str = attention.NAME,
    **config: Any,
) -> PreTrainedModel:
    """A two-layer model with grouped-query attention and tied embeddings, at random weights.

    Args:
        vocab_size, model_type, config: of the Hugging Face config.
        seed: of the weights.
        scale: factor on all matrices; above 1 the distributions are far from uniform, so that tests can see mistakes.
        implementation: attention; "sdpa" for a reference that knows nothing of this package.
    """
    settings = {**TINY_CONFIG, "tie_word_embeddings": True, "use_cache": False, **config}
    full = AutoConfig.for_model(model_type, vocab_size=vocab_size, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(full, attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(scale)
    return model.eval()
