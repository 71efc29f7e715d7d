"""Every numeric setting of every component that comes with the kit: what it must not be is refused, by name."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ra3kit.errors import RA3Error
from ra3kit.signatures import members, signature_of

NEEDED: dict[str, dict[str, Any]] = {
    "ra3kit.optimize.Optimization": {},
    "ra3kit.policy.LoRA": {},
    "ra3kit.data.module.TrajectoryDataModule": {},
    "ra3kit.data.tokenizer.TrainedTokenizer": {},
    "ra3kit.abstraction.prior.FixedPenalty": {},
    "ra3kit.abstraction.prior.TemporalPrior": {"alpha": 0.5, "num_latents": 10},
    "ra3kit.abstraction.posterior.CausalPosterior": {},
    "ra3kit.abstraction.posterior.HindsightPosterior": {},
    "ra3kit.abstraction.posterior.ResampledPosterior": {},
    "ra3kit.abstraction.learner.AbstractionLearner": {},
    "ra3kit.callbacks.em_switch.EMSwitch": {},
    "ra3kit.callbacks.latent_monitor.LatentMonitor": {},
    "ra3kit.callbacks.pass_at_k.PassAtK": {},
    "ra3kit.callbacks.rlvr_monitor.RLVRMonitor": {},
    "ra3kit.rlvr.grpo.GRPOModule": {"policy": SimpleNamespace(max_positions=None)},
    "ra3kit.rlvr.data.RLVRDataModule": {},
    "ra3kit.rlvr.difficulty.DifficultyFilter": {},
    "ra3kit.rlvr.rewards.VerifierReward": {},
    "ra3kit.rlvr.backend.EngineBackend": {},
    "ra3kit.rlvr.judge.Judge": {},
    "ra3kit.rlvr.problems.cases.Caps": {},
}
"""Components by import path, with what they cannot be made without."""

ANY_SIGN = {"min_gain", "price", "low"}
MAY_BE_ZERO = (
    {
        "seed",
        "val_fraction",
        "weight_decay",
        "warmup",
        "final",
        "dropout",
        "c",
        "alpha",
        "entropy_coef",
        "kl_coef",
    }
    | {
        "warmup_steps",
        "e_steps",
        "window",
        "snippets",
        "show",
        "temperature",
        "log_num_latents",
    }
    | {
        "format_penalty",
        "overlong_buffer",
        "overlong_penalty",
        "clip_low",
        "clip_high",
        "beta",
        "staleness",
    }
)


RESULTS = ("ProblemLoader", "RLVRBatch", "Chosen", "Sampled", "Request", "Health")
"""Of RLVR: what code makes, not recipes."""


def cases() -> Iterator[tuple[str, str, float]]:
    """(component, setting, a value it must refuse): not finite, below zero, and zero where that means nothing."""
    for path in NEEDED:
        module, _, name = path.rpartition(".")
        for key, argument in signature_of(getattr(importlib.import_module(module), name)).arguments.items():
            hints = members(argument.hint)
            values: list[float] = []
            if float in hints:
                values = [math.nan, math.inf, -math.inf] + ([] if key in ANY_SIGN else [-1.0])
            elif int in hints:
                values = [-1]
            if values and key not in MAY_BE_ZERO | ANY_SIGN:
                values.append(0)
            yield from ((path, key, value) for value in values)


CASES = list(cases())


@pytest.mark.parametrize(("path", "key", "value"), CASES, ids=[f"{p.rpartition('.')[2]}.{k}={v}" for p, k, v in CASES])
def test_a_number_out_of_range(path: str, key: str, value: float) -> None:
    module, _, name = path.rpartition(".")
    made = getattr(importlib.import_module(module), name)
    settings = {**NEEDED[path], key: value}
    if key == "log_num_latents":
        settings.pop("num_latents")
    with pytest.raises(RA3Error) as error:
        made(**settings)
    assert key in str(error.value)
    assert f"{value:g}" in str(error.value) or repr(value) in str(error.value)


def test_the_list_is_of_all_components_with_numbers() -> None:
    """A class of these modules that a recipe can name is in the list, or has no number to get wrong."""
    for module_name in {path.rpartition(".")[0] for path in NEEDED}:
        module = importlib.import_module(module_name)
        for name, made in inspect.getmembers(module, inspect.isclass):
            if made.__module__ != module_name or inspect.isabstract(made) or f"{module_name}.{name}" in NEEDED:
                continue
            if name in ("BasePolicy", "RowLoss", "TrainingMemory", "ThoughtGain", *RESULTS):
                continue  # no numbers, or not named by recipes
            hints = [m for a in signature_of(made).arguments.values() for m in members(a.hint)]
            assert int not in hints, f"{name} is not in NEEDED"
            assert float not in hints, f"{name} is not in NEEDED"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"max_tokens": 600, "tokens_per_forward": 512}, "tokens_per_forward=512"),
        ({"min_lines": 9, "max_lines": 8}, "max_lines=8"),
        ({"val_fraction": 1.0}, "val_fraction=1.0"),
        ({"limit_files": 10**20}, "limit_files=1000"),
    ],
)
def test_data_settings_that_contradict_each_other(settings: dict[str, Any], word: str) -> None:
    from ra3kit.data.module import TrajectoryDataModule

    with pytest.raises(RA3Error) as error:
        TrajectoryDataModule(**settings)
    assert word in str(error.value)


@pytest.mark.parametrize("key", ["lr", "rank", "vocab_size"])
def test_a_number_too_large_to_be_meant(key: str) -> None:
    from ra3kit.data.tokenizer import TrainedTokenizer
    from ra3kit.optimize import Optimization
    from ra3kit.policy import LoRA

    made: Any = {"lr": Optimization, "rank": LoRA, "vocab_size": TrainedTokenizer}[key]
    for value in (99999999999, 10**400):
        with pytest.raises(RA3Error, match=f"{key}={value}: must be"):
            made(**{key: value})
