"""One packed forward of a causal LM: hidden states, float32 logits and per-token log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ra3kit.models import base_model
from ra3kit.rollout.attention import BranchLayout, PackedLayout, SlotLayout

SCORE_CHUNK = 1024
"""Tokens whose logits exist at once while scoring: 1024 x 151,936 float32 logits are 0.6 GiB."""


def hidden_states(
    model: torch.nn.Module,
    ids: Int[Tensor, " n"],
    positions: Int[Tensor, " n"],
    layout: PackedLayout | BranchLayout | SlotLayout,
) -> Float[Tensor, "n h"]:
    """Last hidden states of packed ids; `positions` restart with each sequence."""
    hf = base_model(model)
    decoder = getattr(hf, hf.base_model_prefix)
    out = decoder(input_ids=ids[None], position_ids=positions[None], use_cache=False, layout=layout)
    return out.last_hidden_state[0]


def packed_hidden(
    model: torch.nn.Module, ids: Int[Tensor, " n"], positions: Int[Tensor, " n"], lengths: Sequence[int]
) -> Float[Tensor, "n h"]:
    """Hidden states of sequences of the given lengths standing side by side."""
    return hidden_states(model, ids, positions, PackedLayout(tuple(lengths)))


def head_logits(model: torch.nn.Module, hidden: Float[Tensor, "m h"]) -> Float[Tensor, "m v"]:
    """Logits in float32, accumulated in float32 also where the weights are bfloat16.

    A bfloat16 logit near 30 has steps of 0.125, more than the penalty c = 0.05 that rewards are compared with.
    """
    head: Any = base_model(model).get_output_embeddings()
    weight, bias = head.weight, getattr(head, "bias", None)
    with torch.autocast(hidden.device.type, enabled=False):
        if weight.dtype != torch.float32 and weight.device.type == "cuda" and not torch.is_grad_enabled():
            logits = torch.mm(hidden.to(weight.dtype), weight.t(), out_dtype=torch.float32)
        else:
            logits = F.linear(hidden.float(), weight.float())
        return logits if bias is None else logits + bias.float()


def target_logps(
    model: torch.nn.Module, hidden: Float[Tensor, "m h"], targets: Int[Tensor, " m"], temperature: float = 1.0
) -> Float[Tensor, " m"]:
    """log p(target | prefix) in float32 nats, a chunk of tokens at a time. For scoring, without gradient.

    p is softmax(logits / temperature).
    """
    parts = []
    for start in range(0, len(targets), SCORE_CHUNK):
        logits = head_logits(model, hidden[start : start + SCORE_CHUNK])
        if temperature != 1:
            logits /= temperature
        chosen = logits.gather(1, targets[start : start + SCORE_CHUNK, None]).squeeze(1)
        parts.append(chosen - logits.logsumexp(-1))
    return torch.cat(parts) if parts else hidden.new_zeros(0)
