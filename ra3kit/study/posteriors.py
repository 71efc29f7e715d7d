"""Posteriors that need no model to annotate: the study's upper bound and its control.

Both draw, and are trained, as `CausalPosterior`; only what they write into the corpus is not q's. Use them without an
E-step (`e_steps: 0`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ra3kit.abstraction.em import derive_seed
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.data.encode import encode_texts
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RecipeError
from ra3kit.latents import LatentGrammar
from ra3kit.policy import BasePolicy
from ra3kit.study.truth import Truth


class OraclePosterior(CausalPosterior):
    """Annotates with the true intents, each before the line where it begins.

    Args:
        corpus: of the snippets that are annotated, by its name in `data.path`: "family:expert:world=3".
        the other arguments as in `LatentPosterior`.
    """

    def __init__(self, corpus: str = "family:expert", **kwargs: Any):
        super().__init__(**kwargs)
        self.corpus = corpus

    @cached_property
    def truth(self) -> Truth:
        """Of the corpus; made when it is first asked for."""
        return Truth.of(self.corpus)

    def annotate(
        self,
        trajectories: Sequence[Trajectory],
        policy: BasePolicy,
        seed: int,
        on_done: Callable[[], None] | None = None,
    ) -> list[Trajectory]:
        made = []
        for trajectory in trajectories:
            made.append(self._woven(trajectory, self.named(trajectory, policy.tokenizer, seed), policy.tokenizer))
            if on_done:
                on_done()
        return made

    def named(self, trajectory: Trajectory, tokenizer: Any, seed: int) -> dict[int, str]:
        """Line -> the intent that its thought names."""
        return self.truth.intents_of(trajectory, tokenizer)

    def _woven(self, trajectory: Trajectory, named: Mapping[int, str], tokenizer: Any) -> Trajectory:
        may_think = self.rules.may_think(trajectory.may_think)
        kept = {line: name for line, name in named.items() if may_think[line]}
        ids = encode_texts(tokenizer, [f"# {name}\n" for name in kept.values()])
        for name, thought in zip(kept.values(), ids, strict=True):
            self._check(name, thought)
        return trajectory.weave(dict(zip(kept, ids, strict=True)))

    def _check(self, name: str, thought: Sequence[int]) -> None:
        grammar: LatentGrammar = self.engine.grammar
        inside = all(bool(grammar.inside[i]) for i in thought[1:-1])
        if not (grammar.opens[thought[0]] and inside and grammar.ends[thought[-1]] and len(thought) > 2):
            raise RecipeError(f"posterior: the tokenizer does not write {name!r} as a thought, one comment line")
        if len(thought) > self.rules.max_length:
            raise RecipeError(
                f"posterior.max_length={self.rules.max_length}: the thought {name!r} has {len(thought)} tokens"
            )


class RandomPosterior(OraclePosterior):
    """Annotates with the right words in the wrong places: the control for "any comment helps".

    Each place of a thought has one with the same chance, and each thought names an intent drawn from all of the corpus:
    as many thoughts as the oracle writes on average, of the same texts, whatever the lines do.

    Args:
        corpus: as in `OraclePosterior`: where the names and the rate come from.
        rate: share of the places with a thought, in (0, 1]; null is the oracle's.
        the other arguments as in `LatentPosterior`.
    """

    def __init__(self, corpus: str = "family:expert", rate: float | None = None, **kwargs: Any):
        super().__init__(corpus, **kwargs)
        if rate is not None and not 0 < rate <= 1:
            raise RecipeError(f"posterior.rate={rate}: allowed are numbers above 0 up to 1, and null")
        self.rate = rate

    def named(self, trajectory: Trajectory, tokenizer: Any, seed: int) -> dict[int, str]:
        own = random.Random(derive_seed(seed, "random thoughts", trajectory.snippet_id))
        rate = self.rate if self.rate is not None else self._rate
        places = [line for line, may in enumerate(trajectory.may_think.tolist()) if may]
        return {line: own.choice(self.truth.intents) for line in places if own.random() < rate}

    @cached_property
    def _rate(self) -> float:
        """The oracle's: intents per line of the corpus."""
        programs = self.truth.programs.values()
        lines = sum(program.text.count("\n") for program in programs)
        return sum(len(program.truth) for program in programs) / max(1, lines)
