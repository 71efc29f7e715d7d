"""The runs of a report: found in folders, read, joined over their seeds, and named by what tells them apart."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3kit.errors import RunError, nearest
from ra3kit.provenance import FILE, read, redacted_tree
from ra3kit.recipe import load
from ra3kit.reports.curves import Curve, has_events, read_curves
from ra3kit.runs import is_finished

IN_LABEL = 3
"""At most so many settings name an arm; where more differ, its folder does."""


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk.

    Args:
        folder: of the run.
        curves: by tag.
        settings: dotted key of its recipe -> value; {} for a run without recipe.yaml.
        results: its results.json; {} before its end.
        starts: from its provenance, first to last; [] without one.
    """

    folder: Path
    curves: dict[str, Curve]
    settings: dict[str, Any]
    results: dict[str, Any]
    starts: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.settings.get("run.name") or self.folder.name)

    @property
    def seed(self) -> Any:
        """`run.seed`; None without a recipe."""
        return self.settings.get("run.seed")

    @property
    def stage(self) -> str:
        """ "rlvr", "ra3" (BRiTE too), "ntp"; "" for tags of another program."""
        kinds = {tag.split("/")[0] for tag in self.curves}
        stages = (("rlvr", {"rlvr"}), ("ra3", {"estep", "warmup"}), ("ntp", {"ntp"}))
        return next((stage for stage, marks in stages if kinds & marks), "")

    @property
    def state(self) -> str:
        """How it ended, if it has."""
        if "stopped" in self.results:
            return f"stopped: {self.results['stopped']}"
        if is_finished(self.folder):
            return "finished"
        outcome = self.starts[-1]["outcome"] if self.starts else None
        return str(outcome) if outcome else "going on, or killed"

    @property
    def last_step(self) -> int:
        """The last step of any curve."""
        return max(int(curve.steps[-1]) for curve in self.curves.values())

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return max(float(curve.seconds.max()) for curve in self.curves.values())


@dataclass(frozen=True)
class Arm:
    """Runs that are one curve: training seeds of the same settings.

    Args:
        label: what tells it from the others.
        runs: at least one.
    """

    label: str
    runs: list[Run]


# --- finding and reading ---------------------------------------------------------------------------------------------


def find_runs(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The run folders that are meant, each once: a folder with event files is one, of others those one or two below.

    Returns:
        The folders, and a line for each that is a run but has no events yet.

    Raises:
        RunError: there is no such folder, or no run with events in it.
    """
    found: dict[Path, None] = {}
    empty = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise RunError(f"No run {str(path)!r}: {_why_not(path)}")
        if has_events(path):
            found[path] = None
            continue
        inside = [folder for folder in _below(path) if (folder / "recipe.yaml").is_file() or has_events(folder)]
        with_events = [folder for folder in inside if has_events(folder)]
        if not with_events:
            raise RunError(
                f"{path}: no TensorBoard event files in it, nor in a folder in it. Name the folder of a run."
            )
        found |= dict.fromkeys(with_events)
        empty += [f"left out: {folder} has no event files" for folder in inside if folder not in found]
    return list(found), empty


def _below(path: Path) -> list[Path]:
    folders = [folder for pattern in ("*", "*/*") for folder in path.glob(pattern) if folder.is_dir()]
    return sorted(folders, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in a path by their size."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _why_not(path: Path) -> str:
    if path.exists():
        return "this is a file. Name the folder it is in."
    beside = [folder.name for folder in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"it is not there.{nearest(path.name, beside)}"


def read_run(folder: Path) -> Run:
    """Everything of a run.

    Raises:
        RA3Error: its events, recipe, results or provenance cannot be read.
    """
    recipe, results = folder / "recipe.yaml", folder / "results.json"
    tree = redacted_tree(load(str(recipe)).tree) if recipe.is_file() else {}
    try:
        known = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    except ValueError as error:
        raise RunError(f"{results} cannot be read: {error}") from error
    starts = read(folder)["starts"] if (folder / FILE).is_file() else []
    return Run(folder, read_curves(folder), dict(flat(tree)), known if isinstance(known, dict) else {}, starts)


def stores_of(folder: Path) -> dict[int, Path]:
    """The annotated stores of a run by iteration, finished or not; those set aside by a resume are not among them."""
    found = [(re.fullmatch(r"iteration-(\d+)", path.name), path) for path in (folder / "store").glob("iteration-*")]
    return dict(sorted((int(match[1]), path) for match, path in found if match and path.is_dir()))


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; of a list of components each is called by its class.

    >>> dict(flat({"a": {"b": 1, "c": [{"class_path": "x.Y", "d": 2}, 3]}}))
    {'a.b': 1, 'a.c.Y.class_path': 'x.Y', 'a.c.Y.d': 2, 'a.c.1': 3}
    """
    if isinstance(node, Mapping):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list):
        classes = [str(item["class_path"]).rpartition(".")[2] if _is_component(item) else "" for item in node]
        once = Counter(classes)
        items = [
            (name if name and once[name] == 1 else str(i), item)
            for i, (name, item) in enumerate(zip(classes, node, strict=True))
        ]
    else:
        yield prefix, node
        return
    if not items and prefix:
        yield prefix, node
    for key, value in items:
        yield from flat(value, f"{prefix}.{key}" if prefix else key)


def _is_component(item: Any) -> bool:
    return isinstance(item, Mapping) and "class_path" in item


# --- joining ---------------------------------------------------------------------------------------------------------


def is_seed(key: str) -> bool:
    """Whether a setting only says where random numbers begin."""
    return key.rpartition(".")[2] == "seed"


def join(runs: Sequence[Run], by: Sequence[str] | None = None, joined: bool = True) -> list[Arm]:
    """Runs of one name that differ in nothing but seeds and folder as one arm, in the order given.

    Args:
        runs: at least one.
        by: settings that tell arms apart, whatever else differs within them.
        joined: False: each run is an arm.

    Raises:
        RunError: no run has a setting named in `by`.
    """
    for key in by or ():
        known = {name for run in runs for name in run.settings}
        if key not in known:
            raise RunError(f"--group {key}: no run has this setting.{nearest(key, known)}")
    together: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        if by:
            identity: Any = tuple(repr(run.settings.get(key)) for key in by)
        elif joined and run.settings:
            identity = tuple(sorted((k, repr(v)) for k, v in run.settings.items() if k == "run.name" or not _aside(k)))
        else:
            identity = number
        together.setdefault(identity, []).append(run)
    arms = list(together.values())
    return [Arm(label, arm) for label, arm in zip(labels(arms), arms, strict=True)]


def _aside(key: str) -> bool:
    """A setting that says nothing about what was trained."""
    return is_seed(key) or key in ("run.name", "run.dir")


def differences(arms: Sequence[Sequence[Run]]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs, seeds, names and folders aside: key -> value in each arm.

    Several values within an arm stand one after the other; "-" is a setting that a run does not have.
    """
    keys = dict.fromkeys(key for arm in arms for run in arm for key in run.settings)
    shown = {
        key: [" / ".join(dict.fromkeys(_text(run, key) for run in arm)) for arm in arms]
        for key in keys
        if not _aside(key)
    }
    return {key: values for key, values in shown.items() if len(set(values)) > 1 or " / " in values[0]}


def _text(run: Run, key: str) -> str:
    return str(run.settings[key]) if key in run.settings else "-"


# --- naming ----------------------------------------------------------------------------------------------------------


def labels(arms: Sequence[Sequence[Run]]) -> list[str]:
    """The shortest that tells arms apart: the parts of their names that differ, then settings, then folders."""
    names = distinguishing([arm[0].name for arm in arms])
    if len(arms) == 1 or _all_differ(names):
        return names
    stem = names if len(set(names)) > 1 else [""] * len(arms)
    keys = _telling(arms, stem)
    if 0 < len(keys) <= IN_LABEL:
        short = shortest_ends(keys)
        told = [", ".join(f"{end}={_text(arm[0], key)}" for key, end in zip(keys, short, strict=True)) for arm in arms]
        said = [f"{start} {settings}".strip() for start, settings in zip(stem, told, strict=True)]
        if _all_differ(said):
            return said
    folders = distinguishing([str(arm[0].folder.absolute()) for arm in arms])
    return folders if _all_differ(folders) else [str(arm[0].folder.absolute()) for arm in arms]


def _telling(arms: Sequence[Sequence[Run]], stem: Sequence[str]) -> list[str]:
    """Settings that tell apart arms of one stem, each with one value within an arm; `run.seed` only where it must."""
    found = {key: values for key, values in differences(arms).items() if not any(" / " in value for value in values)}
    keys = [key for key, values in found.items() if len(set(zip(stem, values, strict=True))) > len(set(stem))]
    told = [(start, *(found[key][i] for key in keys)) for i, start in enumerate(stem)]
    single = all(len({run.seed for run in arm}) == 1 for arm in arms)
    return [*keys, "run.seed"] if single and len(set(told)) < len(told) else keys


def distinguishing(names: Sequence[str]) -> list[str]:
    """Names without the words that all begin and end with; as they are, where nothing would be left of one.

    >>> distinguishing(["tiny-rlvr-from-ntp", "tiny-rlvr-from-ra3", "tiny-rlvr-from-ntp"])
    ['ntp', 'ra3', 'ntp']
    >>> distinguishing(["tiny", "tiny-ra3"])
    ['tiny', 'tiny-ra3']
    """
    if len(set(names)) == 1:
        return list(names)
    words = [re.findall(r"[^-_/]+[-_/]*|^[-_/]+", name) for name in names]
    first, last = _common(words), _common([part[::-1] for part in words])
    cut = ["".join(part[first : len(part) - last]).strip("-_/") for part in words]
    return cut if all(cut) and len(set(cut)) == len(set(names)) else list(names)


def _common(words: Sequence[Sequence[str]]) -> int:
    """How many words all begin with, separators aside."""
    count = 0
    for column in zip(*words, strict=False):
        if len({word.rstrip("-_/") for word in column}) > 1:
            break
        count += 1
    return count


def shortest_ends(keys: Sequence[str]) -> list[str]:
    """The shortest ends of dotted keys that are the end of no other.

    >>> shortest_ends(["model.lr", "model.policy.lr", "data.seed"])
    ['model.lr', 'policy.lr', 'seed']
    """
    out = []
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        others = [f".{other}" for other in keys if other != key]
        out.append(next(end for end in ends if not any(other.endswith(f".{end}") for other in others)))
    return out


def _all_differ(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)
