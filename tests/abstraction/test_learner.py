"""The E-step against enumeration: every latent path of a small world, its probability, reward and gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_world import TinyTokenizer, corpus, data, fit, policy

from ra3kit.abstraction.credit import Credit
from ra3kit.abstraction.estep import LineTable, credits, line_table, policy_gradient
from ra3kit.abstraction.evaluate import HeldOut, held_out, paired_difference, thought_gains
from ra3kit.abstraction.learner import AbstractionLearner, noise_floor
from ra3kit.abstraction.posterior import CausalPosterior
from ra3kit.abstraction.prior import FixedPenalty, LatentPrior, TemporalPrior
from ra3kit.abstraction.views import view_log_q
from ra3kit.data.encode import encode_texts
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import RunError
from ra3kit.latents import LatentGrammar
from ra3kit.optimize import Optimization
from ra3kit.policy import BasePolicy
from ra3kit.rollout import Rollout, line_logps

LINES = ["def f(x):\n", "    return x\n", "y = f(1)\n"]


def small_grammar(full: LatentGrammar) -> LatentGrammar:
    """One opening, two inside tokens and one ending: with three tokens a thought, 2 thoughts or `<act>` a line."""

    def only(mask: torch.Tensor, count: int, start: int) -> torch.Tensor:
        kept = torch.zeros_like(mask)
        kept[mask.nonzero().squeeze(1)[start : start + count]] = True
        return kept

    ends = torch.zeros_like(full.ends)
    ends[full.newline_id] = True
    return replace(full, opens=only(full.opens, 1, 0), inside=only(full.inside, 2, 40), ends=ends)


@pytest.fixture(scope="module")
def world() -> tuple[BasePolicy, CausalPosterior, Trajectory]:
    pi = policy(think=5.0)
    with torch.no_grad():  # far from uniform, so that latents matter
        for parameter in pi.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.5)
    q = CausalPosterior(max_length=3, slots=64, capacity=128)
    q.bind(pi)
    q.engine.grammar = small_grammar(q.engine.grammar)
    q.engine.ending_ids = frozenset({q.engine.grammar.newline_id})
    ids = encode_texts(pi.tokenizer, LINES)
    end = pi.tokenizer.eos_token_id
    return pi, q, Trajectory.from_lines("small", ids, [True, True, True], end, end)


def every_path(q: CausalPosterior, snippet: Trajectory) -> list[Rollout]:
    """All 27 latent paths of the snippet; `log_q` is filled in from the model, token by token."""
    grammar = q.engine.grammar
    (opening,) = grammar.open_ids().tolist()
    thoughts: list[list[int]] = [
        [],
        *([opening, i, grammar.newline_id] for i in grammar.inside.nonzero().flatten().tolist()),
    ]
    paths = []
    for choice in itertools.product(thoughts, repeat=len(snippet.lines)):
        woven = snippet.weave({t: ids for t, ids in enumerate(choice) if ids})
        n = len(snippet.lines)
        paths.append(Rollout(woven, 0, np.zeros(n), np.full(n, np.nan), np.ones(n, bool), None, 0))
    log_q = path_log_q(q, paths).detach().double().numpy()
    return [replace(path, log_q=row) for path, row in zip(paths, log_q, strict=True)]


def path_log_q(q: CausalPosterior, paths: Sequence[Rollout]) -> torch.Tensor:
    """[paths, lines] log q of each latent, with gradient."""
    views = [view for i, path in enumerate(paths) for view in q.views(path, i)]
    values, _ = view_log_q(q.model, q.engine.grammar, views)
    rows = torch.tensor([v.row for v in views for _ in v.at])
    lines = torch.from_numpy(np.concatenate([v.lines for v in views]))
    out = torch.zeros(len(paths), len(LINES))
    return out.index_put((rows, lines), values, accumulate=True)


def table_of(pi: BasePolicy, paths: Sequence[Rollout]) -> LineTable:
    logps = pi.score([path.trajectory for path in paths])
    return line_table([[path] for path in paths], [[logp] for logp in logps])


def test_probabilities_of_all_paths_sum_to_one(world: Any) -> None:
    _, q, snippet = world
    paths = every_path(q, snippet)
    assert len(paths) == 27
    assert sum(math.exp(path.log_q.sum()) for path in paths) == pytest.approx(1.0, abs=1e-5)


def test_engine_draws_paths_with_these_probabilities(world: Any) -> None:
    _, q, snippet = world
    probability = {path.trajectory.ids.tobytes(): math.exp(path.log_q.sum()) for path in every_path(q, snippet)}
    (rows,) = q.draw([snippet], 3000, seed=1)
    for row in rows[:50]:
        assert math.exp(row.log_q.sum()) == pytest.approx(probability[row.trajectory.ids.tobytes()], rel=1e-4)
    counts = {key: 0 for key in probability}
    for row in rows:
        counts[row.trajectory.ids.tobytes()] += 1
    kept = [key for key, p in probability.items() if 3000 * p >= 5]
    chi2 = sum((counts[key] - 3000 * probability[key]) ** 2 / (3000 * probability[key]) for key in kept)
    assert len(kept) > 8
    assert chi2 < len(kept) + 4 * math.sqrt(2 * len(kept))  # four standard deviations


@pytest.mark.parametrize("credit", ["return_to_go", "whole"])
@pytest.mark.parametrize(
    "prior", [FixedPenalty(1.5, "line_sum"), TemporalPrior(0.8, num_latents=3)], ids=["fixed", "temporal"]
)
def test_policy_gradient_is_the_gradient_of_the_expected_reward(world: Any, credit: Credit, prior: LatentPrior) -> None:
    pi, q, snippet = world
    paths = every_path(q, snippet)
    table = table_of(pi, paths)
    weights = torch.tensor([math.exp(path.log_q.sum()) for path in paths])

    q.model.zero_grad()
    log_q = path_log_q(q, paths)
    result = credits(table, prior, "line_sum", credit, None, 1.0, "none")
    loss = sum(weights[i] * policy_gradient(log_q[i], result.advantage[i, 0], len(LINES)) for i in range(len(paths)))
    loss.backward()  # type: ignore[union-attr]
    ours = torch.cat([p.grad.flatten().clone() for p in q.model.parameters()])

    q.model.zero_grad()
    log_q = path_log_q(q, paths)
    probability = log_q.sum(-1).exp()
    likelihood = table.line_logp[:, 0].sum(-1).float()
    if isinstance(prior, TemporalPrior):
        cost = log_q.sum(-1) - prior.log_prob(table.is_thought[:, 0]).sum(-1).float()
    else:
        cost = 1.5 * table.is_thought[:, 0].sum(-1)
    expected = (probability * (likelihood - cost)).sum()  # sum_t E[r_t], exact
    (-expected / len(LINES)).backward()
    exact = torch.cat([p.grad.flatten() for p in q.model.parameters()])
    assert exact.norm() > 1e-2
    torch.testing.assert_close(ours, exact, atol=2e-4 * float(exact.norm()), rtol=1e-3)


def test_lines_thoughts_and_the_end_add_up_to_log_pi_of_everything(world: Any) -> None:
    pi, q, snippet = world
    paths = every_path(q, snippet)
    table = table_of(pi, paths)
    for i, logp in enumerate(pi.score([path.trajectory for path in paths])):
        assert float(table.log_joint[i, 0]) == pytest.approx(logp.sum(), abs=1e-6)


def test_rewards_come_from_pi_also_after_q_has_moved(tmp_path: Path) -> None:
    pi, q = policy(think=4.0), CausalPosterior(max_length=4, slots=16, capacity=400)
    q.bind(pi)
    q.start_iteration(pi, {}, 0)
    prior = FixedPenalty(0.5, "line_sum")
    learner = AbstractionLearner(rollouts=3, scale="line_sum", optimization=Optimization(lr=0.1, warmup=0.0))
    datamodule = data(corpus(tmp_path / "corpus"), tokenizer=TinyTokenizer())
    datamodule.setup("fit")
    optimizer = learner.optimization.optimizer(q.model.parameters())
    owner: Any = SimpleNamespace(manual_backward=lambda loss: loss.backward(), trainer=SimpleNamespace(strategy=None))
    for seed in range(3):
        metrics, groups = learner.update(q, prior, pi.model, datamodule.train[:2], optimizer, seed, 0.1, owner)
        trajectories = [rollout.trajectory for group in groups for rollout in group]
        lines = [line_logps(t, logp) for t, logp in zip(trajectories, pi.score(trajectories), strict=True)]
        assert metrics["line_logp"] == pytest.approx(np.concatenate(lines).mean(), abs=1e-4)


def test_held_out_parts_join_to_the_same_whatever_the_split(tmp_path: Path) -> None:
    pi, q = policy(think=4.0), CausalPosterior(max_length=4, slots=16, capacity=400)
    q.bind(pi)
    datamodule = data(corpus(tmp_path / "corpus"), tokenizer=TinyTokenizer())
    datamodule.setup("fit")
    snippets = datamodule.train[:5]
    whole = held_out(q, pi.model, snippets, 3, 1, True)
    parts = [held_out(q, pi.model, chosen, 3, 1, True) for chosen in (snippets[3:], snippets[1:3], snippets[:1])]
    joined, alone = HeldOut.join(parts), HeldOut.join([whole])
    assert joined.names == alone.names == tuple(sorted(s.snippet_id for s in snippets))
    assert joined.per_token() == pytest.approx(alone.per_token(), abs=1e-5)
    assert joined.iwae == pytest.approx(alone.iwae, abs=1e-4)
    by_hand = sum(len(r.trajectory.thoughts) for group in q.draw(snippets, 3, 1) for r in group)
    assert joined.thoughts.sum() == by_hand > 0


def test_bounds_on_the_exact_marginal(world: Any) -> None:
    pi, q, snippet = world
    paths = every_path(q, snippet)
    table = table_of(pi, paths)
    joint = table.log_joint[:, 0]
    marginal = float(torch.logsumexp(joint, 0))
    plain = float(pi.score([snippet])[0].sum())
    many = held_out(q, pi.model, [snippet], 2000, 3, True)
    few = held_out(q, pi.model, [snippet], 2, 3, True)
    assert -many.iwae[0] == pytest.approx(marginal, abs=0.05)
    weights = torch.tensor([math.exp(path.log_q.sum()) for path in paths], dtype=torch.float64)
    values = joint - weights.log()
    exact_elbo = float((weights * values).sum())
    deviation = float((weights * (values - exact_elbo) ** 2).sum().sqrt())
    assert -many.own[0] == pytest.approx(exact_elbo, abs=4 * deviation / math.sqrt(2000))
    assert exact_elbo < marginal
    assert plain < marginal  # <act> everywhere is one term of the sum
    assert -many.plain[0] == pytest.approx(plain, abs=1e-4)
    assert many.tokens[0] == len(snippet.ids) - 1
    assert few.thoughts.sum() > 0


def test_information_gain_is_with_minus_without_this_thought_only(world: Any) -> None:
    pi, q, snippet = world
    grammar = q.engine.grammar
    thought = [int(grammar.open_ids()[0]), int(grammar.inside.nonzero()[0]), grammar.newline_id]
    both = snippet.weave({0: thought, 2: thought})
    gains = thought_gains(pi.model, [snippet, both])
    assert [(gain.snippet, gain.line, gain.lines) for gain in gains] == [(1, 0, 2), (1, 2, 1)]

    def lines(trajectory: Trajectory) -> np.ndarray:
        return line_logps(trajectory, pi.score([trajectory])[0])

    with_both = lines(both)
    assert gains[0].nats == pytest.approx((with_both - lines(snippet.weave({2: thought})))[:2].sum(), abs=1e-4)
    assert gains[1].nats == pytest.approx((with_both - lines(snippet.weave({0: thought})))[2:].sum(), abs=1e-4)
    assert gains[0].tokens == sum(len(snippet.line_ids(t)) for t in (0, 1))


def test_noise_floor_is_the_largest_difference_between_batch_shapes(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pi, q, snippet = world
    (rows,) = q.draw([snippet], 4, seed=5)
    assert noise_floor(pi.model, rows, "line_sum") < 1e-4

    def noisy(model: Any, trajectories: Sequence[Trajectory], tokens_per_forward: int = 0) -> list[np.ndarray]:
        noise = 0.01 if len(trajectories) > 1 else 0.0
        return [np.full(len(t.ids) - 1, -1.0 - noise) for t in trajectories]

    monkeypatch.setattr("ra3kit.abstraction.learner.score", noisy)
    longest = max(len(snippet.line_ids(t)) for t in range(3))
    assert noise_floor(pi.model, rows, "line_sum") == pytest.approx(0.01 * longest)
    assert noise_floor(pi.model, rows, "token_mean") == pytest.approx(0.01)


def test_paired_difference_covers_the_mean_and_shrinks_with_agreement() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 200, 200)
    b = tokens * rng.normal(2.0, 0.3, 200)
    gap = paired_difference(b - 0.1 * tokens, b, tokens)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((-0.1, -0.1, -0.1))
    noisy = paired_difference(b + tokens * rng.normal(0, 0.3, 200), b, tokens)
    assert noisy.low < 0 < noisy.high


def test_learner_alone_fits_and_refuses_to_start_unbound(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="bind"):
        AbstractionLearner(rollouts=2, scale="line_sum").configure_optimizers()
    learner = AbstractionLearner(
        rollouts=4, scale="line_sum", kl_coef=0.1, entropy_coef=0.01, optimization=Optimization(lr=1e-3, warmup=0.0)
    )
    q = CausalPosterior(max_length=4, slots=16, capacity=400)
    learner.bind(policy(think=4.0), q, FixedPenalty(0.5, "line_sum"))
    before = {name: value.clone() for name, value in q.model.state_dict().items()}
    datamodule = data(corpus(tmp_path / "corpus"), tokenizer=TinyTokenizer())
    datamodule.set_phase("e", steps=3)
    trainer = fit(tmp_path, learner, datamodule, limit_val_batches=0)
    assert trainer.global_step == 3
    metrics = trainer.callback_metrics
    assert metrics["estep/kl"] > 0
    assert metrics["estep/entropy"] > 0
    assert metrics["estep/logp_gap_max"] < 1e-3
    assert any(not torch.equal(value, before[name]) for name, value in q.model.state_dict().items())
