"""Which problems are evaluation data: by their file's name, their format or id, and the text of the statement."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ra3kit.evaluation.evalplus import MBPP_SPLITS
from ra3kit.evaluation.records import SUFFIXES
from ra3kit.rlvr.problems.rows import rows
from ra3kit.verify.problem import Problem

WORDS = 16
"""Words of a piece of a statement that is looked for."""
PIECES = 8
"""Pieces of a statement, evenly spaced; half of them found is a match."""
LEAST_WORDS = 8
"""Shorter statements ("Sort the list") match as a whole only."""

NAMES = {
    "HumanEval": re.compile(r"human_?eval"),
    "MBPP+": re.compile(r"mbpp_?plus"),
    "LiveCodeBench": re.compile(r"live_?code_?bench|(?:^|_)lcb"),
    "CodeElo": re.compile(r"codeelo"),
    "a test split": re.compile(r"(?:^|_)(?:test|valid|validation|eval|dev)(?:_|$)"),
}
PARAPHRASES = {"apps/4184": "HumanEval"}
"""Problems known to ask what an evaluation problem asks, in other words: `is_prime`, HumanEval/31."""

STATEMENTS = ("question_content", "problem", "description", "question", "text", "prompt", "content")


def by_name(path: Path) -> str | None:
    """The evaluation set a file belongs to by its name or its folder's; a test split by the file's name alone."""
    stem, folder = (re.sub(r"[^a-z0-9]+", "_", part.lower()) for part in (path.name.split(".")[0], path.parent.name))
    for name, pattern in NAMES.items():
        if pattern.search(stem) or (name != "a test split" and pattern.search(folder)):
            return name
    return None


def by_format(form: str, problem: Problem) -> str | None:
    """The evaluation set that a format, or an id, is."""
    if form in ("humaneval", "livecodebench"):
        return {"humaneval": "HumanEval", "livecodebench": "LiveCodeBench"}[form]
    if form == "mbpp" and not _trains(int(problem.id.rpartition("/")[2])):
        return "MBPP"
    return PARAPHRASES.get(problem.id)


def _trains(number: int) -> bool:
    first, last = MBPP_SPLITS["train"]
    return first <= number <= last


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers: what is left of a statement whatever its typesetting."""
    return re.findall(r"[a-z0-9]+", text.lower())


@dataclass
class Index:
    """Statements of evaluation sets, by whole and by pieces."""

    sets: dict[str, int] = field(default_factory=dict)
    whole: dict[int, str] = field(default_factory=dict)
    pieces: dict[int, dict[int, list[int]]] = field(default_factory=dict)
    needed: list[tuple[str, int]] = field(default_factory=list)

    def add(self, name: str, statement: str) -> None:
        words = words_of(statement)
        if not words or hash(tuple(words)) in self.whole:
            return
        self.sets[name] = self.sets.get(name, 0) + 1
        self.whole[hash(tuple(words))] = name
        if len(words) < LEAST_WORDS:
            return
        size = min(WORDS, len(words))
        last = len(words) - size
        starts = sorted({last * i // (PIECES - 1) for i in range(PIECES)})
        found = {hash(tuple(words[start : start + size])) for start in starts}
        for piece in found:
            self.pieces.setdefault(size, {}).setdefault(piece, []).append(len(self.needed))
        self.needed.append((name, (len(found) + 1) // 2))

    def find(self, statement: str) -> str | None:
        """The evaluation set that has this statement, or most of one of its own within it."""
        words = words_of(statement)
        if (name := self.whole.get(hash(tuple(words)))) is not None:
            return name
        found: list[int] = []
        for size, known in self.pieces.items():
            here = {hash(tuple(words[i : i + size])) for i in range(len(words) - size + 1)}
            counts = Counter(number for piece in here & known.keys() for number in known[piece])
            found += [number for number, count in counts.items() if count >= self.needed[number][1]]
        return self.needed[min(found)][0] if found else None  # of several the first that was added, in every process


def index_of(folders: Iterable[str | Path] | None = None) -> Index:
    """The statements of all evaluation files below these folders.

    Args:
        folders: None: `RA3KIT_DATA`, where it is set; else nothing is known by its text.

    Raises:
        DataError: a file that cannot be read.
    """
    if folders is None:
        folders = [os.environ["RA3KIT_DATA"]] if os.environ.get("RA3KIT_DATA") else []
    return _index(tuple(str(Path(folder).expanduser()) for folder in folders))


@lru_cache(maxsize=4)
def _index(folders: tuple[str, ...]) -> Index:
    index = Index()
    for folder in map(Path, folders):
        for path in sorted([folder] if folder.is_file() else folder.rglob("*")):
            if not path.is_file() or not path.name.endswith(SUFFIXES):
                continue
            mbpp = "mbpp" in path.name.lower()
            name = by_name(path) or ("MBPP" if mbpp else None)
            for row in rows(path, 2**26) if name else ():
                if not isinstance(row.value, Mapping) or (mbpp and _train_record(row.value)):
                    continue
                statement = next((row.value[key] for key in STATEMENTS if isinstance(row.value.get(key), str)), None)
                if statement:
                    index.add(str(name), statement)
    return index


def _train_record(record: Mapping[str, Any]) -> bool:
    number = re.search(r"\d+", str(record.get("task_id")))
    return number is not None and _trains(int(number[0]))
