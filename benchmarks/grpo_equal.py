"""The same samples through our GRPO and through TRL's: how far apart gradients and weights are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grpo_peer import train as train_peer
from grpo_steps import Outcome, passes, whole_text_tasks
from grpo_steps import train as train_ours
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ra3kit.data.tokenizer import TrainedTokenizer
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy

GROUP, LONGEST = 4, 12
CLIP = 10.0  # of the gradient norm: beyond all that occur
PROMPTS = (
    "def total(values):\n",
    "def order(pairs):\n    return ",
    "class Stack:\n    def push(self, item):\n        ",
)
CONFIG: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 400,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
SCALE = 3.0
"""Factor on the random matrices: distributions are far from uniform, so that mistakes show."""


@dataclass(frozen=True)
class Scenario:
    """One setting of the loss, in both vocabularies.

    Args:
        ours: settings of GRPOModule; peer: of GRPOConfig.
        lr: of AdamW. Large where the ratio has to leave the clip range by the second pass.
        rows: completions of one forward of TRL's; the rest is accumulated.
        silent: all answers of the last group pass. We leave it out; TRL counts its tokens in the mean.
        fewer: answers are left out that TRL counts as rows of its mean, at zero.
    """

    ours: dict[str, Any]
    peer: dict[str, Any]
    lr: float = 1e-3
    rows: int = GROUP * len(PROMPTS)
    silent: bool = False
    fewer: bool = False

    def factor(self, given: Sequence[Sequence[int]]) -> float:
        """Our gradient over TRL's: both are means, over other counts where one side leaves something out."""
        if self.silent:
            return sum(map(len, given)) / sum(map(len, given[:-GROUP]))
        return GROUP / (GROUP - 1) if self.fewer else 1.0  # the first of each group is cut


COMMON_OURS: dict[str, Any] = {
    "group_size": GROUP,
    "max_new_tokens": LONGEST,
    "mask_truncated": False,
    "importance_cap": None,  # TRL has it for vLLM alone
    "clip_low": 0.2,
    "clip_high": 0.28,
}
COMMON_PEER: dict[str, Any] = {
    "num_generations": GROUP,
    "max_completion_length": LONGEST,
    "loss_type": "dapo",
    "scale_rewards": "none",
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "use_bias_correction_kl": False,
    "bf16": False,
    "gradient_checkpointing": False,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "max_grad_norm": CLIP,
}
SCENARIOS = {
    "mean_over_tokens": Scenario({}, {}),
    "accumulated": Scenario({}, {"gradient_accumulation_steps": 3}, rows=GROUP),
    "divided_by_std": Scenario({"advantage": "std"}, {"scale_rewards": "group"}),
    "mean_over_sequences": Scenario({"normalise": "sequence"}, {"loss_type": "grpo"}),
    "constant": Scenario({"normalise": "constant"}, {"loss_type": "dr_grpo"}),
    "truncated_masked": Scenario({"mask_truncated": True}, {"mask_truncated_completions": True}),
    "truncated_masked_sequences": Scenario(
        {"mask_truncated": True, "normalise": "sequence"},
        {"mask_truncated_completions": True, "loss_type": "grpo"},
        fewer=True,
    ),
    "group_without_signal": Scenario({}, {}, silent=True),
    "temperature": Scenario({"temperature": 0.7}, {"temperature": 0.7}),
    "clipped_second_pass": Scenario({"updates_per_batch": 2}, {"num_iterations": 2}, lr=2e-2),
    "kl_second_pass": Scenario({"updates_per_batch": 2, "beta": 0.5}, {"num_iterations": 2, "beta": 0.5}, lr=2e-2),
}


@dataclass(frozen=True)
class Difference:
    """Between ours and TRL's, over all weights.

    Args:
        gradient: largest of the last optimizer step, as a share of the largest entry.
        weight: largest at the end, as a share of the largest change. AdamW divides a gradient by its own size, so that
            one that is nearly zero makes a step of any size from rounding alone.
        weight_rms: root mean square at the end, as a share of that of the change.
        logs: (ours, TRL's), means over the optimizer steps, of what both log.
    """

    gradient: float
    weight: float
    weight_rms: float
    logs: dict[str, tuple[float, float]]


SHARED_LOGS = (
    "reward",
    "entropy",
    "kl",
    "clip_ratio/low_mean",
    "clip_ratio/high_mean",
    "completions/mean_length",
    "completions/clipped_ratio",
    "grad_norm",
)


def policy(lr: float, seed: int = 0) -> BasePolicy:
    """A small policy with sharp distributions, whose tokenizer has learned a few lines."""
    torch.manual_seed(seed)
    settings = Optimization(lr=lr, weight_decay=0.1, betas=(0.9, 0.95), warmup=0.0, schedule="constant", clip=CLIP)
    own = BasePolicy(config=CONFIG, tokenizer=TrainedTokenizer(vocab_size=CONFIG["vocab_size"]), optimization=settings)
    with torch.no_grad():
        for parameter in own.model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(SCALE)
    return own


def plain_model(own: BasePolicy) -> PreTrainedModel:
    """The same weights as transformers alone makes the model."""
    config = AutoConfig.for_model(**CONFIG)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    model.load_state_dict(own.model.state_dict())
    return model


def samples(own: BasePolicy, silent: bool = False, seed: int = 0) -> list[list[int]]:
    """Completions of each prompt, of 1 to LONGEST tokens, the first of each group cut and the others ended.

    In each group, and among those of it that are not cut, some pass and some fail, so that both sides train on all;
    but where `silent`, all of the last group pass.
    """
    rng = np.random.default_rng(seed)
    out: list[list[int]] = []
    while len(out) < GROUP * len(PROMPTS):
        lengths = [LONGEST, *rng.integers(1, LONGEST, GROUP - 1)]
        group = [[int(token) for token in rng.integers(100, 380, length)] for length in lengths]
        group = [group[0], *([*ids, own.tokenizer.eos_token_id] for ids in group[1:])]
        verdicts = [passes(own.tokenizer.decode(ids, skip_special_tokens=True)) for ids in group]
        last = len(out) == GROUP * (len(PROMPTS) - 1)
        if all(verdicts) if silent and last else len(set(verdicts[1:])) == 2:
            out += group
    return out


def compare(name: str) -> Difference:
    """Train both on the same samples from the same weights."""
    scenario = SCENARIOS[name]
    own = policy(scenario.lr)
    peer, before = plain_model(own), {n: p.detach().clone() for n, p in own.model.named_parameters()}
    given = samples(own, scenario.silent)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference"
        peer.save_pretrained(reference)
        theirs = train_peer(
            peer,
            own.tokenizer,
            PROMPTS,
            lambda prompts, texts: [float(passes(text)) for text in texts],
            Path(folder),
            given,
            keep=True,
            reference=reference if "beta" in scenario.peer else None,
            per_device_train_batch_size=scenario.rows,
            learning_rate=scenario.lr,
            **COMMON_PEER | scenario.peer,
        )
        tasks = whole_text_tasks(PROMPTS, own.tokenizer)
        ours = train_ours(own, [tasks], Path(folder), given, keep=True, **COMMON_OURS | scenario.ours)
    return difference(ours, theirs, before, scenario.factor(given))


def difference(ours: Outcome, theirs: Outcome, before: dict[str, torch.Tensor], factor: float) -> Difference:
    """Of two outcomes that began at the same weights; `factor` is what our gradients are of TRL's."""
    if len(ours.gradients) != len(theirs.gradients):
        raise RuntimeError(f"{len(ours.gradients)} optimizer steps of ours, {len(theirs.gradients)} of TRL's")

    def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([tensors[name].flatten() for name in before])

    expected = factor * flat(theirs.gradients[-1])
    apart, moved = flat(ours.weights) - flat(theirs.weights), flat(theirs.weights) - flat(before)
    means = {tag: float(np.mean([log[tag] for log in theirs.logs])) for tag in theirs.logs[-1]}
    mine = ours.logs[-1]
    return Difference(
        gradient=float((flat(ours.gradients[-1]) - expected).abs().max() / expected.abs().max()),
        weight=float(apart.abs().max() / moved.abs().max()),
        weight_rms=float(apart.norm() / moved.norm()),
        logs={
            name: (mine[f"rlvr/{name}"], means[name])
            for name in SHARED_LOGS
            if f"rlvr/{name}" in mine and name in means
        },
    )
