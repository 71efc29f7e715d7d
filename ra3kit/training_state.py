"""What a run goes on from: taken out of a trainer, and put back so that the next step is the one it would have been.

Tensors (weights, moments of optimizers) go by name, so that a run may go on with another number of processes. What is
empty stays empty: an optimizer that has not stepped yet has no moments, and taking a checkpoint must not give it any.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor

from ra3kit.checkpoints import MODEL, OPTIMIZER, metadata, read_into
from ra3kit.errors import RunError
from ra3kit.ranks import gather


@dataclass
class Moment:
    """What must be taken right after a batch, before anything for the next one happens: all of it small.

    Args:
        callbacks: states of the callbacks, by their `state_key`.
        data: of the data module, with the loader's position.
        rng: of this process's random generators.
        metrics: what was logged last.
        hooks: what module and callbacks add by `on_save_checkpoint`; None asks them when the checkpoint is written.
    """

    callbacks: dict[str, Any]
    data: dict[str, Any]
    rng: dict[str, Any]
    metrics: dict[str, Tensor]
    hooks: dict[str, Any] | None = None


def take_moment(trainer: L.Trainer, is_last: bool = False) -> Moment:
    """The moment that is now, as copies.

    Args:
        trainer: after a batch, or at the end of an epoch.
        is_last: the run stops here, and what it does at its stop (Lightning validates) is not to be kept.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    states = {callback.state_key: copy.deepcopy(callback.state_dict()) for callback in callbacks}
    data = trainer.datamodule  # type: ignore[attr-defined]
    taken = {} if data is None else copy.deepcopy(data.state_dict())
    metrics = {name: value.detach().cpu().clone() for name, value in trainer.callback_metrics.items()}
    hooks = copy.deepcopy(saved_by_hooks(trainer)) if is_last else None
    return Moment({key: value for key, value in states.items() if value}, taken, rng_state(), metrics, hooks)


def saved_by_hooks(trainer: L.Trainer) -> dict[str, Any]:
    """What module and callbacks add by `on_save_checkpoint`."""
    hooks: dict[str, Any] = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        callback.on_save_checkpoint(trainer, trainer.lightning_module, hooks)
    trainer.lightning_module.on_save_checkpoint(hooks)
    return hooks


def content(trainer: L.Trainer, moment: Moment, batches: int) -> dict[str, Any]:
    """Everything but tensors of the model and its optimizers; every process calls this.

    Args:
        trainer: between two batches, or at the end of an epoch.
        moment: taken after the last batch.
        batches: of the running epoch that are done; 0 when the epoch is complete.
    """
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current
    total = loop.epoch_loop.batch_progress.total
    return {
        "progress": {
            # Lightning counts an epoch as processed even where a limit has stopped the run inside it
            "epochs": epochs.started - 1 if batches else epochs.processed,
            "steps": trainer.global_step,
            "batches": batches,
            "total_batches": total.completed,
            "logged_steps": loop.epoch_loop._batches_that_stepped,
            "stop": trainer.should_stop and not out_of_time(trainer),
        },
        "hooks": saved_by_hooks(trainer) if moment.hooks is None else moment.hooks,
        "callbacks": moment.callbacks,
        "data": moment.data,
        "rng": gather(moment.rng),
        "optimizers": [_without_tensors(trainer, number) for number in range(len(trainer.optimizers))],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "precision": trainer.precision_plugin.state_dict(),
        "metrics": moment.metrics,
    }


def restore(trainer: L.Trainer, checkpoint: Path, saved: Mapping[str, Any]) -> None:
    """Put the trainer, built from the same recipe and set up, where the checkpoint was taken; every process calls this.

    Args:
        trainer: in `on_fit_start`: models and optimizers are there, nothing has run.
        checkpoint: a whole one.
        saved: its `checkpoints.state`.

    Raises:
        RunError: the checkpoint is of another model or other optimizers.
    """
    module = trainer.lightning_module
    hooks = saved["hooks"]
    module.on_load_checkpoint(hooks)
    tensors, _ = model_tensors(trainer)
    read_into(checkpoint, tensors)
    _restore_optimizers(trainer, checkpoint, saved["optimizers"])
    for config, state in zip(trainer.lr_scheduler_configs, saved["schedulers"], strict=True):
        config.scheduler.load_state_dict(state)
    trainer.precision_plugin.load_state_dict(saved["precision"])
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        callback.on_load_checkpoint(trainer, module, hooks)
        # a time limit is one of each start: kept, it would stop the run again at once
        if callback.state_key in saved["callbacks"] and not isinstance(callback, Timer):
            callback.load_state_dict(copy.deepcopy(saved["callbacks"][callback.state_key]))
    if saved["data"]:
        trainer.datamodule.load_state_dict(saved["data"])  # type: ignore[attr-defined]
    _restore_progress(trainer, saved["progress"])
    trainer.callback_metrics.update({name: value.to(module.device) for name, value in saved["metrics"].items()})
    set_rng_state(saved["rng"], trainer.global_rank)


def _restore_progress(trainer: L.Trainer, progress: Mapping[str, Any]) -> None:
    """Set Lightning's counters.

    An epoch that was under way is entered as Lightning enters one that it restarts: its batches so far are counted as
    complete, so that the number of a batch, the length of the epoch and when to validate stay what they were.
    """
    loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    for tracker in (loop.epoch_progress.total, loop.epoch_progress.current):
        _set(tracker, progress["epochs"])
    _set(epoch_loop.batch_progress.total, progress["total_batches"])
    _set(epoch_loop.batch_progress.current, progress["batches"])
    _set(epoch_loop.manual_optimization.optim_step_progress.total, progress["steps"])
    _set(epoch_loop.automatic_optimization.optim_progress.optimizer.step.total, progress["steps"])
    epoch_loop._batches_that_stepped = progress["logged_steps"]
    epoch_loop.restarting = progress["batches"] > 0
    trainer.should_stop = progress["stop"]
    trainer.num_sanity_val_steps = 0  # that was done when the run began


def _set(tracker: Any, count: int) -> None:
    for name in vars(tracker):
        setattr(tracker, name, count)


def out_of_time(trainer: L.Trainer) -> bool:
    """Whether `trainer.max_time` is what stops the run: such a run is not finished."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)


# --- tensors ---------------------------------------------------------------------------------------------------------


def model_tensors(trainer: L.Trainer) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters and buffers by saved name; and for tensors with several names, each further name and the first."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for name, value in trainer.lightning_module.state_dict(keep_vars=True).items():
        if id(value) in first:
            same[name] = first[id(value)]
        else:
            first[id(value)] = name
            tensors[MODEL + name] = value
    return tensors, same


def optimizer_tensors(trainer: L.Trainer) -> dict[str, Tensor]:
    """The tensors in the states of all optimizers, by saved name."""
    names = _parameter_names(trainer)
    return {
        _key(number, names[id(parameter)], key): value
        for number, optimizer in enumerate(trainer.optimizers)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def _key(number: int, parameter: str, key: str) -> str:
    return f"{OPTIMIZER}{number}.{parameter}/{key}"


def _parameter_names(trainer: L.Trainer) -> dict[int, str]:
    names = {id(parameter): name for name, parameter in trainer.lightning_module.named_parameters()}
    for number, optimizer in enumerate(trainer.optimizers):
        for group in optimizer.param_groups:
            if any(id(parameter) not in names for parameter in group["params"]):
                raise RunError(
                    f"optimizer {number} ({type(optimizer).__name__}) trains parameters that are not the module's: a "
                    "checkpoint cannot name them. Register them in the module."
                )
    return names


def _without_tensors(trainer: L.Trainer, number: int) -> dict[str, Any]:
    """What an optimizer's state has besides tensors, and which tensors it has, by parameter."""
    names, optimizer = _parameter_names(trainer), trainer.optimizers[number]
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        | {"params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    state = {
        names[id(parameter)]: {
            "tensors": [key for key, value in values.items() if isinstance(value, Tensor)],
            "others": {key: value for key, value in values.items() if not isinstance(value, Tensor)},
        }
        for parameter, values in optimizer.state.items()
    }
    return {"groups": groups, "state": state}


def _restore_optimizers(trainer: L.Trainer, checkpoint: Path, saved: list[dict[str, Any]]) -> None:
    if len(saved) != len(trainer.optimizers):
        raise RunError(f"{checkpoint} has {len(saved)} optimizers, this run has {len(trainer.optimizers)}.")
    names, known = _parameter_names(trainer), metadata(checkpoint)
    templates: dict[str, Tensor] = {}
    states: list[dict[str, Any]] = []
    for number, (optimizer, own) in enumerate(zip(trainer.optimizers, saved, strict=True)):
        here = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
        if here != [group["params"] for group in own["groups"]]:
            raise RunError(f"{checkpoint}: optimizer {number} trains other parameters than here.")
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for index, parameter in enumerate(parameters):
            if (entry := own["state"].get(names[id(parameter)])) is None:
                continue
            moments = {key: _key(number, names[id(parameter)], key) for key in entry["tensors"]}
            templates |= {name: _like(known[name], parameter) for name in moments.values()}
            state[index] = entry["others"] | {key: templates[name] for key, name in moments.items()}
        numbered = iter(range(len(parameters)))
        groups = [group | {"params": [next(numbered) for _ in group["params"]]} for group in own["groups"]]
        states.append({"state": state, "param_groups": groups})
    read_into(checkpoint, templates)
    for optimizer, filled in zip(trainer.optimizers, states, strict=True):
        optimizer.load_state_dict(filled)


def _like(saved: Any, parameter: Tensor) -> Tensor:
    """An empty tensor for a moment: sharded as its parameter where it has its shape."""
    dtype, size = saved.properties.dtype, tuple(saved.size)
    if size == tuple(parameter.shape):
        return torch.zeros_like(parameter.detach(), dtype=dtype)
    return torch.zeros(size, dtype=dtype)


# --- random generators -----------------------------------------------------------------------------------------------


def rng_state() -> dict[str, Any]:
    """The states of this process's generators: Python's, numpy's, torch's on the CPU and on its CUDA device."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(ranks: list[dict[str, Any]], rank: int) -> None:
    """Set this process's generators; a process that was not there before gets states of its own from the first's."""
    state = ranks[rank] if rank < len(ranks) else ranks[0]
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if rank >= len(ranks):
        random.seed(random.getrandbits(64) + rank)
        np.random.seed((int(np.random.randint(2**31)) + rank) % 2**32)
        torch.manual_seed(int(torch.randint(2**62, ())) + rank)
