"""From samples to a score: every program judged in the sandbox, pass@k with intervals, and a folder that says how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ra3kit.errors import RecipeError, RunError
from ra3kit.evaluation.passk import Score, estimate, verdict_counts
from ra3kit.evaluation.passk import notes as passk_notes
from ra3kit.evaluation.prompts import LEAST_COMPILING, MOST_CUT, compiles, with_preamble
from ra3kit.evaluation.samples import SAMPLES, Sample, Samples
from ra3kit.progress import track
from ra3kit.verify.problem import Calls, Problem, Status, Verdict
from ra3kit.verify.verifier import verify_all

RESULTS, CARD, VERDICTS, PICTURE = "results.json", "card.md", "verdicts.jsonl", "report.png"


@dataclass
class Results:
    """What came of an evaluation.

    Args:
        benchmark, model: names.
        ks: of pass@k.
        outcomes: task -> the verdicts of its samples, in their order.
        base_outcomes: the same on evalplus's base tests alone; None where the benchmark has no such tests.
        missing: tasks without a sample, left out of every score.
        compiling: share of the programs that are Python.
        cut: share of the answers that ended at the token limit; None where the samples do not say how they ended.
        notes: what a reader must know, one line each.
        settings: the eval card.
    """

    benchmark: str
    model: str
    ks: tuple[int, ...]
    outcomes: dict[str, list[Status]]
    base_outcomes: dict[str, list[Status]] | None
    missing: list[str]
    compiling: float
    cut: float | None = None
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Samples of a task; the fewest where they differ."""
        return min(map(len, self.outcomes.values()))

    @cached_property
    def scores(self) -> dict[str, Score]:
        """By name, as in "pass@1"."""
        return estimate(self.outcomes, self.ks)

    @cached_property
    def base_scores(self) -> dict[str, Score] | None:
        """The same on the base tests alone, where there are some."""
        return None if self.base_outcomes is None else estimate(self.base_outcomes, self.ks)

    def as_dict(self) -> dict[str, Any]:
        """results.json."""
        base = self.base_scores
        return {
            "benchmark": self.benchmark,
            "model": self.model,
            "n": self.n,
            "k": list(self.ks),
            "scores": {name: score.as_dict() for name, score in self.scores.items()},
            **({} if base is None else {"base_scores": {name: score.as_dict() for name, score in base.items()}}),
            "verdicts": dict(verdict_counts(self.outcomes)),
            "tasks": len(self.outcomes),
            "missing": self.missing,
            "compiling": self.compiling,
            "cut": self.cut,
            "notes": self.notes,
            "settings": self.settings,
            "outcomes": self.outcomes,
            **({} if self.base_outcomes is None else {"base_outcomes": self.base_outcomes}),
        }


def check_ks(ks: Sequence[int], n: int) -> tuple[int, ...]:
    """The k of pass@k, sorted, each once.

    Raises:
        RecipeError: none, one below 1, or one above the samples that there are.
    """
    if not ks or min(ks) < 1:
        raise RecipeError(f"k={list(ks)}: must be numbers of at least 1, as in k=1,5")
    if max(ks) > n:
        raise RecipeError(f"k={max(ks)} needs at least as many samples of each task, but n={n}. Lower k, or raise n.")
    return tuple(sorted(set(ks)))


def score(
    samples: Samples,
    problems: Sequence[Problem],
    ks: Sequence[int],
    *,
    benchmark: str = "",
    model: str = "",
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    isolation: Any = "auto",
    progress: bool = True,
) -> tuple[Results, list[tuple[Sample, Verdict]]]:
    """Judge samples.

    Args:
        samples: of this benchmark.
        problems: the benchmark.
        ks: of pass@k; none above the fewest samples of a task.
        benchmark, model, settings: for the results.
        workers, isolation: see `ra3kit.verify.verifier.Verifier`.
        progress: show how far it is.

    Returns:
        The results, and each sample with its verdict.

    Raises:
        RecipeError: a k above the fewest samples of a task.
        NoSandbox: no isolation holds here; nothing was run.
    """
    ks = check_ks(ks, min(map(len, samples.of.values())))
    by_id = {problem.id: problem for problem in problems}
    flat = [row for rows in samples.of.values() for row in rows]
    pairs = [(with_preamble(by_id[row.task_id], row.solution), by_id[row.task_id]) for row in flat]
    if progress:
        with track(len(pairs), "judging") as advance:
            verdicts = verify_all(pairs, workers=workers, isolation=isolation, on_done=lambda index, verdict: advance())
    else:
        verdicts = verify_all(pairs, workers=workers, isolation=isolation)
    judged = list(zip(flat, verdicts, strict=True))
    outcomes: dict[str, list[Status]] = {name: [] for name in samples.of}
    base: dict[str, list[Status]] = {name: [] for name in samples.of}
    for row, verdict in judged:
        outcomes[row.task_id].append(verdict.status)
        # a program that was not judged, or did not load, has no verdict on the base tests of its own
        base[row.task_id].append(verdict.base or verdict.status)
    has_base = any(isinstance(p.tests, Calls) and p.tests.base is not None for p in problems)
    compiling = sum(compiles(program) for program, _ in pairs) / len(pairs)
    ends = [row.finish for row in flat]
    held = sorted({verdict.isolation for verdict in verdicts if verdict.isolation})
    results = Results(
        benchmark=benchmark,
        model=model,
        ks=ks,
        outcomes=outcomes,
        base_outcomes=base if has_base else None,
        missing=samples.missing,
        compiling=compiling,
        cut=None if None in ends else ends.count("length") / len(ends),
        settings={**(settings or {}), "isolation": ", ".join(held) or "nothing was run"},
    )
    results.notes = _notes(results, samples, by_id)
    return results, judged


def _notes(results: Results, samples: Samples, known: Mapping[str, Problem]) -> list[str]:
    lines = []
    if results.compiling < LEAST_COMPILING:
        lines.append(
            f"WARNING: only {results.compiling:.0%} of the programs are Python. Prompt style, stop list or extraction "
            f"do not fit this model; look at {SAMPLES} before believing the score."
        )
    if results.cut is not None and results.cut > MOST_CUT:
        lines.append(
            f"{results.cut:.0%} of the answers were cut at the token limit: more max_new_tokens may raise the score."
        )
    lines += samples.notes(known)
    sizes = {len(statuses) for statuses in results.outcomes.values()}
    if len(sizes) > 1:
        lines.append(f"Tasks have between {min(sizes)} and {max(sizes)} samples.")
    return lines + passk_notes(results.outcomes, results.ks)


# ---- the folder -----------------------------------------------------------------------------------------------------


def write(folder: Path, results: Results, judged: Sequence[tuple[Sample, Verdict]], card: str) -> None:
    """Write the folder of an evaluation; samples that are there already stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SAMPLES).is_file():
        _write(folder / SAMPLES, "".join(row.line() for row, _ in judged))
    _write(folder / VERDICTS, "".join(_verdict_line(row, verdict) for row, verdict in judged))
    _write(folder / CARD, card)
    _write(folder / RESULTS, json.dumps(results.as_dict(), indent=1) + "\n")


def _verdict_line(row: Sample, verdict: Verdict) -> str:
    shown = {"status": verdict.status, "reason": verdict.reason, "passed": verdict.passed, "total": verdict.total}
    if verdict.base is not None:
        shown["base"] = verdict.base
    failure = {"failure": dict(verdict.failure)} if verdict.failure else {}
    line = {"task_id": row.task_id, "sample": row.sample, **shown, "seconds": round(verdict.seconds, 4), **failure}
    return json.dumps(line, default=repr) + "\n"


def _write(path: Path, text: str) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    temporary.replace(path)


def require_all(samples: Samples, problems: Sequence[Problem], missing: str) -> None:
    """Refuse to score a part of a benchmark unless that was asked for.

    Args:
        missing: "error", or "skip" to score the tasks that have samples.

    Raises:
        RecipeError: missing is neither.
        RunError: tasks have no sample.
    """
    if missing not in ("error", "skip"):
        raise RecipeError(f"missing={missing!r}: allowed are error, skip.")
    if samples.missing and missing == "error":
        some = ", ".join(samples.missing[:3]) + (" ..." if len(samples.missing) > 3 else "")
        raise RunError(
            f"{samples.source}: {len(samples.missing)} of {len(problems)} tasks have no sample ({some}). A score over "
            "the others is another benchmark's: add the samples, use the limit= they were drawn with, or score those "
            "that are there with missing=skip."
        )
