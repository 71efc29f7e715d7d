"""Values on the wire: a closed set of exact types.

A program's answers are written by `marshal` (C, exact types only, version 2: no references, so equal bytes mean equal
values) and never read by it: `decode` below is a reader of our own that can build nothing but plain values. What
marshal can't write goes as a tree of tagged tuples.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import hashlib
import marshal
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

VERSION = 2
PLAIN, TREE = b"V", b"X"
MAX_DEPTH = 200
MAX_DECIMAL_DIGITS = 10_000
MAX_FRACTION_BITS = 30_000

_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes, type(Ellipsis)})
_CONTAINED = frozenset({list, tuple, set, frozenset, dict})


class WireError(ValueError):
    """Bytes that no encoder of ours writes, or a value nested too deeply."""


@dataclass(frozen=True)
class Packed:
    """Stands for a long expected value.

    Args:
        digest: sha256 of its kind and payload. size: of the payload, in bytes.
        content: the payload, of kind PLAIN, compressed; None: too long to keep, right answers have the same bytes.
    """

    digest: bytes
    size: int
    content: bytes | None

    def __repr__(self) -> str:
        return f"<a value of {self.size} bytes>"


def packed(payload: bytes) -> Packed:
    """Of a PLAIN payload."""
    return Packed(hashlib.sha256(PLAIN + payload).digest(), len(payload), zlib.compress(payload, 1))


def unpacked(value: Any) -> Any:
    """The value itself, where a packed one stands for it."""
    if isinstance(value, Packed) and value.content is not None:
        return marshal.loads(zlib.decompress(value.content))
    return value


class Opaque:
    """Stands for an object that stayed in its own process; equal to nothing but itself.

    Args:
        name: of its class. number: by which its process can be asked about it, -1 where it can't.
    """

    def __init__(self, name: str, number: int = -1):
        self.name = name
        self.number = number

    def __repr__(self) -> str:
        return f"<{self.name} object>"


Export = Callable[[Any], int]
"""Keeps an object that can't travel and gives it a number."""


def _keep_nothing(value: Any) -> int:
    return -1


def encode(value: Any, export: Export = _keep_nothing) -> tuple[bytes, bytes]:
    """(PLAIN or TREE, payload). Raises WireError when nested too deeply, RecursionError and MemoryError as they
    come."""
    try:
        payload = marshal.dumps(value, VERSION)
    except ValueError:  # a type marshal doesn't know, or too deep
        return TREE, marshal.dumps(_tree(value, 0, export), VERSION)
    # marshal writes whatever has a buffer as if it were bytes. That matters for numpy's, which equal plain numbers
    if b"s" in payload and "numpy" in sys.modules and not _is_plain(value):
        return TREE, marshal.dumps(_tree(value, 0, export), VERSION)
    return PLAIN, payload


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return _all_plain(value) and _all_plain(value.values())
    return kind in _SCALARS or (kind in _CONTAINED and _all_plain(value))


def _all_plain(items: Iterable[Any]) -> bool:
    kinds = set(map(type, items))  # most containers hold scalars only, and this is fast
    return kinds <= _SCALARS or (kinds <= _CONTAINED | _SCALARS and all(map(_is_plain, items)))


def _tree(value: Any, depth: int, export: Export) -> Any:
    """Tagged tuples for a value; subclasses of plain types are taken for what they hold."""
    if depth > MAX_DEPTH:
        raise WireError(f"nested more than {MAX_DEPTH} deep")
    kind = type(value)
    if kind in _SCALARS:
        return ("=", value)
    if isinstance(value, dict):
        tag = "Counter" if isinstance(value, collections.Counter) else "dict"
        return (tag, [(_tree(k, depth + 1, export), _tree(v, depth + 1, export)) for k, v in dict.items(value)])
    for base in (list, tuple, set, frozenset):
        if isinstance(value, base):
            items: Any = base.__iter__  # not the subclass's own
            return (base.__name__, [_tree(item, depth + 1, export) for item in items(value)])
    if isinstance(value, collections.deque):
        return ("deque", [_tree(item, depth + 1, export) for item in collections.deque.__iter__(value)])
    if (found := _leaf(value)) is not None:
        return found
    if kind.__module__ == "numpy" and "numpy" in sys.modules:
        return _numpy_tree(value, depth, export)
    if kind in (type({}.keys()), type({}.items())):
        return ("set", [_tree(item, depth + 1, export) for item in value])
    return ("?", (f"{kind.__module__}.{kind.__qualname__}"[:200], export(value)))


_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}


def _leaf(value: Any) -> Any:
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return ("type", value.__name__)
    if isinstance(value, Packed):
        return ("packed", (value.digest, value.size, value.content))
    if isinstance(value, decimal.Decimal):
        return ("Decimal", decimal.Decimal.__str__(value))
    if isinstance(value, fractions.Fraction):
        return ("Fraction", (int(value.numerator), int(value.denominator)))
    if isinstance(value, range):
        return ("range", (value.start, value.stop, value.step))
    if isinstance(value, bytearray):
        return ("bytearray", bytes(value))
    if isinstance(value, datetime.timedelta):
        return ("timedelta", (value.days, value.seconds, value.microseconds))
    for base in (datetime.datetime, datetime.date, datetime.time):  # a datetime is a date
        if isinstance(value, base):
            isoformat: Any = base.isoformat
            return (base.__name__, isoformat(value))
    conversions: tuple[tuple[type, Any], ...] = ((int, int.__int__), (float, float.__float__), (str, str.__str__))
    for plain, convert in conversions:
        if isinstance(value, plain):
            return ("=", plain(convert(value)))
    return None


def _numpy_tree(value: Any, depth: int, export: Export) -> Any:
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.generic) and value.dtype.kind in "biufcSU":
        return ("scalar", (value.dtype.str, value.item()))
    if isinstance(value, numpy.ndarray) and value.dtype.kind in "biufcSU":
        return ("array", (value.dtype.str, value.shape, value.ravel().tolist()))
    if isinstance(value, numpy.ndarray):
        return ("list", [_tree(item, depth + 1, export) for item in value.tolist()])
    return ("?", (f"numpy.{type(value).__qualname__}"[:200], export(value)))


def own(kind: bytes, payload: bytes) -> Any:
    """The value of bytes we have written ourselves; much faster than `decode`."""
    return marshal.loads(payload) if kind == PLAIN else decode(kind, payload, _ours)


Resolve = Callable[[Opaque], Any]
"""What to put where an object was that didn't travel."""


def _as_it_is(value: Opaque) -> Any:
    return value


def _ours(value: Opaque) -> Any:
    """As it is; and the bytes are our own, so packed values may stand in them."""
    return value


def decode(kind: bytes, payload: bytes, resolve: Resolve = _as_it_is) -> Any:
    """The value. The bytes may be hostile: costs are linear in their number but for hashing, memory is bounded by it.

    Raises:
        WireError: not what an encoder writes.
    """
    value = _Reader(payload).whole()
    if kind == PLAIN:
        return value
    if kind == TREE:
        return _plant(value, resolve)
    raise WireError(f"kind {kind!r}")


def holds_opaque(kind: bytes, payload: bytes) -> bool:
    """Whether something in the value stayed in its own process."""
    found: list[Opaque] = []

    def note(value: Opaque) -> Opaque:
        found.append(value)
        return value

    decode(kind, payload, note)
    return bool(found)


class _Reader:
    """Reads marshal's version 2 format, data types only."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def whole(self) -> Any:
        value = self.value(0)
        if self.at != len(self.data):
            raise WireError("bytes left over")
        return value

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if size < 0 or len(piece) != size:
            raise WireError("cut short")
        self.at += size
        return piece

    def size(self) -> int:
        (size,) = struct.unpack("<i", self.take(4))
        if size < 0 or size > len(self.data):
            raise WireError(f"size {size}")
        return int(size)

    def value(self, depth: int) -> Any:
        if depth > 4 * MAX_DEPTH:
            raise WireError("nested too deeply")
        tag = self.take(1)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag == b"i":
            return struct.unpack("<i", self.take(4))[0]
        if tag == b"g":
            return struct.unpack("<d", self.take(8))[0]
        if tag == b"y":
            return complex(*struct.unpack("<dd", self.take(16)))
        if tag == b"u":
            return self.text(self.take(self.size()))
        if tag == b"s":
            return self.take(self.size())
        if tag == b"l":
            return self.integer()
        if tag in _SEQUENCES:
            return _build(_SEQUENCES[tag], [self.value(depth + 1) for _ in range(self.size())])
        if tag == b"{":
            return _build(dict, list(self.pairs(depth + 1)))
        raise WireError(f"tag {tag!r}")

    @staticmethod
    def text(raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise WireError("not UTF-8") from error

    def integer(self) -> int:
        (count,) = struct.unpack("<i", self.take(4))
        digits = struct.unpack(f"<{abs(count)}H", self.take(2 * abs(count)))
        if any(digit > 0x7FFF for digit in digits):
            raise WireError("digit")
        # base 2 is read in linear time, and without Python's limit on decimal digits
        magnitude = int("".join(f"{digit:015b}" for digit in reversed(digits)) or "0", 2)
        return -magnitude if count < 0 else magnitude

    def pairs(self, depth: int) -> Iterable[tuple[Any, Any]]:
        while self.data[self.at : self.at + 1] != b"0":
            yield self.value(depth), self.value(depth)
        self.at += 1


_CONSTANTS = {b"N": None, b"T": True, b"F": False, b".": Ellipsis}
_SEQUENCES: dict[bytes, Callable[[list[Any]], Any]] = {b"(": tuple, b"[": list, b"<": set, b">": frozenset}


def _build(make: Callable[[Any], Any], items: list[Any]) -> Any:
    try:
        return make(items)
    except TypeError as error:  # a list as a key
        raise WireError(str(error)) from error


def _plant(node: Any, resolve: Resolve) -> Any:
    """The value of a tagged tree."""
    if type(node) is not tuple or len(node) != 2 or type(node[0]) is not str:
        raise WireError("not a node")
    tag, body = node
    if tag == "=":
        if type(body) not in _SCALARS:
            raise WireError("not a scalar")
        return body
    try:
        if tag == "?":
            name, number = body
            return resolve(Opaque(str(name)[:200], int(number)))
        if tag == "packed" and resolve is _ours:
            return Packed(*body)
        if tag in _CONTAINERS:
            return _CONTAINERS[tag]([_plant(item, resolve) for item in body])
        if tag in _MAPPINGS:
            return _MAPPINGS[tag]([(_plant(key, resolve), _plant(value, resolve)) for key, value in body])
        return _LEAVES[tag](body)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise WireError(f"{tag!r}: {error}"[:300]) from error


def _decimal(body: Any) -> decimal.Decimal:
    if len(body) > MAX_DECIMAL_DIGITS:
        raise WireError("a Decimal of too many digits")
    return decimal.Decimal(body)


def _fraction(body: Any) -> fractions.Fraction:
    if any(number.bit_length() > MAX_FRACTION_BITS for number in body):
        raise WireError("a Fraction of too many bits: reducing it takes their square")
    return fractions.Fraction(*body)


def _array(body: Any) -> Any:
    import numpy

    kind, shape, items = body
    return numpy.array(items, dtype=_dtype(kind)).reshape(shape)


def _scalar(body: Any) -> Any:
    kind, item = body
    return _dtype(kind).type(item)


def _dtype(text: str) -> Any:
    import numpy

    dtype = numpy.dtype(text)
    if dtype.kind not in "biufcSU":
        raise WireError(f"dtype {text}")
    return dtype


_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
_MAPPINGS: dict[str, Callable[[list[tuple[Any, Any]]], Any]] = {
    "dict": dict,
    "Counter": lambda items: collections.Counter(dict(items)),
}
_LEAVES: dict[str, Callable[[Any], Any]] = {
    "type": _TYPES.__getitem__,
    "Decimal": _decimal,
    "Fraction": _fraction,
    "range": lambda body: range(*body),
    "bytearray": bytearray,
    "timedelta": lambda body: datetime.timedelta(*body),
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "array": _array,
    "scalar": _scalar,
}
