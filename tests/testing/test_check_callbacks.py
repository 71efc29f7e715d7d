"""`check_em_switch` and `check_callback`: the kit's own pass, and each clause can be broken."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from clauses import assert_all_shown, assert_breaks

from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.callbacks.latent_monitor import LatentMonitor, PeakMemory
from ra3kit.callbacks.rlvr_monitor import RLVRMonitor
from ra3kit.testing import check_callback, check_em_switch


class NoSwitch(L.Callback):
    pass


class WithoutInit(EMSwitch):
    def __init__(self) -> None:
        pass


class NeedsRewards(EMSwitch):
    def should_switch(self, phase: Any, rewards: Any) -> bool:
        return bool(rewards[-1] > 100)


class Maybe(EMSwitch):
    def should_switch(self, phase: Any, rewards: Any) -> Any:
        return len(rewards)


class Pops(EMSwitch):
    def should_switch(self, phase: Any, rewards: Any) -> bool:
        return bool(rewards) and rewards.pop() > 100


class Remembers(EMSwitch):
    """Ends the E-step after five updates below the best, which it keeps in mind; sound where it saves them."""

    best, worse = float("-inf"), 0

    def should_switch(self, phase: Any, rewards: Any) -> bool:
        if phase == "e":
            self.worse = 0 if rewards[-1] > self.best else self.worse + 1
            self.best = max(self.best, rewards[-1])
        return self.worse >= 5


class RemembersAndSaves(Remembers):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best, "worse": self.worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best, self.worse = state["best"], state["worse"]


class SkipsTheMStep(EMSwitch):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        trainer.should_stop = True


BROKEN_SWITCHES = [
    pytest.param(NoSwitch, "base"),
    pytest.param(WithoutInit, "base"),
    pytest.param(NeedsRewards, "answers"),
    pytest.param(Maybe, "answers"),
    pytest.param(Pops, "leaves_rewards"),
    pytest.param(Remembers, "resumes"),
    pytest.param(SkipsTheMStep, "runs"),
]


@pytest.mark.parametrize(
    "switch",
    [EMSwitch(), EMSwitch(window=3, min_gain=0.01), EMSwitch(e_steps=0), RemembersAndSaves()],
    ids=lambda switch: f"{type(switch).__name__}-{switch.window}-{switch.e_steps}",
)
def test_sound_switches_pass_and_are_left_alone(switch: EMSwitch, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(vars(switch))
    check_em_switch(switch)
    assert vars(switch) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("broken", "clause"), BROKEN_SWITCHES)
def test_each_clause_of_a_switch_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_em_switch, broken(), clause)


def test_no_clause_of_a_switch_is_untested() -> None:
    assert_all_shown(BROKEN_SWITCHES, check_em_switch(EMSwitch()))


# ---- other callbacks ------------------------------------------------------------------------------------------------


class NoCallback:
    pass


class Fails(L.Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        raise OSError("no space left")


class StopsEarly(L.Callback):
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = True


class AddsWeights(L.Callback):
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.probe = torch.nn.Linear(1, 1)


class Counts(L.Callback):
    """Counts batches; sound where it saves the count."""

    count = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.count += 1


class CountsAndSaves(Counts):
    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


class SavesOnly(CountsAndSaves):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Touches(L.Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        with torch.no_grad():
            next(pl_module.policy.model.parameters()).mul_(0.999)


BROKEN_CALLBACKS = [
    pytest.param(NoCallback, "base"),
    pytest.param(Fails, "runs"),
    pytest.param(StopsEarly, "runs"),
    pytest.param(AddsWeights, "watches"),
    pytest.param(SavesOnly, "state"),
    pytest.param(Touches, "watches"),
]


@pytest.mark.parametrize(
    "callback", [LatentMonitor(every=1), PeakMemory(), RLVRMonitor(), CountsAndSaves()], ids=lambda c: type(c).__name__
)
def test_sound_callbacks_pass(callback: L.Callback) -> None:
    assert check_callback(callback).checked == ["base", "runs", "state", "watches"]


def test_one_that_is_meant_to_change_training_may() -> None:
    assert check_callback(Touches(), watches=False).checked == ["base", "runs", "state"]


@pytest.mark.parametrize(("broken", "clause"), BROKEN_CALLBACKS)
def test_each_clause_of_a_callback_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_callback, broken(), clause)


def test_no_clause_of_a_callback_is_untested() -> None:
    assert_all_shown(BROKEN_CALLBACKS, check_callback(CountsAndSaves()))
