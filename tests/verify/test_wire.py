import collections
import datetime
import decimal
import fractions
import marshal
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3kit.verify.jail import frames, wire

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**80), max_value=10**80)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
    ),
    max_leaves=20,
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_plain_values_come_back_with_their_exact_types(value):
    kind, payload = wire.encode(value)
    assert kind == wire.PLAIN
    assert same_typed(wire.decode(kind, payload), value)
    assert same_typed(wire.own(kind, payload), value)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_the_tree_form_carries_the_same_values(value):
    payload = marshal.dumps(wire._tree(value, 0, lambda _: -1), wire.VERSION)
    assert same_typed(wire.decode(wire.TREE, payload), value)


def same_typed(one, other) -> bool:
    """Equal, and 1, 1.0 and True differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same_typed(a, b) and same_typed(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same_typed, one, other))
    return one == other


def test_equal_bytes_whatever_objects_are_shared():
    shared = ["x" * 3] * 2
    separate = ["".join(["x", "xx"]), "xx" + "x"]
    assert wire.encode(shared) == wire.encode(separate)


class Sly(list):
    def __eq__(self, other):
        return True

    def __iter__(self):
        return iter([42])


NAMED = collections.namedtuple("NAMED", "x y")


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (collections.Counter("aab"), collections.Counter("aab")),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(int, {1: 2}), {1: 2}),
        (collections.deque([1, 2]), collections.deque([1, 2])),
        (NAMED(1, 2), (1, 2)),
        (Sly([1, 2]), [1, 2]),
        (decimal.Decimal("1.20"), decimal.Decimal("1.20")),
        (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
        (range(1, 9, 2), range(1, 9, 2)),
        (datetime.date(2020, 1, 2), datetime.date(2020, 1, 2)),
        (datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.datetime(2020, 1, 2, 3, 4, 5, 6)),
        (datetime.timedelta(1, 2, 3), datetime.timedelta(1, 2, 3)),
        ({1: 0}.keys(), {1}),
        (int, int),
        (dict, dict),
        ("a\ud800", "a\ud800"),
    ],
)
def test_other_types_travel_as_what_they_hold(value, back):
    got = wire.decode(*wire.encode(value))
    assert got == back
    assert type(got) is type(back)


def test_numpy_scalars_are_numbers_not_bytes():
    got = wire.decode(*wire.encode([np.int64(3), np.float32(0.5), np.bool_(True)]))
    assert got == [3, 0.5, True]
    assert type(got[0]) is np.int64


def test_numpy_arrays_keep_shape_and_dtype():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    got = wire.decode(*wire.encode(array))
    assert got.dtype == array.dtype
    assert (got == array).all()
    assert got.shape == (2, 3)


def test_an_object_that_cannot_travel_equals_nothing():
    got = wire.decode(*wire.encode([object()]))[0]
    assert isinstance(got, wire.Opaque)
    assert got.name == "builtins.object"
    assert wire.holds_opaque(*wire.encode([object()]))
    assert not wire.holds_opaque(*wire.encode([decimal.Decimal(1)]))


def test_cycles_and_deep_nests_are_errors_not_crashes():
    cyclic: list = []
    cyclic.append(cyclic)
    with pytest.raises((wire.WireError, RecursionError)):
        wire.encode(cyclic)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises((wire.WireError, RecursionError)):
        wire.encode(deep)


def test_code_objects_are_not_values():
    payload = marshal.dumps(compile("1", "x", "eval"), wire.VERSION)
    with pytest.raises(wire.WireError):
        wire.decode(wire.PLAIN, payload)


@pytest.mark.parametrize("kind", [wire.PLAIN, wire.TREE])
def test_damaged_bytes_raise_only_a_wire_error(kind):
    rng = random.Random(0)
    values = [[1, "ab", (2.5, {"k": {1, 2}})], {"a": decimal.Decimal(1)}, np.ones(3), 2**100, [None, ..., b"q"]]
    for value in values:
        payload = wire.encode(value)[1]
        for _ in range(400):
            broken = bytearray(payload)
            for _ in range(rng.randrange(1, 4)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            broken = broken[: rng.randrange(1, len(broken) + 1)]
            try:
                wire.decode(kind, bytes(broken))
            except wire.WireError:
                continue
            except (MemoryError, RecursionError):
                pytest.fail("decoding takes more than its bytes are worth")


def test_sizes_that_lie_are_caught_before_memory_is_taken():
    with pytest.raises(wire.WireError):
        wire.decode(wire.PLAIN, b"[" + (2**31 - 1).to_bytes(4, "little"))
    with pytest.raises(wire.WireError):
        wire.decode(wire.PLAIN, b"[" + (-1).to_bytes(4, "little", signed=True))


def test_integers_of_any_length():
    for value in (2**15_000, -(2**15_000), 10**5_000 + 1):
        assert wire.decode(*wire.encode(value)) == value


def test_a_packed_value_stands_for_its_bytes():
    value = list(range(5_000))
    kind, payload = wire.encode(value)
    packed = wire.packed(payload)
    assert wire.unpacked(packed) == value
    assert frames.digest(packed.digest, packed.size) == frames.answer(kind, payload, frames.LONG)
    again = wire.own(*wire.encode([packed]))[0]
    assert again == packed
    assert wire.unpacked([1]) == [1]


def test_nan_is_carried():
    assert math.isnan(wire.decode(*wire.encode(math.nan)))


@given(st.lists(st.tuples(st.sampled_from([b"V", b"E", b"D"]), st.binary(max_size=50))), st.integers(0, 40))
def test_frames_come_back_and_a_torn_one_waits(items, torn):
    data = b"".join(frames.pack(*item) for item in items)
    found, end = frames.unpack(data, len(items) + 1)
    assert [tuple(frame) for frame in found] == items
    assert end == len(data)
    cut = data[: max(0, len(data) - torn)]
    found, end = frames.unpack(cut, len(items) + 1)
    assert [tuple(frame) for frame in found] == items[: len(found)]
    assert len(found) == len(items) or end <= len(cut)


def test_a_long_answer_goes_as_its_digest():
    long, short = b"x" * frames.LONG, b"x" * (frames.LONG - 1)
    assert frames.answer(b"V", short, frames.LONG) == frames.pack(b"V", short)
    assert frames.answer(b"V", long, frames.HUGE) == frames.pack(b"V", long)
    digest = frames.answer(b"V", long, frames.LONG)
    assert digest[:1] == frames.DIGEST
    assert digest != frames.answer(b"X", long, frames.LONG)
    assert len(digest) == frames.HEADER.size + 40
