"""What only a GPU can show (`make test-gpu`); the CPU tests the same arithmetic with stand-ins for the kernels."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback

from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.packing import StepBatch, pack, step_batch
from ra3kit.data.tokenizer import TokenizerSpec
from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import ThoughtRules
from ra3kit.loss import summed_nats
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy, score
from ra3kit.rollout import Engine, Rollout, attention
from ra3kit.rollout.forward import head_logits, packed_hidden
from ra3kit.testing.models import CORPUS, TINY_CONFIG, tiny_model, tiny_tokenizer
from ra3kit.testing.thinking import set_thinking

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

LENGTHS = [5, 1, 90, 33, 130]
RULES = ThoughtRules(max_length=7)


class Tiny(TokenizerSpec):
    def load(self) -> Any:
        return tiny_tokenizer()


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    texts = [*CORPUS.split("\n\n\n"), CORPUS, CORPUS.replace("total", "sum_of")]
    return [trajectory_from_text(tiny_tokenizer(), f"t{i}", text, PythonLines()) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def thinking(trajectories: list[Trajectory]) -> Any:
    """A model on the GPU that thinks at about half of the lines."""
    model = tiny_model(scale=8.0, tie_word_embeddings=False, head_dim=16).requires_grad_(False)
    set_thinking(model, tiny_tokenizer(), trajectories, rate=0.5, length=4.5, rules=RULES)
    cuda: Any = "cuda"
    return model.to(cuda)


def rollouts(model: Any, trajectories: list[Trajectory], **settings: Any) -> list[Rollout]:
    engine = Engine(model, tiny_tokenizer(), **{"slots": 8, "capacity": 512, **settings})
    return [row for rows in engine.rollout(trajectories, 3, 0, RULES) for row in rows]


def ids_of(rows: list[Rollout]) -> list[list[int]]:
    return [row.trajectory.ids.tolist() for row in rows]


@pytest.mark.parametrize("shape", [{"slots": 1}, {"slots": 64}, {"call_tokens": 30}, {"padded_chunks": False}], ids=str)
def test_any_batch_shape_gives_the_same_tokens(
    thinking: Any, trajectories: list[Trajectory], shape: dict[str, Any]
) -> None:
    expected = rollouts(thinking, trajectories)
    assert sum(len(row.trajectory.thoughts) for row in expected) > 10
    assert ids_of(rollouts(thinking, trajectories, **shape)) == ids_of(expected)


@pytest.mark.parametrize(("how", "limit"), [("float32", 1e-4), ("bfloat16", 0.2), ("autocast", 0.2)])
def test_log_probabilities_equal_a_full_forward(
    thinking: Any, trajectories: list[Trajectory], how: str, limit: float
) -> None:
    model = copy.deepcopy(thinking)
    model = model.bfloat16() if how == "bfloat16" else model
    with torch.autocast("cuda", torch.bfloat16, enabled=how == "autocast"):
        rows = rollouts(model, trajectories)
        scores = score(model, [row.trajectory for row in rows])
    for row, values in zip(rows, scores, strict=True):
        assert row.token_logp is not None
        np.testing.assert_allclose(row.token_logp, values, atol=limit, rtol=0)


def test_one_kernel_for_all_sequences_equals_one_call_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda: Any = "cuda"
    model = tiny_model(scale=4.0, head_dim=16).to(cuda)
    ids = torch.randint(0, 400, (sum(LENGTHS),), device="cuda")
    positions = torch.cat([torch.arange(n) for n in LENGTHS]).cuda()
    embedding = model.get_input_embeddings().weight
    results = []
    for has in (True, False):
        if not has:
            monkeypatch.setattr(attention, "has_varlen", lambda q: False)
        with torch.autocast("cuda", torch.bfloat16):
            assert attention.has_varlen(torch.zeros(1, device="cuda")) == has
            hidden = packed_hidden(model, ids, positions, LENGTHS)
        results.append((hidden.detach().float(), *torch.autograd.grad(hidden.float().square().sum(), [embedding])))
    for one, other in zip(*results, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize("how", ["bfloat16", "autocast"])
def test_the_loss_sums_in_float32(how: str) -> None:
    hidden, weight = torch.randn(20_000, 64, device="cuda"), torch.randn(500, 64, device="cuda")
    targets = torch.randint(0, 500, (20_000,), device="cuda")
    halves = [x.bfloat16() for x in (hidden, weight)]
    exact = [x.double().requires_grad_() for x in halves]
    nats = F.cross_entropy(exact[0] @ exact[1].T, targets, reduction="sum")
    expected = torch.autograd.grad(nats, exact)
    inputs = [x.clone().requires_grad_() for x in (halves if how == "bfloat16" else (hidden, weight))]
    with torch.autocast("cuda", torch.bfloat16, enabled=how == "autocast"):
        got = summed_nats(*inputs, None, targets)
    assert float(got.detach()) == pytest.approx(float(nats.detach()), rel=1e-5)
    for gradient, value in zip(torch.autograd.grad(got, inputs), expected, strict=True):
        assert float((gradient.double() - value).norm() / value.norm()) < 4e-3


def test_the_loss_at_the_vocabulary_of_qwen_needs_less_than_a_gibibyte() -> None:
    hidden = torch.randn(4096, 896, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(151_936, 896, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, 151_936, (4096,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    summed_nats(hidden, weight, None, targets).backward()
    gradients = sum(x.grad.numel() * x.grad.element_size() for x in (hidden, weight) if x.grad is not None)
    assert (
        torch.cuda.max_memory_allocated() - before - gradients < 2**30
    )  # all logits would need 2.3 GiB, and as much again


def test_logits_of_bfloat16_weights_come_out_in_float32() -> None:
    cuda: Any = "cuda"
    model = tiny_model(scale=8.0).bfloat16().requires_grad_(False).to(cuda)
    hidden = torch.randn(7, 32, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        logits = head_logits(model, hidden)
    exact = hidden.double() @ model.get_output_embeddings().weight.double().T
    assert logits.dtype == torch.float32
    assert float((logits - exact).abs().max()) < 1e-4


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["loss"]))


class Again:
    """The same step many times."""

    def __init__(self, batch: StepBatch, times: int):
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[StepBatch]:
        return iter([self.batch] * self.times)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_training_lowers_the_loss(trajectories: list[Trajectory], precision: Any) -> None:
    settings = Optimization(lr=1e-2, warmup=0.0, schedule="constant")
    config = {"model_type": "qwen2", **TINY_CONFIG, "head_dim": 16}
    policy = BasePolicy(config=config, tokenizer=Tiny(), optimization=settings)
    with torch.no_grad():
        row = pack(trajectories)
        on_cpu = float(policy.row_loss(row).code) / row.trained_tokens
    watch = Losses()
    trainer = L.Trainer(
        accelerator="cuda",
        devices=1,
        precision=precision,
        max_epochs=1,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(policy, train_dataloaders=Again(step_batch(trajectories, 200), 30))
    assert watch.values[0] == pytest.approx(on_cpu, abs=1e-4 if precision == "32-true" else 2e-2)
    assert watch.values[-1] < watch.values[0] - 1
    assert trainer.optimizers[0].defaults["fused"]
