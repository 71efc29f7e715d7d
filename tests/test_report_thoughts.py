"""What a report says of a run's thoughts: options and gains against hand-worked figures, and a whole run."""

from __future__ import annotations

import html.parser
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from small_world import policy
from tiny_recipes import RA3, write_code
from torch.utils.tensorboard import SummaryWriter

from ra3kit.abstraction.prior import FixedPenalty, LatentPrior, TemporalPrior, penalty_of
from ra3kit.cli import main
from ra3kit.data.encode import encode_texts
from ra3kit.data.store import StoreWriter
from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import ThoughtRules
from ra3kit.reports.annotated import Annotated, Row
from ra3kit.reports.curves import Curve
from ra3kit.reports.document import Section, as_html, as_markdown
from ra3kit.reports.horizon_curves import e_steps, logged_table
from ra3kit.reports.options import (
    NONE_YET,
    discounted,
    discounted_by_intent,
    durations,
    horizon_of,
    options_of,
    sweeps_ratio,
)
from ra3kit.reports.rlvr_thoughts import rlvr_thoughts
from ra3kit.reports.run_thoughts import rows_of, texts_of, worths_of
from ra3kit.reports.runs import read_run, stores_of
from ra3kit.reports.thoughts import Worth, common_cost, costs_of, intents_of, payoff_of
from ra3kit.reports.thoughts_picture import draw_thoughts

A, B, C = [7, 8], [7, 9], [7, 8, 9]
"""Token ids of three thoughts."""


def snippet(name: str, thoughts: dict[int, list[int]], lines: int, forbidden: Sequence[int] = ()) -> Trajectory:
    """Lines of two tokens each; `forbidden` are those before which none may be written."""
    may_think = [line not in forbidden for line in range(lines)]
    expert = Trajectory.from_lines(name, [[20 + line, 3] for line in range(lines)], may_think, 1, 2)
    return expert.weave(thoughts)


# --- options and the horizon -----------------------------------------------------------------------------------------


def test_durations() -> None:
    def of(marks: str) -> list[int]:
        return durations(np.array([mark == "#" for mark in marks], bool)).tolist()

    assert of("..#.##") == [2, 2, 1, 1]
    assert of("#...") == [4]
    assert of("....") == [4]
    assert of("") == []


@pytest.fixture
def corpus() -> list[Trajectory]:
    """Options: none yet 2, A 3 | A 1, B 2, A 1 | none yet 3 (no thought)."""
    return [
        snippet("a", {2: A}, 5, forbidden=[1, 4]),
        snippet("b", {0: A, 1: B, 3: A}, 4, forbidden=[2]),
        snippet("c", {}, 3),
    ]


def test_options_of_a_hand_made_store(corpus: list[Trajectory]) -> None:
    found = options_of(corpus, ThoughtRules())
    assert found.lines.tolist() == [2, 3, 1, 2, 1, 3]
    assert [found.intents[i] for i in found.intent] == [NONE_YET, (7, 8), (7, 8), (7, 9), (7, 8), NONE_YET]
    assert found.of_thoughts.tolist() == [False, True, True, True, True, False]
    assert (found.snippets, found.thinking.tolist(), found.choices, found.thought_tokens) == (3, [0, 1], 9, 8)
    assert options_of(corpus, ThoughtRules(where="first_line")).choices == 3  # one a snippet, as BRiTE decides


def test_gbar_is_a_mean_of_gamma_to_the_duration(corpus: list[Trajectory]) -> None:
    found = options_of(corpus, ThoughtRules())
    assert discounted(found.lines, 0.5) == pytest.approx((0.25 + 0.125 + 0.5 + 0.25 + 0.5 + 0.125) / 6)
    means, counts = discounted_by_intent(found, 0.5)
    by = dict(zip(found.intents, zip(means.tolist(), counts.tolist(), strict=True), strict=True))
    assert by[NONE_YET] == (pytest.approx((0.25 + 0.125) / 2), 2)
    assert by[7, 8] == (pytest.approx((0.125 + 0.5 + 0.5) / 3), 3)
    assert by[7, 9] == (0.25, 1)


def test_gbar_is_never_above_gamma_by_rounding() -> None:
    """Sums of six times 0.99 or more are above their value by an ulp, and 1 / (1 - gbar) would be above 1/(1-gamma)."""
    for n in range(1, 50):
        found = options_of([snippet(f"a{i}", {0: A}, 1) for i in range(n)], ThoughtRules())
        assert discounted(found.lines, 0.99) <= 0.99
        assert discounted_by_intent(found, 0.99)[0].max() <= 0.99


def test_the_sup_is_over_intents_that_are_frequent() -> None:
    """B lasts one line each, but nine of them are too few to be told from chance; the tenth makes it count."""

    def of(times: int) -> Any:
        rare = [snippet(f"b{i}", {0: B}, 1) for i in range(times)]
        return horizon_of(options_of([*(snippet(f"a{i}", {0: A}, 2) for i in range(10)), *rare], ThoughtRules()), 0.5)

    assert (of(0).sup, of(0).frequent) == (0.25, 1)
    assert (of(9).sup, of(9).frequent) == (pytest.approx((10 * 0.25 + 9 * 0.5) / 19), 1)  # the mean, which is larger
    assert (of(10).sup, of(10).frequent) == (0.5, 2)
    few = horizon_of(options_of([snippet("a", {0: A}, 2)], ThoughtRules()), 0.5)
    assert (few.sup, few.frequent) == (None, 0)


def test_the_horizon_of_a_hand_made_store(corpus: list[Trajectory]) -> None:
    at = horizon_of(options_of(corpus, ThoughtRules()), 0.5)
    assert (at.lines, at.choices, at.options, at.thinking, at.tau) == (4.0, 3.0, 2.0, 4 / 6, 2.0)
    # log(100 / (1 - gbar)) / (1 - gbar), rounded up: 4.89 / 0.75 = 6.5 and 5.30 / 0.5 = 10.6
    assert sweeps_ratio(0.25, 0.5) == pytest.approx(7 / 11)
    assert sweeps_ratio(0.5, 0.5) == 1.0


def curve(steps: Sequence[int], values: Sequence[float]) -> Curve:
    return Curve(np.array(steps), np.array(values, float), np.zeros(len(steps)))


def test_the_logged_curve_is_cut_where_an_m_step_was() -> None:
    curves = {
        "estep/lines_per_thought": curve([0, 1, 2, 6, 7], [1, 2, math.nan, 3, 4]),
        "estep/thought_rate": curve([0, 1, 6, 7], [0.9, 0.8, 0.7, 0.6]),
        "mstep/code_loss": curve([3, 4, 5, 8], [1, 1, 1, 1]),
        "eval/ra3/thought_rate": curve([8], [0.5]),
        "eval/ra3/lines_per_thought": curve([8], [3.0]),
    }
    assert [piece.values.tolist() for piece in e_steps(curves)] == [[1, 2], [3, 4]]
    assert logged_table(curves, 0.5)[1:] == [
        ["q, E-step 0", "2", "90.0% to 80.0%", "1.00 to 2.00", "0.5000 to 0.2500"],
        ["q, E-step 1", "2", "70.0% to 60.0%", "3.00 to 4.00", "0.1250 to 0.0625"],
        ["pi, held-out code", "1", "50.0% to 50.0%", "3.00 to 3.00", "0.1250 to 0.1250"],
    ]
    assert len(logged_table({}, 0.5)) == 1


# --- gains and costs -------------------------------------------------------------------------------------------------


class Spaced(LatentPrior):
    """A thought is dearer right after another: the example of `LatentPrior`."""

    def __init__(self) -> None:
        super().__init__("line_sum")

    def penalty(self, is_thought: Any, log_q: Any, may_think: Any = None) -> Any:
        after = torch.nn.functional.pad(is_thought, (1, 0))[..., :-1]
        return (is_thought * torch.where(after, 3.0, 1.0)).to(log_q.dtype)

    def describe(self) -> str:
        return "1 nat, 3 right after another"


def test_what_a_thought_costs() -> None:
    marks, everywhere = np.array([True, True, False, True]), np.ones(4, bool)
    assert costs_of(FixedPenalty(0.25), marks, everywhere) == pytest.approx({0: 0.25, 1: 0.25, 3: 0.25})
    odds = penalty_of(0.3, math.log(50))  # of <act> against one given thought
    assert costs_of(TemporalPrior(0.3, num_latents=50), marks, everywhere) == pytest.approx(
        dict.fromkeys([0, 1, 3], odds)
    )
    # without the first, the second is no longer right after another: 1 + (3 - 1)
    assert costs_of(Spaced(), marks, everywhere) == pytest.approx({0: 3.0, 1: 3.0, 3: 1.0})


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Trajectory], dict[tuple[int, ...], str]]:
    """pi, snippets with thoughts in them, and the texts of these."""
    pi = policy()
    torch.manual_seed(1)
    for parameter in pi.model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    lines = ["def f(x):\n", "    y = x + 1\n", "    z = [y, x,\n", "        y]\n", "    return z\n"]
    thoughts = ["# add one\n", "# collect\n", "# done\n"]
    ids, said = encode_texts(pi.tokenizer, lines), encode_texts(pi.tokenizer, thoughts)
    expert = Trajectory.from_lines("a.py#0", ids, [True, True, True, False, True], 0, pi.tokenizer.eos_token_id)
    woven = [expert.weave({1: said[0], 2: said[1]}), expert.weave({0: said[2]}), expert.weave({4: said[0]})]
    return pi, woven, {tuple(row): text.rstrip("\n") for row, text in zip(said, thoughts, strict=True)}


def nats_of_lines(model: torch.nn.Module, trajectory: Trajectory) -> list[float]:
    """Log-likelihood of each line, from one forward pass of transformers over one snippet."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(trajectory.ids[None]).long()).logits[0].double()
    logp = logits.log_softmax(-1)
    return [sum(float(logp[at - 1, trajectory.ids[at]]) for at in range(start, end)) for start, end in trajectory.lines]


@pytest.mark.parametrize("scale", ["line_sum", "token_mean"])
def test_gains_are_those_of_two_forward_passes(world: Any, scale: Any) -> None:
    pi, woven, texts = world
    found = worths_of(pi.model, woven, FixedPenalty(0.1, scale), ThoughtRules(), texts, first=5)
    assert [(w.snippet, w.line, w.lines, w.text) for w in found] == [
        (5, 1, 1, "# add one"),
        (5, 2, 3, "# collect"),
        (6, 0, 5, "# done"),
        (7, 4, 1, "# add one"),
    ]
    for worth in found:
        full = woven[worth.snippet - 5]
        others = np.flatnonzero(full.has_thought()).tolist()
        removed = full.weave({line: full.thought_ids(line) for line in others if line != worth.line})
        with_it, without = nats_of_lines(pi.model, full), nats_of_lines(pi.model, removed)
        covered = range(worth.line, worth.line + worth.lines)
        sizes = [len(full.line_ids(line)) for line in covered]
        each = [with_it[line] - without[line] for line in covered]
        assert abs(sum(each)) > 1e-3
        assert worth.nats == pytest.approx(sum(each), abs=1e-4)
        scaled = [value / size for value, size in zip(each, sizes, strict=True)]
        assert worth.gain == pytest.approx(sum(each if scale == "line_sum" else scaled), abs=1e-4)
        assert worth.cost == pytest.approx(0.1)
        assert worth.tokens == len(full.thought_ids(worth.line))


def worth(gain: float, cost: float = 1.0, snippet: int = 0, text: str = "# a", nats: float | None = None) -> Worth:
    return Worth(snippet, 0, 1, text, 4, gain if nats is None else nats, gain, cost)


def test_a_thought_pays_if_it_gains_more_than_it_costs() -> None:
    assert [worth(gain).mark for gain in (1.01, 1.0, 0.01, 0.0, -2.0)] == ["paid", "gained", "gained", "lost", "lost"]
    assert common_cost([worth(1.0), worth(2.0)]) == 1.0
    assert common_cost([worth(1.0), worth(2.0, cost=1.5)]) is None
    assert common_cost([]) is None


def test_the_figures_of_a_sample() -> None:
    found = payoff_of(
        [worth(3.0, snippet=0, nats=9.0), worth(0.5, snippet=0, nats=1.0), worth(-1.5, snippet=4, nats=-1.0)]
    )
    assert (found.thoughts, found.snippets, found.tokens, found.nats) == (3, 2, 4.0, 3.0)
    assert (found.gain, found.median, found.cost, found.net) == pytest.approx((2 / 3, 0.5, 1.0, -1 / 3))
    assert (found.gained, found.paid) == pytest.approx((2 / 3, 1 / 3))
    # two snippets: 1/4 of the draws have the second alone, 1/4 the first alone, so 95 % reach from one to the other
    assert found.intervals["gain"] == pytest.approx((-1.5, 1.75))
    assert found.intervals["paid"] == pytest.approx((0.0, 0.5))


def test_intents_are_counted_by_their_text(corpus: list[Trajectory]) -> None:
    store = [*corpus, snippet("d", {0: C, 2: B}, 4)]
    found = options_of(store, ThoughtRules())
    # C is another spelling of A in tokens
    texts = {(7, 8): "# a", (7, 9): "# b", (7, 8, 9): "# a"}
    first, second = intents_of(found, texts, [worth(2.0, text="# b"), worth(0.5, text="# b")])
    assert (first.text, first.count, first.share, first.lines, first.worths) == ("# a", 4, 4 / 6, 7 / 4, ())
    assert (second.text, second.count, second.lines) == ("# b", 2, 2.0)
    assert [w.gain for w in second.worths] == [2.0, 0.5]


# --- the document ----------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """The elements of a page, which must be closed in order; texts by the classes of the element they are in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append((tag, found.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            for _, name in self.open:
                self.texts.setdefault(name, []).append(data)


def test_annotated_code_is_marked_and_inert() -> None:
    rows = [
        Row("def f():", False, None),
        Row("# <script>alert(1)</script>", True, "lost", "-0.50 nats, lost"),
        Row('    x = """\n```\n<img src=x>"""', False, "lost"),
        Row("# ok", True, "paid", "+2.00 nats, paid"),
        Row("    return x", False, "paid"),
    ]
    block = Annotated({"paid": "more than c", "lost": "nothing"}, [("a<b>.py#0", rows)])
    page = as_html([Section("T", [block])], Path())
    parsed = Page(page)
    assert not {"script", "img", "b>"} & set(parsed.tags)
    assert parsed.loads == []
    assert parsed.texts["row thought lost"] == ["# <script>alert(1)</script>", "-0.50 nats, lost"]
    assert parsed.texts["row lost"] == ['    x = """\n```\n<img src=x>"""']
    assert parsed.texts["row"] == ["def f():"]
    assert parsed.texts["row paid"] == ["    return x"]
    assert parsed.texts["key paid"] == ["paid: more than c"]
    assert ".paid {" in page
    assert ".paid {" not in as_html([Section("T", ["none"])], Path())
    assert as_markdown([Section("T", [block])]) == (
        "# T\n\n- paid: more than c\n- lost: nothing\n\na<b>.py#0\n\n"
        "````text\n  def f():\n> # <script>alert(1)</script>   [-0.50 nats, lost]\n"
        '      x = """\n  ```\n  <img src=x>"""\n> # ok   [+2.00 nats, paid]\n      return x\n````\n'
    )


def test_lines_have_the_mark_of_the_thought_that_covers_them(world: Any) -> None:
    pi, woven, texts = world
    own = [Worth(3, 1, 1, "# add one", 4, 2.0, 2.0, 1.0), Worth(3, 2, 3, "# collect", 4, 0.5, 0.5, 1.0)]
    other = Worth(2, 0, 5, "# done", 4, -1.0, -1.0, 1.0)
    rows = rows_of(woven[0], pi.tokenizer, texts, [other, *own], 3)
    assert [(row.is_thought, row.mark) for row in rows] == [
        (False, None),
        *[(True, "paid"), (False, "paid")],
        *[(True, "gained"), (False, "gained"), (False, "gained"), (False, "gained")],
    ]
    assert (rows[1].text, rows[1].note) == ("# add one", "+2.00 nats, paid")
    assert rows[3].note == "+0.50 nats, gained, not paid"
    assert rows[2].text == "    y = x + 1"


# --- a whole run -----------------------------------------------------------------------------------------------------

SMALLER = (
    "model.posterior.think=always",  # else a model that has learned nothing writes none
    "model.posterior.max_length=4",
    "model.control=false",
    "model.eval_rollouts=2",
    "data.max_val_snippets=1",
    "data.max_tokens=64",
    "data.max_snippets=4",
    "trainer.callbacks.0.iterations=2",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of RA3 that went all the way."""
    desk = tmp_path_factory.mktemp("desk")
    write_code(desk / "code")
    (desk / "r.yaml").write_text(
        RA3.replace("corpus: code", f"corpus: {desk}/code").replace("path: code", f"path: {desk}/code")
    )
    assert main(["fit", "--recipe", str(desk / "r.yaml"), f"run.dir={desk}/run", *SMALLER]) == 0
    return desk / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to report and to damage."""
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ra3kit", "report", "run"])
    return Path("run")


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """What the terminal and the Markdown say."""
    capsys.readouterr()
    assert main(["report", *arguments, "--out", "out"]) == 0
    return capsys.readouterr().out, Path("out/report.md").read_text()


def titles(markdown: str) -> list[str]:
    return [line[3:] for line in markdown.splitlines() if line.startswith("## ")]


OWN = ["Thoughts", "Thoughts that paid", "Most frequent intents", "Effective horizon", "Annotated snippets"]


def cells(markdown: str, name: str) -> list[str]:
    (line,) = (line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
    return line.strip("| ").split(" | ")


def test_the_report_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, markdown = reported(capsys, str(run), "--gamma", "0.5", "--snippets", "2")
    assert [title for title in titles(markdown) if title in OWN] == OWN
    stores = stores_of(run)
    assert list(stores) == [0, 1]
    store = json.loads((stores[1] / "manifest.json").read_text())
    assert store["rows"] == 4
    # a thought before every line: tau 1, gbar = gamma
    # no text is there ten times
    assert cells(markdown, "1")[-7:] == ["1.00", "0.5000", "-", "2.0", "-", "1.000", "-"]
    assert cells(markdown, "tokens of a thought, mean")[1] == "4.0"
    assert cells(markdown, "mean cost, nats")[1] == "0.5"
    assert " in 2 of 4 snippets with thoughts" in cells(markdown, "thoughts weighed")[1]
    assert "![gains, intents and horizon of the thoughts](thoughts.png)" in markdown
    assert Path("out/thoughts.png").stat().st_size > 20_000
    page = Page(Path("out/report.html").read_text())
    assert "script" not in page.tags
    assert [load.split(",")[0] for load in page.loads] == ["data:image/png;base64"] * 2
    shown = [text for name, texts in page.texts.items() if name.startswith("row thought") for text in texts]
    assert sum(text.endswith(("paid", "lost")) and " nats, " in text for text in shown) == len(shown) / 2
    assert "thoughts, in the store of iteration 1\n  paid      " in out
    assert "tau 1.00 lines, 100.0% of the options of a thought; gbar 0.5000" in out
    assert "warning" not in out


def test_the_sample_is_the_same_every_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = reported(capsys, str(run), "--snippets", "2")[1]
    shutil.rmtree("out")
    second = reported(capsys, str(run), "--snippets", "2")[1]
    assert first.split("## How it was made")[0] == second.split("## How it was made")[0]


def test_without_snippets_the_model_is_not_loaded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch("ra3kit.reports.run_thoughts.BasePolicy", side_effect=AssertionError):
        out, markdown = reported(capsys, str(run), "--snippets", "0")
    assert [title for title in titles(markdown) if title in OWN] == ["Thoughts", OWN[2], OWN[3]]
    assert "  paid " not in out
    assert "  intents " in out


def test_a_run_that_is_not_over_has_what_needs_no_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "model")
    (run / ".finished").unlink()
    manifest = run / "store" / "iteration-1" / "manifest.json"
    provenance = json.loads(manifest.read_text())["provenance"]
    (manifest.parent / "writing.json").write_text(json.dumps({"format": 1, "provenance": provenance}))
    manifest.unlink()
    shutil.copytree(run / "store" / "iteration-0", run / "store" / "iteration-0.of-0123")  # set aside by a resume
    assert [path.name for path in stores_of(run).values()] == ["iteration-0", "iteration-1"]
    out, markdown = reported(capsys, str(run))
    assert [title for title in titles(markdown) if title in OWN] == ["Thoughts", "Effective horizon"]
    warnings = [line for line in out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2
    assert "iteration-1 is left out: the store run/store/iteration-1 was not finished" in warnings[0]
    assert "run/model is not there" in warnings[1]
    assert "trained weights" in warnings[1]
    assert all(line.removeprefix("warning: ") in markdown for line in warnings)
    assert "thoughts, in the store of iteration 0" in out


@pytest.mark.parametrize("damage", ["shard", "manifest", "other", "spans"])
def test_a_damaged_store_is_named_and_left_out(run: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "store" / "iteration-1"
    (shard,) = folder.glob("shard-*")
    if damage == "shard":
        shard.write_bytes(shard.read_bytes()[:200])
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{")
    elif damage == "other":
        (folder / "manifest.json").write_text('{"format": 1}')
    else:
        provenance = json.loads((folder / "manifest.json").read_text())["provenance"]
        shutil.rmtree(folder)
        with mock.patch.object(Trajectory, "check"), StoreWriter(folder, provenance) as writer:
            good = snippet("bad.py#0", {0: A}, 3)
            writer.add(Trajectory(good.snippet_id, good.ids, good.lines[::-1], good.may_think, good.thoughts[:0]))
    out, markdown = reported(capsys, str(run))
    (warning,) = (line for line in out.splitlines() if line.startswith("warning"))
    assert warning.startswith("warning: run/store/iteration-1 is left out: ")
    assert "thoughts, in the store of iteration 0" in out
    assert [title for title in titles(markdown) if title in OWN] == OWN


def test_stores_that_cannot_be_read_leave_a_report_of_curves(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for manifest in run.glob("store/*/manifest.json"):
        manifest.write_text("[]")
    out, markdown = reported(capsys, str(run))
    assert out.count("warning: run/store/iteration-") == 2
    assert not set(titles(markdown)) & set(OWN)
    assert not Path("out/thoughts.png").exists()


def test_a_model_of_another_tokenizer_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "store" / "iteration-1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"]["tokenizer"] = "0123456789abcdef"
    path.write_text(json.dumps(manifest))
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert "run/store/iteration-1 was written with tokenizer 0123456789abcdef, but run/model has " in error
    assert not (run / "report").exists()


def test_a_store_that_does_not_name_its_tokenizer_is_read_and_it_is_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "store" / "iteration-1" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["provenance"]["tokenizer"]
    path.write_text(json.dumps(manifest))
    out, markdown = reported(capsys, str(run))
    assert "warning: run/store/iteration-1 does not say which tokenizer it was written with" in out
    assert set(OWN) <= set(titles(markdown))


def test_what_is_wrong_with_model_or_recipe_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = run / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    out, markdown = reported(capsys, str(run))
    assert "warning: what thoughts gained and annotated snippets are left out: model 'run/model'" in out
    assert [title for title in titles(markdown) if title in OWN] == ["Thoughts", OWN[2], OWN[3]]
    weights.write_bytes(whole)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("prior.FixedPenalty", "prior.FixedPenaltee"))
    shutil.rmtree("out")
    assert "FixedPenaltee" in reported(capsys, str(run))[0]
    (run / "model" / "tokenizer.json").write_text("{")
    shutil.rmtree("out")
    out, markdown = reported(capsys, str(run))
    assert "warning: intents by their text, gains and annotated snippets are left out: tokenizer 'run/model'" in out
    assert [title for title in titles(markdown) if title in OWN] == ["Thoughts", "Effective horizon"]


def test_ids_that_the_model_has_no_token_for_are_refused_before_it_runs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run / "store" / "iteration-1"
    provenance = json.loads((folder / "manifest.json").read_text())["provenance"]
    shutil.rmtree(folder)
    with StoreWriter(folder, provenance) as writer:
        writer.add(Trajectory.from_lines("far.py#0", [[100_000, 3]], [True], 0, 0).weave({0: A}))
    assert "far.py#0 has ids outside of the 300 tokens" in reported(capsys, str(run))[0]


def test_a_q_that_wrote_nothing_leaves_the_horizon(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in stores_of(run).values():
        provenance = json.loads((folder / "manifest.json").read_text())["provenance"]
        shutil.rmtree(folder)
        with StoreWriter(folder, provenance) as writer:
            writer.add(snippet("a.py#0", {}, 3))
    out, markdown = reported(capsys, str(run), "--gamma", "0.5")
    assert [title for title in titles(markdown) if title in OWN] == ["Thoughts", "Effective horizon"]
    assert "Of the 0 thoughts" in markdown
    assert "tau 3.00 lines, 0.0% of the options of a thought; gbar 0.1250; 1/(1-gbar) 1.1 of 2" in out
    assert "warning" not in out


def test_without_matplotlib_the_words_are_there(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("document", "several", "thoughts_sections"):
        monkeypatch.setattr(f"ra3kit.reports.{module}.can_draw", lambda: False)
    markdown = reported(capsys, str(run))[1]
    assert "thoughts.png" not in markdown
    assert "## Most frequent intents" in markdown
    assert sorted(path.name for path in Path("out").iterdir()) == ["report.html", "report.md"]


def test_several_runs_are_reported_without_their_thoughts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, "other")
    with mock.patch("ra3kit.reports.run_thoughts.read_thoughts", side_effect=AssertionError):
        out, markdown = reported(capsys, str(run), "other", "--no-join")
    assert not set(titles(markdown)) & set(OWN)
    assert "thoughts, in" not in out
    assert not Path("out/thoughts.png").exists()


def events(folder: Path, tags: dict[str, dict[int, float]]) -> Path:
    writer = SummaryWriter(str(folder))
    for tag, values in tags.items():
        for step, value in values.items():
            writer.add_scalar(tag, value, step)
    writer.close()
    return folder


def test_a_run_without_thoughts_says_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    events(Path("ntp"), {"ntp/loss": {0: 2.0, 1: 1.0}})
    out, markdown = reported(capsys, "ntp")
    assert "hought" not in out
    assert not set(titles(markdown)) & set(OWN)
    assert sorted(path.name for path in Path("out").iterdir()) == ["report.html", "report.md", "report.png"]


def test_thoughts_in_the_answers_of_rlvr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = range(20)
    tags = {
        "rlvr/reward": dict.fromkeys(steps, 0.5),
        "rlvr/thoughts_per_answer": {step: float(step) for step in steps},
        "rlvr/thought_rate": dict.fromkeys(steps, 0.25),
        "rlvr/tokens_per_thought": {step: 4.0 for step in steps if step},
        "rlvr/reward_with_thoughts": {1: 0.5, 18: 0.25, 19: 0.75},
        "rlvr/answers_with_thoughts": {0: 0.0, 1: 2.0, 18: 6.0, 19: 2.0},
        "rlvr/answers_without_thoughts": {0: 8.0},
    }
    (section,) = rlvr_thoughts(read_run(events(tmp_path / "a", tags)).curves)
    table, note = section.blocks
    assert table.rows == [  # type: ignore[union-attr]
        ["", "first", "last 10 %", "all steps"],
        ["thoughts per answer", "0", "18.5", "9.5"],
        ["thoughts per line of code", "0.25", "0.25", "0.25"],
        ["tokens of a thought", "4", "4", "4"],
        # each answer once: (6 x 0.25 + 2 x 0.75) / 8, and with 2 x 0.5 more over 10
        ["reward with thoughts", "-", "0.375 (8 answers)", "0.4 (10 answers)"],
        ["reward without thoughts", "-", "-", "-"],
    ]
    assert "not what thoughts are worth" in str(note)
    assert "| reward with thoughts | - | 0.375 (8 answers) | 0.4 (10 answers) |" in reported(capsys, "a")[1]
    none = {"rlvr/reward": {0: 1.0}, "rlvr/thoughts_per_answer": {0: 0.0, 1: 0.0}}
    (section,) = rlvr_thoughts(read_run(events(tmp_path / "b", none)).curves)
    assert section.blocks == ["None in any answer of the 2 steps that were logged."]
    assert rlvr_thoughts(read_run(events(tmp_path / "c", {"rlvr/reward": {0: 1.0}})).curves) == []


@pytest.mark.parametrize("bad", [("--gamma", "1"), ("--gamma", "0"), ("--gamma", "nan"), ("--snippets", "-1")])
def test_options_out_of_range(run: Path, bad: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), *bad]) == 2
    assert f"{bad[0]}=" in capsys.readouterr().err


def test_the_picture_shows_what_there_is(run: Path) -> None:
    from matplotlib.figure import Figure

    from ra3kit.reports.run_thoughts import read_thoughts

    read = read_run(run)
    found = read_thoughts(read, 4)
    assert found.sample is not None
    assert found.intents is not None
    drawn: list[Any] = []
    with mock.patch.object(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure)):
        draw_thoughts(Path("x.png"), found, read.curves, 0.5)
    gains, intents, horizon = drawn[0].axes
    assert "c = 0.5" in [text.get_text() for text in gains.texts]
    assert sum(patch.get_height() for patch in gains.patches) == len(found.sample.worths)
    assert {worth.mark for worth in found.sample.worths} == {"gained", "lost"}  # one above the other:
    assert len({round(patch.get_x(), 9) for patch in gains.patches}) == 30
    assert [label.get_text() for label in intents.get_yticklabels()] == [i.text for i in found.intents[:15]]
    stores = next(line for line in horizon.get_lines() if line.get_marker() == "s")
    assert stores.get_ydata().tolist() == [1.0, 1.0]
    assert stores.get_label() == "q, annotated store: 1/(1-gbar) 2"
    # an E-step of one update after one of warm-up, then an M-step of one, and again
    assert stores.get_xdata().tolist() == [float(piece.steps[-1]) + 1 for piece in e_steps(read.curves)]


def test_a_thought_with_dollars_can_be_drawn(run: Path) -> None:
    from dataclasses import replace

    from ra3kit.reports.run_thoughts import read_thoughts

    read = read_run(run)
    found = read_thoughts(read, 0)
    assert found.intents is not None
    odd = [replace(found.intents[0], text=r"# $\frac{$ 日本")]
    draw_thoughts(Path("x.png"), replace(found, intents=odd), read.curves, 0.5)
    assert Path("x.png").stat().st_size > 10_000


def test_reports_of_other_runs_need_no_torch() -> None:
    code = "import sys, ra3kit.reports.several, ra3kit.cli.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_text_of_a_thought_cannot_act_on_a_terminal() -> None:
    tokenizer = policy().tokenizer
    (ids,) = encode_texts(tokenizer, ["# a\x1b[2Jb\n"])
    assert texts_of(tokenizer, [NONE_YET, tuple(ids)]) == {tuple(ids): "# a\ufffd[2Jb"}
