"""`ra3kit report`: which runs it finds, how it joins and names them, what it prints and writes, what it refuses."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

from ra3kit import provenance
from ra3kit.cli import main
from ra3kit.reports.runs import find_runs, join, read_run

BEGAN = 1_000_000_000.0


def write(folder: Path, tags: dict[str, Any], name: str | None = None, seed: int = 0, **settings: Any) -> None:
    """A run: for each tag its values, from step 0 on or by step; with a recipe where it has a name."""
    folder.mkdir(parents=True, exist_ok=True)
    if name is not None:
        tree = {
            "run": {"name": name, "seed": seed},
            "model": {"class_path": "x.Model", "seed": seed, **settings},
            "data": {"class_path": "x.Data"},
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with mock.patch("time.time", return_value=BEGAN):
        writer = SummaryWriter(str(folder))
        for tag, values in tags.items():
            for step, value in values.items() if isinstance(values, dict) else enumerate(values):
                writer.add_scalar(tag, value, step, walltime=BEGAN + 10 * step)
        writer.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two arms of three seeds, that reach 0.5 or do not, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ra3kit", "report", "runs"])
    for arm, height in (("rlvr-from-ntp", 0.3), ("rlvr-from-ra3", 0.6)):
        for seed in range(3):
            rising = [height * step / 20 + 0.01 * seed for step in range(21)]
            end = {10: rising[10], 20: rising[20]}
            tags = {
                "rlvr/reward": rising,
                "rlvr/pass_rate": rising,
                "eval/mbpp/pass@1": end,
                **{f"eval/mbpp/pass@1_{e}": {k: v + d for k, v in end.items()} for e, d in (("lo", -0.1), ("hi", 0.1))},
            }
            write(tmp_path / "runs" / arm / f"{seed + 1:03d}", tags, arm, seed, start=f"{arm}/model")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["report", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["report", *arguments]) == 2
    return capsys.readouterr().err


def row(lines: list[str], tag: str, arm: str) -> list[str]:
    """Cells of an arm in the table of a tag."""
    table = lines[lines.index(tag) + 1 :]
    return re.split(r"  +", next(line for line in table if line.split()[0] == arm).strip())


# --- what it finds and shows -----------------------------------------------------------------------------------------


def test_seeds_are_joined_and_arms_named_by_what_differs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs", "--smooth", "1")
    half = 4.302653 * 0.01 / np.sqrt(3)  # t(2), spread 0.01
    assert f"{half:.3f}" == "0.025"
    # first 0, 0.01, 0.02; the last 10 % are three values, 18 to 20: 0.95 of the height; the area is half of it
    assert row(lines, "rlvr/reward", "ntp") == [
        *("ntp", "3", "0.010 ± 0.025", "0.295 ± 0.025", "0.310 ± 0.025", "0.160 ± 0.025", "never", "20", "200")
    ]
    # 0.03 a step from 0, 0.01, 0.02 on: 0.5 is reached at 17, 17, 16
    assert row(lines, "rlvr/reward", "ra3")[6] == "16.7 ± 1.4"
    assert row(lines, "eval/mbpp/pass@1", "ra3")[:4] == ["ra3", "3", "0.310 ± 0.025", "0.610 ± 0.025"]
    assert "eval/mbpp/pass@1_lo" not in lines
    assert lines[-2:] == [
        "results     reports/ntp-vs-ra3/report.html",
        "next        tensorboard --logdir runs/rlvr-from-ra3",
    ]


def test_the_threshold_is_looked_for_in_the_running_mean(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs/rlvr-from-ra3", "--threshold", "0.195", "--smooth", "5")
    assert row(lines, "rlvr/reward", "rlvr-from-ra3")[6] == "8.7 ± 1.4"  # 2 steps after 7, 7, 6
    assert "step at 0.195" in lines[1]


def test_every_run_alone(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs", "--no-join")
    arms = [line.split("  ")[1] for line in lines[2:8]]
    assert arms == [f"{arm} seed={seed}" for arm in ("ntp", "ra3") for seed in range(3)]
    assert "one seed says nothing about others" in lines[-1]
    assert "ra3kit fit --recipe runs/rlvr-from-ntp/001/recipe.yaml run.seed=1 " in lines[-1]


def test_a_setting_joins_what_differs_elsewhere(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        for beta in (0.0, 0.1):
            write(
                desk / "more" / f"{seed}{beta}", {"rlvr/reward": [seed, 1]}, "m", seed, beta=beta, start=f"ra3-{seed}"
            )
    assert {arm.label for arm in join([read_run(f) for f in find_runs(["more"])[0]])} == {
        f"beta={beta}, start=ra3-{seed}" for beta in (0.0, 0.1) for seed in range(2)
    }
    lines = said(capsys, "more", "--group", "model.beta")
    assert row(lines, "rlvr/reward", "beta=0.0")[:3] == ["beta=0.0", "2", "0.5 ± 6.4"]  # t(1) sqrt(1 / 2) / sqrt(2)
    report = Path("reports/beta=0.0-vs-beta=0.1/report.md").read_text()
    assert "| model.start | ra3-0 / ra3-1 | ra3-0 / ra3-1 |" in report
    assert "Did you mean 'model.beta'?" in refused(capsys, "more", "--group", "model.bata")
    assert "give one of them" in refused(capsys, "more", "--group", "model.beta", "--no-join")


def test_one_run_into_its_folder_and_never_over_another(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = "runs/rlvr-from-ra3/002"
    for name in ("report", "report-2"):
        assert said(capsys, run)[-2] == f"results     {run}/{name}/report.html"
    assert sorted(path.name for path in Path(run, "report").iterdir()) == ["report.html", "report.md", "report.png"]
    assert "not empty" in refused(capsys, run, "--out", f"{run}/report")
    Path("file").write_text("mine")
    assert "this is a file" in refused(capsys, run, "--out", "file")
    assert said(capsys, run, "--out", "a/b")[-2] == "results     a/b/report.html"
    assert "## Every curve of the run" in Path("a/b/report.md").read_text()
    assert find_runs([run])[0] == [Path(run)]


def test_seeds_that_are_not_equally_far(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is going on: what all seeds have is compared, and it is said."""
    for seed, length in ((0, 21), (1, 6)):
        tags = {"rlvr/reward": [0.1 * step for step in range(length)], **({"rlvr/x": [1.0]} if seed == 0 else {})}
        write(desk / "going" / f"{seed}", tags, "going", seed)
    write(desk / "going" / "2", {}, "going", 2)
    (next((desk / "going" / "2").glob("events*"))).unlink()
    write(desk / "done" / "1", {"rlvr/reward": [0.1 * step for step in range(21)]}, "done")
    lines = said(capsys, "going", "done", "--smooth", "1", "--tags", "rlvr/*")
    assert row(lines, "rlvr/reward", "going")[-2:] == ["5", "50"]
    notes = [line for line in lines if line.startswith("warning: ")]
    assert notes == [
        "warning: left out: going/2 has no event files",
        "warning: rlvr/reward: 15 points of going left out, at steps that not all of its seeds have",
        "warning: rlvr/x: 1 of 2 seeds of going have it",
        "warning: rlvr/x: done has no value of it",
        "warning: rlvr/reward: the curves cover different steps (going 0 to 5, done 0 to 20); compare neither their "
        "ends nor their areas",
    ]


def test_values_that_are_no_numbers_count_nowhere(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(desk / "nan", {"rlvr/reward": [1.0, float("nan"), 3.0]})
    lines = said(capsys, "nan", "--smooth", "1")
    assert row(lines, "rlvr/reward", "nan")[2:6] == ["1", "3", "3", "2"]
    assert "warning: rlvr/reward: 1 values of nan are NaN or infinite and count nowhere" in lines


def test_runs_of_other_stages(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(desk / "ra3", {f"{tag}/x": [1.0, 2.0] for tag in ("warmup", "estep", "eval/ra3", "ntp")}, "tiny-ra3")
    assert "None of the tags that are shown by default" in refused(capsys, "ra3")
    write(desk / "ra3b", {"estep/reward": [-3.0, -2.0], "mstep/code_loss": {2: 3.0, 3: 2.5}, "ntp/loss": {2: 1.0}}, "b")
    lines = said(capsys, "ra3b")
    assert row(lines, "mstep/code_loss", "b")[2:5] == ["3", "2.5", "2.5"]  # best: the lowest
    assert "step at 0.5" not in lines[1]  # nats per line
    assert "ntp/loss" not in lines
    write(desk / "ntp", {"ntp/loss": [2.0, 1.5], "eval/ntp/plain_ce": {1: 1.4}}, "n")
    assert {"ntp/loss", "eval/ntp/plain_ce"} <= set(said(capsys, "ntp"))


# --- what it writes --------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Cells of the tables of a page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.loads: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inside = tag in ("td", "th")
        if self.inside:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def test_the_page_holds_everything_and_needs_nothing(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["ra3kit", "report", "runs", "--tags", "rlvr/*", "x.api_key=abc"])
    said(capsys, "runs")
    folder = Path("reports/ntp-vs-ra3")
    text = (folder / "report.html").read_text()
    page = Page(text)
    (picture,) = page.loads
    kind, _, data = picture.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (folder / "report.png").read_bytes()
    assert "0.610 ± 0.025" in page.cells
    assert {"model.start", "rlvr-from-ntp/model", "rlvr-from-ra3/model", "torch"} <= set(page.cells)
    assert "model.seed" not in page.cells
    assert "ra3kit report runs --tags &#x27;rlvr/*&#x27; &#x27;x.api_key=***&#x27;" in text
    assert "95 % t-interval of the mean over training seeds" in text
    markdown = (folder / "report.md").read_text()
    assert "0.610 ± 0.025" in markdown
    assert "![curves of ntp, ra3](report.png)" in markdown


def test_what_a_page_says_is_no_markup(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(desk / "odd", {"rlvr/reward": [1.0]}, "<b>|x", 0)
    said(capsys, "odd", "--out", "out")
    assert "<b>|x" in Page(Path("out/report.html").read_text()).cells
    assert "<b>" not in Path("out/report.html").read_text()
    assert "| <b>\\|x |" in Path("out/report.md").read_text()


def test_the_picture_has_an_arm_in_one_colour_everywhere(desk: Path) -> None:
    from matplotlib.figure import Figure

    from ra3kit.reports.panels import choose_tags, draw, lines_of

    runs = [read_run(folder) for folder in find_runs(["runs"])[0]]
    arms, drawn = join(runs), []
    with mock.patch.object(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure)):
        draw(Path("x.png"), lines_of(arms, choose_tags(runs), 10)[0], arms, "seconds")
    (figure,) = drawn
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["rlvr/reward", "rlvr/pass_rate", "eval/mbpp: pass@1"]
    assert [axes.get_xlabel() for axes in shown] == ["seconds of running"] * 3
    assert [axes.get_ylabel() for axes in shown] == ["reward", "share", "share"]
    for axes in shown:
        thick = [line.get_color() for line in axes.get_lines() if line.get_linewidth() > 1]
        assert len(thick) == len(set(thick)) == 2
        assert thick == [line.get_color() for line in figure.legends[0].get_lines()]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ntp (3 seeds)", "ra3 (3 seeds)"]


def test_without_matplotlib_there_is_no_picture_and_it_is_said(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said(capsys, "runs")
    folder = Path("reports/ntp-vs-ra3")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md"]
    for name in ("report.html", "report.md"):
        assert "pip install" in (folder / name).read_text()


def test_a_finished_run_has_its_report_in_its_record(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/rlvr-from-ntp/001")
    environment = {"ra3kit": {"version": "9.9", "commit": "c" * 40}}
    provenance.begin(run, {"command": "ra3kit fit", "environment": environment})
    provenance.end(run, "finished")
    (run / "results.json").write_text(json.dumps({"stage": "rlvr", "stopped": "no memory left"}))
    provenance.update(run, {})
    lines = said(capsys, str(run))
    assert provenance.verify(run) == []
    assert provenance.read(run)["artefacts"]["report"]["made_by"] == "ra3kit report"
    assert f"warning: {run}: stopped: no memory left" in lines
    assert "| 9.9 cccccccccccc |" in (run / "report" / "report.md").read_text()


# --- what it refuses -------------------------------------------------------------------------------------------------


def test_bad_input(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No run 'runs/rlvr-from-nt': it is not there. Did you mean 'rlvr-from-ntp'?" in refused(
        capsys, "runs/rlvr-from-nt"
    )
    assert "this is a file" in refused(capsys, "runs/rlvr-from-ntp/001/recipe.yaml")
    Path("empty").mkdir()
    assert "empty: no TensorBoard event files in it" in refused(capsys, "runs", "empty")
    tag = refused(capsys, "runs", "--tags", "rlvr/reward", "rlvr/pas_rate")
    assert "--tags rlvr/pas_rate: no curve has such a tag. Did you mean 'rlvr/pass_rate'?" in tag
    assert "--smooth=0: must be a whole number of at least 1" in refused(capsys, "runs", "--smooth", "0")
    assert "--threshold=nan: must be a finite number" in refused(capsys, "runs", "--threshold", "nan")
    write(Path("other"), {"train/loss": [1.0]})
    assert "--tags one of: train/loss" in refused(capsys, "other")
    Path("runs/rlvr-from-ntp/002/results.json").write_text("{")
    assert "runs/rlvr-from-ntp/002/results.json cannot be read" in refused(capsys, "runs")
    assert not Path("reports").exists()
    assert not Path("other/report").exists()
