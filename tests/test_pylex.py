from __future__ import annotations

import io
import tokenize

from hypothesis import given
from samples import programs, texts

from ra3kit.pylex import scan


def comments_of_tokenize(text: str) -> list[tuple[int, int]]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return [
        (starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1])
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]


def test_comments_are_those_of_tokenize_on_real_files(stdlib_texts: list[tuple[str, str]]) -> None:
    checked = 0
    for name, text in stdlib_texts:
        if "\r" not in text:
            assert scan(text).comments == comments_of_tokenize(text), name
            checked += len(scan(text).comments)
    assert checked > 1000


@given(programs)
def test_comments_are_those_of_tokenize_on_programs(program: str) -> None:
    assert scan(program).comments == comments_of_tokenize(program)


@given(texts)
def test_any_text_can_be_scanned(text: str) -> None:
    found = scan(text)
    assert found.line_starts == sorted(set(found.line_starts))
    assert found.logical_starts <= {*found.line_starts, 0, len(text)}
    end = 0
    for start, stop in found.comments:
        assert end <= start < stop
        assert text[start] == "#"
        assert "\n" not in text[start:stop]
        assert "\r" not in text[start:stop]
        end = stop


def test_crlf_is_one_line_end() -> None:
    assert scan("a\r\nb\r\n").line_starts == [0, 3]
    assert scan("a  # c\r\n").comments == [(3, 6)]
