"""Tiny models that think at about half of the lines, with snippets that have everything lines can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ra3kit.actions import PythonLines
from ra3kit.data.encode import trajectory_from_text
from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import ThoughtRules
from ra3kit.rollout import Engine
from ra3kit.testing.models import tiny_model, tiny_tokenizer
from ra3kit.testing.thinking import set_thinking

SNIPPETS = [
    "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result\n",
    'class Stack:\n    """A last-in,\n    first-out list."""\n\n    def __init__(self):\n        self.items = []\n',
    "x = [\n    1,\n    2,\n]\ny = x + \\\n    x\n# a comment\nprint(x, y)\n",
    "pass\n",
    "def pop(self):\n    if not self.items:\n        raise IndexError('empty')\n    return self.items.pop()",
    "import os\n\n\nprint(os.name)\nprint('日本')\n",
]
RULES = ThoughtRules(max_length=7)


@dataclass(frozen=True)
class World:
    """One architecture: a model for the engine, one of the same weights for the reference, and snippets."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    reference: PreTrainedModel
    trajectories: list[Trajectory]

    def engine(self, **settings: Any) -> Engine:
        return Engine(self.model, self.tokenizer, **{"slots": 8, "capacity": 192, **settings})


def make_world(model_type: Any, rules: Any) -> World:
    tokenizer = tiny_tokenizer(rules)
    trajectories = [
        trajectory_from_text(tokenizer, f"snippet{i}", text, PythonLines()) for i, text in enumerate(SNIPPETS)
    ]
    settings = {"vocab_size": len(tokenizer) + 5, "model_type": model_type, "scale": 8.0, "tie_word_embeddings": False}
    model = tiny_model(**settings)
    set_thinking(model, tokenizer, trajectories, rate=0.5, length=4.5, rules=RULES)
    reference = tiny_model(**settings, implementation="sdpa")
    reference.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size))
    reference.load_state_dict(model.state_dict())
    return World(tokenizer, model.requires_grad_(False), reference.requires_grad_(False), trajectories)


@pytest.fixture(scope="session", params=[("qwen2", "qwen2"), ("llama", "llama3")], ids=["qwen2", "llama"])
def world(request: pytest.FixtureRequest) -> World:
    return make_world(*request.param)


@pytest.fixture(scope="session")
def qwen() -> World:
    return make_world("qwen2", "qwen2")
