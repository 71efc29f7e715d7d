"""The thoughts of a training run, read from its folder: annotated stores, trained pi, prior.

What cannot be read is left out, and a note says so. What does not belong together is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from ra3kit.abstraction.credit import Scale
from ra3kit.abstraction.evaluate import thought_gains
from ra3kit.abstraction.prior import LatentPrior
from ra3kit.build import build_part
from ra3kit.data.encode import decode_ids
from ra3kit.data.store import BootstrappedStore
from ra3kit.data.tokenizer import load_tokenizer, tokenizer_id
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, RA3Error
from ra3kit.latents import ThoughtRules
from ra3kit.policy import BasePolicy
from ra3kit.progress import track
from ra3kit.recipe import load
from ra3kit.render import thought_line
from ra3kit.reports.annotated import Mark, Row
from ra3kit.reports.options import NONE_YET, Options, options_of
from ra3kit.reports.runs import Run, stores_of
from ra3kit.reports.thoughts import Intent, Worth, costs_of, gain_on, intents_of

SEED = 0
AT_ONCE = 8
"""Snippets weighed between two signs of progress."""
LARGE = 20_000
"""Snippets from which on reading a store takes long enough to show progress."""

Texts = dict[tuple[int, ...], str]


@dataclass(frozen=True)
class Sample:
    """Annotated snippets of the last store, weighed.

    Args:
        worths: of every thought in them.
        snippets: (id, rows) of each, as they are shown.
        of: snippets of the store that have a thought.
        scale, prior: unit of gains and costs, and the prior in words.
    """

    worths: list[Worth]
    snippets: list[tuple[str, list[Row]]]
    of: int
    scale: Scale
    prior: str


@dataclass(frozen=True)
class RunThoughts:
    """What a run's stores and its model say of its thoughts.

    Args:
        options: of each annotated store that can be read, by iteration (0-based); not empty.
        intents: of the last of these, the most frequent first; None where there is no tokenizer.
        sample: None where nothing was weighed.
        notes: what was left out, and why.
    """

    options: dict[int, Options]
    intents: list[Intent] | None
    sample: Sample | None
    notes: list[str]

    @property
    def last(self) -> int:
        """The last iteration."""
        return max(self.options)


def read_thoughts(run: Run, snippets: int) -> RunThoughts:
    """Read the stores of a run that has at least one, and weigh a seeded sample of the last.

    Args:
        run: read.
        snippets: annotated snippets to weigh, at most; 0 weighs none.

    Raises:
        DataError: the last store was written with another tokenizer than the model has.
    """
    notes: list[str] = []
    options, stores = _read_stores(run.folder, notes)
    if not options:
        return RunThoughts({}, None, None, notes)
    store, of_last = stores[max(options)], options[max(options)]
    model = run.folder / "model"
    if not model.is_dir():
        notes.append(
            f"{model} is not there (the run: {run.state}). What thoughts gained, intents by their text and annotated "
            "snippets need the trained weights and their tokenizer, which are written at the end of a run: left out"
        )
        return RunThoughts(options, None, None, notes)
    try:
        tokenizer = load_tokenizer(str(model))
    except RA3Error as error:
        notes.append(f"intents by their text, gains and annotated snippets are left out: {error}")
        return RunThoughts(options, None, None, notes)
    _check_tokenizer(store, tokenizer, model, notes)
    sample, texts = None, texts_of(tokenizer, of_last.intents)
    try:
        sample = _weigh(run, store, of_last.thinking, texts, snippets)
    except RA3Error as error:
        notes.append(f"what thoughts gained and annotated snippets are left out: {error}")
    return RunThoughts(options, intents_of(of_last, texts, sample.worths if sample else ()), sample, notes)


# --- stores ----------------------------------------------------------------------------------------------------------


def _read_stores(folder: Path, notes: list[str]) -> tuple[dict[int, Options], dict[int, BootstrappedStore]]:
    """By iteration: the options of every store that can be read, and the store."""
    options, stores = {}, {}
    for iteration, path in stores_of(folder).items():
        try:
            store = BootstrappedStore.open(path)
            with track(len(store) if len(store) >= LARGE else 0, f"reading {path.name}") as advance:
                found = options_of(_checked(store, advance), rules_of(store))
        except (RA3Error, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            # a damaged file, or one of another program, can be wrong in as many ways as it has parts
            notes.append(f"{path} is left out: {_why(error)}")
            continue
        if len(found.lines):
            options[iteration], stores[iteration] = found, store
        else:
            notes.append(f"{path} is left out: it has no line of code")
    return options, stores


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, RA3Error) else f"it is damaged ({type(error).__name__}: {error})"


def _checked(store: BootstrappedStore, advance: Callable[[], None]) -> Iterator[Trajectory]:
    for trajectory in store:
        trajectory.check()
        yield trajectory
        advance()


def rules_of(store: BootstrappedStore) -> ThoughtRules:
    """Where the store's posterior chose a latent; a store that does not say: before every line that may have one."""
    rules: dict[str, Any] = store.provenance.get("rules", {})
    return ThoughtRules(**rules)


def _check_tokenizer(store: BootstrappedStore, tokenizer: Any, model: Path, notes: list[str]) -> None:
    there, own = store.provenance.get("tokenizer"), tokenizer_id(tokenizer)
    (folder,) = store.folders
    if there is None:
        # nothing else would tell ids of another vocabulary from its own
        notes.append(f"{folder} does not say which tokenizer it was written with: it is read with that of {model}")
    elif there != own:
        raise DataError(
            f"{folder} was written with tokenizer {there}, but {model} has {own}: they are of different runs. Put the "
            "store and the model of one run together, or move the store away to have the report without it."
        )


def texts_of(tokenizer: Any, intents: Sequence[tuple[int, ...]]) -> Texts:
    """What a person reads: without line end, and without characters that a terminal or a page would act on."""
    thoughts = [ids for ids in intents if ids != NONE_YET]
    decoded = decode_ids(tokenizer, thoughts)
    return {ids: thought_line(text, None)[2:] for ids, text in zip(thoughts, decoded, strict=True)}


# --- the sample ------------------------------------------------------------------------------------------------------


def _weigh(
    run: Run, store: BootstrappedStore, thinking: Int[np.ndarray, " s"], texts: Texts, snippets: int
) -> Sample | None:
    """Gains of the thoughts of some snippets under the trained pi; None where nothing is to be weighed."""
    if not snippets or not len(thinking):
        return None
    prior = build_part(load(str(run.folder / "recipe.yaml")), "model.prior", LatentPrior)  # type: ignore[type-abstract]
    rng = np.random.default_rng(SEED)
    chosen = np.sort(rng.choice(thinking, min(snippets, len(thinking)), replace=False))
    sample = [store[int(i)] for i in chosen]
    policy = BasePolicy(model=str(run.folder / "model"))
    _check_ids(sample, len(policy.tokenizer))
    policy.model.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)
    rules = rules_of(store)
    worths: list[Worth] = []
    with track(len(sample), "weighing thoughts") as advance:
        for first in range(0, len(sample), AT_ONCE):
            part = sample[first : first + AT_ONCE]
            worths += worths_of(policy.model, part, prior, rules, texts, first)
            for _ in part:
                advance()
    shown = [(t.snippet_id, rows_of(t, policy.tokenizer, texts, worths, i)) for i, t in enumerate(sample)]
    return Sample(worths, shown, len(thinking), prior.scale, prior.describe())


def _check_ids(sample: Sequence[Trajectory], vocabulary: int) -> None:
    """Refuse tokens that the model has no embedding of, which a GPU would answer with an abort."""
    for trajectory in sample:
        if trajectory.ids.min() < 0 or trajectory.ids.max() >= vocabulary:
            raise DataError(f"{trajectory.snippet_id} has ids outside of the {vocabulary} tokens that the model knows.")


def worths_of(
    pi: torch.nn.Module,
    trajectories: Sequence[Trajectory],
    prior: LatentPrior,
    rules: ThoughtRules,
    texts: Texts,
    first: int = 0,
) -> list[Worth]:
    """Every thought of some annotated snippets, weighed.

    Args:
        pi: scores the lines.
        trajectories: annotated.
        prior: charges for the thoughts.
        rules: where a latent was chosen.
        texts: of every thought, by its token ids.
        first: number of the first snippet.
    """
    costs = [costs_of(prior, t.has_thought(), rules.may_think(t.may_think)) for t in trajectories]
    out = []
    for gain in thought_gains(pi, trajectories):
        trajectory = trajectories[gain.snippet]
        ids = tuple(trajectory.thought_ids(gain.line))
        worth, cost = gain_on(prior.scale, gain, trajectory), costs[gain.snippet][gain.line]
        at = (first + gain.snippet, gain.line, gain.lines)
        out.append(Worth(*at, texts[ids], len(ids), gain.nats, worth, cost))
    return out


WORDS: dict[Mark, str] = {"paid": "paid", "gained": "gained, not paid", "lost": "lost"}


def rows_of(trajectory: Trajectory, tokenizer: Any, texts: Texts, worths: Sequence[Worth], snippet: int) -> list[Row]:
    """The lines of a snippet with its thoughts, each marked by what the thought that covers it was worth."""
    own = {worth.line: worth for worth in worths if worth.snippet == snippet}
    code = decode_ids(tokenizer, [trajectory.line_ids(line) for line in range(len(trajectory.lines))])
    rows: list[Row] = []
    mark: Mark | None = None
    for line, text in enumerate(code):
        if line in own:
            worth = own[line]
            mark = worth.mark
            rows.append(Row(worth.text, True, mark, f"{worth.nats:+.2f} nats, {WORDS[mark]}"))
        rows.append(Row(text.rstrip("\n"), False, mark))
    return rows
