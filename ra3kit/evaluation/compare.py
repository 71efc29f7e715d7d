"""Is this difference real? Evaluations of one benchmark compared problem by problem, with intervals and p-values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ra3kit.errors import DataError, nearest
from ra3kit.evaluation.passk import ALPHA, RESAMPLES, bounds_when_all_equal, per_problem, picks, tail_rank, tally
from ra3kit.verify.problem import JUDGED, Status

RESULTS = "results.json"

MAY_DIFFER = frozenset({"model", "step", "seed", "sampling.seed", "sampling.n"})
"""Settings, or sections of them, that say which model was measured and with which draws, not how: no warning when they
differ. `sampling.n` is the `n` of the results again."""

FEW_SEEDS = 3
"""With fewer seeds a side the interval misses a difference between seeds too often (docs/evaluation-statistics.md)."""

EXACT = 12
"""Decimals to which resampled differences are rounded: below lies the noise of adding fractions, and a tie is a tie."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, as its `results.json` has it.

    Args:
        name: the shortest end of its path that tells it from the others.
        path: the file.
        benchmark, model: names. ks: the k of its scores.
        outcomes: problem -> verdicts of its samples; base_outcomes: on the benchmark's base tests alone, None without.
        settings: the eval card, nested mappings flattened to "versions.torch", with `n`.
    """

    name: str
    path: Path
    benchmark: str
    model: str
    ks: tuple[int, ...]
    outcomes: Mapping[str, Sequence[Status]]
    base_outcomes: Mapping[str, Sequence[Status]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A score of two arms and their difference `ours - theirs`, each from 0 to 1 (the difference from -1 to 1).

    Args:
        ours, theirs: the means, over problems and seeds.
        value, lo, hi: the difference and its 95 % interval.
        p: two-sided, of the paired bootstrap. p_holm: adjusted for the comparisons made at once.
        problems: problems it is over; differing: how many of them have another score in the other arm.
        left_out: problems in common with fewer than k judged samples in some run.
    """

    ours: float
    theirs: float
    value: float
    lo: float
    hi: float
    p: float
    p_holm: float
    problems: int
    differing: int
    left_out: tuple[str, ...] = ()

    @property
    def real(self) -> bool:
        """Whether the difference is real at the 5 % level: by its adjusted p-value, and 0 outside its interval."""
        return self.p_holm <= ALPHA and not self.lo <= 0 <= self.hi


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test: problems that only one of two runs solves with its first sample, and the two-sided p."""

    only_ours: int
    only_theirs: int
    p: float


@dataclass(frozen=True)
class Change:
    """A problem's pass rate in both arms, from 0 to 1."""

    task: str
    ours: float
    theirs: float


@dataclass(frozen=True)
class Comparison:
    """One arm against another.

    Args:
        ours, theirs: the runs of each arm, one a seed.
        benchmark: its name. tasks: problems that all runs have.
        not_shared: run -> how many of its problems some other run lacks; empty where all have the same.
        by_run: run -> its pass@1 on the problems the comparison is over.
        unjudged: samples that could not be judged (internal, refused), over all runs and shared problems.
        scores: "pass@k" -> difference; base_scores: on the base tests, where all runs have them.
        unmeasured: scores for which no problem has enough judged samples in all runs.
        mcnemar: for one run a side, else None.
        settings: setting that differs -> its distinct values, for a warning.
        won, lost: problems whose pass rate is higher, lower in `ours`, the largest change first.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    benchmark: str
    tasks: int
    not_shared: Mapping[str, int]
    by_run: Mapping[str, float]
    unjudged: int
    scores: Mapping[str, Difference]
    base_scores: Mapping[str, Difference]
    unmeasured: tuple[str, ...]
    mcnemar: McNemar | None
    settings: Mapping[str, tuple[Any, ...]]
    won: tuple[Change, ...]
    lost: tuple[Change, ...]


def read_evaluations(paths: Sequence[str | Path]) -> list[Evaluation]:
    """Read the `results.json` of evaluation folders (or the files themselves).

    Raises:
        DataError: a path that is no evaluation, by name, and what it lacks.
    """
    files = [path / RESULTS if path.is_dir() else path for path in (Path(p).expanduser() for p in paths)]
    return [_read(file, name) for file, name in zip(files, _names(files), strict=True)]


def paired_bootstrap(ours: np.ndarray, theirs: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Difference of two arms' mean scores on the same problems, by a bootstrap over problems and over seeds.

    A resample draws problems, the same for all runs: what makes a problem hard for both arms cancels. In an arm of
    s > 1 seeds it also draws s - 1 of them (Rao and Wu 1988: s draws would show only (s - 1) / s of the seeds'
    variance). Seeds and problems drawn together count the noise of the samples more than once (Owen 2007), on the safe
    side. An arm of one seed keeps it: the result then says nothing about other training seeds.

    The interval is the percentile interval. p is twice the share of resamples at or beyond 0, on the side that has
    fewer: the interval inverted, so p <= 5 % exactly where the interval leaves out 0. But with m problems that differ
    it is never less than 2^(1 - m): no sign-flip test of m problems can go lower, and a bootstrap that has seen only
    those m would. Where all resamples are equal, the interval is `bounds_when_all_equal`.

    Args:
        ours: float [s, p], scores from 0 to 1 by seed and problem. theirs: float [t, p], the same problems.
        seed: of the resampling. resamples: >= 39.

    Returns:
        The difference; exchanging the arms changes its signs and nothing else.

    Raises:
        DataError: no problem, or too few resamples.
    """
    if not ours.size or not theirs.size:
        raise DataError("No problem to compare on.")
    # one order of the arms whichever way they come: each gets the same draws, and signs flip exactly
    if (theirs.shape, theirs.tobytes()) < (ours.shape, ours.tobytes()):
        other = paired_bootstrap(theirs, ours, seed, resamples)
        flipped = replace(other, ours=other.theirs, theirs=other.ours)
        return replace(flipped, value=0.0 - other.value, lo=0.0 - other.hi, hi=0.0 - other.lo)
    problems, tail = ours.shape[1], tail_rank(resamples)
    rng = np.random.default_rng([seed, 1])  # of the seeds; the problems have their own
    pieces = [_arm_mean(ours, pick, rng) - _arm_mean(theirs, pick, rng) for pick in picks(problems, seed, resamples)]
    drawn = np.sort(np.concatenate(pieces).round(EXACT))
    by_problem = (ours.mean(0) - theirs.mean(0)).round(EXACT)
    differing = int(np.count_nonzero(by_problem))
    lo, hi = float(drawn[tail - 1]), float(drawn[-tail])
    if drawn[0] == drawn[-1]:  # a difference lies in [-1, 1]
        lo, hi = (2 * bound - 1 for bound in bounds_when_all_equal((1 + lo) / 2, problems))
    beyond = int(min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0)))
    p = min(1.0, max(2 * (1 + beyond) / (resamples + 1), 2.0 ** (1 - differing)))
    value = float(by_problem.mean())
    return Difference(float(ours.mean()), float(theirs.mean()), value, lo, hi, p, p, problems, differing)


def mcnemar(only_ours: int, only_theirs: int) -> McNemar:
    """McNemar's exact test: under the null, each problem that only one run solves is a fair coin's work.

    Args:
        only_ours, only_theirs: problems that only one of the two runs solves, >= 0.

    >>> mcnemar(9, 1).p
    0.021484375
    """
    coins = only_ours + only_theirs
    tail = sum(math.comb(coins, i) for i in range(min(only_ours, only_theirs) + 1))
    return McNemar(only_ours, only_theirs, min(1.0, 2 * tail / 2**coins))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) of p-values looked at together, in the order given.

    >>> holm([0.25, 0.125, 0.75])
    [0.5, 0.375, 0.75]
    """
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = running
    return adjusted


def compare(
    arms: Sequence[Sequence[Evaluation]], against: Sequence[Evaluation], seed: int = 0, resamples: int = RESAMPLES
) -> list[Comparison]:
    """Compare each arm with the arm `against`; p-values of one score are adjusted over the arms (Holm).

    Args:
        arms, against: an arm is the evaluations of one kind of model, one a training seed.
        seed, resamples: of the bootstrap.

    Raises:
        DataError: another benchmark, no problem in common, or a run twice in one arm.
    """
    return _adjusted([_compare(arm, against, seed, resamples) for arm in arms])


def verdict(comparison: Comparison) -> str:
    """The answer in words, on pass@1: whether the difference is real at the 5 % level, and if not, why not."""
    found = comparison.scores["pass@1"]
    figures = f"{points(found.value)} points [{points(found.lo)}, {points(found.hi)}] of pass@1, p = {found.p_holm:.2g}"
    if found.real:
        return f"The difference is real at the 5 % level: {figures}."
    needed = math.ceil(1 - math.log2(ALPHA))
    why = ""
    if found.differing == 0:
        why = " No problem has another score."
    elif found.differing < needed:
        why = f" Problems that differ: {found.differing}; fewer than {needed} can't show a difference at the 5 % level."
    elif found.p <= ALPHA < found.p_holm:
        why = f" (p = {found.p:.2g} before the correction for several comparisons.)"
    return f"Can't be told apart: {figures}.{why}"


def points(share: float) -> str:
    """A difference of scores in points, as in "+4.2"; never "-0.0"."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def seeds_note(comparison: Comparison) -> str:
    """What the number of training seeds on each side allows to say; "" for three or more on both."""
    ours, theirs = len(comparison.ours), len(comparison.theirs)
    if ours == theirs == 1:
        return "One seed a side: says nothing about other training seeds."
    if min(ours, theirs) == 1:
        (name,) = comparison.ours if ours == 1 else comparison.theirs
        return f"One seed of {name}: says nothing about its other training seeds."
    if min(ours, theirs) < FEW_SEEDS:
        return f"Few seeds ({ours} and {theirs}): where seeds differ much, the interval is too narrow."
    return ""


def _compare(ours: Sequence[Evaluation], theirs: Sequence[Evaluation], seed: int, resamples: int) -> Comparison:
    runs = [*ours, *theirs]
    _check(ours, theirs)
    shared = sorted(set.intersection(*(set(run.outcomes) for run in runs)))
    if not shared:
        sizes = ", ".join(f"{run.name}: {len(run.outcomes)}" for run in runs)
        raise DataError(f"No problem of {runs[0].benchmark} is in all of these evaluations ({sizes} problems).")
    ks = sorted({1} | set.intersection(*(set(run.ks) for run in runs)))  # pass@1 can always be had from the outcomes
    rates = _matrix([run.outcomes for run in runs], shared, 1)
    if not rates:
        raise DataError(f"No problem of {runs[0].benchmark} has a judged sample in each of: {_listed(runs)}.")

    def differences(outcomes: Sequence[Mapping[str, Sequence[Status]]]) -> dict[str, Difference]:
        tables = {f"pass@{k}": _matrix(outcomes, shared, k) for k in ks}
        return {key: _difference(table, len(ours), shared, seed, resamples) for key, table in tables.items() if table}

    scores = differences([run.outcomes for run in runs])
    base = [run.base_outcomes for run in runs if run.base_outcomes is not None]
    changes = [
        Change(task, float(np.mean(row[: len(ours)])), float(np.mean(row[len(ours) :]))) for task, row in rates.items()
    ]
    changes.sort(key=lambda change: -abs(change.ours - change.theirs))
    return Comparison(
        ours=tuple(run.name for run in ours),
        theirs=tuple(run.name for run in theirs),
        benchmark=runs[0].benchmark,
        tasks=len(shared),
        not_shared={run.name: len(run.outcomes) - len(shared) for run in runs if len(run.outcomes) > len(shared)},
        by_run={run.name: float(np.mean([row[i] for row in rates.values()])) for i, run in enumerate(runs)},
        unjudged=sum(status not in JUDGED for run in runs for task in shared for status in run.outcomes[task]),
        scores=scores,
        base_scores=differences(base) if len(base) == len(runs) else {},
        unmeasured=tuple(f"pass@{k}" for k in ks if f"pass@{k}" not in scores),
        mcnemar=_first_samples(ours[0], theirs[0], shared) if len(runs) == 2 else None,
        settings=_differing_settings(runs),
        won=tuple(change for change in changes if round(change.ours - change.theirs, EXACT) > 0),
        lost=tuple(change for change in changes if round(change.ours - change.theirs, EXACT) < 0),
    )


def _difference(
    table: Mapping[str, Sequence[float]], ours: int, shared: Sequence[str], seed: int, resamples: int
) -> Difference:
    """The bootstrap on a `_matrix` whose first columns are `ours` runs, and what was left out of it."""
    columns = np.array(list(table.values())).T
    result = paired_bootstrap(columns[:ours], columns[ours:], seed, resamples)
    return replace(result, left_out=tuple(task for task in shared if task not in table))


def _check(ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> None:
    for arm in (ours, theirs):
        files = [run.path.resolve() for run in arm]
        for run, file in zip(arm, files, strict=True):
            if files.count(file) > 1:
                raise DataError(f"{run.path} is given twice in one arm: that is one seed, not two.")
    for run in [*ours, *theirs]:
        if run.benchmark != theirs[0].benchmark:
            raise DataError(
                f"{run.name} is an evaluation on {run.benchmark!r}, {theirs[0].name} on {theirs[0].benchmark!r}: only "
                "evaluations on one benchmark can be compared problem by problem."
            )


def _matrix(
    outcomes: Sequence[Mapping[str, Sequence[Status]]], shared: Sequence[str], k: int
) -> dict[str, list[float]]:
    """Problem -> pass@k in each run, for the shared problems that have k judged samples in every run."""
    columns = [per_problem(tally({task: of[task] for task in shared if task in of}), k) for of in outcomes]
    return {task: [column[task] for column in columns] for task in shared if all(task in c for c in columns)}


def _arm_mean(scores: np.ndarray, pick: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean of an arm in each resample: float [r] from scores [s, p] and picked problems [r, p]."""
    by_seed = np.stack([row[pick].mean(1) for row in scores], axis=1)  # [r, s]
    seeds = by_seed.shape[1]
    if seeds == 1:
        return by_seed[:, 0]
    return np.take_along_axis(by_seed, rng.integers(0, seeds, (len(pick), seeds - 1)), axis=1).mean(1)


def _first_samples(ours: Evaluation, theirs: Evaluation, shared: Sequence[str]) -> McNemar:
    """McNemar's test on the first sample of each problem: a majority of n samples would test another quantity than
    pass@1. Problems whose first sample was not judged in both are left out."""
    pairs = [(ours.outcomes[task][0], theirs.outcomes[task][0]) for task in shared if _judged(task, ours, theirs)]
    only_ours = sum(a == "pass" and b != "pass" for a, b in pairs)
    return mcnemar(only_ours, sum(b == "pass" and a != "pass" for a, b in pairs))


def _judged(task: str, *runs: Evaluation) -> bool:
    return all(run.outcomes[task] and run.outcomes[task][0] in JUDGED for run in runs)


def _differing_settings(runs: Sequence[Evaluation]) -> dict[str, tuple[Any, ...]]:
    keys = sorted({key for run in runs for key in run.settings if not {key, key.split(".")[0]} & MAY_DIFFER})
    found = {}
    for key in keys:
        values = {json.dumps(value, sort_keys=True): value for value in (run.settings.get(key) for run in runs)}
        if len(values) > 1:
            found[key] = tuple(values.values())
    return found


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    """The comparisons with Holm's adjustment over those that have a score, for each score."""
    for part in ("scores", "base_scores"):
        for key in dict.fromkeys(key for c in comparisons for key in getattr(c, part)):
            having = [i for i, c in enumerate(comparisons) if key in getattr(c, part)]
            for i, p in zip(having, holm([getattr(comparisons[i], part)[key].p for i in having]), strict=True):
                scores = getattr(comparisons[i], part)
                comparisons[i] = replace(comparisons[i], **{part: scores | {key: replace(scores[key], p_holm=p)}})
    return comparisons


def _read(file: Path, name: str) -> Evaluation:
    if not file.is_file():
        folder = file.parent if file.name == RESULTS else file
        hint = nearest(folder.name, (found.parent.name for found in folder.parent.glob(f"*/{RESULTS}")))
        raise DataError(f"No evaluation at {file}.{hint} `ra3kit eval` writes a folder with a {RESULTS}.")
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not readable as JSON ({error}).") from error
    if not isinstance(results, dict):
        raise DataError(f"{file}: holds a {type(results).__name__}, not the results of an evaluation.")
    for key, kind in (("benchmark", str), ("model", str), ("n", int), ("k", list), ("outcomes", dict)):
        if not isinstance(results.get(key), kind):
            raise DataError(
                f"{file}: `{key}` is {_short(results.get(key))} and has to be a {kind.__name__}: these are not the "
                "results of `ra3kit eval`."
            )
    if not all(isinstance(k, int) and k >= 1 for k in results["k"]):
        raise DataError(f"{file}: `k` is {_short(results['k'])} and has to list whole numbers >= 1.")
    _check_verdicts(file, "outcomes", results["outcomes"])
    if results.get("base_outcomes") is not None:
        _check_verdicts(file, "base_outcomes", results["base_outcomes"])
    return Evaluation(
        name=name,
        path=file,
        benchmark=results["benchmark"],
        model=results["model"],
        ks=tuple(results["k"]),
        outcomes=results["outcomes"],
        base_outcomes=results.get("base_outcomes"),
        settings={"n": results["n"]} | _flat(results.get("settings") or {}),
    )


def _check_verdicts(file: Path, key: str, outcomes: Any) -> None:
    if not isinstance(outcomes, dict):
        raise DataError(f"{file}: `{key}` is {_short(outcomes)} and has to map each problem to its verdicts.")
    for task, statuses in outcomes.items():
        if not isinstance(statuses, list):
            raise DataError(f"{file}: {key}[{task!r}] is {_short(statuses)} and has to be a list of verdicts.")
    try:
        tally(outcomes)
    except DataError as error:
        raise DataError(f"{file}: {key}: {error}") from error


def _short(value: Any) -> str:
    return f"{value!r:.40}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _names(files: Sequence[Path]) -> list[str]:
    """The shortest ends of the files' folders that tell them apart (a file of another name keeps it)."""
    parts = [(file.parent if file.name == RESULTS else file).absolute().parts for file in files]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return ["/".join(p) for p in parts]


def _listed(runs: Sequence[Evaluation]) -> str:
    return ", ".join(run.name for run in runs)
