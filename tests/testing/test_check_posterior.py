"""`check_posterior`: the kit's posteriors keep the contract, and each clause can be broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from clauses import assert_all_shown, assert_breaks

from ra3kit.abstraction.posterior import CausalPosterior, HindsightPosterior, LatentPosterior, ResampledPosterior
from ra3kit.latents import ThoughtRules
from ra3kit.rollout import Rollout
from ra3kit.testing import check_posterior

SOUND = [
    CausalPosterior(),
    CausalPosterior(max_length=4, think="always"),
    CausalPosterior(where="first_line", weights="shared"),
    CausalPosterior(start="last", slots=3),
    CausalPosterior(start="base"),
    HindsightPosterior(lines_ahead=2),
    ResampledPosterior(k=3),
    ResampledPosterior(k=2, choose="elbo", start="last"),
]


class NoPosterior:
    pass


class WithoutInit(CausalPosterior):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)


class SharesInSecret(CausalPosterior):
    def bind(self, policy: Any) -> None:
        super().bind(policy)
        self.model = policy.model


class OneTooMany(CausalPosterior):
    def draw(self, trajectories: Any, k: int, seed: int, on_done: Any = None) -> Any:
        return super().draw(trajectories, k + 1, seed, on_done)


class Edited(CausalPosterior):
    """Every rollout that `change` likes is replaced."""

    def draw(self, trajectories: Any, k: int, seed: int, on_done: Any = None) -> Any:
        groups = super().draw(trajectories, k, seed, on_done)
        return [[self.change(row) for row in group] for group in groups]

    def change(self, row: Rollout) -> Rollout:
        raise NotImplementedError


class RewritesCode(Edited):
    def change(self, row: Rollout) -> Rollout:
        ids = row.trajectory.ids.copy()
        ids[-2] += 1
        return replace(row, trajectory=replace(row.trajectory, ids=ids))


class LongThoughts(Edited):
    def change(self, row: Rollout) -> Rollout:
        thoughts = {i: row.trajectory.thought_ids(i) for i in np.flatnonzero(row.trajectory.has_thought())}
        return replace(
            row, trajectory=row.trajectory.weave({i: t[:1] + t[1:2] * 9 + t[1:] for i, t in thoughts.items()})
        )


class ForgetsDecisions(Edited):
    def change(self, row: Rollout) -> Rollout:
        return replace(row, decided=np.zeros_like(row.decided))


class PositiveLogQ(Edited):
    def change(self, row: Rollout) -> Rollout:
        return replace(row, log_q=-row.log_q)


class LogQOfUndecided(Edited):
    def change(self, row: Rollout) -> Rollout:
        return replace(row, log_q=np.where(row.decided, row.log_q, -1.0))


class ThoughtsUndecided(Edited):
    def change(self, row: Rollout) -> Rollout:
        decided = row.decided & ~row.trajectory.has_thought()
        return replace(row, decided=decided, log_q=np.where(decided, row.log_q, 0.0))


class DecidesEverywhere(Edited):
    def change(self, row: Rollout) -> Rollout:
        return replace(row, decided=np.ones_like(row.decided))


class Renumbered(Edited):
    def change(self, row: Rollout) -> Rollout:
        return replace(row, rollout=row.rollout + 1)


class IgnoresWhere(CausalPosterior):
    def __init__(self) -> None:
        super().__init__(where="first_line")

    def draw(self, trajectories: Any, k: int, seed: int, on_done: Any = None) -> Any:
        return self.engine.rollout(trajectories, k, seed, ThoughtRules(8, "always", "every_line"), 0, on_done)


class OtherRow(CausalPosterior):
    def views(self, rollout: Rollout, row: int) -> Any:
        return super().views(rollout, 0)


class CountsDraws(CausalPosterior):
    draws = 0

    def draw(self, trajectories: Any, k: int, seed: int, on_done: Any = None) -> Any:
        self.draws += 1
        return super().draw(trajectories, k, seed + self.draws, on_done)


class SeedOfTheBatch(CausalPosterior):
    def draw(self, trajectories: Any, k: int, seed: int, on_done: Any = None) -> Any:
        return super().draw(trajectories, k, seed + len(trajectories), on_done)


class DeafToSeed(CausalPosterior):
    def draw(self, trajectories: Any, k: int, seed: int, on_done: Any = None) -> Any:
        return super().draw(trajectories, k, 0, on_done)


class FewerViews(CausalPosterior):
    def views(self, rollout: Rollout, row: int) -> Any:
        (view,) = super().views(rollout, row)
        cut = {name: getattr(view, name)[:-1] for name in ("at", "targets", "places", "lines")}
        return [replace(view, **cut)]


class OtherPlaces(CausalPosterior):
    def views(self, rollout: Rollout, row: int) -> Any:
        (view,) = super().views(rollout, row)
        return [replace(view, at=np.maximum(view.at - 1, 0))]


class Frozen(CausalPosterior):
    def views(self, rollout: Rollout, row: int) -> Any:
        self.model.requires_grad_(False)
        return super().views(rollout, row)


class Backwards(CausalPosterior):
    def annotate(self, *args: Any, **kwargs: Any) -> Any:
        return super().annotate(*args, **kwargs)[::-1]


class Shortens(CausalPosterior):
    def annotate(self, *args: Any, **kwargs: Any) -> Any:
        return [replace(t.without_thoughts(), lines=t.without_thoughts().lines[:-1]) for t in super().annotate(*args)]


class Silent(CausalPosterior):
    def annotate(self, trajectories: Any, policy: Any, seed: int, on_done: Any = None) -> Any:
        return super().annotate(trajectories, policy, seed)


class AnnotatesByBatch(CausalPosterior):
    def annotate(self, trajectories: Any, policy: Any, seed: int, on_done: Any = None) -> Any:
        return super().annotate(trajectories, policy, seed + len(trajectories), on_done)


class StaysWhereItIs(CausalPosterior):
    def start_iteration(self, policy: Any, base: Any, iteration: int) -> None:
        self.equals_policy = True


class NeverEqual(CausalPosterior):
    def start_iteration(self, *args: Any) -> None:
        super().start_iteration(*args)
        self.equals_policy = False


class AlwaysEqual(CausalPosterior):
    def __init__(self) -> None:
        super().__init__(start="last")

    def start_iteration(self, *args: Any) -> None:
        super().start_iteration(*args)
        self.equals_policy = True


class ReadsBaseInSecret(CausalPosterior):
    needs_base = False  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(start="base")


class MaybeNeedsBase(CausalPosterior):
    needs_base = "perhaps"  # type: ignore[assignment]


class ThinksAnyway(CausalPosterior):
    def forbid_thinking(self) -> None:
        pass


BROKEN = [
    pytest.param(NoPosterior, "base"),
    pytest.param(WithoutInit, "base"),
    pytest.param(SharesInSecret, "weights"),
    pytest.param(OneTooMany, "rollouts"),
    pytest.param(Renumbered, "rollouts"),
    pytest.param(RewritesCode, "code"),
    pytest.param(IgnoresWhere, "rules"),
    pytest.param(LongThoughts, "rules"),
    pytest.param(ForgetsDecisions, "log_q"),
    pytest.param(PositiveLogQ, "log_q"),
    pytest.param(LogQOfUndecided, "log_q"),
    pytest.param(ThoughtsUndecided, "log_q"),
    pytest.param(DecidesEverywhere, "log_q"),
    pytest.param(OtherRow, "views"),
    pytest.param(CountsDraws, "repeatable"),
    pytest.param(SeedOfTheBatch, "repeatable"),
    pytest.param(DeafToSeed, "seeded"),
    pytest.param(FewerViews, "views"),
    pytest.param(OtherPlaces, "exact"),
    pytest.param(Frozen, "gradient"),
    pytest.param(Backwards, "annotates"),
    pytest.param(Shortens, "annotated_code"),
    pytest.param(Silent, "progress"),
    pytest.param(AnnotatesByBatch, "annotates_alone"),
    pytest.param(StaysWhereItIs, "starts"),
    pytest.param(NeverEqual, "starts"),
    pytest.param(AlwaysEqual, "equals_policy"),
    pytest.param(ReadsBaseInSecret, "equals_policy"),
    pytest.param(MaybeNeedsBase, "needs_base"),
    pytest.param(ThinksAnyway, "forbid"),
]


@pytest.mark.parametrize("posterior", SOUND, ids=lambda q: f"{type(q).__name__}-{q.start}-{q.weights}")
def test_sound_posteriors_pass_and_stay_unbound(posterior: LatentPosterior) -> None:
    report = check_posterior(posterior)
    assert report.checked == [clause.name for clause in report.clauses]
    assert not hasattr(posterior, "model")


def test_one_that_never_thinks_is_checked_for_the_rest() -> None:
    report = check_posterior(CausalPosterior(think="never"))
    assert {clause.name for clause in report.clauses if clause.skipped} == {"seeded", "exact", "gradient"}


@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_each_clause_can_be_broken(broken: Any, clause: str) -> None:
    assert_breaks(check_posterior, broken(), clause)


def test_no_clause_is_untested() -> None:
    assert_all_shown(BROKEN, check_posterior(SOUND[0]))
