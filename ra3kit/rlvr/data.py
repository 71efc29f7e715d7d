"""`RLVRDataModule`: training problems as tasks, shared out step by step over ranks, with an account of every record."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ra3kit.data.loader import StepLoader, by_count, share
from ra3kit.data.tokenizer import TokenizerSpec, tokenizer_id, tokenizer_of
from ra3kit.errors import DataError
from ra3kit.evaluation.benchmarks import benchmark
from ra3kit.evaluation.prompts import Style, check_style
from ra3kit.ranges import check_number
from ra3kit.rlvr.difficulty import Chosen, DifficultyFilter, counted
from ra3kit.rlvr.problems.cases import Caps
from ra3kit.rlvr.problems.evaluation_sets import Index
from ra3kit.rlvr.problems.read import Group, Known, Problems, line_of, read
from ra3kit.rlvr.tasks import Task
from ra3kit.verify.jail.wire import WireError
from ra3kit.verify.problem import Problem
from ra3kit.verify.verifier import printable

FIRST_IDS = 8


@dataclass(frozen=True)
class RLVRBatch:
    """What one rank samples and trains on in a step, and what it may sample already.

    Args:
        steps: this rank's tasks of this step, then of each of the `ahead` steps that follow, also beyond the epoch.
        number: of the first of `steps` in the run, from 0: epoch * len(loader) + position.
        visits: for each of `steps` the epoch it is in: with seed and problem id it names the draws.
    """

    steps: list[list[Task]]
    number: int
    visits: list[int]


class ProblemLoader(StepLoader):
    """Gives `RLVRBatch`: each epoch is one permutation of the tasks, drawn from (seed, epoch), cut into steps.

    A step has `size` tasks over all ranks, each on one rank, as many on each as can be. The last step of an epoch is
    shorter, or joins the one before it where it would not reach all ranks; that alone depends on the number of ranks.

    Args:
        tasks: at least as many as ranks.
        size: tasks of one step over all ranks.
        seed, epoch: fix the order.
        ahead: how many coming steps' tasks a batch also carries, >= 0.
        rank, world: this process and how many share the tasks.

    Raises:
        DataError: fewer tasks (in a step, or at all) than ranks.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        size: int,
        seed: int = 0,
        epoch: int = 0,
        ahead: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(tasks) < world:
            raise DataError(f"{len(tasks)} problems cannot be shared by {world} processes; give more data.")
        if size < world:
            raise DataError(
                f"data.prompts_per_step={size} cannot be shared by {world} processes: each samples whole groups of "
                "answers, so give at least as many prompts as processes."
            )
        super().__init__(seed, epoch, rank, world)
        self.tasks, self.size, self.ahead = tasks, size, ahead
        self._hash = tasks_hash(tasks)
        self._steps = self._plan()

    def batch(self, step: int) -> RLVRBatch:
        """This rank's tasks of a step and of those that follow it; after the last come the next epoch's first."""
        places = [divmod(step + further, len(self)) for further in range(self.ahead + 1)]
        visits = [self.epoch + later for later, _ in places]
        steps = [self._own(visit, at) for visit, (_, at) in zip(visits, places, strict=True)]
        return RLVRBatch(steps, self.epoch * len(self) + step, visits)

    def _own(self, epoch: int, step: int) -> list[Task]:
        planned = self._steps if epoch == self.epoch else self._plan_of(epoch)
        # what a group costs is sampled, not read: ranks share the number of tasks, not the tokens of their prompts
        parts = share(planned[step], np.ones(len(self.tasks), np.int64), self.world)
        return [self.tasks[i] for i in parts[self.rank]]

    def _identity(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "seed": self.seed,
            "size": self.size,
            "steps": len(self),
            "problems": len(self.tasks),
            "tasks": self._hash,
        }

    def _plan(self) -> list[list[int]]:
        return self._plan_of(self.epoch)

    def _plan_of(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.tasks))
        return by_count(order, self.size, self.world)


def tasks_hash(tasks: Sequence[Task]) -> str:
    """A hash of what is asked and how it is judged, in the order of tasks, 16 hex digits."""
    return hashlib.sha256("".join(task.content for task in tasks).encode()).hexdigest()[:16]


class RLVRDataModule(L.LightningDataModule):
    """Training problems for GRPO, read by `ra3kit.rlvr.problems`, as `RLVRBatch`.

    Whatever is not trained on is counted: records that are no problems, evaluation data, prompts that are too long,
    problems left out by a limit or by their difficulty. In a run the account, and one prompt as the model sees it, are
    its first lines. Tokenizer, context and `staleness` are those of the trainer's module; alone it needs `tokenizer`.

    Args:
        path: a file, a folder, a set's name ("ra3kit", "mbpp"), or a list of these; what is in two of them counts once.
        prompts_per_step: problems of one step over all ranks, at least as many as ranks. Each has a group of answers.
        style: of the prompt, see `ra3kit.evaluation.prompts.Style`.
        max_prompt_tokens: problems with longer prompts, start token included, are left out; null for any length.
        max_problems: keep at most so many, drawn with `seed`; null keeps all.
        difficulty: keeps problems by the pass rate of the policy that training starts from; null keeps all.
        exclude: benchmarks by name ("mbpp+"): their problems, by id or by text, are left out.
        format: read records of this format only; null tells them by their columns.
        force: train on evaluation data too. The account, the run's summary and the model's card then say so.
        against: files or folders with evaluation sets whose statements are looked for; null: `RA3KIT_DATA`.
        caps: what is kept of one record.
        tokenizer: a `TokenizerSpec`, a folder or hub id, or a tokenizer; null takes the model's.
        seed: of the order and of draws.

    Raises:
        DataError: settings out of range, or (at setup) no problem that can be trained on, or prompts that leave no room
            in the model's context for an answer.
        RecipeError: an unknown style, or chat without a chat template; an unknown benchmark.
    """

    def __init__(
        self,
        path: str | list[str] = "ra3kit",
        prompts_per_step: int = 8,
        style: Style = "complete",
        max_prompt_tokens: int | None = 1024,
        max_problems: int | None = None,
        difficulty: DifficultyFilter | None = None,
        exclude: str | list[str] | None = None,
        format: str | None = None,
        force: bool = False,
        against: str | list[str] | None = None,
        caps: Caps | None = None,
        tokenizer: TokenizerSpec | PreTrainedTokenizerBase | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_number("data.prompts_per_step", prompts_per_step, least=1, whole=True, error=DataError)
        check_number("data.max_prompt_tokens", max_prompt_tokens, least=1, whole=True, optional=True, error=DataError)
        check_number("data.max_problems", max_problems, least=1, whole=True, optional=True, error=DataError)
        check_number("data.seed", seed, least=0, whole=True, error=DataError)
        self.path, self.prompts_per_step, self.style = path, prompts_per_step, check_style(style)
        self.max_prompt_tokens, self.max_problems = max_prompt_tokens, max_problems
        self.difficulty, self.exclude, self.seed = difficulty, _listed(exclude), seed
        self.format, self.force, self.caps = format, force, caps or Caps()
        self.against = None if against is None else _listed(against)
        self._given_tokenizer = tokenizer
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self.sources: list[Problems] = []
        self.left_out: dict[str, Group] = {}
        self.tasks: list[Task] = []
        self._hash = ""
        self._chosen: Chosen | None = None
        self._trained: _Listing | None = None
        self._told = False
        self._loader: ProblemLoader | None = None
        self._loader_state: dict[str, Any] | None = None

    # ---- data -----------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer given, or the model's. Raises DataError where there is neither."""
        if self._tokenizer is None:
            self._tokenizer = tokenizer_of(self, self._given_tokenizer)
        return self._tokenizer

    def setup(self, stage: str | None = None) -> None:
        """Read the problems and encode their prompts; every rank does the same. Does nothing the second time."""
        if self.tasks:
            return
        self.sources, self.left_out = [], {}
        known = Known()
        for path in _listed(self.path):
            self.sources.append(read(path, self.format, self.force, self.caps, self.against, known))
        problems = [problem for source in self.sources for problem in source.problems]
        if not problems and len(self.sources) == 1:
            self.sources[0].for_training()
        excluded = _Listing(
            (name, problem) for name in self.exclude for problem in benchmark(name).function()().problems
        )
        tasks = self._draw([task for problem in problems if (task := self._task(problem, excluded)) is not None])
        if not tasks:
            raise DataError("\n".join([f"data.path={self.path}: no problem to train on.", *self.account()]))
        self._check_room(tasks)
        self.tasks, self._hash = tasks, tasks_hash(tasks)

    def _task(self, problem: Problem, excluded: _Listing) -> Task | None:
        """The task of a problem, or None, and a count of the reason."""
        if (name := excluded.find(problem)) is not None:
            self._leave_out(f"in {name}, which is excluded", problem.id)
            return None
        task = Task.of(problem, self.tokenizer, self.style)
        if self.max_prompt_tokens is not None and len(task.prompt) > self.max_prompt_tokens:
            example = f"{problem.id} with {len(task.prompt):,}"
            self._leave_out(f"prompt above {self.max_prompt_tokens:,} tokens", example)
            return None
        try:
            _ = task.content
        except WireError as error:
            self._leave_out("tests that cannot be sent to the sandbox", f"{problem.id}: {error}")
            return None
        return task

    def _leave_out(self, why: str, example: str) -> None:
        self.left_out.setdefault(why, Group()).add(example)

    def _draw(self, tasks: list[Task]) -> list[Task]:
        """At most so many, drawn with the seed, in reading order."""
        if self.max_problems is None or len(tasks) <= self.max_problems:
            return tasks
        order = np.random.default_rng([self.seed, len(tasks)]).permutation(len(tasks)).tolist()
        for i in sorted(order[self.max_problems :]):
            self._leave_out(f"above max_problems={self.max_problems:,}", tasks[i].problem.id)
        return [tasks[i] for i in sorted(order[: self.max_problems])]

    def _check_room(self, tasks: Sequence[Task]) -> None:
        """Refuse now, not hours later, a prompt that leaves no room for an answer of the length asked for."""
        module = None if self.trainer is None else self.trainer.lightning_module
        room, answer = getattr(module, "max_positions", None), getattr(module, "max_new_tokens", 1)
        longest = max(tasks, key=lambda task: len(task.prompt))
        if room is not None and len(longest.prompt) + answer > room:
            raise DataError(
                f"the prompt of {longest.problem.id!r} has {len(longest.prompt)} tokens, with model.max_new_tokens="
                f"{answer} more than the {room} that the model has room for: set data.max_prompt_tokens="
                f"{max(room - answer, 1)} or less, now {self.max_prompt_tokens}, or fewer new tokens."
            )

    # ---- what there is --------------------------------------------------------------------------------------------

    @property
    def forced(self) -> dict[str, int]:
        """Evaluation set -> how many of its problems are trained on; empty without `force`."""
        self.setup()
        return dict(
            Counter(task.problem.meta["evaluation"] for task in self.tasks if "evaluation" in task.problem.meta)
        )

    def trains_on(self, problem: Problem) -> bool:
        """Whether a problem, of a benchmark say, is one of those trained on, by id or by text."""
        self.setup()
        if self._trained is None:
            self._trained = _Listing(("training", task.problem) for task in self.tasks)
        return self._trained.find(problem) is not None

    def summary(self) -> dict[str, Any]:
        """The account of the data: problems, what was left out and why, evaluation data, difficulty, and a hash."""
        self.setup()
        refused = _added(source.evaluation_sets for source in self.sources if not source.forced)
        rejected = _added(source.rejected for source in self.sources)
        groups = [(str(why), group) for source in self.sources for why, group in source.rejected.items()]
        groups += self.left_out.items()
        lengths = [len(task.prompt) for task in self.tasks]
        summary: dict[str, Any] = {
            "path": self.path,
            "records": sum(source.records for source in self.sources),
            "problems": len(self.tasks),
            "style": self.style,
            "prompt_tokens": sum(lengths),
            "longest_prompt": max(lengths),
            "formats": dict(sum((source.formats for source in self.sources), Counter())),
            "rejected": rejected,
            "left_out": {why: group.count for why, group in self.left_out.items()},
            "evaluation_refused": refused,
            "evaluation_forced": self.forced,
            "fewer_tests": sum(source.limited.count for source in self.sources),
            "compared_with": {name: n for source in self.sources for name, n in source.compared.items()},
            "first_dropped": {why: group.first for why, group in reversed(groups)},
        }
        if self.difficulty is not None or self._chosen is not None:
            summary["difficulty"] = "not measured yet" if self._chosen is None else dict(self._chosen.counts)
        return summary | {"tokenizer": tokenizer_id(self.tokenizer), "data_hash": self.data_hash()}

    def data_hash(self) -> str:
        """A hash of the problems, their tests and their prompts, 16 hex digits; difficulty, measured later, apart."""
        self.setup()
        return self._hash

    def account(self) -> list[str]:
        """What became of every record, a line for each reason."""
        lines = [line for source in self.sources for line in source.account().splitlines()]
        lines += [line_of(group.count, f"left out: {why}", group.first) for why, group in self.left_out.items()]
        return lines

    def opening_lines(self) -> list[str]:
        """The first lines of a run: the account, and one whole prompt as the model sees it."""
        self.setup()
        lengths = sorted(len(task.prompt) for task in self.tasks)
        first = self.tasks[0]
        spread = f"{lengths[0]:,} to {lengths[-1]:,} tokens, {sum(lengths):,} in all"
        lines = [*self.account(), f"{len(self.tasks):,} problems to train on, prompts of {spread}"]
        if self.forced:
            named = ", ".join(f"{count} of {name}" for name, count in self.forced.items())
            lines.append(f"THIS RUN TRAINS ON EVALUATION DATA (force): {named}. Scores on these sets mean nothing.")
        if self._chosen is not None:
            lines.append(f"difficulty, measured when the run began: {counted(self._chosen.counts)}")
        ids = " ".join(map(str, first.prompt[:FIRST_IDS]))
        lines.append(f"the prompt of {first.problem.id}, {len(first.prompt):,} tokens, ids {ids} ...:")
        return [*lines, *printable(str(self.tokenizer.decode(first.prompt))).splitlines(), "(end of the prompt)"]

    # ---- loaders --------------------------------------------------------------------------------------------------

    def steps_per_epoch(self) -> int:
        """Batches of one epoch, before problems are left out for their difficulty."""
        self.setup()
        # the strategy's own word on who shares data is not to be had before its processes have started
        return len(self._make_loader(self.tasks, 0, 1 if self.trainer is None else self.trainer.world_size))

    def train_dataloader(self) -> ProblemLoader:
        """The loader of the current epoch. The first time in a run it prints the account and measures difficulty."""
        self.setup()
        if self.trainer is not None and not self._told:
            self._told = True
            if self.trainer.is_global_zero:
                print("\n".join(self.opening_lines()), flush=True)
        if self.difficulty is not None and self._chosen is None:
            self._chosen = self._choose(self.difficulty)
        kept = None if self._chosen is None else set(self._chosen.kept)
        tasks = [task for task in self.tasks if kept is None or task.problem.id in kept]
        sharing = (None if self.trainer is None else self.trainer.distributed_sampler_kwargs) or {}
        self._loader = self._make_loader(tasks, sharing.get("rank", 0), sharing.get("num_replicas", 1))
        if self._loader_state is not None:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = None
        return self._loader

    def transfer_batch_to_device(self, batch: RLVRBatch, device: torch.device, dataloader_idx: int) -> RLVRBatch:
        """Prompts are lists of ids; whoever samples takes them to the device."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The loader's position, and which problems were kept for their difficulty: it is measured once in a run."""
        return {
            "loader": None if self._loader is None else self._loader.state_dict(),
            "chosen": None if self._chosen is None else asdict(self._chosen),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: the next `train_dataloader()` gives the rest of that epoch."""
        self._loader_state = state_dict["loader"]
        self._chosen = None if state_dict["chosen"] is None else Chosen(**state_dict["chosen"])

    def _choose(self, difficulty: DifficultyFilter) -> Chosen:
        if self.trainer is None:
            raise DataError("data.difficulty: pass rates are those of a model in a run, and there is no trainer.")
        module = self.trainer.lightning_module
        if not hasattr(module, "pass_rates"):
            raise DataError(f"data.difficulty: {type(module).__name__} measures no pass rates; GRPOModule does.")
        return difficulty.choose(self.tasks, module, Path(self.trainer.default_root_dir))

    def _make_loader(self, tasks: Sequence[Task], rank: int, world: int) -> ProblemLoader:
        trainer = self.trainer
        epoch = 0 if trainer is None else trainer.current_epoch
        ahead = 0 if trainer is None else getattr(trainer.lightning_module, "staleness", 0)
        return ProblemLoader(tasks, self.prompts_per_step, self.seed, epoch, ahead, rank, world)


class _Listing:
    """Problems that are looked for by id and by text."""

    def __init__(self, named: Iterable[tuple[str, Problem]]) -> None:
        self._ids: dict[str, str] = {}
        self._index = Index()
        for name, problem in named:
            self._ids[problem.id] = name
            self._index.add(name, problem.prompt)

    def find(self, problem: Problem) -> str | None:
        """The name under which the problem is listed."""
        return self._ids.get(problem.id) or self._index.find(problem.prompt)


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _added(parts: Iterable[Mapping[Any, Group]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for groups in parts:
        total.update({str(name): group.count for name, group in groups.items()})
    return dict(total)
