"""Training problems from a file, a folder or a name, with an account of every record."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ra3kit.errors import DataError, nearest
from ra3kit.evaluation import embedded, evalplus
from ra3kit.rlvr.problems.cases import Caps, capped
from ra3kit.rlvr.problems.evaluation_sets import Index, by_format, by_name, index_of, words_of
from ra3kit.rlvr.problems.formats import FORMATS, detect
from ra3kit.rlvr.problems.rows import Reason, Rejected, files_of, rows
from ra3kit.study.family import Split, find_family, is_family
from ra3kit.verify.prepared import unfit
from ra3kit.verify.problem import Asserts, Problem

CAPS = Caps()
NAMES = ("ra3kit", "mbpp", "family")
"""Sets that are found without a path: the kit's own problems, MBPP where evalplus keeps it, generated programs."""


@dataclass
class Group:
    """So many records of one kind, and the first of them."""

    count: int = 0
    first: str = ""

    def add(self, example: str) -> None:
        self.count += 1
        self.first = self.first or example


@dataclass
class Problems:
    """What became of every record: `records == len(problems) + len(evaluation) + all of rejected`.

    Args:
        source: the path or name.
        problems: for training, with unique ids. Of a forced evaluation set, `meta["evaluation"]` names it.
        evaluation: problems that were read and are refused for training.
        evaluation_sets: set -> how many, with the first; forced or not.
        rejected: reason -> how many, with the first.
        limited: problems that lost tests to `Caps`.
        formats: format -> records.
        forced: whether evaluation data was let through. A run that trains on it has to say so.
        compared: evaluation set -> statements it was compared with by text; empty: names and ids alone were looked at.
    """

    source: str
    records: int = 0
    problems: list[Problem] = field(default_factory=list)
    evaluation: list[Problem] = field(default_factory=list)
    evaluation_sets: dict[str, Group] = field(default_factory=dict)
    rejected: dict[Reason, Group] = field(default_factory=dict)
    limited: Group = field(default_factory=Group)
    formats: Counter[str] = field(default_factory=Counter)
    forced: bool = False
    compared: Mapping[str, int] = field(default_factory=dict)

    def for_training(self) -> list[Problem]:
        """The problems to train on.

        Raises:
            DataError: there are none; says what became of the records, and how to force evaluation data.
        """
        if self.problems:
            return self.problems
        hint = " Evaluation data is trained on with force=True only, and the run says so." if self.evaluation else ""
        raise DataError(f"path={self.source}: no problem to train on.{hint}\n{self.account()}")

    def summary(self) -> dict[str, Any]:
        """The counts, for a run's card."""
        return {
            "source": self.source,
            "records": self.records,
            "problems": len(self.problems),
            "evaluation": {name: group.count for name, group in self.evaluation_sets.items()},
            "forced": self.forced,
            "rejected": {reason: group.count for reason, group in self.rejected.items()},
            "limited": self.limited.count,
            "formats": dict(self.formats),
            "compared": dict(self.compared),
        }

    def account(self) -> str:
        """The counts by reason, each with its first record, as lines."""
        formats = ", ".join(self.formats) or "no known format"
        lines = [f"{self.source}: {self.records} records ({formats})", f"  {len(self.problems):6d}  for training"]
        verb = "FORCED, evaluation data of" if self.forced else "refused, evaluation data of"
        lines += [line_of(g.count, f"{verb} {name}", g.first) for name, g in self.evaluation_sets.items()]
        lines += [line_of(g.count, reason, g.first) for reason, g in self.rejected.items()]
        if self.limited.count:
            lines.append(line_of(self.limited.count, "of these with fewer tests", self.limited.first))
        if not self.compared:
            lines.append("  not compared with any evaluation set by text: none at hand (RA3KIT_DATA)")
        return "\n".join(lines)


def line_of(count: int, what: str, first: str) -> str:
    """One line of an account."""
    text = " ".join(first.split())
    return f"  {count:6d}  {what}, first {text[:140]}{'...' if len(text) > 140 else ''}"


@dataclass
class Known:
    """What was read so far: ids (whether of evaluation data, id), and by content the id that has it."""

    ids: set[tuple[bool, str]] = field(default_factory=set)
    contents: dict[bytes, str] = field(default_factory=dict)


def read(
    path: str | Path,
    format: str | None = None,
    force: bool = False,
    caps: Caps = CAPS,
    against: Iterable[str | Path] | None = None,
    known: Known | None = None,
) -> Problems:
    """Read every record of a training set.

    Args:
        path: a file or folder (.jsonl, .json, gzipped or not, .parquet), or one of `NAMES`; `family:...` as in
            `ra3kit.study.family`.
        format: of `FORMATS`; None: told by each record's columns.
        force: let evaluation data through as training problems.
        caps: what is kept of a record.
        against: folders or files with evaluation sets whose statements are looked for; None: `RA3KIT_DATA`.
        known: of other sets that this one is read after; what they had is a duplicate here.

    Raises:
        DataError: an unknown format, no such file or name, or a file that cannot be read to its end.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"format={format!r}: allowed are {', '.join(FORMATS)}.{nearest(str(format), FORMATS)}")
    known = Known() if known is None else known
    if path == "ra3kit":
        return _own(force, known)
    index = index_of(against)
    if is_family(path):
        return _generated(str(path), force, index, known)
    result = Problems(str(path), forced=force, compared=index.sets)
    place = evalplus.locate("mbpp", None) if path == "mbpp" else Path(path).expanduser()
    if not place.exists() and "/" not in str(path):
        raise DataError(
            f"path={path}: no such file or folder; sets by name: {', '.join(NAMES)}.{nearest(str(path), NAMES)}"
        )
    for file in files_of(place):
        named = by_name(file)
        for row in rows(file, caps.record):
            result.records += 1
            try:
                form, problem, cut = _convert(row.value, row.where, format, caps, result.formats)
                name = named or by_format(form, problem) or index.find(problem.prompt)
                _sort(result, problem, name, row.where, known)
            except Rejected as error:
                _reject(result, row.where, error)
                continue
            if cut:
                result.limited.add(f"{row.where}: {cut}")
    return result


def _reject(result: Problems, where: str, error: Rejected) -> None:
    result.rejected.setdefault(error.reason, Group()).add(f"{where}: {error}")


def _convert(value: Any, where: str, format: str | None, caps: Caps, formats: Counter[str]) -> tuple[str, Problem, str]:
    if isinstance(value, Rejected):
        raise value
    if not isinstance(value, dict):
        raise Rejected("malformed", f"a record is an object with named fields, not {type(value).__name__}")
    form = format or detect(value)
    if form is None or not FORMATS[form].columns <= set(value):
        wanted = f"{format} needs {', '.join(sorted(FORMATS[format].columns))}; " if format else ""
        raise Rejected("unknown format", f"{wanted}its columns are {', '.join(map(str, value)) or 'none'}")
    formats[form] += 1
    try:
        problem = FORMATS[form].read(where, value)
    except Rejected:
        raise
    except (DataError, ValueError, TypeError, AttributeError) as error:  # fields of types no one thought of
        raise Rejected("malformed", f"{type(error).__name__ if not str(error) else error}") from error
    cut = ""
    if not isinstance(problem.tests, Asserts):
        tests, cut = capped(problem.tests, caps)
        problem = replace(problem, tests=tests)
    if (why := unfit(problem)) is not None:
        raise Rejected("unsupported checker", why)
    return form, problem, cut


def _new(problem: Problem, where: str, is_refused: bool, known: Known) -> Problem:
    """The problem, renamed where its name is but the place of its record and another file has one of that name.

    Raises:
        Rejected: its id, or its statement with the same tests, was there before. What is refused takes no id away from
            a problem for training: the splits of APPS each begin with 0.
    """
    digest = hashlib.sha256(repr((words_of(problem.prompt), problem.tests)).encode("utf-8", "replace")).digest()
    if digest in known.contents:
        raise Rejected("duplicate", f"statement and tests are those of {known.contents[digest]}")
    if problem.id == where and (is_refused, where) in known.ids:
        problem = replace(problem, id=f"{where}@{digest.hex()[:8]}")
    if (is_refused, problem.id) in known.ids:
        raise Rejected("duplicate", f"the id {problem.id!r} was there before")
    known.ids.add((is_refused, problem.id))
    known.contents[digest] = problem.id
    return problem


def _sort(result: Problems, problem: Problem, name: str | None, where: str, known: Known) -> None:
    """Add it to the problems for training, or as one of an evaluation set; raises Rejected."""
    problem = _new(problem, where, name is not None and not result.forced, known)
    if name is None:
        result.problems.append(problem)
        return
    result.evaluation_sets.setdefault(name, Group()).add(where)
    if result.forced:
        result.problems.append(replace(problem, meta={**problem.meta, "evaluation": name}))
    else:
        result.evaluation.append(problem)


def _add_made(result: Problems, form: str, problem: Problem, name: str | None, known: Known) -> None:
    """A problem that the kit has itself: it needs no reading."""
    result.records += 1
    result.formats[form] += 1
    try:
        _sort(result, problem, name, problem.id, known)
    except Rejected as error:
        _reject(result, problem.id, error)


def _own(force: bool, known: Known) -> Problems:
    """The kit's own problems: every second one is for training, the others are its test split."""
    result = Problems("ra3kit", forced=force)
    for number, problem in enumerate(embedded.load()):
        _add_made(result, "ra3kit", problem, "ra3kit, test split" if number % 2 else None, known)
    result.compared = {name: group.count for name, group in result.evaluation_sets.items()}
    return result


def _generated(path: str, force: bool, index: Index, known: Known) -> Problems:
    """Tasks of a generated family: its train split, unless the name says another."""
    splits: tuple[Split, ...] = get_args(Split)
    found = find_family(path, splits)
    wanted: Split = next((split for split in splits if split == found.part), "train")
    result = Problems(path, forced=force, compared=index.sets)
    for problem in found.problems(wanted):
        named = None if wanted == "train" else f"family, {wanted} split"
        _add_made(result, "family", problem, named or index.find(problem.prompt), known)
    return result
