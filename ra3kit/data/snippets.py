"""A corpus as trajectories: read, clean, segment, encode, and cut into snippets within the size limits.

Every file and every line that is left out is counted under a reason in `SnippetReport`; nothing is dropped in silence.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, get_args

from transformers import PreTrainedTokenizerBase

from ra3kit.actions import Action, ActionSegmenter, PythonLines
from ra3kit.data.comments import comments_as_thoughts, parse, strip_comments, strip_docstrings
from ra3kit.data.corpora import CorpusReport, SourceFile, hash_fraction, read_files
from ra3kit.data.encode import encode_texts, inexact_texts
from ra3kit.data.tokenizer import start_and_end_ids
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, nearest
from ra3kit.ranges import check_number

Comments = Literal["keep", "strip", "thoughts"]
FILES_PER_BATCH = 256


@dataclass
class SnippetReport:
    """The account of a corpus.

    Args:
        files: texts read.
        snippets: trajectories made.
        code_tokens: tokens of primitive actions in them.
        dropped_files: reason -> files left out: those of `CorpusReport`, and "unparsable", "contaminated", "duplicate",
            "excluded" (held out elsewhere), "only comments", "inexact" (the tokenizer does not give the text back),
            "long line".
        dropped_lines: reason -> actions left out of files that were kept: "long line", "no cut" (a string or bracket
            too long for a snippet), "short snippet".
        examples: reason -> the first file it was counted for.
    """

    files: int = 0
    snippets: int = 0
    code_tokens: int = 0
    dropped_files: Counter[str] = field(default_factory=Counter)
    dropped_lines: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def drop_file(self, reason: str, name: str) -> None:
        self.dropped_files[reason] += 1
        self.examples.setdefault(reason, name)

    def drop_lines(self, reason: str, name: str, lines: int) -> None:
        if lines:
            self.dropped_lines[reason] += lines
            self.examples.setdefault(reason, name)


@dataclass(frozen=True)
class Snippet:
    """A trajectory, the file it comes from (splits are by file), and which of the file's actions is its first."""

    file: str
    trajectory: Trajectory
    begin: int = 0


@dataclass
class Corpus:
    """Says how to make snippets of a corpus.

    Args:
        path: what `ra3kit.data.corpora.read_files` reads.
        comments: "keep", "strip" them (the expert data of the paper has no reasoning annotations), or "thoughts": keep
            them in the form thoughts have, one line at column 0 (`ra3kit.data.comments.comments_as_thoughts`).
        docstrings: "keep" or "strip"; a body that loses its only docstring gets `pass`.
        unparsable: "drop" or "keep" files that the running Python cannot parse. For texts that are not Python: "keep".
        max_tokens: most tokens in a snippet, start and end token included; >= 3.
        max_lines: most primitive actions in a snippet; >= 1.
        min_lines: fewest primitive actions in a snippet; shorter ones are dropped.
        long_line: an action that alone exceeds `max_tokens`: "drop" leaves it out and ends the snippet before it,
            "drop_file" leaves out its file.
        decontaminate: import path of a `callable(text) -> bool`, True for a text that must not be trained on; it sees
            the text as read, before comments are stripped, answers for every text, and the same each time
            (`ra3kit.testing.check_decontaminator`).
        segmenter: what a primitive action is; default `PythonLines()`.
        columns: names of the text column, see `read_files`.
        limit_files: read at most so many texts.
    """

    path: str | Sequence[str]
    comments: Comments = "keep"
    docstrings: Literal["keep", "strip"] = "keep"
    unparsable: Literal["keep", "drop"] = "drop"
    max_tokens: int = 512
    max_lines: int = 64
    min_lines: int = 2
    long_line: Literal["drop", "drop_file"] = "drop"
    decontaminate: str | None = None
    segmenter: ActionSegmenter = field(default_factory=PythonLines)
    columns: Sequence[str] | None = None
    limit_files: int | None = None
    report: SnippetReport = field(default_factory=SnippetReport)
    keys: dict[str, str] = field(default_factory=dict)
    """`text_key` of the texts kept so far, by file name."""

    def __post_init__(self) -> None:
        choices = {
            "comments": get_args(Comments),
            "docstrings": ("keep", "strip"),
            "unparsable": ("keep", "drop"),
            "long_line": ("drop", "drop_file"),
        }
        for key, allowed in choices.items():
            if (value := getattr(self, key)) not in allowed:
                raise DataError(f"{key}={value!r}: allowed are {list(allowed)}.{nearest(str(value), allowed)}")
        for key, least in {"max_tokens": 3, "max_lines": 1, "min_lines": 1}.items():
            check_number(key, getattr(self, key), least=least, whole=True, error=DataError)
        check_number(
            "limit_files", self.limit_files, least=1, most=sys.maxsize, whole=True, optional=True, error=DataError
        )
        if self.min_lines > self.max_lines:
            raise DataError(f"min_lines={self.min_lines} is above max_lines={self.max_lines}: no snippet can be kept.")

    def snippets(self, tokenizer: PreTrainedTokenizerBase, exclude: set[str] | None = None) -> Iterator[Snippet]:
        """The snippets in reading order; `report` is filled in as they are made.

        Args:
            tokenizer: a checked tokenizer (`check_tokenizer`).
            exclude: `text_key`s of texts to leave out, the held-out files of another corpus.

        Raises:
            DataError: nothing readable, or a source that is damaged or has no text column.
        """
        texts = self.texts(exclude or set())
        while batch := list(islice(texts, FILES_PER_BATCH)):
            for file, actions, ids in self._encoded(tokenizer, batch):
                for begin, trajectory in self._cut(tokenizer, file.name, actions, ids):
                    self.report.snippets += 1
                    self.report.code_tokens += len(trajectory.ids) - 2
                    yield Snippet(file.name, trajectory, begin)

    def texts(self, exclude: set[str]) -> Iterator[SourceFile]:
        """The texts that are kept, each once, cleaned as asked for; file names made unique."""
        contaminated = _import_callable(self.decontaminate) if self.decontaminate is not None else None
        read, seen, names = CorpusReport(), set(exclude), Counter[str]()
        for file in islice(read_files(self.path, self.columns, read), self.limit_files):
            self.report.files += 1
            key = text_key(file.text)
            if key in seen:
                self.report.drop_file("excluded" if key in exclude else "duplicate", file.name)
            elif contaminated is not None and contaminated(file.text):
                self.report.drop_file("contaminated", file.name)
            elif self.unparsable == "drop" and parse(file.text) is None:
                self.report.drop_file("unparsable", file.name)
            else:
                text = self._clean(file.text)
                if text.strip():
                    names[file.name] += 1
                    again = names[file.name]
                    name = file.name if again == 1 else f"{file.name}~{again}"
                    self.keys[name] = key
                    yield SourceFile(name, text)
                else:
                    self.report.drop_file("only comments", file.name)
            seen.add(key)
        self.report.dropped_files.update(read.skipped)
        for reason, name in read.examples.items():
            self.report.examples.setdefault(reason, name)

    def _clean(self, text: str) -> str:
        if self.docstrings == "strip":
            text = strip_docstrings(text)
        if self.comments == "keep":
            return text
        return strip_comments(text) if self.comments == "strip" else comments_as_thoughts(text)

    def _encoded(
        self, tokenizer: PreTrainedTokenizerBase, files: Sequence[SourceFile]
    ) -> Iterator[tuple[SourceFile, list[Action], list[list[int]]]]:
        """Segment and encode a batch of files at once; files whose text does not come back exactly are dropped."""
        segmented = [self.segmenter.segment(file.text) for file in files]
        lines = [action.text for actions in segmented for action in actions]
        ids = encode_texts(tokenizer, lines)
        inexact = inexact_texts(tokenizer, lines, ids)
        at = 0
        for file, actions in zip(files, segmented, strict=True):
            own = ids[at : at + len(actions)]
            at += len(actions)
            if any(action.text in inexact for action in actions):
                self.report.drop_file("inexact", file.name)
            elif self.long_line == "drop_file" and any(len(line) > self.max_tokens - 2 for line in own):
                self.report.drop_file("long line", file.name)
            else:
                yield file, actions, own

    def _cut(
        self, tokenizer: PreTrainedTokenizerBase, name: str, actions: Sequence[Action], ids: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, Trajectory]]:
        start_id, end_id = start_and_end_ids(tokenizer)
        may_think = [action.may_think for action in actions]
        lengths = [len(line) for line in ids]
        spans, dropped = cut_lines(
            lengths, may_think, self.segmenter.strong_starts(actions), self.max_tokens - 2, self.max_lines
        )
        for reason, lines in dropped.items():
            self.report.drop_lines(reason, name, lines)
        number = 0
        for begin, end in spans:
            if end - begin < self.min_lines:
                self.report.drop_lines("short snippet", name, end - begin)
            else:
                snippet_id = f"{name}#{number}"
                own, may = ids[begin:end], may_think[begin:end]
                yield begin, Trajectory.from_lines(snippet_id, own, may, start_id, end_id)
                number += 1


def cut_lines(
    lengths: Sequence[int], may_think: Sequence[bool], strong: Sequence[bool], max_tokens: int, max_lines: int
) -> tuple[list[tuple[int, int]], Counter[str]]:
    """Cut a file's actions into snippets, each as long as the limits allow.

    A snippet ends before the last strong start within the limits, else before the last action a latent may precede.

    Args:
        lengths: tokens of each action, [n].
        may_think: bool [n], where a snippet may begin.
        strong: bool [n], where it best begins.
        max_tokens: most tokens of a snippet, without start and end token.
        max_lines: most actions of a snippet.

    Returns:
        Half-open spans of actions, in order, and how many actions are in none of them: "long line" (longer than
        `max_tokens` by itself), "no cut" (what stands between such a line, or the limits, and the next legal start).

    >>> cut_lines([3, 3, 3, 9, 1, 2], [True] * 6, [True, False, True, False, False, True], 6, 10)
    ([(0, 2), (2, 3), (4, 6)], Counter({'long line': 1}))
    """
    spans: list[tuple[int, int]] = []
    dropped: Counter[str] = Counter()
    begin, n = 0, len(lengths)
    while begin < n:
        if not may_think[begin] or lengths[begin] > max_tokens:
            dropped["long line" if lengths[begin] > max_tokens else "no cut"] += 1
            begin += 1
            continue
        end, tokens = begin, 0
        while end < n and end - begin < max_lines and tokens + lengths[end] <= max_tokens:
            tokens += lengths[end]
            end += 1
        if end < n:
            end = _last_cut(begin, end, may_think, strong)
        if end == begin:  # not one legal cut within the limits
            dropped["no cut"] += 1
            end = begin + 1
        else:
            spans.append((begin, end))
        begin = end
    return spans, +dropped


def _last_cut(begin: int, end: int, may_think: Sequence[bool], strong: Sequence[bool]) -> int:
    """The last place in (begin, end] to cut at: a strong start, else one where a latent may stand, else `begin`."""
    for good in (strong, may_think):
        for i in range(end, begin, -1):
            if good[i]:
                return i
    return begin


def text_key(text: str) -> str:
    """What exact duplicates and held-out texts are recognised by: a hash of the text as read, 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def held_out(files: Sequence[str], fraction: float) -> set[str]:
    """The files of the held-out split: those whose name hashes below the fraction; at least one of two or more.

    A name is always on the same side, whatever else the corpus holds (but for that one).

    >>> sorted(held_out([f"{i}.py" for i in range(20)], 0.1))
    ['10.py']
    """
    if not 0 <= fraction < 1:
        raise DataError(f"val_fraction={fraction}: must be in [0, 1).")
    if fraction == 0:
        return set()
    place = {name: hash_fraction(name, "val") for name in files}
    chosen = {name for name, where in place.items() if where < fraction}
    if not chosen and len(place) >= 2:
        chosen = {min(place, key=place.__getitem__)}
    return chosen


def _import_callable(path: str) -> Callable[[str], bool]:
    """The callable at `package.module.name` (or `package.module:name`)."""
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
        raise DataError(
            f"decontaminate={path!r}: cannot import {module!r} ({type(error).__name__}: {error}). "
            "Give package.module.name."
        ) from error
    if not callable(getattr(found, name, None)):
        hint = nearest(name, [n for n in dir(found) if callable(getattr(found, n))])
        raise DataError(f"decontaminate={path!r}: {module} has no callable {name!r}.{hint} Give package.module.name.")
    return getattr(found, name)
