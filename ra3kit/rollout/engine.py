"""The continuous rollout engine: rows never wait for each other.

Each row has a slot of the key-value cache and a queue of tokens: a forced line, or one sampled token. Every model call
mixes rows that decode one token with rows that take a chunk; an `<act>` and its line are one chunk and need no decode
call of their own; a finished row's slot is refilled at once from the queue of jobs. The log-likelihood of a forced line
is read off the same call that forces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RolloutError
from ra3kit.latents import LatentGrammar, ThoughtRules, token_bytes
from ra3kit.models import base_model
from ra3kit.rollout.attention import (
    PaddedLayout,
    RowLayout,
    SlotCache,
    SlotLayout,
    cache_elements,
    past_mask,
    single_bias,
)
from ra3kit.rollout.forward import head_logits, hidden_states
from ra3kit.rollout.jobs import NO_DRAW, Completion, Feed, GenerateJob, HindsightJob, Job, Rollout, RolloutJob
from ra3kit.rollout.sampling import Sampler, stream_key, uniforms
from ra3kit.sharding import check_whole

R = TypeVar("R")


@dataclass
class EngineStats:
    """What the last `rollout` or `generate` cost: model calls, tokens fed, and the mean share of slots in use."""

    calls: int = 0
    tokens: int = 0
    rows: int = 0
    slots: int = field(default=0, repr=False)

    @property
    def occupancy(self) -> float:
        """Mean share of slots that did work in a call, in [0, 1]."""
        return self.rows / (self.calls * self.slots) if self.calls else 0.0


class Engine:
    """Teacher-forced rollouts with sampled latents, and free generation, over one model and one set of slots.

    Args:
        model: a causal LM with attn_implementation="ra3" (see `ra3kit.rollout.attention`), or a peft wrap of one.
        tokenizer: its tokenizer.
        slots: rows in flight at once, >= 1. Results do not depend on it.
        capacity: positions of a slot, thoughts included; at most the model's context.
        call_tokens: most tokens in one model call; rows beyond it wait for the next.
        padded_chunks: send the rows to attention as padded batches, not one by one; None decides by device: on
            accelerators yes, on the CPU only where all rows decode one token and are of about one length.

    Raises:
        RolloutError: capacity beyond the model's context, or no slot.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        slots: int = 32,
        capacity: int = 1024,
        call_tokens: int = 4096,
        padded_chunks: bool | None = None,
    ):
        config = base_model(model).config
        if slots < 1 or capacity > config.max_position_embeddings:
            raise RolloutError(
                f"slots={slots} must be at least 1 and capacity={capacity} at most the model's context of "
                f"{config.max_position_embeddings} positions. Lower capacity, or the snippets' max_tokens."
            )
        self.model, self.tokenizer, self.slots, self.capacity = model, tokenizer, slots, capacity
        self.call_tokens, self._padded = call_tokens, padded_chunks
        self.grammar = LatentGrammar.of(tokenizer, config.vocab_size)
        self.ending_ids = frozenset(self.grammar.ends.nonzero().squeeze(1).tolist())
        self._texts: list[bytes | None] | None = None
        self._cache: SlotCache | None = None
        self.stats = EngineStats()

    def rollout(
        self,
        trajectories: Sequence[Trajectory],
        k: int,
        seed: int,
        rules: ThoughtRules,
        lookahead: int = 0,
        on_done: Callable[[int, Rollout], None] | None = None,
    ) -> list[list[Rollout]]:
        """k rollouts of each snippet: its lines forced, a latent drawn before each line that may have one.

        Args:
            trajectories: expert snippets, without thoughts.
            k: rollouts of each.
            seed: with the snippet's id and the rollout's number it fixes every draw.
            rules: where thoughts may stand.
            lookahead: lines that q sees ahead (hindsight); 0 is the causal posterior of the paper.
            on_done: called with (snippet index, rollout) as each finishes, for progress and streaming to disk.

        Returns:
            For each snippet its k rollouts, in order.

        Raises:
            RolloutError: a snippet that does not fit into a slot even without thoughts.
        """
        jobs = [
            self._rollout_job(trajectory, i, seed, rules, lookahead) for trajectory in trajectories for i in range(k)
        ]
        return self._collect(jobs, k, Sampler(self.grammar.to(self._device)), on_done)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        n: int = 1,
        seed: int = 0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] | Sequence[Sequence[str]] = (),
        names: Sequence[str] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[list[Completion]]:
        """n free samples after each prompt.

        Args:
            prompts: prompt ids, start token included.
            n: samples of each prompt.
            seed: with the prompt's name and the sample's number it fixes every draw.
            max_new_tokens: most sampled tokens.
            temperature: >= 0; 0 is greedy. top_p: in (0, 1].
            stop: strings that end a sample; its text is cut before them, its ids are kept. Or such strings for each
                prompt.
            names: a name for each prompt, the key of its draws; default: its index.
            on_done: called with (prompt index, completion) as each finishes.

        Raises:
            RolloutError: an empty prompt, one that leaves no room for max_new_tokens in a slot, a setting out of range.
        """
        if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
            raise RolloutError(
                f"max_new_tokens={max_new_tokens}, temperature={temperature}, top_p={top_p}: allowed are "
                "max_new_tokens >= 1, temperature >= 0 (0 is greedy) and 0 < top_p <= 1"
            )
        if self._texts is None:
            self._texts = token_bytes(self.tokenizer)
        ends = frozenset({self.tokenizer.eos_token_id})
        stops = _stops_of_each(stop, len(prompts))
        jobs = []
        for index, prompt in enumerate(prompts):
            if not len(prompt) or len(prompt) + max_new_tokens > self.capacity:
                raise RolloutError(
                    f"prompt {index}: {len(prompt)} tokens and max_new_tokens={max_new_tokens} must be at least 1 and "
                    f"together at most capacity={self.capacity}"
                )
            name = names[index] if names is not None else str(index)
            ids = tuple(prompt)
            jobs += [
                GenerateJob(ids, stream_key(seed, name, i), self._texts, ends, stops[index], max_new_tokens)
                for i in range(n)
            ]
        return self._collect(jobs, n, Sampler(self.grammar.to(self._device), temperature, top_p), on_done)

    def _collect(
        self, jobs: Sequence[Job[R]], k: int, sampler: Sampler, on_done: Callable[[int, R], None] | None
    ) -> list[list[R]]:
        """Serve jobs that stand in groups of k; their results in that order."""
        results: dict[int, R] = {}
        for index, job in self._serve(jobs, sampler):
            results[index] = job.result()
            if on_done is not None:
                on_done(index // k, results[index])
        return [[results[first + i] for i in range(k)] for first in range(0, len(jobs), k)]

    def _rollout_job(
        self, trajectory: Trajectory, rollout: int, seed: int, rules: ThoughtRules, lookahead: int
    ) -> RolloutJob:
        job: RolloutJob
        if lookahead:
            job = HindsightJob(trajectory, rollout, seed, rules, self.ending_ids, self.capacity, lookahead=lookahead)
        else:
            job = RolloutJob(trajectory, rollout, seed, rules, self.ending_ids, self.capacity)
        if len(trajectory.ids) > self.capacity:
            raise RolloutError(
                f"snippet {trajectory.snippet_id!r}: {len(trajectory.ids)} tokens do not fit into a slot of "
                f"{self.capacity}. Raise capacity, or lower the data's max_tokens."
            )
        return job

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _slots_for(self, jobs: Sequence[Job[Any]]) -> SlotCache:
        """The cache: its memory is kept between calls, and made anew when it is too small or the model has moved.

        Slots and positions are those that these jobs need, whatever was served before: the sums of a model call, and
        so how they are rounded, depend on them, and a run that goes on has served nothing yet.
        """
        parameter = next(base_model(self.model).get_input_embeddings().parameters())
        device = parameter.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else parameter.dtype
        slots = min(self.slots, len(jobs))
        need = min(self.capacity, -(-max(job.positions for job in jobs) // 64) * 64)
        old = self._cache
        if (
            old is None
            or old.capacity * old.slots < need * slots
            or old.keys[0].device != device
            or old.keys[0].dtype != dtype
        ):
            self._cache = None  # free the old one before the new one is made
            self._cache = SlotCache(base_model(self.model).config, slots, need, dtype, device)
        assert self._cache is not None
        return self._cache.part(slots, need)

    def cache_bytes(self) -> int:
        """Bytes of the cache with every slot at full capacity (the plan of a dry run)."""
        config = base_model(self.model).config
        size = next(self.model.parameters()).element_size()
        return cache_elements(config, self.slots, self.capacity) * size

    def free(self) -> None:
        """Give the cache's memory back (before an M-step, say)."""
        self._cache = None

    def _serve(self, jobs: Sequence[Job[R]], sampler: Sampler) -> Iterator[tuple[int, Job[R]]]:
        """Run the jobs to their ends, yielding (index, job) in the order in which they finish."""
        if not jobs:
            return
        check_whole(self.model)
        was_training = self.model.training
        self.model.eval()
        try:
            yield from self._serve_evaluating(jobs, sampler)
        finally:
            self.model.train(was_training)

    def _serve_evaluating(self, jobs: Sequence[Job[R]], sampler: Sampler) -> Iterator[tuple[int, Job[R]]]:
        cache = self._slots_for(jobs)
        self.stats = EngineStats(slots=min(self.slots, len(jobs)))
        # the longest first: what is left at the end, when slots run dry, is short
        queue = sorted(range(len(jobs)), key=lambda index: jobs[index].positions)
        rows: dict[int, tuple[int, Feed]] = {}  # slot -> (job index, its next feed)
        prefixes = _Prefixes(cache)
        for slot in range(min(self.slots, len(jobs))):
            index = queue.pop()
            prefixes.start(slot, index, jobs[index], rows)
        while rows:
            batch = self._admit(rows)
            for slot, reply in zip(
                batch, self._call(cache, [rows[s] for s in batch], batch, jobs, sampler), strict=True
            ):
                index, _ = rows[slot]
                feed = jobs[index].first() if prefixes.was_fed(slot) else jobs[index].next(*reply)
                if feed is not None:
                    rows[slot] = (index, feed)
                    continue
                del rows[slot]
                if queue:
                    fresh = queue.pop()
                    prefixes.start(slot, fresh, jobs[fresh], rows)
                yield index, jobs[index]
            prefixes.serve_waiting(jobs, rows)

    def _admit(self, rows: dict[int, tuple[int, Feed]]) -> list[int]:
        """Slots that take part in the next call: single-token rows first, then chunks while they fit."""
        by_length = sorted(rows, key=lambda slot: len(rows[slot][1].ids))
        admitted, tokens = by_length[:1], len(rows[by_length[0]][1].ids)
        for slot in by_length[1:]:
            tokens += len(rows[slot][1].ids)
            if tokens > self.call_tokens:
                break
            admitted.append(slot)
        return admitted

    @torch.inference_mode()
    def _call(
        self,
        cache: SlotCache,
        rows: list[tuple[int, Feed]],
        slots: list[int],
        jobs: Sequence[Job[Any]],
        sampler: Sampler,
    ) -> Iterable[tuple[list[float], int, float, float, float]]:
        """One model call; for each row the log-probabilities it asked for and what was drawn."""
        feeds = [feed for _, feed in rows]
        counts = [len(feed.ids) for feed in feeds]
        ids = np.fromiter((i for feed in feeds for i in feed.ids), np.int64)
        lasts = np.cumsum(counts) - 1
        firsts = lasts - np.asarray(counts) + 1
        starts = np.asarray([feed.start for feed in feeds])
        positions = np.arange(len(ids)) + np.repeat(starts - firsts, counts)
        write = positions + np.repeat(np.asarray(slots) * cache.capacity, counts)
        device = self._device
        hidden = hidden_states(
            self.model,
            torch.from_numpy(ids).to(device),
            torch.from_numpy(positions).to(device),
            self._layout(cache, write, slots, feeds, counts, firsts, device),
        )
        self.stats.calls += 1
        self.stats.tokens += len(ids)
        self.stats.rows += len(rows)

        # every fed token's target is the next fed one; the last one's is the feed's own
        targets = np.concatenate([ids[1:], [NO_DRAW]])
        targets[lasts] = [feed.target for feed in feeds]
        is_scored = np.repeat([feed.score for feed in feeds], counts) & (targets != NO_DRAW)
        logps, drawn = self._read(hidden, targets, is_scored, lasts, feeds, jobs, rows, sampler)
        replies = []
        offset = 0
        scored_counts = np.add.reduceat(is_scored, firsts).tolist()
        for count, reply in zip(scored_counts, drawn, strict=True):
            replies.append((logps[offset : offset + count], *reply))
            offset += count
        return replies

    def _layout(
        self,
        cache: SlotCache,
        write: np.ndarray,
        slots: list[int],
        feeds: list[Feed],
        counts: list[int],
        firsts: np.ndarray,
        device: torch.device,
    ) -> SlotLayout:
        rows = tuple(
            (int(first), count, slot, feed.start)
            for first, count, slot, feed in zip(firsts, counts, slots, feeds, strict=True)
        )
        flat = torch.from_numpy(write).to(device)
        padded = self._padded if self._padded is not None else device.type != "cpu" or _pads_little(cache, feeds)
        dtype = cache.keys[0].dtype
        if not padded:
            later = [(count, position) for _, count, _, position in rows if count > 1 and position]
            longest_chunk, longest_past = (max(sizes) for sizes in zip(*later, strict=True)) if later else (0, 0)
            return RowLayout(cache, flat, rows, past_mask(longest_chunk, longest_past, dtype).to(device))
        singles = sum(count == 1 for count in counts)  # they come first
        lengths = torch.tensor([feed.start + 1 for feed in feeds[:singles]], device=device)
        longest = max((feed.start + 1 for feed in feeds[:singles]), default=0)
        single_slots = torch.tensor(slots[:singles], dtype=torch.int64, device=device)
        visible = torch.arange(longest, device=device) < lengths[:, None]
        bias = single_bias(visible, cache.slots, single_slots, dtype)
        return PaddedLayout(cache, flat, single_slots, bias, rows[singles:])

    def _read(
        self,
        hidden: Tensor,
        targets: np.ndarray,
        is_scored: np.ndarray,
        lasts: np.ndarray,
        feeds: list[Feed],
        jobs: Sequence[Job[Any]],
        rows: list[tuple[int, Feed]],
        sampler: Sampler,
    ) -> tuple[list[float], list[tuple[int, float, float, float]]]:
        """Log-probabilities of the scored targets, and a draw for every row that wants one."""
        drawing = [i for i, feed in enumerate(feeds) if feed.place != NO_DRAW]
        needed = is_scored.copy()
        needed[lasts[drawing]] = True
        index = np.flatnonzero(needed)
        logits = head_logits(self.model, hidden[torch.from_numpy(index).to(hidden.device)])
        row_of = np.cumsum(needed) - 1  # packed index -> row of `logits`
        scored = torch.from_numpy(row_of[is_scored]).to(hidden.device)
        wanted = torch.from_numpy(targets[is_scored]).to(hidden.device)
        log_norm = logits.logsumexp(-1)
        logps = (logits[scored, wanted] - log_norm[scored]).tolist()
        drawn = [(NO_DRAW, 0.0, 0.0, float("nan"))] * len(feeds)
        if drawing:
            keys = np.asarray([jobs[rows[i][0]].key for i in drawing], np.uint64)
            counters = np.asarray([feeds[i].counter for i in drawing], np.uint64)
            places = [feeds[i].place for i in drawing]
            at = torch.from_numpy(row_of[lasts[drawing]]).to(hidden.device)
            got = sampler.draw(logits[at], places, uniforms(keys, counters), log_norm[at])
            for i, reply in zip(drawing, zip(got.tokens, got.log_q, got.raw, got.think, strict=True), strict=True):
                drawn[i] = reply
        return logps, drawn


class _Prefixes:
    """What several jobs begin with is computed once: the others copy it from a slot that holds it."""

    def __init__(self, cache: SlotCache):
        self._cache = cache
        self._held: dict[int, tuple[int, ...]] = {}  # slot -> the prefix that lies, or is about to lie, at its start
        self._feeding: set[int] = set()
        self._waiting: list[tuple[int, int, int]] = []  # (slot, job index, slot it copies from)

    def start(self, slot: int, index: int, job: Job[Any], rows: dict[int, tuple[int, Feed]]) -> None:
        """Begin a job in a free slot."""
        prefix = job.shared
        if not prefix:
            self._held.pop(slot, None)
            rows[slot] = (index, job.first())
        elif self._held.get(slot) == prefix:  # left by the job before
            rows[slot] = (index, job.first())
        elif (source := next((s for s, held in self._held.items() if held == prefix), None)) is None:
            self._held[slot] = prefix
            self._feeding.add(slot)
            rows[slot] = (index, Feed(list(prefix), 0, score=False))
        elif source in self._feeding:
            self._held.pop(slot, None)
            self._waiting.append((slot, index, source))
        else:
            self._copy(source, slot, prefix)
            rows[slot] = (index, job.first())

    def was_fed(self, slot: int) -> bool:
        """Whether the call that was just made fed this slot a prefix."""
        if slot not in self._feeding:
            return False
        self._feeding.remove(slot)
        return True

    def serve_waiting(self, jobs: Sequence[Job[Any]], rows: dict[int, tuple[int, Feed]]) -> None:
        """Copy the prefixes that the last call has fed to the slots that wait for them."""
        for slot, index, source in self._waiting:
            if source not in self._feeding:
                self._copy(source, slot, jobs[index].shared)
                rows[slot] = (index, jobs[index].first())
        self._waiting = [entry for entry in self._waiting if entry[2] in self._feeding]

    def _copy(self, source: int, slot: int, prefix: tuple[int, ...]) -> None:
        self._cache.copy(source, slot, len(prefix))
        self._held[slot] = prefix


def _pads_little(cache: SlotCache, feeds: Sequence[Feed]) -> bool:
    """Whether single tokens of rows of about one length are in nearly all slots: then one call beats one for each."""
    lengths = [feed.start + 1 for feed in feeds]
    return all(len(feed.ids) == 1 for feed in feeds) and 2 * cache.slots * max(lengths) <= 3 * sum(lengths)


def _stops_of_each(stop: Sequence[str] | Sequence[Sequence[str]], prompts: int) -> list[tuple[bytes, ...]]:
    """The stop strings of every prompt, encoded."""
    if all(isinstance(text, str) for text in stop):
        return [tuple(str(text).encode() for text in stop)] * prompts
    return [tuple(text.encode() for text in own) for own in stop]
