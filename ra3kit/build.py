"""From a resolved recipe to objects: Lightning's command line checks types against the signatures and builds them.

Seeding comes first, then the model, the data module and the trainer, in that order, so that a recipe and its seed give
the same initial weights everywhere.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as L
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from transformers.utils.logging import disable_progress_bar

from ra3kit.callbacks.checkpoints import Checkpoints, Resume
from ra3kit.errors import RecipeError
from ra3kit.recipe import Recipe, flatten, normalise
from ra3kit.signatures import check

T = TypeVar("T")

# an argument that takes anything (a model's config, say) is given what the recipe says, never an object made from it
set_parsing_settings(instantiate_subclass_spec_in_any=False)


@dataclass(frozen=True)
class Built:
    """What a recipe builds, and the recipe again with every default written out (flat, re-runnable)."""

    model: L.LightningModule
    data: L.LightningDataModule
    trainer: L.Trainer
    complete: dict[str, Any]


def build(recipe: Recipe, folder: Path, callbacks: tuple[Callback, ...] = (), resume: Resume | None = None) -> Built:
    """Check a recipe, seed everything with `run.seed`, and build model, data and trainer.

    A recipe without a callback that saves gets `Checkpoints`, unless it says `trainer.enable_checkpointing: false`.

    Args:
        recipe: resolved, see `ra3kit.recipe.load`.
        folder: the run folder; TensorBoard files and checkpoints go there. It is not created here.
        callbacks: added to those of the recipe. Each gives way to one of its class there, a progress bar to any other.
        resume: puts the run where a checkpoint was taken.

    Raises:
        RecipeError: something in the recipe does not fit the signatures, or the trainer refuses its settings.
    """
    _hush()
    tree = recipe.tree
    check(tree, recipe.touched)
    trainer_arguments = tree.get("trainer") or {}
    if trainer_arguments.get("default_root_dir") is not None:
        raise RecipeError("trainer.default_root_dir is set by the run folder. Set run.dir instead.")
    arguments = normalise({key: tree[key] for key in ("model", "data", "trainer") if key in tree})
    arguments["seed_everything"] = tree["run"]["seed"]
    failures: list[Exception] = []
    with _quiet_arguments():
        try:
            cli = _Builder(folder, callbacks, arguments, failures, resume)
        except MisconfigurationException as error:
            raise RecipeError(f"trainer: {error}") from error
        except _parser_errors() as error:
            raise RecipeError(clean(str(error))) from error
        except (ValueError, TypeError) as error:
            origin = failures[-1] if failures else origin_of(error)
            if origin is error:
                raise
            raise origin from origin.__cause__
    assert cli.datamodule is not None
    return Built(cli.model, cli.datamodule, cli.trainer, _complete(cli, recipe))


def build_part(recipe: Recipe, key: str, base: type[T]) -> T:
    """One component of a recipe and nothing beside it: its posterior, its policy, its data module.

    Args:
        recipe: resolved.
        key: dotted, of a component: "model.posterior".
        base: what the component must be a subclass of.

    Raises:
        RecipeError: there is no such key, the component is of another kind, or it does not fit its signature.
    """
    _hush()
    node: Any = recipe.tree
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or "class_path" not in node:
        raise RecipeError(f"{recipe.path}: {key} names no component.")
    check(recipe.tree)
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "part", required=True)
    with _quiet_arguments():
        try:
            return parser.instantiate_classes(parser.parse_object({"part": normalise(node)})).part
        except _parser_errors() as error:
            raise RecipeError(f"{recipe.path}: {key}: {clean(str(error))}") from error
        except (ValueError, TypeError) as error:
            if (origin := origin_of(error)) is error:
                raise
            raise origin from origin.__cause__


def accelerator_name(trainer: L.Trainer) -> str:
    """What the trainer runs on, as recipes spell it: cpu, cuda, mps, ..."""
    return type(trainer.accelerator).__name__.removesuffix("Accelerator").lower()


class _Builder(LightningCLI):
    """LightningCLI without its command line: parses a dict, and gives the trainer its folder and logger.

    Errors of constructors are kept in `failures`, as they were raised: jsonargparse turns them into text when an
    argument has several types.
    """

    def __init__(
        self,
        folder: Path,
        callbacks: tuple[Callback, ...],
        arguments: dict[str, Any],
        failures: list[Exception],
        resume: Resume | None,
    ) -> None:
        self._folder = folder
        self._resume = resume
        self._callbacks = callbacks
        self._failures = failures
        super().__init__(
            run=False,
            args=arguments,
            parser_kwargs={"exit_on_error": False},
            save_config_callback=None,
            auto_configure_optimizers=False,
        )

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(self._construct, object)  # after Lightning's own, for modules and data modules

    def _construct(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return class_type(*args, **kwargs)
        except Exception as error:
            self._failures.append(error)
            raise

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self.config_init["trainer"]
        if config["logger"] in (None, True):
            kwargs["logger"] = TensorBoardLogger(
                str(self._folder),
                name="",
                version="",
                default_hp_metric=False,
                purge_step=None if self._resume is None else self._resume.purge_step,
            )
        own = config["callbacks"] or []
        own = own if isinstance(own, list) else [own]
        has_bar = any(isinstance(callback, ProgressBar) for callback in own) or config["enable_progress_bar"] is False
        kinds = {type(callback) for callback in own}
        extra = [added for added in self._callbacks if type(added) not in kinds]
        extra = [added for added in extra if not (has_bar and isinstance(added, ProgressBar))]
        all_of_them = [*([] if self._resume is None else [self._resume]), *own, *extra]
        if config["enable_checkpointing"] is not False and not any(isinstance(c, Checkpoint) for c in own):
            all_of_them.append(Checkpoints())
        try:
            return super().instantiate_trainer(default_root_dir=str(self._folder), callbacks=all_of_them, **kwargs)
        except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:  # how Lightning refuses
            raise RecipeError(f"trainer: {error}") from error


@contextmanager
def _quiet_arguments() -> Iterator[None]:
    """LightningCLI warns when it is given a dict while the process has arguments; hide those while it builds.

    They must come back: Lightning starts the other processes of a multi-device run with them.
    """
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="jsonargparse")
            yield
    finally:
        sys.argv = arguments


def _hush() -> None:
    """Leave out what no user of a recipe can act on."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode")  # frozen copies of pi are meant to be
    if not sys.stdout.isatty():
        disable_progress_bar()  # of transformers, "Writing model shards"


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    """False for Lightning's tips to install cloud services."""
    return "Tip: For seamless cloud" not in record.getMessage()


def _parser_errors() -> tuple[type[Exception], ...]:
    from argparse import ArgumentError as PlainError

    from jsonargparse import ArgumentError

    return (ArgumentError, PlainError)


def origin_of(error: BaseException) -> BaseException:
    """The error of a constructor, out of those jsonargparse wraps around it: the first not raised by jsonargparse."""
    while error.__cause__ is not None and _raised_in(error).startswith("jsonargparse"):
        error = error.__cause__
    return error


def _raised_in(error: BaseException) -> str:
    """The name of the module whose code raised the error."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return str(frame.tb_frame.f_globals.get("__name__", "")) if frame is not None else ""


def clean(message: str) -> str:
    """The useful lines of a jsonargparse error: the key and what was expected, without usage and union noise."""
    noise = re.compile(r"^\s*-?\s*(usage:|Expected a <class 'NoneType'>|.*NestedArg|Errors:|tip:)", re.IGNORECASE)
    lines = [line.strip() for line in message.splitlines() if line.strip() and not noise.match(line)]
    text = " ".join(lines).replace("init_args.", "")
    return re.sub(r"<class '([\w.]+)'>", r"\1", text)


def _complete(cli: _Builder, recipe: Recipe) -> dict[str, Any]:
    """The recipe with every default of its classes written out, so that a later change of a default changes nothing.

    The folder is left out: running it again starts a new one.
    """
    dumped = yaml.safe_load(cli.parser.dump(cli.config, skip_unset=False, format="yaml"))
    trainer = {key: value for key, value in dumped["trainer"].items() if value is not None}
    sections = {"model": dumped["model"], "data": dumped["data"], "trainer": trainer}
    run = {"name": recipe.name, "seed": recipe.tree["run"]["seed"]}
    return {"run": run, **{key: _storable(flatten(section)) for key, section in sections.items()}}


def _storable(node: Any) -> Any:
    """Without the defaults that cannot be written down (objects); leaving a default out keeps it."""
    if isinstance(node, dict):
        return {key: _storable(value) for key, value in node.items() if not _is_object(value)}
    return [_storable(item) for item in node] if isinstance(node, list) else node


def _is_object(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("Unable to serialize instance")
