"""Short silent runs of the small world, for components that only show what they do inside a trainer."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import torch

from ra3kit.abstraction.em import RA3Module
from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.abstraction.prior import FixedPenalty
from ra3kit.callbacks.em_switch import EMSwitch
from ra3kit.data.module import TrajectoryDataModule
from ra3kit.optimize import Optimization
from ra3kit.testing.conformance.world import tiny_corpus, tiny_policy


@contextmanager
def silence() -> Iterator[None]:
    """Hide what a run of no interest says: Lightning, progress, warnings."""
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.setLevel(level)


def trainer(folder: Path, **settings: Any) -> L.Trainer:
    """A trainer on the CPU that leaves nothing but what it is asked for."""
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": str(folder),
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **settings,
        }
    )


def tiny_run(callbacks: Sequence[L.Callback] = (), switch: EMSwitch | None = None) -> RA3Module:
    """RA3 on the small world: one step of warm-up, two of the E-step, annotation, two of the M-step.

    Args:
        callbacks: taking part.
        switch: another EMSwitch.

    Returns:
        The module as training left it.
    """
    with tempfile.TemporaryDirectory() as name, silence():
        folder = Path(name)
        data = TrajectoryDataModule(
            str(tiny_corpus(folder / "corpus")),
            max_tokens=120,
            max_lines=8,
            snippets_per_step=2,
            tokens_per_step=200,
            tokens_per_forward=300,
            val_fraction=0.2,
            max_val_snippets=2,
            max_snippets=8,
        )
        torch.manual_seed(0)
        module = RA3Module(
            tiny_policy(),
            CausalPosterior(max_length=5, slots=16, capacity=400),
            FixedPenalty(c=0.5, scale="line_sum"),
            AbstractionLearner(rollouts=2, scale="line_sum", optimization=Optimization(lr=1e-3, warmup=0.0)),
            control=False,
            eval_rollouts=2,
        )
        switch = switch or EMSwitch(warmup_steps=1, e_steps=2, m_steps=2)
        made = trainer(
            folder / "run", max_epochs=-1, reload_dataloaders_every_n_epochs=1, callbacks=[switch, *callbacks]
        )
        made.fit(module, datamodule=data)
        return module
