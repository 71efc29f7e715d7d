"""Plain progress lines: steps, the phase, and only the figures of this epoch."""

from __future__ import annotations

import re
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ra3kit.cli.progress import PlainProgress


class Phases(L.LightningModule):
    """Logs `first` in epoch 0 and `second` in epoch 1."""

    phase = "warmup"

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def on_train_epoch_start(self) -> None:
        self.phase = ("warmup", "e")[self.current_epoch]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.log(("first", "second")[self.current_epoch], float(batch_idx), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        self.phase = "next"  # before the progress line of the epoch's end

    def configure_optimizers(self) -> None: ...


@pytest.mark.parametrize(("every", "count"), [(1e9, 2), (0.0, 6)])
def test_lines(every: float, count: int, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[PlainProgress(every)],
        default_root_dir=str(tmp_path),
    )
    capsys.readouterr()
    trainer.fit(Phases(), DataLoader(TensorDataset(torch.zeros(3))))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == count  # the end of each epoch; with every=0 each of its 3 steps, none twice
    assert re.fullmatch(r"epoch 1/2 \(warmup\), step 3/3, \d+ s: first 2", lines[count // 2 - 1])
    assert re.fullmatch(r"epoch 2/2 \(e\), step 3/3, \d+ s: second 2", lines[-1])  # no `first`: of the epoch before


class TwoSteps(L.LightningModule):
    """Takes two optimizer steps for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("every", "lines"),
    [
        (1e9, ["epoch 1, step 6/8", "epoch 2, step 8/8"]),
        (0.0, ["epoch 1, step 2/8", "epoch 1, step 4/8", "epoch 1, step 6/8", "epoch 2, step 8/8"]),
    ],
)
def test_with_max_steps_the_steps_are_those_of_the_run(
    every: float, lines: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    trainer = L.Trainer(
        max_steps=8,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[PlainProgress(every)],
        default_root_dir=str(tmp_path),
    )
    capsys.readouterr()
    trainer.fit(TwoSteps(), DataLoader(TensorDataset(torch.zeros(3))))
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [re.sub(r", \d+ s$", "", line) for line in printed] == lines
