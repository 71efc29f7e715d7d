"""`check_em_switch`: does a rule that ends phases survive a resume? `check_callback`: does it leave training alone?"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch

from ra3kit.abstraction.em import Phase
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.conformance.runs import tiny_run

_RISE = [-3.0 + 2.0 * (1 - 0.8**i) + 0.05 * (-1) ** i for i in range(40)]
REWARDS = (_RISE, [*_RISE[:15], *(_RISE[15] - 0.1 * i for i in range(1, 25))], [-1.0] * 40)
"""Mean rewards of E-steps: one that reaches a plateau, one that collapses, one where nothing moves."""


def check_em_switch(switch: EMSwitch) -> Report:
    """Check a rule that says when a phase ends, on made-up rewards and in a short run: the clauses of `EMSwitch`.

    Args:
        switch: it is copied, and left as it is.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(switch, EMSwitch)
    with check.clause("base", "it is an EMSwitch, and its __init__ calls the base's"):
        check.that(isinstance(switch, EMSwitch), type(switch).__mro__)
        check.that(hasattr(switch, "e_steps"), "no super().__init__(...) was called")
    with check.clause(
        "answers", "`should_switch` answers True or False after every step of every phase", "should_switch"
    ):
        for phase in ("warmup", "m"):
            rule = copy.deepcopy(switch)
            for _ in range(5):
                answer = rule.should_switch(phase, [])
                check.that(isinstance(answer, bool), f"{answer!r} in phase {phase!r}, where rewards are []")
        for rewards in REWARDS:
            for answer in _answers(copy.deepcopy(switch), rewards):
                check.that(isinstance(answer, bool), f"{answer!r} in phase 'e'")
    with check.clause("leaves_rewards", "`should_switch` leaves the rewards as they are", "should_switch"):
        given = list(_RISE)
        copy.deepcopy(switch).should_switch("e", given)
        check.that(given == _RISE, f"{len(given)} rewards, {len(_RISE)} were given")
    with check.clause("resumes", "after a resume it decides as it would have: what it remembers is in `state_dict`"):
        for rewards in REWARDS:
            whole = _answers(copy.deepcopy(switch), rewards)
            for stop in (1, 7, 18, 30):
                first, second = copy.deepcopy(switch), copy.deepcopy(switch)
                _answers(first, rewards[:stop])
                second.load_state_dict(_saved_and_loaded(first.state_dict()))
                rest = _answers(second, rewards, stop)
                check.that(rest == whole[stop:], f"resumed after update {stop} it ends the phase elsewhere")
    with check.clause("runs", "a run with it goes through its phases and ends"):
        short = copy.deepcopy(switch)
        short.iterations, short.warmup_steps = 1, 1
        short.e_steps, short.m_steps = min(short.e_steps, 2), 2
        module = tiny_run(switch=short)
        check.that(module.phase == "m", f"it ended in phase {module.phase!r}")
    return check.report()


def check_callback(callback: L.Callback, watches: bool = True) -> Report:
    """Check a callback in a short run of RA3 with all its phases: the contract of Lightning, and that it only watches.

    Args:
        callback: it is copied, and left as it is. For an EMSwitch see `check_em_switch`.
        watches: it is meant to leave training as it is: same weights with it and without, bit for bit.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(callback, L.Callback)
    with check.clause("base", "it is a Callback of Lightning"):
        check.that(isinstance(callback, L.Callback), type(callback).__mro__)
    used = copy.deepcopy(callback)
    with check.clause("runs", "a run with it goes through its phases and ends"):
        module = tiny_run([used])
        check.that(module.phase == "m", f"it ended in phase {module.phase!r}")
    with check.clause(
        "state", "a fresh one that loads `state_dict` has the same state: it survives a resume", "state_dict"
    ):
        state = used.state_dict()
        fresh = copy.deepcopy(callback)
        fresh.load_state_dict(_saved_and_loaded(state))
        again = fresh.state_dict()
        check.that(_bytes(again) == _bytes(state), f"{again!r:.80} after loading {state!r:.80}")
    rule = "training is the same with it and without: weights, and so every random draw"
    if not watches:
        check.skip("watches", rule, "watches=False")
        return check.report()
    with check.clause("watches", rule, place="ra3kit.testing.check_callback"):
        without = tiny_run().state_dict()
        found = module.state_dict()
        check.that(list(found) == list(without), "it adds weights to the module, or takes some away")
        other = [name for name in without if not torch.equal(found[name], without[name])]
        check.that(not other, f"{len(other)} of {len(without)} tensors differ, {other[:1]} first")
    return check.report()


def _answers(switch: EMSwitch, rewards: Sequence[float], start: int = 0) -> list[bool]:
    """What the rule says after each update of an E-step, from update `start` on; as EMSwitch asks it."""
    phase: Phase = "e"
    return [switch.should_switch(phase, list(rewards[: i + 1])) for i in range(start, len(rewards))]


def _saved_and_loaded(state: Any) -> Any:
    return torch.load(io.BytesIO(_bytes(state)), weights_only=False)


def _bytes(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
