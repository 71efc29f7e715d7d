"""GRPO's pure functions against values worked out by hand, and the fused loss against autograd over whole logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ra3kit.loss import LOSS_CHUNK, policy_loss
from ra3kit.rlvr.losses import STD_EPS, TokenLoss, advantages, clipped, has_signal, k3, weights

RATIO = torch.tensor([0.5, 0.5, 1.0, 2.0, 2.0])
SIGN = torch.tensor([1.0, -1.0, 3.0, 1.0, -1.0])


# ---- advantages -----------------------------------------------------------------------------------------------------


def test_advantages_by_hand() -> None:
    rewards = np.array([1.0, 0.0, 0.0, 1.0, 1.0])  # mean .6, sum of squares about it 1.2
    assert advantages(rewards) == pytest.approx([0.4, -0.6, -0.6, 0.4, 0.4])
    assert advantages(rewards, "loo") == pytest.approx([0.5, -0.75, -0.75, 0.5, 0.5])  # 1 - 2/4, 0 - 3/4
    deviation = (1.2 / 4) ** 0.5
    assert advantages(rewards, "std") == pytest.approx(np.array([0.4, -0.6, -0.6, 0.4, 0.4]) / (deviation + STD_EPS))


def test_leave_one_out_is_against_the_others() -> None:
    rewards = np.random.default_rng(0).random(7)
    for i, value in enumerate(advantages(rewards, "loo")):
        assert value == pytest.approx(rewards[i] - np.delete(rewards, i).mean())


@pytest.mark.parametrize("kind", ["mean", "std", "loo"])
def test_alike_or_alone_is_no_advantage(kind: Any) -> None:
    assert advantages(np.array([0.3, 0.3, 0.3]), kind) == pytest.approx([0, 0, 0], abs=1e-9)
    assert advantages(np.array([0.3]), kind) == pytest.approx([0])


def test_a_shaped_reward_alone_is_no_lesson() -> None:
    """Rewards differ by format in a group of failures: gated by the outcome there is nothing to learn."""
    assert not has_signal([0.0, -0.1, 0.0], [False, False, False])
    assert has_signal([0.0, -0.1, 0.0], [False, False, False], "reward")
    assert has_signal([0.0, 1.0], [False, True])
    assert not has_signal([None, 1.0, 1.0], [None, True, True])
    assert not has_signal([None, 1.0], [False, True])  # one answer has no other to be compared with


# ---- the loss of a token --------------------------------------------------------------------------------------------


def test_clipped_by_hand() -> None:
    # lowered though good: not clipped. lowered and bad: clipped at 1 - .2. raised and good: clipped at 1 + .28
    assert clipped(RATIO, SIGN, 0.2, 0.28).tolist() == pytest.approx([-0.5, 0.8, -3.0, -1.28, 2.0])


def test_what_is_clipped_has_no_gradient() -> None:
    logp = RATIO.log().requires_grad_()
    terms = TokenLoss(SIGN, torch.ones(5), old=torch.zeros(5))
    terms(logp, slice(None)).sum().backward()
    low, high = terms.is_clipped(logp.detach())
    assert low.tolist() == [False, True, False, False, False]
    assert high.tolist() == [False, False, False, True, False]
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([-0.5, 0.0, -3.0, 0.0, 2.0])  # else d(r A) = r A


def test_on_policy_gradient_is_the_advantage() -> None:
    logp = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    TokenLoss(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 0.1, 0.2]))(logp, slice(None)).sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([-0.1, 0.2, -0.1])


def test_importance_weights_are_capped_and_carry_no_gradient() -> None:
    logp = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    sampler = torch.tensor([-1.0, -1.0 - np.log(4.0), -1.0 + np.log(4.0)])
    terms = TokenLoss(torch.ones(3), torch.ones(3), sampler=sampler, cap=2.0)
    assert terms.importance(logp.detach()).tolist() == pytest.approx([1.0, 2.0, 0.25])
    terms(logp, slice(None)).sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([-1.0, -2.0, -0.25])


def test_k3_is_the_divergence_on_average() -> None:
    """Enumerated over a whole vocabulary, the estimate's mean is KL(pi || reference)."""
    pi, reference = torch.randn(2, 50, dtype=torch.float64).log_softmax(-1)
    assert float((pi.exp() * k3(pi, reference)).sum()) == pytest.approx(float((pi.exp() * (pi - reference)).sum()))
    assert float(k3(pi, reference).min()) >= 0
    assert k3(pi, pi).abs().max() == 0


def test_weights() -> None:
    """Each kind's loss of a constant 1 per token, by hand."""
    lengths = [2, 6, 4]
    sums = {
        kind: float(np.dot(lengths, weights(lengths, kind, 10, 12, 3))) for kind in ("token", "sequence", "constant")
    }
    assert sums == pytest.approx({"token": 1.0, "sequence": 1.0, "constant": 12 / 30})
    assert np.multiply(lengths, weights(lengths, "sequence", 10, 12, 3)) == pytest.approx([1 / 3] * 3)


# ---- fused over the head --------------------------------------------------------------------------------------------


def terms_for(tokens: int) -> TokenLoss:
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand((4, tokens), generator=generator)
    return TokenLoss(
        advantage=draw[0] * 2 - 1,
        weight=draw[1] / tokens,
        old=-6 + draw[2] * 0.6,
        sampler=-6 + draw[3] * 0.6,
        reference=-6 + draw[2] * 1.1,
        beta=0.3,
        cap=1.1,
    )


@pytest.mark.parametrize("tokens", [1, LOSS_CHUNK, 2 * LOSS_CHUNK + 7])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_fused_loss_is_that_of_whole_logits(tokens: int, temperature: float) -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(tokens, 16) * 0.3, torch.randn(300, 16) * 0.3, torch.randn(300) * 0.1
    targets = torch.randint(0, 300, (tokens,))
    terms = terms_for(tokens)

    inputs = [x.double().requires_grad_() for x in (hidden, weight, bias)]
    whole = ((inputs[0] @ inputs[1].T + inputs[2]) / temperature).log_softmax(-1)
    logp = whole.gather(1, targets[:, None]).squeeze(1)
    expected = terms(logp, slice(None)).sum()
    gradients = torch.autograd.grad(expected * 3, inputs)

    own = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    total, logps, entropies = policy_loss(own[0], own[1], own[2], targets, terms, temperature)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    assert torch.allclose(logps.double(), logp, atol=1e-5)
    assert torch.allclose(entropies.double(), -(whole.exp() * whole).sum(-1), atol=1e-5)
    for got, wanted in zip(torch.autograd.grad(total * 3, own), gradients, strict=True):
        assert float((got - wanted).norm() / wanted.norm()) < 1e-4


def test_fused_loss_leaves_its_inputs_alone_and_gives_its_gradient_once() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(20, 8)
    before: list[Tensor] = [hidden.detach().clone(), weight.clone()]
    terms = TokenLoss(torch.ones(4), torch.ones(4))
    total, _, _ = policy_loss(hidden, weight, None, torch.zeros(4, dtype=torch.int64), terms)
    total.backward(retain_graph=True)
    assert torch.equal(hidden.detach(), before[0])
    assert torch.equal(weight, before[1])
    with pytest.raises(RuntimeError, match="one backward pass"):
        total.backward()


def test_fused_loss_of_halves_adds_up_in_float32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(600, 16).bfloat16(), torch.randn(300, 16).bfloat16()
    targets = torch.randint(0, 300, (600,))
    terms = TokenLoss(torch.randn(600), torch.full((600,), 1 / 600))
    rounded = [x.double().requires_grad_() for x in (hidden, weight)]
    logp = (rounded[0] @ rounded[1].T).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    wanted = torch.autograd.grad(terms(logp, slice(None)).sum(), rounded)
    own = [x.clone().requires_grad_() for x in (hidden, weight)]
    total, logps, _ = policy_loss(own[0], own[1], None, targets, terms)
    assert logps.dtype == total.dtype == torch.float32
    for got, expected in zip(torch.autograd.grad(total, own), wanted, strict=True):
        assert got.dtype == torch.bfloat16
        assert float((got.double() - expected).norm() / expected.norm()) < 6e-3
