"""A rule that ends the E-step, and a monitor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from ra3kit.abstraction.em import Phase
from ra3kit.callbacks.em_switch import EMSwitch


class Patience(EMSwitch):
    """Ends the E-step when none of the last `patience` updates was better than the best before them.

    Args:
        patience: updates, >= 1; the other arguments as in `EMSwitch`.
    """

    def __init__(self, patience: int = 5, **kwargs: Any):
        super().__init__(**kwargs)
        self.patience = patience

    def should_switch(self, phase: Phase, rewards: Sequence[float]) -> bool:
        """Whether the running phase ends now; it needs no memory of its own, so nothing has to be saved."""
        if phase != "e" or len(rewards) <= self.patience:
            return False
        return max(rewards[-self.patience :]) <= max(rewards[: -self.patience])


class CommonThoughts(Callback):
    """Writes `common_thoughts.json` into the run folder: the most frequent thoughts of each annotated corpus.

    Args:
        top: how many, >= 1.
    """

    def __init__(self, top: int = 20):
        self.top = top

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the thoughts of the store that the M-step is about to train on."""
        if pl_module.phase != "m" or not trainer.is_global_zero:
            return
        texts: Counter[str] = Counter()
        for trajectory in trainer.datamodule.store:
            texts.update(pl_module.tokenizer.decode(trajectory.ids[a:b]).strip() for a, b in trajectory.thoughts)
        path = Path(trainer.default_root_dir) / "common_thoughts.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        found[f"iteration {pl_module.iteration}"] = texts.most_common(self.top)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False))
