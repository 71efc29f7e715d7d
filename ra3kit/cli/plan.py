"""The plan of a run: everything built, the data set up, nothing trained and nothing written.

A model may describe itself with `plan() -> dict`, a data module with `summary() -> dict`; both are printed as they are,
with byte counts in words wherever a key is, or lies below, `memory` or ends in `bytes`. A `plan(shards)` is told how
many processes share the weights. Three keys are read:

    model.plan()["memory"]               mapping what -> bytes, their sum is added to it; or mappings, as they are
    model.plan()["stores"]               how many bootstrapped stores the run writes; else its callbacks' `iterations`
    data.summary()["train_code_tokens"]  the tokens that one store annotates
"""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ra3kit.build import Built, accelerator_name, build
from ra3kit.callbacks.checkpoints import Checkpoints
from ra3kit.recipe import Recipe
from ra3kit.signatures import check

STORE_BYTES_PER_TOKEN = 8
"""A stored token: 4 bytes of id, and as much again for thoughts, spans and names."""


def plan(recipe: Recipe, folder: Path) -> str:
    """Build a recipe and set up its data; the plan as text.

    A recipe for GPUs is built on the CPU where there is none, and the plan says so.

    Raises:
        RA3Error: the recipe cannot be used, or its data cannot be read.
    """
    check(recipe.tree, recipe.touched)
    wanted = recipe.tree.get("trainer") or {}
    buildable, note = _on_this_machine(recipe)
    built = build(buildable, folder)
    _connect(built)
    built.data.prepare_data()
    built.data.setup("fit")
    describe_model, describe_data = getattr(built.model, "plan", None), getattr(built.data, "summary", None)
    shards = sharing(wanted)
    own = _described(describe_model, shards) if callable(describe_model) else default_plan(built.model)
    summary = describe_data() if callable(describe_data) else {}
    devices = f"{wanted.get('devices', 'auto')} x {wanted.get('accelerator', 'auto')}"
    head: dict[str, Any] = {
        "recipe": f"{recipe.name} ({recipe.path})",
        "run folder": f"{folder} (not created)",
        "seed": recipe.tree["run"]["seed"],
        "devices": devices + (note or _found(built.trainer)),
        "precision": wanted.get("precision") or built.trainer.precision,
    }
    if shards > 1:
        head["sharded"] = f"weights, gradients and moments in {shards} parts; memory is that of one process"
        head["host memory"] = f"{in_words(loading_bytes(built.model) * shards)} over all hosts while the models load"
    memory = own.get("memory")
    if isinstance(memory, dict) and not any(isinstance(size, dict) for size in memory.values()):
        total = sum(size for size in memory.values() if isinstance(size, int | float))
        own = own | {"memory": memory | {"together": total}}
    sections = {"model": own, "data": summary, "steps": rlvr_steps(built, summary), "disk": disk(built, own, summary)}
    parts = [table(head), *(f"{title}\n{table(section, 2)}" for title, section in sections.items() if section)]
    return "\n\n".join([*parts, f"Nothing was trained. Train it: {_command(recipe)}"])


def rlvr_steps(built: Built, summary: dict[str, Any]) -> dict[str, Any]:
    """What a step of GRPO samples over all processes: of a model with groups of answers, on data with prompts."""
    data, model = cast(Any, built.data), cast(Any, built.model)
    prompts, group = getattr(data, "prompts_per_step", None), getattr(model, "group_size", None)
    if prompts is None or group is None:
        return {}
    most = min(prompts, summary["problems"])
    return {
        "prompts": most,
        "prompt tokens": f"about {round(summary['prompt_tokens'] / summary['problems'] * most):,}",
        "samples": most * group,
        "sampled tokens": f"at most {most * group * model.max_new_tokens:,}",
        "steps per epoch": data.steps_per_epoch(),
        "steps ahead": getattr(model, "staleness", 0),
    }


def sharing(trainer: Mapping[str, Any]) -> int:
    """How many processes share the weights, by the trainer's settings; 1 where it isn't a number yet ("auto").

    >>> sharing({"devices": 8, "num_nodes": 2, "strategy": {"class_path": "ra3kit.sharding.FullyShardedStrategy"}})
    16
    """
    strategy = trainer.get("strategy")
    path = str(strategy.get("class_path")) if isinstance(strategy, dict) else ""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes") or 1
    is_sharded = path.rpartition(".")[2] in ("FullyShardedStrategy", "ModelParallelStrategy")
    return devices * nodes if is_sharded and isinstance(devices, int) and devices > 0 else 1


def _described(plan: Callable[..., dict[str, Any]], shards: int) -> dict[str, Any]:
    return plan(shards) if "shards" in inspect.signature(plan).parameters else plan()


def loading_bytes(model: L.LightningModule) -> int:
    """Main memory of one process before its weights are sharded."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _found(trainer: L.Trainer) -> str:
    return f" (here {trainer.num_devices} x {accelerator_name(trainer)})"


def _command(recipe: Recipe) -> str:
    given = [argument for argument in sys.argv[1:] if argument != "--dry-run"]
    return (
        f"ra3kit {shlex.join(given)}"
        if given[:1] == ["fit"]
        else f"ra3kit fit --recipe {shlex.quote(str(recipe.path))}"
    )


def _on_this_machine(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe as it can be built here, and a note when that differs."""
    trainer = dict(recipe.tree.get("trainer") or {})
    if trainer.get("accelerator") not in ("gpu", "cuda") or torch.cuda.is_available():
        return recipe, ""
    trainer |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    if str(trainer.get("precision", "")).startswith(("16", "transformer-engine")):
        trainer["precision"] = "32-true"
    return replace(recipe, tree={**recipe.tree, "trainer": trainer}), " (no GPU here: planned on the CPU)"


def _connect(built: Built) -> None:
    """What `fit` does before it sets up the data: model, data and trainer know each other."""
    built.trainer.strategy.connect(built.model)
    built.model.trainer = built.trainer
    built.data.trainer = built.trainer


def default_plan(model: L.LightningModule) -> dict[str, Any]:
    """Parameters and the memory of training them with Adam, for a model without a `plan` of its own.

    Activations are not in it: only the model knows its sequence lengths.
    """
    sizes = [(p.numel(), p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    weights = sum(size for _, size, _ in sizes)
    trained = sum(size for _, size, requires_grad in sizes if requires_grad)
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    return {
        "parameters": {**parts, "total": sum(count for count, _, _ in sizes)},
        "memory": {"weights": weights, "gradients": trained, "Adam moments": 2 * trained, "activations": "not counted"},
    }


def disk(built: Built, own: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """An estimate of what the run writes: checkpoints kept, and bootstrapped stores, in bytes."""
    kept, words = kept_checkpoints(built.trainer)
    checkpoints = checkpoint_bytes(built.model) * kept
    callbacks: list[Callback] = built.trainer.callbacks  # type: ignore[attr-defined]
    iterations = sum(getattr(callback, "iterations", 0) for callback in callbacks)
    stores = int(own.get("stores", iterations))
    store = STORE_BYTES_PER_TOKEN * int(summary.get("train_code_tokens", 0)) * stores
    rows: dict[str, Any] = {f"checkpoints ({words})": in_words(checkpoints)}
    if store:
        rows[f"stores ({stores})"] = in_words(store)
    return {**rows, "total": f"about {in_words(checkpoints + store)}"}


def checkpoint_bytes(module: torch.nn.Module) -> int:
    """What a checkpoint holds: the weights and, for Adam, two moments for each that is trained."""
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in module.parameters()]
    return sum(size for size, _ in sizes) + 2 * sum(size for size, is_trained in sizes if is_trained)


def kept_checkpoints(trainer: L.Trainer) -> tuple[int, str]:
    """How many checkpoints there are on the disk at most, and how that was counted."""
    kept, unbounded, writing = 0, False, False
    for callback in trainer.checkpoint_callbacks:
        every = isinstance(callback, ModelCheckpoint) and callback.save_top_k == -1
        every |= isinstance(callback, Checkpoints) and callback.keep is None
        unbounded |= every
        if every:
            kept += max(trainer.max_epochs or 1, 1)
        elif isinstance(callback, Checkpoints):
            kept += (callback.keep or 0) + 1  # an old one goes when the new one is whole
            writing = True
        elif isinstance(callback, ModelCheckpoint):
            kept += callback.save_top_k
        kept += isinstance(callback, ModelCheckpoint) and bool(callback.save_last)
    words = f"{kept} kept, counting one an epoch" if unbounded else f"{kept - writing} kept"
    return kept, words + (" and one being written" if writing else "")


def table(rows: dict[str, Any], indent: int = 0, is_bytes: bool = False) -> str:
    """Keys and values in two columns; a mapping as its value becomes an indented table of its own."""
    width = max((len(str(key)) for key, value in rows.items() if not isinstance(value, dict)), default=0)
    lines = []
    for key, value in rows.items():
        memory = is_bytes or key == "memory" or str(key).endswith("bytes")
        if isinstance(value, dict):
            lines += [f"{'':{indent}}{key}", table(value, indent + 2, memory)] if value else []
        else:
            lines.append(f"{'':{indent}}{key!s:<{width}}  {_cell(value, memory)}".rstrip())
    return "\n".join(lines)


def _cell(value: Any, is_bytes: bool) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if is_bytes:
        return in_words(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def in_words(size: float) -> str:
    """A number of bytes for people.

    >>> in_words(512), in_words(3 * 2**20)
    ('512 B', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
