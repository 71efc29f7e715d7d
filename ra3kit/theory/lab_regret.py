"""Experiment (c): the regret decomposition on every task, and its two terms over the number of options kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ra3kit.theory import rooms
from ra3kit.theory.convergence import random_mdp, random_options
from ra3kit.theory.findings import Advance, Finding, Size, bootstrap, shown
from ra3kit.theory.mdp import models, optimal, policy_values
from ra3kit.theory.regret import decompose, greedy_order, q_learning

TOLERANCE = 1e-9
CHECKED = 25
"""Tasks on which the decomposition is checked for each replica, number kept and budget."""
LARGE = 8
"""Above so many options the chain of (option, state) is large, and it is checked on 2."""


def units(size: Size) -> int:
    """Calls of `advance`."""
    return 1 + size.replicas * (1 + len(size.kept))


def regret_experiment(seed: int, size: Size, advance: Advance) -> dict[str, Any]:
    """Mid-train (order Z by expert tasks), learn by RL within the first few options, take the regret apart."""
    gaps = _gaps_of_random_mdps(seed, size.random_mdps)
    advance()
    options = rooms.walks()
    mdps = {goal: rooms.goal_task(goal) for goal in range(1, len(rooms.cells()))}
    smdps = {goal: models(mdp, options) for goal, mdp in mdps.items()}
    best = {goal: float(optimal(smdp.kept(list(range(rooms.PRIMITIVES))))[0][0]) for goal, smdp in smdps.items()}
    pruned = np.zeros((size.replicas, len(size.kept), size.tasks))
    learned = np.zeros((len(size.budgets), *pruned.shape))
    orders = []
    for r in range(size.replicas):
        rng = np.random.default_rng([seed, 9, r])
        met, times = np.unique(rooms.draw_goals(size.tasks, rng), return_counts=True)
        weights = {int(goal): float(n) / size.tasks for goal, n in zip(met, times, strict=True)}
        orders.append(greedy_order(smdps, best, weights, rng))
        advance()
        goals = [int(goal) for goal in rooms.draw_goals(size.tasks, rng)]
        for j, count in enumerate(size.kept):
            kept = options.kept(orders[-1][:count])
            within = {goal: smdps[goal].kept(orders[-1][:count]) for goal in set(goals)}
            reached = {goal: float(optimal(smdp)[0][0]) for goal, smdp in within.items()}
            pruned[r, j] = [best[goal] - reached[goal] for goal in goals]
            for b, budget in enumerate(size.budgets):
                policies = q_learning([mdps[goal] for goal in goals], kept, budget, rng)
                pairs = list(zip(goals, policies, strict=True))
                learned[b, r, j] = [reached[goal] - policy_values(within[goal], pi)[0] for goal, pi in pairs]
                checked = min(size.tasks, CHECKED if count <= LARGE else 2)
                gaps += [decompose(mdps[goals[i]], kept, policies[i]).gap for i in range(checked)]
            advance()
    least = float(min(pruned.min(), learned.min()))
    findings = [
        Finding(
            f"the two sides, computed by different roads, agree to {TOLERANCE:g} on every task checked",
            f"largest gap {max(gaps):.1e} in {len(gaps)} tasks",
            "",
            max(gaps) <= TOLERANCE,
        ),
        Finding("both terms are at least 0, to rounding", f"least {least:.1e}", "", least >= -TOLERANCE),
    ]
    curves = []
    for b, budget in enumerate(size.budgets):
        rng = np.random.default_rng([seed, 10, b])
        findings += _between(pruned + learned[b], budget, size, rng)
        terms = {"pruning": pruned, "learning": learned[b], "total": pruned + learned[b]}
        curves.append({"budget": budget, "kept": list(size.kept), **{k: _curve(v, rng) for k, v in terms.items()}})
    return {
        "findings": [asdict(finding) for finding in findings],
        "curves": curves,
        "first_kept": orders[0][:LARGE],
        "largest_gap": max(gaps),
        "tasks_checked": len(gaps),
    }


def _gaps_of_random_mdps(seed: int, count: int) -> list[float]:
    """Gaps of the decomposition on random MDPs with random options, for random policies."""
    gaps = []
    for i in range(count):
        rng = np.random.default_rng([seed, 11, i])
        mdp = random_mdp(int(rng.integers(4, 20)), 3, 2, float(rng.uniform(0.5, 0.99)), rng)
        options = random_options(mdp, int(rng.integers(1, 6)), float(rng.uniform(1, 20)), rng)
        gaps.append(decompose(mdp, options, rng.integers(0, len(options), len(mdp.rewards))).gap)
    return gaps


def _curve(values: np.ndarray, rng: np.random.Generator) -> dict[str, list[float]]:
    """Mean by number of options kept, with intervals over replicas and, within them, tasks.

    Args:
        values: [replica, number kept, task].
    """

    def resampled(r: np.random.Generator) -> np.ndarray:
        replicas = r.integers(0, len(values), len(values))
        tasks = r.integers(0, values.shape[2], (len(values), 1, values.shape[2]))
        return np.take_along_axis(values[replicas], tasks, 2).mean((0, 2))

    low, high = bootstrap(resampled, rng)
    return {"mean": values.mean((0, 2)).tolist(), "low": low.tolist(), "high": high.tolist()}


def _between(total: np.ndarray, budget: int, size: Size, rng: np.random.Generator) -> list[Finding]:
    """Whether a set in between has less regret than the smallest and than all of Z.

    The size is chosen for each replica by the others, so that choosing does not flatter it.
    """
    others = [np.arange(len(total)) != r for r in range(len(total))]
    chosen = [int(total[rest].mean((0, 2)).argmin()) for rest in others]
    between = np.array([total[r, j] for r, j in enumerate(chosen)])
    sizes = " or ".join(str(size.kept[j]) for j in sorted(set(chosen)))
    findings = []
    for other, name in ((0, "1 option"), (len(size.kept) - 1, f"all {size.kept[-1]}")):
        gain = total[:, other] - between
        curve = _curve(gain[:, None], rng)
        low, high = curve["low"][0], curve["high"][0]
        findings.append(
            Finding(
                f"RL of {budget} steps a task: a set in between has less regret than {name}",
                f"{sizes} options: {between.mean():.3f} against {total[:, other].mean():.3f}",
                f"difference {shown(low, high, 3)} over replicas and tasks",
                bool(low > 0),
            )
        )
    return findings
