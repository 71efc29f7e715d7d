"""Views: the text q saw when it drew each latent, so that log q can be recomputed, with gradients, in packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ra3kit.latents import ACT, LatentGrammar, Place, ThoughtRules, log_q, place_in_thought
from ra3kit.rollout.forward import head_logits, packed_hidden
from ra3kit.rollout.jobs import Rollout, peeked


@dataclass(frozen=True, eq=False)
class View:
    """One text and the choices q made in it, p of them.

    Args:
        ids: int32 [m], the text.
        at: int64 [p], index in `ids` of the token each choice follows.
        targets: int64 [p], what was chosen: a token id, or ACT.
        places: int64 [p], the `Place` of each choice.
        lines: int64 [p], the line whose latent the choice belongs to.
        row: which rollout the view is of.
    """

    ids: np.ndarray
    at: np.ndarray
    targets: np.ndarray
    places: np.ndarray
    lines: np.ndarray
    row: int


def _choices(thought: list[int], rules: ThoughtRules) -> tuple[list[int], list[int]]:
    """Targets and places of the choices that make one latent."""
    if not thought:
        return [ACT], [int(rules.decision_place())]
    places = [rules.decision_place(), *(place_in_thought(j, rules.max_length) for j in range(1, len(thought)))]
    return thought, [int(place) for place in places]


def causal_view(rollout: Rollout, rules: ThoughtRules, row: int) -> View:
    """The single view of a causal rollout: the trajectory itself, up to the last choice."""
    trajectory = rollout.trajectory
    at: list[int] = []
    targets: list[int] = []
    places: list[int] = []
    lines: list[int] = []
    for line in np.flatnonzero(rollout.decided).tolist():
        thought = trajectory.thought_ids(line)
        chosen, where = _choices(thought, rules)
        first = int(trajectory.lines[line, 0]) - len(thought) - 1
        at += range(first, first + len(chosen))
        targets += chosen
        places += where
        lines += [line] * len(chosen)
    ids = trajectory.ids[: at[-1] + 1] if at else trajectory.ids[:1]
    as_array = partial(np.asarray, dtype=np.int64)
    return View(ids, as_array(at), as_array(targets), as_array(places), as_array(lines), row)


def hindsight_views(rollout: Rollout, rules: ThoughtRules, row: int, lookahead: int) -> list[View]:
    """One view for each decision of a hindsight rollout: prefix, the coming lines, the thought."""
    trajectory = rollout.trajectory
    code = [trajectory.line_ids(t) for t in range(len(trajectory.lines))]
    views = []
    for line in np.flatnonzero(rollout.decided).tolist():
        thought = trajectory.thought_ids(line)
        chosen, where = _choices(thought, rules)
        prefix = trajectory.ids[: int(trajectory.lines[line, 0]) - len(thought)].tolist()
        seen = prefix + peeked(code, line, lookahead)
        ids = np.asarray(seen + thought[:-1], np.int32)
        at = np.arange(len(seen) - 1, len(seen) - 1 + len(chosen))
        views.append(View(ids, at, np.asarray(chosen), np.asarray(where), np.full(len(chosen), line, np.int64), row))
    return views


def idle_view() -> View:
    """The smallest view, of row -1: what a rank forwards, at no weight, while others still have views of their own."""
    zero = np.zeros(1, np.int64)
    return View(np.zeros(1, np.int32), zero, np.asarray([ACT]), np.asarray([int(Place.DECIDE)]), zero, -1)


def chunk_views(views: Sequence[View], tokens_per_forward: int) -> list[list[View]]:
    """Consecutive views in chunks of at most `tokens_per_forward` tokens (a longer view gets a chunk of its own)."""
    chunks: list[list[View]] = []
    room = 0
    for view in views:
        if not chunks or len(view.ids) > room:
            chunks.append([])
            room = tokens_per_forward
        chunks[-1].append(view)
        room -= len(view.ids)
    return chunks


def view_log_q(
    model: torch.nn.Module, grammar: LatentGrammar, views: Sequence[View]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """log q and entropy (nats) of every choice in the views, in order; differentiable in the model's weights."""
    device = next(model.parameters()).device
    lengths = [len(view.ids) for view in views]
    ids = torch.from_numpy(np.concatenate([view.ids for view in views]).astype(np.int64)).to(device)
    positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
    offsets = np.cumsum([0, *lengths[:-1]])
    at = np.concatenate([view.at + offset for view, offset in zip(views, offsets, strict=True)])
    hidden = packed_hidden(model, ids, positions, lengths)[torch.from_numpy(at).to(device)]
    targets, places = (_joined(views, name).to(device) for name in ("targets", "places"))
    return log_q(head_logits(model, hidden), targets, places, grammar)


def _joined(views: Sequence[View], name: str) -> Int[Tensor, " p"]:
    return torch.from_numpy(np.concatenate([getattr(view, name) for view in views]).astype(np.int64))
