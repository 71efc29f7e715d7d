"""What benchmarks report with: floating-point operations, and that the scripts run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ra3kit.rollout.forward import head_logits, packed_hidden
from ra3kit.testing.models import tiny_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def models() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_models", BENCHMARKS / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("tied", [True, False])
def test_operations_of_a_forward_are_those_that_torch_counts(models: Any, tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    lengths = [40, 7, 61]
    ids, positions = torch.zeros(108, dtype=torch.int64), torch.cat([torch.arange(n) for n in lengths])
    with FlopCounterMode(display=False) as counted, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        head_logits(model, packed_hidden(model, ids, positions, lengths))
    by_kind = {str(op): count for op, count in counted.get_flop_counts()["Global"].items()}
    attention = by_kind.pop("aten.bmm")
    matrices = sum(by_kind.values())
    flops = models.forward_flops(model, lengths)
    assert 2 * models.matrix_parameters(model) * sum(lengths) == matrices
    assert flops - matrices == attention / 2 > 0  # torch counts all pairs of positions, causal attention needs half


def test_the_size_of_the_published_model(models: Any) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen2", **models.COMMON, **models.CONFIGS["qwen2.5-1.5b"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == 1_543_714_304  # as Qwen2.5-1.5B says of itself


def test_peaks_of_cards(models: Any) -> None:
    assert models.peak_flops("NVIDIA H100 80GB HBM3", None) == 989.4e12
    assert models.peak_flops("NVIDIA H100 PCIe", None) == 756e12
    assert models.peak_flops("NVIDIA H100 PCIe", 1.5) == 1.5e12
    assert models.peak_flops("a card from the future", None) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [["mstep.py", "--arms", "ours", "ours_unpacked", "hf_padded"], ["rollout.py"]], ids=["mstep", "rollout"]
)
def test_the_quick_version_runs(script: list[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / script[0]), *script[1:], "--quick", "--peak-tflops", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "_mfu_" in done.stdout


@pytest.mark.slow
def test_the_quick_version_of_grpo_runs() -> None:
    pytest.importorskip("trl", reason="TRL is not installed: pip install .[bench]")
    command = [sys.executable, str(BENCHMARKS / "grpo.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ours_vs_trl_tiny_longtail" in done.stdout
