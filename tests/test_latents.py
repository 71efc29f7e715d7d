"""The latent grammar: tokens by their bytes, and log q against enumeration of every thought of a tiny vocabulary."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ra3kit.errors import RecipeError, TokenizerError
from ra3kit.latents import ACT, LatentGrammar, Place, ThoughtRules, log_q, place_in_thought, token_bytes
from ra3kit.testing.models import CORPUS, tiny_tokenizer
from ra3kit.testing.naive import NaiveGrammar

END, HASH, DOUBLE, RED, BLUE, NEWLINE, COLON_NEWLINE, BLANK = range(8)
V = 8


def marks(*ids: int) -> Tensor:
    out = torch.zeros(V, dtype=torch.bool)
    out[list(ids)] = True
    return out


GRAMMAR = LatentGrammar(
    opens=marks(HASH, DOUBLE),
    inside=marks(HASH, DOUBLE, RED, BLUE),
    ends=marks(NEWLINE, COLON_NEWLINE),
    newline_id=NEWLINE,
)


# ---- which token is what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["qwen2", "llama3", "gpt2"])
def test_token_bytes_spell_the_text(rules: Any) -> None:
    tokenizer = tiny_tokenizer(rules)
    texts = token_bytes(tokenizer)
    text = CORPUS + "é = '日本'  # 🙂\r\n\tx\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(texts[i] or b"" for i in ids) == text.encode()
    assert all(texts[i] is None for i in tokenizer.all_special_ids)
    assert sum(text is None for text in texts) == len(tokenizer.all_special_ids)


@pytest.mark.parametrize("rules", ["qwen2", "llama3", "gpt2"])
def test_grammar_equals_one_told_from_decoded_texts(rules: Any) -> None:
    tokenizer = tiny_tokenizer(rules)
    grammar, other = LatentGrammar.of(tokenizer, len(tokenizer) + 3), NaiveGrammar(tokenizer)
    assert grammar.opens.nonzero().squeeze(1).tolist() == other.opening.tolist()
    assert grammar.inside.nonzero().squeeze(1).tolist() == other.content.tolist()
    assert grammar.ends.nonzero().squeeze(1).tolist() == other.ending.tolist()
    assert tokenizer.decode([grammar.newline_id]) == "\n"
    assert len(grammar.opens) == len(tokenizer) + 3  # a padded vocabulary: what has no text is never a thought
    assert not grammar.allowed()[1:5, -3:].any()


def test_tokens_that_close_code_and_line_can_end_a_thought() -> None:
    tokenizer = tiny_tokenizer("qwen2")
    grammar = LatentGrammar.of(tokenizer)
    [colon_newline] = tokenizer.encode("):\n")
    assert grammar.ends[colon_newline]
    assert not grammar.inside[colon_newline]


def test_special_and_added_tokens_stand_in_no_thought() -> None:
    tokenizer = tiny_tokenizer.__wrapped__("qwen2")
    tokenizer.add_tokens(["#added", "<|im_end|>"])
    grammar = LatentGrammar.of(tokenizer)
    allowed = grammar.allowed()[Place.OPEN : Place.LAST + 1].any(0)
    for text in ("#added", "<|im_end|>", tokenizer.eos_token):
        assert not allowed[tokenizer.convert_tokens_to_ids(text)]


@pytest.mark.parametrize(("vocabulary", "missing"), [({"a": 0, "Ċ": 1}, "'#'"), ({"a": 0, "#": 1}, r"'\\n'")])
def test_a_vocabulary_without_hash_or_newline_is_an_error(vocabulary: dict[str, int], missing: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")))
    with pytest.raises(TokenizerError, match=missing):
        LatentGrammar.of(tokenizer)


# ---- log q --------------------------------------------------------------------------------------------------------


def table(seed: int, spread: float = 2.0) -> Tensor:
    """Next-token logits [9, 8] after each last token (row 8: before the first)."""
    return torch.randn(V + 1, V, generator=torch.Generator().manual_seed(seed)) * spread


def latent_logq(logits: Tensor, latent: tuple[int, ...], rules: ThoughtRules) -> float:
    """log q of a whole latent, `()` being `<act>`, through the function under test."""
    if not latent:
        targets, places, rows = [ACT], [rules.decision_place()], [V]
    else:
        targets, rows = list(latent), [V, *latent[:-1]]
        places = [rules.decision_place(), *(place_in_thought(j, rules.max_length) for j in range(1, len(latent)))]
    value, _ = log_q(logits[rows], torch.tensor(targets), torch.tensor([int(p) for p in places]), GRAMMAR)
    return float(value.double().sum())


def every_thought(max_length: int) -> list[tuple[int, ...]]:
    """All comment lines of at most `max_length` tokens."""
    inside = (HASH, DOUBLE, RED, BLUE)
    return [
        (opening, *words, ending)
        for count in range(1, max_length - 1)
        for opening in (HASH, DOUBLE)
        for words in itertools.product(inside, repeat=count)
        for ending in (NEWLINE, COLON_NEWLINE)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_length", [3, 4])
@pytest.mark.parametrize("think", ["free", "always"])
def test_log_q_is_a_distribution_over_all_latents(seed: int, max_length: int, think: Any) -> None:
    rules = ThoughtRules(max_length, think)
    latents = every_thought(max_length) + ([()] if think == "free" else [])
    assert len(latents) == (2 * 4 * 2 if max_length == 3 else 2 * 4 * 2 + 2 * 16 * 2) + (think == "free")
    total = sum(math.exp(latent_logq(table(seed), latent, rules)) for latent in latents)
    assert total == pytest.approx(1.0, abs=1e-5)


def test_log_q_by_hand() -> None:
    """(DOUBLE, RED, NEWLINE) at max_length 4: mass of DOUBLE, RED among inside, NEWLINE among inside and ends."""
    logits = table(5)
    p = logits.double().softmax(-1)
    inside, ends = [HASH, DOUBLE, RED, BLUE], [NEWLINE, COLON_NEWLINE]
    expected = p[V, DOUBLE] * p[DOUBLE, RED] / p[DOUBLE, inside].sum() * p[RED, NEWLINE] / p[RED, inside + ends].sum()
    assert latent_logq(logits, (DOUBLE, RED, NEWLINE), ThoughtRules(4)) == pytest.approx(math.log(expected), abs=1e-5)
    expected = p[V, DOUBLE] / p[V, [HASH, DOUBLE]].sum() * p[DOUBLE, RED] / p[DOUBLE, inside].sum()
    expected *= p[RED, NEWLINE] / p[RED, ends].sum()
    got = latent_logq(logits, (DOUBLE, RED, NEWLINE), ThoughtRules(3, think="always"))
    assert got == pytest.approx(math.log(expected), abs=1e-5)


@pytest.mark.parametrize("place", list(Place), ids=lambda place: place.name)
def test_entropy_equals_the_sum_over_outcomes(place: Place) -> None:
    logits = table(7)[:1]
    outcomes = GRAMMAR.allowed()[place].nonzero().squeeze(1).tolist()
    if place == Place.DECIDE:
        outcomes = [HASH, DOUBLE, ACT]
    rows = logits.expand(len(outcomes), -1)
    values, entropies = log_q(rows, torch.tensor(outcomes), torch.full((len(outcomes),), int(place)), GRAMMAR)
    assert float(values.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    expected = -float((values.exp() * values).sum())
    assert entropies.tolist() == pytest.approx([expected] * len(outcomes), abs=1e-5)


def test_what_the_grammar_forbids_has_probability_zero() -> None:
    logits = table(1)[:1]
    for place in (Place.OPEN, Place.SECOND, Place.INSIDE, Place.LAST):
        for token in (~GRAMMAR.allowed()[place]).nonzero().squeeze(1).tolist():
            value, _ = log_q(logits, torch.tensor([token]), torch.tensor([int(place)]), GRAMMAR)
            assert value.item() == -math.inf


@pytest.mark.parametrize("size", [-200.0, -40.0, 0.0, 10.0, 17.0, 40.0, 200.0])
@pytest.mark.parametrize("target", [ACT, HASH, DOUBLE])
def test_gradients_stay_finite_where_thinking_is_certain_or_impossible(size: float, target: int) -> None:
    """Beside rows at every other place, where opening tokens may be impossible."""
    logits = torch.zeros(5, V)
    logits[:, [HASH, DOUBLE]] = size
    logits.requires_grad_()
    places = torch.tensor([int(p) for p in (Place.DECIDE, Place.OPEN, Place.SECOND, Place.INSIDE, Place.LAST)])
    targets = torch.tensor([target, HASH, RED, BLUE, NEWLINE])
    value, entropy = log_q(logits, targets, places, GRAMMAR)
    (value.sum() + entropy.sum()).backward()
    assert logits.grad is not None
    for tensor in (value, entropy, logits.grad):
        assert torch.isfinite(tensor).all()
    assert (value <= 0).all()
    assert (entropy >= -1e-6).all()


@pytest.mark.parametrize("target", [ACT, HASH, DOUBLE])
def test_gradient_of_a_decision_equals_the_closed_form(target: int) -> None:
    logits = table(2)[:1].clone().requires_grad_()
    value, _ = log_q(logits, torch.tensor([target]), torch.tensor([int(Place.DECIDE)]), GRAMMAR)
    value.sum().backward()
    p = logits.detach().double().softmax(-1)[0]
    if target == ACT:  # of log(1 - m), m the mass of the openings
        mass = p[GRAMMAR.opens].sum()
        expected = torch.where(GRAMMAR.opens, -p, p * mass / (1 - mass))
    else:
        expected = torch.nn.functional.one_hot(torch.tensor(target), V) - p
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0], expected, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30))
def test_act_and_thinking_share_the_whole_mass(seed: int, scale: float) -> None:
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(seed)) * scale
    outcomes = torch.tensor([ACT, HASH, DOUBLE])
    value, _ = log_q(logits.expand(3, -1), outcomes, torch.zeros(3, dtype=torch.long), GRAMMAR)
    assert float(value.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_bfloat16_logits_are_computed_in_float32() -> None:
    logits = table(3)[:1]
    value, entropy = log_q(logits.bfloat16(), torch.tensor([RED]), torch.tensor([int(Place.SECOND)]), GRAMMAR)
    assert value.dtype == entropy.dtype == torch.float32


# ---- rules --------------------------------------------------------------------------------------------------------


def test_places_of_a_thought() -> None:
    assert [place_in_thought(j, 3) for j in (1, 2)] == [Place.SECOND, Place.LAST]
    assert [place_in_thought(j, 5) for j in (1, 2, 3, 4)] == [Place.SECOND, Place.INSIDE, Place.INSIDE, Place.LAST]
    assert ThoughtRules().decision_place() == Place.DECIDE
    assert ThoughtRules(think="always").decision_place() == Place.OPEN


def test_where_a_latent_is_chosen() -> None:
    given_may = np.array([False, True, True, False, True])
    assert ThoughtRules().may_think(given_may).tolist() == given_may.tolist()
    assert not ThoughtRules(think="never").may_think(given_may).any()
    first = ThoughtRules(where="first_line").may_think(given_may)
    assert first.tolist() == [False, True, False, False, False]
    assert not ThoughtRules(where="first_line").may_think(np.zeros(3, bool)).any()
    assert given_may.tolist() == [False, True, True, False, True]  # not changed in place


def test_a_thought_has_three_tokens_or_more() -> None:
    with pytest.raises(RecipeError, match=r"max_length=2.*at least 3"):
        ThoughtRules(2)
