"""The latent alphabet: what `<act>` and `<think>` are in tokens, and their probabilities under a language model.

Before a line the latent z_t is either `<act>` (keep the intent; no ids are written) or `<think>` (a new intent: one
comment line at column 0). In tokens: q(think) is the mass of the tokens whose text begins with "#", q(act) the rest
(method part 1). The grammar below makes every sampled thought exactly one comment line:

    thought = opening  inside  inside*  ending        e.g.  "#"  " sort"  " by"  " key"  "\\n"

so a thought is never empty, never holds a second line and never ends the text. The probabilities are renormalised over
what the grammar allows at each place, so log q is the exact log-probability of what was sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ra3kit.errors import RecipeError, TokenizerError

ACT = -1
"""Stands for the latent `<act>` where a token id is expected."""


class Place(IntEnum):
    """Where in the grammar the next token stands, which fixes the tokens allowed there."""

    DECIDE = 0  # `<act>` or an opening token
    OPEN = 1  # an opening token: thinking is forced
    SECOND = 2  # an inside token: a thought has a content
    INSIDE = 3  # an inside or an ending token
    LAST = 4  # an ending token: the maximum length is reached
    FREE = 5  # any token (free generation)


MIN_THOUGHT = 3
"""Tokens in the shortest thought: opening, inside, ending."""


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """The bytes of every token of a byte-level tokenizer, by id; None for special and added tokens."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    decode = _byte_of_char()
    out: list[bytes | None] = []
    for token_id, piece in enumerate(pieces):
        if token_id in special or piece is None or any(ch not in decode for ch in piece):
            out.append(None)
        else:
            out.append(bytes(decode[ch] for ch in piece))
    return out


def _byte_of_char() -> dict[str, int]:
    """The inverse of the byte-to-character table that byte-level BPE vocabularies are written in."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    table = {chr(b): b for b in printable}
    table.update({chr(256 + i): b for i, b in enumerate(others)})
    return table


@dataclass(frozen=True, eq=False)
class LatentGrammar:
    """Which tokens may stand at each place of a latent, for one vocabulary.

    Args:
        opens: bool [v], True for tokens that can open a thought: they begin with "#" and hold no line end.
        inside: bool [v], True for tokens that can stand inside a thought: text without line end or NUL.
        ends: bool [v], True for tokens that can end a thought: their only line end is one final newline.
        newline_id: the token "\\n".
    """

    opens: Bool[Tensor, " v"]
    inside: Bool[Tensor, " v"]
    ends: Bool[Tensor, " v"]
    newline_id: int

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None) -> LatentGrammar:
        """The grammar of a tokenizer, over a model's (possibly padded) vocabulary.

        Raises:
            TokenizerError: no token begins with "#", or there is no token "\\n".
        """
        texts = token_bytes(tokenizer)
        size = max(vocab_size or 0, len(texts))
        opens, inside, ends = (torch.zeros(size, dtype=torch.bool) for _ in range(3))
        newline_id = None
        for token_id, text in enumerate(texts):
            if not text or b"\r" in text or b"\0" in text:
                continue
            newlines = text.count(b"\n")
            opens[token_id] = newlines == 0 and text.startswith(b"#")
            inside[token_id] = newlines == 0
            ends[token_id] = newlines == 1 and text.endswith(b"\n")
            if text == b"\n":
                newline_id = token_id
        if not opens.any() or newline_id is None:
            missing = "a token '\\n'" if newline_id is None else "a token that begins with '#'"
            raise TokenizerError(
                f"tokenizer {tokenizer.name_or_path!r}: {missing} is needed to write thoughts as comment lines. "
                "Use a byte-level BPE tokenizer (Qwen2, Llama-3, or ra3kit.data.tokenizer.TrainedTokenizer)."
            )
        return LatentGrammar(opens, inside, ends, newline_id)

    def to(self, device: torch.device | str) -> LatentGrammar:
        return LatentGrammar(self.opens.to(device), self.inside.to(device), self.ends.to(device), self.newline_id)

    def allowed(self) -> Bool[Tensor, "places v"]:
        """bool [6, v]: True where a token may stand at a `Place`. At DECIDE, every other token means `<act>`."""
        every = torch.ones_like(self.opens)
        return torch.stack([every, self.opens, self.inside, self.inside | self.ends, self.ends, every])

    def open_ids(self) -> Int[Tensor, " o"]:
        return self.opens.nonzero().squeeze(1)


def place_in_thought(position: int, max_length: int) -> Place:
    """The place of token `position` (0-based) of a thought of at most `max_length` tokens, after its opening.

    >>> [place_in_thought(j, 4).name for j in (1, 2, 3)]
    ['SECOND', 'INSIDE', 'LAST']
    """
    if position == 1:
        return Place.SECOND
    return Place.LAST if position >= max_length - 1 else Place.INSIDE


def log_q(
    logits: Float[Tensor, "m v"],
    targets: Int[Tensor, " m"],
    places: Int[Tensor, " m"],
    grammar: LatentGrammar,
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Log-probability of latents under the grammar, and the entropy of each choice. Differentiable.

    Args:
        logits: [m, v] next-token logits, computed in float32 here whatever they come in.
        targets: [m] token ids, or ACT (-1) at places DECIDE.
        places: [m] values of `Place`.
        grammar: on the same device as the logits.

    Returns:
        log q [m] in nats (<= 0), and the entropy [m] in nats of the choice at that place (>= 0).
    """
    logits = logits.float()
    allowed = grammar.allowed()[places]  # [m, v]
    decide = places == Place.DECIDE
    logp = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)  # [m, v]
    chosen = logp.gather(1, targets.clamp(min=0)[:, None]).squeeze(1)
    plogp = torch.where(allowed, logp.exp() * logp.masked_fill(~allowed, 0.0), 0.0)
    value, entropy = chosen, -plogp.sum(-1)
    at = decide.nonzero().squeeze(1)
    if len(at):
        # at DECIDE all non-opening tokens are one outcome, <act>; elsewhere an opening token may be impossible, whose
        # -inf would turn gradients into nan, so only these rows are touched
        opening = logp[at][:, grammar.open_ids()]
        act = _log1mexp(opening.logsumexp(-1))
        value = value.index_put((at,), torch.where(targets[at] == ACT, act, chosen[at]))
        entropy = entropy.index_put((at,), -(opening.exp() * opening).sum(-1) - act.exp() * act)
    return value, entropy


def _log1mexp(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """log(1 - exp(x)) for x <= 0, without cancellation; x is kept a hair below 0 so that the gradient stays finite."""
    x = x.clamp(max=-1e-7)
    return torch.where(x > -0.6931, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


@dataclass(frozen=True)
class ThoughtRules:
    """Where thoughts may stand and how long they may be.

    Args:
        max_length: tokens in a thought, its opening and its line end included; >= 3.
        think: "free" samples `<act>` or `<think>`; "always" thinks before every line that may have a thought;
            "never" masks thinking (alpha = 1, next-token prediction).
        where: "every_line", or "first_line": one latent for the whole snippet (BRiTE-style).
    """

    max_length: int = 8
    think: Literal["free", "always", "never"] = "free"
    where: Literal["every_line", "first_line"] = "every_line"

    def __post_init__(self) -> None:
        if self.max_length < MIN_THOUGHT:
            raise RecipeError(
                f"max_length={self.max_length}: a thought has at least {MIN_THOUGHT} tokens ('#', x, '\\n')"
            )

    def decision_place(self) -> Place:
        """The place of the first choice before a line that may have a thought."""
        return Place.OPEN if self.think == "always" else Place.DECIDE

    def may_think(self, trajectory_may_think: np.ndarray) -> np.ndarray:
        """bool [n]: True before lines where a latent is chosen under these rules."""
        allowed = trajectory_may_think.copy()
        if self.think == "never":
            allowed[:] = False
        elif self.where == "first_line" and allowed.any():
            allowed[int(allowed.argmax()) + 1 :] = False
        return allowed
