"""Sample files: JSON lines (ours, human-eval, evalplus), evalplus's folders, bigcode's and LiveCodeBench's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ra3kit.errors import DataError, nearest
from ra3kit.evaluation.prompts import program_of
from ra3kit.evaluation.records import Malformed, Record, field_of, read_records, read_text
from ra3kit.verify.problem import Problem

SAMPLES = "samples.jsonl"
Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Sample:
    """One answer to one task.

    Args:
        task_id: of its problem.
        solution: the whole program (evalplus's field).
        completion: text kept after the stop list; None where the file does not say.
        raw: text as sampled; None where the file does not say.
        sample: number of the sample among its task's, from 0.
        finish: "end" (end token), "stop" (stop list), "length" (token limit); None where the file does not say.
    """

    task_id: str
    solution: str
    completion: str | None = None
    raw: str | None = None
    sample: int = 0
    finish: Finish | None = None

    def line(self) -> str:
        """As one line of samples.jsonl."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None}) + "\n"


@dataclass
class Samples:
    """What a sample file holds.

    Args:
        of: task id -> its samples in order, in the order of the benchmark; only tasks that have any.
        missing: tasks of the benchmark without a sample.
        unknown: task ids of the file that the benchmark does not have -> how many samples of each were left out.
        malformed: records that were left out.
        unanswered: tasks whose prompt was too long for the model, answered with nothing.
        source: the file or folder.
    """

    of: dict[str, list[Sample]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    malformed: list[Malformed] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    source: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.of.values()))

    def notes(self, known: Iterable[str]) -> list[str]:
        """What was left out, for a person."""
        lines = []
        if self.missing:
            lines.append(f"{len(self.missing)} tasks have no sample: {_some(self.missing)}")
        if self.unanswered:
            lines.append(f"{len(self.unanswered)} prompts were too long and got no answer: {_some(self.unanswered)}")
        if self.unknown:
            names = [f"{name!r}{nearest(name, known)}" for name in self.unknown]
            lines.append(f"{sum(self.unknown.values())} samples are of tasks not in the benchmark: {_some(names)}")
        if self.malformed:
            lines.append(f"{len(self.malformed)} records were left out: {_some(list(map(str, self.malformed)))}")
        return lines


def _some(items: Sequence[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def read_samples(path: str | Path, problems: Sequence[Problem]) -> Samples:
    """Read samples of a benchmark; the format is told from the path and the first record.

    Args:
        path: samples.jsonl (`task_id` with `solution`, which wins, or `completion`), a folder with one, evalplus's
            folder (`DIR/HumanEval_0/0.py`), bigcode's generations.json (lists in the benchmark's order), or
            LiveCodeBench's custom_evaluator JSON (`question_id`, `code_list`).
        problems: the whole benchmark; a completion is joined to its prompt.

    Raises:
        DataError: no such file, or no sample of this benchmark in it.
    """
    path = Path(path).expanduser()
    names = _Names(problems)
    found = Samples(source=str(path))
    if path.is_dir() and (path / SAMPLES).is_file():
        path = path / SAMPLES
    if path.is_dir():
        entries = _folder(path, found)
    else:
        records, found.malformed = read_records(path)
        if records and isinstance(records[0].value, list):
            entries = _generations(records, problems, found)
        elif records and isinstance(records[0].value, dict) and "code_list" in records[0].value:
            entries = _code_lists(records, found)
        else:
            entries = _lines(records, names, found)
    by_task: dict[str, list[Sample]] = {problem.id: [] for problem in problems}
    for entry in entries:
        problem = names.find(entry.task_id)
        if problem is None:
            found.unknown[str(entry.task_id)] = found.unknown.get(str(entry.task_id), 0) + 1
            continue
        of_task = by_task[problem.id]
        number = entry.sample if entry.sample >= 0 else len(of_task)
        of_task.append(Sample(problem.id, entry.solution, entry.completion, entry.raw, number, entry.finish))
    found.of = {name: sorted(rows, key=lambda row: row.sample) for name, rows in by_task.items() if rows}
    found.missing = [name for name, rows in by_task.items() if not rows]
    if not found.of:
        raise DataError("\n  ".join([f"{path}: no sample of this benchmark.", *found.notes(by_task)]))
    return found


NUMBERED_LATER = -1
"""The number of a sample in a file that does not number them."""


class _Names:
    """Problems by the names that files give them: the id, with "_" for "/" (folders), or its number alone (MBPP)."""

    def __init__(self, problems: Sequence[Problem]):
        numbered = len({problem.id.rpartition("/")[0] for problem in problems}) == 1
        self._by_name: dict[str, Problem] = {}
        for problem in problems:
            number = problem.id.rpartition("/")[2]
            if numbered and number.isdigit():
                self._by_name[number] = problem
            self._by_name[problem.id.replace("/", "_")] = problem
        self._by_name.update({problem.id: problem for problem in problems})

    def find(self, name: str) -> Problem | None:
        return self._by_name.get(name)


def _lines(records: Sequence[Record], names: _Names, found: Samples) -> list[Sample]:
    entries: list[Sample] = []
    seen: set[tuple[str, int]] = set()
    for record in records:
        try:
            entry = _line(record.value, names)
            problem = names.find(entry.task_id)
            key = (entry.task_id if problem is None else problem.id, entry.sample)
            if entry.sample != NUMBERED_LATER and key in seen:
                raise DataError(f"sample {entry.sample} of {entry.task_id} was there before")
        except DataError as error:
            found.malformed.append(Malformed(record.where, str(error)))
            continue
        seen.add(key)
        entries.append(entry)
    return entries


def _line(value: Any, names: _Names) -> Sample:
    if not isinstance(value, dict):
        raise DataError(f"a sample is an object, not {type(value).__name__}")
    task_id = str(field_of(value, "task_id", kind=(str, int)))
    completion = field_of(value, "completion", default=None)
    solution = field_of(value, "solution", default=None)
    if solution is None:
        if completion is None:
            raise DataError(f"{task_id}: neither solution nor completion")
        problem = names.find(task_id)
        solution = completion if problem is None else program_of(problem, completion, "complete")
    number = field_of(value, "sample", kind=int, default=NUMBERED_LATER)
    finish = field_of(value, "finish", default=None)
    return Sample(task_id, solution, completion, field_of(value, "raw", default=None), number, finish)


def _folder(folder: Path, found: Samples) -> list[Sample]:
    """evalplus's folder: one folder a task, one file a sample, whole programs."""
    entries = []
    for task in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = [path for path in task.iterdir() if path.suffix == ".py"]
        for file in sorted(files, key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)]):
            try:
                entries.append(Sample(task.name, read_text(file), sample=NUMBERED_LATER))
            except DataError as error:
                found.malformed.append(Malformed(str(file), str(error)))
    return entries


def _generations(records: Sequence[Record], problems: Sequence[Problem], found: Samples) -> list[Sample]:
    """bigcode's generations.json: a list for each problem, in the benchmark's order; prompts are included."""
    entries = []
    for i, record in enumerate(records):
        if not isinstance(record.value, list) or not all(isinstance(text, str) for text in record.value):
            found.malformed.append(Malformed(record.where, "not a list of texts"))
            continue
        name = problems[i].id if i < len(problems) else f"problem {i}"
        entries += [Sample(name, text, sample=NUMBERED_LATER) for text in record.value]
    return entries


def _code_lists(records: Sequence[Record], found: Samples) -> list[Sample]:
    """LiveCodeBench's custom_evaluator: whole programs by question_id."""
    entries: list[Sample] = []
    seen: set[str] = set()
    for record in records:
        try:
            if not isinstance(record.value, dict):
                raise DataError(f"an entry is an object, not {type(record.value).__name__}")
            name = str(field_of(record.value, "question_id", kind=(str, int)))
            codes = field_of(record.value, "code_list", kind=list)
            if name in seen:
                raise DataError(f"question_id {name!r} was there before")
            if not all(isinstance(code, str) for code in codes):
                raise DataError(f"code_list of {name!r} is not a list of texts")
        except DataError as error:
            found.malformed.append(Malformed(record.where, str(error)))
            continue
        seen.add(name)
        entries += [Sample(name, code, sample=NUMBERED_LATER) for code in codes]
    return entries
