"""Claims, gate and report from results made up for the purpose."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ra3kit.reports.curves import Curve
from ra3kit.reports.document import as_markdown
from ra3kit.study.arms import ARMS
from ra3kit.study.compare import gain, gate, summary, verdict
from ra3kit.study.measures import MEASURES, of_run, value_of
from ra3kit.study.regime import CLAIMS, PRESETS
from ra3kit.study.report import gaps_by_programs, sections_of, silent, sweep_places, write_report
from ra3kit.study.statistics import paired

SEEDS = (1, 2, 3, 4, 5, 6)
POOR = 6
"""The seed whose base writes poor thoughts, and where RA3 is worse than NTP."""


def made_up(arm: str, seed: int) -> dict[str, Any]:
    """The result of an arm: RA3 20 points above NTP, but not on the poor seed."""
    ra3 = arm.endswith("ra3") or arm.startswith(("c=", "ra3"))
    score = 0.2 if arm == "base" else 0.5 + 0.01 * seed + (0.2 if ra3 else 0.0) - (0.6 if ra3 and seed == POOR else 0)
    rlvr = {
        "area": score,
        "reached": 12 if seed == 1 else None,
        "asymptote": score,
        "steps": 3,
        "rewards": [0.1, score, score],
    }
    return {
        "arm": arm,
        "seed": seed,
        "cpu_seconds": 100.0,
        "trained_tokens": 5000,
        "sampled": {"pass@1": score, "pass@5": score},
        "greedy": {"pass@1": 0.9},
        "held_out": {"iwae_line": 1 - score, "thought_rate": 0.2},
        "agreement": {
            "pi": {"named": 0.5 if seed == POOR else 0.9},
            "q": {"precision": 1.0, "recall": 0.75} if ra3 else None,
        },
        **({"rlvr": rlvr} if arm.startswith("grpo") else {}),
        "commands": {"train": f"ra3kit fit --recipe x {arm}"},
    }


def results() -> dict[int, dict[str, dict[str, Any]]]:
    names = list(PRESETS["full"].arms)
    return {seed: {name: made_up(name, seed) for name in names} for seed in SEEDS}


def found(smoke: bool = False) -> dict[str, Any]:
    full = replace(PRESETS["full"], smoke=smoke)
    about = {
        "preset": "full",
        "regime": asdict(full.regime),
        "split": "test",
        "seeds": list(SEEDS),
        "begun": "now",
        "commands": ["ra3kit study"],
        "kits": [{"version": "1", "commit": "abcdef0123456789", "changed": 2}, {"version": "2"}],
    }
    return summary(full, about, {name: ARMS[name] for name in full.arms}, results())


def test_the_gate() -> None:
    held = gate(results(), 0.85)
    assert held["in"] == [1, 2, 3, 4, 5]
    assert held["out"] == [POOR]
    unknown = {1: {"base": {"agreement": {"pi": {"named": None}}}}}
    assert gate(unknown, 0.85)["out"] == [1]  # a base without thoughts is not let in


def test_a_gain_is_positive_where_less_is_better_too() -> None:
    for measure in ("pass@1", "iwae_line"):
        seeds, difference = gain(results(), [1, 2], "ra3", "ntp", measure)
        assert seeds == [1, 2]
        assert difference is not None
        assert difference.mean == pytest.approx(0.2)
    assert gain(results(), [2], "grpo-from-ra3", "grpo-from-ntp", "reached") == ([], None)


def test_verdicts() -> None:
    good = paired([0.7, 0.8, 0.75, 0.7, 0.9], [0.5, 0.5, 0.6, 0.4, 0.6])
    assert verdict(good, None) == "holds"
    assert verdict(good, 0.1).endswith("reaches its target")
    assert verdict(good, 0.5).endswith("short of its target")
    worse = paired([0.5, 0.5, 0.6, 0.4, 0.6], [0.7, 0.8, 0.75, 0.7, 0.9])
    assert verdict(worse, 0.1).startswith("does not hold")
    assert verdict(paired([1.0, 0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.5, 0.5, 0.0]), None).startswith("undecided")
    assert verdict(good, 0.1, smoke=True).startswith("not judged")
    assert verdict(paired([0.9] * 4, [0.1] * 4), None) == "not judged: 4 seeds, fewer than 5"
    assert verdict(None, None) == "not measured"


def test_claims_are_of_the_gated_seeds_and_all_are_shown_beside() -> None:
    claims = {(c["ours"], c["theirs"], c["measure"]): c for c in found()["claims"]}
    assert len(claims) == len(CLAIMS)
    main = claims["ra3", "ntp", "pass@1"]
    assert main["seeds"] == [1, 2, 3, 4, 5]
    assert main["gated"]["mean"] == pytest.approx(0.2)
    assert main["all"]["mean"] == pytest.approx((5 * 0.2 - 0.4) / 6)
    assert main["verdict"] == "holds, and reaches its target"


def test_a_sweep_is_of_the_same_seeds_for_all_its_arms() -> None:
    swept = found()["sweeps"]
    assert swept["seeds"] == [1, 2]  # ra3 is on all six
    assert swept["table"]["ra3"]["pass@1"]["mean"] == pytest.approx(0.715)
    assert set(swept["table"]["c=4"]["pass@1"]["values"]) == set(swept["table"]["ra3"]["pass@1"]["values"])


def test_arms_are_shown_beside_those_of_their_stage() -> None:
    pairs = {(claim["ours"], claim["theirs"]) for claim in found()["beside"]}
    assert {("ra3", "base"), ("ra3", "oracle"), ("grpo-from-ra3", "grpo-from-base"), ("oracle", "ntp")} <= pairs
    assert all(ours.startswith("grpo") == theirs.startswith("grpo") for ours, theirs in pairs)
    assert all(ours != theirs for ours, theirs in pairs)


def test_tokens_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(*values: float) -> Curve:
        return Curve(np.arange(len(values)), np.array(values), np.zeros(len(values)))

    curves = {
        "rlvr/completions/mean_length": curve(10.0, 20.0),
        "rlvr/answers_with_thoughts": curve(3.0, 0.0),
        "rlvr/answers_without_thoughts": curve(1.0, 4.0),
    }
    monkeypatch.setattr("ra3kit.study.measures.has_events", lambda run: True)
    monkeypatch.setattr("ra3kit.study.measures.read_curves", lambda run: curves)
    assert of_run(tmp_path, "family:expert", PRESETS["full"].regime) == {"sampled_tokens": 120, "estep": {}}
    curves.clear()
    curves |= {"mstep/tokens": curve(100.0, 50.0), "mstep/code_loss": curve(2.0, 1.0)}
    found_there = of_run(tmp_path, "family:expert", PRESETS["full"].regime)
    assert found_there["trained_tokens"] == 150
    assert found_there["m_step"] == 1.0


def test_a_sweep_is_shown_once_one_of_its_own_arms_is_there() -> None:
    there = found()
    assert [arm for _, arm in sweep_places(there, "c")] == ["c=0", "c=0.25", "ra3", "c=4", "c=16"]
    for arm in ("c=0", "c=0.25", "c=4", "c=16"):
        there["sweeps"]["table"][arm] = {}
    assert sweep_places(there, "c") == []


def test_how_far_ra3_is_ahead_by_the_amount_of_expert_data() -> None:
    there = found()
    table = there["sweeps"]["table"]
    full = table["ra3-programs=1500"]["pass@1"]["values"]
    full |= {"1": 0.5, "2": 0.5}  # ntp has 0.51 and 0.52
    table["ra3-programs=600"]["pass@1"]["values"] = {"2": 0.9}  # one seed only: compared on that
    gaps = gaps_by_programs(there, "pass@1")
    assert [x for x, _ in gaps] == [150, 300, 600, 1500]
    assert gaps[0][1] == pytest.approx([0.2, 0.2])
    assert gaps[2][1] == pytest.approx([0.38])
    assert gaps[3][1] == pytest.approx([-0.01, -0.02])
    assert dict(gaps_by_programs(there, "iwae_line"))[300] == pytest.approx([0.2, 0.2])  # positive: less, and better

    text = as_markdown(sections_of(there, []))
    assert "with 1500 expert programs ra3 is not ahead of ntp by pass@1: -1.5 (-1.0, -2.0)" in text
    assert "with 600 expert programs ra3 is not" not in text
    assert "| 150 | +20.0 (+20.0, +20.0) | +0.0 (+0.0, +0.0) | +0.200 (+0.200, +0.200) |" in text
    assert "| c=4 | 4 | 71.5 % (71.0, 72.0) |" in text  # each seed, and no interval of two
    del table["ntp-programs=1500"]["pass@1"]
    assert [x for x, _ in gaps_by_programs(there, "pass@1")] == [150, 300, 600]


def test_where_nothing_is_judged_ra3_is_not_said_to_help_everywhere() -> None:
    [judging] = [section for section in sections_of(found(smoke=True), []) if section.title.startswith("Where RA3")]
    assert judging.blocks == ["Nothing is judged: there are too few seeds to tell."]


def test_an_arm_that_lost_its_thoughts_is_named_with_where_it_does_not_help() -> None:
    there = found()
    assert silent(there) == []
    there["table"]["c=16"]["thought_rate"]["mean"] = 0.01
    there["table"]["ntp"]["thought_rate"]["mean"] = 0.0  # which never had any
    assert silent(there) == [("c=16", 0.01)]
    assert "- c=16 has lost its thoughts (1.0 % of the lines)" in as_markdown(sections_of(there, []))


def test_every_measure_has_its_place() -> None:
    result = made_up("grpo-from-ra3", 2)
    there = {measure for measure in MEASURES if value_of(result, measure) is not None}
    assert {"pass@1", "greedy", "iwae_line", "named", "cpu_seconds", "area", "asymptote"} <= there
    assert value_of(result, "reached") is None


def test_the_report(tmp_path: Path) -> None:
    write_report(tmp_path, found())
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.html", "report.md", "results.json", "scores.png", "rlvr.png", "cost.png", "sweeps.png")
    }
    text = (tmp_path / "report.md").read_text()
    assert "Seeds whose base writes poor thoughts" in text  # the caveat
    assert "| RA3 > NTP after mid-training | pass@1 | +20.0 |" in text
    assert "| NTP > base after mid-training" in text
    assert "ra3 is not told apart from ntp by greedy" in text  # where it does not help
    assert "Means of the seeds left out (6):" in text
    assert "| seed 6 |" in text  # its scores, too
    assert "ra3kit fit --recipe x ra3" in text
    assert "begun now UTC, run with ra3kit 1 abcdef012345, changed; 2." in text
    for title in (
        "The penalty c",
        "The amount of expert data",
        "Next-token prediction for longer",
        "RLVR",
        "Cost of training",
    ):
        assert f"## {title}" in text
    written = text.partition("## Thoughts in the annotated corpus")[2].partition("##")[0]
    assert "| ra3 | 5 | - | 100.0 % ± 0.0 | 75.0 % ± 0.0 | - |" in written
    assert "| ntp |" not in written  # it has no thoughts
    assert "| 12.000 (1 of 5 seeds) |" in text.partition("## RLVR")[2]  # the others never reach it
    html = (tmp_path / "report.html").read_text()
    assert html.count("data:image/png;base64") == 4
    assert "http" not in html
    assert json.loads((tmp_path / "results.json").read_text())["gate"]["out"] == [POOR]


def test_a_report_of_nothing_yet() -> None:
    full = PRESETS["full"]
    about = {"preset": "full", "regime": asdict(full.regime), "split": "val", "seeds": [1], "begun": "", "commands": []}
    empty = summary(full, about, {"base": ARMS["base"]}, {1: {}})
    assert empty["complete"] == [0, 1]
    assert next(section.title for section in sections_of(empty, [])) == "Study, preset full"
