"""The engine against plain transformers, and against itself under every batch shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3kit.errors import RolloutError
from ra3kit.latents import ThoughtRules
from ra3kit.policy import score
from ra3kit.rollout import Engine, Rollout, line_logps
from ra3kit.rollout.forward import head_logits
from ra3kit.testing.models import tiny_model, tiny_tokenizer
from ra3kit.testing.naive import naive_rollout
from ra3kit.testing.thinking import thought_lengths

RULES = ThoughtRules(max_length=7)
TOLERANCE = 1e-5


def flat(rows: Sequence[Sequence[Rollout]]) -> list[Rollout]:
    return [row for group in rows for row in group]


def assert_same(ours: Sequence[Rollout], theirs: Sequence[Rollout], tolerance: float = TOLERANCE) -> None:
    """Tokens identical, every log-probability within the tolerance."""
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a.trajectory.snippet_id == b.trajectory.snippet_id
        assert a.rollout == b.rollout
        assert a.trajectory.ids.tolist() == b.trajectory.ids.tolist()
        assert a.trajectory.thoughts.tolist() == b.trajectory.thoughts.tolist()
        assert a.decided.tolist() == b.decided.tolist()
        np.testing.assert_allclose(a.log_q, b.log_q, atol=tolerance, rtol=0)
        np.testing.assert_allclose(a.think_prob, b.think_prob, atol=tolerance, rtol=0)
        assert (a.token_logp is None) == (b.token_logp is None)
        if a.token_logp is not None and b.token_logp is not None:
            np.testing.assert_allclose(a.token_logp, b.token_logp, atol=tolerance, rtol=0)


def rate_and_lengths(rows: Sequence[Rollout]) -> tuple[float, np.ndarray]:
    lengths = thought_lengths(rows)
    return len(lengths) / sum(int(row.decided.sum()) for row in rows), lengths


def test_the_test_models_think(world: Any) -> None:
    """The comparisons below say something only if `<act>`, short and long thoughts all come up."""
    rate, lengths = rate_and_lengths(flat(world.engine().rollout(world.trajectories, 8, 1, RULES)))
    assert 0.3 < rate < 0.7
    assert set(lengths.tolist()) == {3, 4, 5, 6, 7}


def test_equals_plain_transformers(world: Any) -> None:
    ours = world.engine().rollout(world.trajectories, 4, 3, RULES)
    theirs = naive_rollout(world.reference, world.tokenizer, world.trajectories, 4, 3, RULES, batch=8)
    assert_same(flat(ours), flat(theirs))


@pytest.mark.parametrize(
    "rules",
    [
        ThoughtRules(3),
        ThoughtRules(7, think="always"),
        ThoughtRules(7, think="never"),
        ThoughtRules(7, where="first_line"),
        ThoughtRules(5, think="always", where="first_line"),
    ],
    ids=str,
)
def test_rules_equal_plain_transformers(world: Any, rules: ThoughtRules) -> None:
    ours = flat(world.engine().rollout(world.trajectories, 2, 4, rules))
    assert_same(ours, flat(naive_rollout(world.reference, world.tokenizer, world.trajectories, 2, 4, rules)))
    for row in ours:
        allowed = row.trajectory.may_think
        assert not row.decided[~allowed].any()
        if rules.think == "always" and rules.where == "every_line":
            assert row.trajectory.has_thought().tolist() == allowed.tolist()
        if rules.think == "never":
            assert row.trajectory.ids.tolist() == row.trajectory.without_thoughts().ids.tolist()
            assert not row.log_q.any()
        if rules.where == "first_line":
            assert row.decided.sum() == 1
        if rules.think == "always":
            assert np.isnan(row.think_prob).all()


def test_no_latent_where_the_line_may_have_none(world: Any) -> None:
    ours = flat(world.engine().rollout(world.trajectories, 4, 3, RULES))
    forbidden = [row for row in ours if not row.trajectory.may_think.all()]
    assert forbidden
    for row in forbidden:
        assert row.decided.tolist() == row.trajectory.may_think.tolist()
        assert not row.trajectory.has_thought()[~row.trajectory.may_think].any()
        assert np.isnan(row.think_prob[~row.decided]).all()
        assert not row.log_q[~row.decided].any()


@pytest.mark.parametrize("lookahead", [1, 3, 100])
def test_hindsight_equals_reencoding_prefix_and_peek(world: Any, lookahead: int) -> None:
    ours = flat(world.engine().rollout(world.trajectories, 2, 5, RULES, lookahead))
    theirs = naive_rollout(world.reference, world.tokenizer, world.trajectories, 2, 5, RULES, lookahead=lookahead)
    assert_same(ours, flat(theirs))
    assert {row.token_logp is None for row in ours} == {True}
    causal = flat(world.engine().rollout(world.trajectories, 2, 5, RULES))
    assert any(a.log_q.tolist() != b.log_q.tolist() for a, b in zip(ours, causal, strict=True))


def test_token_logps_equal_a_full_forward(world: Any) -> None:
    rows = flat(world.engine().rollout(world.trajectories, 3, 6, RULES))
    trajectories = [row.trajectory for row in rows]
    packed = score(world.model, trajectories, tokens_per_forward=300)
    alone = [score(world.model, [trajectory])[0] for trajectory in trajectories]
    with torch.inference_mode():
        for row, together, single in zip(rows, packed, alone, strict=True):
            ids = torch.from_numpy(row.trajectory.ids.astype(np.int64))[None]
            logp = world.reference(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
            plain = logp.gather(1, ids[0, 1:, None]).squeeze(1).numpy()
            assert row.token_logp is not None
            for values in (row.token_logp, together, single):
                np.testing.assert_allclose(values, plain, atol=TOLERANCE, rtol=0)
            lines = line_logps(row.trajectory, together)
            by_hand = [plain[a - 1 : b - 1].sum() for a, b in row.trajectory.lines]
            np.testing.assert_allclose(lines, by_hand, atol=1e-4, rtol=0)


def test_think_prob_is_the_mass_of_the_hash_tokens(world: Any) -> None:
    """And log q of an `<act>` is log(1 - mass), of a thought the renormalised probability of its tokens."""
    texts = [world.tokenizer.decode([i]) for i in range(len(world.tokenizer))]
    hashes = [i for i, text in enumerate(texts) if text.startswith("#") and "\n" not in text]
    checked = 0
    for row in flat(world.engine().rollout(world.trajectories, 2, 3, RULES)):
        ids = torch.from_numpy(row.trajectory.ids.astype(np.int64))[None]
        with torch.inference_mode():
            p = world.reference(input_ids=ids, use_cache=False).logits[0].double().softmax(-1)
        for t in np.flatnonzero(row.decided):
            before = row.trajectory.lines[t, 0] - len(row.trajectory.thought_ids(int(t))) - 1
            mass = float(p[before, hashes].sum())
            assert row.think_prob[t] == pytest.approx(mass, abs=TOLERANCE)
            if not row.trajectory.has_thought()[t]:
                assert row.log_q[t] == pytest.approx(np.log1p(-mass), abs=TOLERANCE)
                checked += 1
    assert checked > 10


SHAPES: list[dict[str, Any]] = [
    {"slots": 1},
    {"slots": 3},
    {"slots": 64},
    {"slots": 64, "call_tokens": 20},
    {"slots": 5, "call_tokens": 1},
    {"slots": 3, "padded_chunks": True},
    {"slots": 64, "padded_chunks": True},
    {"slots": 64, "padded_chunks": True, "call_tokens": 30},
    {"slots": 8, "capacity": 512},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("lookahead", [0, 2])
def test_any_batch_shape_gives_the_same(qwen: Any, shape: dict[str, Any], lookahead: int) -> None:
    expected = qwen.engine().rollout(qwen.trajectories, 3, 8, RULES, lookahead)
    got = qwen.engine(**shape).rollout(qwen.trajectories, 3, 8, RULES, lookahead)
    assert_same(flat(got), flat(expected))


def test_one_engine_used_again_gives_the_same(qwen: Any) -> None:
    """The cache is kept between calls; what lies in it from earlier, also longer, rows must not show."""
    engine = qwen.engine(slots=4)
    short, whole = qwen.trajectories[3:4], qwen.trajectories
    expected = [flat(qwen.engine(slots=4).rollout(part, 4, 9, RULES)) for part in (short, whole)]
    for _ in range(2):
        assert_same(flat(engine.rollout(whole, 4, 9, RULES)), expected[1])
        assert_same(flat(engine.rollout(short, 4, 9, RULES)), expected[0])
    engine.free()
    assert_same(flat(engine.rollout(whole, 4, 9, RULES)), expected[1])


def test_batch_composition_does_not_matter(qwen: Any) -> None:
    engine = qwen.engine(slots=5)
    expected = engine.rollout(qwen.trajectories, 3, 10, RULES)
    order = [4, 0, 5, 2, 1, 3]
    shuffled = engine.rollout([qwen.trajectories[i] for i in order], 3, 10, RULES)
    for place, index in enumerate(order):
        assert_same(shuffled[place], expected[index])
    for index, trajectory in enumerate(qwen.trajectories):
        assert_same(flat(engine.rollout([trajectory], 3, 10, RULES)), expected[index])
    fewer = engine.rollout(qwen.trajectories, 1, 10, RULES)
    assert_same(flat(fewer), [rows[0] for rows in expected])


def test_seed_rollout_and_snippet_change_the_draws(qwen: Any) -> None:
    engine = qwen.engine()
    one, two = engine.rollout(qwen.trajectories[:1], 2, 11, RULES)[0]
    [[other_seed]] = engine.rollout(qwen.trajectories[:1], 1, 12, RULES)
    [[other_name]] = engine.rollout([replace(qwen.trajectories[0], snippet_id="renamed")], 1, 11, RULES)
    texts = {tuple(row.trajectory.ids) for row in (one, two, other_seed, other_name)}
    assert len(texts) == 4


def test_results_arrive_once_each(qwen: Any) -> None:
    seen: list[tuple[int, int]] = []
    engine = qwen.engine(slots=3)
    rows = engine.rollout(qwen.trajectories, 2, 1, RULES, on_done=lambda i, row: seen.append((i, row.rollout)))
    assert sorted(seen) == [(i, j) for i in range(len(qwen.trajectories)) for j in range(2)]
    assert [row.rollout for row in flat(rows)] == [0, 1] * len(qwen.trajectories)
    assert [rows[i][0].trajectory.snippet_id for i in range(6)] == [t.snippet_id for t in qwen.trajectories]
    fed = sum(len(row.trajectory.ids) - 1 for row in flat(rows))  # the end token is scored, not fed
    assert engine.stats.tokens == fed
    assert 0 < engine.stats.occupancy <= 1


@pytest.mark.parametrize("lookahead", [0, 2])
def test_short_of_room_thoughts_are_withheld_and_the_rest_stays_exact(world: Any, lookahead: int) -> None:
    trajectory = world.trajectories[0]  # a thought may stand before each of its lines
    capacity = len(trajectory.ids) + 12
    rows = flat(world.engine(capacity=capacity).rollout([trajectory], 6, 13, RULES, lookahead))
    assert sum(row.withheld for row in rows) > 0
    assert any(row.decided.any() for row in rows)
    for row in rows:
        assert row.withheld == int((trajectory.may_think & ~row.decided).sum())
        assert len(row.trajectory.ids) <= capacity
        assert row.trajectory.without_thoughts().ids.tolist() == trajectory.ids.tolist()
        masked = replace(trajectory, may_think=row.decided)
        theirs = flat(naive_rollout(world.reference, world.tokenizer, [masked], 6, 13, RULES, lookahead=lookahead))
        assert_same([row], [theirs[row.rollout]])


def test_a_snippet_longer_than_a_slot_is_an_error(qwen: Any) -> None:
    long = max(qwen.trajectories, key=lambda t: len(t.ids))
    engine = qwen.engine(capacity=len(long.ids) - 1)
    with pytest.raises(RolloutError, match=rf"{long.snippet_id}.*{len(long.ids)} tokens.*capacity"):
        engine.rollout(qwen.trajectories, 1, 0, RULES)
    just = qwen.engine(capacity=len(long.ids))
    [[row]] = just.rollout([long], 1, 0, RULES)
    assert row.trajectory.ids.tolist() == long.ids.tolist()


def test_bad_sizes_are_errors(qwen: Any) -> None:
    with pytest.raises(RolloutError, match="slots=0"):
        qwen.engine(slots=0)
    with pytest.raises(RolloutError, match=r"capacity=513.*512"):
        qwen.engine(capacity=513)


def test_nothing_to_do(qwen: Any) -> None:
    assert qwen.engine().rollout([], 4, 0, RULES) == []


def test_no_key_of_old_weights_is_used() -> None:
    tokenizer = tiny_tokenizer()
    settings: dict[str, Any] = {"vocab_size": len(tokenizer), "scale": 8.0, "tie_word_embeddings": False}
    model, other = tiny_model(**settings), tiny_model(**settings, seed=1)
    trajectory = _one_line(tokenizer)
    engine = Engine(model, tokenizer, slots=2, capacity=64)
    always = ThoughtRules(6, think="always")
    before = flat(engine.rollout([trajectory], 4, 0, always))
    model.load_state_dict(other.state_dict())
    after = flat(engine.rollout([trajectory], 4, 0, always))
    assert_same(after, flat(Engine(other, tokenizer, slots=2, capacity=64).rollout([trajectory], 4, 0, always)))
    assert before[0].token_logp is not None
    assert not np.allclose(before[0].token_logp[:3], np.asarray(after[0].token_logp)[:3], atol=1e-2)


def test_training_mode_is_put_back_and_dropout_is_off(qwen: Any) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(len(tokenizer), attention_dropout=0.5).train()
    engine = Engine(model, tokenizer, capacity=64)
    one, two = (flat(engine.rollout([_one_line(tokenizer)], 2, 0, RULES)) for _ in range(2))
    assert_same(one, two, tolerance=0)
    assert model.training


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), max_length=st.integers(3, 9))
def test_every_thought_is_one_comment_line(qwen: Any, seed: int, max_length: int) -> None:
    rules = ThoughtRules(max_length, think="always")
    for row in flat(qwen.engine().rollout(qwen.trajectories, 2, seed, rules)):
        row.trajectory.check()
        assert np.isfinite(row.log_q).all()
        assert row.trajectory.without_thoughts().ids.tolist() == _plain(qwen, row).tolist()
        for start, end in row.trajectory.thoughts:
            text = qwen.tokenizer.decode(row.trajectory.ids[start:end].tolist())
            assert text.startswith("#")
            assert text.endswith("\n")
            assert text.count("\n") == 1
            assert "\r" not in text
            assert 3 <= end - start <= max_length


@pytest.mark.parametrize("padded", [False, True], ids=["rows", "padded"])
def test_bfloat16_runs_with_a_float32_head(qwen: Any, padded: bool) -> None:
    model = tiny_model(qwen.model.config.vocab_size, scale=8.0, tie_word_embeddings=False).bfloat16()
    engine = Engine(model, qwen.tokenizer, slots=4, capacity=192, padded_chunks=padded)
    rules = ThoughtRules(6, think="always")
    rows = flat(engine.rollout(qwen.trajectories, 2, 0, rules))
    scored = score(model, [row.trajectory for row in rows])
    for row, values in zip(rows, scored, strict=True):
        assert row.token_logp is not None
        np.testing.assert_allclose(row.token_logp, values, atol=0.2, rtol=0)
    logps = np.concatenate([row.token_logp for row in rows if row.token_logp is not None]).astype(np.float32)
    assert len(np.unique(logps)) > 0.5 * len(logps)  # bfloat16 has 8 bits: values near -6 would be 1/32 apart
    hidden = torch.randn(7, 32).to(torch.bfloat16)
    logits = head_logits(model, hidden)
    assert logits.dtype == torch.float32
    exact = hidden.double() @ model.get_output_embeddings().weight.double().T
    assert float((logits - exact).abs().max().detach()) < 1e-5


@pytest.mark.parametrize("padded", [False, True], ids=["rows", "padded"])
def test_autocast_runs_and_agrees_with_scoring(qwen: Any, padded: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rows = flat(qwen.engine(padded_chunks=padded).rollout(qwen.trajectories, 2, 0, RULES))
        scored = score(qwen.model, [row.trajectory for row in rows])
    for row, values in zip(rows, scored, strict=True):
        assert row.token_logp is not None
        np.testing.assert_allclose(row.token_logp, values, atol=0.2, rtol=0)


def _one_line(tokenizer: Any) -> Any:
    from ra3kit.actions import PythonLines
    from ra3kit.data.encode import trajectory_from_text

    return trajectory_from_text(tokenizer, "one", "print(self)\nresult = 1\n", PythonLines())


def _plain(world: Any, row: Rollout) -> np.ndarray:
    return next(t.ids for t in world.trajectories if t.snippet_id == row.trajectory.snippet_id)
