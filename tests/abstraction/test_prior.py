"""Priors against direct summation: Proposition 5.1 for any |Z|, the sampled KL, the limits alpha = 0 and alpha = 1."""

from __future__ import annotations

import math

import jaxtyping
import lightning as L
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from ra3kit.abstraction.prior import (
    FixedPenalty,
    LatentPrior,
    TemporalPrior,
    effective_alpha,
    log_num_strings,
    penalty_of,
)
from ra3kit.errors import RecipeError, RunError


def random_q(size: int, seed: int, zeros: bool = False) -> Tensor:
    """A distribution over `size` latents, float64; with `zeros`, about half of them are impossible."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(size, generator=generator, dtype=torch.float64) ** 3 + 1e-6
    if zeros:
        weights[1::2] = 0.0
    return weights / weights.sum()


def direct_kl(q: Tensor, alpha: float, previous: int) -> float:
    """KL(q || p) written out from the definition of the prior, one latent at a time."""
    size, total = len(q), 0.0
    for z, mass in enumerate(q.tolist()):
        p = alpha * (z == previous) + (1 - alpha) / size
        total += mass * math.log(mass / p) if mass > 0 else 0.0
    return total


def split(q: Tensor, previous: int) -> tuple[Tensor, Tensor]:
    """rho = q(stay) and H(q~), the entropy of q given a switch."""
    others = torch.cat([q[:previous], q[previous + 1 :]])
    given_switch = others / others.sum()
    return q[previous], torch.special.entr(given_switch).sum()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.3, 0.9, 1 - 1e-9])
@pytest.mark.parametrize("size", [2, 3, 7, 50])
def test_proposition_5_1_is_the_kl_for_any_number_of_latents(size: int, alpha: float, zeros: bool):
    prior = TemporalPrior(alpha, num_latents=size)
    for seed, previous in ((0, 0), (1, size - 1), (2, 0)):
        q = random_q(size, seed, zeros and size > 2)
        expected = direct_kl(q, alpha, previous)
        assert prior.kl(*split(q, previous)).total.item() == pytest.approx(expected, rel=1e-6, abs=1e-10)
        assert prior.kl_exact(q, torch.tensor(previous)).item() == pytest.approx(expected, rel=1e-6, abs=1e-10)


@given(
    weights=st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=12),
    alpha=st.floats(0.0, 0.999),
    previous=st.integers(0, 11),
)
def test_the_split_is_exact_and_never_negative(weights: list[float], alpha: float, previous: int):
    assume(previous < len(weights))
    q = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    terms = TemporalPrior(alpha, num_latents=len(weights)).kl(*split(q, previous))
    assert terms.total.item() == pytest.approx(direct_kl(q, alpha, previous), abs=1e-9)
    assert terms.switching >= -1e-12
    assert terms.content >= -1e-12


def test_kl_terms_are_the_bernoulli_kl_and_the_entropy_gap():
    alpha, size, rho, entropy = 0.8, 11, 0.7, 1.5
    stay = alpha + (1 - alpha) / size
    terms = TemporalPrior(alpha, num_latents=size).kl(torch.tensor(rho).double(), torch.tensor(entropy).double())
    assert terms.switching.item() == pytest.approx(
        rho * math.log(rho / stay) + (1 - rho) * math.log((1 - rho) / (1 - stay))
    )
    assert terms.content.item() == pytest.approx((1 - rho) * (math.log(size - 1) - entropy))


@pytest.mark.parametrize("log_size", [40.0, 1e3, 1e6, 1e300])
def test_kl_with_more_latents_than_floats(log_size: float):
    prior = TemporalPrior(0.8, log_num_latents=log_size)
    rho = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    terms = prior.kl(rho, torch.full((3,), log_size, dtype=torch.float64))
    expected = [-math.log(0.2), 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2), -math.log(0.8)]
    # at 1e300 nats, log(1 - alpha) is below the resolution of a float64: the price of any thought is exactly log|Z|
    tolerance = max(1e-9, log_size * 1e-15)
    torch.testing.assert_close(terms.switching, torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=1e-9)
    assert torch.isfinite(prior.log_prob(torch.tensor([True, False]))).all()


def test_alpha_0_is_the_uniform_prior():
    prior = TemporalPrior(0.0, num_latents=5)
    torch.testing.assert_close(prior.log_prob(torch.tensor([True, False])), torch.full((2,), -math.log(5)).double())
    q = random_q(5, 0)
    uniform = math.log(5) - torch.special.entr(q).sum()
    torch.testing.assert_close(prior.kl_exact(q, torch.tensor(3)), uniform)


@pytest.mark.parametrize("size", [2, 3, 1000])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.99])
def test_log_prob_is_normalised(size: int, alpha: float):
    stay, switch = TemporalPrior(alpha, num_latents=size).log_prob(torch.tensor([False, True])).exp().tolist()
    assert stay + (size - 1) * switch == pytest.approx(1.0, abs=1e-12)


def test_mean_penalty_under_q_is_the_exact_kl():
    """The single-sample KL, enumerated over every latent."""
    size, previous, alpha = 6, 2, 0.7
    prior, q = TemporalPrior(alpha, num_latents=size), random_q(size, 4)
    is_thought = torch.arange(size) != previous
    penalty = prior.penalty(is_thought[:, None], q.log()[:, None]).squeeze(1)
    assert (q * penalty).sum().item() == pytest.approx(direct_kl(q, alpha, previous), abs=1e-12)


def test_policy_gradient_of_the_penalty_is_the_gradient_of_the_kl():
    size, previous = 5, 1
    prior = TemporalPrior(0.6, num_latents=size)
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    log_q = logits.log_softmax(0)
    (exact,) = torch.autograd.grad(prior.kl_exact(log_q.exp(), torch.tensor(previous)), logits, retain_graph=True)
    penalty = prior.penalty((torch.arange(size) != previous)[:, None], log_q[:, None]).squeeze(1)
    assert not penalty.requires_grad
    (estimated,) = torch.autograd.grad((log_q.exp().detach() * penalty * log_q).sum(), logits)
    torch.testing.assert_close(estimated, exact)


def test_kl_is_differentiable():
    prior = TemporalPrior(0.6, num_latents=9)
    rho, entropy = (
        torch.tensor([0.2, 0.7]).double().requires_grad_(),
        torch.tensor([0.5, 2.0]).double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda r, h: prior.kl(r, h).total, (rho, entropy))


def test_where_no_latent_may_stand_nothing_is_paid():
    prior = TemporalPrior(0.9, num_latents=10)
    is_thought, may = torch.tensor([[False, True, False]]), torch.tensor([[False, True, True]])
    log_q = torch.tensor([[0.0, -1.0, -0.5]])
    assert prior.log_prob(is_thought, may)[0, 0] == 0
    paid, everywhere = prior.penalty(is_thought, log_q, may), prior.penalty(is_thought, log_q)
    assert paid[0, 0] == 0
    assert everywhere[0, 0] > 0  # -log alpha'
    torch.testing.assert_close(paid[0, 1:], everywhere[0, 1:])
    torch.testing.assert_close(paid[0, 1], -1.0 - prior.log_prob(is_thought)[0, 1], check_dtype=False)


def test_alpha_1_is_next_token_prediction_and_never_infinite():
    prior = TemporalPrior(1.0, log_num_latents=70.0)
    assert prior.forbids_thinking
    assert not TemporalPrior(1 - 1e-9, num_latents=2).forbids_thinking
    act, certain = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3)
    assert (prior.penalty(act, certain) == 0).all()
    assert (prior.log_prob(act) == 0).all()
    assert prior.kl(torch.ones(2), torch.zeros(2)).total.tolist() == [0.0, 0.0]
    thought = act.clone()
    thought[1, 2] = True
    with pytest.raises(RunError, match="1 thoughts under a prior with alpha = 1"):
        prior.penalty(thought, certain)
    with pytest.raises(RunError, match="infinite"):
        prior.kl(torch.tensor([0.9]), torch.zeros(1))
    small = TemporalPrior(1.0, num_latents=3)
    assert small.kl_exact(torch.tensor([0.0, 1.0, 0.0]), torch.tensor(1)).item() == 0.0
    with pytest.raises(RunError, match="infinite"):
        small.kl_exact(torch.tensor([0.5, 0.5, 0.0]), torch.tensor(1))


@pytest.mark.parametrize("scale", ["line_sum", "token_mean"])
def test_fixed_penalty_costs_c_per_thought_whatever_q(scale: str):
    prior = FixedPenalty(0.25, scale)
    is_thought = torch.tensor([[True, False, True]])
    log_q = torch.tensor([[-9.0, -0.1, 0.0]], requires_grad=True)
    penalty = prior.penalty(is_thought, log_q, is_thought)
    assert penalty.tolist() == [[0.25, 0.0, 0.25]]
    assert not penalty.requires_grad
    assert prior.scale == scale
    assert not prior.forbids_thinking
    assert scale in prior.describe()


def test_equivalent_alpha_follows_the_scale_of_c():
    assert FixedPenalty(0.05, "token_mean").equivalent_alpha(20.0) == pytest.approx(1 / (1 + math.exp(-1.0)))
    assert FixedPenalty(1.0, "line_sum").equivalent_alpha(20.0) == pytest.approx(1 / (1 + math.exp(-1.0)))


def test_defaults_are_the_published_ones():
    prior = FixedPenalty()
    assert (prior.c, prior.scale) == (0.05, "token_mean")


@given(c=st.floats(1e-6, 60.0), log_size=st.floats(math.log(2), 500.0))
def test_price_and_alpha_are_inverse(c: float, log_size: float):
    assume(c - log_size < 20)  # above, alpha is too near 1 for a float to tell
    assert penalty_of(effective_alpha(c, log_size), log_size) == pytest.approx(c, rel=1e-6)


def test_price_is_the_log_odds_of_the_prior_itself():
    for alpha in (0.0, 0.2, 0.99):
        prior = TemporalPrior(alpha, num_latents=300)
        stay, switch = prior.log_prob(torch.tensor([False, True])).tolist()
        assert penalty_of(alpha, math.log(300)) == pytest.approx(stay - switch, abs=1e-12)


def test_price_of_the_decision_alone_is_a_log_odds_too():
    alpha = effective_alpha(2.0)
    prior = TemporalPrior(alpha, log_num_latents=1e3)
    log_any_switch = prior.log_switch + prior.log_others
    assert prior.log_stay - log_any_switch == pytest.approx(2.0, abs=1e-9)


def test_number_of_strings():
    assert log_num_strings(3, 4) == pytest.approx(math.log(3 + 9 + 27 + 81))
    assert 6 * math.log(151_936) == pytest.approx(log_num_strings(151_936, 6), abs=1e-4)


@pytest.mark.parametrize(
    ("build", "fragment"),
    [
        (lambda: FixedPenalty(math.inf), "alpha = 1"),
        (lambda: FixedPenalty(-1.0), "0 or more"),
        (lambda: FixedPenalty(math.nan), "prior.c = nan"),
        (lambda: FixedPenalty(1.0, "line_mean"), "Did you mean"),
        (lambda: TemporalPrior(1.5, num_latents=9), "prior.alpha = 1.5"),
        (lambda: TemporalPrior(0.5), "exactly one"),
        (lambda: TemporalPrior(0.5, num_latents=9, log_num_latents=2.0), "exactly one"),
        (lambda: TemporalPrior(0.5, num_latents=1), "2 latents"),
        (lambda: TemporalPrior(0.5, num_latents=0), "2 latents"),
        (lambda: TemporalPrior(0.5, log_num_latents=math.inf), "finite"),
        (lambda: TemporalPrior(0.5, num_latents=9, scale="token_mean"), "FixedPenalty"),
        (lambda: penalty_of(1.0, 5.0), "no finite price"),
        (lambda: effective_alpha(-1.0), "c = -1.0"),
        (lambda: log_num_strings(1, 3), "vocab_size = 1"),
    ],
)
def test_values_out_of_range_are_refused(build, fragment: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # these reach users, who run no type checker
    with pytest.raises(RecipeError, match=fragment):
        build()


def test_a_q_over_another_number_of_latents_is_refused():
    with pytest.raises(RunError, match="over 4 latents"):
        TemporalPrior(0.5, num_latents=5).kl_exact(torch.full((4,), 0.25), torch.tensor(0))


def test_priors_are_lightning_modules_and_the_base_class_is_abstract():
    assert isinstance(FixedPenalty(), L.LightningModule)
    assert isinstance(TemporalPrior(0.5, num_latents=2), LatentPrior)
    with pytest.raises(TypeError, match="abstract"):
        LatentPrior("line_sum")
