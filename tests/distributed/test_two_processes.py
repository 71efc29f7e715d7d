"""Two processes give what one gives: sharded with FSDP2 or replicated with DDP, in every phase, and leave the same."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import worker
from safetensors.torch import load_file
from small_world import corpus, policy
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM

from ra3kit import ranks
from ra3kit.data.store import BootstrappedStore
from ra3kit.errors import ModelError, RecipeError
from ra3kit.models import base_model
from ra3kit.rollout import Engine
from ra3kit.sharding import FullyShardedStrategy, gathered, is_sharded, shard, shard_models
from ra3kit.testing.models import tiny_model, tiny_tokenizer

NTP = ["ntp:fsdp2:passk", "ntp:fsdp2:recompute", "ntp:fsdp2:bf16"]
GRPO = ["grpo:fsdp2", "grpo:ddp", "grpo:fsdp2:ahead", "grpo:fsdp2:idle", "grpo:ddp:idle"]
TWO = [*NTP, "ra3:fsdp2", "ra3:ddp", "shared:fsdp2", "uneven:fsdp2", *GRPO, "grpo:fsdp2:bf16"]
ONE = [job.replace("fsdp2", "one") for job in TWO if "ddp" not in job]
SLOW = {"ntp:fsdp2:recompute", "ra3:ddp", "shared:fsdp2", "grpo:fsdp2:idle", "grpo:ddp:idle"}
BY_THE_CLOCK = ("seconds", "per_second", "slot_occupancy")


def launch(out: Path, jobs: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(Path(worker.__file__)), str(out), *jobs]
    package = str(Path(ranks.__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:]


def each(*jobs: Any) -> list[Any]:
    """Jobs, or tuples that begin with one, as parameters of a test; the slow ones marked."""
    first = [job if isinstance(job, str) else job[0] for job in jobs]
    marks = [[pytest.mark.slow] if name in SLOW else [] for name in first]
    return [
        pytest.param(*((job,) if isinstance(job, str) else job), marks=mark)
        for job, mark in zip(jobs, marks, strict=True)
    ]


@pytest.fixture(scope="module")
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all jobs, done once; those of the slow tests only where one of them was asked for."""
    folder = tmp_path_factory.mktemp("two-processes")
    corpus(folder / "corpus")
    asked = [item for item in request.session.items if item.path == request.path]
    leave_out = set() if any(item.get_closest_marker("slow") for item in asked) else SLOW
    two = [job for job in TWO if job not in leave_out]
    for job in ONE:
        if job in {other.replace("fsdp2", "one").replace("ddp", "one") for other in two}:
            worker.do(folder, job)
    launch(folder, two)
    return folder


def seen(out: Path, job: str, rank: int = 0) -> dict[str, Any]:
    return torch.load(out / job / f"rank-{rank}.pt", weights_only=False)


def numbers(step: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in step.items() if not any(word in name for word in BY_THE_CLOCK)}


@pytest.mark.parametrize("job", each(*TWO))
def test_ranks_see_the_same_numbers(out: Path, job: str) -> None:
    first, second = seen(out, job, 0), seen(out, job, 1)
    assert [str(numbers(step)) for step in first["steps"]] == [str(numbers(step)) for step in second["steps"]]
    assert str(first["scores"]) == str(second["scores"])


@pytest.mark.parametrize(
    ("two", "one", "tolerance"),
    each(
        ("ntp:fsdp2:passk", "ntp:one:passk", 1e-4),
        ("ntp:fsdp2:recompute", "ntp:one:recompute", 1e-4),
        ("ra3:fsdp2", "ra3:one", 1e-3),
        ("ra3:ddp", "ra3:one", 1e-3),
        ("shared:fsdp2", "shared:one", 1e-3),
        ("uneven:fsdp2", "uneven:one", 1e-4),
    ),
)
def test_two_processes_log_what_one_logs(out: Path, two: str, one: str, tolerance: float) -> None:
    ours, theirs = seen(out, two)["steps"], seen(out, one)["steps"]
    assert len(ours) == len(theirs) > 0
    for mine, its in zip(ours, theirs, strict=True):
        # the first group of each rank is measured, so of two groups the worse
        mine, its = ({k: v for k, v in numbers(step).items() if "noise_floor" not in k} for step in (mine, its))
        norms = {name for name in mine if name.endswith("grad_norm")}
        assert {k: v for k, v in mine.items() if k not in norms} == pytest.approx(
            {k: v for k, v in its.items() if k not in norms}, abs=tolerance, rel=tolerance, nan_ok=True
        )
        for name in norms:
            assert mine[name] == pytest.approx(its[name], rel=max(1e-3, 5 * tolerance))


def test_sharded_bf16_is_as_near_to_fp32_as_bf16_of_one_process(out: Path) -> None:
    sharded, one, exact = (
        [s["loss"] for s in seen(out, f"ntp:{how}")["steps"]] for how in ("fsdp2:bf16", "one:bf16", "one:passk")
    )
    assert sharded[0] == pytest.approx(exact[0], abs=2e-3)
    assert sharded[0] != exact[0]
    gaps = [max(abs(a - b) for a, b in zip(losses, exact, strict=True)) for losses in (sharded, one)]
    assert gaps[0] < 0.2
    assert gaps[0] < 3 * gaps[1] + 0.01


@pytest.mark.parametrize("two", each("ra3:fsdp2", "ra3:ddp", "shared:fsdp2"))
def test_two_processes_score_and_annotate_like_one(out: Path, two: str) -> None:
    one = f"{two.split(':')[0]}:one"
    for mine, its in zip(seen(out, two)["scores"], seen(out, one)["scores"], strict=True):
        assert mine["models"].keys() == its["models"].keys()
        for name in mine["models"]:
            assert mine["models"][name] == pytest.approx(its["models"][name], abs=1e-3, nan_ok=True)
        gaps = (score.get("ra3_minus_ntp", {}).get("iwae") for score in (mine, its))
        assert next(gaps) == pytest.approx(next(gaps), abs=5e-5)  # with the bounds of its interval
    for iteration in (0, 1):
        stores = [BootstrappedStore.open(out / job / "store" / f"iteration-{iteration}") for job in (two, one)]
        assert [t.snippet_id for t in stores[0]] == [t.snippet_id for t in stores[1]]
        assert [t.ids.tolist() for t in stores[0]] == [t.ids.tolist() for t in stores[1]]


@pytest.mark.parametrize("two", each("ntp:fsdp2:passk", "ra3:fsdp2", "ra3:ddp"))
def test_two_processes_leave_the_models_of_one(out: Path, two: str) -> None:
    one = two.replace("fsdp2", "one").replace("ddp", "one")
    for name in ("model", "model-ntp") if two.startswith("ra3") else ("model",):
        mine, its = (load_file(out / job / name / "model.safetensors") for job in (two, one))
        assert mine.keys() == its.keys()
        for key in mine:
            assert torch.allclose(mine[key], its[key], atol=2e-3), key
        assert AutoModelForCausalLM.from_pretrained(out / two / name).config.architectures == ["Qwen2ForCausalLM"]


def test_ranks_share_the_tasks_of_pass_at_k(out: Path) -> None:
    two, one = (sorted((out / job / "eval").rglob("samples.jsonl")) for job in ("ntp:fsdp2:passk", "ntp:one:passk"))
    assert len(two) == len(one) == 2
    for mine, its in zip(two, one, strict=True):
        assert mine.read_text().count("\n") == 6
        assert mine.read_text() == its.read_text()


def test_ranks_with_very_different_work_do_not_wait_for_each_other(out: Path) -> None:
    two, one = seen(out, "uneven:fsdp2"), seen(out, "uneven:one")
    for few, many in two["calls"]:
        assert 2 * few < many  # one snippet against five: that many collectives would never have met
    for name, value in two["weights"].items():
        assert torch.allclose(value, one["weights"][name], atol=2e-5), name


@pytest.mark.parametrize("two", each(*GRPO))
def test_two_processes_sample_and_learn_like_one(out: Path, two: str) -> None:
    mine, its = (seen(out, job) for job in (two, two.replace("fsdp2", "one").replace("ddp", "one")))
    assert mine["answers"] == its["answers"]
    assert mine["kept"] == its["kept"]
    assert mine["kept"] or len(mine["answers"][-1]) == 2  # an epoch's last step is shorter
    for ours, theirs in zip(mine["steps"], its["steps"], strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-5, rel=1e-3, nan_ok=True)
    for name, value in mine["weights"].items():
        assert torch.allclose(value, its["weights"][name], atol=1e-4), name


@pytest.mark.parametrize("two", each("grpo:fsdp2:idle", "grpo:ddp:idle"))
def test_ranks_without_a_lesson_keep_step_with_those_that_have_one(out: Path, two: str) -> None:
    rows = seen(out, two)["rows"]
    assert {(few == 0, many == 0) for few, many in map(sorted, rows)} == {(True, False), (True, True)}


def test_ranks_have_lessons_of_different_length(out: Path) -> None:
    assert any(one != two for one, two in seen(out, "grpo:fsdp2")["rows"])


def test_a_sharded_bf16_sampler_is_as_far_from_its_trainer_as_that_of_one_process(out: Path) -> None:
    gaps = [seen(out, f"grpo:{how}:bf16")["steps"][0]["rlvr/logp_gap_mean"] for how in ("fsdp2", "one")]
    assert all(1e-5 < gap < 0.02 for gap in gaps), gaps


# ---- one process, sharded over itself --------------------------------------------------------------------------------


@pytest.fixture
def mesh(tmp_path: Path) -> Any:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    gc.collect()  # a sharded model that outlives its process group can abort the process
    torch.distributed.destroy_process_group()


def test_a_gathered_copy_stands_in_for_the_shards_and_goes(mesh: Any) -> None:
    model, same = tiny_model(seed=1), tiny_model(seed=1)
    shard(model, mesh)
    assert is_sharded(model)
    assert not is_sharded(same)
    ids = torch.arange(12)[None]
    with gathered(model), gathered(model), torch.no_grad():
        whole = base_model(model)
        assert whole is not model
        assert torch.equal(whole(ids).logits, same(ids).logits)
        assert whole.lm_head.weight.data_ptr() == whole.model.embed_tokens.weight.data_ptr()  # tied: gathered once
        assert not any(parameter.requires_grad for parameter in whole.parameters())
    assert base_model(model) is model
    assert all(parameter.is_meta for parameter in whole.parameters())  # the memory is given back


def test_the_gathered_copy_has_the_shorter_dtype_asked_for(mesh: Any) -> None:
    model = tiny_model(seed=1)
    shard(model, mesh, torch.bfloat16)
    assert next(model.parameters()).dtype == torch.float32
    with gathered(model):
        assert next(base_model(model).parameters()).dtype == torch.bfloat16


def test_shards_are_not_read_as_if_they_were_weights(mesh: Any) -> None:
    model = tiny_model(seed=1)
    shard(model, mesh)
    engine = Engine(model, tiny_tokenizer(), slots=1, capacity=64)
    with pytest.raises(ModelError, match=r"sharded: .*gathered\(model\)"):
        engine.generate([[1, 2]], max_new_tokens=2)
    with gathered(model):
        got = engine.generate([[1, 2]], max_new_tokens=2, temperature=0.0)
    plain = Engine(tiny_model(seed=1), tiny_tokenizer(), slots=1, capacity=64)
    assert got[0][0].ids == plain.generate([[1, 2]], max_new_tokens=2, temperature=0.0)[0][0].ids


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_strategies_that_wrap_the_whole_module_are_refused(name: str) -> None:
    module = policy()
    module._trainer = SimpleNamespace(strategy=type(name, (), {})())  # type: ignore[assignment]
    with pytest.raises(RecipeError, match=rf"{name} is not supported.*FullyShardedStrategy"):
        module.configure_model()


def test_a_module_without_a_trainer_stays_whole() -> None:
    module = policy()
    module.configure_model()
    assert not is_sharded(module.model)


def test_tensor_parallelism_is_refused() -> None:
    class Wide:
        def size(self) -> int:
            return 2

    module = policy()
    module._device_mesh = {"tensor_parallel": Wide()}  # type: ignore[assignment]
    with pytest.raises(RecipeError, match=r"tensor_parallel_size=2 is not supported.*FullyShardedStrategy"):
        shard_models(module, [module.model])
    assert FullyShardedStrategy()._tensor_parallel_size == 1
