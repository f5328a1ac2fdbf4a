"""The stream: pinned, uniform, and keyed by every part of its key."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.perturbations.stream import RandomStream


def test_draws_are_blake2b_of_key_and_counter():
    key = hashlib.blake2b(b"1:a1:7", digest_size=32).digest()
    blocks = (hashlib.blake2b((n).to_bytes(8, "little"), key=key, digest_size=8).digest() for n in (1, 2, 3))
    stream = RandomStream("a", 7)
    assert [stream.below(1000) for _ in range(3)] == [int.from_bytes(block, "little") % 1000 for block in blocks]


def test_where_a_key_is_cut_matters():
    keys = [("a", "b/c"), ("a/b", "c"), ("ab", "c"), ("a", "bc"), ("a", 1, 2), ("a", 12)]
    assert len({RandomStream(*key).below(1 << 64) for key in keys}) == len(keys)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10])
def test_draws_are_uniform(limit):
    stream = RandomStream("uniform", limit)
    counts = [0] * limit
    for _ in range(4000):
        counts[stream.below(limit)] += 1
    expected = 4000 / limit
    assert all(abs(count - expected) <= 5 * (expected * (1 - 1 / limit)) ** 0.5 for count in counts)


@given(st.lists(st.integers()), st.integers())
def test_shuffling_keeps_what_there_is(items, seed):
    assert sorted(RandomStream(seed).shuffled(items)) == sorted(items)


def test_every_order_is_drawn():
    stream = RandomStream("orders")
    assert len({tuple(stream.shuffled("abcd")) for _ in range(600)}) == 24


@given(st.integers(-100, 100), st.integers(0, 100), st.integers())
def test_between_includes_both_ends(low, width, seed):
    assert low <= RandomStream(seed).between(low, low + width) <= low + width


@pytest.mark.parametrize("limit", [0, -1, (1 << 64) + 1])
def test_a_limit_that_nothing_is_below_is_refused(limit):
    with pytest.raises(ValueError, match="Nothing can be drawn below"):
        RandomStream("x").below(limit)
