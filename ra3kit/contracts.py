"""Every contract that a component of your own can stand in for, and the kit's classes that keep it.

The classes are found by reading the package's source, so nothing is imported: the list is there at once, and a module
that needs an extra is in it too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class Contract:
    """What a kind of component has to keep to.

    Args:
        name: of the kind, one word.
        base: import path of the base class, whose docstring is the contract; of a function, where its docstring is.
        key: where a recipe names such a component; "" where none does.
        checker: name in `ra3kit.testing`; "" where there is none.
        when: when the kit calls it, and which of its methods.
    """

    name: str
    base: str
    key: str
    checker: str
    when: str


CONTRACTS = (
    Contract(
        "prior",
        "ra3kit.abstraction.prior.LatentPrior",
        "model.prior",
        "check_prior",
        "`penalty`, on the latents of each E-step update",
    ),
    Contract(
        "posterior",
        "ra3kit.abstraction.posterior.LatentPosterior",
        "model.posterior",
        "check_posterior",
        "`start_iteration`, `draw`, `views` in the E-step, `annotate` at its end",
    ),
    Contract(
        "learner",
        "ra3kit.abstraction.learner.AbstractionLearner",
        "model.learner",
        "check_learner",
        "`update`, with each batch of the E-step",
    ),
    Contract(
        "policy",
        "ra3kit.policy.BasePolicy",
        "model.policy",
        "check_policy",
        "`row_loss` in warm-up and M-step, `score` and `snapshot` for rewards, `save` at the end",
    ),
    Contract(
        "segmenter",
        "ra3kit.actions.ActionSegmenter",
        "data.segmenter",
        "check_segmenter",
        "`segment`, once on each text when the data is read",
    ),
    Contract(
        "tokenizer",
        "ra3kit.data.tokenizer.TokenizerSpec",
        "model.policy.tokenizer",
        "check_tokenizer_spec",
        "`load`, when the policy is built",
    ),
    Contract(
        "decontaminator",
        "ra3kit.data.snippets.Corpus",
        "data.decontaminate",
        "check_decontaminator",
        "on each text as it is read: a `callable(text) -> bool`, by its import path alone",
    ),
    Contract(
        "data",
        "ra3kit.data.module.TrajectoryDataModule",
        "data",
        "check_data_module",
        "`set_phase` and `train_dataloader` at the start of each phase",
    ),
    Contract(
        "switch",
        "ra3kit.callbacks.em_switch.EMSwitch",
        "trainer.callbacks",
        "check_em_switch",
        "`should_switch`, after each optimizer step",
    ),
    Contract(
        "callback",
        "lightning.pytorch.callbacks.Callback",
        "trainer.callbacks",
        "check_callback",
        "its hooks, by Lightning's trainer",
    ),
    Contract(
        "module",
        "lightning.pytorch.LightningModule",
        "model",
        "",
        "by Lightning's trainer: what `fit` trains, `RA3Module` or a `BasePolicy` alone",
    ),
    Contract(
        "reward",
        "ra3kit.rlvr.rewards.Reward",
        "model.reward",
        "check_reward",
        "on each answer of a step of RLVR, once it is judged: `reward(answer, max_new_tokens)`, and `outcome`",
    ),
    Contract(
        "backend",
        "ra3kit.rlvr.backend.RolloutBackend",
        "model.backend",
        "check_rollout_backend",
        "`refresh`, then `sample` inside `session`, once a step of RLVR; `free` at the end",
    ),
    Contract(
        "verifier",
        "ra3kit.verify.verifier.Verifier",
        "",
        "check_verifier_backend",
        "`verify_batch`, by your own code: no recipe names one",
    ),
    Contract(
        "benchmark",
        "ra3kit.evaluation.records.Problems",
        "",
        "check_benchmark",
        "when `ra3kit.evaluation.benchmarks.load` reads it",
    ),
)


@dataclass(frozen=True)
class Found:
    """A class of the package, as its source tells.

    Args:
        name: of the class.
        path: its import path.
        bases: names of its bases, as written, without their modules.
        summary: first line of its docstring.
    """

    name: str
    path: str
    bases: tuple[str, ...]
    summary: str


_LEFT_OUT = ("cli/", "testing/", "verify/jail/", "verify/zoo/", "evaluation/problems/")


@cache
def classes() -> tuple[Found, ...]:
    """The public classes of the package, in the order of their import paths."""
    root = Path(str(resources.files("ra3kit")))
    found: list[Found] = []
    for folder in (root, root / "callbacks"):  # a link, which a search for files does not follow
        for path in folder.rglob("*.py"):
            inside = path.relative_to(root).as_posix()
            if not inside.startswith(_LEFT_OUT):
                module = ".".join(["ra3kit", *Path(inside).with_suffix("").parts]).removesuffix(".__init__")
                found += _classes_in(path.read_text(encoding="utf-8"), module)
    return tuple(sorted(set(found), key=lambda item: item.path))


def _classes_in(source: str, module: str) -> Iterator[Found]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
            summary = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            yield Found(node.name, f"{module}.{node.name}", bases, summary)


def members(contract: Contract) -> list[Found]:
    """The kit's classes that keep a contract, the base class first where it can be used itself."""
    everything = classes()
    base = contract.base.rpartition(".")[2]
    if contract.name in ("benchmark", "decontaminator"):
        return []
    kin = {base}
    while grown := {item.name for item in everything if kin & set(item.bases)} - kin:
        kin |= grown
    found = [item for item in everything if item.name in kin and not _is_abstract(item)]
    if contract.name == "callback":  # a metric may have a callback's name
        found = [item for item in found if item.path.startswith("ra3kit.callbacks.") and item.name != "EMSwitch"]
    if contract.name == "module":
        parts = {item.path for other in CONTRACTS if other.key.startswith("model.") for item in members(other)}
        found = [item for item in found if item.path not in parts or item.name == "BasePolicy"]
    return sorted(found, key=lambda item: (item.path != contract.base, item.path))


def _is_abstract(item: Found) -> bool:
    return "ABC" in item.bases


def contract_of(path: str) -> Contract | None:
    """The contract a class of the kit keeps, by its import path; None for a class that is no component."""
    return next((contract for contract in CONTRACTS if any(item.path == path for item in members(contract))), None)
