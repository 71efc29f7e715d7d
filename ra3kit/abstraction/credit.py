"""Credit: from the log-likelihood of each line to the advantage of each latent. Pure functions, no state.

Legend: `b` snippets, `k` rollouts of each snippet, `n` lines (padded; `is_line` is True on real lines, and whatever
stands on padding, NaN included, is never read). Rewards are in nats, or nats per token, as `scale` says.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ra3kit.errors import RecipeError
from ra3kit.ranges import check_choice

Scale = Literal["line_sum", "token_mean"]
"""Unit of a line's reward: nats over the whole line, or nats per token of the line."""
Credit = Literal["return_to_go", "immediate", "whole"]
"""Which lines' rewards a latent is credited with."""
Baseline = Literal["loo", "mean", "none"]
"""What is subtracted from a return: the mean of the other rollouts, of all rollouts, or nothing."""


def line_reward(line_logp: Float[Tensor, "*b n"], line_tokens: Int[Tensor, "*b n"], scale: Scale) -> Tensor:
    """Reward of each line before the prior's penalty: its log-likelihood on the chosen scale.

    The paper leaves the scale open; its penalties (.01, .05, .2) only make sense for the per-token mean. A penalty has
    to be given on the same scale (`LatentPrior.scale`).

    Args:
        line_logp: nats, log pi(a_t | s_t, z_{0:t}) summed over the line's tokens, log pi(<act>) included.
        line_tokens: tokens of the line, 0 on padding.
        scale: "line_sum" or "token_mean".

    Returns:
        [*b, n] nats, or nats per token; 0 where the line has no token.

    >>> line_reward(torch.tensor([-6.0, -2.0]), torch.tensor([3, 1]), "token_mean")
    tensor([-2., -2.])
    """
    check_choice("scale", scale, Scale)
    reward = line_logp if scale == "line_sum" else line_logp / line_tokens.clamp(min=1)
    return torch.where(line_tokens > 0, reward, 0.0)


def check_credit(credit: Credit, horizon: int | None, discount: float) -> None:
    """Raise RecipeError for settings that `returns` cannot honour; a learner calls it once, when it is built."""
    check_choice("credit", credit, Credit)
    if horizon is not None and horizon < 1:
        raise RecipeError(f"horizon = {horizon}: allowed are whole lines, 1 or more, or null for no limit.")
    if not 0.0 < discount <= 1.0:
        raise RecipeError(f"discount = {discount}: allowed is 0 < discount <= 1.")
    if credit == "immediate" and horizon not in (None, 1):
        raise RecipeError(f"credit = 'immediate' is a horizon of 1 line, but horizon = {horizon}: set horizon to null.")
    if credit == "whole" and (horizon is not None or discount != 1.0):
        raise RecipeError(
            f"credit = 'whole' gives every latent the undiscounted sum over all lines, but horizon = {horizon} and "
            f"discount = {discount}: set horizon to null and discount to 1, or use credit = 'return_to_go'."
        )


def returns(
    rewards: Float[Tensor, "*b n"],
    is_line: Bool[Tensor, "*b n"],
    credit: Credit = "return_to_go",
    horizon: int | None = None,
    discount: float = 1.0,
) -> Float[Tensor, "*b n"]:
    """What the latent before each line is credited with; method: the E-step's T-horizon RL, its credit left open.

    - "return_to_go": G_t = sum_{u=t}^{min(n, t+horizon)-1} discount^{u-t} r_u; all later lines when horizon is None.
    - "immediate": G_t = r_t, return-to-go with a horizon of one line; myopic.
    - "whole": G_t = sum_u r_u for every t, one reward per snippet; with a single latent this is the BRiTE-style arm.

    Args:
        rewards: reward of each line, penalty already subtracted.
        is_line: True on real lines.
        horizon: lines, 1 or more; None for no limit.
        discount: per line, in (0, 1].

    Returns:
        [*b, n] in the unit of `rewards`; 0 on padding.

    Raises:
        RecipeError: unknown credit, or a horizon or discount that this credit cannot honour.

    >>> r, real = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, True, True])
    >>> returns(r, real, "return_to_go", horizon=2), returns(r, real, "whole")
    (tensor([3., 6., 4.]), tensor([7., 7., 7.]))
    """
    check_credit(credit, horizon, discount)
    rewards = torch.where(is_line, rewards, 0.0)
    if credit == "whole":
        total = rewards.sum(-1, keepdim=True).expand_as(rewards)
        return torch.where(is_line, total, 0.0)
    lines = rewards.shape[-1]
    reach = 1 if credit == "immediate" else min(lines, horizon or lines)
    # a sum of shifts, not a matrix product (TF32 or autocast would round it) nor a difference of sums (cancellation)
    result = rewards.clone()
    for ahead in range(1, reach):
        result[..., : lines - ahead] += discount**ahead * rewards[..., ahead:]
    return torch.where(is_line, result, 0.0)


def check_baseline(baseline: Baseline, rollouts: int) -> None:
    """Raise RecipeError when `baseline` needs more rollouts per snippet than there are."""
    check_choice("baseline", baseline, Baseline)
    if baseline != "none" and rollouts < 2:
        raise RecipeError(
            f"baseline = {baseline!r} compares the rollouts of a snippet, but there is {rollouts} of each: "
            "use 2 or more, or baseline = 'none'."
        )


def group_advantage(
    returns: Float[Tensor, "b k n"], is_line: Bool[Tensor, "b k n"], baseline: Baseline = "loo"
) -> Float[Tensor, "b k n"]:
    """Advantage of each latent: its return against those of the k rollouts of the same snippet at the same line.

    Never divided by the group's standard deviation: in a group that differs only by the penalty c, that division would
    turn c into a unit advantage. "loo" is unbiased: G_i - mean of the others = k/(k-1) (G_i - mean of all).

    Args:
        returns: as given by `returns`.
        is_line: True on real lines; a rollout that was dropped is False throughout and counts for nobody.
        baseline: "loo", "mean" or "none".

    Returns:
        [b, k, n]; 0 on padding, exactly 0 where all returns are equal, and 0 at a line with a single rollout.

    Raises:
        RecipeError: unknown baseline, or k = 1 with "loo" or "mean".

    >>> group_advantage(torch.tensor([[[1.0], [1.0], [0.7]]]), torch.ones(1, 3, 1, dtype=torch.bool)).flatten()
    tensor([ 0.1500,  0.1500, -0.3000])
    """
    check_baseline(baseline, returns.shape[-2])
    if baseline == "none":
        return torch.where(is_line, returns, 0.0)
    count = is_line.sum(-2, keepdim=True)  # [b 1 n]
    best = torch.where(is_line, returns, -torch.inf).amax(-2, keepdim=True)
    # measured from the group's best, so that equal returns give exactly 0 and small differences keep their digits
    below = torch.where(is_line, returns - best, 0.0)
    advantage = below - below.sum(-2, keepdim=True) / count.clamp(min=1)
    if baseline == "loo":
        advantage = advantage * count / (count - 1).clamp(min=1)  # in this order: integer / integer would be float32
    return torch.where(is_line, advantage, 0.0)
