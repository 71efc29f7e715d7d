"""RunReport: what a run leaves for a person: results.json, report.md, a picture, and the models as ordinary folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from safetensors import SafetensorError

from ra3kit.abstraction.em import RA3Module
from ra3kit.errors import RunError
from ra3kit.guards import findings
from ra3kit.policy import BasePolicy
from ra3kit.report import picture, report_markdown
from ra3kit.sharding import is_sharded


class RunReport(Callback):
    """Writes the run's results into its folder when training ends.

    Args:
        save_models: also write pi (and the NTP control) as Hugging Face folders: `model/` and `model-ntp/`.
    """

    def __init__(self, save_models: bool = True):
        self.save_models = save_models

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        if isinstance(pl_module, RA3Module):
            self._save(trainer, folder, {"model": pl_module.policy, "model-ntp": pl_module.control})
        elif isinstance(pl_module, BasePolicy):
            self._save(trainer, folder, {"model": pl_module})
        if not trainer.is_global_zero:
            return
        if isinstance(pl_module, RA3Module):
            results = ra3_results(trainer, pl_module)
            write_json(folder / "results.json", results)
            (folder / "report.md").write_text(report_markdown(results), encoding="utf-8")
            picture(results, folder / "report.png")
        elif isinstance(pl_module, BasePolicy):
            write_json(folder / "results.json", ntp_results(trainer))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """What there is so far, when a run ends early for a reason it can name; `stopped` tells which. No models."""
        if not isinstance(exception, RunError) or not trainer.is_global_zero or not trainer.global_step:
            return
        folder = Path(trainer.default_root_dir)
        if isinstance(pl_module, RA3Module):
            results = ra3_results(trainer, pl_module) | {"stopped": str(exception)}
            (folder / "report.md").write_text(report_markdown(results), encoding="utf-8")
        else:
            results = ntp_results(trainer) | {"stopped": str(exception)}
        write_json(folder / "results.json", results)

    def _save(self, trainer: L.Trainer, folder: Path, models: dict[str, BasePolicy | None]) -> None:
        """Written by the first rank, whole or not at all; sharded weights come from all of them.

        Raises:
            RunError: no room, or no permission.
        """
        for name, policy in models.items() if self.save_models else ():
            if policy is not None and (trainer.is_global_zero or is_sharded(policy.model)):
                part = folder / f"{name}.part"
                try:
                    if trainer.is_global_zero and part.exists():
                        shutil.rmtree(part)
                    policy.save(part)
                    if trainer.is_global_zero:
                        if (folder / name).exists():  # this run, killed after it had written it, was resumed
                            shutil.rmtree(folder / name)
                        part.rename(folder / name)
                except (OSError, SafetensorError) as error:
                    shutil.rmtree(part, ignore_errors=True)
                    raise RunError(
                        f"the trained model could not be written to {folder / name}: {error}. Checkpoints are as they "
                        "were; make room, or let the folder be written to, and resume from the last one."
                    ) from error


def ra3_results(trainer: L.Trainer, module: RA3Module) -> dict[str, Any]:
    """Scores of every phase, what was trained on, and samples, as JSON."""
    return {
        "stage": "ra3",
        "seed": module.seed,
        "posterior": type(module.posterior).__name__,
        "prior": module.prior.describe(),
        "eval_rollouts": module.eval_rollouts,
        "data": trainer.datamodule.summary(),  # type: ignore[attr-defined]
        "scores": module.scores,
        "history": module.history,
        "guards": found(trainer),
        "samples": module.samples,
    }


def ntp_results(trainer: L.Trainer) -> dict[str, Any]:
    """The last metrics of a run of next-token prediction, and what its guards found."""
    return {"stage": "ntp", "metrics": logged(trainer), "guards": found(trainer)}


def found(trainer: L.Trainer) -> list[dict[str, Any]]:
    """What the guards found, as JSON."""
    return [vars(finding) for finding in findings(trainer.callbacks)]  # type: ignore[attr-defined]


def logged(trainer: L.Trainer) -> dict[str, float]:
    """The last value of every logged metric."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")
    temporary.replace(path)
