"""The latent prior p(z_t | s_t, z_{t-1}): what a new thought costs. Temporal consistency is all it asks for.

Method: RA3 (arXiv 2509.25810), temporal ELBO and Proposition 5.1. `FixedPenalty` is what the paper trains with, a
surrogate; `TemporalPrior` is the prior it stands for, exact for any number of latents |Z|.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import lightning as L
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.special import entr, xlogy

from ra3kit.abstraction.credit import Scale
from ra3kit.errors import RecipeError, RunError
from ra3kit.ranges import check_choice


class LatentPrior(L.LightningModule, ABC):
    """Base class: the price of each latent, subtracted from the reward of the line it stands before.

    The contract, which `AbstractionLearner` relies on:

    - `scale` names the unit of `penalty`: that of the line reward it is subtracted from. A learner whose reward is on
      another scale refuses the prior.
    - `penalty` is a constant to the policy gradient: no gradient flows through it, and it is finite.
    - what a latent costs depends on the latents of its own rollout up to it: not on later ones, which it must not be
      credited with, and not on the batch or its padding. The same latents cost the same again.
    - `forbids_thinking` True: the posterior must mask `<think>`, `penalty` is never asked about a thought, and charges
      nothing for `<act>`.
    - a prior with parameters of its own is a LightningModule like any other: give it a `training_step`.

    `ra3kit.testing.check_prior` checks these. Your own prior, here one where a thought is dearer right after another:

    >>> class Spaced(LatentPrior):
    ...     def __init__(self, c: float = 1.0, again: float = 3.0):
    ...         super().__init__("line_sum")
    ...         self.c, self.again = c, again
    ...
    ...     def penalty(self, is_thought, log_q, may_think=None):
    ...         after = torch.nn.functional.pad(is_thought, (1, 0))[..., :-1]
    ...         return (is_thought * torch.where(after, self.again, self.c)).to(log_q.dtype)
    ...
    ...     def describe(self):
    ...         return f"{self.c} nats per thought, {self.again} right after another"
    >>> Spaced().penalty(torch.tensor([[True, True, False]]), torch.zeros(1, 3))
    tensor([[1., 3., 0.]])

    Args:
        scale: unit of `penalty`, "line_sum" (nats) or "token_mean" (nats per token of the line).
    """

    forbids_thinking: bool = False
    """True when no thought has any probability: thinking is masked, which is next-token prediction."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        check_choice("prior.scale", scale, Scale)
        self.scale: Scale = scale

    @abstractmethod
    def penalty(
        self,
        is_thought: Bool[Tensor, "*b n"],
        log_q: Float[Tensor, "*b n"],
        may_think: Bool[Tensor, "*b n"] | None = None,
    ) -> Float[Tensor, "*b n"]:
        """What the latent before each line costs.

        Args:
            is_thought: True where the latent is a new thought, False where it is `<act>`.
            log_q: nats, log q of the latent that was drawn, all its tokens, under the grammar; taken as a constant.
            may_think: True where a latent may stand; elsewhere nothing is decided and the cost is 0. None: everywhere.

        Returns:
            [*b, n] in the unit of `scale`, in the dtype of `log_q`.
        """

    @abstractmethod
    def describe(self) -> str:
        """One line for the log: the prior, its settings and their unit."""


class FixedPenalty(LatentPrior):
    """A price c for each new thought and nothing for `<act>`: the paper's surrogate for the KL.

    Not the KL itself: q's own entropy is not rewarded, and there is no |Z|. Being no distribution it has no `log_prob`.
    Departure: c carries its scale, because the published values (0.01, 0.05, 0.2) are only meaningful against a
    per-token mean; against the line's sum, try about 0.5 to 4.

    Args:
        c: price of a thought, finite and not negative, in nats per token of the line it precedes ("token_mean") or in
            nats ("line_sum").
        scale: scale of the reward that c is measured in.

    Raises:
        RecipeError: c is negative, infinite or NaN (to forbid thinking use `TemporalPrior(alpha=1)`).

    >>> FixedPenalty(c=0.05).penalty(torch.tensor([[True, False]]), torch.zeros(1, 2))
    tensor([[0.0500, 0.0000]])
    """

    def __init__(self, c: float = 0.05, scale: Scale = "token_mean") -> None:
        super().__init__(scale)
        if not 0.0 <= c < math.inf:
            raise RecipeError(
                f"prior.c = {c}: allowed are finite numbers, 0 or more. To forbid thinking (next-token prediction) use "
                "TemporalPrior with alpha = 1; an infinite c would give inf - inf."
            )
        self.c = float(c)

    def penalty(
        self,
        is_thought: Bool[Tensor, "*b n"],
        log_q: Float[Tensor, "*b n"],
        may_think: Bool[Tensor, "*b n"] | None = None,
    ) -> Float[Tensor, "*b n"]:
        """c where a thought is written, else 0; see `LatentPrior.penalty`."""
        return is_thought.to(log_q.dtype) * self.c  # a thought where none may stand does not occur

    def equivalent_alpha(self, tokens_per_line: float = 1.0) -> float:
        """The alpha of a temporal prior that charges c for the decision to think, its content being free.

        Args:
            tokens_per_line: mean tokens of a line; turns a c in nats per token into nats ("token_mean" only).
        """
        return effective_alpha(self.c * (tokens_per_line if self.scale == "token_mean" else 1.0))

    def describe(self) -> str:
        """One line for the log."""
        unit = "nats per token of the line" if self.scale == "token_mean" else "nats"
        return f"fixed penalty, {self.c:g} {unit} per thought (scale {self.scale})"


class TemporalKL(NamedTuple):
    """KL(q || p) of one latent in its two terms, nats: the decision to switch, and the content of the new thought."""

    switching: Tensor
    content: Tensor

    @property
    def total(self) -> Tensor:
        """The whole KL, nats."""
        return self.switching + self.content


class TemporalPrior(LatentPrior):
    """p(z_t | s_t, z_{t-1}) = alpha delta(z_t = z_{t-1}) + (1 - alpha) U(z_t), uniform over |Z| latents.

    `<act>` is "stay": log alpha', alpha' = alpha + (1 - alpha) / |Z|. Each of the |Z| - 1 other latents has the
    probability (1 - alpha) / |Z|; a thought is always taken for one of these, also when it repeats the text of the
    current one. Before the first thought the current intent is the empty one. All exact for any |Z| >= 2: numbers of
    latents beyond every float are given by their logarithm, and the sums are done in log space and float64.

    `penalty` is the single-sample KL, log q(z_t) - log p(z_t): its mean under q is the exact KL, and its policy
    gradient is the exact gradient, since E_q[grad log q] = 0.

    alpha = 1 is next-token prediction: `forbids_thinking` is True, `<act>` has probability 1 and costs nothing.

    Args:
        alpha: in [0, 1], the weight of keeping the current intent.
        num_latents: |Z|, 2 or more. Give exactly one of this and
        log_num_latents: log|Z| in nats, log 2 or more (`log_num_strings` gives it for token strings).
        scale: "line_sum"; these are nats per latent, which no per-token mean is commensurate with.

    Raises:
        RecipeError: a value outside these ranges.

    >>> prior = TemporalPrior(alpha=0.9, num_latents=1000)
    >>> kl = prior.kl(torch.tensor(0.6), torch.tensor(2.0))
    >>> [round(float(term), 3) for term in kl]
    [0.312, 1.963]
    """

    def __init__(
        self,
        alpha: float,
        num_latents: int | float | None = None,
        log_num_latents: float | None = None,
        scale: Literal["line_sum"] = "line_sum",
    ) -> None:
        super().__init__(scale)
        if scale != "line_sum":
            raise RecipeError(
                f"prior.scale = {scale!r}: the temporal prior is in nats per latent, so only 'line_sum' is allowed. "
                "For a per-token mean use FixedPenalty(c, scale='token_mean')."
            )
        if not 0.0 <= alpha <= 1.0:
            raise RecipeError(f"prior.alpha = {alpha}: allowed is 0 <= alpha <= 1 (1 forbids thinking).")
        if (num_latents is None) == (log_num_latents is None):
            raise RecipeError(
                f"prior.num_latents = {num_latents} and prior.log_num_latents = {log_num_latents}: give exactly one of "
                "them."
            )
        given = f"prior.log_num_latents = {log_num_latents}"
        if num_latents is not None:
            given = f"prior.num_latents = {num_latents}"
            log_num_latents = math.log(num_latents) if num_latents >= 1 else -math.inf
        self.alpha = float(alpha)
        self.log_num_latents = _checked_log_size(log_num_latents, given)
        self.forbids_thinking = self.alpha == 1.0
        # nats: log alpha' of <act>, and log((1 - alpha) / |Z|) of any one thought (-inf when alpha = 1)
        log_leave = -math.inf if self.forbids_thinking else math.log1p(-self.alpha)
        self.log_stay = _log_add(math.log(alpha) if alpha > 0 else -math.inf, log_leave - self.log_num_latents)
        self.log_switch = log_leave - self.log_num_latents

    @property
    def log_others(self) -> float:
        """log(|Z| - 1), nats: the number of latents that can be switched to."""
        return self.log_num_latents + math.log1p(-math.exp(-self.log_num_latents))

    def log_prob(
        self, is_thought: Bool[Tensor, "*b n"], may_think: Bool[Tensor, "*b n"] | None = None
    ) -> Float[Tensor, "*b n"]:
        """log p(z_t | s_t, z_{t-1}) of each latent, nats, float64; 0 where `may_think` is False (None: nowhere).

        Raises:
            RunError: a thought, although alpha = 1 forbids them.
        """
        if self.forbids_thinking and bool(is_thought.any()):
            raise RunError(
                f"{int(is_thought.sum())} thoughts under a prior with alpha = 1, which gives them probability 0: mask "
                "<think> in the posterior (forbids_thinking is True), or lower alpha."
            )
        switch = 0.0 if self.forbids_thinking else self.log_switch
        stay = torch.tensor(self.log_stay, dtype=torch.float64, device=is_thought.device)
        log_p = torch.where(is_thought, switch, stay)
        return log_p if may_think is None else torch.where(may_think, log_p, 0.0)

    def penalty(
        self,
        is_thought: Bool[Tensor, "*b n"],
        log_q: Float[Tensor, "*b n"],
        may_think: Bool[Tensor, "*b n"] | None = None,
    ) -> Float[Tensor, "*b n"]:
        """log q(z_t) - log p(z_t), nats: an unbiased sample of the KL; see `LatentPrior.penalty`."""
        cost = log_q.detach() - self.log_prob(is_thought).to(log_q.dtype)
        return cost if may_think is None else torch.where(may_think, cost, 0.0)

    def kl(self, stay_prob: Float[Tensor, "*b"], switch_entropy: Float[Tensor, "*b"]) -> TemporalKL:
        """Exact KL(q || p) of a latent, split as in Proposition 5.1 (there for large |Z|; exact here for any).

        KL = KL(Bern(rho) || Bern(alpha')) + (1 - rho) (log(|Z| - 1) - H(q~)), rho = q(stay), q~ = q given a switch.

        Args:
            stay_prob: rho in [0, 1]. Give float64 where 1 - rho may be below 1e-7.
            switch_entropy: H(q~) in nats, in [0, log(|Z| - 1)].

        Returns:
            Both terms in float64, differentiable for rho inside (0, 1).

        Raises:
            RunError: alpha = 1 and some rho < 1: the KL is infinite.
        """
        rho, entropy = stay_prob.double(), switch_entropy.double()
        leave = 1.0 - rho
        if self.forbids_thinking:
            if bool((leave > 0).any()):
                raise RunError(
                    "the KL to a prior with alpha = 1 is infinite where q(stay) < 1: mask <think>, or lower alpha."
                )
            return TemporalKL(torch.zeros_like(leave), torch.zeros_like(leave))
        log_any_switch = self.log_switch + self.log_others  # log(1 - alpha')
        switching = -entr(rho) - entr(leave) - rho * self.log_stay - leave * log_any_switch
        return TemporalKL(switching, leave * (self.log_others - entropy))

    def kl_exact(self, q: Float[Tensor, "*b z"], previous: Tensor) -> Float[Tensor, "*b"]:
        """KL(q || p) by direct summation over all latents, nats, float64; for small |Z| and as the oracle of `kl`.

        Args:
            q: probabilities of the z = |Z| latents, in [0, 1], summing to 1.
            previous: integer [*b], index of z_{t-1}.

        Raises:
            RunError: z is not |Z|, or alpha = 1 and q switches.
        """
        if abs(math.log(q.shape[-1]) - self.log_num_latents) > 1e-9:
            raise RunError(f"q is over {q.shape[-1]} latents, but the prior is over exp({self.log_num_latents:.6g}).")
        stays = torch.nn.functional.one_hot(previous, q.shape[-1]).bool()
        log_p = torch.where(stays, torch.tensor(self.log_stay, dtype=torch.float64, device=q.device), self.log_switch)
        if self.forbids_thinking and bool((q.masked_fill(stays, 0.0) > 0).any()):
            raise RunError(
                "the KL to a prior with alpha = 1 is infinite where q switches: mask <think>, or lower alpha."
            )
        q = q.double()
        return (xlogy(q, q) - torch.where(q > 0, q * log_p, 0.0)).sum(-1)

    def describe(self) -> str:
        """One line for the log."""
        if self.forbids_thinking:
            return "temporal prior, alpha = 1: thinking is masked (next-token prediction)"
        return (
            f"temporal prior, alpha = {self.alpha:g}, log|Z| = {self.log_num_latents:.4g} nats: a given thought is "
            f"{self.log_stay - self.log_switch:.4g} nats less likely than <act> (scale {self.scale})"
        )


def penalty_of(alpha: float, log_num_latents: float) -> float:
    """Log-odds, nats, of staying against switching to one given latent: log(alpha' |Z| / (1 - alpha)), 0 or more.

    Raises:
        RecipeError: alpha outside [0, 1) (alpha = 1 has no finite price), or log|Z| below log 2.

    >>> round(penalty_of(0.5, math.log(1000)), 4)  # log(1 + 1000)
    6.9088
    """
    if not 0.0 <= alpha < 1.0:
        raise RecipeError(f"alpha = {alpha}: allowed is 0 <= alpha < 1; alpha = 1 has no finite price.")
    log_size = _checked_log_size(log_num_latents)
    return 0.0 if alpha == 0 else _log_add(0.0, math.log(alpha) - math.log1p(-alpha) + log_size)


def effective_alpha(c: float, log_num_latents: float | None = None) -> float:
    """The alpha whose prior charges c nats for a switch against a stay (rounds to 1 where c - log|Z| is above 36).

    Args:
        c: nats, finite, 0 or more.
        log_num_latents: log|Z|, nats: c is the log-odds of a stay against one *given* latent, the inverse of
            `penalty_of`: alpha = (e^c - 1) / (e^c - 1 + |Z|). None: c is the log-odds of a stay against switching *at
            all*, the content of the thought being free (H(q~) = log(|Z| - 1)) and |Z| large: alpha = 1 / (1 + e^-c).

    >>> round(effective_alpha(penalty_of(0.3, 70.0), 70.0), 12), round(effective_alpha(0.05), 4)
    (0.3, 0.5125)
    """
    if not 0.0 <= c < math.inf:
        raise RecipeError(f"c = {c}: allowed are finite numbers, 0 or more.")
    if log_num_latents is None:
        return 1.0 / (1.0 + math.exp(-c))
    if c == 0:
        return 0.0
    logit = c + math.log(-math.expm1(-c)) - _checked_log_size(log_num_latents)  # log(e^c - 1) - log|Z|
    return 1.0 / (1.0 + math.exp(-logit)) if logit > -700 else math.exp(logit)


def log_num_strings(vocab_size: int, max_tokens: int) -> float:
    """log of the number of token strings of 1 to max_tokens tokens, nats: log|Z| when every string is a latent.

    >>> round(log_num_strings(151_936, 6), 1)  # six free tokens of Qwen2 cost about 70 nats
    71.6
    """
    if vocab_size < 2 or max_tokens < 1:
        raise RecipeError(
            f"vocab_size = {vocab_size}, max_tokens = {max_tokens}: allowed are 2 or more, and 1 or more."
        )
    # V + V^2 + ... + V^m = V^m (1 - V^-m) / (1 - 1/V)
    log_v = math.log(vocab_size)
    return max_tokens * log_v + math.log1p(-math.exp(-max_tokens * log_v)) - math.log1p(-1.0 / vocab_size)


def _checked_log_size(log_num_latents: float | None, given: str | None = None) -> float:
    """log|Z| as a float, at least log 2; `given` is what the message calls it."""
    if log_num_latents is None or not math.log(2.0) - 1e-12 <= log_num_latents < math.inf:
        raise RecipeError(
            f"{given or f'log|Z| = {log_num_latents} nats'}: allowed is log|Z| = log 2 = 0.693 or more, finite "
            "(|Z| >= 2 latents)."
        )
    return max(float(log_num_latents), math.log(2.0))


def _log_add(x: float, y: float) -> float:
    """log(e^x + e^y) for finite x or y."""
    high, low = max(x, y), min(x, y)
    return high + math.log1p(math.exp(low - high))
