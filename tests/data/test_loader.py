from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ra3kit.data.loader import Phase, PhaseLoader, by_count, by_tokens, share
from ra3kit.data.packing import StepBatch
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError

SIZES = np.random.default_rng(0).integers(1, 20, size=57).tolist()
EXPERT = [Trajectory.from_lines(f"s{i}", [[10, 11, 12]] * n, [True] * n, 1, 2) for i, n in enumerate(SIZES)]
WOVEN = [t.weave({i: [90, 91] for i in range(0, len(t.lines), 2)}) for t in EXPERT]


def names(batch: StepBatch | list[Trajectory]) -> list[str]:
    return [t.snippet_id for t in (batch if isinstance(batch, list) else batch.trajectories)]


def epoch(loader: PhaseLoader) -> list[list[str]]:
    return [names(batch) for batch in loader]


def make(phase: Phase = "ntp", data: list[Trajectory] = EXPERT, **options: int | None) -> PhaseLoader:
    size = 8 if phase in ("e", "val") else 200
    return PhaseLoader(data, phase, **{"size": size, "tokens_per_forward": 100, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["ntp", "warmup", "e", "m", "val"])
def test_one_pass_gives_each_snippet_once_and_always_the_same(phase: Phase) -> None:
    data = WOVEN if phase == "m" else EXPERT
    batches = epoch(make(phase, data))
    assert sorted(n for batch in batches for n in batch) == sorted(t.snippet_id for t in data)
    assert len(batches) == len(make(phase, data))
    assert epoch(make(phase, data)) == batches
    loader = make(phase, data)
    assert epoch(loader) == epoch(loader) == batches


def test_order_depends_on_seed_phase_and_epoch() -> None:
    orders = [epoch(make(**options)) for options in ({}, {"seed": 1}, {"epoch": 1}, {"phase": "warmup"})]  # type: ignore[arg-type]
    flat = [[n for batch in order for n in batch] for order in orders]
    assert len({tuple(order) for order in flat}) == 4
    assert [n for batch in epoch(make("val", seed=3)) for n in batch] == [t.snippet_id for t in EXPERT]


def test_steps_are_of_about_the_size_asked_for() -> None:
    tokens = sum(len(t.ids) for t in EXPERT)
    longest = max(len(t.ids) for t in EXPERT)
    for seed in range(5):
        steps = [sum(len(t.ids) for t in batch.trajectories) for batch in make(seed=seed)]  # type: ignore[union-attr]
        assert len(steps) == -(-tokens // 200)  # whatever the order
        assert all(abs(step - tokens / len(steps)) <= longest for step in steps)
    assert [len(batch) for batch in epoch(make("e"))] == [8] * 7 + [1]


def test_training_ids_are_those_of_the_trajectories() -> None:
    """Phase ntp trains on the expert ids; phase m on the woven ones, and its control on the very same expert ids."""
    expert = {t.snippet_id: t.ids.tolist() for t in EXPERT}
    for batch in make("ntp"):
        assert isinstance(batch, StepBatch)
        ids = [i for row in batch.micro for i in row.ids.tolist()]
        assert ids == [i for name in names(batch) for i in expert[name]]
        assert batch.plain == []
    woven = {t.snippet_id: t.ids.tolist() for t in WOVEN}
    seen = 0
    for batch in make("m", WOVEN):
        assert isinstance(batch, StepBatch)
        assert [i for row in batch.micro for i in row.ids.tolist()] == [i for n in names(batch) for i in woven[n]]
        assert [i for row in batch.plain for i in row.ids.tolist()] == [i for n in names(batch) for i in expert[n]]
        assert batch.code_tokens == sum(int((row.kinds == 1).sum()) for row in batch.plain)
        assert batch.trained_tokens == batch.world_trained_tokens > batch.world_plain_tokens
        seen += len(names(batch))
    assert seen == len(WOVEN)


def test_ntp_and_m_have_the_same_number_of_steps() -> None:
    assert len(make("m", WOVEN)) == len(make("ntp")) == len(make("m", WOVEN, seed=7, epoch=3))


@pytest.mark.parametrize("phase", ["ntp", "e"])
def test_a_loader_that_is_kept_goes_on_like_one_made_for_the_epoch(phase: Phase) -> None:
    """Lightning keeps a loader over epochs, a resumed run makes a new one: the order must be the same."""
    kept = make(phase)
    epoch(kept)
    kept.sampler.set_epoch(0)
    assert kept.position == len(kept)  # the running epoch is left alone
    kept.sampler.set_epoch(3)
    assert kept.position == 0
    assert epoch(kept) == epoch(make(phase, epoch=3)) != epoch(make(phase))


def test_steps_cap_and_repeat() -> None:
    once = epoch(make())
    assert epoch(make(steps=3)) == once[:3]
    many = epoch(make(steps=2 * len(once) + 1))
    assert len(many) == 2 * len(once) + 1
    assert many[: len(once)] == once
    second = many[len(once) : 2 * len(once)]
    assert sorted(n for b in second for n in b) == sorted(n for b in once for n in b)
    assert second != once


@pytest.mark.parametrize("phase", ["ntp", "e", "m", "val"])
@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_share_each_step(phase: Phase, world: int) -> None:
    data = WOVEN if phase == "m" else EXPERT
    alone = epoch(make(phase, data))
    loaders = [make(phase, data, rank=rank, world=world) for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    ranks = [epoch(loader) for loader in loaders]
    assert all(names_ for rank in ranks for names_ in rank)  # no rank is ever without work
    together = [sorted(n for rank in ranks for n in rank[step]) for step in range(len(loaders[0]))]
    assert sorted(n for step in together for n in step) == sorted(t.snippet_id for t in data)
    if len(alone) == len(together) and phase not in ("e", "val"):
        assert together == [sorted(step) for step in alone]  # the same steps, whatever the number of ranks


def test_world_counts_are_those_of_all_ranks() -> None:
    ranks = [list(make("m", WOVEN, rank=rank, world=3)) for rank in range(3)]
    for step in zip(*ranks, strict=True):
        assert {b.world_trained_tokens for b in step} == {sum(b.trained_tokens for b in step)}  # type: ignore[union-attr]
        assert {b.world_rows for b in step} == {max(len(b.micro) for b in step)}  # type: ignore[union-attr]
        assert {b.world_plain_rows for b in step} == {max(len(b.plain) for b in step)}  # type: ignore[union-attr]
        plain = sum(row.trained_tokens for b in step for row in b.plain)  # type: ignore[union-attr]
        assert {b.world_plain_tokens for b in step} == {plain}  # type: ignore[union-attr]
        tokens = [b.trained_tokens for b in step]  # type: ignore[union-attr]
        assert max(tokens) - min(tokens) <= max(len(t.ids) for t in WOVEN)


@pytest.mark.parametrize("phase", ["ntp", "e"])
def test_resume_in_the_middle(phase: Phase) -> None:
    whole = epoch(make(phase))
    for stop in (0, 1, 4, len(whole)):
        loader = make(phase)
        batches = iter(loader)
        before = [names(next(batches)) for _ in range(stop)]
        state = json.loads(json.dumps(loader.state_dict()))
        assert state["position"] == stop
        again = make(phase)
        again.load_state_dict(state)
        assert again.state_dict() == loader.state_dict()
        assert before + epoch(again) == whole
        assert len(again) == len(whole)
        assert epoch(again) == whole  # only the first iteration is the rest


def test_state_of_another_epoch_starts_anew_and_other_data_is_refused() -> None:
    loader = make()
    batches = iter(loader)
    next(batches)
    other = make(epoch=1)
    other.load_state_dict(loader.state_dict())
    assert other.position == 0
    for changed in (make(seed=1), make(size=100), make(data=EXPERT[:50])):
        with pytest.raises(DataError, match="cannot resume"):
            changed.load_state_dict(loader.state_dict())


def test_too_little_data_for_the_ranks() -> None:
    with pytest.raises(DataError, match="1 snippets cannot be shared by 2"):
        make(data=EXPERT[:1], world=2)
    with pytest.raises(DataError, match="a step of 2 cannot be shared by 3"):
        make("e", size=2, world=3)
    with pytest.raises(DataError, match="0 snippets"):
        make(data=[])


lengths = st.lists(st.integers(2, 40), min_size=1, max_size=60)


@given(lengths, st.integers(1, 100), st.integers(1, 5))
def test_planning_leaves_nothing_out(tokens: list[int], size: int, world: int) -> None:
    if len(tokens) < world:
        return
    weights = np.array(tokens)
    order = np.random.default_rng(len(tokens)).permutation(len(tokens))
    for steps in (by_tokens(order, weights, size, world), by_count(order, max(size, world), world)):
        assert [i for step in steps for i in step] == order.tolist()
        assert all(len(step) >= world for step in steps)
        for step in steps:
            parts = share(step, weights, world)
            assert sorted(i for part in parts for i in part) == sorted(step)
            assert all(parts)
    assert len(by_tokens(order, weights, size, world)) == len(by_tokens(order[::-1], weights, size, world))
