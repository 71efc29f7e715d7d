"""Curves: read in full and as TensorBoard itself reads them, and their figures against computation by hand."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from ra3kit.errors import RA3Error, RunError
from ra3kit.reports.curves import (
    Curve,
    area_under,
    end_of,
    first_step_at,
    mean_band,
    read_curves,
    running_mean,
    shared_steps,
    t_quantile,
)

BEGAN = 1_000_000_000.0


def session(folder: Path, number: int, values: dict[int, float], purge: int | None = None, tag: str = "a/b") -> None:
    """One start of a run that logs values by step, a second apart, as Lightning's logger does."""
    began = BEGAN + 1000 * number
    with mock.patch("time.time", return_value=began):
        writer = SummaryWriter(str(folder), purge_step=purge)
        for i, (step, value) in enumerate(values.items()):
            writer.add_scalar(tag, value, step, walltime=began + i)
        writer.close()


def by_tensorboard(folder: Path, tag: str = "a/b") -> dict[int, float]:
    """What TensorBoard shows of a tag."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {event.step: event.value for event in accumulator.Scalars(tag)}


def as_dict(curve: Curve) -> dict[int, float]:
    return dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_long_curve_is_read_in_full(tmp_path: Path) -> None:
    session(tmp_path, 0, {step: step % 97 for step in range(12_000)})
    curve = read_curves(tmp_path)["a/b"]
    assert np.array_equal(curve.steps, np.arange(12_000))
    assert np.array_equal(curve.values, np.arange(12_000) % 97)


def test_what_a_resume_logs_again_takes_the_place_of_what_was_lost(tmp_path: Path) -> None:
    session(tmp_path, 0, {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    session(tmp_path, 1, {2: 20.0, 3: 30.0}, purge=2)
    assert as_dict(read_curves(tmp_path)["a/b"]) == {0: 0.0, 1: 1.0, 2: 20.0, 3: 30.0} == by_tensorboard(tmp_path)
    session(tmp_path, 2, {1: -1.0}, purge=1)  # an earlier checkpoint this time
    assert as_dict(read_curves(tmp_path)["a/b"]) == {0: 0.0, 1: -1.0} == by_tensorboard(tmp_path)
    session(tmp_path, 3, {2: 5.0}, purge=1)  # step 1 is lost, and not logged again
    assert as_dict(read_curves(tmp_path)["a/b"]) == {0: 0.0, 2: 5.0} == by_tensorboard(tmp_path)


def test_a_tag_that_was_only_logged_in_lost_work_is_gone(tmp_path: Path) -> None:
    session(tmp_path, 0, {0: 0.0})
    session(tmp_path, 1, {5: 1.0}, tag="eval/x")
    session(tmp_path, 2, {3: 2.0}, purge=3)
    assert read_curves(tmp_path).keys() == {"a/b"}


def test_of_two_values_of_a_step_the_later_one_counts(tmp_path: Path) -> None:
    session(tmp_path, 0, {0: 0.0, 1: 1.0})
    session(tmp_path, 1, {1: 10.0, 2: 2.0})  # no purge
    assert as_dict(read_curves(tmp_path)["a/b"]) == {0: 0.0, 1: 10.0, 2: 2.0}


def test_seconds_are_those_of_running(tmp_path: Path) -> None:
    session(tmp_path, 0, {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0})
    session(tmp_path, 1, {2: 0.0, 3: 0.0, 4: 0.0}, purge=2)
    session(tmp_path, 2, {5: 0.0, 6: 0.0}, purge=5)
    # starts are 1000 seconds apart; the first ran for 3, the second for 2
    assert read_curves(tmp_path)["a/b"].seconds.tolist() == [0, 1, 3, 4, 5, 5, 6]


def test_a_run_whose_last_record_is_half_written_is_read_up_to_it(tmp_path: Path) -> None:
    session(tmp_path, 0, {0: 1.0, 1: 2.0})
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes()[:-3])
    assert as_dict(read_curves(tmp_path)["a/b"]) == {0: 1.0}


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no events"):
        read_curves(tmp_path)
    session(tmp_path, 0, {})
    with pytest.raises(RunError, match="no scalar is in its event files yet"):
        read_curves(tmp_path)


# --- one curve -------------------------------------------------------------------------------------------------------


def test_the_area_by_hand() -> None:
    # 0..2: (1 + 3) / 2 * 2 = 4; 2..5: (3 + 0) / 2 * 3 = 4.5; over a range of 5
    assert area_under(np.array([0, 2, 5]), np.array([1.0, 3.0, 0.0])) == pytest.approx(8.5 / 5)
    assert area_under(np.array([7, 17]), np.array([2.0, 2.0])) == 2.0
    assert area_under(np.array([7]), np.array([3.0])) == 3.0


def test_the_running_mean_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    steps = np.sort(rng.choice(300, 120, replace=False))
    values = rng.standard_normal(120)
    for window in (1, 2, 7, 400):
        naive = [np.mean([v for s, v in zip(steps, values, strict=True) if at - window < s <= at]) for at in steps]
        assert np.allclose(running_mean(steps, values, window), naive, atol=1e-12)


def test_the_first_step_at_a_threshold() -> None:
    steps, values = np.array([1, 2, 3, 4, 5]), np.array([0.1, 0.6, 0.2, 0.5, 0.9])
    assert first_step_at(steps, values, 0.5) == 2
    assert first_step_at(steps, values, 0.6) == 2  # at least
    assert first_step_at(steps, values, 0.95) is None
    assert first_step_at(steps, values, 0.35, window=2) == 2  # (0.1 + 0.6) / 2
    assert first_step_at(steps, values, 0.4, window=3) == 4  # (0.6 + 0.2 + 0.5) / 3; the first is 0.3
    assert first_step_at(np.array([1, 2]), np.array([1.0, 1.0]), 0.5, window=3) is None  # no whole window


def test_the_end_is_the_last_tenth() -> None:
    assert end_of(np.arange(10.0)) == 9
    assert end_of(np.arange(11.0)) == 9.5  # a tenth of 11 begun: two
    assert end_of(np.arange(100.0)) == 94.5
    assert end_of(np.array([4.0])) == 4


# --- several seeds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "df", "expected"),  # tables of Student's t
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 4, 2.7764),
        (0.975, 5, 2.5706),
        (0.975, 9, 2.2622),
        (0.975, 30, 2.0423),
        (0.995, 6, 3.7074),
        (0.95, 7, 1.8946),
        (0.75, 1, 1.0),
        (0.5, 4, 0.0),
    ],
)
def test_quantiles_of_student(p: float, df: int, expected: float) -> None:
    assert t_quantile(p, df) == pytest.approx(expected, abs=5e-5)


def test_quantiles_against_the_density_summed_up() -> None:
    for df in (1, 2, 3, 8, 15):
        t = np.linspace(0, t_quantile(0.975, df), 200_001)
        scale = math.gamma((df + 1) / 2) / math.gamma(df / 2) / math.sqrt(df * math.pi)
        assert np.trapezoid(scale * (1 + t**2 / df) ** (-(df + 1) / 2), t) == pytest.approx(0.475, abs=1e-8)


@pytest.mark.parametrize(("p", "df"), [(0.4, 2), (1.0, 2), (0.9, 0), (0.9, 1.5)])
def test_quantiles_that_there_are_not(p: float, df: float) -> None:
    with pytest.raises(RA3Error, match=r"^(p|df)="):
        t_quantile(p, df)  # type: ignore[arg-type]


def test_the_band_by_hand() -> None:
    # 1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, t(2) = 4.30265
    mean, half = mean_band(np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]))
    assert mean.tolist() == [3.0, 5.0]
    assert half == pytest.approx([4.302653 * math.sqrt(7 / 3), 0.0], abs=1e-5)
    assert np.isnan(mean_band(np.array([[1.0]]))[1]).all()


def test_the_band_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).standard_normal((3, 20_000))
    mean, half = mean_band(draws)
    assert np.mean(np.abs(mean) <= half) == pytest.approx(0.95, abs=0.006)  # 4 standard errors


def test_shared_steps() -> None:
    curves = [Curve(np.array(steps), np.zeros(len(steps)), np.zeros(len(steps))) for steps in ([0, 1, 2, 4], [1, 2, 3])]
    assert shared_steps(curves).tolist() == [1, 2]
