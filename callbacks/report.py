"""RunReport: what a run leaves for a person: results.json, report.md, a picture, and the models as ordinary folders."""

from __future__ import annotations

import json
import math
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
from ra3kit.reports.ra3 import picture, report_markdown
from ra3kit.reports.rlvr import rlvr_markdown, rlvr_picture
from ra3kit.rlvr.grpo import GRPOModule
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
        elif isinstance(pl_module, GRPOModule):
            self._save(trainer, folder, {"model": pl_module.policy})
        elif isinstance(pl_module, BasePolicy):
            self._save(trainer, folder, {"model": pl_module})
        if trainer.is_global_zero and isinstance(pl_module, RA3Module | GRPOModule | BasePolicy):
            results = results_of(trainer, pl_module)
            write_json(folder / "results.json", results)
            write_report(results, folder)
            draw_report(results, folder / "report.png")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """What there is so far, when a run ends early for a reason it can name; `stopped` tells which. No models."""
        if not isinstance(exception, RunError) or not trainer.is_global_zero or not trainer.global_step:
            return
        folder = Path(trainer.default_root_dir)
        results = results_of(trainer, pl_module) | {"stopped": str(exception)}
        write_report(results, folder)
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


def results_of(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """What a run has found, as JSON."""
    if isinstance(module, RA3Module):
        return ra3_results(trainer, module)
    return rlvr_results(trainer, module) if isinstance(module, GRPOModule) else ntp_results(trainer)


def write_report(results: dict[str, Any], folder: Path) -> None:
    """report.md, of the stages that have one."""
    markdown = {"ra3": report_markdown, "rlvr": rlvr_markdown}.get(results["stage"])
    if markdown is not None:
        (folder / "report.md").write_text(markdown(results), encoding="utf-8")


def draw_report(results: dict[str, Any], path: Path) -> None:
    """The picture, of the stages that have one, where matplotlib is installed."""
    draw = {"ra3": picture, "rlvr": rlvr_picture}.get(results["stage"])
    if draw is not None:
        draw(results, path)


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


def rlvr_results(trainer: L.Trainer, module: GRPOModule) -> dict[str, Any]:
    """Settings, curves, data and last metrics of a run of GRPO; in the curves None is a step without such a value."""
    own = module.results()
    history = {
        name: [None if math.isnan(value) else value for value in curve] for name, curve in own["history"].items()
    }
    account = getattr(getattr(trainer, "datamodule", None), "summary", dict)  # a loader alone has none
    return {**own, "history": history, "data": account(), "metrics": logged(trainer), "guards": found(trainer)}


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
