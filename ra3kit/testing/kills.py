"""Real kills: runs `ra3kit fit` in processes of its own, ends them with SIGKILL at chosen moments, and compares.

Children are forked from a process that has imported everything once (multiprocessing's forkserver), so that a start
costs a second. What a child is doing stands in a small file that the killer polls; nothing in the package knows of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml

from ra3kit import checkpoints
from ra3kit.data.store import BootstrappedStore, StoreWriter
from ra3kit.data.tokenizer import TokenizerSpec
from ra3kit.testing.models import CORPUS, TINY_CONFIG, tiny_tokenizer

NOW, STEPS, SHARDS = "now.txt", "steps.jsonl", "shards.txt"
"""Beside the run folder: what the run does now; a line a step; a line a shard written."""

PHASES = ("start", "warmup", "e", "annotation", "m", "validation", "saving", "report")
RLVR_PHASES = ("start", "difficulty", "sampling", "judging", "learning", "saving", "report")


class TinyTokenizer(TokenizerSpec):
    """The tokenizer of the tiny models."""

    def load(self) -> Any:
        return tiny_tokenizer()


def recipe(world: Path, steps: int = 2, keep: int = 2) -> dict[str, Any]:
    """RA3 at small size: two iterations, a control, every kind of state there is.

    Args:
        world: where `corpus` was written.
        steps: optimizer steps between two checkpoints.
        keep: checkpoints kept.
    """
    em = {"iterations": 2, "warmup_steps": 8, "e_steps": 5, "m_steps": 8, "shard_size": 4}
    callbacks = "ra3kit.callbacks"
    return {
        "run": {"seed": 3},
        "model": {
            "class_path": "ra3kit.abstraction.em.RA3Module",
            "eval_rollouts": 2,
            "noise_floor_every": 2,
            "policy": {
                "class_path": "ra3kit.policy.BasePolicy",
                "config": {"model_type": "qwen2", **TINY_CONFIG, "tie_word_embeddings": True},
                "tokenizer": {"class_path": "ra3kit.testing.kills.TinyTokenizer"},
                "optimization": {"lr": 1e-2, "warmup": 0.1},
            },
            "posterior": {
                "class_path": "ra3kit.abstraction.posterior.CausalPosterior",
                "max_length": 5,
                "think": "always",
                "slots": 16,
                "capacity": 400,
            },
            "prior": {"class_path": "ra3kit.abstraction.prior.FixedPenalty", "c": 0.5, "scale": "line_sum"},
            "learner": {
                "class_path": "ra3kit.abstraction.learner.AbstractionLearner",
                "rollouts": 3,
                "scale": "line_sum",
                "optimization": {"lr": 1e-3, "warmup": 0.0},
            },
        },
        "data": {
            "class_path": "ra3kit.data.module.TrajectoryDataModule",
            "path": str(world),
            "max_tokens": 200,
            "max_lines": 12,
            "snippets_per_step": 3,
            "tokens_per_step": 300,
            "tokens_per_forward": 300,
            "val_fraction": 0.2,
            "max_val_snippets": 6,
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": -1,
            "reload_dataloaders_every_n_epochs": 1,
            "num_sanity_val_steps": 1,
            "log_every_n_steps": 1,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": f"{callbacks}.em_switch.EMSwitch", **em},
                {"class_path": f"{callbacks}.latent_monitor.LatentMonitor", "every": 2},
                {"class_path": f"{callbacks}.report.RunReport"},
                {"class_path": "ra3kit.testing.kills.Trace"},
                {"class_path": f"{callbacks}.checkpoints.Checkpoints", "every_n_steps": steps, "keep": keep},
            ],
        },
    }


def rlvr_recipe(world: Path, steps: int = 2, keep: int = 2) -> dict[str, Any]:
    """GRPO at small size, judged by the real verifier: answers sampled ahead, two optimizer steps a batch, a difficulty
    filter.

    Args:
        world: the file that `problems` wrote.
        steps: optimizer steps between two checkpoints.
        keep: checkpoints kept.
    """
    content = recipe(world, steps, keep)
    policy = content["model"]["policy"]
    content["model"] = {
        "class_path": "ra3kit.rlvr.grpo.GRPOModule",
        "policy": policy,
        "judge": {"class_path": "ra3kit.rlvr.judge.Judge", "workers": 2},
        "group_size": 4,
        "max_new_tokens": 16,
        "staleness": 1,
        "minibatches": 2,
        "mask_truncated": False,
    }
    content["data"] = {
        "class_path": "ra3kit.rlvr.data.RLVRDataModule",
        "path": str(world),
        "force": True,  # records of this form count as evaluation data
        "against": [],
        "prompts_per_step": 3,
        "difficulty": {"class_path": "ra3kit.rlvr.difficulty.DifficultyFilter", "samples": 3, "chunk": 4, "low": -1.0},
    }
    callbacks = content["trainer"]["callbacks"][2:]
    monitor = {"class_path": "ra3kit.callbacks.rlvr_monitor.RLVRMonitor", "every": 3}
    content["trainer"] |= {"max_epochs": 4, "reload_dataloaders_every_n_epochs": 0, "callbacks": [monitor, *callbacks]}
    return content


def problems(path: Path, count: int = 11) -> Path:
    """Functions that are written already: an answer is right where it is a comment, or what else is harmless."""
    test = "def check(candidate):\n    assert candidate(2) == {}\n"
    rows = [
        {
            "task_id": f"own/{i}",
            "prompt": f"def f{i}(x):\n    return {i} * x  # ",
            "canonical_solution": "done\n",
            "entry_point": f"f{i}",
            "test": test.format(2 * i),
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def corpus(folder: Path, files: int = 16) -> Path:
    """Files of Python, alike but not the same."""
    folder.mkdir(parents=True)
    for i in range(files):
        (folder / f"file_{i}.py").write_text(CORPUS.replace("total", f"total_{i}").replace("Stack", f"Stack{i}"))
    return folder


# --- in the run ------------------------------------------------------------------------------------------------------


class Trace(L.Callback):
    """Keeps what every step logged, with floats as they are, and says what the run does now."""

    def __init__(self) -> None:
        self.since = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.since = time.monotonic()
        say(Path(trainer.default_root_dir), str(getattr(pl_module, "phase", "train")))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        values = {key: float(v).hex() for key, v in sorted(trainer.callback_metrics.items()) if "second" not in key}
        row = {
            "step": trainer.global_step,
            "phase": getattr(pl_module, "phase", "train"),
            "batch": batch_idx,
            "logged": values,
            "seconds": time.monotonic() - self.since,
        }
        append(Path(trainer.default_root_dir), STEPS, json.dumps(row))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        say(Path(trainer.default_root_dir), "validation")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        say(Path(trainer.default_root_dir), "report")


def say(run: Path, what: str) -> None:
    """Say what the run does now."""
    (run.parent / f"{run.name}.{NOW}").write_text(what)


def append(run: Path, name: str, line: str) -> None:
    """Add a line that survives the end of the process."""
    descriptor = os.open(run.parent / f"{run.name}.{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def instrument() -> None:
    """Let writing and annotating say that they go on. Done in the child, by wrapping from outside."""
    from ra3kit.callbacks.em_switch import EMSwitch
    from ra3kit.rlvr.grpo import GRPOModule

    for name, phase in (("pass_rates", "difficulty"), ("_sample", "sampling"), ("_judged", "judging")):
        setattr(GRPOModule, name, _saying(phase, getattr(GRPOModule, name)))
    GRPOModule._learn = _saying("learning", GRPOModule._learn)  # type: ignore[method-assign]
    write, annotate, write_shard = checkpoints.write, EMSwitch._annotate, StoreWriter.write

    def saying(target: Path, *args: Any, **kwargs: Any) -> None:
        say(target.parent.parent, "saving")
        write(target, *args, **kwargs)

    def annotating(self: Any, trainer: L.Trainer, module: Any) -> BootstrappedStore:
        say(Path(trainer.default_root_dir), "annotation")
        return annotate(self, trainer, module)

    def writing(self: StoreWriter, number: int, trajectories: Any) -> None:
        write_shard(self, number, trajectories)
        append(self.folder.parent.parent, SHARDS, f"{self.folder.name}/{number}")

    checkpoints.write, EMSwitch._annotate, StoreWriter.write = saying, annotating, writing  # type: ignore[method-assign]


def _saying(phase: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A module's method that says that it begins."""

    def saying(self: L.LightningModule, *arguments: Any, **named: Any) -> Any:
        say(Path(self.trainer.default_root_dir), phase)
        return method(self, *arguments, **named)

    return saying


def fit(folder: str, arguments: Sequence[str], log: str) -> None:
    """The child: `ra3kit fit` in a working directory, what it prints into a file; ends the process."""
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    from ra3kit.cli import main

    instrument()
    sys.argv = ["ra3kit", "fit", *arguments]
    code = main(["fit", *arguments])
    sys.stdout.flush()
    os._exit(code)


# --- the killer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """How a start ended.

    Args:
        phase: what it was doing; None where it came to its end.
        code: exit code, -9 after a kill.
        had: step of the newest whole checkpoint it left, 0 for none.
        done: steps done since that checkpoint, which are done again.
        seconds: that those steps took.
        started, left: processes that it had started, a verifier's, when it was killed; those of them that outlived it.
    """

    phase: str | None
    code: int
    had: int
    done: int
    seconds: float
    started: int = 0
    left: int = 0


class Killer:
    """Starts runs in one folder and kills them.

    Args:
        folder: working directory; holds `recipe.yaml` of the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["ra3kit.testing.kills", "ra3kit.cli.fit", "ra3kit.build"])

    def write_recipe(self, content: dict[str, Any]) -> None:
        """The recipe of all runs here."""
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(content))

    def start(self, name: str, when: Callable[[str, float], bool], *arguments: str) -> Kill:
        """Start or resume the run `name`, and kill it as soon as `when(what it does, seconds in that)` says so."""
        run = self.folder / name
        say(run, "start")
        given = arguments or ("--recipe", "recipe.yaml", "--resume", "auto", f"run.dir={name}")
        child = self._context.Process(target=fit, args=(str(self.folder), given, f"{name}.log"))
        child.start()
        phase, since = "start", time.monotonic()
        killed = None
        started: set[tuple[int, str]] = set()
        while child.is_alive():
            now = (self.folder / f"{name}.{NOW}").read_text() or phase
            if now != phase:
                phase, since = now, time.monotonic()
            if when(phase, time.monotonic() - since):
                os.kill(int(child.pid or 0), signal.SIGSTOP)  # so that it starts no more while it is looked at
                started = descendants(int(child.pid or 0))
                child.kill()
                killed = phase
                break
            time.sleep(0.0005)
        child.join()
        code = int(child.exitcode or 0)
        at = newest_step(run)
        again = [row for row in steps(run) if row["step"] > at] if code == -9 else []
        seconds = sum(row["seconds"] for row in again)
        outlived = len(outliving(started))
        return Kill(killed if code == -9 else None, code, at, len(again), seconds, len(started), outlived)


def descendants(process: int) -> set[tuple[int, str]]:
    """Processes below one: their numbers and when they started, which no later process of the same number did."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = (int(fields[1]), fields[19])
    found = {process}
    while grown := {number for number, (parent, _) in parents.items() if parent in found} - found:
        found |= grown
    return {(number, parents[number][1]) for number in found - {process} if number in parents}


def outliving(started: set[tuple[int, str]], within: float = 5.0) -> set[tuple[int, str]]:
    """Those that are still there after so many seconds."""
    end = time.monotonic() + within
    while (left := started & descendants(0)) and time.monotonic() < end:
        time.sleep(0.01)
    return left


def newest_step(run: Path) -> int:
    """Step of the newest whole checkpoint; 0 without one."""
    found = checkpoints.find(run)
    return int(checkpoints.about(found[-1])["step"]) if found else 0


# --- what must be equal ----------------------------------------------------------------------------------------------


def steps(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's steps; a step that was done again has several."""
    path = run.parent / f"{run.name}.{STEPS}"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def unequal_steps(run: Path, baseline: Path) -> int:
    """Lines that differ from the unbroken run's step, and steps of it that were never done."""
    wanted = {row["step"]: (row["phase"], row["batch"], row["logged"]) for row in steps(baseline)}
    seen = steps(run)
    wrong = [row for row in seen if wanted.get(row["step"]) != (row["phase"], row["batch"], row["logged"])]
    return len(wrong) + len(wanted.keys() - {row["step"] for row in seen})


def unequal_weights(run: Path, baseline: Path) -> int:
    """Tensors of the last checkpoints, moments of the optimizers too, that are not equal bit for bit."""
    one, two = checkpoints.resolve(run), checkpoints.resolve(baseline)
    names = checkpoints.metadata(two)
    if names.keys() != checkpoints.metadata(one).keys():
        return len(names.keys() ^ checkpoints.metadata(one).keys())
    mine, its = _tensors(one), _tensors(two)
    return sum(not torch.equal(mine[name], its[name]) for name in names)


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    found = checkpoints.metadata(checkpoint)
    tensors = {name: torch.empty(tuple(kind.size), dtype=kind.properties.dtype) for name, kind in found.items()}
    checkpoints.read_into(checkpoint, tensors, alone=True)
    return tensors


def equal_results(run: Path, baseline: Path) -> bool:
    """Whether the reports hold the same scores, histories and samples."""
    return (run / "results.json").read_text() == (baseline / "results.json").read_text()


def equal_but_for_seconds(run: Path, baseline: Path) -> bool:
    """Whether results and sampled answers of runs of GRPO are the same, times and what came from a cache aside."""
    names = [path.relative_to(baseline) for path in sorted((baseline / "samples").iterdir())]
    if names != [path.relative_to(run) for path in sorted((run / "samples").iterdir())]:
        return False
    return all(timeless(run / name) == timeless(baseline / name) for name in [Path("results.json"), *names])


def timeless(path: Path) -> str:
    """The content of a file of a run of GRPO without what a clock has said, or depends on a cache."""

    def of(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: of(value) for key, value in node.items() if "second" not in key and key != "measured now"}
        return [of(item) for item in node] if isinstance(node, list) else node

    text = path.read_text()
    return repr([of(json.loads(line)) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])])


def store_faults(run: Path, baseline: Path) -> dict[str, int]:
    """Snippets repeated, lost and otherwise than in the unbroken run, and shards written more than once."""
    faults = {"repeated": 0, "lost": 0, "other": 0}
    for folder in sorted((baseline / "store").iterdir()):
        mine, its = BootstrappedStore.open(run / "store" / folder.name), BootstrappedStore.open(folder)
        names, wanted = [t.snippet_id for t in mine], [t.snippet_id for t in its]
        faults["repeated"] += len(names) - len(set(names))
        faults["lost"] += len(set(wanted) - set(names))
        faults["other"] += sum(a.ids.tolist() != b.ids.tolist() for a, b in zip(mine, its, strict=False))
        faults["other"] += names != wanted
    written = (run.parent / f"{run.name}.{SHARDS}").read_text().split()
    return {**faults, "shards_redone": len(written) - len(set(written))}
