"""The models that benchmarks run, the floating-point operations they need, and what accelerators offer.

Model FLOPs utilisation (MFU) = operations the mathematics needs / (seconds x peak operations per second). Needed for a
sequence of t tokens, forward: 2 P t + 2 L A t^2, with P the parameters of all matrices that tokens are multiplied with
(the head counted once, the embedding look-up not), L layers and A = heads x head dimension; causal attention looks at
half of the t^2 pairs, twice (scores and values), at 2 operations a multiply-add. The backward pass needs twice as much.
Padding, recomputed activations and optimizer steps are not needed by the mathematics and do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel

CONFIGS: dict[str, dict[str, Any]] = {
    "engine": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "vocab_size": 2048,
    },
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 384,
        "vocab_size": 2048,
    },
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
        "vocab_size": 4096,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151_936,
        "rope_theta": 1_000_000.0,
    },
}
"""Qwen2 configs by name: 0.8 (that of the rollout benchmark), 1, 11 and 1,544 million parameters."""

COMMON: dict[str, Any] = {"max_position_embeddings": 4096, "tie_word_embeddings": True, "use_cache": False}

PEAK_TFLOPS = {
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "RTX 4090": 165.2,
}
"""Dense bfloat16 with float32 accumulation, without sparsity, from the vendor's data sheets; first match by name."""


def peak_flops(device_name: str, given_tflops: float | None) -> float | None:
    """Peak operations per second: what was given, else of a known card, else None."""
    if given_tflops is not None:
        return given_tflops * 1e12
    return next((peak * 1e12 for name, peak in PEAK_TFLOPS.items() if name in device_name), None)


def matrix_parameters(model: PreTrainedModel) -> int:
    """P: parameters in the matrices that every token is multiplied with, the (perhaps tied) head among them."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    all_of_them = sum(p.numel() for p in model.parameters() if p.ndim >= 2 and p is not embedding and p is not head)
    return all_of_them + head.numel()


def forward_flops(model: PreTrainedModel, lengths: Iterable[int]) -> float:
    """Operations a forward pass over sequences of these lengths needs; training needs three times as many."""
    config = model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = config.num_attention_heads * dim
    lengths = list(lengths)
    attention = 2.0 * config.num_hidden_layers * width * sum(t * t for t in lengths)
    return 2.0 * matrix_parameters(model) * sum(lengths) + attention
