"""Returns and advantages against plain loops, and the traps: no std division, padding, low-precision matmul."""

from __future__ import annotations

import itertools

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ra3kit.abstraction.credit import check_baseline, check_credit, group_advantage, line_reward, returns
from ra3kit.errors import RecipeError


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong choices reach users, who run no type checker: switch off that of the tests, if it is on."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def ragged(seed: int, b: int = 3, k: int = 4, n: int = 7) -> tuple[Tensor, Tensor]:
    """Random rewards [b k n], NaN and numbers on padding; the first snippet fills all lines, the last has one."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(b, k, n, generator=generator, dtype=torch.float64) * 5
    lengths = torch.linspace(n, 1, b).long()
    is_line = (torch.arange(n) < lengths[:, None])[:, None].expand(b, k, n)
    rubbish = torch.where(torch.arange(n) % 2 == 0, torch.nan, 1e3)
    return torch.where(is_line, rewards, rubbish), is_line


def looped_returns(r: list[float], horizon: int | None, discount: float) -> list[float]:
    end = len(r) if horizon is None else horizon
    return [sum(discount ** (u - t) * r[u] for u in range(t, min(len(r), t + end))) for t in range(len(r))]


@pytest.mark.parametrize("horizon", [None, 1, 2, 3, 100])
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_return_to_go_equals_a_loop(horizon: int | None, discount: float):
    rewards, is_line = ragged(0)
    ours = returns(rewards, is_line, "return_to_go", horizon, discount)
    for b, k in itertools.product(range(3), range(4)):
        length = int(is_line[b, k].sum())
        expected = looped_returns(rewards[b, k, :length].tolist(), horizon, discount)
        torch.testing.assert_close(ours[b, k, :length], torch.tensor(expected, dtype=torch.float64))
        assert (ours[b, k, length:] == 0).all()


def test_immediate_is_a_horizon_of_one_line_and_whole_is_one_reward_for_all():
    rewards, is_line = ragged(1)
    real = torch.where(is_line, rewards, 0.0)
    torch.testing.assert_close(returns(rewards, is_line, "immediate"), real)
    torch.testing.assert_close(returns(rewards, is_line, "immediate", 1), returns(rewards, is_line, horizon=1))
    whole = returns(rewards, is_line, "whole")
    torch.testing.assert_close(whole, real.sum(-1, keepdim=True) * is_line)
    torch.testing.assert_close(whole[..., 0], returns(rewards, is_line, "return_to_go")[..., 0])


def test_returns_do_not_lose_precision_under_autocast():
    rewards = torch.full((1, 1, 64), -1000.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = returns(rewards, torch.ones_like(rewards, dtype=torch.bool))[0, 0, 0]
    assert total.item() == pytest.approx(-64 * 1000.05, abs=0.05)


@pytest.mark.parametrize(
    ("settings_", "fragment"),
    [
        ({"credit": "return-to-go"}, "Did you mean 'return_to_go'?"),
        ({"horizon": 0}, "horizon = 0"),
        ({"discount": 0.0}, "discount = 0.0"),
        ({"discount": 1.1}, "discount = 1.1"),
        ({"credit": "immediate", "horizon": 3}, "set horizon to null"),
        ({"credit": "whole", "horizon": 3}, "set horizon to null"),
        ({"credit": "whole", "discount": 0.9}, "discount to 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_credit_settings_that_cannot_be_honoured_are_refused(settings_: dict, fragment: str):
    full = {"credit": "return_to_go", "horizon": None, "discount": 1.0} | settings_
    with pytest.raises(RecipeError, match=fragment.replace("?", r"\?")):
        check_credit(**full)


@pytest.mark.parametrize("baseline", ["loo", "mean", "none"])
def test_advantage_equals_a_loop(baseline: str):
    rewards, is_line = ragged(2)
    ours = group_advantage(rewards, is_line, baseline)
    for b, n in itertools.product(range(3), range(7)):
        group = rewards[b, :, n].tolist()
        for k in range(4):
            if not is_line[b, k, n]:
                assert ours[b, k, n] == 0
                continue
            others = group[:k] + group[k + 1 :]
            subtracted = {"loo": sum(others) / 3, "mean": sum(group) / 4, "none": 0.0}[baseline]
            assert ours[b, k, n].item() == pytest.approx(group[k] - subtracted, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("baseline", ["loo", "mean"])
@given(value=st.floats(-1e4, 1e4), k=st.integers(2, 9))
def test_equal_returns_give_exactly_zero(baseline: str, dtype: torch.dtype, value: float, k: int):
    group = torch.full((1, k, 1), value, dtype=dtype)
    assert (group_advantage(group, torch.ones_like(group, dtype=torch.bool), baseline) == 0).all()


@given(value=st.floats(-200, 200), c=st.floats(0.01, 4.0), thinks=st.lists(st.booleans(), min_size=2, max_size=8))
@settings(max_examples=50)
def test_a_group_that_differs_only_by_the_penalty_has_advantages_of_its_size(
    value: float, c: float, thinks: list[bool]
):
    """Divided by the standard deviation, the advantages would be of size 1 whatever c is."""
    group = torch.tensor([value - c * think for think in thinks], dtype=torch.float64).view(1, -1, 1)
    advantage = group_advantage(group, torch.ones_like(group, dtype=torch.bool)).flatten()
    share = sum(thinks) / len(thinks)
    scale = len(thinks) / (len(thinks) - 1)
    expected = [c * scale * (share - think) for think in thinks]
    torch.testing.assert_close(advantage, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
    assert advantage.abs().max() <= c + 1e-9


def test_a_dropped_rollout_counts_for_nobody():
    group = torch.tensor([[[1.0], [3.0], [99.0], [8.0]]])
    keep = torch.tensor([[[True], [True], [False], [True]]])
    expected = group_advantage(group[:, [0, 1, 3]], keep[:, [0, 1, 3]])
    ours = group_advantage(group, keep)
    torch.testing.assert_close(ours[:, [0, 1, 3]], expected)
    assert ours[0, 2, 0] == 0
    alone = torch.tensor([[[True], [False], [False], [False]]])
    assert (group_advantage(group, alone) == 0).all()


def test_leave_one_out_gives_an_unbiased_policy_gradient_at_any_group_size():
    """Enumerated: E[ mean_k A_k grad log q(z_k) ] equals the gradient of E_q[r] for loo, (k-1)/k of it for mean."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    q = logits.softmax(0)
    (true,) = torch.autograd.grad((q * reward).sum(), logits)
    score = torch.eye(3, dtype=torch.float64) - q.detach()  # row z: grad of log q(z)
    for k in (2, 3):
        tuples = torch.tensor(list(itertools.product(range(3), repeat=k)))
        weight = q.detach()[tuples].prod(1)
        group = reward[tuples].unsqueeze(-1)
        for baseline, factor in (("loo", 1.0), ("mean", (k - 1) / k)):
            advantage = group_advantage(group, torch.ones_like(group, dtype=torch.bool), baseline).squeeze(-1)
            estimate = (advantage.unsqueeze(-1) * score[tuples]).mean(1)
            torch.testing.assert_close((weight[:, None] * estimate).sum(0), factor * true)


@pytest.mark.parametrize("baseline", ["loo", "mean"])
@pytest.mark.usefixtures("unchecked")
def test_one_rollout_has_no_baseline(baseline: str):
    one = torch.zeros(2, 1, 3)
    with pytest.raises(RecipeError, match="use 2 or more"):
        group_advantage(one, torch.ones_like(one, dtype=torch.bool), baseline)
    check_baseline("none", 1)
    with pytest.raises(RecipeError, match="Did you mean 'mean'"):
        check_baseline("means", 4)


@pytest.mark.usefixtures("unchecked")
def test_line_reward_on_both_scales():
    logp, tokens = torch.tensor([[-6.0, -4.0, torch.nan]]), torch.tensor([[3, 4, 0]])
    assert line_reward(logp, tokens, "line_sum").tolist() == [[-6.0, -4.0, 0.0]]
    assert line_reward(logp, tokens, "token_mean").tolist() == [[-2.0, -1.0, 0.0]]
    with pytest.raises(RecipeError, match="'line_sum', 'token_mean'"):
        line_reward(logp, tokens, "mean")
