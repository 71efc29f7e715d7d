"""Exported folders: the module's own weights and logits where there is no ra3kit; a card that says what is known."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_run import POLICY, POSTERIOR, ntp, policies, recipe, run_folder
from small_world import CONFIG

from ra3kit import hub, provenance
from ra3kit.checkpoints import weights
from ra3kit.cli import main
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RunError
from ra3kit.export import export, load_policy
from ra3kit.modelcard import STRIP, Facts, front_matter
from ra3kit.models import base_model, merge_adapters
from ra3kit.recipe import load
from ra3kit.render import render
from ra3kit.sources import find_source

TIED = CONFIG | {"tie_word_embeddings": True}
LLAMA = TIED | {"model_type": "llama", "tie_word_embeddings": True}
LORA = {"rank": 3, "alpha": 8}


def policy(**changes: Any) -> dict[str, Any]:
    return {**POLICY, **changes}


RUNS: dict[str, dict[str, Any]] = {
    "ra3": recipe(),
    "tied": ntp(policy(config=TIED)),
    "llama": ntp(policy(config=LLAMA)),
    "lora": ntp(policy(lora=LORA)),
    "tied-lora-head": ntp(policy(config=TIED, lora={**LORA, "targets": ["q_proj", "lm_head"]})),
    "shared": recipe(posterior=POSTERIOR | {"weights": "shared"}, control=False),
}
EXPORTS = {
    "ra3-pi": ("ra3", "pi", "auto"),
    "ra3-q": ("ra3", "q", "auto"),
    "ra3-ntp": ("ra3", "ntp", "auto"),
    "tied": ("tied", "pi", "auto"),
    "llama": ("llama", "pi", "auto"),
    "lora": ("lora", "pi", "auto"),
    "tied-lora-head": ("tied-lora-head", "pi", "auto"),
    "shared-q": ("shared", "q", "auto"),
    "bfloat16": ("tied", "pi", "bfloat16"),
}
IDS = torch.arange(2, 62).reshape(2, 30) * 6
ELSEWHERE = """
import pathlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ra3kit":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

root, out = map(pathlib.Path, sys.argv[1:])
ids = torch.arange(2, 62).reshape(2, 30) * 6
seen = {}
for folder in sorted(root.iterdir()):
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not any(report.values()), report
    with torch.no_grad():
        logits = model(ids).logits
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    seen[folder.name] = {
        "logits": logits,
        "tied": head.data_ptr() == table.data_ptr(),
        "attention": model.config._attn_implementation,
        "ids": tokenizer("def f(x):\\n    return x\\n")["input_ids"],
        "special": [model.generation_config.bos_token_id, model.generation_config.eos_token_id,
                    model.generation_config.pad_token_id],
        "cache": model.config.use_cache,
    }
assert "ra3kit" not in sys.modules
torch.save(seen, out)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("runs")
    return {name: (root / name, run_folder(root / name, tree)) for name, tree in RUNS.items()}


@pytest.fixture(scope="module")
def exported(runs: dict[str, tuple[Path, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    for name, (run, which, dtype) in EXPORTS.items():
        export(find_source(str(runs[run][0])), root / name, which, dtype)  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def elsewhere(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process without ra3kit sees in each folder."""
    out = tmp_path_factory.mktemp("elsewhere") / "seen.pt"
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE, str(exported), str(out)]
    subprocess.run(command, check=True, env=environ, cwd=out.parent)
    return torch.load(out)


def own_logits(module: Any, which: str) -> torch.Tensor:
    """Of the module's model itself, with transformers' attention, adapters beside the weights."""
    parts = policies(module)
    part = copy.deepcopy(parts[0] if len(parts) == 1 else parts[("pi", "q", "ntp").index(which)])
    base_model(part).set_attn_implementation("sdpa")
    with torch.no_grad():
        return part.eval()(IDS).logits  # type: ignore[no-any-return]


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTS)
def test_it_loads_without_ra3kit_to_the_same_logits(
    runs: dict[str, tuple[Path, Any]], elsewhere: dict[str, Any], name: str
) -> None:
    run, which, dtype = EXPORTS[name]
    module, seen = runs[run][1], elsewhere[name]
    expected = own_logits(module, which)
    if dtype == "bfloat16":
        assert seen["logits"].dtype == torch.bfloat16
        rounded = copy.deepcopy(base_model(module.model))
        for parameter in rounded.parameters():  # not the buffers: loading leaves rotations in float32
            parameter.data = parameter.data.to(torch.bfloat16)
        rounded.set_attn_implementation("sdpa")
        with torch.no_grad():
            assert torch.equal(seen["logits"], rounded(IDS).logits)
    elif "lora" in name:  # merged: one product instead of two
        assert torch.allclose(seen["logits"], expected, atol=2e-5)
        module_base = copy.deepcopy(module.model)
        with module_base.disable_adapter(), torch.no_grad():
            assert not torch.allclose(module_base(IDS).logits, expected, atol=1e-2)
    else:
        assert torch.equal(seen["logits"], expected)
    assert seen["attention"] == "sdpa"
    assert seen["tied"] == (name in ("tied", "llama", "bfloat16"))
    tokenizer = module.tokenizer
    assert seen["ids"] == tokenizer("def f(x):\n    return x\n")["input_ids"]
    assert seen["special"] == [tokenizer.eos_token_id] * 3  # no start token of its own, as in Qwen2
    assert seen["cache"] is True


def test_pi_q_and_the_control_are_three_models(elsewhere: dict[str, Any]) -> None:
    pi, q, control = (elsewhere[f"ra3-{which}"]["logits"] for which in ("pi", "q", "ntp"))
    assert not torch.allclose(pi, q)
    assert not torch.allclose(pi, control)


def test_tied_weights_are_stored_once_and_nothing_of_the_kit_is_left(exported: Path) -> None:
    assert "lm_head.weight" not in load_file(exported / "tied" / "model.safetensors")
    assert "lm_head.weight" in load_file(exported / "ra3-pi" / "model.safetensors")
    assert "lm_head.weight" in load_file(exported / "tied-lora-head" / "model.safetensors")
    for path in exported.glob("*/*.json"):
        text = path.read_text()
        assert '"ra3"' not in text, path
        assert "/runs" not in text, path
        assert "lora" not in text, path


def test_policy_save_merges_an_adapted_tied_head_too(runs: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    module = runs["tied-lora-head"][1]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.save(tmp_path / "saved")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    merged = merge_adapters(copy.deepcopy(module.model))
    there = load_file(tmp_path / "saved" / "model.safetensors")
    assert torch.equal(there["lm_head.weight"], merged.lm_head.weight)
    assert torch.equal(there["model.embed_tokens.weight"], module.model.get_base_model().model.embed_tokens.weight)


def test_shards_are_at_most_as_large_as_asked(runs: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    done = export(find_source(str(runs["tied"][0])), tmp_path / "out", max_shard_size="60KB")
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    assert all(path.stat().st_size < 62_000 for path in files)
    assert sorted(done.weights) == [path.name for path in files]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(done.weights)
    for size in ("5", "GB", "-1GB", "0GB", "5 GB"):
        with pytest.raises(RunError, match="a size is needed"):
            export(find_source(str(runs["tied"][0])), tmp_path / "other", max_shard_size=size)


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_is_exported_by_one_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(yaml.safe_dump(ntp(policy(config=TIED))))
    worker = Path(__file__).parent / "distributed" / "save_shards.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(run)], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr[-3000:]
    shards = list(run.glob("checkpoints/*/weights/*.distcp"))
    assert len(shards) == 2
    export(find_source(str(run)), tmp_path / "out")
    there, gathered = load_file(tmp_path / "out" / "model.safetensors"), torch.load(run / "gathered.pt")
    assert there.keys() == gathered.keys()
    assert all(torch.equal(there[name], gathered[name]) for name in there)


def test_special_tokens_of_a_tokenizer_with_a_start_token(tmp_path: Path) -> None:
    from ra3kit.export import set_special_tokens
    from ra3kit.testing.models import tiny_model, tiny_tokenizer

    model, tokenizer = tiny_model(model_type="llama"), tiny_tokenizer("llama3")
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [7, tokenizer.eos_token_id]
    model.generation_config.top_k, model.generation_config.do_sample = 11, True
    set_special_tokens(model, tokenizer)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert (saved["bos_token_id"], saved["pad_token_id"]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert saved["eos_token_id"] == [tokenizer.eos_token_id, 7]
    assert saved["top_k"] == 11
    assert "_from_model_config" not in saved
    config = json.loads((tmp_path / "config.json").read_text())
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [1, 0, 0]
    model.generation_config.do_sample = False  # top_k makes no sense then, and could not be saved
    set_special_tokens(model, tokenizer)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved["bos_token_id"] == tokenizer.bos_token_id
    assert "top_k" not in saved


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_named(
    runs: dict[str, tuple[Path, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tied, shared = str(runs["tied"][0]), str(runs["shared"][0])
    module = run_folder(tmp_path / "done", RUNS["tied"])
    module.save(tmp_path / "done" / "model")  # type: ignore[operator]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "busy.part").mkdir()
    cases = {
        (tied, "--which", "q"): "next-token prediction alone",
        (tied, "--which", "ntp"): "next-token prediction alone",
        (shared, "--which", "ntp"): "trains no NTP control",
        (str(tmp_path / "done" / "model"),): "a Hugging Face model already",
        (str(tmp_path / "gone"),): "no such folder",
        (tied, "--private"): "--private is about --push",
    }
    for arguments, words in cases.items():
        assert main(["export", arguments[0], str(tmp_path / "new"), *arguments[1:]]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
    for name, words in {
        "full": "not an empty folder",
        "full/mine.txt": "not an empty folder",
        "busy": "interrupted",
    }.items():
        assert main(["export", tied, str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    recipe_file = runs["tied"][0] / "recipe.yaml"
    other = ntp(policy(config={**TIED, "num_hidden_layers": 3}))
    shutil.copytree(runs["tied"][0], tmp_path / "other")
    (tmp_path / "other" / "recipe.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(RunError, match="the weights do not fit"):
        load_policy(find_source(str(tmp_path / "other")), load(str(tmp_path / "other" / "recipe.yaml")), "pi")
    assert recipe_file.is_file()


@pytest.mark.parametrize(
    "failure", [SafetensorError("No space left on device"), OSError(28, "No space"), KeyboardInterrupt()]
)
def test_an_export_that_fails_leaves_nothing(
    runs: dict[str, tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("ra3kit.export.model_card", fails)
    expected = RunError if isinstance(failure, SafetensorError) else type(failure)
    with pytest.raises(expected):
        export(find_source(str(runs["tied"][0])), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "out").mkdir()  # an empty one is as good as none
    export(find_source(str(runs["tied"][0])), tmp_path / "out")
    assert (tmp_path / "out" / "README.md").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_without_checkpoints_gives_the_models_it_left(runs: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    run, module = tmp_path / "run", runs["ra3"][1]
    run.mkdir()
    shutil.copy(runs["ra3"][0] / "recipe.yaml", run)
    module.policy.save(run / "model")
    module.control.save(run / "model-ntp")
    for which, of in (("pi", module.policy), ("ntp", module.control)):
        export(find_source(str(run)), tmp_path / which, which)  # type: ignore[arg-type]
        there = load_file(tmp_path / which / "model.safetensors")
        assert all(torch.equal(there[name], value) for name, value in of.model.state_dict().items())
    with pytest.raises(RunError, match="q's weights are only there"):
        export(find_source(str(run)), tmp_path / "q", "q")


# --- the card --------------------------------------------------------------------------------------------------------


def scores(ce: float, rate: float) -> dict[str, float]:
    names = ("plain_ce", "own_latents_ce", "iwae_ce", "thought_rate", "thought_length", "lines_per_thought")
    return dict(zip(names, (ce + 0.02, ce + 0.01, ce, rate, 6.5, 4.0), strict=True))


@pytest.fixture
def told(runs: dict[str, tuple[Path, Any]], tmp_path: Path) -> Path:
    """A run that has written down all there is."""
    run = tmp_path / "told"
    shutil.copytree(runs["ra3"][0], run)
    tree = copy.deepcopy(RUNS["ra3"])
    tree["data"] |= {"path": ["hf:owner/code:python", "more/*.parquet"]}
    (run / "recipe.yaml").write_text(yaml.safe_dump(tree))
    gap = {"mean": -0.1, "low": -0.15, "high": -0.05}
    models = {"ra3": scores(1.9, 0.123), "ntp": scores(2.0, 0.0), "posterior": scores(1.8, 0.2)}
    results = {
        "data": {
            "path": "hf:owner/code",
            "data_hash": "0123abcd",
            "train_snippets": 4321,
            "dropped_files": {"binary": 3},
        },
        "scores": [
            {"phase": "start", "models": {"ra3": scores(3.0, 0.05)}},
            {"phase": "m", "step": 20, "models": models, "ra3_minus_ntp": {k: gap for k in ("plain", "own", "iwae")}},
        ],
        "samples": ["> # sort them   [+1.00 nats]\n  x.sort()"],
        "guards": [],
    }
    (run / "results.json").write_text(json.dumps(results))
    found = {"value": 0.25, "lo": 0.1, "hi": 0.4, "problems": 48, "left_out": []}
    for step, value in ((10, None), (20, 0.25)):
        folder = run / "eval" / "ra3kit" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        evaluation = {"n": 5, "scores": {"pass@1": {**found, "value": value}}, "notes": ["few tasks"]}
        (folder / "results.json").write_text(json.dumps(evaluation))
    environment = {"ra3kit": {"version": "0.1", "commit": "abcdef", "changed": 2}, "packages": {"torch": "9.9"}}
    start = {"command": "ra3kit fit --recipe mine", "recipe": {"name": "mine", "seed": 0}, "environment": environment}
    start |= {"here": {"commit": "fedcba"}, "devices": "2 x cuda", "strategy": "S", "precision": "bf16-mixed"}
    provenance.begin(run, start)
    provenance.end(run, "finished")
    return run


def test_the_card_says_what_is_known(told: Path, tmp_path: Path) -> None:
    done = export(find_source(str(told)), tmp_path / "model", command="ra3kit export told model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "transformers"
    assert metadata["datasets"] == ["owner/code"]
    assert {"ra3", "ra3kit"} <= set(metadata["tags"])
    assert "license" not in metadata
    assert "base_model" not in metadata
    text = card.text
    for words in (
        "Taken after optimizer step 12",
        "| data hash | 0123abcd |",
        "| train snippets | 4,321 |",
        "| dropped files | 3 binary |",
        "`ra3kit fit --recipe mine`",
        "| seed | 0 |",
        "abcdef (2 files differ from the commit)",
        "fedcba",
        "torch 9.9",
        "`ra3kit export told model`",
        "-0.1000 [-0.1500, -0.0500]",
        "They were measured at step 20; this model was taken at step 12.",
        "| ra3kit | 20 | pass@1 | 25.0% [10.0%, 40.0%] | 48 | 5 |",
        "| ra3kit | 10 | pass@1 | not measured | 48 | 5 |",
        "- few tasks",
        "before 12.30% of the lines that could have a thought, 6.5 tokens in the mean",
        "> # sort them   [+1.00 nats]",
        "6 tokens at most",
        "ra3kit eval --model model ",
    ):
        assert words in text, words
    for name, digest in done.weights.items():
        assert f"`{digest}`" in text
        assert digest == provenance.digest(tmp_path / "model" / name)
    inline = re.search(r"<details>.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert inline is not None
    assert yaml.safe_load(inline.group(1)) == yaml.safe_load((tmp_path / "model" / "recipe.yaml").read_text())
    assert yaml.safe_load(inline.group(1))["model"]["policy"]["config"] == CONFIG
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, "card", "exec")
    record = provenance.read(told)["artefacts"][str(tmp_path / "model")]
    assert (record["made_by"], record["which"], record["outside"]) == ("ra3kit export", "pi", True)


def test_a_card_of_a_run_that_has_said_nothing(exported: Path) -> None:
    text = (exported / "tied" / "README.md").read_text()
    assert "## Scores" not in text
    assert "## Thoughts" not in text
    assert "not been run on any benchmark" in text
    assert "ra3" not in ModelCard(text).data.to_dict()["tags"]
    assert "None" not in text


def test_base_model_and_datasets_are_those_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def metadata(model: str | None, path: Any = None) -> dict[str, Any]:
        tree = {"model": {"policy": {"model": model}}, "data": {"path": path}}
        return yaml.safe_load(front_matter(Facts("n", "pi", "A", 1, "float32", None, "s", "e", tree, None, "c")))

    assert metadata("Qwen/Qwen2.5-1.5B")["base_model"] == "Qwen/Qwen2.5-1.5B"
    (tmp_path / "runs" / "model").mkdir(parents=True)
    for local in ("runs/model", "./a/b", "/a/b", "a/b/c", None):
        assert "base_model" not in metadata(local)
    assert "datasets" not in metadata(None, "stdlib")


def test_secrets_of_the_recipe_are_not_published(runs: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["tied"][0], run)
    tree = copy.deepcopy(RUNS["tied"])
    tree["data"] |= {"path": "https://me:hunter2@host/x"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(tree))
    export(find_source(str(run)), tmp_path / "out")
    for file in ("README.md", "recipe.yaml"):
        text = (tmp_path / "out" / file).read_text()
        assert "hunter2" not in text
        assert "***@host" in text


def test_the_rule_for_taking_thoughts_out(runs: dict[str, tuple[Path, Any]]) -> None:
    module = runs["ra3"][1]
    tokenizer = module.tokenizer
    lines = ["def f(x):\n", "    return x\n"]
    ids = [tokenizer.encode(line) for line in lines]
    trajectory = Trajectory.from_lines("a", ids, [True, True], 0, 0)
    woven = trajectory.weave({1: tokenizer.encode("# give it back\n")})
    assert "> # give it back" in render(woven, tokenizer)
    names: dict[str, Any] = {"re": re, "code": tokenizer.decode(woven.ids[1:-1])}
    assert names["code"] != "".join(lines)
    exec(STRIP, names)
    assert names["code"] == "".join(lines)


# --- the hub ---------------------------------------------------------------------------------------------------------


class FakeApi:
    """Keeps what it is asked for; raises what it is told to."""

    calls: list[tuple[str, Any]]
    fail: dict[str, Exception]
    there: bool

    def whoami(self) -> dict[str, str]:
        return self._called("whoami") or {"name": "me"}

    def repo_exists(self, repo_id: str) -> bool:
        self._called("repo_exists", repo_id)
        return self.there

    def create_repo(self, repo_id: str, **kwargs: Any) -> None:
        self._called("create_repo", (repo_id, kwargs))

    def upload_folder(self, **kwargs: Any) -> None:
        self._called("upload_folder", kwargs)

    def _called(self, name: str, value: Any = None) -> Any:
        self.calls.append((name, value))
        if name in self.fail:
            raise self.fail[name]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.calls, FakeApi.fail, FakeApi.there = [], {}, False
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    return FakeApi


def test_push_uploads_what_was_exported(
    runs: dict[str, tuple[Path, Any]], tmp_path: Path, api: type[FakeApi], capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(runs["tied"][0]), tmp_path / "out"
    assert main(["export", run, str(out), "--push", "me/tiny", "--private"]) == 0
    assert [name for name, _ in api.calls] == ["whoami", "repo_exists", "create_repo", "upload_folder"]
    assert api.calls[2][1] == ("me/tiny", {"private": True, "repo_type": "model"})
    assert api.calls[3][1]["folder_path"] == out
    shown = capsys.readouterr().out.splitlines()
    assert "https://huggingface.co/me/tiny" in shown[-4]
    card = (out / "README.md").read_text()
    assert 'from_pretrained("me/tiny")' in card
    assert "\n# me/tiny\n" in card
    assert shown[-1] == f"next        ra3kit eval --model {out} --benchmark ra3kit"
    api.fail["upload_folder"] = OSError("connection reset")
    assert main(["export", run, str(tmp_path / "again"), "--push", "me/tiny"]) == 2
    assert f"connection reset. The model is whole in {tmp_path / 'again'}" in capsys.readouterr().err
    assert (tmp_path / "again" / "README.md").is_file()


def test_a_push_that_cannot_work_is_refused_before_any_work(
    runs: dict[str, tuple[Path, Any]],
    tmp_path: Path,
    api: type[FakeApi],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*, push: str = "me/tiny") -> str:
        assert main(["export", str(runs["tied"][0]), str(tmp_path / "out"), "--push", push]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "owner/name" in refused(push="tiny")
    api.there = True
    assert "has this repository already" in refused()
    api.there = False
    for error in (hub_error("HTTPError", "no route to host"), hub_error("LocalTokenNotFoundError", "log in")):
        api.fail["whoami"] = error
        assert str(error) in refused()
    api.fail.clear()
    api.calls.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refused()
    assert not api.calls
    assert hub.offline()


def hub_error(name: str, message: str) -> Exception:
    from huggingface_hub import errors

    return getattr(errors, name)(message)


def test_weights_read_are_those_of_the_newest_checkpoint(runs: dict[str, tuple[Path, Any]]) -> None:
    run, module = runs["tied"]
    saved = weights(run, "model.")
    assert all(torch.equal(saved[name], value) for name, value in module.model.state_dict().items())
