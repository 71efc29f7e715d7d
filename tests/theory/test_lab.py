"""`ra3kit theory`: what it writes and says, that a seed fixes every bit, and that no torch is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ra3kit.cli import main
from ra3kit.reports.document import as_html, as_markdown
from ra3kit.theory import figures, lab, lab_pruning, report
from ra3kit.theory.findings import Size, agrees_with_one, bootstrap, interval_of
from ra3kit.theory.lab_convergence import table

TINY = Size(
    ks=(4, 8),
    ms=(4, 16),
    sigmas=(0.1,),
    trials=40,
    delta_trials=100,
    solved=5,
    taus=(1, 8),
    mdps=3,
    kept=(1, 4, 44),
    budgets=(30, 60),
    replicas=2,
    tasks=5,
    random_mdps=5,
)
PICTURES = ["pruning.png", "convergence.png", "regret.png", "loose.png"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    steps: list[int] = []
    results = lab.run(3, TINY, lambda: steps.append(1))
    return {"seed": 3, "quick": True, "versions": {"ra3kit": "0"}, **results, "steps": len(steps)}


def test_another_seed_gives_other_figures_and_progress_reaches_its_end(found: dict[str, Any]) -> None:
    steps: list[int] = []
    other = lab_pruning.pruning_experiment(4, TINY, lambda: steps.append(1))
    assert other["cells"] != found["pruning"]["cells"]
    assert len(steps) == lab_pruning.units(TINY)
    assert found["steps"] == lab.units(TINY)


def test_what_holds_by_proof_holds(found: dict[str, Any]) -> None:
    holds = {f["claim"]: f["holds"] for part in report.PARTS for f in found[part.key]["findings"]}
    assert holds["sweeps <= bound"]
    assert holds["primitive actions kept: gbar is gamma"]
    assert holds["the two sides, computed by different roads, agree to 1e-09 on every task checked"]
    assert holds["Delta > eps, by solving the MDP of each subset, is what was counted above"]
    assert found["regret"]["largest_gap"] < 1e-9
    rows = found["convergence"]["rows"]
    assert table(rows, "random", "kept", "gbar") == pytest.approx(np.full((2, 3), 0.95))


def test_a_curve_is_the_sum_of_its_terms(found: dict[str, Any]) -> None:
    for curve in found["regret"]["curves"]:
        terms = np.array(curve["pruning"]["mean"]) + curve["learning"]["mean"]
        np.testing.assert_allclose(curve["total"]["mean"], terms)
        for term in ("pruning", "learning", "total"):
            assert (np.array(curve[term]["low"]) <= curve[term]["mean"]).all()
            assert (np.array(curve[term]["high"]) >= curve[term]["mean"]).all()


def test_the_verb_writes_a_report_once_and_the_same_seed_gives_the_same_bits(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ra3kit.theory.findings.QUICK", TINY)
    assert main(["theory", "--quick", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    folder = Path("runs/theory/001")
    assert {path.name for path in folder.iterdir()} == {"results.json", "theory.md", "theory.html", *PICTURES}
    for title in ("(a) Pruning", "(b) RL convergence", "(c) The regret decomposition", "(d) Where the bounds"):
        assert title in said
    assert max(map(len, said.splitlines()[:-3])) <= 120
    assert said.splitlines()[-1].startswith(f"Everything is in {folder}. Next: open {folder}/theory.html")
    page = (folder / "theory.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=.(?!data:)", page)
    results = json.loads((folder / "results.json").read_text())
    assert [results["seed"], results["quick"]] == [3, True]
    for part in report.PARTS:
        assert json.dumps(results[part.key]) == json.dumps(found[part.key])
    figures.draw(found, tmp_path)
    assert [(tmp_path / name).read_bytes() for name in PICTURES] == [(folder / name).read_bytes() for name in PICTURES]
    text = (folder / "theory.md").read_text().replace("\\*", "*")  # its stars are no markup
    for part in report.PARTS:
        places = [text.index(part.title), text.index(part.statement), text.index(part.experiment)]
        assert [*places, text.index(f"({part.key}.png)")] == sorted([*places, text.index(f"({part.key}.png)")])

    assert main(["theory", "--quick", "--out", str(folder)]) == 2
    assert "Nothing is overwritten" in capsys.readouterr().err
    assert main(["theory", "--seed", "-1"]) == 2
    assert "--seed=-1" in capsys.readouterr().err


def test_without_matplotlib_the_report_says_so(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert figures.draw(found, tmp_path) == []
    assert "matplotlib is missing" in as_markdown(report.sections(found, []))
    assert "<img" not in as_html(report.sections(found, []), tmp_path)


def test_a_claim_that_does_not_hold_is_named(found: dict[str, Any]) -> None:
    finding = {"claim": "water runs uphill", "measured": "it does not", "interval": "", "holds": False}
    changed = found | {part.key: {"findings": [finding | {"holds": True}]} for part in report.PARTS}
    assert report.verdict(changed) == "4 of 4 claims hold."
    changed["loose"] = {"findings": [finding]}
    assert report.verdict(changed) == "3 of 4 claims hold. Not: water runs uphill."
    assert any(line.endswith("NO") for line in report.terminal(changed))


def test_bootstrap_intervals() -> None:
    data = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap(lambda r: data[r.integers(0, 400, 400)].mean(), np.random.default_rng(1))
    error = 1.96 * data.std() / 20
    assert (low, high) == pytest.approx((data.mean() - error, data.mean() + error), abs=0.04)
    assert interval_of(lambda pick: 3.0, 10, np.random.default_rng(0)) == (3.0, 3.0)
    assert agrees_with_one(0.75, 1.25)
    assert not agrees_with_one(0.7, 1.0)
    assert not agrees_with_one(1.0, 1.3)


def test_no_torch_is_imported() -> None:
    code = (
        "import sys\nfrom ra3kit.theory import figures, lab, report\nimport ra3kit.cli.theory\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
