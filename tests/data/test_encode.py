"""Ids are fixed on strings: exact round trips, and when they equal the ids of the whole text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import AWKWARD, programs, texts
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from ra3kit.actions import Action, PythonLines, PythonStatements, Sentences
from ra3kit.data.encode import decode_ids, encode_actions, encode_texts, inexact_texts, trajectory_from_text
from ra3kit.data.tokenizer import Rules, tokenizer_id, train_byte_level_bpe
from ra3kit.errors import TokenizerError

TOKENIZERS: dict[Rules, PreTrainedTokenizerFast] = {
    rules: train_byte_level_bpe([*AWKWARD.values(), "if x:\n    f(y):\n\n        g[0]\n" * 9], 600, rules)
    for rules in ("qwen2", "llama3", "gpt2")
}
ALL = pytest.mark.parametrize("rules", ["qwen2", "llama3", "gpt2"])
WHOLE = pytest.mark.parametrize("rules", ["qwen2", "llama3"])


def flat(rows: list[list[int]]) -> list[int]:
    return [i for row in rows for i in row]


@ALL
@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_texts_come_back(rules: Rules, text: str) -> None:
    tok = TOKENIZERS[rules]
    ids = encode_actions(tok, PythonLines().segment(text))
    assert decode_ids(tok, [flat(ids)]) == [text]
    assert not {*tok.all_special_ids} & {*flat(ids)}


@given(texts, st.sampled_from(["qwen2", "llama3", "gpt2"]))
def test_any_text_comes_back(text: str, rules: Rules) -> None:
    tok = TOKENIZERS[rules]
    for segmenter in (PythonLines(), PythonLines("own"), Sentences()):
        ids = encode_actions(tok, segmenter.segment(text))
        assert decode_ids(tok, [flat(ids)]) == [text]


@WHOLE
@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_ids_of_lines_are_the_ids_of_awkward_texts(rules: Rules, text: str) -> None:
    tok = TOKENIZERS[rules]
    assert flat(encode_actions(tok, PythonLines().segment(text))) == encode_texts(tok, [text])[0]


@given(st.one_of(texts, programs), st.sampled_from(["qwen2", "llama3"]))
def test_ids_of_lines_are_the_ids_of_any_text(text: str, rules: Rules) -> None:
    """Under these rules it holds for every text, code or not."""
    tok = TOKENIZERS[rules]
    whole = encode_texts(tok, [text])[0]
    assert flat(encode_actions(tok, PythonLines().segment(text))) == whole
    assert flat(encode_actions(tok, PythonStatements().segment(text))) == whole


def test_ids_of_lines_on_real_files(
    tokenizers: dict[Rules, PreTrainedTokenizerFast], stdlib_texts: list[tuple[str, str]]
) -> None:
    """They are the whole text's under the Qwen2 and Llama-3 rules; not under GPT-2's, nor with blank lines apart."""
    differ = {"gpt2": 0, "own": 0}
    some = stdlib_texts[::3]
    for name, text in some:
        lines = PythonLines().segment(text)
        for rules in ("qwen2", "llama3"):
            tok = tokenizers[rules]
            assert flat(encode_actions(tok, lines)) == encode_texts(tok, [text])[0], (rules, name)
        differ["gpt2"] += flat(encode_actions(tokenizers["gpt2"], lines)) != encode_texts(tokenizers["gpt2"], [text])[0]
        own = PythonLines("own").segment(text)
        differ["own"] += flat(encode_actions(tokenizers["qwen2"], own)) != encode_texts(tokenizers["qwen2"], [text])[0]
    assert differ["gpt2"] > 0.8 * len(some)
    assert differ["own"] > 0.8 * len(some)


@WHOLE
def test_where_blank_lines_of_their_own_change_the_ids(rules: Rules) -> None:
    tok = TOKENIZERS[rules]
    text = "f(y):\n\n        g[0]\n"
    [whole] = encode_texts(tok, [text])
    assert flat(encode_actions(tok, PythonLines("own").segment(text))) != whole
    assert tok.decode(flat(encode_actions(tok, PythonLines("own").segment(text)))) == text


@given(st.lists(st.sampled_from(["One", " two", ".", "!", "?)", '"', "\n", "\n\n", "  ", "\t", "é.", " 3.5", "\r\n"])))
def test_ids_of_sentences_are_the_ids_of_plain_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    for rules in ("qwen2", "llama3"):
        tok = TOKENIZERS[rules]
        assert flat(encode_actions(tok, Sentences().segment(text))) == encode_texts(tok, [text])[0]


def test_line_end_merges_are_used_and_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    trajectory = trajectory_from_text(tokenizer, "s", "def f(x):\n    return x\n", PythonLines())
    assert tokenizer.convert_ids_to_tokens(trajectory.line_ids(0))[-1] == "):Ċ"


@ALL
def test_trajectory_is_start_text_end(rules: Rules, tokenizers: dict[Rules, PreTrainedTokenizerFast]) -> None:
    tok = tokenizers[rules]
    text = "x = (1,\n     2)\n\ny = 3"
    trajectory = trajectory_from_text(tok, "name#0", text, PythonLines())
    trajectory.check()
    start = tok.bos_token_id if rules == "llama3" else tok.eos_token_id
    assert trajectory.ids[0] == start
    assert trajectory.ids[-1] == tok.eos_token_id
    assert trajectory.ids.tolist().count(start) == (1 if rules == "llama3" else 2)
    assert decode_ids(tok, [trajectory.ids[1:-1].tolist()]) == [text]
    assert [decode_ids(tok, [trajectory.line_ids(i)])[0] for i in range(3)] == ["x = (1,\n", "     2)\n\n", "y = 3"]
    assert trajectory.may_think.tolist() == [True, False, True]
    assert trajectory_from_text(tok, "empty", "", PythonLines()).ids.tolist() == [start, tok.eos_token_id]


def test_text_that_spells_a_special_token_is_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("<|endoftext|>").input_ids == [tokenizer.eos_token_id]
    [ids] = encode_texts(tokenizer, ["<|endoftext|>"])
    assert tokenizer.eos_token_id not in ids
    assert decode_ids(tokenizer, [ids]) == ["<|endoftext|>"]
    assert decode_ids(tokenizer, [[tokenizer.eos_token_id, *ids]]) == ["<|endoftext|><|endoftext|>"]
    assert tokenizer("<|endoftext|>").input_ids == [tokenizer.eos_token_id]  # its setting was put back


def test_settings_left_in_the_tokenizer_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    line = "x = [1, 2, 3, 4, 5]\n"
    [ids] = encode_texts(tokenizer, [line])
    before = tokenizer_id(tokenizer)
    tokenizer([line, "y"], truncation=True, max_length=3, padding="max_length")
    padding = tokenizer.backend_tokenizer.padding
    truncation = tokenizer.backend_tokenizer.truncation
    assert encode_texts(tokenizer, [line, "y\n"])[0] == ids
    assert tokenizer.backend_tokenizer.padding == padding
    assert tokenizer.backend_tokenizer.truncation == truncation
    assert tokenizer_id(tokenizer) == before
    tokenizer(line)  # puts them back


def test_a_normalising_tokenizer_is_found_out(tokenizer: PreTrainedTokenizerFast) -> None:
    """The published Qwen2 tokenizer normalises to NFC: composed text comes back, decomposed text does not."""
    backend = Tokenizer.from_str(json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())))
    backend.normalizer = normalizers.NFC()
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    lines = ["x = 'e\u0301'\n", "x = '\u00e9'\n"]
    assert inexact_texts(tok, lines, encode_texts(tok, lines)) == {lines[0]: None}
    with pytest.raises(TokenizerError, match="does not give back the line"):
        encode_actions(tok, [Action(line, True) for line in lines])


def test_no_text_at_all(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode_texts(tokenizer, []) == []
    assert encode_actions(tokenizer, []) == []
    assert encode_texts(tokenizer, ["", "x", ""])[0::2] == [[], []]
