from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config

from ra3kit.data import tokenizer as module
from ra3kit.data.encode import encode_texts
from ra3kit.data.tokenizer import (
    Rules,
    TrainedTokenizer,
    check_tokenizer,
    load_tokenizer,
    resolve_tokenizer,
    start_and_end_ids,
    tokenizer_id,
    train_byte_level_bpe,
)
from ra3kit.errors import TokenizerError


def test_training_is_deterministic_and_the_id_is_of_the_content(tmp_path: Path) -> None:
    texts = ["def f(x):\n    return x\n", "# ünï\n"] * 5
    one, two = (train_byte_level_bpe(texts, 300) for _ in range(2))
    assert tokenizer_id(one) == tokenizer_id(two)
    assert tokenizer_id(train_byte_level_bpe(texts, 270)) != tokenizer_id(one)
    assert tokenizer_id(train_byte_level_bpe(texts, 300, "gpt2")) != tokenizer_id(one)
    one("some text", truncation=True, max_length=2, padding="max_length")  # leaves settings behind in the backend
    assert tokenizer_id(one) == tokenizer_id(two)
    one.save_pretrained(tmp_path)
    assert tokenizer_id(load_tokenizer(str(tmp_path))) == tokenizer_id(two)


@pytest.mark.parametrize("rules", ["qwen2", "gpt2", "llama3"])
def test_beside_a_model_of_any_family_a_tokenizer_is_read_as_it_was_saved(tmp_path: Path, rules: Rules) -> None:
    """transformers would give it the rules of the model's family: digits one by one, composed accents."""
    text = "x1234 = f(x)\n\n    # e\u0301\n"
    tokenizer = train_byte_level_bpe([text] * 5, 300, rules)
    tokenizer.save_pretrained(tmp_path)
    Qwen2Config().save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert tokenizer_id(again) == tokenizer_id(tokenizer)
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text, add_special_tokens=False)) == text


def test_published_rules(tokenizers: dict[Rules, PreTrainedTokenizerFast]) -> None:
    def pieces(rules: Rules, text: str) -> list[str]:
        return [text[a:b] for _, (a, b) in tokenizers[rules].backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    text = "f(1234):\n\n    if x:  \n \ny's"
    assert pieces("qwen2", text) == [
        "f",
        "(",
        "1",
        "2",
        "3",
        "4",
        "):\n\n",
        "   ",
        " if",
        " x",
        ":",
        "  \n \n",
        "y",
        "'s",
    ]
    assert pieces("llama3", text) == ["f", "(", "123", "4", "):\n\n", "   ", " if", " x", ":", "  \n \n", "y", "'s"]
    assert pieces("gpt2", text) == ["f", "(", "1234", "):", "\n\n   ", " if", " x", ":", "  \n ", "\n", "y", "'s"]


def test_merges_across_the_line_end(tokenizers: dict[Rules, PreTrainedTokenizerFast]) -> None:
    for rules in ("qwen2", "llama3"):
        [ids] = encode_texts(tokenizers[rules], ["f(x):\n"])
        assert tokenizers[rules].convert_ids_to_tokens(ids)[-1] == "):Ċ"


def test_start_and_end(tokenizers: dict[Rules, PreTrainedTokenizerFast]) -> None:
    qwen2, llama3 = tokenizers["qwen2"], tokenizers["llama3"]
    assert qwen2.bos_token_id is None
    assert start_and_end_ids(qwen2) == (qwen2.eos_token_id, qwen2.eos_token_id)
    assert start_and_end_ids(llama3) == (llama3.bos_token_id, llama3.eos_token_id)
    assert llama3.bos_token_id != llama3.eos_token_id
    assert llama3("x").input_ids[0] == llama3.bos_token_id  # as the published one does: never encode lines like this
    assert encode_texts(llama3, ["x"])[0] == llama3("x", add_special_tokens=False).input_ids


def test_vocabulary_size(tokenizers: dict[Rules, PreTrainedTokenizerFast]) -> None:
    assert all(len(t) == 1000 for t in tokenizers.values())
    with pytest.raises(TokenizerError, match="at least 257"):
        train_byte_level_bpe(["x"], 256)
    with pytest.raises(TokenizerError, match="at least 258"):
        train_byte_level_bpe(["x"], 257, "llama3")
    with pytest.raises(TokenizerError, match="Did you mean 'qwen2'"):
        train_byte_level_bpe(["x"], 300, "qwen")  # type: ignore[arg-type]


def test_refuses_a_tokenizer_without_end_token() -> None:
    tok = train_byte_level_bpe(["x = 1\n"], 300)
    tok.eos_token = None
    with pytest.raises(TokenizerError, match="no end token"):
        check_tokenizer(tok)


def test_refuses_a_tokenizer_that_loses_text() -> None:
    vocab = {"#": 0, "\n": 1, "x": 2, "?": 3, "<e>": 4}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    with pytest.raises(TokenizerError, match="no token '\\\\n'"):
        check_tokenizer(tok)
    backend.pre_tokenizer = None
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    with pytest.raises(TokenizerError, match="does not give text back exactly"):
        check_tokenizer(tok)


def test_missing_tokenizer_is_a_clear_error() -> None:
    with pytest.raises(
        TokenizerError, match=r"'no-one/nothing' cannot be loaded.*HF_HUB_OFFLINE is set.*hf download no-one/nothing"
    ):
        load_tokenizer("no-one/nothing")


def test_trained_tokenizer_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RA3KIT_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.py").write_text("def f(x):\n    return x\n" * 9)
    module._load_trained.cache_clear()
    tok = TrainedTokenizer(str(corpus), 300).load()
    assert TrainedTokenizer(str(corpus), 300).load() is tok
    assert resolve_tokenizer(TrainedTokenizer(str(corpus), 300)) is tok
    [folder] = (tmp_path / "cache" / "tokenizers").iterdir()

    def no_training(*_: object) -> None:
        raise AssertionError("trained again")

    module._load_trained.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_byte_level_bpe", no_training)
        again = TrainedTokenizer(str(corpus), 300).load()
    assert tokenizer_id(again) == tokenizer_id(tok)
    assert again.eos_token_id == tok.eos_token_id
    assert again.bos_token_id is None

    (corpus / "a.py").write_text("class A:\n    pass\n" * 9)  # other text, another entry
    module._load_trained.cache_clear()
    assert tokenizer_id(TrainedTokenizer(str(corpus), 300).load()) != tokenizer_id(tok)
    assert len(list(folder.parent.iterdir())) == 2


def test_unwritable_cache_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.py").write_text("x = 1\n" * 9)
    monkeypatch.setenv("RA3KIT_CACHE", str(tmp_path / "file"))
    module._load_trained.cache_clear()
    with pytest.warns(UserWarning, match="not cached"):
        TrainedTokenizer(str(tmp_path / "a.py"), 300).load()


def test_max_bytes_limits_training(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "aaaa"}\n{"text": "bbbb"}\n{"text": "cccc"}\n')
    assert module._training_texts(str(tmp_path), 5) == ["aaaa", "bbbb"]
