"""What made every file of a run: `provenance.json` in its folder.

    starts      each time the run was started or resumed: command, recipe, commits, versions, machine, when, its end
    data        hash and account of the snippets; tokenizer: its id
    artefacts   path -> kind, bytes, sha256, step, phase, iteration, who made it, in which start

The file is replaced whole, never half written. A run that is killed leaves a start without an end, which the next one
says so of. Secrets: of the environment only the variables of `ra3kit.environment` are kept; settings whose names look
like secrets, and passwords in addresses, are blotted out.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ra3kit.environment import SECRET
from ra3kit.errors import RunError

FILE = "provenance.json"
FORMAT = 1
HASH_UP_TO = 4 * 2**30
"""Bytes. A larger artefact is kept with its size only, unless told otherwise: hashing would hold up the training."""

KINDS = (
    (r"recipe\.yaml", "recipe", "ra3kit fit"),
    (r"store/[^/]+", "annotated store", "EMSwitch"),
    (r"checkpoints/[^/]+", "checkpoint", "Checkpoints"),
    (r"checkpoints/[^/]+\.ckpt", "checkpoint", "ModelCheckpoint"),
    (r"model(-[^/]+)?", "model", "RunReport"),
    (r"eval/[^/]+/[^/]+", "samples and scores", "PassAtK"),
    (r"difficulty\.jsonl", "pass rates", "RLVRDataModule"),
    (r"samples/[^/]+", "sampled answers", "RLVRMonitor"),
    (r"results\.json", "results", "RunReport"),
    (r"report\.md", "report", "RunReport"),
    (r"report\.png", "picture", "RunReport"),
    (r"report(-\d+)?", "report", "ra3kit report"),
    (r"events\.out\.tfevents\..*", "log", "TensorBoardLogger"),
)
"""Pattern of the path in the run folder, kind, who makes it; the last that fits. Others are kept as "other"."""

INSIDE = {"store": 1, "checkpoints": 1, "eval": 2, "samples": 1}
"""Folders that hold artefacts instead of being one, and how deep."""

FINISHED_BY = {"store": "manifest.json", "eval": "results.json"}
"""The file that is written last, in artefacts that grow."""


# --- the record ------------------------------------------------------------------------------------------------------


def read(folder: str | Path) -> dict[str, Any]:
    """The provenance of a run.

    Raises:
        RunError: there is none, or it is damaged or of another format.
    """
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{folder} has no {FILE}: it is no run folder, or one of an older version.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path} is of another format; this version of ra3kit reads {FORMAT}.")
    return content


def begin(folder: Path, start: Mapping[str, Any]) -> None:
    """Add a start. One before it that has no end was killed, and is said to be."""
    new: dict[str, Any] = {"format": FORMAT, "starts": [], "artefacts": {}}
    content = read(folder) if (folder / FILE).exists() else new
    for earlier in content["starts"]:
        if earlier["outcome"] is None:
            earlier["outcome"] = "did not end: it was killed, or the machine stopped"
    content["starts"].append({**start, "started": now(), "finished": None, "outcome": None})
    write(folder, content)


def describe(folder: Path, **about: Any) -> None:
    """Set what is known of the run, or of its last start (`start={...}`)."""
    content = read(folder)
    content["starts"][-1] |= about.pop("start", {})
    write(folder, content | about)


def end(folder: Path, outcome: str) -> None:
    """Say how the last start ended."""
    content = read(folder)
    content["starts"][-1] |= {"finished": now(), "outcome": outcome}
    write(folder, content)


def update(folder: Path, where: Mapping[str, Any], changed: bool = False, hash_up_to: int = HASH_UP_TO) -> list[str]:
    """Record the artefacts that have appeared, and mark those that are gone.

    Args:
        folder: of the run.
        where: step, phase and iteration of the training now; a store's or checkpoint's own word counts more.
        changed: also look whether known ones were written anew (their size and time are compared).
        hash_up_to: bytes up to which an artefact is hashed.

    Returns:
        The paths that were recorded.
    """
    content = read(folder)
    known: dict[str, dict[str, Any]] = content["artefacts"]
    present = {name: folder / name for name in artefacts(folder)}
    there = {name for name, entry in known.items() if not entry.get("removed") and not entry.get("outside")}
    recorded = [name for name in present if name not in there]
    if changed:
        both = sorted(there & present.keys())
        recorded += [name for name in both if signature(present[name]) != (known[name]["bytes"], known[name]["time"])]
    gone = there - present.keys()
    if not recorded and not gone:
        return []
    start = len(content["starts"]) - 1
    for name in recorded:
        known[name] = {**entry_of(name, present[name], where, hash_up_to), "start": start}
    for name in gone:
        known[name] |= {"removed": now()}
    write(folder, content)
    return recorded


def record(folder: str | Path, path: str | Path, kind: str, made_by: str, **details: Any) -> None:
    """Add an artefact that a verb made from a run (an exported model, say), inside its folder or elsewhere.

    A run without provenance gets none by this.

    Raises:
        RunError: the provenance is damaged.
    """
    folder, path = Path(folder).resolve(), Path(path).resolve()
    if not (folder / FILE).exists():
        return
    content = read(folder)
    inside = path.is_relative_to(folder)
    name = path.relative_to(folder).as_posix() if inside else str(path)
    entry = {**entry_of(name, path, {}, HASH_UP_TO), "kind": kind, "made_by": made_by, **details}
    content["artefacts"][name] = entry if inside else {**entry, "outside": True}
    write(folder, content)


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace the file, whole or not at all."""
    temporary = folder / f"{FILE}.tmp"
    with temporary.open("w", encoding="utf-8") as sink:
        json.dump(content, sink, indent=1, default=str)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(folder / FILE)


# --- artefacts -------------------------------------------------------------------------------------------------------


def artefacts(folder: Path) -> list[str]:
    """Paths, relative, of what lies whole in a run folder: files, and folders that are one thing (a store, a model)."""
    found: list[str] = []
    for path in _children(folder):
        if path.name in INSIDE and path.is_dir():
            found += [p.relative_to(folder).as_posix() for p in _below(path, INSIDE[path.name]) if _whole(p, path.name)]
        elif path.name != FILE:
            found.append(path.name)
    return found


def entry_of(name: str, path: Path, where: Mapping[str, Any], hash_up_to: int) -> dict[str, Any]:
    """What is kept of one artefact."""
    kind, made_by = "other", None
    for pattern, a_kind, maker in KINDS:
        if re.fullmatch(pattern, name):
            kind, made_by = a_kind, maker
    size, time = signature(path)
    entry: dict[str, Any] = {"kind": kind, "made_by": made_by, "bytes": size, "time": time, **where, **own_word(path)}
    if kind == "log":
        return entry | {"sha256": None, "why": "a log grows until the run has ended"}
    if size > hash_up_to:
        return entry | {"sha256": None, "why": f"more than {hash_up_to:,} bytes"}
    return entry | {"sha256": digest(path)}


def own_word(path: Path) -> dict[str, Any]:
    """What a store or a checkpoint says of itself: step, phase, iteration, and the store's own provenance."""
    for name, key in (("manifest.json", "provenance"), ("about.json", None)):
        try:
            content = json.loads((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it has no such file, or one of another kind
            continue
        said = content.get(key, {}) if key else content
        own = {name: said[name] for name in ("step", "phase", "iteration") if name in said}
        return own | ({"made_from": said} if key else {})
    return {}


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the names and SHA-256 of its files, sorted by name."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    parts = [f"{p.relative_to(path).as_posix()}\0{digest(p)}\n" for p in _files(path)]
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def signature(path: Path) -> tuple[int, str]:
    """Bytes, and the time of the last change, of a file or of all files of a folder."""
    stats = [p.stat() for p in ([path] if path.is_file() else _files(path))]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    moment = datetime.datetime.fromtimestamp(newest // 1000 / 1e6, datetime.UTC)
    return sum(stat.st_size for stat in stats), moment.isoformat(timespec="microseconds")


def _children(folder: Path) -> Iterator[Path]:
    """What lies in a folder, sorted, without what is still being written."""
    yield from sorted(p for p in folder.iterdir() if not p.name.endswith((".tmp", ".part")) and p.name[0] != ".")


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in _children(folder):
        if depth > 1 and path.is_dir():
            yield from _below(path, depth - 1)
        else:
            yield path


def _whole(path: Path, group: str) -> bool:
    return group not in FINISHED_BY or not path.is_dir() or (path / FINISHED_BY[group]).exists()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- verifying and showing -------------------------------------------------------------------------------------------


def verify(folder: str | Path) -> list[str]:
    """What is not as it was recorded: missing, changed, or unknown artefacts; empty when all is well.

    What was recorded without a hash is compared by size; logs, which grow, only have to be there.

    Raises:
        RunError: the run has no readable provenance.
    """
    folder = Path(folder)
    known = read(folder)["artefacts"]
    wrong = []
    for name, entry in known.items():
        path = folder / name  # an absolute name stays as it is
        if entry.get("removed"):
            continue
        if not path.exists():
            wrong.append(f"{name}: missing")
        elif entry["kind"] == "log":
            continue
        elif signature(path)[0] != entry["bytes"]:
            wrong.append(f"{name}: {signature(path)[0]:,} bytes, recorded were {entry['bytes']:,}")
        elif entry["sha256"] is not None and digest(path) != entry["sha256"]:
            wrong.append(f"{name}: its content has changed")
    return wrong + [f"{name}: not in the record" for name in artefacts(folder) if name not in known]


def lines(folder: str | Path) -> list[str]:
    """The provenance of a run for a person."""
    content = read(folder)
    out = []
    for number, start in enumerate(content["starts"]):
        recipe = start.get("recipe", {})
        rows = {
            "started": f"{start['started']}, {start['outcome'] or 'has not ended'} {start['finished'] or ''}".rstrip(),
            "command": start["command"],
            "recipe": f"{recipe.get('name')} ({recipe.get('file')}), seed {recipe.get('seed')}",
            "from step": start.get("from_step", "it did not come to training"),
            "ra3kit": _commit(start["environment"]["ra3kit"]),
            "here": _commit(start["here"]) or "no repository",
            "devices": f"{start['devices']}, {start['strategy']}, {start['precision']}",
        }
        out += [f"start {number}", *(f"  {key:<10} {value}" for key, value in rows.items())]
    data = content.get("data") or {}
    out += ["data", f"  {'hash':<10} {data.get('data_hash')}", f"  {'path':<10} {data.get('path')}"]
    kept = {name: entry for name, entry in content["artefacts"].items() if not entry.get("removed")}
    removed = len(content["artefacts"]) - len(kept)
    out += [f"artefacts ({removed} more were removed while it ran)" if removed else "artefacts"]
    width = max(map(len, kept), default=0)
    for name, entry in sorted(kept.items()):
        at = f"step {entry['step']}" if entry.get("step") is not None else ""
        phase = f" ({entry['phase']})" if entry.get("phase") else ""
        hashed = (entry["sha256"] or "not hashed")[:12]
        made = f"{entry['kind']} by {entry['made_by']}" if entry["made_by"] else entry["kind"]
        out.append(f"  {name:<{width}}  {entry['bytes']:>13,}  {hashed:<12}  {made}, {at}{phase}".rstrip(", "))
    return out


def _commit(about: Any) -> str:
    if not isinstance(about, Mapping):
        return str(about)
    parts = [str(about[key])[:12] for key in ("version", "commit") if about.get(key)]
    return " ".join([*parts, *([f"({about['changed']} files differ)"] if about.get("changed") else [])])


# --- parts -----------------------------------------------------------------------------------------------------------


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def redacted(word: str) -> str:
    """A word of a command line without what is nobody's business.

    >>> redacted("model.api_key=abc"), redacted("data.path=https://me:pw@host/x"), redacted("data.max_tokens=5")
    ('model.api_key=***', 'data.path=https://***@host/x', 'data.max_tokens=5')
    """
    key, found, _ = word.partition("=")
    if found and SECRET.search(key):
        return f"{key}=***"
    return re.sub(r"://[^/@\s]+@", "://***@", word)


def redacted_tree(node: Any) -> Any:
    """The same for every text in a tree, and for every value whose key looks like a secret's."""
    if isinstance(node, Mapping):
        return {key: "***" if SECRET.search(str(key)) else redacted_tree(value) for key, value in node.items()}
    if isinstance(node, str):
        return redacted(node)
    return [redacted_tree(item) for item in node] if isinstance(node, Sequence) else node
