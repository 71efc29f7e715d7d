"""Rollouts with transformers alone: rows in lock step, `generate` for each latent, a scoring forward for each line.

What one writes first, and what the engine is checked against and timed against. It shares no code with the engine but
the uniforms (`ra3kit.rollout.sampling`), so that both must draw the same thoughts: its own grammar, told from decoded
token texts, its own log-softmax, left padding, Hugging Face's attention and cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import ThoughtRules
from ra3kit.rollout.jobs import Rollout
from ra3kit.rollout.sampling import stream_key, uniforms


class NaiveGrammar:
    """Token ids that may stand in a thought, in ascending order, told from the text of each token.

    Args:
        tokenizer: a byte-level one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        special = set(tokenizer.all_special_ids)
        texts = {i: str(tokenizer.decode([i])) for i in range(len(tokenizer)) if i not in special}
        plain = {i: text for i, text in texts.items() if text and not set(text) & {"\r", "\0"}}
        self.opening = np.array([i for i, text in plain.items() if text[0] == "#" and "\n" not in text])
        self.content = np.array([i for i, text in plain.items() if "\n" not in text])
        self.ending = np.array([i for i, text in plain.items() if text.find("\n") == len(text) - 1])

    def ids(self, j: int, max_length: int) -> np.ndarray:
        """Ids allowed as token j of a thought."""
        if j == 0:
            return self.opening
        if j == 1:
            return self.content
        if j == max_length - 1:
            return self.ending
        return np.union1d(self.content, self.ending)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class DrawLatent(LogitsProcessor):
    """Draws the next token of every row by inverse CDF and leaves greedy `generate` no other choice.

    Args:
        grammar, rules: what a thought may look like.
        keys: uint64 [b], stream keys of the rows.
        line: the line before which the latent stands.
        prompt_length: tokens of the (padded) prompt.
        act_id: stands for `<act>`; must end generation.
    """

    def __init__(
        self,
        grammar: NaiveGrammar,
        rules: ThoughtRules,
        keys: np.ndarray,
        line: int,
        prompt_length: int,
        act_id: int,
    ):
        self.grammar, self.rules, self.keys, self.line = grammar, rules, keys, line
        self.prompt_length, self.act_id = prompt_length, act_id
        self.ongoing = np.ones(len(keys), bool)  # True for rows whose latent is not complete
        self.log_q = np.zeros(len(keys))
        self.think = np.full(len(keys), np.nan)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        j = input_ids.shape[1] - self.prompt_length
        u = uniforms(self.keys, np.full(len(self.keys), (self.line << 20) + j, np.uint64))
        logits = scores.float().cpu().numpy()
        allowed = self.grammar.ids(j, self.rules.max_length)
        if j == 0 and self.rules.think == "free":
            logp = log_softmax(logits)[:, allowed]
            mass = np.exp(logp).sum(-1)
            pick = _first_above(np.exp(logp).cumsum(-1), u)
            is_act = u >= mass
            drawn = np.where(is_act, self.act_id, allowed[pick])
            log_q = np.where(is_act, np.log1p(-np.minimum(mass, 1.0)), np.take_along_axis(logp, pick[:, None], 1)[:, 0])
            self.think = mass
        else:
            logp = log_softmax(logits[:, allowed])
            pick = _first_above(np.exp(logp).cumsum(-1), u)
            is_act = np.zeros(len(u), bool)
            drawn = allowed[pick]
            log_q = np.take_along_axis(logp, pick[:, None], 1)[:, 0]
        self.log_q += np.where(self.ongoing, log_q, 0.0)
        self.ongoing &= ~is_act & ~np.isin(drawn, self.grammar.ending)
        one_hot = torch.full_like(scores, -torch.inf)
        one_hot[torch.arange(len(drawn)), torch.from_numpy(drawn).to(scores.device)] = 0.0
        return one_hot


def _first_above(cdf: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Index of the first entry of each row's cumulative distribution above u; the last where rounding leaves none."""
    return np.minimum((cdf <= u[:, None]).sum(-1), cdf.shape[1] - 1)


@dataclass
class _Row:
    """One rollout in the making."""

    trajectory: Trajectory
    rollout: int
    may_think: np.ndarray
    key: int
    text: list[int]
    log_q: np.ndarray
    think: np.ndarray
    decided: np.ndarray
    token_logp: list[float] = field(default_factory=list)
    thoughts: dict[int, list[int]] = field(default_factory=dict)


@torch.inference_mode()
def naive_rollout(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Sequence[Trajectory],
    k: int,
    seed: int,
    rules: ThoughtRules,
    batch: int = 32,
    lookahead: int = 0,
) -> list[list[Rollout]]:
    """k rollouts of each snippet, as `ra3kit.rollout.Engine.rollout` with slots of unlimited capacity returns them.

    Args:
        model: with Hugging Face's own attention ("sdpa"), in evaluation mode.
        tokenizer: its tokenizer.
        trajectories: expert snippets, without thoughts.
        k, seed, rules, lookahead: as in `Engine.rollout`.
        batch: rows in lock step.
    """
    grammar = NaiveGrammar(tokenizer)
    rows = [_row(trajectory, i, seed, rules) for trajectory in trajectories for i in range(k)]
    for first in range(0, len(rows), batch):
        group = rows[first : first + batch]
        for line in range(max(len(row.trajectory.lines) for row in group)):
            there = [row for row in group if line < len(row.trajectory.lines)]
            _latents(model, grammar, rules, [row for row in there if row.may_think[line]], line, lookahead)
            _lines(model, there, line, with_logp=lookahead == 0)
    done = [
        Rollout(
            row.trajectory.weave(row.thoughts),
            row.rollout,
            row.log_q,
            row.think,
            row.decided,
            np.asarray(row.token_logp) if lookahead == 0 else None,
            withheld=0,
        )
        for row in rows
    ]
    return [done[i : i + k] for i in range(0, len(done), k)]


def _row(trajectory: Trajectory, rollout: int, seed: int, rules: ThoughtRules) -> _Row:
    may_think = trajectory.may_think & (rules.think != "never")
    if rules.where == "first_line":
        may_think = may_think & (np.cumsum(may_think) == 1)
    n = len(trajectory.lines)
    key = stream_key(seed, trajectory.snippet_id, rollout)
    text = [int(trajectory.ids[0])]
    return _Row(trajectory, rollout, may_think, key, text, np.zeros(n), np.full(n, np.nan), np.zeros(n, bool))


def _left_padded(texts: Sequence[Sequence[int]], model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """ids [b, longest] and mask [b, longest], 1 for tokens and 0 for the padding before them."""
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + list(text) for text in texts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts], device=model.device)
    return ids, mask


def _latents(
    model: PreTrainedModel, grammar: NaiveGrammar, rules: ThoughtRules, rows: list[_Row], line: int, lookahead: int
) -> None:
    """Draw the latent before `line` of each row."""
    if not rows:
        return
    prompts = []
    for row in rows:
        ahead = range(line, min(line + lookahead, len(row.trajectory.lines)))
        prompts.append(row.text + [i for t in ahead for i in row.trajectory.line_ids(t)])
    ids, mask = _left_padded(prompts, model)
    act_id = int(rows[0].trajectory.ids[-1])  # the end token never stands in a thought
    keys = np.array([row.key for row in rows], np.uint64)
    draw = DrawLatent(grammar, rules, keys, line, ids.shape[1], act_id)
    generate: Any = model.generate
    out = generate(
        ids,
        attention_mask=mask,
        max_new_tokens=rules.max_length,
        do_sample=False,
        use_cache=True,
        logits_processor=LogitsProcessorList([draw]),
        eos_token_id=[act_id, *grammar.ending.tolist()],
        pad_token_id=act_id,
    )
    for i, (row, sampled) in enumerate(zip(rows, out[:, ids.shape[1] :].tolist(), strict=True)):
        row.decided[line], row.log_q[line], row.think[line] = True, draw.log_q[i], draw.think[i]
        if sampled[0] != act_id:
            row.thoughts[line] = sampled[: sampled.index(act_id)] if act_id in sampled else sampled


def _lines(model: PreTrainedModel, rows: list[_Row], line: int, with_logp: bool) -> None:
    """Append the thought and the line to each row, and score both (and the end token after the last line)."""
    new = []
    for row in rows:
        is_last = line == len(row.trajectory.lines) - 1
        end = [int(row.trajectory.ids[-1])] if is_last else []
        new.append(row.thoughts.get(line, []) + row.trajectory.line_ids(line) + end)
        row.text += new[-1]
    if not with_logp:
        return
    ids, mask = _left_padded([row.text for row in rows], model)
    keep = max(map(len, new)) + 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
    ).logits
    logp = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -keep + 1 :, None]).squeeze(-1)  # [b, keep - 1]
    for row, tokens, values in zip(rows, new, logp.tolist(), strict=True):
        row.token_logp += values[-len(tokens) :]
