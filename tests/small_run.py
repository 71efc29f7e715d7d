"""A run folder with a whole checkpoint of the small world, without training: a recipe and weights that think."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from small_world import CONFIG

from ra3kit import checkpoints
from ra3kit.build import build
from ra3kit.latents import LatentGrammar
from ra3kit.policy import BasePolicy
from ra3kit.ranks import gather, rank
from ra3kit.recipe import load

TOKENIZER = {"class_path": "small_world.TinyTokenizer"}
POLICY: dict[str, Any] = {"class_path": "ra3kit.policy.BasePolicy", "config": CONFIG, "tokenizer": TOKENIZER}
POSTERIOR: dict[str, Any] = {
    "class_path": "ra3kit.abstraction.posterior.CausalPosterior",
    "max_length": 6,
    "slots": 8,
    "capacity": 400,
}
DATA: dict[str, Any] = {
    "class_path": "ra3kit.data.module.TrajectoryDataModule",
    "max_tokens": 90,
    "max_lines": 8,
    "docstrings": "keep",
}


def recipe(
    policy: dict[str, Any] | None = None, posterior: dict[str, Any] | None = None, **model: Any
) -> dict[str, Any]:
    """An RA3 recipe of the small world."""
    learner = {"class_path": "ra3kit.abstraction.learner.AbstractionLearner", "rollouts": 3, "scale": "line_sum"}
    prior = {"class_path": "ra3kit.abstraction.prior.FixedPenalty", "c": 0.5, "scale": "line_sum"}
    parts = {"policy": policy or POLICY, "posterior": posterior or POSTERIOR, "prior": prior, "learner": learner}
    return {"model": {"class_path": "ra3kit.abstraction.em.RA3Module", **parts, **model}, "data": DATA}


def ntp(policy: dict[str, Any] | None = None) -> dict[str, Any]:
    """A recipe of next-token prediction alone."""
    return {"model": policy or POLICY, "data": DATA}


def run_folder(run: Path, tree: dict[str, Any], step: int = 12, think: float = 6.0) -> L.LightningModule:
    """Write the run and one checkpoint of it; the module whose weights it has."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(copy.deepcopy(tree)))
    tree = {**tree, "trainer": {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}}
    (run / "build.yaml").write_text(yaml.safe_dump(copy.deepcopy(tree)))
    module = build(load(str(run / "build.yaml")), run).model
    (run / "build.yaml").unlink()
    for number, part in enumerate(policies(module)):
        unlike(part, number)
        make_think(part, module.tokenizer, think)  # type: ignore[arg-type]
    save(run, module, step)
    return module.eval()


def policies(module: L.LightningModule) -> list[torch.nn.Module]:
    """The models in a module: pi, q and the control, each once."""
    if isinstance(module, BasePolicy):
        return [module.model]
    control = [] if module.control is None else [module.control.model]  # type: ignore[union-attr]
    models = [module.policy.model, module.posterior.model, *control]  # type: ignore[union-attr,list-item]
    return list({id(model): model for model in models}.values())  # type: ignore[misc]


@torch.no_grad()
def unlike(model: torch.nn.Module, seed: int) -> None:
    """Move the weights, so that pi, q and the control differ, and LoRA does something."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))


@torch.no_grad()
def make_think(model: torch.nn.Module, tokenizer: Any, think: float) -> None:
    """About `think` on the logits of "#" tokens, and half of it on newlines, without a bias: through one dimension of
    the hidden states that the embeddings make constant. Only where the embeddings aren't tied."""
    weights = dict(model.named_parameters())
    if "lm_head.weight" not in weights:
        return
    grammar = LatentGrammar.of(tokenizer, len(weights["lm_head.weight"]))
    bonus = think * grammar.opens.float() + think / 2 * grammar.ends.float()
    weights["model.embed_tokens.weight"][:, 0] = 4.0
    weights["lm_head.weight"][:, 0] = bonus / 32**0.5


def save(run: Path, module: L.LightningModule, step: int = 12, **facts: Any) -> Path:
    """A checkpoint of the module's weights, as a run of one process or of several writes it."""
    first: dict[int, str] = {}
    tensors, same = {}, {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) in first:
            same[name] = first[id(value)]
        else:
            first[id(value)] = name
            tensors[checkpoints.MODEL + name] = value
    path = checkpoints.place(run, step)
    about = {"step": step, "phase": "m", "same": same, **facts}
    checkpoints.write(path, tensors, {}, about, rank() == 0, lambda value: gather(value)[0])
    return path
