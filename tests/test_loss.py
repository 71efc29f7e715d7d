"""The fused head loss: float32 sums of halves, autocast, what is not trained, and one backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ra3kit import loss
from ra3kit.loss import LOSS_CHUNK, summed_nats


def case(tokens: int, vocabulary: int = 300, width: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden [m, h], weight [v, h], bias [v], targets [m]; far from uniform."""
    hidden, weight = torch.randn(tokens, width), torch.randn(vocabulary, width)
    return hidden, weight, torch.randn(vocabulary), torch.randint(0, vocabulary, (tokens,))


def exact(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, factor: float) -> tuple[Tensor, ...]:
    """Loss and gradients in float64, of the given (already rounded) numbers."""
    inputs = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    nats = F.cross_entropy(inputs[0] @ inputs[1].T + inputs[2], targets, reduction="sum")
    return (nats.detach(), *torch.autograd.grad(nats * factor, inputs))


def ours(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, factor: float) -> tuple[Tensor, ...]:
    inputs = [x.detach().clone().requires_grad_() for x in (hidden, weight, bias)]
    nats = summed_nats(*inputs, targets)
    return (nats.detach(), *torch.autograd.grad(nats * factor, inputs))


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("tokens", [1, LOSS_CHUNK, 3 * LOSS_CHUNK + 7])
def test_float32(tokens: int) -> None:
    inputs = case(tokens)
    for got, expected in zip(ours(*inputs, 0.25), exact(*inputs, 0.25), strict=True):
        assert got.dtype == torch.float32
        assert relative_error(got, expected) < 1e-5


def test_sums_over_bfloat16_weights_lose_nothing() -> None:
    """A bfloat16 sum of 20,000 tokens of 8 nats stops growing, and the head's gradient loses what is small."""
    inputs = case(20_000)
    halves = [x.bfloat16() for x in inputs[:3]]
    got = ours(*halves, inputs[3], 1.0)
    expected = exact(*halves, inputs[3], 1.0)
    assert got[0].dtype == torch.float32
    assert float(got[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    for gradient, value in zip(got[1:], expected[1:], strict=True):
        assert gradient.dtype == torch.bfloat16
        assert relative_error(gradient, value) < 2e-3  # rounded once, at the end


def test_autocast_rounds_the_inputs_and_nothing_else() -> None:
    inputs = case(3 * LOSS_CHUNK + 7)
    with torch.autocast("cpu", torch.bfloat16):
        got = ours(*inputs, 1.0)
    expected = exact(*(x.bfloat16() for x in inputs[:3]), inputs[3], 1.0)
    unrounded = exact(*inputs, 1.0)
    for value, rounded, plain in zip(got, expected, unrounded, strict=True):
        assert value.dtype == torch.float32
        assert relative_error(value, rounded) < 1e-5
        assert relative_error(value, plain) > 2 * relative_error(value, rounded)


def test_the_arithmetic_of_cuda_with_stand_ins_for_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA halves are multiplied into float32: p - one-hot is rounded too, the sums still are not."""
    monkeypatch.setattr(loss, "multiplies_halves", lambda device: True)
    monkeypatch.setattr(loss, "_product", lambda a, b, out=None: torch.mm(a.float(), b.float(), out=out))
    seen = []

    def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
        seen.append((total.dtype, a.dtype, b.dtype))
        total += a.float() @ b.float()

    monkeypatch.setattr(loss, "_add_product", add_product)
    inputs = case(3 * LOSS_CHUNK)
    halves = [x.bfloat16() for x in inputs[:3]]
    got, expected = ours(*halves, inputs[3], 1.0), exact(*halves, inputs[3], 1.0)
    assert seen == [(torch.float32, torch.bfloat16, torch.bfloat16)] * 3
    assert float(got[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    for gradient, value in zip(got[1:], expected[1:], strict=True):
        assert relative_error(gradient, value) < 4e-3


def test_a_frozen_head_gets_no_gradient_and_costs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("a gradient that nobody wants")

    monkeypatch.setattr(loss, "_add_product", forbidden)
    hidden, weight, _, targets = case(300)
    expected = exact(hidden, weight, torch.zeros(300), targets, 1.0)
    [gradient] = torch.autograd.grad(summed_nats(hidden.requires_grad_(), weight, None, targets), [hidden])
    assert relative_error(gradient, expected[1]) < 1e-5
    with torch.no_grad():
        assert float(summed_nats(hidden, weight, None, targets)) == pytest.approx(float(expected[0]), rel=1e-6)


def test_a_second_backward_pass_is_an_error() -> None:
    hidden, weight, _, targets = case(5)
    nats = summed_nats(hidden.requires_grad_(), weight, None, targets)
    nats.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        nats.backward()
