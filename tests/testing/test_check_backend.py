"""`check_rollout_backend`: the kit's backend keeps the contract, and each clause can be broken."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from clauses import assert_all_shown, assert_breaks

from ra3kit.errors import RolloutError
from ra3kit.rlvr.backend import EngineBackend, Health
from ra3kit.testing import check_rollout_backend


class NoBackend:
    pass


class Unversioned(EngineBackend):
    def refresh(self, model: Any, tokenizer: Any, version: int) -> None:
        super().refresh(model, tokenizer, 0)


class Sick(EngineBackend):
    def health(self) -> Health:
        return replace(super().health(), ok=False)


class Changed(EngineBackend):
    """Sound; those below change what it gives."""

    def sample(self, requests: Any, seed: Any, max_new_tokens: Any, temperature: Any, on_done: Any) -> Any:
        requests, seed, max_new_tokens, temperature = self.asked(requests, seed, max_new_tokens, temperature)
        given = super().sample(requests, seed, max_new_tokens, temperature, lambda *_: None)
        given = self.told(given)
        for index, completion in enumerate(given):
            on_done(index, completion)
        return given

    def asked(self, *settings: Any) -> Any:
        return settings

    def told(self, given: Any) -> Any:
        return given


class Forgets(Changed):
    def told(self, given: Any) -> Any:
        return given[1:]


class Twice(EngineBackend):
    def sample(self, requests: Any, seed: Any, max_new_tokens: Any, temperature: Any, on_done: Any) -> Any:
        return super().sample(requests, seed, max_new_tokens, temperature, lambda *d: (on_done(*d), on_done(*d)))


class Longer(Changed):
    def asked(self, requests: Any, seed: Any, max_new_tokens: Any, temperature: Any) -> Any:
        return requests, seed, max_new_tokens + 1, temperature


class WithoutEnds(Changed):
    """As servers give them: the end token is not among the ids."""

    def told(self, given: Any) -> Any:
        return [replace(c, ids=c.ids[:-1], log_q=c.log_q[:-1]) if c.finish == "end" else c for c in given]


class OneTemperature(Changed):
    def asked(self, requests: Any, seed: Any, max_new_tokens: Any, temperature: Any) -> Any:
        return requests, seed, max_new_tokens, 1.0


class PlainLogs(Changed):
    def told(self, given: Any) -> Any:
        return [replace(c, log_q=c.raw) for c in given]


class Unstopped(Changed):
    def asked(self, requests: Any, *settings: Any) -> Any:
        return [replace(request, stops=()) for request in requests], *settings


class Uncut(Changed):
    def told(self, given: Any) -> Any:
        return [replace(c, text=c.text + "e") if c.finish == "stop" else c for c in given]


class ByPlace(Changed):
    def asked(self, requests: Any, *settings: Any) -> Any:
        return [replace(request, name=str(place)) for place, request in enumerate(requests)], *settings


class Deaf(Changed):
    def asked(self, requests: Any, seed: Any, *settings: Any) -> Any:
        return requests, 0, *settings


class Nameless(Changed):
    def asked(self, requests: Any, *settings: Any) -> Any:
        return [replace(request, name=request.name.split()[-1]) for request in requests], *settings


class Stale(EngineBackend):
    """Keeps a copy of the first weights."""

    first: Any = None

    def refresh(self, model: Any, tokenizer: Any, version: int) -> None:
        self.first = self.first or copy.deepcopy(model)
        super().refresh(self.first, tokenizer, version)


class Obliging(Changed):
    def asked(self, requests: Any, *settings: Any) -> Any:
        return [replace(request, prompt=request.prompt[:100] or [0]) for request in requests], *settings


class Spent(Changed):
    """Cannot begin again; version 5 is the one that the check hands over after `free`."""

    def asked(self, *settings: Any) -> Any:
        if self.version == 5:
            raise RolloutError("nothing is left")
        return settings


BROKEN = [
    pytest.param(NoBackend, "base"),
    pytest.param(Unversioned, "health"),
    pytest.param(Sick, "health"),
    pytest.param(Forgets, "each"),
    pytest.param(Twice, "each"),
    pytest.param(Longer, "ids"),
    pytest.param(WithoutEnds, "ids"),
    pytest.param(OneTemperature, "log_q"),
    pytest.param(PlainLogs, "log_q"),
    pytest.param(Unstopped, "stops"),
    pytest.param(Uncut, "stops"),
    pytest.param(ByPlace, "alone"),
    pytest.param(Deaf, "draws"),
    pytest.param(Nameless, "draws"),
    pytest.param(Stale, "refresh"),
    pytest.param(Obliging, "refused"),
    pytest.param(Spent, "free"),
]


def test_sound_backends_pass() -> None:
    assert not [clause for clause in check_rollout_backend(EngineBackend).clauses if clause.skipped]
    assert check_rollout_backend(lambda: EngineBackend(slots=2, call_tokens=64)).checked

    class Unpromised(Changed):
        reproducible = False

    assert [clause.name for clause in check_rollout_backend(Unpromised).clauses if clause.skipped] == ["alone"]


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_each_clause_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_rollout_backend, broken, clause)


def test_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN, check_rollout_backend(EngineBackend))
