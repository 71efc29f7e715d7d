"""Lower bounds of log p(code): the temporal ELBO with its terms, the bound with pi's own prior, and IWAE-K.

Which log-probability goes where (`b` snippets, `k` rollouts of each, `n` lines):

- log pi(z, a) is the raw sum of pi's next-token log-probabilities over every thought and code token. `<act>` adds no
  ids: log pi(<act>) is inside the first token of its line.
- log q(z) is the sum of log q(<act>) or of log q(thought) of the posterior under its grammar (renormalised).
- Two priors, two bounds. Under a fixed prior p(z): `elbo_terms(line_logp, p.log_prob(is_thought, may_think), ...)`, a
  lower bound of log sum_z p(z) pi(a|z). Under pi's own prior: the `log_prior` of a line is the raw log pi of its
  thought's tokens, 0 for `<act>`; the bound is one of log sum_z pi(z, a). Neither is a bound of NTP's likelihood.

The fair comparison with NTP is the second, per token of code, with the same tokens counted on both sides (the end token
in both or in neither; to include it, add its log-probability to the last line). If expert lines may be comments at
column 0, one token string can be read as several (z, a) and log sum_z pi(z, a) counts it once for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Elbo:
    """The temporal ELBO of each trajectory in its three terms, nats; single-sample estimates, unbiased under q.

    Args:
        reconstruction: [*b], sum_t log pi(a_t | s_t, z_{0:t}).
        prior: [*b], sum_t log p(z_t | ...).
        entropy: [*b], -sum_t log q(z_t | ...).
    """

    reconstruction: Float[Tensor, "*b"]
    prior: Float[Tensor, "*b"]
    entropy: Float[Tensor, "*b"]

    @property
    def kl(self) -> Tensor:
        """Sampled KL(q || p) of each trajectory, nats."""
        return -(self.prior + self.entropy)

    @property
    def total(self) -> Tensor:
        """The bound of each trajectory, nats; its mean under q is the ELBO."""
        return self.reconstruction + self.prior + self.entropy


def elbo_terms(
    line_logp: Float[Tensor, "*b n"],
    log_prior: Float[Tensor, "*b n"],
    log_q: Float[Tensor, "*b n"],
    is_line: Bool[Tensor, "*b n"],
) -> Elbo:
    """The terms of the temporal ELBO, summed over the lines of each trajectory.

    Args:
        line_logp: nats, raw log pi(a_t | s_t, z_{0:t}) of the line's tokens.
        log_prior: nats, log-probability of the latent before the line, under the fixed prior or under pi; 0 where no
            latent may stand (`TemporalPrior.log_prob(is_thought, may_think)` sees to it).
        log_q: nats, log q of that latent; 0 where none may stand.
        is_line: True on real lines; whatever stands on padding is not read.

    >>> one = torch.tensor([[1.0, float("nan")]])
    >>> float(elbo_terms(-3 * one, -2 * one, -1 * one, torch.tensor([[True, False]])).total)  # -3 - 2 + 1
    -4.0
    """

    def over_lines(values: Tensor) -> Tensor:
        return torch.where(is_line, values, 0.0).sum(-1)

    return Elbo(over_lines(line_logp), over_lines(log_prior), -over_lines(log_q))


def learned_bound(log_joint: Float[Tensor, "b k"], log_q: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """The bound with pi as its own prior: mean over k samples of log pi(z, a) - log q(z), nats.

    Args:
        log_joint: log pi(z, a) of each rollout.
        log_q: log q(z) of each rollout, finite.
    """
    return (log_joint - log_q).mean(-1)


def iwae(log_joint: Float[Tensor, "b k"], log_q: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Importance-weighted bound IWAE-K: log of the mean over k of pi(z, a) / q(z), nats; k = 1 is `learned_bound`.

    In expectation it rises with k towards log sum_z pi(z, a). Also for a fixed prior: pass log p(z) pi(a | z). It is a
    bound only if the k rollouts are independent draws of q: not for the best of K.

    >>> x = torch.tensor([[0.0, math.log(3.0)]])
    >>> round(float(iwae(x, torch.zeros(1, 2)).exp()), 4)  # mean of 1 and 3
    2.0
    """
    return torch.logsumexp(log_joint - log_q, -1) - math.log(log_joint.shape[-1])


class InformationGain(NamedTuple):
    """What thoughts add to the log-likelihood of the lines they stand before: nats, and nats per token."""

    total: Tensor
    per_token: Tensor


def information_gain(
    logp_with: Float[Tensor, "*m"], logp_without: Float[Tensor, "*m"], tokens: Int[Tensor, "*m"]
) -> InformationGain:
    """Gain of each thought: log-likelihood of its lines with it, minus without it, under the same weights.

    Its lines are those up to the next thought (`ra3kit.abstraction.statistics.thought_spans`); "without" removes this
    thought only. A thought pays for itself when its total exceeds its penalty.

    Args:
        logp_with, logp_without: nats, one entry per thought.
        tokens: code tokens of these lines, 1 or more.

    Returns:
        Both [*m]. Over many thoughts, divide the sum of `total` by the sum of `tokens`: `ra3kit.metrics.TokenRatio`.
    """
    total = logp_with - logp_without
    return InformationGain(total, total / tokens)
