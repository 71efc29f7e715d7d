"""Packed rows of answers: the same log-probabilities and gradients as each answer alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from ra3kit.rlvr.losses import TokenLoss
from ra3kit.rlvr.rows import pack, packed_rows, row_loss, sampled_logps
from ra3kit.rollout import attention
from ra3kit.testing.models import tiny_model

PAIRS = [
    ([1, 5, 9], [4, 7, 2, 11]),
    ([1, 5, 9], [4]),
    ([1, 5, 9], [30, 7]),
    ([1, 3], [8]),
    ([1, 6, 6, 12, 40], [3, 3, 9]),
    ([1, 6, 6, 12, 40], [3, 2, 9, 9]),
]
TOKENS = sum(len(sampled) for _, sampled in PAIRS)
TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(vocab_size=50)


def naive(model: Any, prompt: list[int], sampled: list[int]) -> torch.Tensor:
    """Log-probabilities by an ordinary forward of one sequence."""
    model.set_attn_implementation("eager")
    try:
        logits = model(torch.tensor([prompt + sampled])).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    finally:
        model.set_attn_implementation("ra3")
    return logits.log_softmax(-1)[torch.arange(len(sampled)), torch.tensor(sampled)]


@pytest.mark.parametrize("most", [1, 6, 1000])
def test_logps_are_those_of_each_answer_alone(model: Any, most: int) -> None:
    for got, pair in zip(sampled_logps(model, PAIRS, TEMPERATURE, most), PAIRS, strict=True):
        assert np.abs(got - naive(model, *pair).detach().numpy()).max() < 1e-5


def test_gradient_is_that_of_each_answer_alone(model: Any) -> None:
    advantage = torch.linspace(-2, 1.5, TOKENS)
    terms = TokenLoss(advantage, torch.full((TOKENS,), 1 / TOKENS))
    loss, logps, _ = row_loss(model, pack(PAIRS, "cpu"), terms, TEMPERATURE)
    got = torch.autograd.grad(loss, list(model.parameters()))
    whole = torch.cat([naive(model, *pair) for pair in PAIRS])
    wanted = torch.autograd.grad(terms(whole, slice(None)).sum(), list(model.parameters()))
    assert torch.allclose(logps, whole, atol=1e-5)
    for ours, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_rows_hold_every_answer_once() -> None:
    for most in (1, 6, 8, 12, 1000):
        rows = list(packed_rows(PAIRS, most, "cpu"))
        assert [place for places, _ in rows for place in places] == list(range(len(PAIRS)))
        assert all(len(row.ids) <= most or len(places) == 1 for places, row in rows)
        assert all(len(row.ids) == sum(t + sum(b) for t, b in row.layout.trees) for _, row in rows)


def test_a_prompt_stands_once_in_a_row() -> None:
    [(_, row)] = packed_rows(PAIRS, 1000, "cpu")
    assert [trunk for trunk, _ in row.layout.trees] == [3, 2, 5]
    assert len(row.ids) == 10 + sum(len(sampled) - 1 for _, sampled in PAIRS)


def test_in_one_kernel_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The indices that the kernel of variable length is given, with a plain stand-in for the kernel."""
    [(_, row)] = packed_rows(PAIRS, 1000, "cpu")
    q, k, v = (torch.randn(1, heads, len(row.ids), 8) for heads in (4, 2, 2))
    wanted = row.layout.attend(0, q, k, v, 0.3, 0.0)
    monkeypatch.setattr(attention, "varlen_attn", varlen_by_hand)
    assert torch.allclose(row.layout.all_at_once(q, k, v, 0.3), wanted, atol=1e-5)


def varlen_by_hand(q: Any, k: Any, v: Any, q_ends: Any, k_ends: Any, *longest: int, scale: float, **_: Any) -> Any:
    """Attention of each sequence, its last query beside its last key."""
    parts = []
    for (a, b), (c, d) in zip(pairwise(q_ends.tolist()), pairwise(k_ends.tolist()), strict=True):
        queries, keys, values = q[a:b].transpose(0, 1), k[c:d].transpose(0, 1), v[c:d].transpose(0, 1)
        keys, values = (x.repeat_interleave(len(queries) // len(x), 0) for x in (keys, values))
        scores = queries @ keys.transpose(1, 2) * scale
        later = torch.arange(d - c)[None] > torch.arange(b - a)[:, None] + (d - c) - (b - a)
        parts.append((scores.masked_fill(later, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    assert longest == (int(q_ends.diff().max()), int(k_ends.diff().max()))
    return torch.cat(parts)
