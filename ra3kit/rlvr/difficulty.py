"""`DifficultyFilter`: keeps the problems that the starting policy solves sometimes. The others teach nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3kit.errors import DataError
from ra3kit.progress import track
from ra3kit.ranges import check_number
from ra3kit.ranks import gather, rank, world_size
from ra3kit.rlvr.tasks import Task
from ra3kit.sharding import fingerprint

FILE = "difficulty.jsonl"
"""The cache in a run's folder."""


@dataclass
class Chosen:
    """What became of the problems.

    Args:
        kept: ids of those that are trained on.
        counts: kept, too easy, too hard, not judged; how they were measured.
    """

    kept: list[str]
    counts: dict[str, Any]


class DifficultyFilter:
    """Keeps problems by the share of answers that pass, sampled from the policy that training starts from.

    Every task is answered `samples` times under the run's own temperature and length limit. What was measured is kept
    in a cache, a line at a time, and is measured again only for other weights, prompts, tests or sampling settings.

    Args:
        samples: answers to each problem, >= 1.
        low, high: a problem stays where low < pass rate < high; in [-1, 1) and (0, 2]. 0 and 1 leave out what never and
            what always passes; low = -1 keeps the hardest, high = 2 the easiest.
        cache: a JSON lines file that several runs may share; null is `difficulty.jsonl` in the run's folder.
        chunk: problems that a process measures between two writes to the cache, >= 1.
        seed: of the draws.

    Raises:
        DataError: settings out of range.
    """

    def __init__(
        self,
        samples: int = 8,
        low: float = 0.0,
        high: float = 1.0,
        cache: str | None = None,
        chunk: int = 16,
        seed: int = 0,
    ) -> None:
        check_number("data.difficulty.samples", samples, least=1, whole=True, error=DataError)
        check_number("data.difficulty.low", low, least=-1, below=1, error=DataError)
        check_number("data.difficulty.high", high, above=max(low, 0), most=2, error=DataError)
        check_number("data.difficulty.chunk", chunk, least=1, whole=True, error=DataError)
        check_number("data.difficulty.seed", seed, least=0, whole=True, error=DataError)
        self.samples, self.low, self.high = samples, low, high
        self.cache, self.chunk, self.seed = cache, chunk, seed

    def choose(self, tasks: Sequence[Task], module: Any, folder: Path) -> Chosen:
        """Measure what the cache lacks, and choose; every rank calls this and gets the same.

        Args:
            tasks: with unique ids.
            module: of the run, with its starting weights: has `policy`, `temperature`, `max_new_tokens`, and
                `pass_rates(tasks, samples, seed)`, a list of (answers that passed, answers that were judged).
            folder: of the run, where the cache is without a path of its own.

        Raises:
            DataError: no problem is left, or the cache holds something else.
        """
        path = Path(self.cache).expanduser() if self.cache else folder / FILE
        settings = {
            "weights": fingerprint(module.policy.model),
            "temperature": module.temperature,
            "max_new_tokens": module.max_new_tokens,
            "samples": self.samples,
            "seed": self.seed,
        }
        keys = [key_of(task, settings) for task in tasks]
        [known, *_] = gather(read_cache(path) if rank() == 0 else {})  # one process says: folders may not be shared
        missing = [place for place, key in enumerate(keys) if key not in known]
        started = time.monotonic()
        self._measure(tasks, keys, missing, module, path, settings, known)
        chosen = self._chosen(tasks, [known[key] for key in keys])
        chosen.counts |= {"samples": self.samples, "measured now": len(missing), "seed": self.seed}
        if rank() == 0:
            print(self._told(chosen, len(tasks), len(missing), time.monotonic() - started, path), flush=True)
        if not chosen.kept:
            raise DataError(
                f"data.difficulty: of {len(tasks)} problems none has {self._range()}: {counted(chosen.counts)}. Give "
                "easier or harder problems, more samples, or wider bounds."
            )
        return chosen

    def _measure(
        self,
        tasks: Sequence[Task],
        keys: Sequence[str],
        missing: Sequence[int],
        module: Any,
        path: Path,
        settings: dict[str, Any],
        known: dict[str, tuple[int, int]],
    ) -> None:
        """Fill `known`, and the file, chunk by chunk; each process measures a part of a chunk."""
        size = self.chunk * world_size()
        with track(len(missing), "measuring difficulty") if rank() == 0 else nullcontext(lambda: None) as advance:
            for start in range(0, len(missing), size):
                places = missing[start : start + size]
                own = places[rank() :: world_size()]
                rates = module.pass_rates([tasks[place] for place in own], self.samples, self.seed)
                found = dict(pair for part in gather(list(zip(own, rates, strict=True))) for pair in part)
                for place in places:
                    known[keys[place]] = found[place]
                    advance()
                if rank() == 0:
                    append(path, [_line(keys[place], tasks[place], found[place], settings) for place in places])

    def _chosen(self, tasks: Sequence[Task], rates: Sequence[tuple[int, int]]) -> Chosen:
        counts = {"kept": 0, "too easy": 0, "too hard": 0, "not judged": 0}
        kept = []
        for task, (passed, judged) in zip(tasks, rates, strict=True):
            fate = self.fate(passed, judged)
            counts[fate] += 1
            if fate == "kept":
                kept.append(task.problem.id)
        known = [passed / judged for passed, judged in rates if judged]
        mean = {"mean pass rate": round(sum(known) / len(known), 4)} if known else {}
        return Chosen(kept, counts | mean)

    def fate(self, passed: int, judged: int) -> str:
        """What becomes of a problem: "kept", "too easy", "too hard", or "not judged" where nothing is known.

        >>> [DifficultyFilter().fate(passed, 8) for passed in (0, 1, 7, 8)]
        ['too hard', 'kept', 'kept', 'too easy']
        """
        if not judged:
            return "not judged"
        rate = passed / judged
        return "too hard" if rate <= self.low else "too easy" if rate >= self.high else "kept"

    def _range(self) -> str:
        return f"{self.low:g} < pass rate < {self.high:g}"

    def _told(self, chosen: Chosen, total: int, measured: int, seconds: float, path: Path) -> str:
        from_cache = f", {total - measured:,} from {path}" if measured < total else ""
        return (
            f"difficulty: {len(chosen.kept):,} of {total:,} problems have {self._range()}, {self.samples} answers "
            f"each ({counted(chosen.counts)}); {measured:,} measured in {seconds:.0f} s{from_cache}"
        )


def counted(counts: Mapping[str, Any]) -> str:
    """The counts of `Chosen` in words."""
    names = ("kept", "too easy", "too hard", "not judged", "mean pass rate")
    return ", ".join(f"{name} {counts[name]}" for name in names if name in counts)


# ---- the cache ------------------------------------------------------------------------------------------------------


def key_of(task: Task, settings: dict[str, Any]) -> str:
    """What a pass rate is one of: the weights, what is asked and how it is judged, and how answers are sampled."""
    text = json.dumps([task.content, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _line(key: str, task: Task, rate: tuple[int, int], settings: dict[str, Any]) -> dict[str, Any]:
    return {"key": key, "id": task.problem.id, "passed": rate[0], "judged": rate[1], **settings}


def read_cache(path: Path) -> dict[str, tuple[int, int]]:
    """Key -> (passed, judged). A last line that was not written to its end counts as not there.

    Raises:
        DataError: a line that is no measurement, or a file that cannot be read.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"data.difficulty.cache={path}: it cannot be read: {error}") from error
    known = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            known[str(entry["key"])] = (int(entry["passed"]), int(entry["judged"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"data.difficulty.cache={path}: line {number} is no measurement ({error}). Give another file, or take "
                "this line out."
            ) from error
    return known


def append(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Add whole lines, after taking off an unfinished one; runs that share the file wait for each other.

    Raises:
        DataError: the file cannot be written.
    """
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"data.difficulty.cache={path}: it cannot be written: {error}") from error
