"""A run's model as an ordinary Hugging Face folder with a model card: what `ra3kit export` writes.

Weights are read from the run's checkpoint in this one process, whatever number of processes wrote it; LoRA adapters are
merged. The folder appears whole or not at all, and loads without this package.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ra3kit import checkpoints, provenance
from ra3kit.build import build_part
from ra3kit.data.tokenizer import start_and_end_ids
from ra3kit.errors import RunError
from ra3kit.modelcard import Facts, model_card
from ra3kit.models import merge_adapters
from ra3kit.policy import BasePolicy, parameter_counts
from ra3kit.recipe import Recipe, load, to_yaml
from ra3kit.sources import RECIPE, Source

Which = Literal["pi", "q", "ntp"]
PART = ".part"
CARD = "README.md"
_PREFIXES = {"pi": "policy.model.", "q": "posterior.model.", "ntp": "control.model."}
_FOLDERS = {"pi": "model", "ntp": "model-ntp"}


@dataclass(frozen=True)
class Exported:
    """What was written, and where.

    Args:
        folder: the new one.
        architecture: "Qwen2ForCausalLM".
        parameters: how many, tied ones once.
        dtype: of the weights.
        weights: file name -> SHA-256.
    """

    folder: Path
    architecture: str
    parameters: int
    dtype: str
    weights: dict[str, str]


def export(
    source: Source,
    folder: str | Path,
    which: Which = "pi",
    dtype: Literal["float32", "bfloat16", "auto"] = "auto",
    max_shard_size: str = "5GB",
    command: str = "ra3kit export",
    name: str | None = None,
) -> Exported:
    """Write a model of a run into a new folder.

    Args:
        source: of a run or a checkpoint, see `ra3kit.sources.find_source`.
        folder: must not exist, or be empty.
        which: pi, its posterior q, or the NTP control beside it.
        dtype: of the weights; "auto" leaves them as they were trained.
        max_shard_size: of one file of weights, as in "500MB" or "5GB"; a larger tensor has a file of its own.
        command: what made it, for the card.
        name: of the model in its card; None is the folder's.

    Raises:
        RunError: the folder holds something, the source is no run, has no such model, or writing failed.
        RA3Error: the recipe or its base model cannot be used here.
    """
    folder, part = check_new(folder)
    check_shard_size(max_shard_size)
    if source.run is None or (source.checkpoint is None and Path(source.name).expanduser() != source.run):
        raise RunError(f"{source.name} is a Hugging Face model already. Give a run folder or a checkpoint folder.")
    part.mkdir(parents=True)  # no permission is known now, not after the weights are read
    try:
        recipe = load(str(source.recipe)) if source.recipe is not None else None
        policy = load_policy(source, recipe, which)
        model = merge_adapters(policy.model)
        if dtype != "auto":
            model.to(getattr(torch, dtype))
        set_special_tokens(model, policy.tokenizer)
        model.save_pretrained(part, max_shard_size=max_shard_size)
        policy.tokenizer.save_pretrained(part)
        shown = None if recipe is None else to_yaml(provenance.redacted_tree(recipe.tree))
        if shown is not None:
            (part / RECIPE).write_text(shown, encoding="utf-8")
        weights = {path.name: provenance.digest(path) for path in sorted(part.glob("*.safetensors"))}
        kind = str(model.dtype).removeprefix("torch.")
        written = Exported(folder, type(model).__name__, parameter_counts(model)["total"], kind, weights)
        facts = _facts(source, recipe, shown, which, written, model, policy.tokenizer, command)
        facts = facts if name is None else replace(facts, name=name)
        sizes = {name: (part / name).stat().st_size for name in weights}
        (part / CARD).write_text(model_card(facts, sizes), encoding="utf-8")
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, SafetensorError):  # how a full disk shows itself
            raise RunError(f"{folder} could not be written: {error}. Nothing was left behind; make room.") from error
        raise
    if ended(source.run):
        provenance.record(source.run, folder, "exported model", "ra3kit export", command=command, which=which)
    return written


def check_new(folder: str | Path) -> tuple[Path, Path]:
    """The folder, and the one beside it that is written first.

    Raises:
        RunError: either is there already.
    """
    folder = Path(folder).expanduser()
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise RunError(
            f"{folder}: it is there already and not an empty folder. Nothing is overwritten; choose another."
        )
    part = folder.absolute().with_name(folder.absolute().name + PART)
    if part.exists():
        raise RunError(f"{part}: an export was interrupted, or is under way. Remove it, or choose another folder.")
    return folder, part


def check_shard_size(size: str) -> None:
    """Raise RunError unless the size is one, as in 500MB or 5GB."""
    if not re.fullmatch(r"[1-9]\d*(\.\d+)?[KMGT]i?B", size):
        raise RunError(f"--max-shard-size {size}: a size is needed, like 500MB, 5GB or 2GiB.")


def ended(run: Path) -> bool:
    """Whether the run is not being trained now, so that its provenance may be added to."""
    return (run / provenance.FILE).exists() and all(start["outcome"] for start in provenance.read(run)["starts"])


# --- the model -------------------------------------------------------------------------------------------------------


def load_policy(source: Source, recipe: Recipe | None, which: Which) -> BasePolicy:
    """The policy of the recipe with the weights asked for, on the CPU.

    Raises:
        RunError: the run has no such model, or its weights do not fit the recipe.
        RA3Error: the recipe or its base model cannot be used here.
    """
    if source.checkpoint is None:
        return _from_folder(source, which)
    if recipe is None:
        raise RunError(f"{source.checkpoint}: the recipe of its run is missing.")
    alone = "policy" not in recipe.tree["model"]
    if alone and which != "pi":
        raise RunError(f"--which {which}: this is a run of next-token prediction alone. It has one model, pi.")
    prefix = "model." if alone else _PREFIXES[which]
    if not any(name.startswith(checkpoints.MODEL + prefix) for name in _names(source.checkpoint)):
        raise RunError(f"--which {which}: {source.checkpoint} has no such model. {_why(which)}".rstrip())
    policy = build_part(recipe, "model" if alone else "model.policy", BasePolicy)
    try:
        policy.model.load_state_dict(checkpoints.weights(source.checkpoint, prefix))
    except RuntimeError as error:
        raise RunError(f"{source.checkpoint}: the weights do not fit {recipe.path}: {error}") from error
    return policy


def _names(checkpoint: Path) -> list[str]:
    """Of all weights, also those that are another's: a q that shares pi's weights."""
    same = checkpoints.about(checkpoint)["same"]
    return [*checkpoints.metadata(checkpoint), *(checkpoints.MODEL + name for name in same)]


def _why(which: Which) -> str:
    return "The run trains no NTP control (model.control: true)." if which == "ntp" else ""


def _from_folder(source: Source, which: Which) -> BasePolicy:
    assert source.run is not None
    if which == "q":
        raise RunError(f"--which q: {source.run} has no checkpoint, and q's weights are only there.")
    folder = source.run / _FOLDERS[which]
    if not (folder / "config.json").is_file():
        raise RunError(f"--which {which}: {source.run} has no {folder.name}/. {_why(which)}".rstrip())
    return BasePolicy(model=str(folder), dtype="auto")


def set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let config and generation config say what training did: which token begins a text, which ends it, which pads.

    Other settings of a base model's generation config stay, and so do further end tokens that it has. Where they
    contradict each other (top_k without sampling, say) transformers would not save them, and they are left out.
    """
    start, end = start_and_end_ids(tokenizer)
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    known = model.generation_config.to_dict() if model.generation_config is not None else {}
    ends = known.get("eos_token_id")
    if isinstance(ends, list):
        ends = list(dict.fromkeys([end, *ends]))
    ids = {"bos_token_id": start, "eos_token_id": ends if isinstance(ends, list) else end, "pad_token_id": pad}
    kept = {key: value for key, value in known.items() if key not in ("_from_model_config", "transformers_version")}
    model.generation_config = GenerationConfig(**{**kept, **ids, "use_cache": True})
    try:
        model.generation_config.validate(strict=True)
    except ValueError:
        model.generation_config = GenerationConfig(**ids)
    for name, value in {**ids, "eos_token_id": end, "use_cache": True}.items():
        setattr(model.config, name, value)


# --- the card --------------------------------------------------------------------------------------------------------


def _facts(
    source: Source,
    recipe: Recipe | None,
    shown: str | None,
    which: Which,
    written: Exported,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    command: str,
) -> Facts:
    assert source.run is not None
    start, end = (tokenizer.convert_ids_to_tokens(i) for i in start_and_end_ids(tokenizer))
    record = provenance.read(source.run) if (source.run / provenance.FILE).exists() else {}
    return Facts(
        name=written.folder.name,
        which=which,
        architecture=written.architecture,
        parameters=written.parameters,
        dtype=written.dtype,
        context=getattr(model.config, "max_position_embeddings", None),
        start_token=str(start),
        end_token=str(end),
        tree={} if recipe is None else recipe.tree,
        recipe=shown,
        command=provenance.redacted(command),
        checkpoint={} if source.checkpoint is None else checkpoints.about(source.checkpoint),
        provenance=record,
        results=_json(source.run / "results.json"),
        evaluations={
            path.parent.relative_to(source.run / "eval").as_posix(): _json(path)
            for path in sorted(source.run.glob("eval/*/*/results.json"))
        },
        weights=written.weights,
    )


def _json(path: Path) -> Mapping[str, Any]:
    """The content of a file of the run; {} where there is none.

    Raises:
        RunError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read: {error}. The card takes scores from it; repair or remove it."
        ) from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: a mapping is needed.")
    return content
