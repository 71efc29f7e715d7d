"""`ra3kit study`: every arm on every seed, in processes of their own, each result written as it comes.

FOLDER/study.json                  what the study is; a study that goes on must be the same
FOLDER/seed-7/ra3/run/             the run of an arm, as `ra3kit fit` leaves it
FOLDER/seed-7/ra3/result.json      written whole when the arm is trained and measured
FOLDER/seed-7/ra3/sampled, greedy  evaluations, as `ra3kit eval` leaves them
FOLDER/results.json, report.html   all of it, anew after each result
BASES/<hash>/run/                  bases, shared by studies: pretrained once for the same recipe and corpus
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ra3kit import __version__
from ra3kit.environment import kit
from ra3kit.errors import RunError
from ra3kit.provenance import now
from ra3kit.recipe import load, to_yaml
from ra3kit.runs import is_finished
from ra3kit.study.arms import ARMS, Arm, chosen, lineage
from ra3kit.study.family import find_family
from ra3kit.study.files import write_json
from ra3kit.study.jobs import Jobs, cost
from ra3kit.study.regime import SLOTS, Preset, Regime

STUDY, RESULT, RESULTS = "study.json", "result.json", "results.json"
MEASURE_MINUTES = 0.7
"""Of one CPU core, about, to measure an arm."""
LAST_LINES = 12
"""Of a log, shown when its job failed."""


@dataclass(frozen=True)
class Task:
    """A piece of work: an arm of a seed is trained, or measured.

    Args:
        seed, arm: whose.
        measure: whether it is measured; else it is trained.
    """

    seed: int
    arm: Arm
    measure: bool

    @property
    def minutes(self) -> float:
        """Of one CPU core, about."""
        return MEASURE_MINUTES if self.measure else self.arm.minutes

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.arm.name}: {'measuring' if self.measure else 'training'}"


class Study:
    """All arms on all seeds.

    Args:
        folder: of the study.
        preset: its numbers; `arms` and `seeds` are what is run, whatever it names.
        arms: with all that they need.
        seeds: of worlds, bases and training alike.
        bases: folder of the bases.
        jobs: processes at a time, each of one thread.
        now: arms and seeds that `run` runs; None: all. The report is of all in any case.
    """

    def __init__(
        self,
        folder: Path,
        preset: Preset,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        bases: Path,
        jobs: int = 1,
        now: tuple[Sequence[Arm], Sequence[int]] | None = None,
    ) -> None:
        self.folder, self.preset, self.bases, self.jobs = folder, preset, bases, jobs
        self.arms, self.seeds = list(arms), list(seeds)
        self.now = now or (self.arms, self.seeds)
        self.hashes: dict[tuple[int, str], str] = {}  # of the bases: each takes a second or more

    # ---- where things are -----------------------------------------------------------------------------------------

    def place(self, seed: int, arm: Arm) -> Path:
        """The folder of an arm."""
        return self.folder / f"seed-{seed}" / arm.name

    def training_place(self, seed: int, arm: Arm) -> Path:
        """The folder that holds an arm's run and its cost: for the base, one that studies share."""
        if arm.after:
            return self.place(seed, arm)
        if (seed, arm.name) not in self.hashes:
            self.hashes[seed, arm.name] = content_hash(arm, self.preset.regime, seed)
        return self.bases / self.hashes[seed, arm.name]

    def run_folder(self, seed: int, arm: Arm) -> Path:
        """The run of an arm."""
        return self.training_place(seed, arm) / "run"

    def result(self, seed: int, arm: Arm) -> dict[str, Any] | None:
        """The result of an arm; None until it is there."""
        path = self.place(seed, arm) / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def results(self) -> dict[int, dict[str, dict[str, Any]]]:
        """seed -> arm -> its result, of those that are there."""
        found = {s: {a.name: self.result(s, a) for a in self.arms if self.wanted(s, a)} for s in self.seeds}
        return {s: {name: r for name, r in arms.items() if r is not None} for s, arms in found.items()}

    def wanted(self, seed: int, arm: Arm) -> bool:
        """Whether an arm is run on a seed: sweeps are run on the first few only."""
        return not arm.sweep or seed in self.seeds[: self.preset.sweep_seeds]

    # ---- what is to be done ---------------------------------------------------------------------------------------

    def tasks(self) -> list[Task]:
        """All that is left to do, in order: an arm on all seeds, then the next.

        Where a result is there, the arm is trained again only if its run is gone and another has to start from it: a
        study goes on elsewhere from its results alone.
        """
        arms, seeds = self.now
        every = [(seed, arm) for arm in arms for seed in seeds if self.wanted(seed, arm)]
        measured = {(seed, arm.name) for seed, arm in every if self.result(seed, arm) is not None}
        needed = {(seed, name) for seed, arm in every if (seed, arm.name) not in measured for name in lineage(arm)}
        left = [Task(seed, arm, measure) for seed, arm in every for measure in (False, True)]
        wanted = (task for task in left if task.measure or (task.seed, task.arm.name) in needed)
        return [task for task in wanted if not self.done(task)]

    def done(self, task: Task) -> bool:
        """Whether a task has been done, now or before the study went on."""
        if task.measure:
            return (self.place(task.seed, task.arm) / RESULT).is_file()
        return is_finished(self.run_folder(task.seed, task.arm))

    def ready(self, task: Task) -> bool:
        """Whether all that a task needs is there."""
        needed = [task.arm] if task.measure else [ARMS[name] for name in task.arm.needs]
        return all(is_finished(self.run_folder(task.seed, arm)) for arm in needed)

    def fit_command(self, seed: int, arm: Arm) -> list[str]:
        """`ra3kit fit ...` of an arm, as it is run. A run that was interrupted goes on."""
        start = self.run_folder(seed, ARMS[arm.after]) / "model" if arm.after else None
        overrides = arm.overrides(self.preset.regime, seed, start)
        run = self.run_folder(seed, arm)
        return ["fit", "--recipe", arm.recipe, "--resume", "auto", f"run.dir={run}", *overrides]

    # ---- doing it -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do all that is left; what is told on the way is one line for each task that is done.

        Raises:
            RunError: a job failed. What is done stays done.
        """
        waiting, jobs, clock = self.tasks(), Jobs(), Clock(self.jobs, self.preset.pace)
        new_results = False
        try:
            while waiting or jobs.running:
                free = self.jobs - len(jobs.running)
                for task in [task for task in waiting if self.ready(task) and self._alone(task, jobs)][:free]:
                    waiting.remove(task)
                    self._start(task, jobs)
                    clock.start(task)
                if not jobs.running:  # cannot happen unless a run that was finished is no more
                    raise RunError(f"{self.folder}: {waiting[0]} needs an arm that is not trained")
                if new_results:  # takes seconds, so the next jobs are at work meanwhile
                    self.write()
                    new_results = False
                for task, code in jobs.finished():
                    if code:
                        raise RunError(self._failure(task, code))
                    clock.end(task)
                    left = clock.left([*waiting, *jobs.running.values()])
                    print(f"{task}, done{self._said(task)}; about {words(left)} left", flush=True)
                    new_results |= task.measure
        finally:
            jobs.stop()
            self.write()  # also what was measured before something failed

    def write(self) -> None:
        """Write results.json and the report of what is there."""
        from ra3kit.study.report import write_report

        write_report(self.folder, self.summary())

    def summary(self) -> dict[str, Any]:
        """All of it as JSON."""
        from ra3kit.study.compare import summary

        about = json.loads((self.folder / STUDY).read_text(encoding="utf-8"))
        return summary(self.preset, about, {arm.name: arm for arm in self.arms}, self.results())

    def _alone(self, task: Task, jobs: Jobs) -> bool:
        """No two jobs train the same base (two seeds never share one, but two studies' folders might)."""
        return all(not (other.arm is task.arm and other.seed == task.seed) for other in jobs.running.values())

    def _start(self, task: Task, jobs: Jobs) -> None:
        seed, arm = task.seed, task.arm
        place = self.place(seed, arm) if task.measure else self.training_place(seed, arm)
        log = place / ("measure.log" if task.measure else "fit.log")
        if task.measure:
            settings = {
                "place": str(place),
                "run": str(self.run_folder(seed, arm)),
                "command": self.fit_command(seed, arm),
                "costs": str(self.training_place(seed, arm) / "costs"),
                "regime": asdict(self.preset.regime),
                "seed": seed,
                "arm": arm.name,
                "split": self.preset.split,
            }
            jobs.start(task, log, place / "measure-costs", "ra3kit.study.run.measure", settings)
            return
        run = self.run_folder(seed, arm)
        if run.is_dir() and not (run / "recipe.yaml").is_file():  # killed before it had begun
            shutil.rmtree(run)
        settings = {"command": self.fit_command(seed, arm)}
        jobs.start(task, log, place / "costs", "ra3kit.study.run.train", settings)

    def _said(self, task: Task) -> str:
        found = self.result(task.seed, task.arm) if task.measure else None
        return "" if found is None else f" (pass@1 {found['sampled']['pass@1']:.1%})"

    def _failure(self, task: Task, code: int) -> str:
        place = self.place(task.seed, task.arm) if task.measure else self.training_place(task.seed, task.arm)
        log = place / ("measure.log" if task.measure else "fit.log")
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        shown = "\n".join(f"  {line}" for line in last)
        return f"{task} failed with exit code {code}; what is done stays done. The end of {log}:\n{shown}"


# --- a study begins, or goes on --------------------------------------------------------------------------------------


def begin(
    folder: Path,
    preset: Preset,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    bases: Path | None = None,
    jobs: int = 1,
) -> Study:
    """A new study, or one that goes on, perhaps with more arms or seeds.

    Args:
        folder: new or empty, or with `resume` that of a study.
        preset: its numbers.
        arms, seeds: what to run now. None: those of the preset; when it goes on, those it had. A study that goes on
            keeps those it had.
        resume: go on.
        bases: None: `bases` beside the folder.
        jobs: at a time.

    Raises:
        RunError: the folder holds something else, or a study with other numbers.
        RecipeError: no such arm.
    """
    path = folder / STUDY
    if resume and not path.is_file() and (folder / RESULTS).is_file():
        unpack(folder)
    there = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if there is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"--out {folder}: it holds something else than a study. Nothing is overwritten.")
    if there is not None and not resume:
        raise RunError(f"--out {folder}: a study is there already. Go on with --resume, or choose a new folder.")
    own = json.loads(json.dumps({"preset": preset.name, "regime": asdict(preset.regime), "split": preset.split}))
    if there is not None:
        for key, was, is_now in _differences({name: there[name] for name in own}, own):
            raise RunError(f"{folder}: its {key} is {was!r}, and now it would be {is_now!r}: that is another study.")
    had = (there or {}).get("arms", []), (there or {}).get("seeds", [])
    now_arms, now_seeds = chosen(arms or had[0] or preset.arms), list(seeds or had[1] or preset.seeds)
    all_arms = chosen([*had[0], *(arm.name for arm in now_arms)])
    all_seeds = [*had[1], *(seed for seed in now_seeds if seed not in had[1])]
    kits = [*(there or {}).get("kits", []), kit()]
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        **own,
        "arms": [arm.name for arm in all_arms],
        "seeds": all_seeds,
        "begun": (there or {}).get("begun") or now()[:19],
        "commands": [*(there or {}).get("commands", []), shlex.join(["ra3kit", *sys.argv[1:]])],
        "kits": [one for number, one in enumerate(kits) if one not in kits[:number]],
    }
    write_json(path, about)
    now_run = (now_arms, now_seeds)
    return Study(folder, preset, all_arms, all_seeds, bases or folder.parent / "bases", jobs, now_run)


def unpack(folder: Path) -> None:
    """Lay out a study of which only results.json is there: what it is, and the result of each arm.

    Raises:
        RunError: the file is not the results of a study.
    """
    path = folder / RESULTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        about, results = found["study"], found["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not the results of a study ({type(error).__name__}: {error})") from error
    for seed, arms in results.items():
        for arm, result in arms.items():
            place = folder / f"seed-{seed}" / arm
            place.mkdir(parents=True, exist_ok=True)
            write_json(place / RESULT, result)
    write_json(folder / STUDY, about)


def _differences(was: Mapping[str, Any], is_now: Mapping[str, Any], name: str = "") -> Iterable[tuple[str, Any, Any]]:
    for key in was.keys() | is_now.keys():
        old, new = was.get(key), is_now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{name}{key}.")
        elif old != new:
            yield f"{name}{key}", old, new


def content_hash(arm: Arm, regime: Regime, seed: int) -> str:
    """A name for what an arm that starts from nothing will be: a hash of its resolved recipe and of its corpus."""
    recipe = load(arm.recipe, arm.overrides(regime, seed, None))
    tree = {key: value for key, value in recipe.tree.items() if key != "run"} | {"seed": recipe.tree["run"]["seed"]}
    digest = hashlib.sha256(to_yaml(tree).encode())
    digest.update(__version__.encode())
    for program in find_family(recipe.tree["data"]["path"], ("base",)).programs():
        digest.update(program.text.encode() + b"\0")
    return digest.hexdigest()[:16]


# --- in a job --------------------------------------------------------------------------------------------------------


def train(command: list[str]) -> None:
    """Run a command of `ra3kit` in one thread, and end the process with its exit code if that is not 0."""
    import torch

    from ra3kit.cli import main

    torch.set_num_threads(1)
    code = main(command)
    if code:
        raise SystemExit(code)


def measure(
    place: str,
    run: str,
    command: list[str],
    costs: str,
    regime: dict[str, Any],
    seed: int,
    arm: str,
    split: str,
) -> None:
    """Measure a trained arm and write its result, whole.

    Args:
        place: its folder.
        run: of its run.
        command: that trained it.
        costs: folder of what that cost.
        regime: of the study, as a mapping.
        seed, arm: whose it is.
        split: of the tasks.
    """
    from ra3kit.study.measures import corpus_name, held_out_programs, measured, of_evaluation, of_run

    numbers = Regime(**{**regime, "base_overrides": tuple(regime["base_overrides"])})
    model, folder = Path(run) / "model", Path(place)
    commands = {"train": shlex.join(["ra3kit", *command])}
    evaluations: dict[str, Any] = {}
    for name, how in (
        ("sampled", [f"n={numbers.samples}", "temperature=1", f"k={'1,5' if numbers.samples >= 5 else '1'}"]),
        ("greedy", ["n=1", "temperature=0"]),
    ):
        asked = evaluation_command(model, folder / name, numbers, seed, split, how)
        commands[name] = shlex.join(["ra3kit", *asked])
        if not (folder / name / RESULTS).is_file():
            resumed = (folder / name / "settings.json").is_file()
            train(["eval", "--resume", str(folder / name)] if resumed else asked)
        evaluations[name] = of_evaluation(folder / name)
    bounds, agreed = measured(model, held_out_programs(numbers, seed), numbers, seed)
    programs = int(ARMS[arm].sets.get("programs", numbers.programs))
    own = of_run(Path(run), corpus_name(numbers, seed, programs), numbers)
    spent = cost(Path(costs))
    result = {
        "arm": arm,
        "seed": seed,
        **spent,
        **own,
        "held_out": bounds,
        "agreement": {"pi": agreed, "q": own.get("annotated", {}).pop("agreement", None)},
        **evaluations,
        "commands": commands,
    }
    write_json(folder / RESULT, result)


def evaluation_command(model: Path, out: Path, regime: Regime, seed: int, split: str, how: Sequence[str]) -> list[str]:
    """`ra3kit eval ...` on the tasks of a world."""
    family = [] if regime.family == "family" else [f"family={regime.family.removeprefix('family:')}"]
    what = [f"split={split}", f"world={seed}", *family, f"limit={regime.tasks}"]
    draws = [*how, f"max_new_tokens={regime.max_new_tokens}", f"seed={seed}", f"batch={SLOTS}", "workers=1"]
    return ["eval", "--model", str(model), "--benchmark", "family", "--out", str(out), *what, *draws]


# --- time ------------------------------------------------------------------------------------------------------------


class Clock:
    """How much time is left: expected minutes of what is left, in the measure of how long what is done has taken.

    Args:
        jobs: at a time.
        pace: of minutes taken to minutes expected, until something is done.
    """

    def __init__(self, jobs: int, pace: float = 1.0) -> None:
        self.jobs, self.pace = jobs, pace
        self.begun: dict[Task, float] = {}
        self.expected = self.taken = 0.0

    def start(self, task: Task) -> None:
        """A task begins."""
        self.begun[task] = time.monotonic()

    def end(self, task: Task) -> None:
        """A task is done."""
        self.expected += task.minutes
        self.taken += (time.monotonic() - self.begun[task]) / 60

    def left(self, tasks: Sequence[Task]) -> float:
        """Minutes until these are done."""
        rate = self.taken / self.expected if self.expected else self.pace
        return rate * sum(task.minutes for task in tasks) / self.jobs


def words(minutes: float) -> str:
    """A duration in words.

    >>> words(0.2), words(12.4), words(200)
    ('1 min', '12 min', '3 h 20 min')
    """
    whole = max(1, round(minutes))
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60} min"


def developing(preset: Preset) -> Preset:
    """The same, with scores on the `val` tasks: for whoever tries things out. Test tasks stay unseen."""
    return replace(preset, split="val")
