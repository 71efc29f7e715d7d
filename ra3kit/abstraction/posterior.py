"""The latent posterior q(z_t | s_t, z_<t): who writes the thoughts, in the E-step and when the corpus is annotated."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import lightning as L
import numpy as np
import torch

from ra3kit.abstraction.views import View, causal_view, hindsight_views
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RecipeError
from ra3kit.latents import ThoughtRules
from ra3kit.policy import BasePolicy, score
from ra3kit.ranges import check_number
from ra3kit.rollout import Engine, Rollout, line_logps


class LatentPosterior(L.LightningModule, ABC):
    """Base class of posteriors: a language model that draws latents before forced lines, under the latent grammar.

    The contract, which `RA3Module` and `AbstractionLearner` rely on:

    - `bind` gives q weights of its own, or pi's with weights="shared".
    - `draw` gives k latent paths of each snippet, in order; they depend on (seed, snippet, rollout) alone. The ids of
      the code stay as they are, and thoughts keep to `rules`. log_q is 0 where nothing was decided.
    - `views` returns the text q saw for each choice, so that log q can be recomputed with gradients on `model`.
    - `annotate` returns one trajectory with thoughts for each snippet, which depends on (seed, snippet) alone; it need
      not be a plain draw (best of K).
    - `start_iteration` sets the weights an E-step starts from; `equals_policy` is True while q = pi exactly, and then
      pi's log-probabilities are read off the draw. The weights may be sharded (DTensors): copy them with
      `load_state_dict`. It reads the base weights only where `needs_base` is True.
    - after `forbid_thinking` nothing is decided: next-token prediction.

    `ra3kit.testing.check_posterior` checks these.

    Args:
        max_length: most tokens of a thought, its opening and line end included; >= 3.
        think: "free", "always" (think before every line that may have a thought) or "never" (alpha = 1).
        where: "every_line", or "first_line" (one latent for the snippet, BRiTE-style).
        weights: "separate" copies pi; "shared" trains pi's own weights, scored by a frozen copy of them.
        start: the weights q has at the start of each iteration's E-step: "pi" as it is now (default), "last" (the last
            q), or "base" (pi as it was before the first E-step).
        slots, capacity: of the rollout engine; results do not depend on slots.
    """

    def __init__(
        self,
        max_length: int = 8,
        think: Literal["free", "always", "never"] = "free",
        where: Literal["every_line", "first_line"] = "every_line",
        weights: Literal["separate", "shared"] = "separate",
        start: Literal["pi", "last", "base"] = "pi",
        slots: int = 32,
        capacity: int = 1024,
    ):
        super().__init__()
        if weights == "shared" and start != "pi":
            raise RecipeError(f"posterior.start={start!r}: with weights='shared' q is pi, so only 'pi' is allowed")
        check_number("posterior.slots", slots, least=1, whole=True)
        check_number("posterior.capacity", capacity, least=1, whole=True)
        self.rules = ThoughtRules(max_length, think, where)
        self.weights, self.start = weights, start
        self.slots, self.capacity = slots, capacity
        self.equals_policy = False
        self.engine: Engine

    def bind(self, policy: BasePolicy) -> None:
        """Take pi's architecture, tokenizer and weights; called once, before training."""
        self.model = policy.model if self.weights == "shared" else copy.deepcopy(policy.model)
        self.engine = Engine(self.model, policy.tokenizer, self.slots, self.capacity)

    def forbid_thinking(self) -> None:
        """Mask `<think>` (the prior's alpha is 1): the rules become think="never"."""
        self.rules = ThoughtRules(self.rules.max_length, "never", self.rules.where)

    def start_iteration(self, policy: BasePolicy, base: dict[str, torch.Tensor], iteration: int) -> None:
        """Set q's weights for the E-step of `iteration` (0-based).

        Args:
            policy: pi as it is now.
            base: pi's weights before the first E-step; empty unless `needs_base`.
            iteration: of EM.
        """
        source = self.start if iteration > 0 else "pi"  # there is no last q yet, and base = pi
        if source == "base":
            self.model.load_state_dict(base)
        elif source == "pi" and self.weights == "separate":
            self.model.load_state_dict(policy.model.state_dict())
        self.equals_policy = source == "pi"

    @property
    def needs_base(self) -> bool:
        """Whether `start_iteration` reads the base weights; they are kept for it only then."""
        return self.start == "base"

    def draw(
        self,
        trajectories: Sequence[Trajectory],
        k: int,
        seed: int,
        on_done: Callable[[int, Rollout], None] | None = None,
    ) -> list[list[Rollout]]:
        """k rollouts of each snippet from q."""
        return self.engine.rollout(trajectories, k, seed, self.rules, self.lookahead, on_done)

    @property
    def lookahead(self) -> int:
        """Coming lines that q sees; 0 is causal."""
        return 0

    @abstractmethod
    def views(self, rollout: Rollout, row: int) -> list[View]:
        """The texts q saw and the choices it made in a rollout; `row` is kept in the views."""

    def annotate(
        self,
        trajectories: Sequence[Trajectory],
        policy: BasePolicy,
        seed: int,
        on_done: Callable[[], None] | None = None,
    ) -> list[Trajectory]:
        """One trajectory with thoughts for each snippet: a plain draw from q.

        Args:
            trajectories: expert snippets.
            policy: pi, for posteriors that choose by its likelihood.
            seed: of the draws.
            on_done: called as each snippet is done, for progress.
        """
        rows = self.draw(trajectories, 1, seed, (lambda *_: on_done()) if on_done else None)
        return [row[0].trajectory for row in rows]


class CausalPosterior(LatentPosterior):
    """q sees what was written so far and nothing else (the paper)."""

    def views(self, rollout: Rollout, row: int) -> list[View]:
        return [causal_view(rollout, self.rules, row)]


class HindsightPosterior(LatentPosterior):
    """q also sees the next lines before it writes a thought: a true posterior, conditioned on a_t.

    At each decision the coming lines follow the prefix, the latent is drawn after them, then they are forgotten. A base
    model expects a comment about what comes *next* there, so this q needs its E-step; see docs/algorithm.md.

    Args:
        lines_ahead: coming lines that q sees, >= 1; the other arguments as in `LatentPosterior`.
    """

    def __init__(self, lines_ahead: int = 3, **kwargs: Any):
        super().__init__(**kwargs)
        if lines_ahead < 1:
            raise RecipeError(f"posterior.lines_ahead={lines_ahead}: allowed are whole lines, 1 or more")
        self.lines_ahead = lines_ahead

    @property
    def lookahead(self) -> int:
        return self.lines_ahead

    def views(self, rollout: Rollout, row: int) -> list[View]:
        return hindsight_views(rollout, self.rules, row, self.lines_ahead)


class ResampledPosterior(CausalPosterior):
    """Annotates each snippet with the best of K causal draws; hindsight by choice instead of by sight.

    Args:
        k: draws of each snippet, >= 2.
        choose: "likelihood": sum of log pi(a_t | s_t, z), minus `price` nats a thought; "elbo": log pi(z, a) -
            log q(z), the sample with the largest weight in the learned-prior bound.
        price: nats a thought, for choose="likelihood".
        the other arguments as in `LatentPosterior`.
    """

    def __init__(
        self,
        k: int = 8,
        choose: Literal["likelihood", "elbo"] = "likelihood",
        price: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if k < 2:
            raise RecipeError(f"posterior.k={k}: resampling needs 2 draws or more; for one use CausalPosterior")
        check_number("posterior.price", price)
        self.k, self.choose, self.price = k, choose, price

    def annotate(
        self,
        trajectories: Sequence[Trajectory],
        policy: BasePolicy,
        seed: int,
        on_done: Callable[[], None] | None = None,
    ) -> list[Trajectory]:
        drawn: Counter[int] = Counter()

        def count(snippet: int, _: Rollout) -> None:
            drawn[snippet] += 1
            if on_done and drawn[snippet] == self.k:  # choosing takes little beside drawing
                on_done()

        best: list[Trajectory] = []
        for rows in self.draw(trajectories, self.k, seed, count):
            logps = pi_logps(policy.model, rows, self.equals_policy)
            values = [self._value(row, logp) for row, logp in zip(rows, logps, strict=True)]
            best.append(rows[int(np.argmax(values))].trajectory)
        return best

    def _value(self, row: Rollout, token_logp: np.ndarray) -> float:
        if self.choose == "elbo":
            return float(token_logp.sum() - row.log_q.sum())
        lines = line_logps(row.trajectory, token_logp)
        return float(lines.sum() - self.price * len(row.trajectory.thoughts))


def pi_logps(pi: torch.nn.Module, rollouts: Sequence[Rollout], sampled_by_pi: bool) -> list[np.ndarray]:
    """Raw log pi of each rollout's tokens: read off the sampling pass where pi itself sampled, else one packed pass."""
    if sampled_by_pi and all(rollout.token_logp is not None for rollout in rollouts):
        return [rollout.token_logp for rollout in rollouts if rollout.token_logp is not None]
    return score(pi, [rollout.trajectory for rollout in rollouts])
