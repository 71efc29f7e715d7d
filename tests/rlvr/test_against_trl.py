"""One GRPO step on given samples against TRL's GRPOTrainer, where it is installed: `benchmarks/grpo_equal.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed: pip install .[bench]")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = [
    "mean_over_tokens",
    "accumulated",
    "divided_by_std",
    "mean_over_sequences",
    "constant",
    "truncated_masked",
    "truncated_masked_sequences",
    "group_without_signal",
    "temperature",
    "clipped_second_pass",
    "kl_second_pass",
]
OTHER_COUNTS = {"truncated_masked_sequences", "group_without_signal"}
"""Where TRL's mean is over other counts than ours, which `Scenario.factor` allows for in the gradient alone."""


@pytest.fixture(scope="module")
def equal() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        import grpo_equal

        yield grpo_equal


def test_all_scenarios_are_tested(equal: Any) -> None:
    assert list(equal.SCENARIOS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_gradients_weights_and_logs_are_those_of_trl(equal: Any, name: str) -> None:
    found = equal.compare(name)
    assert found.gradient < 3e-5  # of the largest entry
    logs = found.logs
    if name not in OTHER_COUNTS:
        assert found.weight_rms < 1e-4  # of the change
        assert logs["grad_norm"][0] == pytest.approx(logs["grad_norm"][1], rel=1e-4)
    if name == "group_without_signal":  # TRL's entropy is that of all samples
        del logs["entropy"]
    if name == "accumulated":  # it is TRL's mean of the means of forwards
        assert logs["entropy"][0] == pytest.approx(logs["entropy"][1], rel=1e-3)
        del logs["entropy"]
    for tag, (own, theirs) in logs.items():
        if tag != "grad_norm":
            assert own == pytest.approx(theirs, rel=1e-5, abs=1e-6), tag


@pytest.mark.parametrize("name", ["clipped_second_pass", "kl_second_pass"])
def test_the_second_pass_has_clipped_tokens_of_both_kinds(equal: Any, name: str) -> None:
    logs = equal.compare(name).logs
    assert min(logs["clip_ratio/low_mean"][0], logs["clip_ratio/high_mean"][0]) > 0.01
    if name == "kl_second_pass":
        assert logs["kl"][0] > 0.01
