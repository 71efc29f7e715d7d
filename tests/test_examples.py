"""The extension package in `examples/`: installed as a user would, without a network, then run and tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ra3kit.cli import main
from ra3kit.testing.conformance.world import tiny_corpus

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "ra3kit-own-parts"

pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="an sdist has no examples")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into."""
    pytest.importorskip("hatchling", reason="hatchling comes with the extra `dev`")
    folder = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder), str(PACKAGE)]
    subprocess.run(command, check=True, capture_output=True)
    assert (folder / "own_parts" / "priors.py").is_file()
    return folder


def run(words: list[str], folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """A Python process in a folder, that finds ra3kit and the installed package and nothing of the repository's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_recipe_runs_with_parts_from_another_package(tmp_path: Path, site: Path) -> None:
    corpus = tiny_corpus(tmp_path / "corpus", files=10)
    (corpus / "contaminated.py").write_text("import unittest\n\nx = 1\n")
    recipe = PACKAGE / "recipes" / "own-parts.yaml"
    small = [
        f"data.path={corpus}",
        f"data.warmup_path={corpus}",
        "data.max_snippets=12",
        f"model.policy.tokenizer.corpus={corpus}",
        "model.posterior.think=always",
        "trainer.callbacks.0.warmup_steps=3",
        "trainer.callbacks.0.e_steps=4",
        "trainer.callbacks.0.m_steps=2",
    ]
    done = run(["-m", "ra3kit.cli", "fit", "--recipe", str(recipe), *small], tmp_path, site)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "own-parts" / "001"
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert tree["model"]["prior"] == {"class_path": "own_parts.priors.Refractory", "c": 0.5, "extra": 1.0, "lines": 2}
    results = json.loads((folder / "results.json").read_text())
    assert results["data"]["dropped_files"] == {"contaminated": 1}
    manifest = json.loads((folder / "store" / "iteration-0" / "manifest.json").read_text())
    assert manifest["provenance"]["posterior"] == "StridedPosterior"
    assert manifest["provenance"]["prior"].startswith("0.5 nats per thought, 1 more within 2 actions")
    thoughts = json.loads((folder / "common_thoughts.json").read_text())["iteration 0"]
    assert thoughts
    assert all(text.startswith("#") for text, _ in thoughts)


@pytest.mark.slow
def test_its_own_tests_pass_with_the_checkers(tmp_path: Path, site: Path) -> None:
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(PACKAGE / "tests")]
    done = run(tests, tmp_path, site)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_its_classes_are_explained_like_the_kits(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(site)
    assert main(["explain", "own_parts.posteriors.StridedPosterior"]) == 0
    out = capsys.readouterr().out
    assert "bases        CausalPosterior, LatentPosterior, LightningModule\n" in out
    assert "most tokens of a thought" in out
    assert main(["explain", "own_parts.posteriors.StridedPosteriour"]) == 2
    assert "Did you mean 'StridedPosterior'?" in capsys.readouterr().err
    for name in [name for name in sys.modules if name.split(".")[0] == "own_parts"]:
        monkeypatch.delitem(sys.modules, name)
