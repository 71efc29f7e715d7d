"""Files with thoughts: complete and exact, the gains those of `thought_gains`, the same draws every time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import AWKWARD
from small_run import DATA, POSTERIOR, ntp, recipe, run_folder

from ra3kit.abstraction.em import RA3Module, derive_seed
from ra3kit.abstraction.evaluate import thought_gains
from ra3kit.abstraction.posterior import ResampledPosterior
from ra3kit.annotate import AnnotatedFile, Writer, annotate, as_json, body, cut, load_writer, summary
from ra3kit.cli import main
from ra3kit.cli.annotate import coloured
from ra3kit.data.comments import parse, strip_comments
from ra3kit.data.snippets import Corpus
from ra3kit.errors import DataError
from ra3kit.policy import score
from ra3kit.render import code_lines, thought_line
from ra3kit.rollout import line_logps
from ra3kit.sources import find_source
from ra3kit.testing.models import CORPUS

LONG = 'table = ["' + "x y z, " * 80 + '"]\n'
CODE = CORPUS + "\n\n" + LONG + "\n\ndef last(items):\n    # from the end\n    return items[-1]\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "001"
    run_folder(folder, recipe(control=False))
    return folder


@pytest.fixture(scope="module")
def writer(run: Path) -> Writer:
    return load_writer(find_source(str(run)))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "code.py"
    path.write_text(CODE)
    return path


def without_thoughts(printed: str) -> str:
    """The code of a printed file, by the rule that the documentation gives."""
    lines = printed.split("\n")
    assert lines.pop() == ""
    assert all(line[:2] in ("  ", "> ", "~ ") for line in lines)
    return "".join(f"{line[2:]}\n" for line in lines if not line.startswith("> "))


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comments", ["keep", "strip"])
def test_without_its_thoughts_the_printed_file_is_the_file(writer: Writer, code: Path, comments: Any) -> None:
    found = annotate(writer, cut(writer, code, comments))
    printed = body(found.draws[0])
    assert sum(line.startswith("> ") for line in printed.split("\n")) > 5
    assert without_thoughts(printed) == (CODE if comments == "keep" else strip_comments(CODE))
    assert found.removed == ("comments" if comments == "strip" else "")
    left_out = [line.text for line in found.draws[0] if line.snippet is None]
    assert LONG.strip() in "".join(left_out)
    assert f"~ {LONG}" in printed
    assert sum(found.left_out.values()) == len(left_out)
    assert found.left_out["long line"] == 1


@pytest.mark.parametrize("name", sorted(name for name, text in AWKWARD.items() if parse(text) and text.strip()))
def test_awkward_files_are_printed_exactly(writer: Writer, tmp_path: Path, name: str) -> None:
    text = "first = 1\nsecond = 2\n" + ("" if name == "byte-order mark" else AWKWARD[name])
    if parse(text) is None:
        pytest.skip("does not parse behind another line")
    path = tmp_path / "a.py"
    path.write_bytes(text.encode())
    lines = annotate(writer, cut(writer, path, "keep")).draws[0]
    assert "".join(line.text for line in lines) == text
    if not re.search(r"\r(?!\n)", text):  # no way to print lines between the lines of such a file
        assert without_thoughts(body(lines)) == (text if text.endswith("\n") else f"{text}\n")


def test_lines_have_the_numbers_of_an_editor(writer: Writer, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"a = 1\r\n\r\nb = (2,\n  3)\nc = 4")
    lines = annotate(writer, cut(writer, path)).draws[0]
    assert [(line.number, line.text) for line in lines] == [
        (1, "a = 1\r\n\r\n"),
        (3, "b = (2,\n"),
        (4, "  3)\n"),
        (5, "c = 4"),
    ]
    assert [line.may_think for line in lines] == [True, True, False, True]


# --- what thoughts are worth -----------------------------------------------------------------------------------------


def test_thoughts_and_gains_are_those_of_q_and_pi(run: Path, writer: Writer, code: Path) -> None:
    """Against the corpus, the posterior and thought_gains, used as a run uses them."""
    found = annotate(writer, cut(writer, code), seed=5, draws=2)
    settings = {name: value for name, value in DATA.items() if name != "class_path"}
    corpus = Corpus(str(code), comments="strip", **settings)
    expert = [snippet.trajectory for snippet in corpus.snippets(writer.policy.tokenizer)]
    q = writer.q
    for draw in range(2):
        drawn = q.annotate(expert, writer.policy, derive_seed(5, "annotate a file", draw))
        gains = thought_gains(writer.policy.model, drawn)
        lines = [line for line in found.draws[draw] if line.snippet is not None]
        thoughts = [line.thought for line in lines if line.thought is not None]
        assert len(thoughts) == len(gains) > 5
        for thought, gain in zip(thoughts, gains, strict=True):
            ids = drawn[gain.snippet].thought_ids(gain.line)
            assert thought.text + "\n" == writer.policy.tokenizer.decode(ids)
            assert thought.tokens == len(ids)
            assert thought.gain.nats == pytest.approx(gain.nats, abs=1e-4)
        # each line's log-likelihoods, from scoring whole trajectories with and without the thought that covers it
        at = 0
        for t in drawn:
            starts = np.flatnonzero(t.has_thought()).tolist()
            full = line_logps(t, score(writer.policy.model, [t])[0])
            for i in range(len(t.lines)):
                cover = max((s for s in starts if s <= i), default=None)
                other = t.weave({s: t.thought_ids(s) for s in starts if s != cover})
                without = line_logps(other, score(writer.policy.model, [other])[0])[i]
                assert lines[at].logp == pytest.approx(full[i], abs=1e-4)
                assert lines[at].logp_without == pytest.approx(without, abs=1e-4)
                at += 1
    assert [line.thought for line in found.draws[0]] != [line.thought for line in found.draws[1]]


def test_the_summary_counts(writer: Writer, code: Path) -> None:
    lines = annotate(writer, cut(writer, code)).draws[0]
    thoughts = [line.thought for line in lines if line.thought]
    total = summary(lines)
    assert total["thoughts"] == len(thoughts)
    assert total["places"] == sum(line.may_think for line in lines)
    assert total["gain_per_thought"] == pytest.approx(np.mean([t.gain.nats for t in thoughts]))
    assert total["gain_positive"] == np.mean([t.gain.nats > 0 for t in thoughts])
    assert total["thought_length"] == np.mean([t.tokens for t in thoughts])
    assert summary([])["thought_rate"] == 0.0


def test_draws_depend_on_seed_and_name_alone(run: Path, writer: Writer, code: Path, tmp_path: Path) -> None:
    def thoughts(file: AnnotatedFile) -> list[str | None]:
        return [line.thought.text if line.thought else None for line in file.draws[0]]

    first = thoughts(annotate(writer, cut(writer, code)))
    again = load_writer(find_source(str(run)))
    (tmp_path / "there").mkdir()
    other = tmp_path / "there" / "code.py"
    other.write_text(CODE)
    annotate(again, cut(again, code), seed=9)
    assert thoughts(annotate(again, cut(again, other))) == first
    assert thoughts(annotate(again, cut(again, other), seed=1)) != first
    renamed = other.rename(tmp_path / "there" / "mode.py")
    assert thoughts(annotate(again, cut(again, renamed))) != first


# --- who writes ------------------------------------------------------------------------------------------------------


def test_q_writes_where_there_is_one_and_pi_when_asked(run: Path, writer: Writer, code: Path) -> None:
    assert (writer.who, type(writer.q).__name__) == ("q", "CausalPosterior")
    assert not any(
        (a == b).all() for a, b in zip(writer.q.model.parameters(), writer.policy.model.parameters(), strict=True)
    )
    pi = load_writer(find_source(str(run)), who="pi")
    assert pi.who == "pi"
    assert pi.q.model is pi.policy.model
    assert pi.q.rules == writer.q.rules
    a, b = (as_json(annotate(w, cut(w, code)))["draws"][0]["lines"] for w in (writer, pi))
    assert [row["thought"] for row in a] != [row["thought"] for row in b]


def test_best_of_k_is_used_where_the_run_has_it(tmp_path: Path, code: Path) -> None:
    resampled = POSTERIOR | {"class_path": "ra3kit.abstraction.posterior.ResampledPosterior", "k": 4}
    run_folder(tmp_path / "r", recipe(posterior=resampled, control=False))
    writer = load_writer(find_source(str(tmp_path / "r")))
    assert isinstance(writer.q, ResampledPosterior)
    lines = [line for line in annotate(writer, cut(writer, code)).draws[0] if line.snippet]
    corpus = Corpus(str(code), comments="strip", max_tokens=90, max_lines=8)
    expert = [snippet.trajectory for snippet in corpus.snippets(writer.policy.tokenizer)]
    drawn = writer.q.annotate(expert, writer.policy, derive_seed(0, "annotate a file", 0))
    shown = [line.thought is not None for line in lines]
    assert shown == np.concatenate([t.has_thought() for t in drawn]).tolist()


def test_a_model_folder_writes_by_the_rules_of_its_run(run: Path, tmp_path: Path, code: Path) -> None:
    module = run_folder(tmp_path / "done", recipe(control=False))
    assert isinstance(module, RA3Module)
    module.policy.save(tmp_path / "done" / "model")
    checkpoint = next((tmp_path / "done" / "checkpoints").iterdir())
    from_checkpoint = load_writer(find_source(str(checkpoint)), who="pi")
    folder = load_writer(find_source(str(tmp_path / "done" / "model")))
    assert folder.q.rules == from_checkpoint.q.rules
    assert folder.corpus.max_tokens == 90
    a, b = (as_json(annotate(w, cut(w, code)))["draws"] for w in (from_checkpoint, folder))
    assert a == b
    checkpoint.rename(tmp_path / "gone")
    fallen_back = load_writer(find_source(str(tmp_path / "done")))
    assert fallen_back.who == "pi"
    assert "pi itself writes" in fallen_back.notes[0]


def test_a_run_of_next_token_prediction_has_no_q(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "n", ntp())
    assert load_writer(find_source(str(tmp_path / "n"))).who == "pi"
    (tmp_path / "a.py").write_text("x = 1\ny = 2\n")
    assert main(["annotate", str(tmp_path / "n"), str(tmp_path / "a.py"), "--who", "q"]) == 2
    assert "has no q" in capsys.readouterr().err


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_file_and_what_it_adds_up_to(
    run: Path, code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main(["annotate", str(run), str(code), "--samples", "2", "--json", str(out)]) == 0
    shown = capsys.readouterr()
    assert "\033" not in shown.out
    head, *parts = shown.out.split("\nfile        ")
    assert head.startswith("thoughts by CausalPosterior q of ")
    assert len(parts) == 2
    saved = json.loads(out.read_text())["files"][0]
    for part, draw in zip(parts, saved["draws"], strict=True):
        title, _, rest = part.partition("\n")
        assert title.startswith(f"{code}, without its comments, draw ")
        printed = "".join(line + "\n" for line in rest.split("\n") if line[:2] in ("  ", "> ", "~ "))
        assert without_thoughts(printed) == strip_comments(CODE) == "".join(row["text"] for row in draw["lines"])
        assert f"thoughts    {draw['summary']['thoughts']} before {draw['summary']['places']} lines" in rest
        assert "left out    " in rest
        for row in draw["lines"]:
            if row["thought"] is not None:
                assert f"[{row['gain']:+.2f} nats, {row['gain_per_token']:+.3f} a token]" in rest
    assert shown.out.splitlines()[-1] == f"next        ra3kit annotate {run} {code} --who pi"
    assert main(["annotate", str(run), str(code), "--json", str(out)]) == 2
    assert "Nothing is overwritten" in capsys.readouterr().err
    assert main(["annotate", str(run), str(code), "--samples", "2", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0] == saved


def test_colours_are_for_terminals(run: Path, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal:
        def __init__(self, yes: bool) -> None:
            self.isatty = lambda: yes

    table = [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ]
    for wanted, terminal, environ, expected in table:
        assert coloured(wanted, Terminal(terminal), environ) is expected  # type: ignore[arg-type]
    assert main(["annotate", str(run), str(code), "--color", "always"]) == 0
    out = capsys.readouterr().out
    plain = re.sub(r"\033\[[\d;]*m", "", out)
    assert plain != out
    assert main(["annotate", str(run), str(code)]) == 0
    assert capsys.readouterr().out == plain


def test_a_gain_has_the_colour_of_its_sign_and_size() -> None:
    shown = [thought_line("# a", nats, colour=True) for nats in (2.0, 0.5, 0.0, -0.5, -2.0)]
    colours = [line.split("\033[")[3].split("m")[0] for line in shown]
    assert colours == ["1;32", "32", "2", "31", "1;31"]
    assert thought_line("# a\033[2J\x9b\n", None) == "> # a\ufffd[2J\ufffd"
    assert code_lines("a\n\n", "~ ", colour=True).count("\033[2m~ ") == 2


def test_what_cannot_be_annotated_is_named(
    run: Path, writer: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, tuple[bytes, str]] = {
        "binary.py": (b"x = 1\0\n", "1 binary"),
        "latin.py": ("x = 'é'\n".encode("latin-1"), "undecodable.*Save the files as UTF-8"),
        "broken.py": (b"def f(:\n    pass\n", "unparsable"),
        "comments.py": (b"# one\n# two\n", "only comments.*comments=keep"),
        "empty.py": (b"\n", "1 empty"),
        "long.py": (LONG.encode() * 2, "2 long line"),
        "notes.txt": (b"x = 1\ny = 2\n", "a name that ends in .py"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*{words}"):
            cut(writer, tmp_path / name)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "file").write_text("")
    for name, words in {"folder.py": "a Python file is needed", "gone.py": "there is no such file"}.items():
        assert main(["annotate", str(run), str(tmp_path / name)]) == 2, name
        assert f"{name}: {words}" in capsys.readouterr().err
    (tmp_path / "good.py").write_text("x = 1\ny = 2\n")
    for model, word in {
        "gone/run": "cannot be loaded",
        "./gone": "no such folder",
        str(tmp_path / "file"): "this is a file",
        str(tmp_path / "folder.py"): "no whole checkpoint is there.*Nor is there a model/",
    }.items():
        assert main(["annotate", model, str(tmp_path / "good.py")]) == 2
        assert re.search(word, capsys.readouterr().err)
    for option in (["--samples", "0"], ["--seed", "-1"], ["--device", "abacus"]):
        assert main(["annotate", str(run), str(tmp_path / "good.py"), *option]) == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_process_with_its_output_in_a_pipe(run: Path, code: Path) -> None:
    command = [sys.executable, "-m", "ra3kit.cli", "annotate", str(run), str(code), "--json", "-"]
    environ = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True)
    again = load_writer(find_source(str(run)))
    assert json.loads(done.stdout)["files"][0] == json.loads(json.dumps(as_json(annotate(again, cut(again, code)))))
