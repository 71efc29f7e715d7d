"""Who samples: the contract of a rollout backend, and the kit's own engine in this process as one.

Token ids go in, token ids and their log-probabilities come out; text is never tokenised again. The contract is written
so that an inference server can stand behind it: weights are handed over by `refresh`, answers come by callback in any
order, and `health` says whether it can be relied on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ra3kit.errors import RolloutError
from ra3kit.models import base_model
from ra3kit.ranges import check_number
from ra3kit.rollout import Engine
from ra3kit.rollout.attention import cache_elements
from ra3kit.rollout.jobs import Completion
from ra3kit.sharding import gathered


@dataclass(frozen=True)
class Request:
    """One answer that is wanted.

    Args:
        prompt: token ids, start token included; at least one.
        name: with the seed, the key of the answer's draws: the same name and seed give the same answer whatever is
            sampled beside it.
        stops: strings that end the answer.
    """

    prompt: list[int]
    name: str
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Health:
    """Whether a backend can be relied on.

    Args:
        ok: it can sample now.
        version: of the weights it samples with.
        reason: why not, for a person.
        occupancy: mean share of its slots at work in the last call, in [0, 1]; nan where it can't say.
    """

    ok: bool
    version: int
    reason: str = ""
    occupancy: float = float("nan")


class RolloutBackend(ABC):
    """What samples answers for post-training. `ra3kit.testing.check_rollout_backend` checks this contract:

    - `sample` gives one completion for each request, in the order of the requests, and calls `on_done(index,
      completion)` exactly once for each, in any order, as soon as it is finished.
    - `Completion.ids` are the sampled ids, the end token or the token that completed a stop string included, at most
      `max_new_tokens`; `log_q` are their log-probabilities in nats under softmax(logits / temperature) of the weights
      it samples with, for all tokens of the vocabulary: no top-p, no top-k, no penalty, or the ratio of trainer and
      sampler means nothing.
    - an answer depends on (weights, prompt, name, seed, temperature, max_new_tokens, stops) alone. A backend that
      cannot promise it (other batch shapes, other rounding) sets `reproducible` to False, and runs say so.
    - after `refresh(model, version)` every later draw is from those weights; `version` is the last one handed over.
    - a request that cannot be served raises RolloutError; it is never answered with something else.
    """

    reproducible: bool = True
    version: int = -1

    @abstractmethod
    def refresh(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, version: int) -> None:
        """Take over the weights of the model as they are now. Called on every rank, before `sample`."""

    @abstractmethod
    def sample(
        self,
        requests: Sequence[Request],
        seed: int,
        max_new_tokens: int,
        temperature: float,
        on_done: Callable[[int, Completion], None],
    ) -> list[Completion]:
        """One answer for each request."""

    @abstractmethod
    def health(self) -> Health:
        """Whether it can be relied on."""

    @abstractmethod
    def session(self) -> AbstractContextManager[None]:
        """Everything between `refresh` and the end of a step's `sample` calls happens inside this, on every rank: where
        weights that are sharded are gathered, say."""

    def memory(self, model: torch.nn.Module, tokens: int) -> int:
        """Bytes it takes in this process while it samples, for answers of so many tokens, prompts included; 0 for none.

        For the plan of a dry run.
        """
        return 0

    @abstractmethod
    def free(self) -> None:
        """Give back what memory can be had again."""


class EngineBackend(RolloutBackend):
    """The kit's rollout engine, in this process, on the very weights that are trained.

    Sampler weights are trainer weights: nothing is copied, but where they are sharded a whole copy is gathered for the
    time of sampling. A finished answer's slot is refilled at once, so that a long one doesn't hold up the others.

    Args:
        slots: answers in flight at once, >= 1. Results don't depend on it.
        call_tokens: most tokens in one model call.
    """

    def __init__(self, slots: int = 64, call_tokens: int = 4096):
        check_number("backend.slots", slots, least=1, whole=True)
        check_number("backend.call_tokens", call_tokens, least=1, whole=True)
        self.slots, self.call_tokens = slots, call_tokens
        self.version = -1
        self._engine: Engine | None = None

    def refresh(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, version: int) -> None:
        """Nothing is copied: the engine runs the model itself."""
        if self._engine is None or self._engine.model is not model:
            context = int(base_model(model).config.max_position_embeddings)
            self._engine = Engine(model, tokenizer, self.slots, context, self.call_tokens)
        self.version = version

    @contextmanager
    def session(self) -> Iterator[None]:
        """Sharded weights are gathered here, and the slots' memory is training's again at the end."""
        with gathered(self._used().model):
            yield
        self.free()

    def sample(
        self,
        requests: Sequence[Request],
        seed: int,
        max_new_tokens: int,
        temperature: float,
        on_done: Callable[[int, Completion], None],
    ) -> list[Completion]:
        groups = self._used().generate(
            [request.prompt for request in requests],
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop=[request.stops for request in requests],
            names=[request.name for request in requests],
            on_done=on_done,
        )
        return [completion for [completion] in groups]

    def health(self) -> Health:
        if self._engine is None:
            return Health(False, self.version, "no weights yet: call refresh first")
        return Health(True, self.version, occupancy=self._engine.stats.occupancy)

    def memory(self, model: torch.nn.Module, tokens: int) -> int:
        weights = next(model.parameters())
        return cache_elements(base_model(model).config, self.slots, tokens) * weights.element_size()

    def free(self) -> None:
        if self._engine is not None:
            self._engine.free()

    def _used(self) -> Engine:
        if self._engine is None:
            raise RolloutError("EngineBackend: refresh(model, tokenizer, version) must be called before it samples")
        return self._engine
