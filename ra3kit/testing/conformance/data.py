"""What makes the data: `check_tokenizer_spec`, `check_decontaminator`, `check_data_module`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ra3kit.data.encode import decode_ids, encode_texts
from ra3kit.data.module import TrajectoryDataModule
from ra3kit.data.packing import PackedBatch, StepBatch
from ra3kit.data.store import BootstrappedStore, StoreWriter
from ra3kit.data.tokenizer import TokenizerSpec, check_tokenizer, tokenizer_id
from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import LatentGrammar
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.conformance.segmenter import ODD_TEXTS, PYTHON_TEXTS


def check_tokenizer_spec(spec: TokenizerSpec) -> Report:
    """Check that a `TokenizerSpec` loads a tokenizer that can carry exact lines and latents.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(spec, TokenizerSpec)
    with check.clause("base", "it is a TokenizerSpec"):
        check.that(isinstance(spec, TokenizerSpec), type(spec).__mro__)
    with check.clause("loads", "`load` gives a Hugging Face tokenizer", "load"):
        tokenizer = spec.load()
        check.that(isinstance(tokenizer, PreTrainedTokenizerBase), type(tokenizer).__name__)
    with check.clause("same", "`load` gives the same object when called again", "load"):
        check.that(spec.load() is tokenizer, "another object")
    with check.clause(
        "usable", "it has an end token, '#' and the newline as single tokens, and gives text back exactly"
    ):
        check_tokenizer(tokenizer)
    with check.clause("exact", "every text comes back from its ids exactly"):
        texts = [*ODD_TEXTS, *PYTHON_TEXTS]
        for text, back in zip(texts, decode_ids(tokenizer, encode_texts(tokenizer, texts)), strict=True):
            check.that(back == text, f"{back!r:.60} for {text!r:.60}")
    with check.clause("thoughts", "it has tokens that open, fill and end a thought"):
        grammar = LatentGrammar.of(tokenizer)
        check.that(bool(grammar.ends.any() and grammar.inside.any()), "no token ends a thought")
    with check.clause("plain_text", "text that spells a special token is encoded as ordinary text"):
        special = set(tokenizer.all_special_ids)
        for text in tokenizer.all_special_tokens:
            ids = encode_texts(tokenizer, [f"x = '{text}'\n"])[0]
            check.that(not special & set(ids), f"special ids {sorted(special & set(ids))} in the text {text!r}")
    with check.clause("repeatable", "a copy of the spec makes a tokenizer that does the same"):
        again = tokenizer_id(copy.deepcopy(spec).load())
        check.that(again == tokenizer_id(tokenizer), f"tokenizer_id {tokenizer_id(tokenizer)}, then {again}")
    return check.report()


def check_decontaminator(
    contaminated: Callable[[str], bool], finds: Sequence[str] = (), leaves: Sequence[str] = ()
) -> Report:
    """Check what `data.decontaminate` names: a callable(text) -> bool, True for a text that must not be trained on.

    Args:
        contaminated: the callable.
        finds: texts it must find.
        leaves: texts it must leave in.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(contaminated, "ra3kit.data.snippets.Corpus")
    answers = {}
    with check.clause("answers", "it answers True or False for every text, whatever it holds"):
        for text in (*ODD_TEXTS, *PYTHON_TEXTS, *finds, *leaves):
            answers[text] = contaminated(text)
            check.that(isinstance(answers[text], bool | np.bool_), f"{answers[text]!r} for {text!r:.60}")
    with check.clause("pure", "it answers the same again, whatever it was asked in between"):
        for text in reversed(answers):
            check.that(contaminated(text) == answers[text], f"another answer for {text!r:.60}")
    with check.clause("leaves", "it leaves in what need not go, or nothing could be trained on"):
        found = [text for text in leaves or ("x = 1",) if answers.get(text, False)]
        check.that(not found, f"True for {found[:1]!r:.80}")
    with check.clause("finds", "it finds what must go"):
        missed = [text for text in finds if not answers[text]]
        check.that(not missed, f"False for {missed[:1]!r:.80}")
    return check.report()


def check_data_module(data: TrajectoryDataModule) -> Report:
    """Check a data module on its own corpus, which is read twice: the clauses of `TrajectoryDataModule`.

    Args:
        data: with a `tokenizer` of its own, not yet set up; it is copied, and left as it is.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(data, TrajectoryDataModule)
    with check.clause("base", "it is a TrajectoryDataModule"):
        check.that(isinstance(data, TrajectoryDataModule), type(data).__mro__)
    made, twin = copy.deepcopy(data), copy.deepcopy(data)
    with check.clause("setup", "`setup` reads the data, and does nothing the second time", "setup"):
        for module in (made, twin):
            module.setup()
            check.that(len(module.train) > 0, "no training snippet")
        first = twin.train
        twin.setup()
        check.that(twin.train is first, "it made the training snippets anew")
    with check.clause("snippets", "`train` and `val` are expert snippets: tiled by their lines, without thoughts"):
        for trajectory in (*made.train, *made.val):
            check.that(isinstance(trajectory, Trajectory), type(trajectory).__name__)
            trajectory.check()
            check.that(not len(trajectory.thoughts), f"{trajectory.snippet_id} has thoughts")
    with check.clause("names", "snippet ids are unique: they are the keys of every draw"):
        names = [t.snippet_id for t in (*made.train, *made.val)]
        check.that(len(set(names)) == len(names), f"{len(names) - len(set(names))} ids stand for several snippets")
    with check.clause("held_out", "whole files are held out, `val_files`: no snippet of them is trained on"):
        files = [{t.snippet_id.rpartition("#")[0] for t in part} for part in (made.train, made.val)]
        check.that(not files[0] & files[1], f"in both `train` and `val`: {sorted(files[0] & files[1])[:3]}")
        check.that(files[1] <= set(made.val_files), f"not in val_files: {sorted(files[1] - set(made.val_files))[:3]}")
    with check.clause("hash", "`summary` and `data_hash` tell what the data is, the same each time", "summary"):
        there = made.data_hash(), made.summary()["data_hash"], twin.data_hash()
        check.that(len(set(there)) == 1 and bool(there[0]), there)
    with tempfile.TemporaryDirectory() as folder:
        _check_phases(check, made, twin, _store(made, Path(folder) / "store"))
    return check.report()


def _check_phases(
    check: Checking, made: TrajectoryDataModule, twin: TrajectoryDataModule, store: BootstrappedStore
) -> None:
    phases: dict[str, BootstrappedStore | None] = {"ntp": None, "warmup": None, "e": None, "m": store}
    batches: dict[str, list[Any]] = {}
    with check.clause("phases", "each phase gives `phase_steps()` batches: `list[Trajectory]` in e, else `StepBatch`"):
        for phase, given in phases.items():
            for module in (made, twin):
                module.set_phase(phase, store=given)  # type: ignore[arg-type]
            batches[phase] = list(made.train_dataloader())
            wanted = made.phase_steps()
            check.that(len(batches[phase]) == wanted, f"{len(batches[phase])} batches in {phase}, {wanted} announced")
            kind = list if phase == "e" else StepBatch
            check.that(
                all(isinstance(b, kind) for b in batches[phase]), f"{type(batches[phase][0]).__name__} in {phase}"
            )
            _check_equal(check, f"phase {phase}, another process", batches[phase], list(twin.train_dataloader()))
    with check.clause("one_pass", "one pass gives every training snippet once"):
        given_out = sorted(t.snippet_id for batch in batches["e"] for t in batch)
        check.that(given_out == sorted(t.snippet_id for t in made.train), f"{len(given_out)} of {len(made.train)}")
        tokens = sum(len(row.ids) for batch in batches["ntp"] for row in batch.micro)
        check.that(tokens == sum(len(t.ids) for t in made.train), f"{tokens} tokens in phase ntp")
    with check.clause("plain", "a batch of phase m holds the same snippets without thoughts in `plain`"):
        tokens = sum(len(row.ids) for batch in batches["m"] for row in batch.plain)
        check.that(tokens == sum(len(t.ids) for t in made.train), f"{tokens} tokens in `plain`")
    with check.clause("again", "asking for the loader again gives the same batches"):
        made.set_phase("e")
        _check_equal(check, "asked again", list(made.train_dataloader()), list(made.train_dataloader()))
    with check.clause("steps", "`set_phase(..., steps=n)` gives n batches, in more passes where one is too short"):
        wanted = 2 * len(batches["e"]) + 1
        made.set_phase("e", steps=wanted)
        check.that(len(list(made.train_dataloader())) == wanted, len(list(made.train_dataloader())))
    with check.clause("resumes", "a module that loads `state_dict` goes on with the rest of the epoch", "state_dict"):
        made.set_phase("e")
        whole = list(made.train_dataloader())
        stopped = made.train_dataloader()
        done = max(1, len(whole) // 2)
        for _ in islice(stopped, done):
            pass
        state = made.state_dict()
        twin.load_state_dict(state)
        _check_equal(check, f"resumed after {done} batches", whole[done:], list(twin.train_dataloader()))
    with check.clause("validation", "`val_dataloader` gives the held-out snippets, in order", "val_dataloader"):
        held_out = [t.snippet_id for batch in list(made.val_dataloader()) for t in batch]
        check.that(held_out == [t.snippet_id for t in made.val], f"{len(held_out)} of {len(made.val)}")


def _check_equal(check: Checking, when: str, first: Sequence[Any], second: Sequence[Any]) -> None:
    check.that(len(first) == len(second), f"{when}: {len(second)} batches, {len(first)} expected")
    for step, (a, b) in enumerate(zip(first, second, strict=True)):
        check.that(_content(a) == _content(b), f"{when}: other snippets in batch {step}")


def _content(batch: Any) -> list[list[int]]:
    if isinstance(batch, list):
        return [t.ids.tolist() for t in batch]
    rows: Sequence[PackedBatch] = batch.micro
    return [torch.as_tensor(row.ids).tolist() for row in rows]


def _store(data: TrajectoryDataModule, folder: Path) -> BootstrappedStore:
    """The training snippets as a store, each with a thought before the first line that may have one."""
    thought = encode_texts(data.tokenizer, ["# a thought\n"])[0]
    writer = StoreWriter(folder, {"tokenizer": tokenizer_id(data.tokenizer)}, shard_size=64)
    for trajectory in data.train:
        lines = np.flatnonzero(trajectory.may_think)[:1].tolist()
        writer.add(trajectory.weave({line: thought for line in lines}))
    writer.finish()
    return BootstrappedStore.open(folder)
