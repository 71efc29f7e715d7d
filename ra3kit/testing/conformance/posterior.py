"""`check_posterior`: are draws repeatable, views exact, and is the code under the thoughts left as it is?"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from ra3kit.abstraction.posterior import LatentPosterior, pi_logps
from ra3kit.abstraction.views import View, view_log_q
from ra3kit.data.trajectory import Trajectory
from ra3kit.policy import BasePolicy, score
from ra3kit.rollout import Rollout
from ra3kit.testing.conformance.report import Checking, Report
from ra3kit.testing.conformance.world import tiny_policy, tiny_snippets

K = 3
TOLERANCE = 1e-4
"""Nats between two ways to compute one log-probability in float32."""


def check_posterior(posterior: LatentPosterior) -> Report:
    """Check a posterior on a tiny policy that thinks: the clauses of `LatentPosterior`.

    Args:
        posterior: not yet bound to a policy; it is copied, and left as it is. Its capacity must be at most 512, the
            context of the tiny policy, or it is lowered to that.

    Raises:
        ConformanceError: the first clause that is broken, and by what.
    """
    check = Checking(posterior, LatentPosterior)
    with check.clause("base", "it is a LatentPosterior, and its __init__ calls the base's"):
        check.that(isinstance(posterior, LatentPosterior), type(posterior).__mro__)
        check.that(hasattr(posterior, "rules"), "no super().__init__(...) was called")
    policy, snippets = tiny_policy(), tiny_snippets()
    q = copy.deepcopy(posterior)
    q.capacity = min(q.capacity, 512)
    with check.clause("weights", "`bind` gives q weights of its own, or with weights='shared' those of pi", "bind"):
        q.bind(policy)
        shared = next(q.model.parameters()) is next(policy.model.parameters())
        check.that(shared == (q.weights == "shared"), f"shared: {shared} with weights={q.weights!r}")
    q.requires_grad_(True)
    groups = _check_draws(check, q, snippets)
    _check_views(check, q, [rollout for group in groups for rollout in group])
    _check_annotate(check, q, policy, snippets)
    _check_start(check, q, policy, snippets)
    with check.clause(
        "forbid", "after `forbid_thinking` no latent is chosen: next-token prediction", "forbid_thinking"
    ):
        q.forbid_thinking()
        for rollout in (row for group in q.draw(snippets, 2, 0) for row in group):
            check.that(not rollout.decided.any() and not rollout.log_q.any(), f"choices at {rollout.decided}")
        for snippet, made in zip(snippets, q.annotate(snippets, policy, 0), strict=True):
            check.that(np.array_equal(made.ids, snippet.ids), f"{made.snippet_id} has {len(made.thoughts)} thoughts")
    return check.report()


def _check_draws(check: Checking, q: LatentPosterior, snippets: Sequence[Trajectory]) -> list[list[Rollout]]:
    with check.clause("rollouts", "`draw` gives k rollouts of each snippet, in order", "draw"):
        groups = q.draw(snippets, K, 7)
        check.that([len(group) for group in groups] == [K] * len(snippets), [len(group) for group in groups])
        for snippet, group in zip(snippets, groups, strict=True):
            found = [(row.trajectory.snippet_id, row.rollout) for row in group]
            check.that(found == [(snippet.snippet_id, i) for i in range(K)], found)
    with check.clause("code", "the ids of the code under the thoughts are those of the expert snippet"):
        for snippet, group in zip(snippets, groups, strict=True):
            for row in group:
                _check_code(check, row.trajectory, snippet)
    with check.clause("rules", "thoughts stand where the rules allow them, have their length, and end in a line end"):
        for row in (row for group in groups for row in group):
            _check_rules(check, q, row.trajectory)
    with check.clause("log_q", "log_q <= 0 and finite at each decision, 0 elsewhere; a thought is a decision"):
        for row in (row for group in groups for row in group):
            at = row.log_q[row.decided]
            check.that(bool((np.isfinite(at) & (at <= 0)).all()), f"log_q = {at.tolist()}")
            check.that(not row.log_q[~row.decided].any(), "log_q is not 0 where nothing was decided")
            check.that(not (row.trajectory.has_thought() & ~row.decided).any(), "a thought where nothing was decided")
            check.that(not (row.decided & ~q.rules.may_think(row.trajectory.may_think)).any(), "a forbidden decision")
    with check.clause("repeatable", "draws depend on (seed, snippet, rollout) alone: not on order, batch, k or slots"):
        alone = [group for snippet in reversed(snippets) for group in q.draw([snippet], 2, 7)][::-1]
        slots, q.engine.slots = q.engine.slots, 1
        other = q.draw(snippets, K, 7)
        q.engine.slots = slots
        for name, again in (("alone, with another k", alone), ("with one slot", other)):
            for group, same in zip(groups, again, strict=True):
                for row, once_more in zip(group, same, strict=False):
                    check.that(
                        np.array_equal(row.trajectory.ids, once_more.trajectory.ids),
                        f"{row.trajectory.snippet_id}, rollout {row.rollout}: other thoughts {name}",
                    )
    seeded = "another seed gives other draws"
    if q.rules.think == "never":
        check.skip("seeded", seeded, "it never thinks")
    else:
        with check.clause("seeded", seeded):
            texts = [[row.trajectory.ids.tolist() for group in q.draw(snippets, K, s) for row in group] for s in (7, 8)]
            check.that(texts[0] != texts[1], "seeds 7 and 8 give the same thoughts in every rollout")
    return groups


def _check_views(check: Checking, q: LatentPosterior, rows: Sequence[Rollout]) -> None:
    again = [np.zeros(len(row.trajectory.lines)) for row in rows]
    with check.clause("views", "`views` has a choice for each decision, and what was chosen as its targets", "views"):
        views: list[View] = []
        for number, row in enumerate(rows):
            own = q.views(row, number)
            _check_choices(check, row, own, number)
            views += [view for view in own if len(view.at)]
    exact = "log q recomputed from the views is the log q of the draw"
    gradient = "log q recomputed from the views has a gradient on `model`"
    if not views:
        check.skip("exact", exact, "it never decides")
        check.skip("gradient", gradient, "it never decides")
        return
    q.model.zero_grad()
    values, _ = view_log_q(q.model, q.engine.grammar, views)
    with check.clause("exact", exact):
        choices = [(view.row, int(line)) for view in views for line in view.lines]
        for (number, line), value in zip(choices, values.tolist(), strict=True):
            again[number][line] += value
        for recomputed, row in zip(again, rows, strict=True):
            gap = float(np.abs(recomputed - row.log_q).max())
            check.that(gap < TOLERANCE, f"{row.trajectory.snippet_id}: {gap:.3g} nats apart")
    with check.clause("gradient", gradient):
        values.sum().backward()
        gradients = [p.grad for p in q.model.parameters() if p.grad is not None]
        check.that(any(bool(g.abs().sum() > 0) for g in gradients), "no gradient, or zero, on every parameter")
    q.model.zero_grad()


def _check_choices(check: Checking, row: Rollout, views: Sequence[View], number: int) -> None:
    chosen: dict[int, list[int]] = {}
    for view in views:
        check.that(view.row == number, f"row = {view.row} in a view made with row={number}")
        for line, target in zip(view.lines.tolist(), view.targets.tolist(), strict=True):
            chosen.setdefault(line, []).append(target)
    wanted = {line: row.trajectory.thought_ids(line) or [-1] for line in np.flatnonzero(row.decided).tolist()}
    check.that(chosen == wanted, f"the choices {chosen}, where {wanted} were drawn, by line")


def _check_annotate(check: Checking, q: LatentPosterior, policy: BasePolicy, snippets: Sequence[Trajectory]) -> None:
    done: list[None] = []
    with check.clause("annotates", "`annotate` gives one trajectory for each snippet, in order", "annotate"):
        made = q.annotate(snippets, policy, 3, lambda: done.append(None))
        names = [t.snippet_id for t in made]
        check.that(names == [t.snippet_id for t in snippets], names)
    with check.clause("annotated_code", "`annotate` keeps the ids of the code and the rules of thoughts", "annotate"):
        for snippet, trajectory in zip(snippets, made, strict=True):
            _check_code(check, trajectory, snippet)
            _check_rules(check, q, trajectory)
    with check.clause("progress", "`annotate` calls on_done once for each snippet", "annotate"):
        check.that(len(done) == len(snippets), f"{len(done)} calls for {len(snippets)} snippets")
    with check.clause("annotates_alone", "what `annotate` writes depends on (seed, snippet) alone, not on the batch"):
        for trajectory, snippet in zip(reversed(made), reversed(snippets), strict=True):
            alone = q.annotate([snippet], policy, 3)[0]
            check.that(np.array_equal(alone.ids, trajectory.ids), f"{snippet.snippet_id}: other thoughts alone")


def _check_start(check: Checking, q: LatentPosterior, policy: BasePolicy, snippets: Sequence[Trajectory]) -> None:
    with check.clause(
        "needs_base", "`needs_base` is True or False: whether `start_iteration` reads `base`", "needs_base"
    ):
        check.that(isinstance(q.needs_base, bool), f"{q.needs_base!r}")
    weights = {name: value.detach().clone() for name, value in policy.model.state_dict().items()}
    base = weights if q.needs_base else {}
    with check.clause(
        "starts", "`start_iteration` 0 starts from pi, and says so by `equals_policy`", "start_iteration"
    ):
        _move(q.model)
        q.start_iteration(policy, base, 0)
        check.that(_same(q.model, policy.model), "q's weights are not pi's")
        check.that(q.equals_policy, "equals_policy is False")
    with check.clause("equals_policy", "`equals_policy` is True only while q = pi: pi's log-probs are then the draw's"):
        for iteration in (0, 1):
            if iteration:
                _move(policy.model)
                q.start_iteration(policy, base, 1)
            rows = [row for group in q.draw(snippets, 2, 5) for row in group]
            read = pi_logps(policy.model, rows, q.equals_policy)
            scored = score(policy.model, [row.trajectory for row in rows])
            gap = max(float(np.abs(a - b).max()) for a, b in zip(read, scored, strict=True))
            check.that(gap < TOLERANCE, f"iteration {iteration}: {gap:.3g} nats from pi's own score")


def _check_code(check: Checking, made: Trajectory, snippet: Trajectory) -> None:
    made.check()
    check.that(
        np.array_equal(made.without_thoughts().ids, snippet.ids)
        and np.array_equal(made.may_think, snippet.may_think)
        and [made.line_ids(i) for i in range(len(made.lines))]
        == [snippet.line_ids(i) for i in range(len(snippet.lines))],
        f"other ids, or other lines, in {snippet.snippet_id}",
    )


def _check_rules(check: Checking, q: LatentPosterior, made: Trajectory) -> None:
    where = made.has_thought()
    check.that(not (where & ~q.rules.may_think(made.may_think)).any(), f"thoughts at lines {np.flatnonzero(where)}")
    for line in np.flatnonzero(where).tolist():
        thought = made.thought_ids(line)
        grammatical = q.engine.grammar.opens[thought[0]] and q.engine.grammar.inside[thought[1:-1]].all()
        fits = 3 <= len(thought) <= q.rules.max_length and grammatical and q.engine.grammar.ends[thought[-1]]
        check.that(bool(fits), f"the thought {thought} of {len(thought)} tokens; max_length is {q.rules.max_length}")


def _move(model: torch.nn.Module) -> None:
    """Change the weights a little, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
