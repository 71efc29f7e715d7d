"""Sampling: the same draws whatever the batch, a file that can be resumed at any byte, settings that never mix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ra3kit.errors import DataError, ModelError, RecipeError, RunError
from ra3kit.evaluation import sampling as module
from ra3kit.evaluation.prompts import STOPS, cut
from ra3kit.evaluation.sampling import Sampling, begin, finished, kept_samples, load_model, model_folder, sample
from ra3kit.rollout import attention
from ra3kit.testing.models import tiny_model, tiny_tokenizer
from ra3kit.verify.problem import Asserts, Problem

PROBLEMS = [
    Problem(f"t/{i}", Asserts(""), prompt=f"def f{i}(x):\n", meta={"form": "function", "entry_point": f"f{i}"})
    for i in range(3)
] + [Problem("t/p", Asserts(""), prompt='"""\nAdd.\n"""\n', meta={"form": "program"})]
DRAW = Sampling(n=3, temperature=1.0, max_new_tokens=12, seed=4)
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(scale=8.0).requires_grad_(False)


def draw(model: Any, settings: Sampling = DRAW, folder: Path | None = None, problems: Any = PROBLEMS) -> Any:
    return sample(model, TOKENIZER, problems, settings, folder, progress=False)


def test_draws_depend_on_seed_task_and_number_alone(model: Any) -> None:
    expected = draw(model)
    assert list(expected) == [problem.id for problem in PROBLEMS]
    assert draw(model, replace(DRAW, batch=1)) == expected
    assert draw(model, problems=PROBLEMS[::-1]) == expected
    assert draw(model, problems=PROBLEMS[1:2]) == {"t/1": expected["t/1"]}
    assert draw(model, replace(DRAW, n=1))["t/2"] == expected["t/2"][:1]
    assert draw(model, replace(DRAW, seed=5)) != expected
    texts = [row.raw for rows in expected.values() for row in rows]
    assert len(set(texts)) == len(texts)


def test_a_sample_is_what_was_drawn_cut_and_joined(model: Any) -> None:
    for problem in PROBLEMS:
        for row in draw(model, replace(DRAW, n=8, max_new_tokens=30))[problem.id]:
            assert row.completion == cut(row.raw, STOPS[problem.meta["form"]])
            assert row.solution == problem.prompt + row.completion
            assert (row.finish == "stop") == (row.completion != row.raw)


def test_both_engines_agree_on_greedy_answers(model: Any) -> None:
    reference = tiny_model(scale=8.0, implementation="sdpa").requires_grad_(False)
    greedy = Sampling(max_new_tokens=20)
    ours = draw(model, greedy)
    theirs = draw(reference, replace(greedy, engine="generate"))
    assert theirs == ours
    assert len({row.raw for rows in ours.values() for row in rows}) > 1


def test_generate_draws_are_fixed_by_seed_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    reference = tiny_model(scale=8.0, implementation="sdpa").requires_grad_(False)
    settings = replace(DRAW, engine="generate", batch=2)
    torch.manual_seed(1)
    expected = draw(reference, settings)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    assert draw(reference, settings) == expected
    assert draw(reference, settings, problems=PROBLEMS[2:3])["t/2"] == expected["t/2"]
    assert draw(reference, replace(settings, seed=9)) != expected
    lines = [expected["t/0"][2].line(), expected["t/1"][0].line()]
    (tmp_path / "samples.jsonl").write_text("".join(lines))
    assert draw(reference, settings, tmp_path) == expected  # what is left over of a group is drawn as before


def test_an_answer_ends_with_the_end_token_or_the_stop_list() -> None:
    def made(text: str, finish: Any, settings: Sampling = DRAW) -> tuple[str | None, str | None, str | None]:
        ids = TOKENIZER.encode(text) + ([TOKENIZER.eos_token_id] if finish == "end" else [])
        row = finished(PROBLEMS[0], 0, ids, finish, TOKENIZER, settings)
        return row.raw, row.completion, row.finish

    body = "# think\n    return x\n# think again\n"
    assert made(body, "end") == (body, body, "end")
    assert made(body + "def", "length") == (body + "def", body + "def", "length")
    assert made(body + "def g(", "length") == (body + "def g(", body[:-1], "stop")
    assert made(body + "    retu", "length", replace(DRAW, trim=True)) == (body + "    retu", body, "length")
    assert made("    retu", "end", replace(DRAW, trim=True))[1] == "    retu"  # only what the limit cut


@pytest.mark.parametrize("cut_at", [0.0, 0.35, 0.71, 0.999, 1.0])
def test_a_run_killed_at_any_byte_goes_on_to_the_same_samples(model: Any, tmp_path: Path, cut_at: float) -> None:
    expected = draw(model)
    draw(model, folder=tmp_path)
    path = tmp_path / "samples.jsonl"
    data = path.read_bytes()
    assert data.count(b"\n") == 12
    path.write_bytes(data[: int(len(data) * cut_at)])
    assert draw(model, folder=tmp_path) == expected
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({(line["task_id"], line["sample"]) for line in lines}) == len(lines) == 12


def test_samples_that_are_there_are_not_drawn_again(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = draw(model, folder=tmp_path)
    drawn: list[str] = []
    real = module._draw_engine

    def counting(model: Any, tokenizer: Any, wanted: Any, *rest: Any) -> None:
        drawn.extend(f"{problem.id} {number}" for problem, number in wanted)
        real(model, tokenizer, wanted, *rest)

    monkeypatch.setattr(module, "_draw_engine", counting)
    assert draw(model, folder=tmp_path) == expected
    assert drawn == []
    assert draw(model, replace(DRAW, n=4), folder=tmp_path)["t/0"][:3] == expected["t/0"]
    assert sorted(drawn) == ["t/0 3", "t/1 3", "t/2 3", "t/p 3"]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"task_id": "t/0", "solution": "x"}\n{"task_id"\n{"task_id": "t/1", "solution": "x"}\n')
    with pytest.raises(DataError, match=r"samples\.jsonl:2.*delete it"):
        kept_samples(tmp_path)


def test_settings_of_two_kinds_never_mix(tmp_path: Path) -> None:
    identity: dict[str, Any] = {"sampling": {"seed": 0, "n": 2}, "stops": ("a",)}
    begin(tmp_path / "run", identity, {"k": 1})
    begin(tmp_path / "run", identity, {"k": 2})
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["asked"] == {"k": 1}
    with pytest.raises(RunError, match=r"drawn with sampling\.seed=0, and now sampling\.seed=1"):
        begin(tmp_path / "run", {**identity, "sampling": {"seed": 1, "n": 2}})
    with pytest.raises(RunError, match=r"drawn with stops="):
        begin(tmp_path / "run", {**identity, "stops": ("b",)})


def test_the_batch_belongs_to_the_identity_only_where_draws_depend_on_it() -> None:
    assert "batch" not in DRAW.identity()
    assert "batch" in replace(DRAW, engine="generate").identity()


def test_prompts_that_are_too_long(model: Any) -> None:
    long = Problem("t/long", Asserts(""), prompt="x = 1\n" * 300, meta={"form": "module"})
    with pytest.raises(RunError, match=r"1 of 5 prompts.*'t/long' with \d+ tokens.*too_long=empty"):
        draw(model, problems=[*PROBLEMS, long])
    rows = draw(model, replace(DRAW, too_long="empty"), problems=[*PROBLEMS, long])
    assert [(row.completion, row.finish) for row in rows["t/long"]] == [("", "length")] * 3
    assert {name: rows[name] for name in rows if name != "t/long"} == draw(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"n": 2.5}, "n=2.5: must be a whole number"),
        ({"n": True}, "n=True"),
        ({"n": 5}, "n=5 with temperature=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": "hot"}, "temperature='hot': must be a number"),
        ({"top_p": 0}, "top_p=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"style": "chatt"}, "Did you mean 'chat'"),
        ({"engine": "generat"}, "Did you mean 'generate'"),
        ({"too_long": "skip"}, "too_long='skip': allowed are error, empty"),
        ({"trim": "yes"}, "trim='yes': must be true or false"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Sampling(**settings)
    assert message in str(caught.value)


def test_a_model_is_found_in_its_folder_or_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "model"
    tiny_model().save_pretrained(folder)
    assert model_folder(str(folder)) == model_folder(str(tmp_path / "run")) == str(folder)
    assert model_folder("Qwen/Qwen2.5-1.5B") == "Qwen/Qwen2.5-1.5B"
    with pytest.raises(ModelError, match="no model here"):
        model_folder(str(tmp_path))
    with pytest.raises(ModelError, match="no such folder"):
        model_folder(str(tmp_path / "absent"))
    loaded: Any = load_model(str(folder), "ra3kit", "float32", "cpu")
    assert loaded.config._attn_implementation == attention.NAME
    assert not loaded.training
    assert load_model(str(folder), "generate", "bfloat16", "cpu").dtype == torch.bfloat16
    with pytest.raises(ModelError, match="dtype='int8'"):
        load_model(str(folder), "ra3kit", "int8", "cpu")
    with pytest.raises(ModelError, match="device='nowhere'"):
        load_model(str(folder), "ra3kit", "auto", "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder), "ra3kit", "auto", "cpu")


def test_the_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    prints = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"m{len(prints)}"
        tiny_model(seed=seed).save_pretrained(folder)
        prints.append(module.fingerprint(str(folder)))
    assert prints[0] == prints[1] != prints[2]
    assert module.fingerprint("a/hub-id") == ""
