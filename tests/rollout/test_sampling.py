"""Uniforms and draws: their distribution, their log-probabilities, and what they do not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ra3kit.latents import ACT, LatentGrammar, Place
from ra3kit.rollout.sampling import Sampler, stream_key, uniforms

END, HASH, DOUBLE, RED, BLUE, NEWLINE, COLON_NEWLINE, BLANK = range(8)


def marks(*ids: int) -> torch.Tensor:
    out = torch.zeros(8, dtype=torch.bool)
    out[list(ids)] = True
    return out


GRAMMAR = LatentGrammar(
    opens=marks(HASH, DOUBLE),
    inside=marks(HASH, DOUBLE, RED, BLUE),
    ends=marks(NEWLINE, COLON_NEWLINE),
    newline_id=NEWLINE,
)
LOGITS = torch.tensor([0.3, 1.0, -0.5, 0.8, 0.0, 0.4, -1.0, 0.7])
P = LOGITS.double().softmax(0).numpy()
DRAWS = 40_000


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """The statistic in standard deviations above its mean (k - 1, variance 2(k - 1)); beyond 4 is one in 10^4."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def stream(n: int, seed: int = 0) -> np.ndarray:
    return uniforms(np.full(n, stream_key(seed, "s", 0), np.uint64), np.arange(n, dtype=np.uint64))


def test_uniforms_are_uniform_within_and_across_streams() -> None:
    keys = np.array([stream_key(0, f"s{i}", 0) for i in range(20_000)], np.uint64)
    for u in (stream(20_000), uniforms(keys, np.zeros(20_000, np.uint64)), stream(20_000, seed=1)):
        assert 0 < u.min() < u.max() < 1
        assert chi_square(np.histogram(u, 64, (0, 1))[0], np.full(64, 20_000 / 64)) < 4
    by_line = uniforms(keys[:1].repeat(4000), (np.arange(4000) << 20).astype(np.uint64))
    pairs = np.histogram2d(by_line[:-1], by_line[1:], 5, [[0, 1], [0, 1]])[0].ravel()
    assert chi_square(pairs, np.full(25, 3999 / 25)) < 4


def test_uniforms_never_reach_0_or_1() -> None:
    """The largest and the smallest 52 bits a hash can give."""
    for mixed in (np.uint64(0), np.uint64(2**64 - 1)):
        u = ((mixed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        assert 0 < u < 1


def test_a_uniform_depends_on_its_key_and_counter_alone() -> None:
    keys = np.array([stream_key(3, name, i) for name in "abc" for i in range(2)], np.uint64)
    together = uniforms(keys, np.arange(6, dtype=np.uint64))
    for i in range(6):
        assert uniforms(keys[i : i + 1], np.array([i], np.uint64))[0] == together[i]
    assert len(set(keys.tolist())) == 6
    assert stream_key(1, "a", 2) != stream_key(1, "a2", 0) != stream_key(12, "a", 0)


def expectation(place: Place) -> dict[int, float]:
    """Outcome -> probability at a place, by hand."""
    if place == Place.DECIDE:
        return {ACT: float(1 - P[HASH] - P[DOUBLE]), HASH: float(P[HASH]), DOUBLE: float(P[DOUBLE])}
    allowed = {
        Place.OPEN: [HASH, DOUBLE],
        Place.SECOND: [HASH, DOUBLE, RED, BLUE],
        Place.INSIDE: [HASH, DOUBLE, RED, BLUE, NEWLINE, COLON_NEWLINE],
        Place.LAST: [NEWLINE, COLON_NEWLINE],
        Place.FREE: list(range(8)),
    }[place]
    return {i: float(P[i] / P[allowed].sum()) for i in allowed}


@pytest.mark.parametrize("place", list(Place), ids=lambda place: place.name)
def test_draws_follow_the_distribution(place: Place) -> None:
    expected = expectation(place)
    draws = Sampler(GRAMMAR).draw(LOGITS.expand(DRAWS, -1), [place] * DRAWS, stream(DRAWS))
    assert set(draws.tokens) == set(expected)
    counts = np.array([draws.tokens.count(token) for token in expected])
    assert abs(chi_square(counts, DRAWS * np.array(list(expected.values())))) < 4
    for token, log_q, raw, think in list(zip(draws.tokens, draws.log_q, draws.raw, draws.think, strict=True))[:200]:
        assert log_q == pytest.approx(np.log(expected[token]), abs=1e-6)
        assert raw == pytest.approx(0.0 if token == ACT else np.log(P[token]), abs=1e-6)
        if place == Place.DECIDE:
            assert think == pytest.approx(P[HASH] + P[DOUBLE], abs=1e-6)
        else:
            assert np.isnan(think)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 1.0), (2.0, 1.0), (1.0, 0.6), (0.5, 0.9)])
def test_free_draws_follow_temperature_and_nucleus(temperature: float, top_p: float) -> None:
    p = P ** (1 / temperature) / (P ** (1 / temperature)).sum()
    order = np.argsort(-p)
    kept = order[: int(np.searchsorted(p[order].cumsum(), top_p)) + 1]
    draws = Sampler(GRAMMAR, temperature, top_p).draw(LOGITS.expand(DRAWS, -1), [Place.FREE] * DRAWS, stream(DRAWS))
    assert set(draws.tokens) == set(kept.tolist())
    expected = p[kept] / p[kept].sum()
    counts = np.array([draws.tokens.count(token) for token in kept])
    assert abs(chi_square(counts, DRAWS * expected)) < 4
    for token, log_q, raw in list(zip(draws.tokens, draws.log_q, draws.raw, strict=True))[:100]:
        assert log_q == pytest.approx(np.log(expected[kept.tolist().index(token)]), abs=1e-6)
        assert raw == pytest.approx(np.log(P[token]), abs=1e-6)


def test_temperature_does_not_touch_latents() -> None:
    places = [Place.DECIDE, Place.SECOND, Place.INSIDE] * 50
    logits = torch.randn(150, 8, generator=torch.Generator().manual_seed(0))
    plain = Sampler(GRAMMAR).draw(logits, places, stream(150))
    assert Sampler(GRAMMAR, temperature=0.3, top_p=0.5).draw(logits, places, stream(150)).tokens == plain.tokens


def test_temperature_zero_takes_the_most_probable() -> None:
    logits = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    draws = Sampler(GRAMMAR, temperature=0.0).draw(logits, [Place.FREE] * 20, stream(20))
    assert draws.tokens == logits.argmax(-1).tolist()
    assert draws.log_q == [0.0] * 20


def test_mixed_places_equal_one_at_a_time() -> None:
    logits = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    places = [Place(i % 6) for i in range(60)]
    u = stream(60)
    together = Sampler(GRAMMAR).draw(logits, places, u)
    for i in range(60):
        alone = Sampler(GRAMMAR).draw(logits[i : i + 1], [places[i]], u[i : i + 1])
        assert alone.tokens[0] == together.tokens[i]
        assert alone.log_q[0] == pytest.approx(together.log_q[i], abs=1e-6)


@pytest.mark.parametrize("size", [-60.0, 60.0])
def test_certain_decisions(size: float) -> None:
    """q(think) at the ends of float64: the other outcome never comes up and nothing is nan."""
    logits = torch.zeros(2000, 8)
    logits[:, HASH] = size
    draws = Sampler(GRAMMAR).draw(logits, [Place.DECIDE] * 2000, stream(2000))
    assert np.isfinite(draws.log_q).all()
    counts = {token: draws.tokens.count(token) for token in set(draws.tokens)}
    assert counts == {HASH: 2000} if size > 0 else set(counts) == {ACT, DOUBLE}
