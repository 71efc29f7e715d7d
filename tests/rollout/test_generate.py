"""Free generation: stop strings, temperature, top-p, greedy against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ra3kit.errors import RolloutError
from ra3kit.rollout import Completion

PROMPTS = ["def total(values):\n", "import os\n", "x", "class Stack:\n    def pop(self):\n        return "]


@pytest.fixture
def prompts(world: Any) -> list[list[int]]:
    start = [world.tokenizer.bos_token_id] if world.tokenizer.bos_token_id is not None else []
    return [[*start, *world.tokenizer.encode(text, add_special_tokens=False)] for text in PROMPTS]


def logps_after(world: Any, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """[tokens, v] float64 log-softmax at the place of every sampled token."""
    with torch.inference_mode():
        logits = world.reference(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0].double()
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


def test_greedy_equals_transformers(world: Any, prompts: list[list[int]]) -> None:
    rows = world.engine(slots=3).generate(prompts, n=1, temperature=0.0, max_new_tokens=24)
    for prompt, [row] in zip(prompts, rows, strict=True):
        out = world.reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            use_cache=True,
            max_new_tokens=24,
            eos_token_id=world.tokenizer.eos_token_id,
            pad_token_id=0,
        )
        assert row.ids == out[0, len(prompt) :].tolist()
        assert row.finish == ("end" if row.ids[-1] == world.tokenizer.eos_token_id else "length")
        assert row.log_q == [0.0] * len(row.ids)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.7, 1.0), (1.0, 0.8), (0.7, 0.5)])
def test_log_q_is_that_of_the_sampling_distribution(
    world: Any, prompts: list[list[int]], temperature: float, top_p: float
) -> None:
    rows = world.engine().generate(prompts, n=3, seed=2, max_new_tokens=12, temperature=temperature, top_p=top_p)
    for prompt, samples in zip(prompts, rows, strict=True):
        for row in samples:
            logp = logps_after(world, prompt, row.ids)
            chosen = torch.tensor(row.ids)[:, None]
            np.testing.assert_allclose(row.raw, logp.gather(1, chosen).squeeze(1), atol=1e-5, rtol=0)
            p = (logp / temperature).softmax(-1).numpy()
            for token, log_q, probabilities in zip(row.ids, row.log_q, p, strict=True):
                order = np.argsort(-probabilities, kind="stable")
                kept = order[: int(np.searchsorted(probabilities[order].cumsum(), top_p)) + 1]
                assert token in kept
                mass = probabilities[kept].sum()
                assert log_q == pytest.approx(np.log(probabilities[token] / mass), abs=2e-5)


def test_samples_do_not_depend_on_the_other_prompts(world: Any, prompts: list[list[int]]) -> None:
    settings: dict[str, Any] = {"n": 3, "seed": 5, "max_new_tokens": 10}
    expected = world.engine(slots=8).generate(prompts, names=["a", "b", "c", "d"], **settings)
    reordered = world.engine(slots=2, call_tokens=9).generate(prompts[::-1], names=["d", "c", "b", "a"], **settings)
    padded = world.engine(slots=5, padded_chunks=True).generate(prompts, names=["a", "b", "c", "d"], **settings)
    alone = [world.engine().generate([p], names=[name], **settings)[0] for p, name in zip(prompts, "abcd", strict=True)]
    for other in (reordered[::-1], padded, alone):
        assert [[row.ids for row in rows] for rows in other] == [[row.ids for row in rows] for rows in expected]
        for ours, theirs in zip(_flat(other), _flat(expected), strict=True):
            np.testing.assert_allclose(ours.log_q, theirs.log_q, atol=1e-5, rtol=0)
    assert len({tuple(row.ids) for rows in expected for row in rows}) == 12  # samples of one prompt differ
    fewer = world.engine().generate(prompts, names=["a", "b", "c", "d"], n=1, seed=5, max_new_tokens=10)
    assert [rows[0].ids for rows in fewer] == [rows[0].ids for rows in expected]


@pytest.mark.parametrize("slots", [1, 3, 32])
def test_a_prompt_is_fed_once_for_all_its_samples(world: Any, prompts: list[list[int]], slots: int) -> None:
    """Each sample feeds the prompt's last token and its own but the last; what was before is copied."""
    engine = world.engine(slots=slots)
    rows = engine.generate(prompts, n=6, seed=5, max_new_tokens=7)
    sampled = sum(len(row.ids) for row in _flat(rows))
    assert engine.stats.tokens == sum(len(prompt) - 1 for prompt in prompts) + sampled


def test_the_end_token_ends_a_sample(world: Any, prompts: list[list[int]]) -> None:
    end = world.tokenizer.eos_token_id
    bias = world.model.lm_head.bias
    before = bias[end].item()
    bias[end] = before + 4.0
    try:
        rows = _flat(world.engine().generate(prompts, n=8, seed=1, max_new_tokens=30))
    finally:
        bias[end] = before
    ended = [row for row in rows if row.finish == "end"]
    assert ended
    for row in rows:
        assert (row.ids[-1] == end) == (row.finish == "end")
        assert end not in row.ids[:-1]
        assert len(row.ids) == len(row.log_q) == len(row.raw) <= 30
    for row in ended:
        assert row.text == world.tokenizer.decode(row.ids[:-1], skip_special_tokens=True)


def test_a_stop_string_cuts_the_text_also_across_tokens(world: Any, prompts: list[list[int]]) -> None:
    free = _flat(world.engine().generate(prompts, n=4, seed=3, max_new_tokens=16))
    row = free[0]
    pieces = [world.tokenizer.decode([i]) for i in row.ids]
    ascii_at = next(i for i in range(2, 15) if all(p and p.isascii() for p in pieces[i : i + 2]))
    stop = pieces[ascii_at] + pieces[ascii_at + 1][:1]  # ends within the second of two tokens
    assert stop not in pieces
    stopped = _flat(world.engine().generate(prompts, n=4, seed=3, max_new_tokens=16, stop=["never to be seen", stop]))
    assert stopped[0].finish == "stop"
    for with_stop, without in zip(stopped, free, strict=True):
        assert with_stop.ids == without.ids[: len(with_stop.ids)]
        cut = without.text.find(stop)
        if cut < 0:
            assert (with_stop.ids, with_stop.text, with_stop.finish) == (without.ids, without.text, without.finish)
        else:
            assert with_stop.finish == "stop"
            assert with_stop.text == without.text[:cut]
            before = world.tokenizer.decode(with_stop.ids[:-1])
            assert stop not in before  # it stopped with the token that completed the string, not later
            assert stop in world.tokenizer.decode(with_stop.ids)


def test_the_first_of_several_stop_strings_cuts(qwen: Any) -> None:
    """Also where one token completes both."""
    prompt = qwen.tokenizer.encode("x = ")
    settings: dict[str, Any] = {"n": 40, "seed": 4, "max_new_tokens": 12, "temperature": 3.0}
    [free] = qwen.engine().generate([prompt], **settings)
    checked = 0
    for i, row in enumerate(free):
        pieces = [qwen.tokenizer.decode([token], skip_special_tokens=True) for token in row.ids]
        at = next((j for j, piece in enumerate(pieces) if len(piece) > 2 and piece.isascii()), None)
        if at is None or pieces[at][1:] in "".join(pieces[:at]):
            continue
        late, early = pieces[at][1:], pieces[at]
        [stopped] = qwen.engine().generate([prompt], **settings, stop=[late, early])
        grown = (qwen.tokenizer.decode(row.ids[: n + 1], skip_special_tokens=True) for n in range(len(row.ids)))
        first = next(text for text in grown if late in text)
        assert stopped[i].text == first[: min(first.find(stop) for stop in (late, early) if stop in first)]
        assert stopped[i].finish == "stop"
        checked += 1
        if checked == 5:
            return
    pytest.fail(f"only {checked} of the samples have such a token")


def test_a_sample_cut_within_a_character_is_still_text(qwen: Any) -> None:
    prompt = qwen.tokenizer.encode("x = ")
    rows = _flat(qwen.engine().generate([prompt], n=64, seed=0, max_new_tokens=1, temperature=9.0))
    assert all(len(row.ids) == 1 and row.finish in ("length", "end") for row in rows)
    assert any(row.text == "�" for row in rows)  # lone bytes of longer characters are tokens too


def test_what_cannot_be_served_is_an_error(qwen: Any) -> None:
    engine = qwen.engine(capacity=64)
    with pytest.raises(RolloutError, match="prompt 1: 0 tokens"):
        engine.generate([[1, 2], []], max_new_tokens=4)
    with pytest.raises(RolloutError, match=r"prompt 0: 60 tokens.*capacity=64"):
        engine.generate([[1] * 60], max_new_tokens=5)
    for bad in ({"max_new_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(RolloutError, match=next(iter(bad))):
            engine.generate([[1]], **{"max_new_tokens": 4, **bad})
    [[full]] = engine.generate([[1] * 60], max_new_tokens=4, seed=1)
    assert len(full.ids) == 4


def test_results_arrive_once_each(qwen: Any) -> None:
    seen: list[int] = []
    qwen.engine(slots=2).generate([[5, 6], [7]], n=3, max_new_tokens=3, on_done=lambda i, row: seen.append(i))
    assert sorted(seen) == [0, 0, 0, 1, 1, 1]


def _flat(rows: list[list[Completion]]) -> list[Completion]:
    return [row for group in rows for row in group]


@pytest.mark.parametrize("padded", [None, True])
def test_what_was_served_before_does_not_move_a_single_bit(
    world: Any, prompts: list[list[int]], padded: bool | None
) -> None:
    """A run that goes on from a checkpoint has served nothing yet: its sums must be rounded as those of the first."""
    fresh, used = (world.engine(slots=16, padded_chunks=padded) for _ in range(2))
    used.generate([prompts[3]], n=16, max_new_tokens=100)
    for size in (4, 16, 2):
        mine, its = (engine.generate(prompts[:2], n=size, seed=3, max_new_tokens=12) for engine in (used, fresh))
        assert [(row.ids, row.log_q) for rows in mine for row in rows] == [
            (row.ids, row.log_q) for rows in its for row in rows
        ]
        fresh.free()
