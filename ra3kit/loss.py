"""Losses over a language-model head without ever holding all logits: cross-entropy, and those of policy gradients.

`torch.nn.functional.linear_cross_entropy` does the same and is as fast in float32. In bfloat16 it adds up the loss and
the head's gradient in bfloat16, 8 bits: a sum of 16,000 tokens stops growing, and small gradients are lost. Here
products are of bfloat16 inputs where the weights or autocast say so, and every sum is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ra3kit.rollout.attention import matmul_dtype

LOSS_CHUNK = 256
"""Tokens whose logits exist at once in the loss: 0.68 GiB instead of 6.96 at 4,096 tokens x 151,936 vocabulary."""


def summed_nats(
    hidden: Float[Tensor, "m h"],
    weight: Float[Tensor, "v h"],
    bias: Float[Tensor, " v"] | None,
    targets: Int[Tensor, " m"],
) -> Float[Tensor, ""]:
    """Summed cross-entropy in nats, float32, of the logits `hidden @ weight.T + bias`.

    Matrix products are of numbers in autocast's dtype where it is on, like those of other layers, else in the weight's.
    One backward pass only.
    """
    dtype = matmul_dtype(weight)
    with torch.autocast(hidden.device.type, enabled=False):  # it would make the results halves, too
        total: Tensor = _SummedNats.apply(hidden, weight, bias, targets, dtype)
    return total


class _SummedNats(torch.autograd.Function):
    """Gradients are made along with the loss, while a chunk's logits exist: three products, not four."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        h, w = hidden.to(dtype), weight.to(dtype)
        if not multiplies_halves(h.device):
            h, w = h.float(), w.float()  # of the rounded numbers
        total = torch.zeros((), device=h.device)
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight = torch.zeros(weight.shape, device=h.device) if to_weight else None
        grad_bias = torch.zeros(len(weight), device=h.device) if to_bias else None
        buffer = torch.empty(min(LOSS_CHUNK, len(h)), len(w), device=h.device)
        for start in range(0, len(h), LOSS_CHUNK):
            part, target = h[start : start + LOSS_CHUNK], targets[start : start + LOSS_CHUNK, None]
            logits = _product(part, w.t(), buffer[: len(part)])
            if bias is not None:
                logits += bias.to(dtype).float()
            logits -= logits.amax(1, keepdim=True)
            total -= logits.gather(1, target).sum()
            mass = logits.exp_().sum(1, keepdim=True)
            total += mass.log().sum()
            if not (to_hidden or to_weight or to_bias):
                continue
            difference = logits.div_(mass).scatter_add_(1, target, logits.new_full(target.shape, -1.0))  # p - one-hot
            if grad_bias is not None:
                grad_bias += difference.sum(0)
            difference = difference.to(part.dtype)
            if grad_hidden is not None:
                grad_hidden[start : start + LOSS_CHUNK] = _product(difference, w)
            if grad_weight is not None:
                _add_product(grad_weight, difference.t(), part)
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (*_scaled(ctx, outputs[0]), None, None)


def _scaled(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients that were made in the forward pass, times that of the sum. They are handed out once."""
    if ctx.gradients is None:
        raise RuntimeError("this loss has one backward pass; its gradients are gone after it")
    gradients, ctx.gradients = ctx.gradients, None
    return tuple(
        None if gradient is None else gradient.mul_(slope).to(dtype)
        for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
    )


TokenLosses = Callable[[Tensor, slice], Tensor]
"""Of log-probabilities [n] of the tokens in a slice, their losses [n]; differentiable, each in its own alone."""


def policy_loss(
    hidden: Float[Tensor, "m h"],
    weight: Float[Tensor, "v h"],
    bias: Float[Tensor, " v"] | None,
    targets: Int[Tensor, " m"],
    token_loss: TokenLosses,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Sum of a loss that each token has by its own log-probability, under softmax(logits / temperature).

    Returns:
        The sum, with gradient (one backward pass only); and of each token its log-probability and the entropy of the
        distribution it was drawn from, nats, without gradient. All float32, products as in `summed_nats`.
    """
    dtype = matmul_dtype(weight)
    with torch.autocast(hidden.device.type, enabled=False):
        total, logps, entropies = _PolicyLoss.apply(hidden, weight, bias, targets, token_loss, temperature, dtype)
    return total, logps, entropies


class _PolicyLoss(torch.autograd.Function):
    """Each token's loss depends on its own logits alone, so its gradient can be made while they exist."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        token_loss: TokenLosses,
        temperature: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        h, w = hidden.to(dtype), weight.to(dtype)
        if not multiplies_halves(h.device):
            h, w = h.float(), w.float()  # of the rounded numbers
        total = torch.zeros((), device=h.device)
        logps, entropies = torch.empty((2, len(h)), device=h.device)
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight = torch.zeros(weight.shape, device=h.device) if to_weight else None
        grad_bias = torch.zeros(len(weight), device=h.device) if to_bias else None
        buffer = torch.empty(min(LOSS_CHUNK, len(h)), len(w), device=h.device)
        for start in range(0, len(h), LOSS_CHUNK):
            part = slice(start, min(start + LOSS_CHUNK, len(h)))
            target = targets[part, None]
            logits = _product(h[part], w.t(), buffer[: part.stop - start])
            if bias is not None:
                logits += bias.to(dtype).float()
            logits /= temperature
            logits -= logits.amax(1, keepdim=True)
            chosen = logits.gather(1, target).squeeze(1)
            p = logits.exp()
            mass = p.sum(1, keepdim=True)
            p /= mass
            log_norm = mass.log().squeeze(1)
            logp = chosen - log_norm
            logps[part] = logp
            entropies[part] = log_norm - torch.linalg.vecdot(p, logits)
            with torch.enable_grad():
                leaf = logp.requires_grad_()
                loss = token_loss(leaf, part).sum()
                [slope] = torch.autograd.grad(loss, leaf)
            total += loss.detach()
            if not (to_hidden or to_weight or to_bias):
                continue
            # d logp / d logits = (one-hot - p) / temperature
            p *= (slope / -temperature)[:, None]
            p.scatter_add_(1, target, (slope / temperature)[:, None])
            if grad_bias is not None:
                grad_bias += p.sum(0)
            p = p.to(h.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = _product(p, w)
            if grad_weight is not None:
                _add_product(grad_weight, p.t(), h[part])
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(logps, entropies)
        return total, logps, entropies

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (*_scaled(ctx, outputs[0]), None, None, None, None)


def multiplies_halves(device: torch.device) -> bool:
    """Whether a product of bfloat16 matrices can come out in float32 without a copy of the inputs in float32."""
    return device.type == "cuda"


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b in float32, of float32 or (on CUDA) of halves."""
    return torch.mm(a, b, out=out) if a.dtype == torch.float32 else torch.mm(a, b, out_dtype=torch.float32, out=out)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in float32."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    else:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
