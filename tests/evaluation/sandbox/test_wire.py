"""Values on the wire: what is plain comes back equal and of the base type; no line does more than raise ValueError."""

import enum
import json
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.sandbox.wire import MAX_LINE, Lines, NotPlainError, PipeClosedError, decode, encode, send

simple = (st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
          | st.complex_numbers(allow_nan=False))  # fmt: skip
hashable = st.recursive(simple, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
plain = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(hashable, inner, max_size=3) | st.sets(hashable, max_size=3)
    ),
    max_leaves=8,
)
Point = namedtuple("Point", "x y")
Colour = enum.IntEnum("Colour", "RED GREEN")


class Name(str):
    __slots__ = ()


@given(plain)
def test_a_plain_value_comes_back_as_it_was(value):
    assert decode(encode(value)) == value
    assert type(decode(encode(value))) is type(value)
    assert encode(value).count(b"\n") == 1


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -0.0, 10**20000, -(2**64), True, 1, 1.0, "\ud800", "\n", complex(0, -0.0)],
    ids=lambda value: type(value).__name__,
)
def test_numbers_and_texts_at_the_edge_come_back_bit_for_bit(value):
    back = decode(encode(value))
    assert type(back) is type(value)
    assert json.dumps(str(back)) == json.dumps(str(value)) if not isinstance(value, int) else back == value


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Point(1, 2), (1, 2)),
        ([Point(1, Counter())], [(1, {})]),
        (Colour.RED, 1),
        (Name("x"), "x"),
        (bytearray(b"x"), b"x"),
        ({Point(1, 2): Colour.GREEN}, {(1, 2): 2}),
    ],
)
def test_a_subclass_becomes_its_base_which_is_equal(value, base):
    back = decode(encode(value))
    assert back == base == value
    assert type(back) is type(base)


@pytest.mark.parametrize(
    "value", [object(), len, lambda: 0, iter([]), range(3), Fraction(1, 2), deque(), {}.keys(), int, ..., [[object()]]]
)
def test_what_is_not_plain_is_refused_by_name(value):
    with pytest.raises(NotPlainError, match="^a "):
        encode(value)


def test_what_is_too_deep_or_too_long_is_refused():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    with pytest.raises(NotPlainError, match="nested more than 100 deep"):
        encode(deep)
    with pytest.raises(NotPlainError, match="more than 4 MiB"):
        encode("x" * MAX_LINE)


tags = st.sampled_from(["int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset", "eval"])
documents = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats() | tags,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(tags, inner) | st.dictionaries(st.text(), inner, max_size=2),
)


@given(documents.map(json.dumps).map(str.encode) | st.binary())
def test_any_line_is_a_value_or_a_value_error(line):
    try:
        value = decode(line)
    except ValueError:
        return
    assert decode(encode(value)) == value or value != value or "nan" in repr(value)


def test_lines_are_read_one_by_one_and_up_to_a_length():
    reading, writing = os.pipe()
    lines = Lines(reading)
    assert not lines.more()
    send(writing, b"one\ntwo\nthr")
    assert lines.next() == b"one"
    assert lines.more()
    assert lines.next() == b"two"
    os.close(writing)
    with pytest.raises(PipeClosedError):
        lines.next()
    os.close(reading)

    reading, writing = os.pipe()
    sender = threading.Thread(target=send, args=(writing, b"x" * (MAX_LINE + 2**16)))
    sender.start()
    with pytest.raises(ValueError, match="too long"):
        Lines(reading).next()
    os.set_blocking(reading, False)
    while sender.is_alive():
        sender.join(0.01)
        try:
            os.read(reading, 1 << 20)
        except BlockingIOError:
            continue
    os.close(reading)
    os.close(writing)
