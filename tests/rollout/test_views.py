"""Views: the training path recomputes exactly the log q that the engine drew with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ra3kit.abstraction.views import View, causal_view, chunk_views, hindsight_views, view_log_q
from ra3kit.latents import LatentGrammar, ThoughtRules
from ra3kit.rollout import Rollout

RULES = [ThoughtRules(7), ThoughtRules(4), ThoughtRules(7, think="always"), ThoughtRules(7, where="first_line")]


def rollouts_and_views(
    world: Any, rules: ThoughtRules, lookahead: int, capacity: int = 192
) -> tuple[list[Rollout], list[View]]:
    groups = world.engine(capacity=capacity).rollout(world.trajectories, 3, 21, rules, lookahead)
    rows = [row for group in groups for row in group]
    views: list[View] = []
    for i, row in enumerate(rows):
        views += hindsight_views(row, rules, i, lookahead) if lookahead else [causal_view(row, rules, i)]
    return rows, views


def per_line(rows: list[Rollout], views: list[View], values: np.ndarray) -> list[np.ndarray]:
    """Sum the choices' values into the lines they belong to."""
    sums = [np.zeros(len(row.trajectory.lines)) for row in rows]
    at = 0
    for view in views:
        for line in view.lines:
            sums[view.row][line] += values[at]
            at += 1
    assert at == len(values)
    return sums


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_log_q_equals_the_engines(world: Any, rules: ThoughtRules, lookahead: int) -> None:
    rows, views = rollouts_and_views(world, rules, lookahead)
    grammar = LatentGrammar.of(world.tokenizer, world.model.config.vocab_size)
    value, entropy = view_log_q(world.model, grammar, views)
    assert (entropy >= -1e-6).all()
    assert any(len(row.trajectory.thoughts) for row in rows)
    for row, line_sums in zip(rows, per_line(rows, views, value.double().numpy()), strict=True):
        np.testing.assert_allclose(line_sums, row.log_q, atol=1e-4, rtol=0)


@pytest.mark.parametrize("lookahead", [0, 2])
def test_withheld_decisions_have_no_view(world: Any, lookahead: int) -> None:
    rules = ThoughtRules(7)
    longest = max(len(t.ids) for t in world.trajectories)
    rows, views = rollouts_and_views(world, rules, lookahead, capacity=longest + 7)
    assert sum(row.withheld for row in rows)
    grammar = LatentGrammar.of(world.tokenizer, world.model.config.vocab_size)
    value, _ = view_log_q(world.model, grammar, views)
    for i, (row, sums) in enumerate(zip(rows, per_line(rows, views, value.double().numpy()), strict=True)):
        np.testing.assert_allclose(sums, row.log_q, atol=1e-4, rtol=0)
        seen = {int(line) for view in views if view.row == i for line in view.lines}
        assert seen == set(np.flatnonzero(row.decided).tolist())


def test_chunks_change_nothing(qwen: Any) -> None:
    rules = ThoughtRules(7)
    _, views = rollouts_and_views(qwen, rules, 2)
    grammar = LatentGrammar.of(qwen.tokenizer, qwen.model.config.vocab_size)
    together, _ = view_log_q(qwen.model, grammar, views)
    chunks = chunk_views(views, 100)
    assert len(chunks) > 3
    assert all(len(chunk) == 1 or sum(len(view.ids) for view in chunk) <= 100 for chunk in chunks)
    apart = torch.cat([view_log_q(qwen.model, grammar, chunk)[0] for chunk in chunks])
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)


def test_a_hindsight_view_holds_what_q_saw(qwen: Any) -> None:
    """Prefix, the coming two lines, the thought but for its last token."""
    rules = ThoughtRules(7)
    rows, views = rollouts_and_views(qwen, rules, 2)
    for view in views:
        trajectory = rows[view.row].trajectory
        line = int(view.lines[0])
        thought = trajectory.thought_ids(line)
        until = int(trajectory.lines[line, 0]) - len(thought)
        coming = [i for t in range(line, min(line + 2, len(trajectory.lines))) for i in trajectory.line_ids(t)]
        assert view.ids.tolist() == trajectory.ids[:until].tolist() + coming + thought[:-1]
        assert len(view.at) == max(1, len(thought))
        assert view.at[-1] == len(view.ids) - 1
