"""Models at random weights that think as often and as long as asked for: a plain random one hardly ever does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ra3kit.data.trajectory import Trajectory
from ra3kit.latents import LatentGrammar, ThoughtRules
from ra3kit.rollout import Engine, Rollout


def set_thinking(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Sequence[Trajectory],
    rate: float,
    length: float,
    rules: ThoughtRules,
    rounds: int = 10,
) -> tuple[float, float]:
    """Give the model's head a bias on opening and on ending tokens that brings the think rate and length about.

    Args:
        model: at random weights, attn_implementation="ra3"; its head gets a `bias`.
        tokenizer: its tokenizer.
        trajectories: expert snippets that the rates are measured on.
        rate: share of decisions that think, in (0, 1).
        length: mean tokens of a thought, opening and ending included, in (3, rules.max_length).
        rules: the rules it will think under.
        rounds: corrections, each from four rollouts of each snippet.

    Returns:
        The rate and the mean length of the round that came closest; its bias is the one kept.
    """
    grammar = LatentGrammar.of(tokenizer, model.config.vocab_size)
    head = model.get_output_embeddings()
    bias = torch.zeros(model.config.vocab_size)
    head.bias = torch.nn.Parameter(bias.to(head.weight, copy=True))
    capacity = model.config.max_position_embeddings
    hazard = _hazard(length, rules.max_length)
    best, measured, kept = np.inf, (0.0, 0.0), bias.clone()
    for seed in range(rounds):
        step = 1.0 if seed < 2 else 0.5  # a bias on one kind of token takes mass from the other: damped, or they swing
        head.bias.data.copy_(bias)
        engine = Engine(model, tokenizer, capacity=capacity)
        rows = [row for rows in engine.rollout(trajectories, 4, seed, rules) for row in rows]
        decisions = sum(int(row.decided.sum()) for row in rows)
        lengths = thought_lengths(rows)
        got = (len(lengths) / decisions, float(lengths.mean()) if len(lengths) else 0.0)
        error = 5 * abs(_logit(got[0]) - _logit(rate)) + abs(got[1] - length)  # the rate matters more
        if error < best:
            best, measured, kept = error, got, bias.clone()
        if rules.think == "free":
            bias[grammar.opens] += step * (_logit(rate) - _logit((len(lengths) + 0.5) / (decisions + 1)))
        # free choices between going on and ending
        inside = int((lengths - 2).sum() - (lengths == rules.max_length).sum())
        ended = int((lengths < rules.max_length).sum())
        bias[grammar.ends] += step * (_logit(hazard) - _logit((ended + 0.5) / (inside + 1)))
    head.bias.data.copy_(kept)
    return measured


def thought_lengths(rollouts: Sequence[Rollout]) -> np.ndarray:
    """int [thoughts], tokens of every thought."""
    spans = np.concatenate([row.trajectory.thoughts for row in rollouts])
    return spans[:, 1] - spans[:, 0]


def _hazard(length: float, max_length: int) -> float:
    """Chance of ending at each free choice that gives thoughts of mean `length`, by bisection."""
    low, high = 1e-6, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        mean = 2 + (1 - (1 - middle) ** (max_length - 2)) / middle
        low, high = (middle, high) if mean > length else (low, middle)
    return low


def _logit(p: float) -> float:
    """Log odds, of a p within a hundred-thousandth of 0 or 1 those of that bound."""
    p = min(max(p, 1e-5), 1 - 1e-5)
    return float(np.log(p / (1 - p)))
