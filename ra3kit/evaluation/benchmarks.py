"""Benchmarks by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ra3kit.errors import DataError, RecipeError, nearest
from ra3kit.evaluation.records import Malformed, Problems


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that `ra3kit eval` knows.

    Args:
        reader: "module:function"; its keyword arguments are the benchmark's options.
        what: one line for a person.
        by_reference: the reference solutions are run first: for expected values the file doesn't have, or for a record
            of what its tests ask.
    """

    reader: str
    what: str
    by_reference: bool = False

    def function(self) -> Callable[..., Problems]:
        module, _, name = self.reader.partition(":")
        return getattr(importlib.import_module(module), name)

    def options(self) -> dict[str, Any]:
        """Option -> its default."""
        return {name: p.default for name, p in inspect.signature(self.function()).parameters.items()}


BENCHMARKS = {
    "humaneval": Benchmark("ra3kit.evaluation.evalplus:humaneval", "HumanEval, 164 functions, OpenAI's tests", True),
    "humaneval+": Benchmark("ra3kit.evaluation.evalplus:humaneval_plus", "HumanEval with evalplus's tests added", True),
    "mbpp": Benchmark("ra3kit.evaluation.evalplus:mbpp", "MBPP, test split (500; sanitized 257)", True),
    "mbpp+": Benchmark("ra3kit.evaluation.evalplus:mbpp_plus", "MBPP, 378 tasks with evalplus's tests added", True),
    "livecodebench": Benchmark("ra3kit.evaluation.livecodebench:livecodebench", "LiveCodeBench, from a local file"),
    "codeforces": Benchmark("ra3kit.evaluation.contests:codeforces", "open-r1/codeforces, from a local file"),
    "codecontests": Benchmark("ra3kit.evaluation.contests:codecontests", "CodeContests, from a local file"),
    "ra3kit": Benchmark("ra3kit.evaluation.benchmarks:embedded", "the kit's own small problems: no file, no network"),
    "family": Benchmark("ra3kit.evaluation.benchmarks:family", "tasks of the generated program family: no file"),
}


def benchmark(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        RecipeError: no such benchmark.
    """
    if name not in BENCHMARKS:
        raise RecipeError(f"No benchmark {name!r}.{nearest(name, BENCHMARKS)} Benchmarks: {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def load(name: str, options: Mapping[str, Any] | None = None, limit: int | None = None) -> Problems:
    """Read a benchmark.

    Args:
        name: of `BENCHMARKS`.
        options: of its reader, `path` for all but the embedded one.
        limit: only the first so many problems, >= 1.

    Raises:
        RecipeError: no such benchmark or option, or limit below 1.
        DataError: its file is missing or holds nothing usable.
    """
    found = benchmark(name)
    known = found.options()
    for key in options or {}:
        if key not in known:
            raise RecipeError(
                f"{key}: benchmark {name!r} has no such option.{nearest(key, known)} It has {_all(known)}."
            )
    if limit is not None and limit < 1:
        raise RecipeError(f"limit={limit}: must be at least 1")
    read = found.function()(**(options or {}))
    problems, malformed = read.problems[:limit], read.malformed
    if found.by_reference:
        from ra3kit.verify.reference import complete

        failed: dict[str, str] = {}
        problems = list(complete(problems, failed))
        malformed = [
            *malformed,
            *(Malformed(task, f"its reference solution fails: {why}") for task, why in failed.items()),
        ]
    if not problems:
        raise DataError(
            f"benchmark {name!r}: {read.source} holds no usable problem. {'; '.join(map(str, malformed[:3]))}"
        )
    return replace(read, problems=problems, malformed=malformed)


def embedded(split: str = "all") -> Problems:
    """The problems that come with the kit.

    Args:
        split: "all", "train" (what RLVR trains on under the name ra3kit) or "test" (the others).

    Raises:
        RecipeError: no such split.
    """
    from ra3kit.evaluation import embedded as own

    _check_split(split, ("all", *own.SPLITS))
    return Problems(own.load(split), [], "ra3kit" if split == "all" else f"ra3kit, {split} split")


def family(split: str = "val", n: int = 200, world: int = 0, family: str = "") -> Problems:
    """Tasks of a generated program family (`ra3kit.study`).

    Args:
        split: "val", "test", or "train".
        n: how many.
        world: seed of the world.
        family: import path and arguments of another family, `my.module.MyFamily:depth=2`.

    Raises:
        RecipeError: no such split.
        DataError: no such family or argument, or not so many tasks.
    """
    from ra3kit.study.family import find_family

    _check_split(split, ("val", "test", "train"))
    name = ":".join(["family", *([family] if family else []), f"n={n}", f"world={world}"])
    return Problems(find_family(name, ()).problems(split), [], f"{name}, {split} split")  # type: ignore[arg-type]


def _check_split(split: str, allowed: tuple[str, ...]) -> None:
    if split not in allowed:
        raise RecipeError(f"split={split!r}: allowed are {', '.join(allowed)}.{nearest(str(split), allowed)}")


def _all(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
