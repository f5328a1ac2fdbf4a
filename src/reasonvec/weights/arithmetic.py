"""The arithmetic on one tile of entries: exact differences, sums rounded once, stochastic rounding. Pure functions on
one-dimensional arrays that fit a CPU cache; no files, no names, no state.

A difference of two weights is kept as `high + low`, exactly (TwoSum: Knuth, The Art of Computer Programming 2,
4.2.2). `low` is zero but for entries whose two weights differ in size by more than a float64 holds.
"""

import hashlib
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import UsageError
from reasonvec.weights.dtypes import FLOATS, Array, FloatFormat

TILE = 1 << 16
"""Entries a tile has: its float32 temporaries (256 KiB each) stay in a second-level cache."""

Indices = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """`tuned - base` of one tile, exactly, where it is not zero."""

    index: Indices
    """Which entries differ in value, ascending; -0.0 and 0.0 are equal."""
    high: Doubles
    low: Doubles
    """The exact difference is `high + low`; |low| is at most half a unit in the last place of `high`."""


def subtract(tuned: Array, base: Array) -> Difference:
    """The exact difference of two finite float arrays of one shape and dtype (bfloat16, float16 or float32)."""
    bits = FLOATS[code_of(tuned)].bits
    index = np.flatnonzero(tuned.view(bits) != base.view(bits))
    a, b = tuned[index].astype(np.float64), base[index].astype(np.float64)
    high = a - b
    b_part = high - a  # TwoSum of a and -b
    low = (a - (high - b_part)) + (-b - b_part)
    differs = high != 0
    if not differs.all():
        index, high, low = index[differs], high[differs], low[differs]
    return Difference(index, high, low)


def narrowest(high: Doubles, chain: tuple[str, ...]) -> int:
    """The position in `chain` ("BF16", "F32", "F64") of the first dtype that holds every entry of `high` exactly."""
    for level, code in enumerate(chain[:-1]):
        dtype = ml_dtypes.bfloat16 if code == "BF16" else np.dtype({"F16": np.float16, "F32": np.float32}[code])
        with np.errstate(over="ignore", under="ignore"):
            if np.array_equal(high.astype(dtype).astype(np.float64), high):
                return level
    return len(chain) - 1


def code_of(values: Array) -> str:
    """The safetensors code of a float array's dtype."""
    return next(code for code, fmt in FLOATS.items() if fmt.numpy == values.dtype)


def has_non_finite(values: Array) -> bool:
    """Whether a bfloat16, float16 or float32 array holds a NaN or an infinity: an exponent of all ones."""
    return bool(_non_finite(values).any())


def first_non_finite(values: Array) -> int:
    """The index of the first NaN or infinity of an array that has one."""
    return int(_non_finite(values).argmax())


def _non_finite(values: Array) -> NDArray[np.bool_]:
    fmt = FLOATS[code_of(values)]  # by its bits: a signalling NaN warns when it is computed with
    mask = fmt.bits.type(_EXPONENT[fmt.code])
    found: NDArray[np.bool_] = (values.view(fmt.bits) & mask) == mask
    return found


_EXPONENT = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F80_0000}


def add(weight: Array, delta: Array, out: FloatFormat) -> Array:
    """Return `weight + delta` in the dtype `out`, computed in the dtype of `delta` and rounded once, to nearest even.

    Where `delta` is zero the entry keeps its bits (-0.0 included) if `out` is the dtype of `weight`.
    Task arithmetic: Ilharco et al. 2023, arXiv:2212.04089.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = rounded(np.add(weight, delta, dtype=delta.dtype, casting="unsafe"), out)
    return keep_negative_zeros(weight, delta, result)


def rounded(values: Array, out: FloatFormat) -> Array:
    """`values` (float32 or float64) in the dtype `out`, rounded once, to nearest even.

    float64 goes to bfloat16 by way of float32 rounded to odd, which keeps the second rounding from being one too many
    (Boldo, Melquiond 2008, "Emulation of a FMA and correctly rounded sums"); ml_dtypes would round twice.
    """
    if out.code != "BF16" or values.dtype != np.float64:
        return values.astype(out.numpy)
    short = values.astype(np.float32)
    inexact = short != values
    if inexact.any():
        bits = short.view(np.uint32)
        bits -= (np.abs(short) > np.abs(values)).astype(np.uint32)  # towards zero: one step down in magnitude
        bits |= inexact.astype(np.uint32)
    return short.astype(out.numpy)


def keep_negative_zeros(weight: Array, delta: Array, result: Array) -> Array:
    """Put -0.0 back into `result` where `weight` has it and `delta` is zero; the IEEE sum -0.0 + 0.0 is 0.0."""
    fmt = FLOATS[code_of(weight)]
    negative_zero = weight.view(fmt.bits) == fmt.bits.type(1 << (8 * fmt.bits.itemsize - 1))
    if negative_zero.any():
        result[negative_zero & (delta == 0)] = -0.0
    return result


def dot(a: Array, b: Array) -> float:
    """The inner product, summed pairwise, so that it depends neither on threads nor on the BLAS in use."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        product = float(np.add.reduce(a * b, dtype=a.dtype))
    if a.dtype == np.float32 and not 1e-30 < abs(product) < 1e30:  # products may have left the range of float32
        return float(np.add.reduce(a.astype(np.float64) * b.astype(np.float64)))
    return product


class LaneSum:
    """A sum of products in float64 that runs in sixteen lanes, added up at the end: what the compiled loops do, in
    their order, so that it does not depend on threads, on processors or on who computes it."""

    LANES = 16

    def __init__(self) -> None:
        self._lanes = np.zeros(self.LANES)

    def add(self, a: Array, b: Array) -> None:
        """Take in the products of two arrays; all calls but the last take a multiple of `LANES` entries."""
        products = np.zeros(-(-len(a) // self.LANES) * self.LANES + self.LANES)
        products[: self.LANES] = self._lanes
        np.multiply(a, b, out=products[self.LANES : self.LANES + len(a)], dtype=np.float64, casting="unsafe")
        self._lanes = np.add.reduce(products.reshape(-1, self.LANES), axis=0)

    def total(self) -> float:
        """The sum."""
        return float(sum(self._lanes.tolist()))


def random_words(key: int, start: int, count: int) -> NDArray[np.uint64]:
    """`count` 64-bit random words for the counters `start`, `start + 1`, ... of the stream `key`.

    SplitMix64 (Steele, Lea, Flood 2014) used as a function of its counter, so that any tile can be drawn alone.
    """
    z = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that no document holds (docs/format.md, rule 24): what it made would be refused."""
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"seed is {seed}; it must be a whole number from 0 to 2^64 - 1, which is what receipts and "
                         f"vectors can record. Any other will do as well, such as {abs(seed) % 1000}.")  # fmt: skip


def stream_key(seed: int, purpose: str, name: str) -> int:
    """The 64-bit key of the random stream that belongs to a seed, a purpose and a tensor name."""
    text = f"{purpose}\0{seed}\0{name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def add_stochastically(weight: Array, delta: Array, out: FloatFormat, key: int, start: int) -> Array:
    """`add`, but the sum is rounded up or down at random, with the probability that makes its mean the exact sum.

    Entry i uses lane i of the stream `key`, counted from `start`, the tile's first entry in its tensor; so the bytes
    do not depend on tiles or threads. 32 random bits an entry: the mean is off by at most 2**-32 of a step.
    """
    if start % 2:
        raise ValueError("a tile must start at an even entry: two entries share a random word")
    words = random_words(key, start // 2, -(-len(weight) // 2)).view(np.uint32)[: len(weight)]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        total = weight.astype(np.float64) + delta.astype(np.float64)
        nearest = rounded(total, out)
        error = total - nearest.astype(np.float64)
        other = np.nextafter(nearest, np.copysign(out.numpy.type(np.inf), error.astype(out.numpy)))
        other = np.where(error == 0, nearest, other)
        step = np.abs(other.astype(np.float64) - nearest.astype(np.float64))
        chance = np.abs(error) / np.where(step == 0, 1.0, step)
    result = np.where(words < chance * 2.0**32, other, nearest).astype(out.numpy)
    return keep_negative_zeros(weight, delta, result)


def long_sum(weight: Doubles, terms: list[tuple[float, Doubles, Doubles]]) -> Doubles:
    """`weight + sum(alpha * (high + low))` for the few entries that a shorter dtype cannot hold, in float64.

    The rounding error of every addition is kept and added last (TwoSum), so that at alpha 1 on the base donor the low
    parts rebuild the tuned donor, and that a vector added and subtracted leaves the weight.
    """
    total, error = weight.copy(), np.zeros_like(weight)
    for part in [alpha * high for alpha, high, _ in terms] + [alpha * low for alpha, _, low in terms]:
        summed = total + part
        of_part = summed - total
        error += (total - (summed - of_part)) + (part - of_part)
        total = summed
    return total + error


STEP_BINS = ("0", "1", "2-3", "4-7", "8-15", "16-31", "32-63", "64-127", "128-255", "256+")


def step_histogram(tuned: Array, base: Array) -> NDArray[np.int64]:
    """How many entries moved by 0, 1, 2-3, 4-7, 8-15, ... units in the last place, in the bins of `STEP_BINS`.

    A unit in the last place is one step along the ordered representable numbers, so it is counted across binades.
    """
    fmt = FLOATS[code_of(tuned)]
    half = np.int64(1) << np.int64(8 * fmt.bits.itemsize - 1)

    def rank(values: Array) -> NDArray[np.int64]:
        bits = values.view(fmt.bits).astype(np.int64)
        return np.where(bits >= half, half - bits, bits)

    steps = np.abs(rank(tuned) - rank(base))
    # the exponent field of a float32 is the bit length of the count, less 126; 0 has none
    length = (steps.astype(np.float32).view(np.uint32) >> 23).astype(np.int64) - 126
    return np.bincount(np.clip(length, 0, len(STEP_BINS) - 1), minlength=len(STEP_BINS)).astype(np.int64)
