"""Provenance: records what made every artefact of a run while it appears."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ra3kit import provenance
from ra3kit.build import accelerator_name
from ra3kit.environment import commit, environment, tried
from ra3kit.ranges import check_number


class Provenance(Callback):
    """Keeps `provenance.json` in the run folder. `ra3kit fit` adds it to every run; `ra3kit show RUN` prints it.

    New artefacts are looked for between optimizer steps, so each gets the step after which it was made.

    Args:
        recipe: name, file, sha256, overrides and seed; `ra3kit fit` gives it.
        hash_up_to_gib: larger artefacts are kept with their size only. Hashing 1 GiB takes a second or two, and
            training waits.
    """

    def __init__(self, recipe: dict[str, Any] | None = None, hash_up_to_gib: float = 4.0):
        check_number("Provenance: hash_up_to_gib", hash_up_to_gib, least=0)
        self.recipe, self.hash_up_to = recipe or {}, int(hash_up_to_gib * 2**30)
        self._open = False
        self._seen: list[str] = []
        self._phase: dict[str, Any] = {}  # of the last step: between steps the next phase may have begun

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        provenance.begin(folder, start_of(trainer, self.recipe))
        self._open = True
        provenance.describe(folder, **data_of(trainer))
        self._update(trainer, changed=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._open:  # here the step of a resumed run is known
            # and which problems were kept, where pass rates had to be measured first
            measured = getattr(trainer.datamodule, "difficulty", None) is not None  # type: ignore[attr-defined]
            about = data_of(trainer) if measured else {}
            provenance.describe(Path(trainer.default_root_dir), start={"from_step": trainer.global_step}, **about)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._update(trainer)
        self._phase = {name: getattr(pl_module, name, None) for name in ("phase", "iteration")}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._update(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._end(trainer, "finished")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        said = " ".join(str(exception).split())
        stopped = isinstance(exception, KeyboardInterrupt)
        self._end(trainer, "interrupted" if stopped else f"{type(exception).__name__}: {said}")

    def _end(self, trainer: L.Trainer, outcome: str) -> None:
        if self._open:
            self._update(trainer, changed=True)
            provenance.end(Path(trainer.default_root_dir), outcome)
            self._open = False

    def _update(self, trainer: L.Trainer, changed: bool = False) -> None:
        if not self._open:
            return
        folder = Path(trainer.default_root_dir)
        names = provenance.artefacts(folder)
        if changed or names != self._seen:  # else the record need not be read
            where = {"step": trainer.global_step, **self._phase}
            provenance.update(folder, where, changed, self.hash_up_to)
            self._seen = names


def start_of(trainer: L.Trainer, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a start before training begins."""
    return {
        "command": shlex.join(provenance.redacted(word) for word in ["ra3kit", *sys.argv[1:]]),
        "folder": str(Path.cwd()),
        "recipe": provenance.redacted_tree(recipe),
        "here": tried(lambda: commit(Path.cwd())),
        "environment": environment(sandbox=False),
        "devices": f"{trainer.num_devices} x {accelerator_name(trainer)}",
        "nodes": trainer.num_nodes,
        "processes": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
    }


def data_of(trainer: L.Trainer) -> dict[str, Any]:
    """Account and hash of the data, and the tokenizer, where the data module tells."""
    summary = getattr(getattr(trainer, "datamodule", None), "summary", None)
    account = provenance.redacted_tree(summary()) if callable(summary) else {}
    return {"data": account, "tokenizer": account.get("tokenizer")}
