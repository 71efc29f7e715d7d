"""A file with the thoughts that a model writes into it, and what each is worth: what `ra3kit annotate` shows.

The file is cut as the run's data module cuts its corpus, the posterior annotates the snippets, and pi weighs each
thought (`ra3kit.abstraction.evaluate.thought_gains`). The draws depend on the seed, the file's name and the snippet's
number alone. What no snippet holds stays in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from ra3kit import checkpoints
from ra3kit.abstraction.em import RA3Module, derive_seed, own_latents
from ra3kit.abstraction.evaluate import ThoughtGain, gain_summary, thought_gains
from ra3kit.abstraction.posterior import CausalPosterior, LatentPosterior
from ra3kit.build import build_part
from ra3kit.data.encode import decode_ids
from ra3kit.data.module import TrajectoryDataModule, account
from ra3kit.data.snippets import Corpus, Snippet, SnippetReport
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, ModelError, RunError
from ra3kit.policy import BasePolicy, score
from ra3kit.recipe import load
from ra3kit.render import LEFT_OUT, code_lines, thought_line
from ra3kit.rlvr.grpo import GRPOModule
from ra3kit.rollout import line_logps
from ra3kit.sources import Source

Who = Literal["q", "pi"]
MAX_LENGTH, CAPACITY = 32, 1024
"""Tokens of a thought, and positions of a rollout, of a model without a recipe: as in the recipes of published ones."""

Track = Callable[[int, str], AbstractContextManager[Callable[[], None]]]
"""`ra3kit.progress.track`, or one that shows nothing."""


# --- who writes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """Who writes the thoughts, who weighs them, and how files are cut.

    Args:
        name: who writes, in words.
        who: "q", or "pi": the model itself under the latent grammar.
        q: writes.
        policy: pi, which weighs.
        corpus: how snippets are made; its path means nothing.
        notes: what a reader must know of it.
    """

    name: str
    who: Who
    q: LatentPosterior
    policy: BasePolicy
    corpus: Corpus
    notes: tuple[str, ...] = ()


def load_writer(source: Source, who: Who | None = None, device: str = "auto") -> Writer:
    """The writer of a run, a checkpoint, a Hugging Face folder or a hub id.

    Args:
        source: see `ra3kit.sources.find_source`.
        who: None is q where there is one.
        device: "auto" (CUDA if there is one), or a torch device.

    Raises:
        RunError: q is asked for where there is none, or the checkpoint cannot be used.
        RA3Error: the recipe, the model or its tokenizer cannot be used.
    """
    notes: list[str] = []
    if source.checkpoint is not None:
        module = checkpoints.build_model(source.checkpoint)
        policy, posterior = _parts(module, source)
        where = str(source.checkpoint)
    else:
        assert source.model is not None
        policy, posterior = BasePolicy(model=source.model), None
        where = source.model
        if source.run is not None:
            notes.append("no checkpoint is there, and q's weights are only in checkpoints: pi itself writes")
    if who == "q" and posterior is None:
        raise RunError(
            f"--who q: {source.name} has no q. Its weights are in the checkpoints of an RA3 run; a model alone writes "
            "its own thoughts (leave --who out)."
        )
    writes = posterior if posterior is not None and who != "pi" else None
    q = writes or own_latents(policy, posterior or _like(source, policy))
    put_on(policy, q, device)
    corpus = _corpus(source, notes)
    corpus = replace(corpus, max_tokens=min(corpus.max_tokens, q.capacity))
    kind: Who = "pi" if writes is None else "q"
    name = f"{type(q).__name__} q of {where}" if writes is not None else f"pi of {where}"
    return Writer(name, kind, q, policy, corpus, tuple(notes))


def _parts(module: L.LightningModule, source: Source) -> tuple[BasePolicy, LatentPosterior | None]:
    if isinstance(module, RA3Module):
        return module.policy, module.posterior
    if isinstance(module, GRPOModule):
        return module.policy, None
    if isinstance(module, BasePolicy):
        return module, None
    raise RunError(
        f"{source.name}: a {type(module).__name__} writes no thoughts; RA3Module, GRPOModule and BasePolicy do."
    )


def _like(source: Source, policy: BasePolicy) -> LatentPosterior:
    """A posterior with the rules that thoughts follow: the recipe's, else those of the kit's recipes."""
    if source.recipe is not None:
        recipe = load(str(source.recipe))
        if (recipe.tree.get("model") or {}).get("posterior") is not None:
            return build_part(recipe, "model.posterior", LatentPosterior)  # type: ignore[type-abstract]
    return CausalPosterior(MAX_LENGTH, capacity=min(CAPACITY, policy.max_positions or CAPACITY))


def _corpus(source: Source, notes: list[str]) -> Corpus:
    """How the run's data module cuts its corpus; a data module of another kind, or none, gives the defaults."""
    if source.recipe is None:
        return TrajectoryDataModule().corpus()
    data = build_part(load(str(source.recipe)), "data", L.LightningDataModule)
    if isinstance(data, TrajectoryDataModule):
        return data.corpus()
    notes.append(
        f"{type(data).__name__} does not say how it cuts files: those of TrajectoryDataModule are the settings"
    )
    return TrajectoryDataModule().corpus()


def put_on(policy: BasePolicy, q: LatentPosterior, device: str) -> None:
    """Move both to a device, ready to be used.

    Raises:
        ModelError: there is no such device, or no room on it.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        for model in (policy.model, q.model):
            model.to(where).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device={device!r}: {str(error).splitlines()[0]}") from error


# --- the file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thought:
    """A thought: its text, its tokens, and what it is worth (see `ra3kit.abstraction.evaluate.ThoughtGain`)."""

    text: str
    tokens: int
    gain: ThoughtGain


@dataclass(frozen=True)
class Line:
    """One primitive action of the file; several physical lines where blank ones or a statement's others go with it.

    Args:
        number: of its first physical line in the printed file, from 1.
        text: as it is in the file.
        snippet: the id of the snippet that holds it; None where none does.
        may_think: True where a thought could have been written before it.
        thought: what was written.
        logp: log-likelihood under pi, nats, given all thoughts; None outside of snippets.
        logp_without: the same without the thought that covers the line; `logp` where none does.
    """

    number: int
    text: str
    snippet: str | None
    may_think: bool
    thought: Thought | None
    logp: float | None
    logp_without: float | None


@dataclass(frozen=True)
class AnnotatedFile:
    """A file, and the thoughts of several draws.

    Args:
        path: as given.
        draws: the lines with their thoughts; the lines' texts joined are the same in each.
        left_out: reason -> lines that no snippet holds.
        removed: what was taken out before, in words; empty when nothing was.
    """

    path: Path
    draws: tuple[tuple[Line, ...], ...]
    left_out: Mapping[str, int]
    removed: str


@dataclass(frozen=True)
class CutFile:
    """A file's actions (their texts), and the snippets made of them; `corpus` has the settings and the account."""

    path: Path
    actions: tuple[str, ...]
    snippets: tuple[Snippet, ...]
    corpus: Corpus


def cut(
    writer: Writer,
    path: str | Path,
    comments: Literal["keep", "strip"] | None = None,
    docstrings: Literal["keep", "strip"] | None = None,
) -> CutFile:
    """Cut a Python file into snippets as the writer's run cuts its corpus.

    Args:
        writer: from `load_writer`.
        path: a file whose name ends in .py.
        comments, docstrings: None is as in the run.

    Raises:
        DataError: no such file, no Python, or nothing in it that a snippet could be made of.
    """
    path = check_file(path)
    given = {"comments": comments, "docstrings": docstrings}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    # what is about a corpus to train on has no meaning here
    changes |= {"path": str(path), "decontaminate": None, "columns": None, "limit_files": None}
    corpus = replace(writer.corpus, **changes, report=SnippetReport(), keys={})
    snippets = tuple(corpus.snippets(writer.policy.tokenizer))
    if not snippets:
        raise DataError(f"{path}: nothing in it can be annotated. {account(corpus.report)}")
    (cleaned,) = replace(corpus, report=SnippetReport(), keys={}).texts(set())
    return CutFile(path, tuple(a.text for a in corpus.segmenter.segment(cleaned.text)), snippets, corpus)


def check_file(path: str | Path) -> Path:
    """The path, of a file that could be Python.

    Raises:
        DataError: it is not.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    if not path.is_file() or path.suffix != ".py":
        raise DataError(f"{path}: a Python file is needed, with a name that ends in .py.")
    return path


def annotate(writer: Writer, file: CutFile, seed: int = 0, draws: int = 1, track: Track | None = None) -> AnnotatedFile:
    """Let the writer annotate a file, and weigh its thoughts.

    Args:
        writer: from `load_writer`.
        file: from `cut`.
        seed: with the file's name, the snippet's number and the draw it fixes every thought.
        draws: how often, >= 1.
        track: shows progress, see `ra3kit.progress.track`.
    """
    expert = [snippet.trajectory for snippet in file.snippets]
    out = []
    for draw in range(draws):
        drawn_with = derive_seed(seed, "annotate a file", draw)
        which = f" {draw + 1}" if draws > 1 else ""
        with _progress(track, len(expert), f"thoughts{which}") as advance:
            written = writer.q.annotate(expert, writer.policy, drawn_with, advance)
        with _progress(track, len(written), f"gains{which}") as advance:
            out.append(tuple(_lines(file, written, writer, advance)))
    writer.q.engine.free()
    removed = [name for name in ("comments", "docstrings") if getattr(file.corpus, name) == "strip"]
    return AnnotatedFile(file.path, tuple(out), dict(file.corpus.report.dropped_lines), " and ".join(removed))


def _lines(file: CutFile, written: Sequence[Trajectory], writer: Writer, advance: Callable[[], None]) -> Iterator[Line]:
    """The actions of the file in order, those of snippets with what was written before them."""
    starts = {snippet.begin: trajectory for snippet, trajectory in zip(file.snippets, written, strict=True)}
    number, at = 1, 0
    while at < len(file.actions):
        if at in starts:
            found = list(_snippet_lines(starts[at], writer))
            advance()
        else:
            found = [(None, False, None, None, None)]
        for snippet, may_think, thought, logp, without in found:
            yield Line(number, file.actions[at], snippet, may_think, thought, logp, without)
            number += len(re.findall(r"\r\n|\n|\r", file.actions[at]))
            at += 1


_Fields = tuple[str | None, bool, Thought | None, float | None, float | None]


def _snippet_lines(t: Trajectory, writer: Writer) -> Iterator[_Fields]:
    """The fields of a `Line` from `snippet` on, for each line of an annotated snippet."""
    pi, rules = writer.policy.model, writer.q.rules
    gains = {gain.line: gain for gain in thought_gains(pi, [t])}
    with_it = line_logps(t, score(pi, [t])[0]).tolist()
    without = list(with_it)
    for line, gain in gains.items():
        covered = slice(line, line + gain.lines)
        with_it[covered], without[covered] = gain.logp_with, gain.logp_without
    may_think = rules.may_think(t.may_think).tolist()
    for line in range(len(t.lines)):
        thought = None
        if line in gains:
            ids = t.thought_ids(line)
            thought = Thought(decode_ids(writer.policy.tokenizer, [ids])[0].rstrip("\n"), len(ids), gains[line])
        yield t.snippet_id, may_think[line], thought, with_it[line], without[line]


def _progress(track: Track | None, total: int, what: str) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None) if track is None else track(total, what)


# --- what is shown ---------------------------------------------------------------------------------------------------


def body(lines: Sequence[Line], colour: bool = False) -> str:
    """The file with its thoughts, each line with its margin (`ra3kit.render`).

    Without the lines that begin with ">", and without the first two characters of the others, it is the file exactly;
    a newline is added where an action ends without one (at the end of the file, or in an old Macintosh's "\\r").
    """
    out: list[str] = []
    for line in lines:
        if line.thought is not None:
            gain = line.thought.gain
            out.append(thought_line(line.thought.text, gain.nats, gain.tokens, colour) + "\n")
        code = code_lines(line.text, *((LEFT_OUT, colour) if line.snippet is None else ()))
        out.append(code if code.endswith("\n") else f"{code}\n")
    return "".join(out)


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Thoughts, places where one could stand, their share, mean tokens, and `gain_summary`, of one draw or more."""
    thoughts = [line.thought for line in lines if line.thought is not None]
    places = sum(line.may_think for line in lines)
    return {
        "thoughts": len(thoughts),
        "places": places,
        "thought_rate": len(thoughts) / places if places else 0.0,
        "thought_length": sum(thought.tokens for thought in thoughts) / len(thoughts) if thoughts else None,
        **gain_summary([thought.gain for thought in thoughts]),
    }


def summary_line(found: Mapping[str, Any]) -> str:
    """The same in words."""
    if not found["thoughts"]:
        return f"none before {found['places']} lines that could have one"
    return (
        f"{found['thoughts']} before {found['places']} lines ({found['thought_rate']:.1%}), "
        f"{found['thought_length']:.1f} tokens; mean gain {found['gain_per_thought']:+.2f} nats, "
        f"{found['gain_per_token']:+.3f} a token; {found['gain_positive']:.0%} gained"
    )


def left_out_line(left_out: Mapping[str, int]) -> str:
    """How many lines are not annotated, and why; empty when all are."""
    if not left_out:
        return ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return f"{sum(left_out.values())} lines are not annotated, marked ~: {reasons}"


def as_json(file: AnnotatedFile) -> dict[str, Any]:
    """All of it as JSON. Joined, the texts of a draw's lines are the file."""
    draws = []
    for lines in file.draws:
        rows = []
        for line in lines:
            row = {**asdict(line), "thought": None if line.thought is None else line.thought.text}
            if line.thought is not None:
                gain = line.thought.gain
                row |= {"tokens": line.thought.tokens, "covers": gain.lines, "gain": gain.nats}
                row |= {"gain_per_token": gain.nats / gain.tokens}
            rows.append(row)
        draws.append({"lines": rows, "summary": summary(lines)})
    return {"file": str(file.path), "removed": file.removed, "left_out": dict(file.left_out), "draws": draws}
