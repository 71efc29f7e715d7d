"""Text to ids, once and for all: every primitive action is encoded on its own and its ids are kept from there on.

A line end is not a token boundary of a whole text (`"):\\n"` can be one token), so actions are cut on strings and
encoded one by one. Under the Qwen2 and Llama-3 pre-tokenizer rules no pre-token reaches past the line ends and blank
lines that close an action of `PythonLines(blank_lines="attach")`, so the joined ids equal those of the whole text.
Under GPT-2's rules they differ: a newline is joined to the indentation after it. Either way NTP and RA3 train on the
same ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ra3kit.actions import Action, ActionSegmenter
from ra3kit.data.tokenizer import start_and_end_ids
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import TokenizerError


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special tokens; text that spells a special token is encoded as ordinary text.

    Equal texts are encoded once: lines of code repeat a lot.
    """
    unique = list(dict.fromkeys(texts))
    ids = dict(zip(unique, _encode(tokenizer, unique), strict=True))
    return [ids[text] for text in texts]


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]]) -> list[str]:
    """The exact text of each row of ids; nothing is cleaned up and special tokens are written out."""
    rows = [list(row) for row in ids]
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
    exact = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return [str(tokenizer.decode(row, **exact)) for row in rows]


def encode_actions(tokenizer: PreTrainedTokenizerBase, actions: Sequence[Action]) -> list[list[int]]:
    """The ids of each action, without special tokens, in one batch.

    Raises:
        TokenizerError: an action does not come back exactly from its ids (a normalising or lossy tokenizer).
    """
    texts = [action.text for action in actions]
    ids = encode_texts(tokenizer, texts)
    for text in inexact_texts(tokenizer, texts, ids):
        raise TokenizerError(
            f"{tokenizer.name_or_path!r} does not give back the line {text!r} exactly. Use a byte-level tokenizer, or "
            "drop such files (ra3kit.data.snippets counts them as 'inexact')."
        )
    return ids


def inexact_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ids: Sequence[Sequence[int]]
) -> dict[str, None]:
    """The texts that decode(encode(text)) changes, in order, each once. None for byte-level BPE without normaliser."""
    unique = dict(zip(texts, ids, strict=True))
    back = decode_ids(tokenizer, list(unique.values()))
    return {text: None for text, again in zip(unique, back, strict=True) if text != again}


def trajectory_from_text(
    tokenizer: PreTrainedTokenizerBase, snippet_id: str, text: str, segmenter: ActionSegmenter
) -> Trajectory:
    """The expert trajectory of one text: start token, the ids of each action, end token.

    Raises:
        TokenizerError: no start or end token, or a line the tokenizer cannot give back exactly.
    """
    actions = segmenter.segment(text)
    start_id, end_id = start_and_end_ids(tokenizer)
    may_think = [action.may_think for action in actions]
    return Trajectory.from_lines(snippet_id, encode_actions(tokenizer, actions), may_think, start_id, end_id)


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        with _plain_text(tokenizer.backend_tokenizer) as backend:
            return [e.ids for e in backend.encode_batch_fast(texts, add_special_tokens=False)]
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


@contextmanager
def _plain_text(backend: Tokenizer) -> Iterator[Tokenizer]:
    """The backend without truncation and padding, and with special tokens read as text; as it was afterwards."""
    specials, truncation, padding = backend.encode_special_tokens, backend.truncation, backend.padding
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    try:
        yield backend
    finally:
        backend.encode_special_tokens = specials
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)
