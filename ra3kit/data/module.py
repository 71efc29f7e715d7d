"""`TrajectoryDataModule`: the LightningDataModule that feeds every phase of RA3, and of next-token prediction.

One Lightning epoch is one EM phase. `set_phase` says what the next `train_dataloader()` gives; the Trainer asks for it
anew every epoch (`reload_dataloaders_every_n_epochs=1`). The module knows snippets, stores and packing, nothing of RL.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ra3kit.actions import ActionSegmenter, PythonLines
from ra3kit.data.loader import PHASES, Phase, PhaseLoader
from ra3kit.data.snippets import Comments, Corpus, Snippet, SnippetReport, held_out
from ra3kit.data.store import BootstrappedStore
from ra3kit.data.tokenizer import TokenizerSpec, tokenizer_id, tokenizer_of
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError, nearest
from ra3kit.ranges import check_number

TRAIN_PHASES = PHASES[:-1]


class TrajectoryDataModule(L.LightningDataModule):
    """Expert snippets, warm-up snippets and bootstrapped trajectories, by phase.

    | phase  | data                     | a batch is                                                  |
    |--------|--------------------------|-------------------------------------------------------------|
    | ntp    | expert snippets          | `StepBatch`: packed rows of one optimizer step              |
    | warmup | warm-up snippets         | `StepBatch`                                                 |
    | e      | expert snippets          | `list[Trajectory]`, this rank's part of `snippets_per_step` |
    | m      | the store of `set_phase` | `StepBatch` with thoughts, and in `plain` without           |

    Validation gives `list[Trajectory]`: held-out expert snippets without thoughts, split off by file. Use it alone with
    a `tokenizer`, `setup()`, `set_phase(...)` and `train_dataloader()`; no trainer is needed.

    The contract of a subclass: snippets have unique ids and no thoughts, whole files are held out, a pass gives every
    snippet once in an order that is the same in every process, a phase has the steps it announced, and `state_dict`
    goes on where it was taken. `ra3kit.testing.check_data_module` checks these.

    Args:
        path: the expert corpus, see `ra3kit.data.corpora.read_files`.
        warmup_path: the corpus of phase warmup; None takes `path` (held-out files are left out either way).
        tokenizer: a `TokenizerSpec`, a folder or hub id, or a tokenizer; None takes the model's at setup.
        comments: "strip" or "keep" the comments of the expert corpus, or put them in the form of "thoughts".
        warmup_comments: the same for the warm-up corpus.
        docstrings: "keep" or "strip" the docstrings of the expert corpus.
        unparsable: "drop" or "keep" files that do not parse; both corpora.
        segmenter: what a primitive action is; None is `PythonLines()`.
        max_tokens: most tokens of a snippet, start and end token included; <= tokens_per_forward.
        max_lines: most primitive actions of a snippet.
        min_lines: fewest primitive actions of a snippet.
        long_line: "drop" an action longer than a snippet can be, or "drop_file".
        max_snippets: keep at most so many training snippets, drawn with `seed`; None keeps all. Same for the warm-up.
        val_fraction: part of the files held out, by a hash of their name; in [0, 1).
        max_val_snippets: keep at most so many held-out snippets, drawn with `seed`.
        snippets_per_step: snippets of one E-step batch over all ranks, and of one validation batch.
        tokens_per_step: about so many tokens in one optimizer step over all ranks, thoughts not counted.
        tokens_per_forward: most tokens of one packed row.
        seed: of every order and draw made here.
        decontaminate: import path of a `callable(text) -> bool`, True for texts that must not be trained on.
        columns: names of the text column.
        limit_files: read at most so many texts of each corpus.

    Raises:
        DataError: settings out of range or that contradict each other, or (at setup) a corpus without a usable snippet,
            or a snippet longer than the model's `max_positions`.
    """

    def __init__(
        self,
        path: str | list[str] = "stdlib:expert",
        warmup_path: str | list[str] | None = None,
        tokenizer: TokenizerSpec | PreTrainedTokenizerBase | str | None = None,
        comments: Comments = "strip",
        warmup_comments: Comments = "keep",
        docstrings: Literal["keep", "strip"] = "keep",
        unparsable: Literal["keep", "drop"] = "drop",
        segmenter: ActionSegmenter | None = None,
        max_tokens: int = 512,
        max_lines: int = 64,
        min_lines: int = 2,
        long_line: Literal["drop", "drop_file"] = "drop",
        max_snippets: int | None = None,
        val_fraction: float = 0.05,
        max_val_snippets: int = 64,
        snippets_per_step: int = 8,
        tokens_per_step: int = 8192,
        tokens_per_forward: int = 4096,
        seed: int = 0,
        decontaminate: str | None = None,
        columns: list[str] | None = None,
        limit_files: int | None = None,
    ) -> None:
        super().__init__()
        counts = {
            "max_val_snippets": max_val_snippets,
            "snippets_per_step": snippets_per_step,
            "tokens_per_step": tokens_per_step,
            "tokens_per_forward": tokens_per_forward,
        }
        for name, value in counts.items():
            check_number(name, value, least=1, whole=True, error=DataError)
        check_number("max_snippets", max_snippets, least=1, whole=True, optional=True, error=DataError)
        check_number("val_fraction", val_fraction, least=0, below=1, error=DataError)
        check_number("seed", seed, least=0, whole=True, error=DataError)
        if max_tokens > tokens_per_forward:
            raise DataError(
                f"max_tokens={max_tokens} is above tokens_per_forward={tokens_per_forward}: raise the latter."
            )
        self.path, self.warmup_path, self.seed = path, warmup_path, seed
        self.comments, self.warmup_comments, self.docstrings = comments, warmup_comments, docstrings
        self.max_snippets, self.val_fraction, self.max_val_snippets = max_snippets, val_fraction, max_val_snippets
        self.snippets_per_step = snippets_per_step
        self.tokens_per_step, self.tokens_per_forward = tokens_per_step, tokens_per_forward
        self._corpus_settings: dict[str, Any] = {
            "unparsable": unparsable,
            "segmenter": segmenter or PythonLines(),
            "max_tokens": max_tokens,
            "max_lines": max_lines,
            "min_lines": min_lines,
            "long_line": long_line,
            "decontaminate": decontaminate,
            "columns": columns,
            "limit_files": limit_files,
        }
        self._given_tokenizer = tokenizer
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self.train: list[Trajectory] = []
        self.val: list[Trajectory] = []
        self.report: SnippetReport | None = None
        self.warmup_report: SnippetReport | None = None
        self.val_files: list[str] = []
        self._val_keys: set[str] = set()
        self._warmup: list[Trajectory] | None = None
        self.phase: Phase = "ntp"
        self.epoch = 0
        self.steps: int | None = None
        self.store: BootstrappedStore | None = None
        self._warmup_before: dict[str, Any] = {}
        self.before_loader: Callable[[], None] | None = None
        self._loader: PhaseLoader | None = None
        self._loader_state: dict[str, Any] | None = None
        self.corpus()  # checks the settings now, not at setup

    # -- data

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer given, or the model's. Raises DataError where there is neither."""
        if self._tokenizer is None:
            self._tokenizer = tokenizer_of(self, self._given_tokenizer)
        return self._tokenizer

    def setup(self, stage: str | None = None) -> None:
        """Read, segment and encode the corpora; every rank does the same. Does nothing the second time."""
        if self.report is not None:
            return
        corpus = self.corpus()
        snippets = list(corpus.snippets(self.tokenizer))
        if not snippets:
            raise DataError(f"path={self.path!r} gave no usable snippet: {account(corpus.report)}")
        self.report = corpus.report
        out = held_out(list(dict.fromkeys(s.file for s in snippets)), self.val_fraction)
        self.val_files, self._val_keys = sorted(out), {corpus.keys[file] for file in out}
        self.train = self._draw([s for s in snippets if s.file not in out], self.max_snippets)
        self.val = self._draw([s for s in snippets if s.file in out], self.max_val_snippets)
        self._check_lengths([*self.train, *self.val])
        if self.warmup_path is not None:
            _ = self.warmup

    @property
    def warmup(self) -> list[Trajectory]:
        """The warm-up snippets; read at setup when `warmup_path` is given, else when first asked for."""
        if self._warmup is None:
            self.setup()
            path = self.path if self.warmup_path is None else self.warmup_path
            corpus = Corpus(path, comments=self.warmup_comments, **self._corpus_settings)
            snippets = list(corpus.snippets(self.tokenizer, exclude=self._val_keys))
            if not snippets:
                raise DataError(f"warmup_path={path!r} gave no usable snippet: {account(corpus.report)}")
            self.warmup_report = corpus.report
            self._warmup = self._draw(snippets, self.max_snippets)
            self._check_lengths(self._warmup)
        return self._warmup

    def corpus(self) -> Corpus:
        """How snippets are made of the expert corpus."""
        settings = {"comments": self.comments, "docstrings": self.docstrings, **self._corpus_settings}
        return Corpus(self.path, **settings)

    def summary(self) -> dict[str, Any]:
        """The account of the data: files, snippets, code tokens, what was dropped and why, and a hash of it all."""
        self.setup()
        assert self.report is not None
        summary: dict[str, Any] = {
            "path": self.path,
            "files": self.report.files,
            "train_snippets": len(self.train),
            "train_code_tokens": code_tokens(self.train),
            "val_files": len(self.val_files),
            "val_snippets": len(self.val),
            "val_code_tokens": code_tokens(self.val),
            "dropped_files": dict(self.report.dropped_files),
            "dropped_lines": dict(self.report.dropped_lines),
            "first_dropped": dict(self.report.examples),
        }
        summary |= self._warmup_account()
        return summary | {"tokenizer": tokenizer_id(self.tokenizer), "data_hash": self.data_hash()}

    def _warmup_account(self) -> dict[str, Any]:
        """The same of the warm-up corpus, once it has been read: here, or before the run was resumed."""
        if self._warmup is None or self.warmup_report is None:
            return self._warmup_before
        return {
            "warmup_path": self.path if self.warmup_path is None else self.warmup_path,
            "warmup_files": self.warmup_report.files,
            "warmup_snippets": len(self._warmup),
            "warmup_code_tokens": code_tokens(self._warmup),
            "warmup_dropped_files": dict(self.warmup_report.dropped_files),
            "warmup_dropped_lines": dict(self.warmup_report.dropped_lines),
        }

    def data_hash(self) -> str:
        """A hash of the training and held-out snippets, 16 hex digits, see the function of that name."""
        self.setup()
        return data_hash([*self.train, *self.val])

    # -- phases and loaders

    def set_phase(self, phase: Phase, store: BootstrappedStore | None = None, steps: int | None = None) -> None:
        """Say what the next `train_dataloader()` gives; begins a new epoch where there is no trainer to count them.

        Args:
            phase: "ntp", "warmup", "e" or "m".
            store: the bootstrapped trajectories, in phase "m" only.
            steps: number of batches; None is one pass over the data.

        Raises:
            DataError: unknown phase, "m" without a store, a store in another phase, of another tokenizer, or empty.
        """
        if phase not in TRAIN_PHASES:
            raise DataError(f"phase={phase!r}: allowed are {list(TRAIN_PHASES)}.{nearest(str(phase), TRAIN_PHASES)}")
        if (phase == "m") != (store is not None):
            raise DataError(f"phase={phase!r}: phase 'm', and no other, takes a store.")
        if steps is not None and steps < 1:
            raise DataError(f"steps={steps}: must be at least 1, or None for one pass.")
        if store is not None:
            self._check_store(store)
        self.phase, self.store, self.steps = phase, store, steps
        self.epoch += 1

    def phase_steps(self) -> int:
        """Number of batches the current phase will have; the same in every epoch."""
        return len(self._make_loader(self._phase_data(), self.phase, self.steps))

    def train_dataloader(self) -> PhaseLoader:
        """The loader of the current phase and epoch; asking again gives the same batches.

        `before_loader` is called first, where somebody has set it: who decides on phases may set the next one there.
        """
        if self.before_loader is not None:
            self.before_loader()
        self._loader = self._make_loader(self._phase_data(), self.phase, self.steps)
        if self._loader_state is not None:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = None
        return self._loader

    def val_dataloader(self) -> PhaseLoader | list[Any]:
        """Held-out expert snippets, in batches of `list[Trajectory]`; empty when nothing is held out."""
        self.setup()
        return self._make_loader(self.val, "val", None) if self.val else []

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move packed rows; snippets stay in numpy, the rollout engine takes them from there."""
        return batch if isinstance(batch, list) else batch.to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Phase, epoch, steps, store folders, the loader's position, and the account of the warm-up corpus."""
        return {
            "phase": self.phase,
            "epoch": self.epoch,
            "steps": self.steps,
            "store": None if self.store is None else [self._from_run(folder) for folder in self.store.folders],
            "loader": None if self._loader is None else self._loader.state_dict(),
            "warmup": self._warmup_account(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: the next `train_dataloader()` gives the rest of that epoch.

        Raises:
            DataError: the store that was being trained on is gone.
        """
        self.phase, self.epoch, self.steps = state_dict["phase"], state_dict["epoch"], state_dict["steps"]
        folders = state_dict["store"]
        self.store = None if folders is None else BootstrappedStore.open(*(self._run / folder for folder in folders))
        self._loader_state = state_dict["loader"]
        self._warmup_before = state_dict["warmup"]

    # -- details

    @property
    def _run(self) -> Path:
        """The run folder, where there is a trainer."""
        return Path() if self.trainer is None else Path(self.trainer.default_root_dir)

    def _from_run(self, folder: str) -> str:
        """A folder seen from the run folder where it lies in it, so that a run can be moved; else from the root."""
        path, run = Path(folder).absolute(), self._run.absolute()
        return str(path.relative_to(run) if path.is_relative_to(run) else path)

    def _check_lengths(self, snippets: Sequence[Trajectory]) -> None:
        """Refuse now, not hours later, a snippet that the model to be trained has no room for."""
        room = getattr(getattr(self.trainer, "lightning_module", None), "max_positions", None)
        longest = max(snippets, key=lambda t: len(t.ids), default=None)
        if room is not None and longest is not None and len(longest.ids) > room:
            raise DataError(
                f"snippet {longest.snippet_id!r} has {len(longest.ids)} tokens, but the model has room for {room} (its "
                f"max_position_embeddings, or the posterior's capacity): set data.max_tokens={room} or less, now "
                f"{self._corpus_settings['max_tokens']}."
            )

    def _phase_data(self) -> Sequence[Trajectory]:
        self.setup()
        if self.phase == "warmup":
            return self.warmup
        if self.phase != "m":
            return self.train
        if self.store is None:
            raise DataError("phase 'm' needs a store: call set_phase('m', store=...).")
        return self.store

    def _draw(self, snippets: Sequence[Snippet], most: int | None) -> list[Trajectory]:
        """At most so many snippets, drawn with the seed, in reading order."""
        if most is None or most >= len(snippets):
            return [snippet.trajectory for snippet in snippets]
        drawn = np.random.default_rng([self.seed, len(snippets)]).permutation(len(snippets))[:most]
        return [snippets[i].trajectory for i in sorted(drawn.tolist())]

    def _make_loader(self, data: Sequence[Trajectory], phase: Phase, steps: int | None) -> PhaseLoader:
        sharing = (None if self.trainer is None else self.trainer.distributed_sampler_kwargs) or {}
        return PhaseLoader(
            data,
            phase,
            size=self.snippets_per_step if phase in ("e", "val") else self.tokens_per_step,
            tokens_per_forward=self.tokens_per_forward,
            seed=self.seed,
            epoch=self.epoch if self.trainer is None else self.trainer.current_epoch,
            steps=steps,
            rank=sharing.get("rank", 0),
            world=sharing.get("num_replicas", 1),
        )

    def _check_store(self, store: BootstrappedStore) -> None:
        if not len(store):
            raise DataError(f"the store {store.folders} is empty; nothing can be trained on it.")
        written_with = store.provenance.get("tokenizer")
        if written_with is not None and written_with != (here := tokenizer_id(self.tokenizer)):
            raise DataError(
                f"the store {store.folders} was written with tokenizer {written_with}, this run has {here}."
            )


def code_tokens(trajectories: Sequence[Trajectory]) -> int:
    """Tokens of primitive actions: no start, end or thought."""
    return sum(int((t.lines[:, 1] - t.lines[:, 0]).sum()) for t in trajectories)


def data_hash(trajectories: Sequence[Trajectory]) -> str:
    """A hash of trajectories, 16 hex digits: of names, ids, line ends, where latents may stand, and thoughts."""
    digest = hashlib.sha256()
    for t in trajectories:
        digest.update(t.snippet_id.encode())
        for part in (t.ids, t.lines, t.may_think, t.thoughts):
            digest.update(part.tobytes() + b"\0")
    return digest.hexdigest()[:16]


ADVICE = {
    "binary": "Give text.",
    "empty": "Give files that hold something.",
    "inexact": "Use a byte-level tokenizer.",
    "long line": "Raise data.max_tokens: no line of a corpus may be longer.",
    "no cut": "Raise data.max_tokens or data.max_lines.",
    "no_text": "Set data.columns to the column that holds the text.",
    "not_json": "A .jsonl file has one JSON object a line.",
    "only comments": "Set data.comments=keep.",
    "short snippet": "Lower data.min_lines, or raise data.max_tokens.",
    "undecodable": "Save the files as UTF-8.",
    "unparsable": "Set data.unparsable=keep if they need not be Python.",
    "unreadable": "Check permissions and links.",
}
"""What to do about the reasons in a `SnippetReport`."""


def account(report: SnippetReport) -> str:
    """What became of the files of a corpus that gave nothing, and what to do about it, in one line."""
    dropped = Counter({**report.dropped_files, **report.dropped_lines})
    shown = [f"{count} {reason} (first: {report.examples.get(reason)})" for reason, count in dropped.most_common()]
    advice = [ADVICE[reason] for reason, _ in dropped.most_common(2) if reason in ADVICE]
    return " ".join([f"{report.files} texts read; left out: {', '.join(shown) or 'none'}.", *advice])
