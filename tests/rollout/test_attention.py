"""Packed attention: sequences of one row do not see each other, and packing changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from ra3kit.rollout import attention
from ra3kit.rollout.attention import (
    PackedLayout,
    PaddedLayout,
    RowLayout,
    SlotCache,
    cache_elements,
    past_mask,
    single_bias,
)
from ra3kit.rollout.forward import head_logits, packed_hidden

LENGTHS = [5, 1, 9, 3]


def logits_of(world: Any, ids: Tensor, lengths: list[int]) -> Tensor:
    positions = torch.cat([torch.arange(n) for n in lengths])
    with torch.inference_mode():
        return head_logits(world.model, packed_hidden(world.model, ids, positions, lengths))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 400, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_a_changed_sequence_changes_no_other(world: Any, ids: Tensor, changed: int) -> None:
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    mine = torch.zeros(len(ids), dtype=torch.bool)
    mine[ends[changed] - LENGTHS[changed] : ends[changed]] = True
    before = logits_of(world, ids, LENGTHS)
    after = logits_of(world, torch.where(mine, (ids + 7) % 400, ids), LENGTHS)
    assert torch.equal(before[~mine], after[~mine])
    assert (before[mine] - after[mine]).abs().amax(-1).min() > 1e-3


def test_packed_equals_padded_equals_single(world: Any, ids: Tensor) -> None:
    packed = logits_of(world, ids, LENGTHS).split(LENGTHS)
    parts = ids.split(LENGTHS)
    longest = max(LENGTHS)
    with torch.inference_mode():
        padded_ids = torch.stack([torch.nn.functional.pad(part, (0, longest - len(part))) for part in parts])
        mask = torch.stack([(torch.arange(longest) < len(part)).long() for part in parts])
        padded = world.reference(input_ids=padded_ids, attention_mask=mask, use_cache=False).logits
        for i, part in enumerate(parts):
            single = world.reference(input_ids=part[None], use_cache=False).logits[0]
            plain = world.model(input_ids=part[None], use_cache=False).logits[0]  # no layout: one causal sequence
            for other in (padded[i, : len(part)], single, plain):
                torch.testing.assert_close(packed[i], other, atol=1e-5, rtol=0)


def test_a_token_sees_no_later_one(world: Any, ids: Tensor) -> None:
    before = logits_of(world, ids, [len(ids)])
    later = ids.clone()
    later[10:] = (later[10:] + 7) % 400
    after = logits_of(world, later, [len(ids)])
    torch.testing.assert_close(before[:10], after[:10], atol=1e-6, rtol=0)
    assert (before[10:] - after[10:]).abs().amax(-1).min() > 1e-3


def test_gradients_do_not_cross_sequences(qwen: Any, ids: Tensor) -> None:
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.requires_grad_())
        return output

    handle = qwen.model.get_input_embeddings().register_forward_hook(keep)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    hidden = packed_hidden(qwen.model, ids, positions, LENGTHS)
    handle.remove()
    [gradient] = torch.autograd.grad(hidden[6:15].square().sum(), embedded[0])
    reached = gradient[0].abs().sum(-1) > 0
    assert reached.nonzero().squeeze(1).tolist() == list(range(6, 15))


def test_masks_and_windows_are_refused(qwen: Any, ids: Tensor) -> None:
    mask = torch.zeros(1, 1, len(ids), len(ids))
    with pytest.raises(ValueError, match="takes no mask"):
        qwen.model(input_ids=ids[None], attention_mask=mask, use_cache=False)


def varlen_stand_in(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What the documentation of `torch.nn.attention.varlen.varlen_attn` says, head by head and token by token."""
    assert cu_seq_q.dtype == torch.int32
    assert window_size == (-1, 0)  # causal
    assert max_q == max_k == int(cu_seq_q.diff().max())
    group = query.shape[1] // key.shape[1]
    assert enable_gqa == (group > 1)
    out = []
    for a, b in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        for i in range(a, b):
            heads = []
            for h in range(query.shape[1]):
                weights = (key[a : i + 1, h // group] @ query[i, h] * scale).softmax(0)
                heads.append(weights @ value[a : i + 1, h // group])
            out.append(torch.stack(heads))
    return torch.stack(out)


def test_one_kernel_for_all_sequences_equals_one_call_a_sequence(
    world: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of CUDA through a whole model, with a stand-in for its kernel; gradients too."""
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    results = []
    for has in (False, True):
        monkeypatch.setattr(attention, "has_varlen", lambda q, has=has: has)
        monkeypatch.setattr(attention, "varlen_attn", varlen_stand_in)
        embedded = world.model.get_input_embeddings().weight.requires_grad_()
        hidden = packed_hidden(world.model, ids, positions, LENGTHS)
        results.append((hidden.detach(), *torch.autograd.grad(hidden.square().sum(), [embedded])))
        embedded.requires_grad_(False)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_kernel_of_torch_takes_what_it_is_given(ids: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and dtypes alone, on the meta device: nothing is computed."""
    n = len(ids)
    monkeypatch.setattr(attention, "matmul_dtype", lambda like: torch.bfloat16)  # as under autocast
    q, k, v = (torch.empty(1, h, n, 16, device="meta", dtype=torch.float32, requires_grad=True) for h in (4, 2, 2))
    out = PackedLayout(tuple(LENGTHS)).all_at_once(q, k, v.bfloat16(), 0.25)
    assert (out.shape, out.dtype) == ((1, n, 4, 16), torch.bfloat16)


def test_ends_made_while_scoring_can_be_trained_with() -> None:
    attention._ends.cache_clear()
    with torch.inference_mode():
        ends = attention._ends((5, 1, 9), torch.device("cpu"))
    assert ends.tolist() == [0, 5, 6, 15]
    assert ends.dtype == torch.int32
    assert not ends.is_inference()  # such a tensor could not be saved for a backward pass


def test_products_run_in_the_dtype_of_autocast() -> None:
    like = torch.zeros(1)
    assert attention.matmul_dtype(like) == torch.float32
    assert attention.matmul_dtype(like.bfloat16()) == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert attention.matmul_dtype(like) == torch.bfloat16
    assert not attention.has_varlen(like.bfloat16())


def test_cache_size_is_what_the_plan_says(qwen: Any) -> None:
    config = qwen.model.config
    cache = SlotCache(config, slots=3, capacity=10, dtype=torch.float32, device=torch.device("cpu"))
    assert sum(t.numel() for t in cache.keys + cache.values) == cache_elements(config, 3, 10)
    heads, dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    assert cache.view(cache.keys[0]).shape == (3, heads, 10, dim)


@pytest.mark.parametrize("padded", [False, True])
def test_slot_layout_against_a_plain_softmax(padded: bool) -> None:
    """Two single-token rows and two chunks (one fresh, one with a past), slots out of order, one slot idle."""
    generator = torch.Generator().manual_seed(0)
    slots, capacity, h, kv, d, scale = 5, 12, 4, 2, 8, 0.3
    lengths = {3: 6, 0: 1, 4: 0, 1: 5}  # slot -> positions it already holds
    counts = {3: 1, 0: 1, 4: 4, 1: 3}
    config = AutoConfig.for_model(
        "qwen2", num_hidden_layers=1, num_attention_heads=h, num_key_value_heads=kv, hidden_size=h * d
    )
    cache = SlotCache(config, slots, capacity, torch.float32, torch.device("cpu"))
    cache.keys[0].copy_(torch.randn(slots * capacity, kv, d, generator=generator))
    cache.values[0].copy_(torch.randn(slots * capacity, kv, d, generator=generator))
    write = torch.tensor([slot * capacity + lengths[slot] + i for slot in counts for i in range(counts[slot])])
    n = len(write)
    q, k, v = (torch.randn(1, heads, n, d, generator=generator) for heads in (h, kv, kv))
    singles = torch.tensor([3, 0])
    visible = torch.arange(7) < torch.tensor([7, 2])[:, None]
    chunks = ((2, 4, 4, 0), (6, 3, 1, 5))
    layout = (
        PaddedLayout(cache, write, singles, single_bias(visible, slots, singles, torch.float32), chunks)
        if padded
        else RowLayout(cache, write, ((0, 1, 3, 6), (1, 1, 0, 1), *chunks), past_mask(4, 9, torch.float32))
    )
    got = layout.attend(0, q, k, v, scale, 0.0)[0]  # [n, h, d]
    keys, values = (store[0].view(slots, capacity, kv, d) for store in (cache.keys, cache.values))
    at = 0
    for slot, count in counts.items():
        for i in range(count):
            end = lengths[slot] + i + 1
            torch.testing.assert_close(keys[slot, end - 1], k[0, :, at])
            for head in range(h):
                past_k, past_v = (store[slot, :end, head // (h // kv)] for store in (keys, values))
                weights = (past_k @ q[0, head, at] * scale).softmax(0)
                torch.testing.assert_close(got[at, head], weights @ past_v, atol=1e-5, rtol=0)
            at += 1
