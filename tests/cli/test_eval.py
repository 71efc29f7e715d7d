"""`ra3kit eval`: samples and judges into a new folder, judges samples of others, resumes, and overwrites nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ra3kit.cli import main
from ra3kit.cli.eval import _ks
from ra3kit.errors import ModelError, RA3Error, RecipeError, RunError
from ra3kit.evaluation import sampling
from ra3kit.evaluation.benchmarks import load
from ra3kit.testing.models import tiny_model, tiny_tokenizer

SMALL = ["limit=4", "max_new_tokens=16"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was finished: its model stands in model/."""
    folder = tmp_path_factory.mktemp("run")
    tiny_model(scale=4.0, max_position_embeddings=1024).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["eval", *arguments]) == 2
    return capsys.readouterr().err


def lines_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return sorted(rows, key=lambda row: (row["task_id"], row["sample"]))


def test_an_evaluation_says_what_it_does_and_leaves_its_files(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["n=2", "temperature=1", "k=1,2", "seed=3", *SMALL]
    assert main(["eval", "--model", str(run_folder), "--benchmark", "ra3kit", *settings]) == 0
    out = capsys.readouterr().out
    assert f"model       {run_folder}\n" in out
    assert "benchmark   ra3kit, 4 tasks (ra3kit)\n" in out
    assert "samples     2 of each task, temperature 1, top_p 1.0, seed 3, style complete\n" in out
    assert re.search(r"prompts     begin with '<\|endoftext\|>' '", out)
    assert re.search(r"^pass@1 +\d+\.\d% \[", out, re.MULTILINE)
    assert re.search(r"^pass@2 +\d+\.\d% \[", out, re.MULTILINE)
    folder = Path("runs/eval/ra3kit/001")
    assert out.splitlines()[-2:] == [f"results     {folder}", f"next        ra3kit compare OTHER {folder}"]
    results = json.loads((folder / "results.json").read_text())
    assert (results["n"], results["k"], results["tasks"], results["model"]) == (2, [1, 2], 4, str(run_folder))
    assert results["settings"]["sampling"]["seed"] == 3
    assert results["settings"]["stops"].keys() == {"function"}
    assert set(results["settings"]["versions"]) >= {"python", "torch", "transformers", "ra3kit"}
    assert len(lines_of(folder)) == 8
    assert (folder / "card.md").read_text().startswith(f"# {run_folder} on ra3kit")
    assert main(["eval", "--model", str(run_folder), "--benchmark", "ra3kit", *settings]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next        ra3kit compare {folder} runs/eval/ra3kit/002"
    assert lines_of(folder) == lines_of(Path("runs/eval/ra3kit/002"))  # the same settings give the same samples


def test_reference_solutions_of_the_kit_pass_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    problems = load("ra3kit").problems
    rows = [{"task_id": p.id, "solution": text} for p in problems for text in (p.solution, p.prompt)]
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["eval", "--from", "s.jsonl", "--benchmark", "ra3kit", "k=1,2", "--out", "scored"]) == 0
    out = capsys.readouterr().out
    assert "samples     s.jsonl: " in out
    results = json.loads(Path("scored/results.json").read_text())
    assert set(map(tuple, results["outcomes"].values())) == {("pass", "fail")}
    assert results["scores"]["pass@1"]["value"] == 0.5
    assert results["scores"]["pass@2"]["value"] == 1.0
    assert results["model"] == "samples of s.jsonl"
    assert len(Path("scored/samples.jsonl").read_text().splitlines()) == 2 * len(problems)


def test_judging_again_keeps_what_is_known_of_the_samples(run_folder: Path) -> None:
    settings = ["n=2", "temperature=1", "seed=3", *SMALL]
    assert main(["eval", "--model", str(run_folder), "--benchmark", "ra3kit", *settings, "--out", "first"]) == 0
    for source in ("first", "first/samples.jsonl"):
        out = "again-" + Path(source).name
        assert main(["eval", "--from", source, "--benchmark", "ra3kit", "limit=4", "--out", out]) == 0
        first, again = (json.loads(Path(folder, "results.json").read_text()) for folder in ("first", out))
        assert again["outcomes"] == first["outcomes"]
        assert again["model"] == first["model"] == str(run_folder)
        for key in ("stops", "dtype", "extraction"):
            assert again["settings"][key] == first["settings"][key]
        assert again["settings"]["sampling"].items() <= first["settings"]["sampling"].items()


def test_an_interrupted_evaluation_goes_on_where_it_was(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["eval", "--model", str(run_folder), "--benchmark", "ra3kit", "n=2", "temperature=1", *SMALL]
    assert main([*command, "--out", "whole"]) == 0
    real = sampling.finished
    calls = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sampling, "finished", interrupted)
    assert main([*command, "--out", "part"]) == 130
    assert "ra3kit eval --resume part" in capsys.readouterr().err
    assert len(lines_of(Path("part"))) == 3
    assert not Path("part/results.json").exists()
    with Path("part/samples.jsonl").open("a") as file:
        file.write('{"task_id": "torn')
    shutil.copytree("part", "other")
    assert main(["eval", "--resume", "part"]) == 0
    assert calls == 4 + 5
    assert lines_of(Path("part")) == lines_of(Path("whole"))
    assert Path("part/results.json").exists()

    assert "sampling.seed=0, and now sampling.seed=1" in error_of(capsys, "--resume", "other", "seed=1")
    assert "is an evaluation of ra3kit" in error_of(capsys, "--resume", "other", "--benchmark", "mbpp")
    assert "is finished" in error_of(capsys, "--resume", "part")
    assert "leave out --from and --out" in error_of(capsys, "--resume", "other", "--out", "x")
    assert "no evaluation to resume" in error_of(capsys, "--resume", "nowhere")
    assert main(["eval", "--resume", "other", "k=1,2", "batch=1", "--benchmark", "ra3kit"]) == 0  # free to change
    assert lines_of(Path("other")) == lines_of(Path("whole"))
    assert json.loads(Path("other/results.json").read_text())["k"] == [1, 2]


def test_an_evaluation_interrupted_while_judging_is_judged_on_resume(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ra3kit.evaluation.score.verify_all", interrupted)
        assert main(["eval", "--model", str(run_folder), "--benchmark", "ra3kit", *SMALL, "--out", "a"]) == 130
    assert "ra3kit eval --resume a" in capsys.readouterr().err
    before = lines_of(Path("a"))
    monkeypatch.setattr(sampling, "finished", interrupted)  # nothing is drawn again
    assert main(["eval", "--resume", "a"]) == 0
    assert lines_of(Path("a")) == before


def test_other_weights_are_not_resumed_into(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run_folder, "model-run")
    assert main(["eval", "--model", "model-run", "--benchmark", "ra3kit", *SMALL, "--out", "a"]) == 0
    Path("a/results.json").unlink()
    tiny_model(scale=4.0, seed=9, max_position_embeddings=1024).save_pretrained("model-run/model")
    assert "drawn with weights=" in error_of(capsys, "--resume", "a")


def test_nothing_is_overwritten(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    Path("s.jsonl").write_text(json.dumps({"task_id": "RA3/seats_left", "solution": "x"}) + "\n")
    model = ["--model", str(run_folder), "--benchmark", "ra3kit"]
    assert "Nothing is overwritten" in error_of(capsys, *model, "--out", "out")
    assert "Nothing is overwritten" in error_of(capsys, *model, "--out", "s.jsonl")
    assert "Nothing is overwritten" in error_of(capsys, "--from", "s.jsonl", "--benchmark", "ra3kit", "--out", "out")
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--model", "m"], RecipeError, "--benchmark is missing"),
        (["--benchmark", "ra3kit"], RecipeError, "give one of --model"),
        (["--benchmark", "ra3kit", "--model", "m", "--from", "s"], RecipeError, "give one of --model"),
        (["--benchmark", "humanevl", "--model", "m"], RecipeError, "Did you mean 'humaneval'"),
        (["--benchmark", "ra3kit", "--model", "m", "temprature=1"], RecipeError, "Did you mean 'temperature'"),
        (["--benchmark", "ra3kit", "--model", "m", "start=2024"], RecipeError, "start: no such setting"),
        (["--benchmark", "ra3kit", "--model", "m", "k=5", "n=2", "temperature=1"], RecipeError, "k=5 .* n=2"),
        (["--benchmark", "ra3kit", "--model", "m", "k=one"], RecipeError, "k='one'"),
        (["--benchmark", "ra3kit", "--model", "m", "limit=0"], RecipeError, "limit=0"),
        (["--benchmark", "ra3kit", "--model", "m", "isolation=nne"], RecipeError, "Did you mean 'none'"),
        (["--benchmark", "ra3kit", "--model", "./m"], ModelError, "no such folder"),
        (["--benchmark", "ra3kit", "--from", "s.jsonl", "n=3"], RecipeError, "n: --from samples nothing"),
        (["--benchmark", "ra3kit", "--from", "s.jsonl", "missing=zero"], RecipeError, "missing='zero'"),
        (["--benchmark", "ra3kit", "--from", "s.jsonl"], RunError, "tasks have no sample"),
        (["--benchmark", "ra3kit", "--from", "s.jsonl", "k=2", "missing=skip"], RecipeError, "k=2 .* n=1"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(arguments: list[str], error: type[RA3Error], message: str) -> None:
    Path("s.jsonl").write_text(json.dumps({"task_id": "RA3/seats_left", "solution": "x"}) + "\n")
    with pytest.raises(error, match=message):
        main(["eval", *arguments, "--debug"])
    assert not Path("runs").exists()


def test_a_prompt_that_is_too_long_makes_no_folder(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(run_folder), "--benchmark", "ra3kit", "limit=2"]
    assert "too_long=empty" in error_of(capsys, *model, "max_new_tokens=1020")
    assert not Path("runs").exists()
    assert main(["eval", *model, "max_new_tokens=1020", "too_long=empty"]) == 0
    assert "2 prompts were too long and got no answer" in capsys.readouterr().out


def test_records_of_the_benchmark_that_were_left_out_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    good = {"task_id": 11, "text": "One.", "code": "def f():\n  return 1\n", "test_list": ["assert f() == 1"]}
    Path("m.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({**good, "task_id": 12, "test_list": []}) + "\n")
    Path("s.jsonl").write_text(json.dumps({"task_id": 11, "completion": "def f():\n  return 1\n"}) + "\n")
    assert main(["eval", "--from", "s.jsonl", "--benchmark", "mbpp", "path=m.jsonl"]) == 0
    assert "1 records of the benchmark were left out: m.jsonl:2: test_list is empty" in capsys.readouterr().out
    results = json.loads(Path("runs/eval/mbpp/001/results.json").read_text())
    assert results["outcomes"] == {"Mbpp/11": ["pass"]}
    assert results["notes"][0].startswith("1 records of the benchmark")


def test_k_as_people_write_it() -> None:
    assert [_ks(value) for value in (3, "1,5", "1, 5", [1, 10])] == [[3], [1, 5], [1, 5], [1, 10]]


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = "import sys; from ra3kit.cli import main\ntry: main(['eval', '--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--benchmark" in done.stdout
