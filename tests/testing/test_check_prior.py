"""`check_prior`: the kit's priors keep the contract, and each clause can be broken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clauses import assert_all_shown, assert_breaks

from ra3kit.abstraction.prior import FixedPenalty, LatentPrior, TemporalPrior
from ra3kit.testing import check_prior

SOUND = [
    FixedPenalty(),
    FixedPenalty(c=2.0, scale="line_sum"),
    TemporalPrior(alpha=0.9, num_latents=100),
    TemporalPrior(alpha=0.0, log_num_latents=70.0),
    TemporalPrior(alpha=1.0, num_latents=2),
]


class Plain(LatentPrior):
    """Sound; the broken ones below differ in one place."""

    def __init__(self) -> None:
        super().__init__("line_sum")

    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return is_thought.to(log_q.dtype)

    def describe(self) -> str:
        return "one nat"


class NoPrior:
    forbids_thinking = False


class WithoutInit(Plain):
    def __init__(self) -> None:
        pass


class OtherScale(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale = "per_line"  # type: ignore[assignment]


class ForOneRow(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return super().penalty(is_thought, log_q).reshape(-1, log_q.shape[-1])


class Float32(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return torch.where(is_thought, 1.0, 0.0)


class Infinite(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return super().penalty(is_thought, log_q) * torch.inf


class Flowing(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return is_thought * log_q


class Everywhere(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return super().penalty(is_thought, log_q) + 1


class NoneIsNowhere(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return super().penalty(is_thought, log_q) * (0 if may_think is None else 1)


class Dearer(Plain):
    calls = 0

    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        self.calls += 1
        return super().penalty(is_thought, log_q) * self.calls


class InPlace(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        cost = super().penalty(is_thought, log_q)
        log_q.data.zero_()
        return cost


class Relative(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        cost = super().penalty(is_thought, log_q)
        return cost / cost.sum().clamp(min=1)


class PerLine(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return super().penalty(is_thought, log_q) / log_q.shape[-1]


class Clairvoyant(Plain):
    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        cost = super().penalty(is_thought, log_q)
        return cost * cost.flip(-1).cumsum(-1).flip(-1)


class CostlyAct(Plain):
    forbids_thinking = True

    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        return (~is_thought & (True if may_think is None else may_think)).to(log_q.dtype)


class Wordy(Plain):
    def describe(self) -> str:
        return "one nat\nper thought"


BROKEN = [
    pytest.param(NoPrior, "base"),
    pytest.param(WithoutInit, "base"),
    pytest.param(OtherScale, "scale"),
    pytest.param(ForOneRow, "shape"),
    pytest.param(Float32, "dtype"),
    pytest.param(Infinite, "finite"),
    pytest.param(Flowing, "constant"),
    pytest.param(Everywhere, "may_think"),
    pytest.param(NoneIsNowhere, "may_think"),
    pytest.param(Dearer, "pure"),
    pytest.param(InPlace, "pure"),
    pytest.param(Relative, "own_row"),
    pytest.param(PerLine, "own_row"),
    pytest.param(Clairvoyant, "causal"),
    pytest.param(CostlyAct, "forbids"),
    pytest.param(Wordy, "describe"),
]


@pytest.mark.parametrize("prior", [*SOUND, Plain()], ids=lambda prior: prior.describe())
def test_sound_priors_pass(prior: LatentPrior) -> None:
    report = check_prior(prior)
    assert report.checked == [clause.name for clause in report.clauses]
    assert str(report).startswith(f"{type(prior).__module__}.{type(prior).__name__} keeps the contract of ra3kit.")


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_each_clause_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_prior, broken(), clause)


def test_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN, check_prior(SOUND[0]), check_prior(SOUND[-1]))


def test_the_message_says_what_was_seen_and_where_the_contract_is() -> None:
    message = assert_breaks(check_prior, Float32(), "dtype")
    assert message.endswith(
        "Float32 breaks the clause 'dtype' of its contract: `penalty` has the dtype of log_q. Seen: torch.float32 for "
        "log_q of torch.float64. The contract is in the docstring of ra3kit.abstraction.prior.LatentPrior.penalty."
    )


def test_what_a_component_raises_is_named_and_kept_as_the_cause() -> None:
    class Raising(Plain):
        def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
            raise KeyError("weights")

    with pytest.raises(AssertionError, match="Seen: KeyError: 'weights'") as caught:
        check_prior(Raising())
    assert isinstance(caught.value.__cause__, KeyError)
