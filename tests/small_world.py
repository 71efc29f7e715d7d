"""A small RA3 world for the tests: a corpus on disk, a tiny model that thinks, and a trainer that says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from ra3kit.abstraction.em import RA3Module
from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior, LatentPosterior
from ra3kit.abstraction.prior import FixedPenalty, LatentPrior
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.data.module import TrajectoryDataModule
from ra3kit.data.tokenizer import TokenizerSpec
from ra3kit.models import base_model
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy
from ra3kit.testing.models import CORPUS, TINY_CONFIG, tiny_tokenizer

CONFIG = {"model_type": "qwen2", **TINY_CONFIG, "tie_word_embeddings": False}


class TinyTokenizer(TokenizerSpec):
    def load(self) -> Any:
        return tiny_tokenizer()


def corpus(folder: Path, files: int = 12) -> Path:
    """Files of Python, alike but not the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        text = CORPUS.replace("total", f"total_{i}").replace("Stack", f"Stack{i}")
        (folder / f"file_{i}.py").write_text(text)
    return folder


def policy(think: float = 0.0, seed: int = 0, lr: float = 1e-2) -> BasePolicy:
    """A fresh tiny policy; `think` is added to the logits of "#" tokens, `think / 2` to those of newlines."""
    torch.manual_seed(seed)
    made = BasePolicy(config=CONFIG, tokenizer=TinyTokenizer(), optimization=Optimization(lr=lr, warmup=0.1))
    if think:
        texts = [made.tokenizer.decode([i]) for i in range(len(made.tokenizer))]
        opens = torch.tensor([text.startswith("#") for text in texts])
        ends = torch.tensor([text.endswith("\n") for text in texts])
        head: Any = base_model(made.model).get_output_embeddings()
        head.bias = torch.nn.Parameter(think * opens.float() + think / 2 * ends.float())
    return made


def data(path: Path, **settings: Any) -> TrajectoryDataModule:
    return TrajectoryDataModule(
        **{
            "path": str(path),
            "max_tokens": 200,
            "max_lines": 12,
            "snippets_per_step": 3,
            "tokens_per_step": 300,
            "tokens_per_forward": 300,
            "val_fraction": 0.2,
            "max_val_snippets": 6,
            **settings,
        }
    )


def ra3(
    pi: BasePolicy | None = None,
    posterior: LatentPosterior | None = None,
    prior: LatentPrior | None = None,
    learner: AbstractionLearner | None = None,
    **settings: Any,
) -> RA3Module:
    return RA3Module(
        pi or policy(think=4.0),
        posterior or CausalPosterior(max_length=5, slots=16, capacity=400),
        prior or FixedPenalty(c=0.5, scale="line_sum"),
        learner or AbstractionLearner(rollouts=3, scale="line_sum", optimization=Optimization(lr=1e-3, warmup=0.0)),
        **{"eval_rollouts": 2, **settings},
    )


def fit(
    folder: Path,
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    switch: EMSwitch | None = None,
    callbacks: Sequence[L.Callback] = (),
    **settings: Any,
) -> L.Trainer:
    trainer = L.Trainer(
        **{
            "accelerator": "cpu",
            "default_root_dir": str(folder),
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": -1 if switch else 1,
            "reload_dataloaders_every_n_epochs": 1,
            "num_sanity_val_steps": 0,
            "callbacks": [*([switch] if switch else []), *callbacks],
            **settings,
        }
    )
    trainer.fit(module, datamodule=datamodule)
    return trainer
