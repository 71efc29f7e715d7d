"""The true intents of a family's programs, seen from the snippets that were made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ra3kit.data.encode import decode_ids
from ra3kit.data.trajectory import Trajectory
from ra3kit.errors import DataError
from ra3kit.study.family import Program, find_family


class Truth:
    """Programs of a corpus by name.

    Args:
        programs: with unique names.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = {program.name: program for program in programs}

    @staticmethod
    def of(corpus: str) -> Truth:
        """The truth about a corpus by its name in a recipe, as in "family:expert:world=3".

        Raises:
            DataError: the name is none of a family's corpus.
        """
        found = find_family(corpus, ("base", "expert"))
        if found.part is None:
            raise DataError(f"corpus={corpus!r}: which corpus? family:base or family:expert.")
        return Truth(list(found.programs()))

    @property
    def intents(self) -> tuple[str, ...]:
        """Names of all intents of the programs, sorted."""
        return tuple(sorted({segment.intent for program in self.programs.values() for segment in program.truth}))

    def intents_of(self, snippet: Trajectory, tokenizer: Any) -> dict[int, str]:
        """Line of the snippet (from 0) -> the intent that begins there.

        Args:
            snippet: a whole program of the corpus, `name#0`; thoughts in it are not read.
            tokenizer: that encoded it.

        Raises:
            DataError: it is no program of this corpus, or only a part of one.
        """
        name = snippet.snippet_id.rsplit("#", 1)[0]
        if name not in self.programs:
            raise DataError(
                f"{snippet.snippet_id}: no program of this corpus. It has, e.g., {next(iter(self.programs))}."
            )
        program = self.programs[name]
        lines = decode_ids(tokenizer, [snippet.line_ids(i) for i in range(len(snippet.lines))])
        if "".join(lines) != program.text:
            raise DataError(
                f"{snippet.snippet_id}: its text is not that of the program. Raise data.max_tokens and data.max_lines "
                "until no program is cut, and keep docstrings."
            )
        begins, line = {}, 0
        for number, text in enumerate(lines):
            begins[line] = number
            line += text.count("\n")
        return {begins[segment.line]: segment.intent for segment in program.truth if segment.line in begins}
