"""Frames: one byte of kind, four of length, a payload. What a program's process says is made of these."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import NamedTuple

HEADER = struct.Struct("<cI")

ERROR, MEMORY, CALL_TIME, LOAD_ERROR, DONE = b"E", b"M", b"T", b"L", b"D"
"""Besides wire's PLAIN and TREE answers: an exception, out of memory, out of a call's time, the program didn't load,
all calls made."""

SCRIPT_ERROR, SCRIPT_MEMORY = 77, 78
"""Exit codes of a script that raised."""

DIGEST = b"H"
"""Stands for a long answer: its sha256. Right answers need no more; for others the program runs again."""
LONG, HUGE = 1 << 13, 1 << 26
"""Bytes from which an answer is long, and from which only its digest is ever known: of an answer, and of what is
expected."""

MAX_MESSAGE = 2_000


class Frame(NamedTuple):
    kind: bytes
    payload: bytes


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return HEADER.pack(kind, len(payload)) + payload


def answer(kind: bytes, payload: bytes, long: int) -> bytes:
    """The frame of an answer; one of `long` bytes or more only as its digest."""
    if len(payload) < long:
        return HEADER.pack(kind, len(payload)) + payload
    hasher = hashlib.sha256(kind)
    hasher.update(payload)
    return digest(hasher.digest(), len(payload))


def digest(sha256: bytes, size: int) -> bytes:
    """The frame of an answer that comes as its digest."""
    return pack(DIGEST, sha256 + size.to_bytes(8, "little"))


def unpack(data: bytes, most: int) -> tuple[list[Frame], int]:
    """The first whole frames, at most so many, and where the rest begins."""
    frames: list[Frame] = []
    start = 0
    while len(frames) < most and start + HEADER.size <= len(data):
        kind, size = HEADER.unpack_from(data, start)
        end = start + HEADER.size + size
        if end > len(data):
            break
        frames.append(Frame(kind, data[start + HEADER.size : end]))
        start = end
    return frames, start


def describe_error(error: BaseException) -> bytes:
    """An exception as a payload: type and message. The program's own classes may misbehave here too."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # its __str__ raised
        text = type(error).__name__
    return text.encode("utf-8", "replace")[:MAX_MESSAGE]


def write(descriptor: int, data: bytes) -> None:
    """All of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_frame(descriptor: int) -> Frame | None:
    """The next frame of a blocking stream; None at its end, however ragged."""
    if (header := _read(descriptor, HEADER.size)) is None:
        return None
    kind, size = HEADER.unpack(header)
    if (payload := _read(descriptor, size)) is None:
        return None
    return Frame(kind, payload)


def _read(descriptor: int, size: int) -> bytes | None:
    pieces = []
    while size:
        piece = os.read(descriptor, min(size, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
