"""The base policy: scores and losses against plain transformers, LoRA, loading and saving, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.packing import PackedBatch, pack
from ra3kit.data.tokenizer import TokenizerSpec
from ra3kit.data.trajectory import THOUGHT, Trajectory
from ra3kit.errors import ModelError, TokenizerError
from ra3kit.loss import LOSS_CHUNK
from ra3kit.policy import BasePolicy, LoRA, TrainingMemory, _summed_nats, parameter_counts, training_memory
from ra3kit.testing.models import CORPUS, TINY_CONFIG, tiny_model, tiny_tokenizer

CONFIG = TINY_CONFIG
FAMILIES = [("qwen2", "qwen2"), ("llama", "llama3")]


class Tiny(TokenizerSpec):
    """A tokenizer as a recipe names it."""

    def __init__(self, rules: Any = "qwen2", vocab_size: int = 400):
        self.rules, self.vocab_size = rules, vocab_size

    def load(self) -> Any:
        return tiny_tokenizer(self.rules, self.vocab_size)


def make_folder(folder: Path, model_type: Any, rules: Any, tie: bool = True) -> Path:
    """What a published model looks like on disk, made by transformers alone."""
    tokenizer = tiny_tokenizer(rules)
    model = tiny_model(len(tokenizer) + 8, model_type, scale=6.0, implementation="sdpa", tie_word_embeddings=tie)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=FAMILIES, ids=["qwen2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_folder(tmp_path / "published", *request.param)


@pytest.fixture
def policy(folder: Path) -> BasePolicy:
    return BasePolicy(model=str(folder))


def trajectories_of(policy: BasePolicy) -> list[Trajectory]:
    texts = CORPUS.split("\n\n\n")
    plain = [trajectory_from_text(policy.tokenizer, f"t{i}", text, PythonLines()) for i, text in enumerate(texts)]
    thought = policy.tokenizer.encode("# add it up\n", add_special_tokens=False)
    return [plain[0], plain[1].weave({0: thought, 2: thought}), plain[2]]


def plain_logits(folder: Path, trajectories: list[Trajectory]) -> Iterator[Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        for trajectory in trajectories:
            yield model(torch.from_numpy(trajectory.ids.astype(np.int64))[None]).logits[0]


# ---- scores and losses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens_per_forward", [1, 120, 4096])
def test_scores_equal_plain_transformers(folder: Path, policy: BasePolicy, tokens_per_forward: int) -> None:
    trajectories = trajectories_of(policy)
    scores = policy.score(trajectories, tokens_per_forward)
    for trajectory, got, logits in zip(trajectories, scores, plain_logits(folder, trajectories), strict=True):
        targets = torch.from_numpy(trajectory.ids[1:].astype(np.int64))[:, None]
        expected = logits[:-1].log_softmax(-1).gather(1, targets).squeeze(1)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def test_scoring_leaves_the_mode_and_keeps_no_graph(policy: BasePolicy) -> None:
    policy.model.train()
    policy.score(trajectories_of(policy))
    assert policy.model.training
    assert all(p.grad is None for p in policy.parameters())


def padded_cross_entropy(model: Any, trajectories: list[Trajectory]) -> Tensor:
    """Summed cross-entropy as any trainer with right padding computes it."""
    longest = max(len(t.ids) for t in trajectories)
    ids = torch.zeros(len(trajectories), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for i, t in enumerate(trajectories):
        ids[i, : len(t.ids)] = labels[i, : len(t.ids)] = torch.from_numpy(t.ids.astype(np.int64))
        mask[i, : len(t.ids)] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("model_type", "rules"), FAMILIES)
def test_row_loss_and_gradients_equal_padded_cross_entropy(
    tmp_path: Path, model_type: str, rules: str, checkpointing: bool, tie: bool
) -> None:
    folder = make_folder(tmp_path, model_type, rules, tie)
    policy = BasePolicy(model=str(folder), activation_checkpointing=checkpointing)
    policy.model.train()
    trajectories = trajectories_of(policy)
    loss = policy.row_loss(pack(trajectories))
    (loss.code + loss.thought).backward()
    plain = AutoModelForCausalLM.from_pretrained(folder).train()
    expected = padded_cross_entropy(plain, trajectories)
    expected.backward()
    assert float((loss.code + loss.thought).detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    ours, theirs = dict(policy.model.named_parameters()), dict(plain.named_parameters())
    assert set(ours) == set(theirs)
    for name, parameter in theirs.items():
        assert parameter.grad is not None
        size = float(parameter.grad.abs().max())
        torch.testing.assert_close(ours[name].grad, parameter.grad, atol=1e-5 * max(size, 1.0), rtol=1e-4)


def test_row_loss_splits_code_and_thoughts(policy: BasePolicy) -> None:
    trajectories = trajectories_of(policy)
    row = pack(trajectories)
    with torch.no_grad():
        loss = policy.row_loss(row)
    scores = policy.score(trajectories)
    is_thought = [t.kinds()[1:] == THOUGHT for t in trajectories]
    thought = -sum(float(s[m].sum()) for s, m in zip(scores, is_thought, strict=True))
    code = -sum(float(s[~m].sum()) for s, m in zip(scores, is_thought, strict=True))
    assert float(loss.thought) == pytest.approx(thought, rel=1e-5)
    assert float(loss.code) == pytest.approx(code, rel=1e-5)
    assert loss.thought_tokens == sum(int(m.sum()) for m in is_thought) > 0
    assert loss.code_tokens + loss.thought_tokens == row.trained_tokens


def test_row_loss_without_thoughts(policy: BasePolicy) -> None:
    loss = policy.row_loss(pack(trajectories_of(policy)[:1]))
    assert (loss.thought_tokens, float(loss.thought)) == (0, 0.0)


def test_order_and_neighbours_in_a_row_do_not_matter(policy: BasePolicy) -> None:
    trajectories = trajectories_of(policy)

    def nats(row: PackedBatch) -> float:
        with torch.no_grad():
            loss = policy.row_loss(row)
        return float(loss.code + loss.thought)

    together = nats(pack(trajectories))
    assert nats(pack(trajectories[::-1])) == pytest.approx(together, rel=1e-6)
    assert sum(nats(pack([t])) for t in trajectories) == pytest.approx(together, rel=1e-6)


@pytest.mark.parametrize("tokens", [1, LOSS_CHUNK - 1, LOSS_CHUNK, 2 * LOSS_CHUNK + 90])
@pytest.mark.parametrize("bias", [False, True])
def test_chunked_cross_entropy_equals_plain(tokens: int, bias: bool) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 300, bias=bias)
    hidden = torch.randn(tokens, 16, requires_grad=True)
    targets = torch.randint(0, 300, (tokens,))
    results = []
    for loss in (
        _summed_nats(head, hidden, targets),
        torch.nn.functional.cross_entropy(head(hidden), targets, reduction="sum"),
    ):
        gradients = torch.autograd.grad(loss, [hidden, *head.parameters()])
        results.append((loss.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_cross_entropy_of_bfloat16_weights_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 300, bias=False).bfloat16()
    hidden = torch.randn(700, 16).bfloat16()
    targets = torch.randint(0, 300, (700,))
    got = float(_summed_nats(head, hidden, targets).detach())
    logits = hidden.double() @ head.weight.detach().double().T
    exact = float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    assert got == pytest.approx(exact, rel=4e-3)


# ---- loading and saving --------------------------------------------------------------------------------------------


def test_a_published_folder_loads_and_saves_as_one(folder: Path, policy: BasePolicy, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01)
    out = tmp_path / "exported"
    policy.save(out)
    trajectories = trajectories_of(policy)
    back = AutoTokenizer.from_pretrained(out)
    text = "def f(x):\n\treturn 'é'  # 🙂\n"
    assert back.encode(text) == policy.tokenizer.encode(text)
    assert (back.bos_token_id, back.eos_token_id) == (policy.tokenizer.bos_token_id, policy.tokenizer.eos_token_id)
    again = BasePolicy(model=str(out)).score(trajectories)
    for a, b in zip(again, policy.score(trajectories), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    assert AutoModelForCausalLM.from_pretrained(out).config._attn_implementation == "sdpa"  # not ours
    for trajectory, logits in zip(trajectories, plain_logits(out, trajectories), strict=True):
        ids = torch.from_numpy(trajectory.ids.astype(np.int64))[None]
        with torch.inference_mode():
            torch.testing.assert_close(policy.model(ids, use_cache=False).logits[0], logits, atol=1e-5, rtol=1e-5)


def test_start_tokens_of_the_families(tmp_path: Path) -> None:
    qwen = BasePolicy(model=str(make_folder(tmp_path / "q", "qwen2", "qwen2")))
    llama = BasePolicy(model=str(make_folder(tmp_path / "l", "llama", "llama3")))
    for policy, start in ((qwen, qwen.tokenizer.eos_token_id), (llama, llama.tokenizer.bos_token_id)):
        ids = trajectories_of(policy)[0].ids
        assert ids[0] == start
        assert ids[-1] == policy.tokenizer.eos_token_id
        assert (ids == start).sum() == (2 if policy is qwen else 1)  # exactly one start token
    assert qwen.tokenizer.bos_token_id is None
    assert llama.tokenizer.bos_token_id != llama.tokenizer.eos_token_id


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
def test_a_fresh_model_takes_its_vocabulary_from_the_tokenizer(model_type: str) -> None:
    policy = BasePolicy(config={"model_type": model_type, **CONFIG}, tokenizer=Tiny())
    config: Any = policy.model.config
    assert config.vocab_size == len(policy.tokenizer) == 400
    assert config.eos_token_id == policy.tokenizer.eos_token_id
    assert np.isfinite(policy.score(trajectories_of(policy))[0]).all()


def test_dtype_of_the_weights(folder: Path) -> None:
    policy = BasePolicy(model=str(folder), dtype="bfloat16")
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    exact = BasePolicy(model=str(folder)).score(trajectories_of(policy))
    for got, expected in zip(policy.score(trajectories_of(policy)), exact, strict=True):
        np.testing.assert_allclose(got, expected, atol=0.3, rtol=0)
    loss = policy.row_loss(pack(trajectories_of(policy)))
    (loss.code + loss.thought).backward()


def test_a_snapshot_is_frozen_and_separate(policy: BasePolicy) -> None:
    before = policy.score(trajectories_of(policy))[0]
    snapshot = policy.snapshot()
    assert not any(p.requires_grad for p in snapshot.parameters())
    assert not snapshot.training
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    from ra3kit.policy import score

    np.testing.assert_array_equal(score(snapshot, trajectories_of(policy))[0], before)
    assert not np.allclose(policy.score(trajectories_of(policy))[0], before)


# ---- LoRA ----------------------------------------------------------------------------------------------------------


def test_lora_trains_only_its_adapters_and_merges_on_save(folder: Path, tmp_path: Path) -> None:
    policy = BasePolicy(model=str(folder), lora=LoRA(rank=4, alpha=8))
    trajectories = trajectories_of(policy)
    before = policy.score(trajectories)
    for got, expected in zip(before, BasePolicy(model=str(folder)).score(trajectories), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)  # an untrained adapter changes nothing
    optimizer = policy.optimization.optimizer(policy.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    frozen = {name: p.detach().clone() for name, p in policy.named_parameters() if not p.requires_grad}
    for _ in range(3):
        loss = policy.row_loss(pack(trajectories))
        optimizer.zero_grad()
        (loss.code + loss.thought).backward()
        optimizer.step()
    trained = [name for name, p in policy.named_parameters() if p.grad is not None]
    assert trained
    assert all("lora_" in name for name in trained)
    for name, parameter in policy.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])
    after = policy.score(trajectories)
    assert not np.allclose(after[0], before[0], atol=1e-2)
    counts = parameter_counts(policy.model)
    assert 0 < counts["trainable"] < 0.5 * counts["total"]

    out = tmp_path / "merged"
    policy.save(out)
    assert not list(out.glob("adapter*"))
    for trajectory, got, logits in zip(trajectories, after, plain_logits(out, trajectories), strict=True):
        targets = torch.from_numpy(trajectory.ids[1:].astype(np.int64))[:, None]
        plain = logits[:-1].log_softmax(-1).gather(1, targets).squeeze(1)
        np.testing.assert_allclose(got, plain, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(policy.score(trajectories)[0], after[0])  # saving left the adapters as they were


def test_lora_rolls_out(folder: Path) -> None:
    from ra3kit.latents import ThoughtRules
    from ra3kit.rollout import Engine

    policy = BasePolicy(model=str(folder), lora=LoRA(rank=4, targets=["q_proj", "v_proj"]))
    plain = BasePolicy(model=str(folder))
    trajectories = [t.without_thoughts() for t in trajectories_of(policy)]
    rules = ThoughtRules(6, think="always")
    for a, b in zip(
        *(Engine(p.model, p.tokenizer, capacity=256).rollout(trajectories, 1, 0, rules) for p in (policy, plain)),
        strict=True,
    ):
        assert a[0].trajectory.ids.tolist() == b[0].trajectory.ids.tolist()


# ---- errors --------------------------------------------------------------------------------------------------------


def test_exactly_one_of_model_and_config(folder: Path) -> None:
    with pytest.raises(ModelError, match="exactly one of model=None"):
        BasePolicy(tokenizer=Tiny())
    with pytest.raises(ModelError, match="exactly one"):
        BasePolicy(model=str(folder), config={"model_type": "qwen2"})
    with pytest.raises(ModelError, match="needs a tokenizer"):
        BasePolicy(config={"model_type": "qwen2"})


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"nowhere.*config\.json"):
        BasePolicy(model=missing, tokenizer=Tiny())
    with pytest.raises(TokenizerError, match="nowhere"):
        BasePolicy(model=missing)


def test_a_vocabulary_smaller_than_the_tokenizers_is_an_error(tmp_path: Path) -> None:
    tiny_model(300).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"400 tokens.*vocabulary is 300"):
        BasePolicy(model=str(tmp_path), tokenizer=Tiny())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CONFIG, "model_type"),
        ({"model_type": "qwne2", **CONFIG}, "qwne2"),
        ({"model_type": "qwen2", **CONFIG, "num_attention_heads": "four"}, "num_attention_heads"),
    ],
)
def test_a_bad_config_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        BasePolicy(config=config, tokenizer=Tiny())


def test_the_plan_counts_parameters_and_bytes() -> None:
    policy = BasePolicy(config={"model_type": "qwen2", **CONFIG, "tie_word_embeddings": True}, tokenizer=Tiny())
    counts = parameter_counts(policy.model)
    block = (32 + 1) * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 64 + 2 * 32  # q, k, v with bias, o, MLP, two norms
    total = 400 * 32 + 2 * block + 32  # the head is the embedding
    assert counts == {"total": total, "trainable": total}
    memory = training_memory(policy.model)
    assert memory == TrainingMemory(4 * total, 4 * total, 8 * total)
    assert policy.plan()["parameters"] == counts
