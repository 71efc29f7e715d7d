"""Sampling by inverse CDF from counter-based uniforms: the draw depends on its key alone, never on the batch.

Every draw has one uniform, a hash of (seed, snippet, rollout, line, j). The same snippet and rollout number give the
same tokens whatever else is in the batch, however many slots there are and wherever the work was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ra3kit.latents import ACT, LatentGrammar, Place

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def stream_key(seed: int, name: str, rollout: int) -> int:
    """64-bit key of all draws of one rollout of one snippet."""
    digest = hashlib.blake2b(f"{seed}\0{rollout}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniforms(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniforms in (0, 1), float64 [r], from stream keys and draw counters (uint64 [r] each); SplitMix64 twice."""
    mixed = _splitmix(keys ^ _splitmix(counters))
    # 52 bits and a half: exact in float64, so that neither 0 nor 1 comes up
    return ((mixed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _splitmix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """What was drawn, one entry a row.

    Args:
        tokens: drawn ids; ACT where `<act>` was drawn.
        log_q: log-probability of the draw under the distribution it was drawn from (grammar, temperature), nats.
        raw: log-probability of the drawn token under the model's plain softmax; 0 where `<act>` was drawn, whose
            probability is already inside that of the line's first token.
        think: q(think) at places DECIDE, nan elsewhere.
    """

    tokens: list[int]
    log_q: list[float]
    raw: list[float]
    think: list[float]


class Sampler:
    """Draws the next token of many rows at once, each at its own place of the grammar."""

    def __init__(self, grammar: LatentGrammar, temperature: float = 1.0, top_p: float = 1.0):
        """temperature and top_p apply at places FREE only; thoughts are always drawn from the plain distribution."""
        self.open_ids = grammar.open_ids()
        allowed = grammar.allowed()
        restricted = (Place.OPEN, Place.SECOND, Place.INSIDE, Place.LAST)
        self.ids_at = {int(place): allowed[place].nonzero().squeeze(1) for place in restricted}
        self.temperature, self.top_p = temperature, top_p

    def draw(
        self,
        logits: Float[Tensor, "r v"],
        places: Sequence[int],
        u: np.ndarray,
        log_norm: Float[Tensor, " r"] | None = None,
    ) -> Draws:
        """Draw one outcome a row.

        Args:
            logits: [r, v] float32.
            places: a `Place` a row.
            u: float64 [r] uniforms.
            log_norm: logsumexp of the logits, where it is known already.
        """
        n = len(places)
        tokens, log_q, raw, think = [0] * n, [0.0] * n, [0.0] * n, [float("nan")] * n
        rows_at: dict[int, list[int]] = {}
        for row, place in enumerate(places):
            rows_at.setdefault(place, []).append(row)
        log_norm = logits.logsumexp(-1) if log_norm is None else log_norm
        for place, rows in rows_at.items():
            index = torch.as_tensor(rows, device=logits.device)
            uniform = torch.as_tensor(u[rows], device=logits.device)[:, None]
            if place == Place.DECIDE:
                got, got_log_q, got_raw, mass = self._decide(
                    logits[index[:, None], self.open_ids], log_norm[index], uniform
                )
                for row, value in zip(rows, mass, strict=True):
                    think[row] = value
            elif place == Place.FREE:
                got, got_log_q, got_raw = self._free(logits[index], log_norm[index], uniform)
            else:
                ids = self.ids_at[place]
                chosen = logits[index[:, None], ids]
                got, got_log_q, got_raw = self._restricted(chosen, log_norm[index], uniform, ids)
            for i, row in enumerate(rows):
                tokens[row], log_q[row], raw[row] = got[i], got_log_q[i], got_raw[i]
        return Draws(tokens, log_q, raw, think)

    def _decide(
        self, opening: Float[Tensor, "r o"], log_norm: Float[Tensor, " r"], u: Float[Tensor, "r 1"]
    ) -> tuple[list[int], list[float], list[float], list[float]]:
        logp = (opening - log_norm[:, None]).double()
        cdf = logp.exp().cumsum(-1)
        mass = cdf[:, -1:].clamp(max=1.0)
        thinks = (u < mass).squeeze(1)  # the opening tokens fill [0, mass), <act> the rest
        pick = torch.searchsorted(cdf, u, right=True).clamp(max=len(self.open_ids) - 1)
        log_open = logp.gather(1, pick).squeeze(1)
        tokens = torch.where(thinks, self.open_ids[pick.squeeze(1)], ACT)
        log_q = torch.where(thinks, log_open, torch.log1p(-mass.squeeze(1)))
        raw = torch.where(thinks, log_open, 0.0)
        return tokens.tolist(), log_q.tolist(), raw.tolist(), mass.squeeze(1).tolist()

    @staticmethod
    def _restricted(
        chosen: Float[Tensor, "r a"], log_norm: Float[Tensor, " r"], u: Float[Tensor, "r 1"], ids: Int[Tensor, " a"]
    ) -> tuple[list[int], list[float], list[float]]:
        chosen = chosen.double()
        log_q = chosen - chosen.logsumexp(-1, keepdim=True)
        pick = _inverse_cdf(log_q, u)
        raw = chosen.gather(1, pick).squeeze(1) - log_norm
        return ids[pick.squeeze(1)].tolist(), log_q.gather(1, pick).squeeze(1).tolist(), raw.tolist()

    def _free(
        self, logits: Float[Tensor, "r v"], log_norm: Float[Tensor, " r"], u: Float[Tensor, "r 1"]
    ) -> tuple[list[int], list[float], list[float]]:
        if self.temperature == 0:
            pick = logits.argmax(-1, keepdim=True)
            log_q = torch.zeros(len(logits), device=logits.device)
        else:
            logp = (logits.double() / self.temperature).log_softmax(-1)
            if self.top_p < 1:
                logp = _nucleus(logp, self.top_p)
            pick = _inverse_cdf(logp, u)
            log_q = logp.gather(1, pick).squeeze(1)
        raw = logits.gather(1, pick).squeeze(1) - log_norm
        return pick.squeeze(1).tolist(), log_q.tolist(), raw.tolist()


def _inverse_cdf(logp: Float[Tensor, "r a"], u: Float[Tensor, "r 1"]) -> Int[Tensor, "r 1"]:
    """Index of the outcome whose interval of the cumulative distribution holds u."""
    cdf = logp.exp().cumsum(-1)
    # scaled by the total, so that rounding never leaves u above the last outcome
    return torch.searchsorted(cdf, u * cdf[:, -1:], right=True).clamp(max=logp.shape[1] - 1)


def _nucleus(logp: Float[Tensor, "r v"], top_p: float) -> Float[Tensor, "r v"]:
    """The smallest set of most probable tokens with mass >= top_p, renormalised."""
    ordered, order = logp.sort(-1, descending=True)
    mass_before = ordered.exp().cumsum(-1) - ordered.exp()
    is_out = torch.zeros_like(logp, dtype=torch.bool).scatter(1, order, mass_before >= top_p)
    return logp.masked_fill(is_out, -torch.inf).log_softmax(-1)
