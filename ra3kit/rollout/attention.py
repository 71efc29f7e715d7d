"""Attention over packed ids `[1, n]`, registered with transformers as "ra3" so that its model code stays as it is.

Three layouts say which tokens see which:
- `PackedLayout`: sequences side by side in one row, each causal within itself (training and scoring).
- `BranchLayout`: the same, where several sequences begin alike and what they share stands there once (GRPO's groups).
- `SlotLayout`: some tokens for each of many rows whose earlier keys and values lie in static cache slots (rollouts).

Call a model with `layout=...` and `use_cache=False`, without an attention mask (a mask or a cache would let the
sequences of a packed row see each other). Without a layout each batch row is one causal sequence.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "ra3"


@dataclass(frozen=True)
class PackedLayout:
    """Lengths of the sequences that stand side by side in the packed row; they sum to n."""

    lengths: tuple[int, ...]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
        """q [1, h, n, d], k and v [1, kv, n, d] -> [1, n, h, d]."""
        if not dropout and has_varlen(q):
            return self.all_at_once(q, k, v, scale)
        out = torch.empty_like(q) if not q.requires_grad else None
        bounds = [0]
        for length in self.lengths:
            bounds.append(bounds[-1] + length)
        parts = []
        for a, b in pairwise(bounds):
            part = F.scaled_dot_product_attention(
                q[:, :, a:b],
                k[:, :, a:b],
                v[:, :, a:b],
                is_causal=True,
                scale=scale,
                dropout_p=dropout,
                enable_gqa=True,
            )
            if out is None:
                parts.append(part)
            else:
                out[:, :, a:b] = part
        return (torch.cat(parts, dim=2) if out is None else out).transpose(1, 2)

    def all_at_once(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """The same in one kernel for all sequences (FlashAttention of variable length; CUDA, bfloat16 or float16).

        Its arithmetic is tested with a stand-in for the kernel; the kernel itself has not run in our tests.
        """
        dtype, longest = matmul_dtype(q), max(self.lengths)
        q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (q, k, v))  # [n, heads, d]
        ends = _ends(self.lengths, q.device)
        grouped = q.shape[1] != k.shape[1]
        out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped)
        assert isinstance(out, Tensor)  # not the log-sum-exp too
        return out[None]


@dataclass(frozen=True)
class BranchLayout:
    """Trunks with branches side by side in the packed row: a branch sees its whole trunk, and itself up to here.

    A prompt with g answers costs the prompt once instead of g times, and gives the same hidden states and gradients.

    Args:
        trees: of each its trunk's length, >= 1, and its branches' lengths, each >= 1; they sum to n.
    """

    trees: tuple[tuple[int, tuple[int, ...]], ...]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
        """q [1, h, n, d], k and v [1, kv, n, d] -> [1, n, h, d]."""
        if not dropout and has_varlen(q):
            return self.all_at_once(q, k, v, scale)
        parts = []
        end = 0
        for trunk, branches in self.trees:
            start, end = end, end + trunk
            k_trunk, v_trunk = k[:, :, start:end], v[:, :, start:end]
            parts.append(
                F.scaled_dot_product_attention(
                    q[:, :, start:end],
                    k_trunk,
                    v_trunk,
                    is_causal=True,
                    scale=scale,
                    dropout_p=dropout,
                    enable_gqa=True,
                )
            )
            for branch in branches:
                start, end = end, end + branch
                parts.append(
                    F.scaled_dot_product_attention(
                        q[:, :, start:end],
                        torch.cat([k_trunk, k[:, :, start:end]], 2),
                        torch.cat([v_trunk, v[:, :, start:end]], 2),
                        attn_mask=_branch_mask(branch, trunk, matmul_dtype(q), q.device),
                        scale=scale,
                        dropout_p=dropout,
                        enable_gqa=True,
                    )
                )
        return torch.cat(parts, dim=2).transpose(1, 2)

    def all_at_once(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """The same in one kernel: keys and values of a trunk are copied for each of its branches, queries are not.

        Tested with a stand-in for the kernel, as `PackedLayout.all_at_once`.
        """
        dtype = matmul_dtype(q)
        q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (q, k, v))  # [n, heads, d]
        index, queries, keys = _branch_plan(self.trees, q.device)
        q_ends, k_ends = _ends(queries, q.device), _ends(keys, q.device)
        grouped = q.shape[1] != k.shape[1]
        out = varlen_attn(
            q,
            k[index],
            v[index],
            q_ends,
            k_ends,
            max(queries),
            max(keys),
            scale=scale,
            window_size=(-1, 0),  # causal, the last query beside the last key
            enable_gqa=grouped,
        )
        assert isinstance(out, Tensor)  # not the log-sum-exp too
        return out[None]


@lru_cache(maxsize=512)
def _branch_mask(branch: int, trunk: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[b, t + b], 0 where a branch may look; kept, as every layer of a forward wants the same."""
    with torch.inference_mode(False):
        return past_mask(branch, trunk, dtype).to(device)


@lru_cache(maxsize=8)
def _branch_plan(
    trees: tuple[tuple[int, tuple[int, ...]], ...], device: torch.device
) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """Packed index of every key in the order of the queries' sequences, and those sequences' lengths and keys."""
    index: list[int] = []
    queries: list[int] = []
    keys: list[int] = []
    end = 0
    for trunk, branches in trees:
        stem = range(end, end + trunk)
        end += trunk
        index += stem
        queries.append(trunk)
        keys.append(trunk)
        for branch in branches:
            index += [*stem, *range(end, end + branch)]
            queries.append(branch)
            keys.append(trunk + branch)
            end += branch
    with torch.inference_mode(False):
        return torch.tensor(index).to(device), tuple(queries), tuple(keys)


@lru_cache(maxsize=8)
def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """int32 [k + 1], where sequences begin and end; one copy to the device for all layers of a forward."""
    with torch.inference_mode(False):  # it may be made while scoring, and be saved for a backward pass later
        return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)


def has_varlen(q: Tensor) -> bool:
    """Whether attention of variable length can be had: on NVIDIA's Ampere and later, in half precision."""
    return (
        q.is_cuda
        and matmul_dtype(q) in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


def matmul_dtype(like: Tensor) -> torch.dtype:
    """The dtype that matrix products with this tensor run in: autocast's where it is on, else its own."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


class SlotCache:
    """Static keys and values: per layer `[slots * capacity, kv, d]`, token-major, so that a write is one index copy."""

    def __init__(self, config: PretrainedConfig, slots: int, capacity: int, dtype: torch.dtype, device: torch.device):
        shape = (slots * capacity, *head_shape(config))
        self.slots, self.capacity = slots, capacity
        # zeros: a masked position still enters 0 * value, and an uninitialised value may be NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]

    def part(self, slots: int, capacity: int) -> SlotCache:
        """A smaller cache, in the memory of this one."""
        made = copy.copy(self)
        made.slots, made.capacity = slots, capacity
        made.keys, made.values = ([store[: slots * capacity] for store in part] for part in (self.keys, self.values))
        return made

    def view(self, store: Tensor) -> Tensor:
        """[slots, kv, capacity, d] view of one layer's keys or values."""
        heads, dim = store.shape[1:]
        return store.view(self.slots, self.capacity, heads, dim).transpose(1, 2)

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` positions of one slot, also in another."""
        start, to = source * self.capacity, target * self.capacity
        for store in (*self.keys, *self.values):
            store[to : to + length] = store[start : start + length]


def head_shape(config: PretrainedConfig) -> tuple[int, int]:
    """(key-value heads, head dimension) of a model."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_key_value_heads, dim


def cache_elements(config: PretrainedConfig, slots: int, capacity: int) -> int:
    """Numbers in a SlotCache: keys and values of all layers."""
    heads, dim = head_shape(config)
    return 2 * config.num_hidden_layers * slots * capacity * heads * dim


@dataclass(frozen=True)
class SlotLayout(ABC):
    """One engine call: some tokens for each of several rows, packed into `[1, n]`.

    Args:
        cache: where earlier keys and values lie and the new ones are written.
        write: int64 [n], flat cache index (slot * capacity + position) of every packed token.
    """

    cache: SlotCache
    write: Tensor

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
        """q [1, h, n, d], k and v [1, kv, n, d] -> [1, n, h, d]; writes k and v into the cache."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.index_copy_(0, self.write, k[0].transpose(0, 1).to(keys.dtype))
        values.index_copy_(0, self.write, v[0].transpose(0, 1).to(values.dtype))
        return self._look(q, keys, values, scale)[None]

    @abstractmethod
    def _look(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """q [1, h, n, d] over one layer's cache, keys and values [slots * capacity, kv, d] -> [n, h, d]."""


@dataclass(frozen=True)
class RowLayout(SlotLayout):
    """Row by row, each over its own length: the way of the CPU, where reading the cache is what costs.

    Args:
        rows: (first packed index, tokens, slot, first position) of every row, in packed order.
        past_mask: from `past_mask`, over the longest chunk and the longest past.
    """

    rows: tuple[tuple[int, int, int, int], ...]
    past_mask: Tensor

    def _look(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        h, kv, dim = q.shape[1], *keys.shape[1:]
        longest_past = self.past_mask.shape[1] - self.past_mask.shape[0]
        k_slots, v_slots = self.cache.view(keys), self.cache.view(values)
        parts = []
        for first, count, slot, position in self.rows:
            end = position + count
            k_row, v_row = k_slots[slot : slot + 1, :, :end], v_slots[slot : slot + 1, :, :end]  # [1, kv, end, d]
            if count == 1:  # the query heads of a key-value head stand as its queries, and they see everything
                one = q[:, :, first].reshape(1, kv, h // kv, dim)
                got = F.scaled_dot_product_attention(one, k_row, v_row, scale=scale)
                parts.append(got.reshape(1, h, dim))
                continue
            chunk = q[:, :, first : first + count]
            mask = self.past_mask[:count, longest_past - position : longest_past + count] if position else None
            got = F.scaled_dot_product_attention(
                chunk, k_row, v_row, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
            )
            parts.append(got[0].transpose(0, 1))
        return torch.cat(parts)


@dataclass(frozen=True)
class PaddedLayout(SlotLayout):
    """Single-token rows as one batch over all slots, the others as one padded batch: few kernels, for accelerators.

    Args:
        single_slots: int64 [r], slot of each single-token row; they come first in packed order.
        single_bias: [slots, 1, 1, longest] from `single_bias` (slots without a single token take part unseen: a view of
            all slots costs less than a copy of some).
        chunks: (first packed index, tokens, slot, first position) of every other row.
    """

    single_slots: Tensor
    single_bias: Tensor
    chunks: tuple[tuple[int, int, int, int], ...]

    def _look(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        out = q.new_empty(q.shape[2], q.shape[1], q.shape[3], dtype=matmul_dtype(q))
        if len(self.single_slots):
            self._singles(q, keys, values, scale, out)
        if self.chunks:
            self._chunks(q, keys, values, scale, out)
        return out

    def _singles(self, q: Tensor, keys: Tensor, values: Tensor, scale: float, out: Tensor) -> None:
        r, h, kv, dim = len(self.single_slots), q.shape[1], *keys.shape[1:]
        longest = self.single_bias.shape[-1]
        grouped = q.new_zeros(self.cache.slots, kv, h // kv, dim)  # the query heads of a kv head stand as queries
        grouped[self.single_slots] = q[0, :, :r].transpose(0, 1).reshape(r, kv, h // kv, dim)
        got = F.scaled_dot_product_attention(
            grouped,
            self.cache.view(keys)[:, :, :longest],
            self.cache.view(values)[:, :, :longest],
            attn_mask=self.single_bias,
            scale=scale,
        )
        out[:r] = got[self.single_slots].reshape(r, h, dim)

    @cached_property
    def _plan(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Made once a call, not once a layer: whatever asks the device how long something is makes the host wait.

        Returns:
            index [c, most] of packed tokens; slot [c]; may_see [c, 1, most, longest]; for the real tokens among the
            c * most their places there [m] and their packed indices [m].
        """
        first, count, slot, position = np.asarray(self.chunks).T
        step = np.arange(count.max())
        index = first[:, None] + step
        is_token = step < count[:, None]
        may_see = np.arange((position + count).max()) <= (position[:, None] + step)[..., None]
        place, packed = np.flatnonzero(is_token), index[is_token]
        index = np.minimum(index, len(self.write) - 1)  # padded places repeat other tokens
        device = self.write.device
        made = (torch.from_numpy(x).to(device) for x in (index, slot, may_see[:, None], place, packed))
        return tuple(made)  # type: ignore[return-value]

    def _chunks(self, q: Tensor, keys: Tensor, values: Tensor, scale: float, out: Tensor) -> None:
        index, slot, may_see, place, packed = self._plan
        end = may_see.shape[-1]
        q_rows = q[0][:, index].transpose(0, 1)  # [c, h, most, d]
        k_rows = self.cache.view(keys)[slot, :, :end]
        v_rows = self.cache.view(values)[slot, :, :end]
        got = F.scaled_dot_product_attention(
            q_rows, k_rows, v_rows, attn_mask=may_see, scale=scale, enable_gqa=True
        )  # [c, h, most, d]
        out[packed] = got.transpose(1, 2).flatten(0, 1)[place]


def past_mask(longest_chunk: int, longest_past: int, dtype: torch.dtype) -> Tensor:
    """[c, p + c], 0 where token i of a chunk after p positions may look (up to p + i), -inf elsewhere.

    The mask of a shorter chunk with a shorter past is a slice of it: its first rows, without the first columns.
    """
    mask = torch.full((longest_chunk, longest_past + longest_chunk), -torch.inf, dtype=dtype)
    return mask.triu(longest_past + 1)


def single_bias(visible: Tensor, slots: int, single_slots: Tensor, dtype: torch.dtype) -> Tensor:
    """[slots, 1, 1, longest] from bool [r, longest]: 0 where the token of a single row may look, else very negative."""
    bias = torch.full((slots, visible.shape[1]), torch.finfo(dtype).min / 2, dtype=dtype, device=visible.device)
    bias[single_slots] = bias[single_slots].masked_fill(visible, 0.0)
    return bias[:, None, None]


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: PackedLayout | BranchLayout | SlotLayout | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The function transformers calls in every attention layer (see ALL_ATTENTION_FUNCTIONS).

    Raises:
        ValueError: an attention mask or a sliding window came along; neither is meant for this layout.
    """
    window = kwargs.get("sliding_window")
    if attention_mask is not None or window is not None:
        raise ValueError(
            f'attention "{NAME}" takes no mask and no sliding window, got {type(attention_mask)}, {window}'
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if layout is None:
        out = F.scaled_dot_product_attention(
            query, key, value, is_causal=query.shape[2] > 1, scale=scale, dropout_p=dropout, enable_gqa=True
        )
        return out.transpose(1, 2), None
    layer = module.layer_idx
    assert isinstance(layer, int)
    return layout.attend(layer, query, key, value, scale, dropout), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
