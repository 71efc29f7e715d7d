"""Durability: runs are killed (SIGKILL) at random moments and resumed until they end; are they the unbroken run?

    python benchmarks/durability.py                 # 100 kills
    python benchmarks/durability.py --stage rlvr    # 60 kills of a run of GRPO
    python benchmarks/durability.py --quick         # 12 kills, writes nothing

Every start of a small RA3 run (two iterations, with the control) is killed in a phase that is drawn beforehand, after a
random delay, or at the latest at a random time, and at most `KILLS_A_RUN` times a run. After some kills the newest
checkpoint is damaged besides. A finished run is compared with one that was never interrupted and saved no checkpoint:
all logged numbers of every step bit for bit, done again or not, the weights and moments of the last checkpoint,
results.json, and the annotated stores.

With `--stage rlvr` the run is one of GRPO with a real verifier: a difficulty filter, answers sampled ahead, two
optimizer steps a batch. Compared are the logged numbers, weights and moments, results.json but for times, and the files
with the sampled answers; and after each kill the processes are counted that the run had started, its verifier's, and
that outlived it.

Reports, by phase of the kill: kills; steps and seconds done again a kill; over all: runs that are equal, snippets
repeated and lost, whole shards annotated again, half-written and damaged checkpoints passed over.
"""

from __future__ import annotations

import argparse
import copy
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from common import Report, default_out

from ra3kit import checkpoints
from ra3kit.testing.kills import (
    PHASES,
    RLVR_PHASES,
    Kill,
    Killer,
    corpus,
    equal_but_for_seconds,
    equal_results,
    newest_step,
    problems,
    recipe,
    rlvr_recipe,
    store_faults,
    unequal_steps,
    unequal_weights,
)

KILLS_A_RUN = 8
WEIGHTS = {
    "ra3": {"start": 1, "warmup": 2, "e": 3, "annotation": 4, "m": 5, "validation": 2, "saving": 4, "report": 1},
    "rlvr": {"start": 1, "sampling": 4, "judging": 4, "learning": 4, "saving": 4, "report": 1},
}
FIRST = {
    "ra3": {"start": 1, "warmup": 6, "e": 2},
    "rlvr": {"start": 1, "difficulty": 3, "sampling": 2, "judging": 2, "learning": 1},
}
"""How often which phase is drawn: in the first start of a run, which is in its warm-up, and in later ones."""
KILLS = {"ra3": 100, "rlvr": 60}
DELAY = 0.2
"""Seconds in the phase, at most, before the kill."""
DAMAGE = 0.2
"""Share of kills after which the newest checkpoint is damaged."""


def never(phase: str, seconds: float) -> bool:
    """Let it run."""
    return False


def moment(target: str, delay: float, latest: float) -> Callable[[str, float], bool]:
    """Kill in the phase, after the delay; at the latest so many seconds from now."""
    end = time.monotonic() + latest
    return lambda phase, seconds: (phase == target and seconds >= delay) or time.monotonic() >= end


def damage(run: Path, draw: random.Random) -> str:
    """Spoil the newest checkpoint in one of three ways; its name, or "" where it is the only one."""
    found = checkpoints.find(run)
    if len(found) < 2:
        return ""
    path = found[-1]
    way = draw.choice(["about", "state", "weights"])
    if way == "about":
        (path / "about.json").write_text("{")
    elif way == "state":
        content = (path / "state.pt").read_bytes()
        (path / "state.pt").write_bytes(content[: draw.randrange(len(content))])
    else:
        shutil.rmtree(path / "weights")
    return path.name


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=KILLS, default="ra3")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    wanted = 12 if arguments.quick else arguments.kills or KILLS[arguments.stage]
    draw = random.Random(arguments.seed)
    name = {"ra3": "durability", "rlvr": "durability-rlvr"}[arguments.stage]
    report = Report(name, arguments.seed, ("torch", "lightning", "transformers"))
    with tempfile.TemporaryDirectory(prefix="durability-") as folder:
        failures = measure(Path(folder), arguments.stage, wanted, draw, report)
    report.finish(arguments.out or default_out(name, arguments.quick))
    if failures:
        sys.exit(f"{failures} of the comparisons failed")


def measure(root: Path, stage: str, wanted: int, draw: random.Random, report: Report) -> int:
    """Kill and compare; fills the report, returns how many comparisons failed."""
    killer = Killer(root)
    content = recipe(corpus(root / "corpus")) if stage == "ra3" else rlvr_recipe(problems(root / "problems.jsonl"))
    bare = copy.deepcopy(content)
    bare["trainer"] |= {"enable_checkpointing": False, "callbacks": content["trainer"]["callbacks"][:-1]}
    killer.write_recipe(bare)
    unbroken(killer, "bare")
    killer.write_recipe(content)
    began = time.monotonic()
    unbroken(killer, "saved")
    length = time.monotonic() - began
    counts: Counter[str] = Counter()
    kills: list[Kill] = []
    counts["unequal_steps_with_checkpoints_and_without"] = unequal_steps(root / "saved", root / "bare")
    while len(kills) < wanted:
        name = f"run-{counts['runs']:03d}"
        one_run(killer, name, stage, min(KILLS_A_RUN, wanted - len(kills)), length, draw, kills, counts)
        compare(root / name, root / "saved", stage, counts)
        print(f"{len(kills)}/{wanted} kills, {counts['runs']} runs, {counts['runs_equal']} equal", flush=True)
        shutil.rmtree(root / name)
    fill(report, stage, kills, counts)
    left = sum(kill.left for kill in kills)
    return counts["runs"] - counts["runs_equal"] + counts["unequal_steps_with_checkpoints_and_without"] + left


def unbroken(killer: Killer, name: str) -> None:
    """A run without interruption."""
    end = killer.start(name, never)
    if end.code != 0:
        sys.exit(f"the unbroken run ended with {end.code}:\n{(killer.folder / f'{name}.log').read_text()[-3000:]}")


def one_run(
    killer: Killer,
    name: str,
    stage: str,
    most: int,
    length: float,
    draw: random.Random,
    kills: list[Kill],
    counts: Counter[str],
) -> None:
    """Start, kill and resume until the run ends; the last start is let run."""
    run = killer.folder / name
    own = 0
    while True:
        weights = WEIGHTS[stage] if own else FIRST[stage]
        target = draw.choices(list(weights), list(weights.values()))[0]
        when = moment(target, draw.uniform(0, DELAY), draw.uniform(0.2, 1.2) * length) if own < most else never
        counts["resumes"] += own > 0
        end = killer.start(name, when)
        if end.phase is None:
            if end.code != 0:
                sys.exit(f"{name} ended with {end.code}:\n{(killer.folder / f'{name}.log').read_text()[-3000:]}")
            break
        own += 1
        kills.append(end)
        half = any(path.name.endswith(checkpoints.PART) for path in checkpoints.passed_over(run))
        counts["half_written_passed_over"] += half and end.phase == "saving"
        if draw.random() < DAMAGE and (spoilt := damage(run, draw)):
            counts["damaged_passed_over"] += 1
            print(f"  {name}: {spoilt} damaged, goes on from step {newest_step(run)}", flush=True)
    counts["runs"] += 1


def compare(run: Path, baseline: Path, stage: str, counts: Counter[str]) -> None:
    """Count what differs from the unbroken run."""
    equal = equal_results if stage == "ra3" else equal_but_for_seconds
    wrong = {
        "steps_unequal": unequal_steps(run, baseline),
        "tensors_unequal": unequal_weights(run, baseline),
        "results_unequal": int(not equal(run, baseline)),
    }
    if stage == "ra3":
        faults = store_faults(run, baseline)
        counts["shards_annotated_again"] += faults.pop("shards_redone")
        names = {"repeated": "snippets_repeated", "lost": "snippets_lost", "other": "snippets_unequal"}
        wrong |= {names[fault]: count for fault, count in faults.items()}
    counts.update(wrong)
    counts["runs_equal_losses"] += wrong["steps_unequal"] == 0
    counts["runs_equal_weights"] += wrong["tensors_unequal"] == 0
    counts["runs_equal"] += not any(wrong.values())
    if any(wrong.values()):
        print(f"  {run.name}: {wrong}", flush=True)


def fill(report: Report, stage: str, kills: list[Kill], counts: Counter[str]) -> None:
    """Counts and means as figures."""
    report.figures["kills"] = len(kills)
    for phase in PHASES if stage == "ra3" else RLVR_PHASES:
        there = [kill for kill in kills if kill.phase == phase]
        report.figures[f"kills_{phase}"] = len(there)
        if there:
            report.figures[f"steps_done_again_{phase}"] = sum(kill.done for kill in there) / len(there)
            report.figures[f"seconds_done_again_{phase}"] = sum(kill.seconds for kill in there) / len(there)
    names: tuple[str, ...] = (
        "resumes",
        "runs",
        "runs_equal",
        "runs_equal_losses",
        "runs_equal_weights",
        "steps_unequal",
        "tensors_unequal",
        "results_unequal",
        "half_written_passed_over",
        "damaged_passed_over",
        "unequal_steps_with_checkpoints_and_without",
    )
    report.figures |= {name: counts[name] for name in names}
    if stage == "ra3":
        names = ("snippets_repeated", "snippets_lost", "snippets_unequal", "shards_annotated_again")
        report.figures |= {name: counts[name] for name in names}
    else:
        report.figures["kills_with_processes_of_the_verifier"] = sum(kill.started > 0 for kill in kills)
        report.figures["processes_that_outlived_their_run"] = sum(kill.left for kill in kills)


if __name__ == "__main__":
    main()
