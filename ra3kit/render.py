"""Annotated code as text: the lines as they were written, the thoughts marked, each with what it was worth."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from ra3kit.data.encode import decode_ids
from ra3kit.data.trajectory import Trajectory

THOUGHT_COLOUR, GAIN_COLOUR, RESET = "\033[36m", "\033[33m", "\033[0m"


def render(
    trajectory: Trajectory,
    tokenizer: PreTrainedTokenizerBase,
    gains: Mapping[int, float] | None = None,
    colour: bool = False,
) -> str:
    """The snippet's text with its thoughts; a thought's line begins with ">" and ends with its information gain.

    Args:
        trajectory: with or without thoughts.
        tokenizer: its tokenizer.
        gains: nats by line index, from `ra3kit.abstraction.evaluate.thought_gains`.
        colour: use terminal colours.
    """
    out: list[str] = []
    for line in range(len(trajectory.lines)):
        thought, code = decode_ids(tokenizer, [trajectory.thought_ids(line), trajectory.line_ids(line)])
        if thought:
            value = (gains or {}).get(line)
            worth = "" if value is None else f"   [{value:+.2f} nats]"
            text = thought.rstrip("\n")
            if colour:
                text, worth = f"{THOUGHT_COLOUR}{text}{RESET}", f"{GAIN_COLOUR}{worth}{RESET}"
            out.append(f"> {text}{worth}")
        out += [f"  {part}" for part in code.rstrip("\n").split("\n")]
    return "\n".join(out)
