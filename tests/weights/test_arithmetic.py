"""The arithmetic on tiles against exact rational numbers (fractions.Fraction), which share no code with it."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.weights.arithmetic import (
    STEP_BINS,
    add,
    add_stochastically,
    has_non_finite,
    random_words,
    step_histogram,
    stream_key,
    subtract,
)
from reasonvec.weights.dtypes import FLOATS
from tests.checkpoints import BF16
from tests.checkpoints import FLOATS as DTYPES


def finite_bits(dtype):
    """Arrays of any finite values of a dtype, drawn by bit pattern so that subnormals and extremes come up."""
    width = 8 * np.dtype(dtype).itemsize
    unsigned = {16: np.uint16, 32: np.uint32}[width]

    def values(patterns):
        array = np.array(patterns, unsigned).view(dtype)
        with np.errstate(invalid="ignore"):  # signalling NaN
            return array[np.isfinite(array.astype(np.float64))]

    return st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=40).map(values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_high_plus_low_is_the_exact_difference(dtype, data):
    a = data.draw(finite_bits(dtype))
    b = data.draw(finite_bits(dtype))[: len(a)]
    a = a[: len(b)]
    difference = subtract(a, b)
    exact = [Fraction(float(x)) - Fraction(float(y)) for x, y in zip(a, b, strict=True)]
    assert difference.index.tolist() == [i for i, d in enumerate(exact) if d != 0]
    for place, high, low in zip(difference.index, difference.high, difference.low, strict=True):
        assert Fraction(float(high)) + Fraction(float(low)) == exact[place]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30), st.floats(-2, 2, width=32))
def test_a_sum_is_the_float32_sum_rounded_once(weights, delta):
    weight = np.array(weights, np.float32).astype(BF16)
    change = np.full(len(weight), delta, np.float32)
    expected = (weight.astype(np.float32) + change).astype(BF16)
    expected[(weight == 0) & np.signbit(weight.astype(np.float32)) & (change == 0)] = -0.0
    assert add(weight, change, FLOATS["BF16"]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_zero_delta_keeps_negative_zeros(dtype):
    code = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[str(dtype)]
    weight = np.array([-0.0, 0.0, 1.5, -0.0], dtype)
    change = np.array([0.0, 0.0, 0.0, 1.0], FLOATS[code].work)
    result = add(weight, change, FLOATS[code])
    assert np.signbit(result.astype(np.float64)).tolist() == [True, False, False, False]
    assert float(result[3]) == 1.0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_seen(dtype, bad):
    values = np.full(9, 3e4).astype(dtype)
    assert not has_non_finite(values)
    values[4] = bad
    assert has_non_finite(values)


def test_steps_are_counted_along_the_representable_numbers():
    ladder = np.array([1.0], BF16)
    for _ in range(300):
        ladder = np.append(ladder, np.nextafter(ladder[-1], BF16.type(np.inf)))
    base = np.repeat(ladder[:1], len(ladder))
    expected = {"0": 1, "1": 1, "2-3": 2, "4-7": 4, "8-15": 8, "16-31": 16, "32-63": 32, "64-127": 64, "128-255": 128}
    counts = dict(zip(STEP_BINS, step_histogram(ladder, base).tolist(), strict=True))
    assert counts == {**expected, "256+": len(ladder) - 256}


def test_steps_cross_zero_and_ignore_its_sign():
    smallest = np.array([1], np.uint16).view(ml_dtypes.bfloat16)[0]
    tuned, base = np.array([smallest, -0.0, 0.0], BF16), np.array([-smallest, 0.0, -0.0], BF16)
    assert step_histogram(tuned, base).tolist()[:3] == [2, 0, 1]


@pytest.mark.parametrize("code", ["BF16", "F16", "F32"])
def test_stochastic_rounding_is_right_on_average_and_lands_on_neighbours(code):
    fmt = FLOATS[code]
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal(1 << 16) * 0.02).astype(fmt.numpy)
    step = np.abs(np.nextafter(weight, fmt.numpy.type(1)).astype(np.float64) - weight.astype(np.float64))
    delta = 0.3 * step
    result = add_stochastically(weight, delta, fmt, stream_key(7, "rounding", "w"), 0)
    change = result.astype(np.float64) - weight.astype(np.float64)
    moved = change != 0
    assert np.array_equal(result[moved], np.nextafter(weight, fmt.numpy.type(1))[moved])
    # 65536 coins at 0.3 have a standard deviation of 0.0018
    assert abs(moved.mean() - 0.3) < 0.01


def test_stochastic_rounding_leaves_exact_sums_alone():
    weight = np.array([1.0, 2.0, -3.5, 0.0], BF16)
    delta = np.array([1.0, 0.0, 0.5, 0.25])
    result = add_stochastically(weight, delta, FLOATS["BF16"], 3, 0)
    assert result.astype(float).tolist() == [2.0, 2.0, -3.0, 0.25]


def test_random_words_do_not_depend_on_where_a_tile_begins():
    whole = random_words(99, 0, 1000)
    assert np.array_equal(whole[300:700], random_words(99, 300, 400))
    assert len(np.unique(whole)) == 1000
    assert not np.array_equal(whole, random_words(100, 0, 1000))


def test_random_words_are_splitmix64():
    # the published first outputs of SplitMix64 for the seed 1234567
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                 16408922859458223821]  # fmt: skip
    assert random_words(1234567, 0, 5).tolist() == published
