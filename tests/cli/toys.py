"""Toy modules for the command line's tests: a user's classes, outside the package, that train in milliseconds."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ra3kit.errors import DataError


class Head(nn.Module, abc.ABC):
    """What a toy model ends in."""

    @abc.abstractmethod
    def penalty(self) -> float: ...


class Plain(Head):
    """No penalty."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def penalty(self) -> float:
        return 0.0


class Costly(Head):
    """A fixed penalty, like the price of a thought."""

    def __init__(self, cost: float, per: Literal["line", "token"] = "line") -> None:
        super().__init__()
        self.cost, self.per, self.scale = cost, per, 1.0

    def penalty(self) -> float:
        return self.cost


class Body(nn.Linear):
    """A concrete class that a recipe need not name."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width, 1)


class ToyModel(L.LightningModule):
    """Linear regression with a swappable head."""

    def __init__(
        self,
        head: Head,
        body: Body | None = None,
        lr: float = 0.1,
        reduction: Literal["mean", "sum"] = "mean",
        tags: str | Head | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.head, self.lr, self.reduction, self.tags = head, lr, reduction, tags
        self.body = body if body is not None else Body()
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(self.body(x).squeeze(-1), y, reduction=self.reduction)
        self.log("loss", loss, prog_bar=True)
        self.losses.append(float(loss.detach()))
        return loss + self.head.penalty()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def summary_lines(self, trainer: L.Trainer) -> list[str]:
        last = self.losses[-1] if self.losses else float("nan")  # none, where a finished run was only reported again
        return [f"toy loss    {last:.3f} after {trainer.global_step} steps"]


class NoKeywords(ToyModel):
    """A model that takes other arguments than ToyModel."""

    def __init__(self, depth: int = 1) -> None:
        super().__init__(Plain())
        self.depth = depth

    def plan(self) -> dict[str, Any]:
        return {"parameters": {"toy": 5}, "memory": {"weights": 3 * 2**20}, "stores": 2}


class Forwarding(NoKeywords):
    """Passes what it does not know to its base."""

    def __init__(self, extra: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class ToyData(L.LightningDataModule):
    """Random points; shuffled, so that a run depends on its seed."""

    def __init__(self, count: int = 16, path: str | list[str] = "none", seed: int = 0) -> None:
        super().__init__()
        self.count, self.path, self.seed = count, path, seed

    def setup(self, stage: str) -> None:
        if self.path == "missing":
            raise DataError("data.path='missing': no such folder.")
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.count, 4, generator=generator)
        self.points = TensorDataset(x, x.sum(-1))

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.points, batch_size=4, shuffle=True)

    def summary(self) -> dict[str, Any]:
        return {"files": 3, "train_code_tokens": 2**20, "dropped": {"too long": 1}}


class Recorder(Callback):
    """Writes the losses of a run into a file."""

    def __init__(self, file: str, every: int = 1) -> None:
        self.file, self.every = file, every

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ToyModel)
        Path(self.file).write_text("\n".join(map(repr, pl_module.losses)))


class Counting(Callback):
    """Has a state, and nothing that tells it from another of its kind."""

    def state_dict(self) -> dict[str, Any]:
        return {"count": 1}


class Interrupt(Callback):
    """Ctrl-C during the first step."""

    def on_train_batch_end(self, *args: Any) -> None:
        raise KeyboardInterrupt


class Switch(Callback):
    """Has as many iterations as it is told."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations


def refuse(kind: str) -> None:
    """Fail for a reason of the kit's own, or for one of Python's."""
    if kind == "python":
        raise ValueError("a plain mistake")
    try:
        raise OSError("not there")
    except OSError as error:
        raise DataError("weights='nowhere': no such folder.") from error


class Refusing(Plain):
    """A head that cannot be built."""

    def __init__(self, kind: Literal["kit", "python"] = "kit") -> None:
        super().__init__()
        refuse(kind)


class RefusingModel(ToyModel):
    """A model that cannot be built."""

    def __init__(self, kind: Literal["kit", "python"] = "kit") -> None:
        super().__init__(Plain())
        refuse(kind)
