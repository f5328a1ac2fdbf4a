"""The compiled loops and their NumPy twins give the same bits, and both are right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonvec.weights import kernel
from reasonvec.weights.arithmetic import LaneSum
from reasonvec.weights.blocks import Scratch
from tests.checkpoints import BF16

needs_compiler = pytest.mark.skipif(kernel.compiled is None, reason="the package was built without a C compiler")
LENGTHS = (0, 1, 15, 16, 17, 1023, 1024, 1025, 40_000)


def interesting(seed, count, finite=True):
    """Arrays of bfloat16 with every kind of number in them: any bit pattern, and what a model has."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    usual = (rng.standard_normal(count) * 0.02).astype(BF16).view(np.uint16)
    bits = np.where(rng.random(count) < 0.3, patterns, usual)
    bits[rng.random(count) < 0.05] = 0x8000  # -0.0
    if finite:
        bits[(bits & 0x7F80) == 0x7F80] &= 0xBF7F
    return bits.view(BF16)


def twins(name):
    return [getattr(kernel, name), getattr(kernel, f"_{name}")]


@needs_compiler
@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("dtype", [BF16, np.float32], ids=str)
@pytest.mark.parametrize("alpha", [1.0, -0.3, 1e30])
def test_both_add_alike(count, dtype, alpha):
    weight, delta = interesting(1, count), interesting(2, count)
    delta = delta if dtype == BF16 else (delta.astype(np.float64) * 1.000001).astype(np.float32)
    outs, results = [], []
    for add in twins("add_bfloat16"):
        out = np.zeros(count, BF16)
        results.append(add(weight, delta, alpha, out))
        outs.append(out)
    assert results[0][2] == results[1][2]
    if results[0][2]:
        assert results[0] == results[1]
        assert outs[0].tobytes() == outs[1].tobytes()


@needs_compiler
@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("dtype", [BF16, np.float32], ids=str)
@pytest.mark.parametrize("alpha", [1.0, -0.3])
def test_both_round_at_random_alike(count, dtype, alpha):
    weight = interesting(11, count)
    usual = (np.random.default_rng(12).standard_normal(count) * 1e-3).astype(dtype)
    for delta in (usual, interesting(13, count).astype(dtype)):
        outs, results = [], []
        for add in twins("add_bfloat16_at_random"):
            out = np.zeros(count, BF16)
            results.append(add(weight, delta, alpha, out, 12345678901234567890, 40_000))
            outs.append(out)
        assert results[0][2] == results[1][2]
        if results[0][2]:
            assert results[0] == results[1]
            assert outs[0].tobytes() == outs[1].tobytes()


@pytest.mark.parametrize("which", [0, 1])
def test_sums_are_rounded_once_and_zeros_keep_their_bits(which):
    weight, delta = interesting(3, 5000), (np.random.default_rng(4).standard_normal(5000) * 1e-3).astype(np.float32)
    weight = weight[np.abs(weight.astype(np.float64)) < 1e30]
    delta = delta[: len(weight)]
    delta[::3] = 0
    out = np.zeros(len(weight), BF16)
    asked, realised, finite = twins("add_bfloat16")[which](weight, delta, 0.5, out)
    assert finite
    change = delta.astype(np.float64) * 0.5  # exact
    expected = (weight.astype(np.float32) + change.astype(np.float32)).astype(BF16)
    expected[::3] = weight[::3]
    assert out.tobytes() == expected.tobytes()
    assert asked == pytest.approx(float(change @ change), rel=1e-9)
    moved = out.astype(np.float64) - weight.astype(np.float64)
    assert realised == pytest.approx(float(moved @ change), rel=1e-6)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["weight", "delta"])
def test_what_is_not_finite_is_told(which, bad, where):
    arrays = {"weight": np.ones(2000, BF16), "delta": np.ones(2000, np.float32)}
    arrays[where][1999] = bad
    assert not twins("add_bfloat16")[which](arrays["weight"], arrays["delta"], 1.0, np.zeros(2000, BF16))[2]


@pytest.mark.parametrize("which", [0, 1])
def test_a_sum_beyond_the_range_is_told(which):
    weight = np.full(3, 3e38, BF16)
    assert not twins("add_bfloat16")[which](weight, np.full(3, 1e38, np.float32), 1.0, np.zeros(3, BF16))[2]


@needs_compiler
@pytest.mark.parametrize("count", LENGTHS)
def test_both_subtract_alike_and_know_when_float32_does_not_do(count):
    rng = np.random.default_rng(5)
    tuned = interesting(6, count)
    near = (tuned.astype(np.float32) * (1 + rng.standard_normal(count) * 1e-2).astype(np.float32)).astype(BF16)
    for base in (near, interesting(7, count), tuned):
        found = []
        for subtract in twins("subtract_bfloat16"):
            out = np.empty(count, np.float32)
            found.append((subtract(tuned, base, out), out))
        assert found[0][0] == found[1][0]
        exact = tuned.astype(np.float64) - base.astype(np.float64)
        if found[0][0]:
            for _, out in found:
                assert np.array_equal(out.astype(np.float64), exact)
                assert not np.signbit(out[exact == 0]).any()
            assert found[0][1].tobytes() == found[1][1].tobytes()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("tuned", "base"), [(1.0, 2.0**-60), (2.0**-60, 1.0), (3e38, -3e38), (np.nan, 1.0),
                                             (1.0, np.inf)])  # fmt: skip
def test_what_float32_does_not_hold_is_told(which, tuned, base):
    a, b = np.ones(100, BF16), np.ones(100, BF16)
    a[50], b[50] = tuned, base
    assert not twins("subtract_bfloat16")[which](a, b, np.empty(100, np.float32))


@needs_compiler
@pytest.mark.parametrize("count", LENGTHS)
def test_both_count_alike(count):
    base = interesting(8, count)
    base = np.where(np.abs(base.astype(np.float64)) > 1e10, np.ones(count, BF16), base)
    moved = base.view(np.uint16) + np.random.default_rng(9).integers(-300, 300, count) * (np.arange(count) % 3 == 0)
    bits = moved.astype(np.uint16)
    tuned = np.where((bits & 0x7F80) == 0x7F80, base.view(np.uint16), bits).view(BF16)
    difference = tuned.astype(np.float32) - base.astype(np.float32)
    found, expected = kernel.survey_bfloat16(tuned, base, difference), kernel.survey(tuned, base, difference)
    assert found == expected
    assert found.changed == np.count_nonzero(difference)
    assert sum(found.steps) == count
    assert found.squares == pytest.approx(float((difference.astype(np.float64) ** 2).sum()), rel=1e-6)


def differences(seed, count, share):
    """Mostly small steps of bfloat16, some that only float32 holds."""
    rng = np.random.default_rng(seed)
    exponent = 2.0 ** rng.integers(-20, -10, count)
    values = (exponent * rng.integers(-3, 4, count)).astype(np.float32)
    values[rng.random(count) < 0.01] *= np.float32(1.00001)
    values[rng.random(count) >= share] = 0
    return values


@pytest.mark.parametrize("count", [*LENGTHS, 1 << 18])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.2, 1.0])
def test_what_is_taken_apart_is_put_together(count, share):
    values = differences(count, count, share)
    index = np.flatnonzero(values)
    listed = kernel.take_apart_listed(index, values[index].astype(np.float64), np.zeros(index.size))
    streams = [np.copy(part) for part in kernel.take_apart(values, Scratch())]
    for mine, theirs in zip(streams, listed, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    for put in twins("put_together"):
        out = np.full(count, 7, np.float32)
        wide = put(kernel.Streams(*streams), out)
        assert len(wide) == 0
        assert out.tobytes() == (values + np.float32(0)).tobytes()


def test_more_values_than_the_palette_has_room_for_are_literals():
    rng = np.random.default_rng(0)
    patterns = rng.choice(np.arange(0x3000, 0x4000), 1000, replace=False).astype(np.uint16)
    values = np.repeat(patterns, rng.integers(1, 5, 1000)).view(BF16).astype(np.float32)
    index = np.arange(len(values))
    expected = kernel.take_apart_listed(index, values.astype(np.float64), np.zeros(len(values)))
    assert len(expected.palette) == kernel.PALETTE
    assert len(expected.literals) > 0
    for mine, theirs in zip(kernel.take_apart(values, Scratch()), expected, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    counts = dict(zip(*np.unique(values.astype(BF16).view(np.uint16), return_counts=True), strict=True))
    left = min(counts[symbol] for symbol in expected.palette.tolist())
    assert all(counts[int(bits)] <= left for bits in expected.literals.astype(BF16).view(np.uint16))


@needs_compiler
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_both_refuse_the_same_hostile_streams(data):
    small = st.integers(0, 8)
    count = data.draw(st.integers(0, 600))
    streams = kernel.Streams(
        np.arange(data.draw(small), dtype=np.uint16) + 0x3000,
        np.array(data.draw(st.lists(st.sampled_from([0, 1, 5, 200, 254, 255]), max_size=8)), np.uint8),
        np.array(data.draw(st.lists(st.sampled_from([0, 1, 3, 253, 254, 255]), max_size=8)), np.uint8),
        np.ones(data.draw(small), np.float32),
        np.ones(2 * data.draw(small), np.float64),
    )
    found = []
    for put in twins("put_together"):
        out = np.zeros(count, np.float32)
        wide = put(streams, out)
        found.append(None if wide is None else (wide.tolist(), out.tobytes()))
    assert found[0] == found[1]


def taken_apart(values, length):
    """The streams of each block of `length` entries."""
    starts = range(0, max(len(values), 1), length)
    parts = [kernel.take_apart(values[start : start + length], Scratch()) for start in starts]
    return [kernel.Streams(*(np.copy(stream) for stream in part)) for part in parts]


@pytest.mark.parametrize(
    ("count", "length"),
    [(count, length) for count in (*LENGTHS, 1 << 18) for length in (64, 4096, 1 << 18) if count <= 256 * length],
)
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.2, 1.0])
@pytest.mark.parametrize("alpha", [1.0, -0.3])
def test_a_patch_is_the_sum_and_is_put_back(count, share, alpha, length):
    """`add_bfloat16` is the oracle of the sum; both twins do the same to the bit."""
    values, weight = differences(count + 1, count, share), interesting(14, count)
    weight[np.abs(weight.astype(np.float32)) > 1e30] = 1
    blocks = taken_apart(values, length)
    touched = values != 0
    expected = np.empty(count, BF16)
    asked, realised, _ = kernel.add_bfloat16(weight, values, alpha, expected)
    differs = expected.view(np.uint16) != weight.view(np.uint16)
    found = []
    for patch in twins("patch_bfloat16"):
        patched = weight.copy()
        mask, old = np.zeros(-(-count // 8), np.uint8), np.zeros(touched.sum(), np.uint16)
        done = patch(patched, blocks, length, alpha, mask, old)
        assert done.finite
        assert patched.tobytes() == expected.tobytes()
        assert done.changed == differs.sum()
        assert mask.tobytes() == np.packbits(touched, bitorder="little").tobytes()
        assert old.tobytes() == weight.view(np.uint16)[touched].tobytes()
        assert (done.asked, done.realised) == pytest.approx((asked, realised), rel=1e-9)
        found.append(done)
        for whole in (np.uint16, np.uint32):  # the second has no compiled twin
            bits = patched.view(np.uint16).astype(whole)
            kernel.put_back(bits, mask, old.astype(whole))
            assert bits.astype(np.uint16).tobytes() == weight.tobytes()
    assert found[0] == found[1]


def test_an_undo_with_too_few_entries_is_an_error():
    with pytest.raises(ValueError):
        kernel.put_back(np.zeros(9, np.uint16), np.array([255, 1], np.uint8), np.zeros(3, np.uint16))
    with pytest.raises(ValueError):
        kernel.put_back(np.zeros(9, np.uint32), np.array([255, 1], np.uint8), np.zeros(3, np.uint32))


@needs_compiler
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_patch_refuses_the_streams_that_do_not_fit_and_can_be_put_back(data):
    small = st.integers(0, 8)
    count = data.draw(st.integers(0, 600))
    streams = kernel.Streams(
        np.arange(data.draw(small), dtype=np.uint16) + 0x3000,
        np.array(data.draw(st.lists(st.sampled_from([0, 1, 5, 200, 254, 255]), max_size=8)), np.uint8),
        np.array(data.draw(st.lists(st.sampled_from([0, 1, 3, 253, 254, 255]), max_size=8)), np.uint8),
        np.ones(data.draw(small), np.float32),
        np.ones(0, np.float64),
    )
    fits = kernel.put_together(streams, np.zeros(count, np.float32)) is not None
    (first,) = taken_apart(np.ones(1024, np.float32), 1024)
    for patch in twins("patch_bfloat16"):
        weight = np.zeros(1024 + count, BF16)  # a block that fits goes before, and has to come off as well
        touched = np.zeros(128 + -(-count // 8), np.uint8)
        blocks = [first, streams] if count else [first]
        old = np.zeros(sum(len(block.symbols) for block in blocks), np.uint16)
        assert (patch(weight, blocks, 1024, 1.0, touched, old) is not None) == (fits or not count)
        kernel.put_back(weight.view(np.uint16), touched, old)
        assert not weight.view(np.uint16).any()


@needs_compiler
def test_a_patch_wants_as_many_blocks_as_the_weights_have():
    (streams,) = taken_apart(np.ones(64, np.float32), 64)
    weight, touched, old = np.zeros(64, BF16), np.zeros(8, np.uint8), np.zeros(64, np.uint16)
    for blocks, length in (([streams, streams], 64), ([], 64), ([streams], 32), ([streams], 12), ([streams], 0)):
        with pytest.raises(ValueError):
            kernel.patch_bfloat16(weight, blocks, length, 1.0, touched, old)
    with pytest.raises(ValueError):
        kernel.patch_bfloat16(weight, [streams], 64, 1.0, touched, old[:-1])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bad", ["weight", "sum"])
def test_a_patch_tells_what_is_not_finite(which, bad):
    values = np.zeros(2000, np.float32)
    values[1999] = 3e38 if bad == "sum" else 1
    weight = np.full(2000, 3e38, BF16)
    if bad == "weight":
        weight[7] = np.nan
    before = weight.tobytes()
    blocks = taken_apart(values, 512)
    touched, old = np.zeros(250, np.uint8), np.zeros(1, np.uint16)
    assert not twins("patch_bfloat16")[which](weight, blocks, 512, 1.0, touched, old).finite
    kernel.put_back(weight.view(np.uint16), touched, old)
    assert weight.tobytes() == before


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32, np.float64], ids=str)
def test_finite_is_told_from_not(dtype, bad):
    values = np.ones(4099, dtype)
    assert kernel.all_finite(values)
    values[4098] = bad
    assert not kernel.all_finite(values)
    assert kernel.all_finite(np.zeros(0, dtype))


def test_lanes_are_added_row_by_row():
    """The order that the compiled loops have, written out."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(5000), rng.standard_normal(5000)
    sums = LaneSum()
    sums.add(a[:1600], b[:1600])
    sums.add(a[1600:], b[1600:])
    lanes = [0.0] * 16
    for i in range(5000):
        lanes[i % 16] += float(a[i]) * float(b[i])
    assert sums.total() == sum(lanes)
