"""`check_prior`: does a prior do what `AbstractionLearner` relies on?"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from ra3kit.abstraction.credit import Scale
from ra3kit.abstraction.prior import LatentPrior
from ra3kit.testing.conformance.report import Checking, Report

Latents = tuple[Tensor, Tensor, Tensor]
"""is_thought, log_q, may_think."""


def check_prior(prior: LatentPrior) -> Report:
    """Check a prior on made-up latents: the clauses of `LatentPrior`.

    Raises:
        ConformanceError: the first clause that is broken, and by what.

    >>> from ra3kit.abstraction.prior import FixedPenalty
    >>> check_prior(FixedPenalty(c=0.05)).checked
    ['base', 'scale', 'shape', 'dtype', 'finite', 'constant', 'pure', 'may_think', 'own_row', 'causal', 'describe']
    """
    check = Checking(prior, LatentPrior)
    with check.clause("base", "it is a LatentPrior, and its __init__ calls the base's"):
        check.that(isinstance(prior, LatentPrior), f"the bases {[base.__name__ for base in type(prior).__mro__]}")
        check.that(hasattr(prior, "training") and hasattr(prior, "scale"), "no super().__init__(scale) was called")
    with check.clause("scale", "`scale` is the unit of the line reward, one of " + ", ".join(get_args(Scale))):
        check.that(prior.scale in get_args(Scale), f"scale = {prior.scale!r}")
    is_thought, log_q, may_think = made_up(prior.forbids_thinking)
    with check.clause("shape", "`penalty` has the shape of log_q: [n], [b, n], [b, k, n]", "penalty"):
        for at in (slice(None), 0, (0, 0)):
            got = prior.penalty(is_thought[at], log_q[at], may_think[at])
            check.that(got.shape == log_q[at].shape, f"{list(got.shape)} for log_q {list(log_q[at].shape)}")
    with check.clause("dtype", "`penalty` has the dtype of log_q", "penalty"):
        for dtype in (torch.float64, torch.float32):
            got = prior.penalty(is_thought, log_q.to(dtype), may_think)
            check.that(got.dtype == dtype, f"{got.dtype} for log_q of {dtype}")
    cost = prior.penalty(is_thought, log_q, may_think)
    with check.clause("finite", "`penalty` is finite"):
        check.that(bool(cost.isfinite().all()), f"{cost[~cost.isfinite()].tolist()[:3]}")
    with check.clause("constant", "`penalty` is a constant to the policy gradient: no gradient flows through it"):
        got = prior.penalty(is_thought, log_q.clone().requires_grad_(), may_think)
        check.that(not got.requires_grad, "penalty(...).requires_grad is True; take log_q.detach()")
    with check.clause("pure", "the same latents cost the same again, and the arguments are left as they are"):
        given, kept = made_up(prior.forbids_thinking), made_up(prior.forbids_thinking)
        again = prior.penalty(*given)
        check.that(torch.equal(again, cost), f"a difference of {_worst(again - cost)}")
        for name, after, before in zip(("is_thought", "log_q", "may_think"), given, kept, strict=True):
            check.that(torch.equal(before, after), f"{name} was changed in place")
    with check.clause("may_think", "`penalty` is 0 where no latent may stand; None means everywhere", "penalty"):
        elsewhere = cost[~may_think]
        check.that(bool((elsewhere == 0).all()), f"{_worst(elsewhere)} where may_think is False")
        everywhere = torch.ones_like(may_think)
        check.that(
            torch.equal(prior.penalty(is_thought, log_q), prior.penalty(is_thought, log_q, everywhere)),
            "may_think=None and may_think all True cost differently",
        )
    with check.clause("own_row", "a rollout's cost depends on its own latents: not on the batch, not on padding"):
        alone = prior.penalty(is_thought[:1, 1:2], log_q[:1, 1:2], may_think[:1, 1:2])
        check.that(_close(alone, cost[:1, 1:2]), f"alone it differs by {_worst(alone - cost[:1, 1:2])}")
        padded = prior.penalty(*(torch.nn.functional.pad(t, (0, 3)) for t in (is_thought, log_q, may_think)))
        check.that(_close(padded[..., :-3], cost), f"with padding it differs by {_worst(padded[..., :-3] - cost)}")
    with check.clause("causal", "what a latent costs does not depend on the latents after it"):
        half = is_thought.shape[-1] // 2
        change = torch.arange(is_thought.shape[-1]) >= half
        other = (is_thought & ~change, torch.where(change, 0.5 * log_q, log_q), may_think)
        moved = (prior.penalty(*other) - cost)[..., :half]
        check.that(_close(moved, torch.zeros_like(moved)), f"the cost of an earlier latent moved by {_worst(moved)}")
    masked = "a prior that forbids thinking charges nothing for <act>: next-token prediction"
    if prior.forbids_thinking:
        with check.clause("forbids", masked):
            got = prior.penalty(is_thought, torch.zeros_like(log_q), may_think)
            check.that(bool((got == 0).all()), f"{_worst(got)} for <act> drawn with probability 1")
    with check.clause("describe", "`describe` gives one line for the log", "describe"):
        said = prior.describe()
        check.that(isinstance(said, str) and bool(said.strip()) and "\n" not in said, repr(said))
    return check.report()


def made_up(forbids_thinking: bool) -> Latents:
    """Latents as rollouts have them, [2, 3, 8]: thoughts only where they may stand, log_q 0 where nothing was drawn."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 8)
    may_think = torch.rand(shape, generator=generator) < 0.75
    is_thought = may_think & (torch.rand(shape, generator=generator) < 0.5) & (not forbids_thinking)
    drawn = -5.0 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return is_thought, torch.where(may_think, drawn, 0.0), may_think


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def _worst(values: Tensor) -> str:
    return f"{float(values.abs().max()):.3g}" if values.numel() else "nothing"
