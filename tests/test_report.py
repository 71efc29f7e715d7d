"""The report of a run: what it shows, and what it says aloud."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
from small_world import policy

from ra3kit.callbacks.report import RunReport
from ra3kit.errors import RunError
from ra3kit.guards import Finding
from ra3kit.reports.ra3 import arms, notes, picture, report_markdown, table_lines
from ra3kit.reports.rlvr import history_table, rlvr_markdown, rlvr_picture
from ra3kit.rlvr.grpo import GRPOModule


def scores(ce: float, rate: float) -> dict[str, float]:
    length = 6.0 if rate else float("nan")
    return {
        "plain_ce": ce + 0.02,
        "own_latents_ce": ce + 0.01,
        "iwae_ce": ce,
        "thought_rate": rate,
        "thought_length": length,
        "lines_per_thought": 5.0,
    }


def results(rate_after: float) -> dict[str, Any]:
    gap = {"mean": -0.1, "low": -0.15, "high": -0.05}
    models = {"ra3": scores(1.9, 0.1), "ntp": scores(2.0, 0.0), "posterior": scores(1.8, rate_after)}
    return {
        "seed": 0,
        "posterior": "CausalPosterior",
        "prior": "fixed penalty",
        "eval_rollouts": 8,
        "data": {"train_snippets": 5, "train_code_tokens": 50, "path": "x", "val_snippets": 2, "val_files": 1},
        "scores": [
            {"phase": "warmup", "iteration": 0, "models": {"ra3": scores(3.0, 0.05)}},
            {"phase": "m", "iteration": 0, "models": {**models, "ra3": scores(2.5, 0.1)}},
            {
                "phase": "m",
                "iteration": 1,
                "models": models,
                "ra3_minus_ntp": {name: gap for name in ("plain", "own", "iwae")},
            },
        ],
        "history": {
            "reward": [-3.0, -2.0],
            "thought_rate": [0.1, 0.2],
            "ra3_code_loss": [2.0, 1.9],
            "ntp_loss": [2.1, 2.0],
        },
        "samples": ["> # sort   [+1.00 nats]\n  x.sort()"],
    }


def test_the_table_has_the_base_and_the_last_m_step() -> None:
    assert {name: row["iwae_ce"] for name, row in arms(results(0.2)).items()} == {
        "base": 3.0,
        "NTP": 2.0,
        "RA3": 1.9,
        "RA3, q": 1.8,
    }
    lines = table_lines(results(0.2))
    assert "1.9000" in next(line for line in lines if line.startswith("RA3 "))
    assert "-0.1000 [-0.1500, -0.0500]" in lines[-1]
    assert next(line for line in lines if line.startswith("NTP")).split()[-2:] == ["0.0%", "-"]


def test_a_collapse_is_said_aloud_and_nothing_else_is() -> None:
    assert notes(results(0.2)) == []
    (note,) = notes(results(0.001))
    assert "5.0% -> 0.10%" in note
    assert note in report_markdown(results(0.001))


def test_what_a_guard_has_said_is_not_said_twice() -> None:
    def guard(name: str) -> dict[str, Any]:
        return vars(Finding(name, f"{name}!", 12, "e", 1, "warn"))

    other, same = guard("noise_floor"), guard("thought_rate_zero")
    assert len(notes({**results(0.001), "guards": [other]})) == 2
    assert notes({**results(0.001), "guards": [same]}) == [
        "guard/thought_rate_zero at step 12, phase e of iteration 1: thought_rate_zero!"
    ]
    stopped = {**results(0.2), "guards": [same], "stopped": f"{Finding(**same)} The run stops."}
    assert notes(stopped) == []
    assert report_markdown(stopped).count("thought_rate_zero!") == 1


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    assert picture(results(0.2), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 20_000


# --- RLVR ------------------------------------------------------------------------------------------------------------


def rlvr_run(folder: Path) -> tuple[L.Trainer, GRPOModule]:
    """A run of GRPO of three steps, the second without a reward: no answer of it could be judged."""
    module = GRPOModule(policy(), max_new_tokens=8)
    nan = float("nan")
    module.history |= {"reward": [0.1, nan, 0.5], "pass_rate": [0.0, nan, 0.25], "entropy": [1.0, 0.5, 0.75]}
    trainer = SimpleNamespace(
        default_root_dir=str(folder),
        is_global_zero=True,
        global_step=3,
        callback_metrics={"rlvr/reward": 0.5},
        callbacks=[],
        datamodule=SimpleNamespace(summary=lambda: {"path": "problems.jsonl", "problems": 7, "left_out": {"long": 2}}),
    )
    return cast(L.Trainer, trainer), module


def test_a_run_of_grpo_leaves_results_report_picture_and_model(tmp_path: Path) -> None:
    RunReport().on_fit_end(*rlvr_run(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "report.md", "report.png", "results.json"]
    assert (tmp_path / "model" / "model.safetensors").is_file()
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)  # no NaN in it
    assert (written["stage"], written["history"]["reward"]) == ("rlvr", [0.1, None, 0.5])
    assert (written["data"]["left_out"], written["metrics"]) == ({"long": 2}, {"rlvr/reward": 0.5})
    report = (tmp_path / "report.md").read_text()
    assert report == rlvr_markdown(written)
    # the area: steps 0 and 2 at 0.1 and 0.5, a straight line between them
    assert "| mean reward | reward | 0.1 | 0.5 | 0.5 | 0.3 | 2 |" in report
    assert "| problems | 7 |" in report
    assert "left_out" not in report
    assert "| group_size | 8 |" in report
    assert "![" in report


def test_a_run_of_grpo_that_stops_says_why(tmp_path: Path) -> None:
    trainer, module = rlvr_run(tmp_path)
    RunReport().on_exception(trainer, module, RunError("no room"))
    assert json.loads((tmp_path / "results.json").read_text())["stopped"] == "no room"
    report = (tmp_path / "report.md").read_text()
    assert "Stopped before its end: no room" in report
    assert "report.png" not in report
    finding = vars(Finding("all_fail", "all fail", 2, "rlvr", 0, "warn"))
    assert "- guard/all_fail at step 2" in rlvr_markdown({"history": {}, "guards": [finding]})


def test_curves_without_a_value_are_left_out(tmp_path: Path) -> None:
    assert history_table({"reward": [None, 1.0], "entropy": [None], "pass_rate": []})[1:] == [
        ["mean reward", "reward", "1", "1", "1", "1", "1"]
    ]
    assert rlvr_picture({"history": {"reward": [None, 1.0], "entropy": []}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
