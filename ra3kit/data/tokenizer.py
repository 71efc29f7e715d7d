"""Tokenizers: load one, train a byte-level BPE on the spot, and check that it can carry exact lines and latents."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

import lightning as L
import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from ra3kit.errors import DataError, TokenizerError, nearest
from ra3kit.hub import hub_advice
from ra3kit.ranges import check_number
from ra3kit.runs import absent_model

Rules = Literal["qwen2", "llama3", "gpt2"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS_AND_SPACE = r"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZER_RULES: dict[str, str] = {
    "qwen2": "|".join([_CONTRACTIONS, _WORDS_AND_SPACE.format(digits=r"\p{N}")]),
    "llama3": "|".join([_CONTRACTIONS, _WORDS_AND_SPACE.format(digits=r"\p{N}{1,3}")]),
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}
"""The published split patterns: Qwen2 takes digits one by one, Llama-3 up to three; in both a run of line ends joins
the punctuation or the white space before it. GPT-2 joins line ends to the indentation after them."""

MAX_VOCABULARY = 2_000_000
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Class names of tokenizers whose rules all stand in tokenizer.json."""
EOS, BOS = "<|endoftext|>", "<|begin_of_text|>"
PROBE = "class F(X):  # \ufb01\ndef f(x):\n\n\treturn {'é': \"日本\"}  # 🙂\r\n    \n\fif x:\n        pass\n"
"""Text that every usable tokenizer gives back exactly: capitals, a ligature, tabs, CRLF, form feed, blank lines,
non-ASCII. Qwen2's tokenizer composes accents (NFC); the few texts that changes are dropped one by one, as "inexact"."""


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or a hub id, and check it.

    Raises:
        TokenizerError: nothing loadable there, or it fails `check_tokenizer`.
    """
    try:
        tokenizer = _read(name_or_path)
    except Exception as error:  # a damaged folder fails in as many ways as there are tokenizer classes
        if advice := absent_model(name_or_path):
            raise TokenizerError(f"model or tokenizer {name_or_path!r}: {advice}") from error
        why = (str(error).splitlines() or [type(error).__name__])[0]
        what = (
            ""
            if os.path.exists(name_or_path)
            else hub_advice(f"hf download {name_or_path} --local-dir FOLDER", "tokenizer=FOLDER")
        )
        raise TokenizerError(
            f"tokenizer {name_or_path!r} cannot be loaded. Give a folder with tokenizer.json, a hub id, or a "
            f"ra3kit.data.tokenizer.TrainedTokenizer. {what} ({why})".replace("  ", " ")
        ) from error
    check_tokenizer(tokenizer)
    return tokenizer


def _read(name_or_path: str) -> PreTrainedTokenizerBase:
    """A tokenizer as its files have it.

    AutoTokenizer goes by the type of the model beside it: one that was trained for a Qwen2 would come back with Qwen2's
    own rules and its normaliser, and read other tokens than it was trained with.
    """
    generic = get_tokenizer_config(name_or_path).get("tokenizer_class") in GENERIC
    return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(name_or_path)


def start_and_end_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """(start id, end id): the BOS token, or the EOS token where there is none (Qwen2), and the EOS token.

    Raises:
        TokenizerError: the tokenizer has no EOS token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path!r} has no end token. Set tokenizer.eos_token to one of its special "
            f"tokens: {sorted(map(str, tokenizer.added_tokens_decoder.values()))[:10]}."
        )
    return (end if tokenizer.bos_token_id is None else tokenizer.bos_token_id), end


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot carry exact lines and latents.

    Raises:
        TokenizerError: no end token, no single token for "#" or for the newline, or text not given back exactly.
    """
    from ra3kit.data.encode import decode_ids, encode_texts

    start_and_end_ids(tokenizer)
    [*singles, probe] = encode_texts(tokenizer, ["#", "\n", PROBE])
    for text, ids in zip(["#", "\n"], singles, strict=True):
        if len(ids) != 1:
            raise TokenizerError(
                f"tokenizer {tokenizer.name_or_path!r} has no token {text!r} ({len(ids)} tokens), so no thought "
                "can be written as a comment line. Use a byte-level BPE tokenizer (Qwen2, Llama-3, TrainedTokenizer)."
            )
    back = decode_ids(tokenizer, [probe])[0]
    if back != PROBE:
        raise TokenizerError(
            f"tokenizer {tokenizer.name_or_path!r} does not give text back exactly: {PROBE!r} came back as {back!r}. "
            "Use a byte-level BPE tokenizer."
        )


def tokenizer_id(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does (vocabulary, merges, rules, start and end), 16 hex digits; not of its name."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        body = json.loads(tokenizer.backend_tokenizer.to_str())
        body.pop("truncation", None)
        body.pop("padding", None)
    else:
        body = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    text = json.dumps([body, tokenizer.bos_token_id, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_byte_level_bpe(texts: Iterable[str], vocab_size: int, rules: Rules = "qwen2") -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with the pre-tokenizer rules of a published model family. Same texts, same ids.

    Args:
        texts: what to train on, in any size.
        vocab_size: most tokens, the 256 bytes and the special tokens included; >= 258.
        rules: "qwen2", "llama3" (adds a start token, as Llama-3 has) or "gpt2".

    Raises:
        TokenizerError: unknown rules, a vocabulary too small for the bytes, or no text.

    >>> tok = train_byte_level_bpe(["def f(x):\\n    return x\\n"] * 9, 300)
    >>> tok.tokenize("def f(x):\\n")[-1]
    '):Ċ'
    """
    if rules not in PRE_TOKENIZER_RULES:
        allowed = list(PRE_TOKENIZER_RULES)
        raise TokenizerError(f"rules={rules!r}: allowed are {allowed}.{nearest(rules, allowed)}")
    specials = [EOS, BOS] if rules == "llama3" else [EOS]
    if vocab_size < 256 + len(specials):
        raise TokenizerError(
            f"vocab_size={vocab_size}: the 256 bytes and {specials} need at least {256 + len(specials)}."
        )
    backend = Tokenizer(models.BPE(ignore_merges=rules == "llama3"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZER_RULES[rules]), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if rules == "llama3":
        bos_id = backend.token_to_id(BOS)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos_id)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=EOS,
        bos_token=BOS if rules == "llama3" else None,
        clean_up_tokenization_spaces=False,
    )
    check_tokenizer(tokenizer)
    return tokenizer


class TokenizerSpec(ABC):
    """Says in a recipe which tokenizer to use, without building it.

    What it loads passes `check_tokenizer`, gives every text back exactly, reads text that spells a special token as
    text, has tokens that open and end a thought, and is the same wherever the spec is the same.
    `ra3kit.testing.check_tokenizer_spec` checks these.
    """

    @abstractmethod
    def load(self) -> PreTrainedTokenizerBase:
        """The tokenizer; the same object when called again."""


class TrainedTokenizer(TokenizerSpec):
    """A byte-level BPE trained on a corpus, kept in the cache folder under a hash of the corpus text and the settings.

    The cache folder is `~/.cache/ra3kit`, or what the environment variable `RA3KIT_CACHE` says.

    Args:
        corpus: what `ra3kit.data.corpora.read_files` reads: a folder, a glob, a file, a hub id or "stdlib".
        vocab_size: most tokens, 258 to 2,000,000.
        rules: pre-tokenizer rules, "qwen2", "llama3" or "gpt2".
        max_bytes: most UTF-8 bytes to train on, taken in reading order; > 0.

    Raises:
        TokenizerError: a number outside its range.
    """

    def __init__(
        self, corpus: str = "stdlib", vocab_size: int = 2048, rules: Rules = "qwen2", max_bytes: int = 8_000_000
    ) -> None:
        # the trainer allocates for the size asked for, and ends the process where that fails
        check_number("vocab_size", vocab_size, least=258, most=MAX_VOCABULARY, whole=True, error=TokenizerError)
        check_number("max_bytes", max_bytes, least=1, whole=True, error=TokenizerError)
        self.corpus, self.vocab_size, self.rules, self.max_bytes = corpus, vocab_size, rules, max_bytes

    def load(self) -> PreTrainedTokenizerBase:
        return _load_trained(self.corpus, self.vocab_size, self.rules, self.max_bytes)


def resolve_tokenizer(tokenizer: PreTrainedTokenizerBase | TokenizerSpec | str) -> PreTrainedTokenizerBase:
    """A tokenizer from what a recipe or a caller gave: itself, a `TokenizerSpec`, a folder or a hub id."""
    if isinstance(tokenizer, str):
        return load_tokenizer(tokenizer)
    return tokenizer.load() if isinstance(tokenizer, TokenizerSpec) else tokenizer


def tokenizer_of(
    data: L.LightningDataModule, given: PreTrainedTokenizerBase | TokenizerSpec | str | None
) -> PreTrainedTokenizerBase:
    """The tokenizer given to a data module, or that of the model its trainer trains, checked.

    Raises:
        DataError: there is neither.
        TokenizerError: it cannot carry lines and latents.
    """
    if given is None and data.trainer is not None:
        given = getattr(data.trainer.lightning_module, "tokenizer", None)
    if given is None:
        raise DataError(f"{type(data).__name__} has no tokenizer: give `tokenizer`, or a model that has one.")
    tokenizer = resolve_tokenizer(given)
    check_tokenizer(tokenizer)
    return tokenizer


def cache_folder() -> Path:
    """Where trained tokenizers are kept: `RA3KIT_CACHE`, or `~/.cache/ra3kit`."""
    return Path(os.environ.get("RA3KIT_CACHE") or Path.home() / ".cache" / "ra3kit")


@cache
def _load_trained(corpus: str, vocab_size: int, rules: Rules, max_bytes: int) -> PreTrainedTokenizerBase:
    texts = _training_texts(corpus, max_bytes)
    key = hashlib.sha256(repr((tokenizers.__version__, vocab_size, rules)).encode())
    for text in texts:
        key.update(text.encode() + b"\0")
    folder = cache_folder() / "tokenizers" / key.hexdigest()[:24]
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(str(folder))
    tokenizer = train_byte_level_bpe(texts, vocab_size, rules)
    try:
        _save(tokenizer, folder)
    except OSError as error:
        warnings.warn(
            f"the trained tokenizer is not cached: {error}. Set RA3KIT_CACHE to a writable folder.", stacklevel=3
        )
    return tokenizer


def _training_texts(corpus: str, max_bytes: int) -> list[str]:
    from ra3kit.data.corpora import read_files

    texts, size = [], 0
    try:
        for file in read_files(corpus):
            texts.append(file.text)
            size += len(file.text.encode())
            if size >= max_bytes:
                break
    except DataError as error:
        raise TokenizerError(f"corpus={corpus!r}, to train a tokenizer on: {error}") from error
    if not texts:
        raise TokenizerError(f"corpus={corpus!r} holds no readable text to train a tokenizer on.")
    return texts


def _save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the folder whole or not at all; another process that was first wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=folder.parent)
    tokenizer.save_pretrained(temporary)
    try:
        os.rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.is_dir():
            raise
