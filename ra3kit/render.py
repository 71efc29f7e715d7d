"""Annotated code as text: the lines as they were written, the thoughts marked, each with what it was worth."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from ra3kit.data.encode import decode_ids
from ra3kit.data.trajectory import Trajectory

CODE, THOUGHT, LEFT_OUT = "  ", "> ", "~ "
"""What a printed line begins with: code, a thought, code that no snippet holds. `line[2:]` is the line itself."""

CYAN, DIM, RESET = "\033[36m", "\033[2m", "\033[0m"
GAIN_COLOURS = ((1.0, "\033[1;32m"), (0.1, "\033[32m"), (-0.1, DIM), (-1.0, "\033[31m"), (float("-inf"), "\033[1;31m"))
"""Nats from which on a gain has a colour: bright green, green, dim, red, bright red."""


def render(trajectory: Trajectory, tokenizer: PreTrainedTokenizerBase, gains: Mapping[int, float] | None = None) -> str:
    """The snippet's text with its thoughts; a thought's line begins with ">" and ends with its information gain.

    Args:
        trajectory: with or without thoughts.
        tokenizer: its tokenizer.
        gains: nats by line index, from `ra3kit.abstraction.evaluate.thought_gains`.
    """
    out: list[str] = []
    for line in range(len(trajectory.lines)):
        thought, code = decode_ids(tokenizer, [trajectory.thought_ids(line), trajectory.line_ids(line)])
        if thought:
            out.append(thought_line(thought, (gains or {}).get(line)))
        out.append(code_lines(code.rstrip("\n")))
    return "\n".join(out)


def thought_line(thought: str, nats: float | None, tokens: int | None = None, colour: bool = False) -> str:
    """A thought on a line of its own, without line end.

    Args:
        thought: its text. What a terminal would act on is shown as U+FFFD.
        nats: its information gain, where known.
        tokens: code tokens of the lines it covers, to show the gain per token too.
        colour: for a terminal: the gain by its sign and size.

    >>> thought_line("# sort\\n", 1.5, 10)
    '> # sort   [+1.50 nats, +0.150 a token]'
    """
    text = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in thought.rstrip("\n"))
    worth = ""
    if nats is not None:
        each = "" if tokens is None else f", {nats / tokens:+.3f} a token"
        worth = f"   [{nats:+.2f} nats{each}]"
    if colour:
        return f"{CYAN}{THOUGHT}{text}{RESET}{gain_colour(nats or 0.0)}{worth}{RESET}"
    return f"{THOUGHT}{text}{worth}"


def code_lines(text: str, margin: str = CODE, colour: bool = False) -> str:
    """The text with a margin before each of its lines, nothing else changed; dim where it is left out and in colour.

    >>> code_lines("a\\n\\nb\\n")
    '  a\\n  \\n  b\\n'
    """
    lines = text.split("\n")
    closing = lines.pop() if len(lines) > 1 and not lines[-1] else None
    dim = colour and margin == LEFT_OUT
    shown = [f"{DIM}{margin}{line}{RESET}" if dim else margin + line for line in lines]
    return "\n".join(shown if closing is None else [*shown, ""])


def gain_colour(nats: float) -> str:
    """The terminal's code for the colour of a gain; a gain that is no number is red."""
    return next((colour for least, colour in GAIN_COLOURS if nats >= least), GAIN_COLOURS[-1][1])
