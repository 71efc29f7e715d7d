"""`check_learner` and `check_policy`: the kit's own keep their contracts, and each clause can be broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clauses import assert_all_shown, assert_breaks

from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.policy import BasePolicy, RowLoss
from ra3kit.testing import check_learner, check_policy
from ra3kit.testing.conformance.world import tiny_policy

# ---- learner --------------------------------------------------------------------------------------------------------

LEARNERS = [
    AbstractionLearner(rollouts=3),
    AbstractionLearner(rollouts=2, scale="line_sum", credit="immediate", entropy_coef=0.01, kl_coef=0.01, kl_limit=1.0),
    AbstractionLearner(rollouts=2, credit="whole", baseline="mean"),
]


class Base(AbstractionLearner):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"rollouts": 2, **settings})


class NoLearner:
    scale = "line_sum"


class WithoutInit(AbstractionLearner):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)


class TakesAnyScale(Base):
    def check(self, posterior: Any, prior: Any) -> None:
        pass


class OneRolloutShort(Base):
    def update(self, *args: Any) -> Any:
        metrics, groups = super().update(*args)
        return metrics, [group[1:] for group in groups]


class NoReward(Base):
    def update(self, *args: Any) -> Any:
        metrics, groups = super().update(*args)
        return {name: value for name, value in metrics.items() if name != "reward"}, groups


class NotANumber(Base):
    def update(self, *args: Any) -> Any:
        metrics, groups = super().update(*args)
        return {**metrics, "thought_rate": float("nan")}, groups


class TrainsPi(Base):
    def update(self, posterior: Any, prior: Any, pi: Any, *args: Any) -> Any:
        result = super().update(posterior, prior, pi, *args)
        with torch.no_grad():
            next(pi.parameters()).mul_(0.99)
        return result


class NeverSteps(Base):
    def update(self, posterior: Any, prior: Any, pi: Any, batch: Any, optimizer: Any, *args: Any) -> Any:
        before = {name: value.clone() for name, value in posterior.model.state_dict().items()}
        result = super().update(posterior, prior, pi, batch, optimizer, *args)
        posterior.model.load_state_dict(before)
        return result


class StillEqual(Base):
    def update(self, posterior: Any, *args: Any) -> Any:
        result = super().update(posterior, *args)
        posterior.equals_policy = True
        return result


class OwnDice(Base):
    def update(self, posterior: Any, prior: Any, pi: Any, batch: Any, optimizer: Any, seed: int, *args: Any) -> Any:
        return super().update(posterior, prior, pi, batch, optimizer, int(np.random.randint(1 << 30)), *args)


class DecaysAnyway(Base):
    def update(self, posterior: Any, prior: Any, pi: Any, batch: Any, optimizer: Any, *args: Any) -> Any:
        result = super().update(posterior, prior, pi, batch, optimizer, *args)
        with torch.no_grad():
            for parameter in posterior.model.parameters():
                parameter.mul_(0.999)
        return result


class UpsideDown(Base):
    """Follows the gradient downhill."""

    def update(
        self, posterior: Any, prior: Any, pi: Any, batch: Any, optimizer: Any, seed: int, lr: float, owner: Any
    ) -> Any:
        return super().update(posterior, prior, pi, batch, optimizer, seed, lr, Negated(owner))


class Negated:
    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.owner, name)

    def manual_backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        self.owner.manual_backward(-loss, *args, **kwargs)


BROKEN_LEARNERS = [
    pytest.param(NoLearner, "base"),
    pytest.param(WithoutInit, "base"),
    pytest.param(TakesAnyScale, "scale"),
    pytest.param(OneRolloutShort, "updates"),
    pytest.param(NoReward, "metrics"),
    pytest.param(NotANumber, "metrics"),
    pytest.param(TrainsPi, "pi"),
    pytest.param(NeverSteps, "q"),
    pytest.param(StillEqual, "q"),
    pytest.param(OwnDice, "repeatable"),
    pytest.param(DecaysAnyway, "ntp"),
    pytest.param(UpsideDown, "learns"),
]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.credit)
def test_sound_learners_pass(learner: AbstractionLearner) -> None:
    report = check_learner(learner)
    assert report.checked == [clause.name for clause in report.clauses]


@pytest.mark.parametrize(("broken", "clause"), BROKEN_LEARNERS)
def test_each_clause_of_a_learner_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_learner, broken(), clause)


def test_no_clause_of_a_learner_is_untested() -> None:
    assert_all_shown(BROKEN_LEARNERS, check_learner(Base()))


# ---- policy ---------------------------------------------------------------------------------------------------------


class NoPolicy:
    pass


def policy(kind: type[BasePolicy]) -> BasePolicy:
    made = tiny_policy(think=0)
    made.__class__ = kind
    return made


class UnnormalisedScore(BasePolicy):
    def score(self, trajectories: Any, tokens_per_forward: int = 4096) -> Any:
        return [logp + 10 for logp in super().score(trajectories, tokens_per_forward)]


class ScoresTheStart(BasePolicy):
    def score(self, trajectories: Any, tokens_per_forward: int = 4096) -> Any:
        return [np.concatenate([[0.0], logp]) for logp in super().score(trajectories, tokens_per_forward)]


class Miscounts(BasePolicy):
    def row_loss(self, row: Any) -> RowLoss:
        loss = super().row_loss(row)
        return RowLoss(loss.code, loss.thought, loss.code_tokens + 1, loss.thought_tokens)


class ScoreOfTheBatch(BasePolicy):
    def score(self, trajectories: Any, tokens_per_forward: int = 4096) -> Any:
        return [logp * len(trajectories) for logp in super().score(trajectories, tokens_per_forward)]


class MeanLoss(BasePolicy):
    def row_loss(self, row: Any) -> RowLoss:
        loss = super().row_loss(row)
        return RowLoss(loss.code / loss.code_tokens, loss.thought, loss.code_tokens, loss.thought_tokens)


class ThoughtsAreCode(BasePolicy):
    def row_loss(self, row: Any) -> RowLoss:
        loss = super().row_loss(row)
        return RowLoss(loss.code + loss.thought, loss.thought * 0, loss.code_tokens + loss.thought_tokens, 0)


class ConstantLoss(BasePolicy):
    def row_loss(self, row: Any) -> RowLoss:
        loss = super().row_loss(row)
        return RowLoss(loss.code.detach(), loss.thought.detach(), loss.code_tokens, loss.thought_tokens)


class ItselfAsSnapshot(BasePolicy):
    def snapshot(self) -> torch.nn.Module:
        return self.model.requires_grad_(False)


class TrainedSnapshot(BasePolicy):
    def snapshot(self) -> torch.nn.Module:
        return super().snapshot().requires_grad_(True)


class HeadOnly(BasePolicy):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        model: Any = self.model
        return self.optimization.optimizer(model.lm_head.parameters())


class SavesFresh(BasePolicy):
    def save(self, folder: str | Path) -> None:
        model: Any = tiny_policy(think=0, seed=1).model
        model.save_pretrained(folder)


BROKEN_POLICIES = [
    pytest.param(UnnormalisedScore, "scores"),
    pytest.param(ScoresTheStart, "scores"),
    pytest.param(Miscounts, "loss"),
    pytest.param(ScoreOfTheBatch, "alone"),
    pytest.param(MeanLoss, "loss"),
    pytest.param(ThoughtsAreCode, "loss"),
    pytest.param(ConstantLoss, "gradient"),
    pytest.param(ItselfAsSnapshot, "snapshot"),
    pytest.param(TrainedSnapshot, "snapshot"),
    pytest.param(HeadOnly, "optimizer"),
    pytest.param(SavesFresh, "saves"),
    pytest.param(NoPolicy, "base"),
]


def test_sound_policies_pass() -> None:
    report = check_policy(tiny_policy(think=0))
    assert report.checked == [clause.name for clause in report.clauses]


@pytest.mark.parametrize(("broken", "clause"), BROKEN_POLICIES)
def test_each_clause_of_a_policy_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_policy, broken() if broken is NoPolicy else policy(broken), clause)


def test_no_clause_of_a_policy_is_untested() -> None:
    assert_all_shown(BROKEN_POLICIES, check_policy(policy(BasePolicy)))
