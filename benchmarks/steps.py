"""How snippets become forwards: packed rows as the kit makes them, padded batches as one writes them without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from ra3kit.data.packing import StepBatch, step_batch
from ra3kit.data.trajectory import Trajectory
from ra3kit.optimize import Optimization


class PackedSteps:
    """What the kit's data module gives: one `StepBatch` an optimizer step, packed as it is asked for."""

    def __init__(self, groups: Sequence[Sequence[Trajectory]], tokens_per_forward: int):
        self.groups, self.tokens_per_forward = groups, tokens_per_forward

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[StepBatch]:
        return (step_batch(group, self.tokens_per_forward) for group in self.groups)


class PaddedSteps:
    """Padded batches of `rows` snippets, right-padded to the longest of each; several make one optimizer step."""

    def __init__(self, groups: Sequence[Sequence[Trajectory]], rows: int):
        self.groups, self.rows = groups, rows
        self.forwards = len(groups[0]) // rows

    def __len__(self) -> int:
        return len(self.groups) * self.forwards

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in self.groups:
            tokens = trained_tokens(group)
            for at in range(0, len(group), self.rows):
                ids = [torch.from_numpy(t.ids.astype(np.int64)) for t in group[at : at + self.rows]]
                longest = max(map(len, ids))
                yield {
                    "input_ids": torch.stack([F.pad(x, (0, longest - len(x))) for x in ids]),
                    "attention_mask": torch.stack([F.pad(torch.ones_like(x), (0, longest - len(x))) for x in ids]),
                    "labels": torch.stack([F.pad(x, (0, longest - len(x)), value=-100) for x in ids]),
                    "num_items_in_batch": tokens / self.forwards,  # Lightning divides by the forwards of a step
                }


class Padded(L.LightningModule):
    """The padded baseline: automatic optimisation, the model's own loss."""

    def __init__(self, model: PreTrainedModel, settings: Optimization):
        super().__init__()
        self.model, self.settings = model, settings

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        loss = self.model(**batch).loss
        self.log("loss", loss, on_step=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.settings.optimizer(self.parameters())


def trained_tokens(group: Sequence[Trajectory]) -> int:
    """All but the first of each snippet."""
    return sum(len(t.ids) - 1 for t in group)
