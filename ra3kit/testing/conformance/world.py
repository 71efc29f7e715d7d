"""The small world that components are checked in: snippets, and a fresh policy that thinks at some of the lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.trajectory import Trajectory
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy
from ra3kit.rollout.forward import base_model
from ra3kit.testing.models import CORPUS, TINY_CONFIG, tiny_tokenizer

TEXTS = (
    "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result\n",
    "x = [\n    1,\n    2,\n]\ny = x + \\\n    x\n# a comment\nprint(x, y)\n",
    "pass\n",
    "def pop(self):\n    if not self.items:\n        raise IndexError('empty')\n    return self.items.pop()",
)


def tiny_snippets() -> list[Trajectory]:
    """Four expert snippets, one of a single line, one with lines that no latent may precede."""
    tokenizer = tiny_tokenizer()
    return [trajectory_from_text(tokenizer, f"snippet{i}", text, PythonLines()) for i, text in enumerate(TEXTS)]


def tiny_policy(think: float = 4.0, seed: int = 0, **settings: Any) -> BasePolicy:
    """A fresh two-layer policy over `tiny_tokenizer`.

    Args:
        think: added to the logits of "#" tokens, half of it to those of newlines, so that it thinks; 0: hardly ever.
        seed: of the weights.
        settings: of `BasePolicy`.
    """
    tokenizer: Any = tiny_tokenizer()
    config = {"model_type": "qwen2", **TINY_CONFIG, "tie_word_embeddings": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = BasePolicy(
            **{
                "config": config,
                "tokenizer": tokenizer,
                "optimization": Optimization(lr=1e-2, warmup=0.0),
                **settings,
            }
        )
    if think:
        give_thoughts(made, think)
    return made


def give_thoughts(policy: BasePolicy, think: float) -> None:
    """Bias the policy's head towards thoughts, see `tiny_policy`."""
    texts = [str(policy.tokenizer.decode([i])) for i in range(len(policy.tokenizer))]
    head: Any = base_model(policy.model).get_output_embeddings()
    bias = torch.zeros(head.weight.shape[0])
    bias[: len(texts)] = torch.tensor([think * t.startswith("#") + think / 2 * t.endswith("\n") for t in texts])
    head.bias = torch.nn.Parameter(bias)


def tiny_corpus(folder: Path, files: int = 8) -> Path:
    """Files of Python in a new folder, alike but not the same."""
    folder.mkdir(parents=True)
    for i in range(files):
        text = CORPUS.replace("total", f"total_{i}").replace("Stack", f"Stack{i}")
        (folder / f"file_{i}.py").write_text(text)
    return folder
