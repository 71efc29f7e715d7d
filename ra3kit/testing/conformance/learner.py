"""`check_learner`: does an update move q, and nothing but q, towards more reward?"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from ra3kit.abstraction.learner import AbstractionLearner
from ra3kit.abstraction.posterior import CausalPosterior, LatentPosterior
from ra3kit.abstraction.prior import FixedPenalty
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RecipeError
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy
from ra3kit.rollout import Rollout
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.conformance.runs import silence, trainer
from ra3kit.testing.conformance.world import tiny_policy, tiny_snippets

UPDATES, SEVERE = 12, 20.0
"""Updates, and the price of a thought in nats, after which any learner must think less."""


def check_learner(learner: AbstractionLearner) -> Report:
    """Check a learner in E-steps of its own on a tiny policy: the clauses of `AbstractionLearner`.

    Args:
        learner: it is copied, and left as it is.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(learner, AbstractionLearner)
    with check.clause("base", "it is an AbstractionLearner, and its __init__ calls the base's"):
        check.that(isinstance(learner, AbstractionLearner), type(learner).__mro__)
        check.that(hasattr(learner, "optimization"), "no super().__init__(...) was called")
    other: Any = "token_mean" if learner.scale == "line_sum" else "line_sum"
    with check.clause("scale", "`check` refuses a prior measured on another scale than the reward", "check"):
        try:
            learner.check(CausalPosterior(), FixedPenalty(scale=other))
        except RecipeError:
            pass
        else:
            check.broken(f"a prior with scale={other!r} and a learner with scale={learner.scale!r} go together")
    run = _EStep(learner)
    q_before, pi_before = _weights(run.posterior.model), _weights(run.policy.model)
    with check.clause("updates", "`update` gives metrics and the rollouts, `rollouts` of each snippet", "update"):
        run.fit(updates=1)
        metrics, groups = run.seen[0]
        check.that([len(g) for g in groups] == [learner.rollouts] * len(run.batch), [len(g) for g in groups])
    with check.clause("metrics", "the metrics are numbers, with `reward` and `thought_rate` among them", "update"):
        wanted = {"reward", "thought_rate"} | ({"kl"} if learner.kl_limit is not None else set())
        check.that(wanted <= set(metrics), f"{sorted(wanted - set(metrics))} not among {sorted(metrics)}")
        odd = {name: metrics[name] for name in wanted if not np.isfinite(metrics[name])}
        check.that(not odd, odd)
    with check.clause("pi", "pi is frozen: an update leaves its weights as they are"):
        check.that(_equal(_weights(run.policy.model), pi_before), "pi's weights changed")
    with check.clause("q", "an update changes q, and says so: `equals_policy` is False after it"):
        check.that(not _equal(_weights(run.posterior.model), q_before), "q's weights are what they were")
        check.that(not run.posterior.equals_policy, "equals_policy is still True")
    with check.clause("repeatable", "the same update again gives the same weights"):
        twin = _EStep(learner)
        twin.fit(updates=1)
        check.that(_equal(_weights(twin.posterior.model), _weights(run.posterior.model)), "other weights of q")
    with check.clause("ntp", "where nothing is decided nothing is learned: next-token prediction"):
        silent = _EStep(learner, think="never")
        before = _weights(silent.posterior.model)
        silent.fit(updates=1)
        check.that(_equal(_weights(silent.posterior.model), before), "q's weights changed without a decision")
    with check.clause("learns", f"q thinks less where a thought costs {SEVERE:g} nats"):
        severe = _EStep(learner, price=SEVERE)
        severe.learner.optimization = Optimization(lr=1e-2, weight_decay=0.0, warmup=0.0, schedule="constant")
        first = severe.thinks()
        severe.fit(UPDATES)
        last = severe.thinks()
        check.that(last < first, f"thought rate {first:.2f} before {UPDATES} updates, {last:.2f} after")
    return check.report()


class _EStep:
    """A copy of a learner with parts of its own, and what its updates gave."""

    def __init__(self, learner: AbstractionLearner, think: Any = "free", price: float = 0.5):
        self.learner = copy.deepcopy(learner)
        self.policy: BasePolicy = tiny_policy()
        self.posterior: LatentPosterior = CausalPosterior(max_length=5, think=think, slots=16, capacity=400)
        self.batch: list[Trajectory] = tiny_snippets()[:2]
        self.seen: list[tuple[dict[str, float], list[list[Rollout]]]] = []
        self.learner.bind(self.policy, self.posterior, FixedPenalty(c=price, scale=learner.scale))
        update = self.learner.update

        def recorded(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(update(*args, **kwargs))
            return self.seen[-1]

        self.learner.update = recorded  # type: ignore[method-assign]

    def fit(self, updates: int) -> None:
        """Let the learner make so many updates on the same snippets."""
        with tempfile.TemporaryDirectory() as folder, silence():
            trainer(Path(folder), max_epochs=1).fit(self.learner, datamodule=_Batches([self.batch] * updates))

    def thinks(self) -> float:
        """Share of decisions that think, in draws that are the same each time."""
        rows = [row for group in self.posterior.draw(self.batch, 16, 11) for row in group]
        return sum(len(row.trajectory.thoughts) for row in rows) / sum(int(row.decided.sum()) for row in rows)


class _Batches(L.LightningDataModule):
    """Batches that are given out as they are."""

    def __init__(self, batches: Sequence[list[Trajectory]]):
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> Any:
        batches: Any = self.batches
        return torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=list)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Snippets stay in numpy."""
        return batch


def _weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


def _equal(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
