"""`check_reward`: the kit's reward keeps the contract in all its settings, and each clause can be broken."""

from __future__ import annotations

from typing import Any

import pytest
from clauses import assert_all_shown, assert_breaks

from ra3kit.rlvr.rewards import Reward, VerifierReward
from ra3kit.testing import check_reward

SOUND = [
    VerifierReward(),
    VerifierReward("partial"),
    VerifierReward(format_penalty=0.5, overlong_buffer=100),
    VerifierReward("partial", format_penalty=2.0, overlong_buffer=512, overlong_penalty=3.0),
]


class Plain(Reward):
    """Sound; the broken ones below differ in one place."""

    bounds = (0.0, 1.0)  # type: ignore[assignment]
    stop_early = True  # type: ignore[assignment]

    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        passed = self.outcome(answer)
        return None if passed is None else float(passed)


class NoReward:
    bounds = (0.0, 1.0)
    stop_early = True


class NoRange(Plain):
    bounds = (1.0, 1.0)  # type: ignore[assignment]


class Sometimes(Plain):
    stop_early = "sometimes"  # type: ignore[assignment]


class ZeroForNothing(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        return float(bool(self.outcome(answer)))


class NothingForTimeout(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        value = super().__call__(answer, max_new_tokens)
        return None if value is None or answer.verdict.status == "timeout" else value


class Whole(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        return self.outcome(answer)


class Beyond(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        value = super().__call__(answer, max_new_tokens)
        return None if value is None else value - (len(answer.completion.ids) == max_new_tokens)


class Tired(Plain):
    calls = 0

    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        self.calls += 1
        value = super().__call__(answer, max_new_tokens)
        return None if value is None else value / self.calls


class InPlace(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        answer.program = answer.program.strip()
        return super().__call__(answer, max_new_tokens)


class FirstOnly(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        value = super().__call__(answer, max_new_tokens)
        return None if value is None else value / (1 + answer.number)


class Quick(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        value = super().__call__(answer, max_new_tokens)
        return None if value is None else value / (1 + answer.verdict.seconds)


class Counting(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        value = super().__call__(answer, max_new_tokens)
        return None if value is None else answer.verdict.passed / 4


class Sure(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        return super().__call__(answer, max_new_tokens) if answer.verdict else None

    def outcome(self, answer: Any) -> Any:
        told = super().outcome(answer)
        return 1 if told else told


class FormatRules(Plain):
    def __call__(self, answer: Any, max_new_tokens: int) -> Any:
        value = super().__call__(answer, max_new_tokens)
        return None if value is None else 1.0 if "return" in answer.program else value


class AllSucceed(Plain):
    def outcome(self, answer: Any) -> Any:
        told = super().outcome(answer)
        return None if told is None else True


BROKEN = [
    pytest.param(NoReward, "base"),
    pytest.param(NoRange, "bounds"),
    pytest.param(Sometimes, "stop_early"),
    pytest.param(ZeroForNothing, "judged"),
    pytest.param(NothingForTimeout, "judged"),
    pytest.param(Whole, "judged"),
    pytest.param(Beyond, "bounded"),
    pytest.param(Tired, "pure"),
    pytest.param(InPlace, "pure"),
    pytest.param(FirstOnly, "own"),
    pytest.param(Quick, "repeatable"),
    pytest.param(Counting, "early"),
    pytest.param(Sure, "outcome"),
    pytest.param(FormatRules, "better"),
    pytest.param(AllSucceed, "better"),
]


@pytest.mark.parametrize("reward", [*SOUND, Plain()], ids=lambda reward: type(reward).__name__)
def test_sound_rewards_pass(reward: Reward) -> None:
    report = check_reward(reward)
    skipped = [] if reward.stop_early else ["early"]
    assert [clause.name for clause in report.clauses if clause.skipped] == skipped


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_each_clause_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_reward, broken(), clause)


def test_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN, check_reward(SOUND[0]))
