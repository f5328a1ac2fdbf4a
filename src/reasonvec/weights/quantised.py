"""The quantised encoding of a delta: small integers, and the float32 scales that they are multiplied by.

    delta = head, block, block, ...        head = version (U16), bits (U16), four bytes of zero
    block = scales (F32), integers         value = integer * scale, in float32

| bits | integers           | one scale for                             | scale                            |
|------|--------------------|-------------------------------------------|----------------------------------|
| 8    | -127 ... 127       | a row (the last dimension)                | the largest magnitude over 127   |
| 4    | -7 ... 7, plus 8   | 64 entries of a row, the last ones fewer  | the largest magnitude over 7     |
| 1    | 0 for -1, 1 for 1  | the tensor; every block repeats it        | the mean magnitude               |

A row or group that a block boundary cuts has a scale on either side, so that a block needs nothing outside of it. The
first of the integers that share a byte is in its lowest bits; what is left of a last byte is zero. One bit is BitDelta
(Liu et al. 2024, arXiv:2402.10193): sign(0) is -1 there, so that zeros do not stay zero.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import VectorError
from reasonvec.weights.arithmetic import Doubles, Indices
from reasonvec.weights.blocks import BLOCK, Scratch, block_digest, blocks
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.safetensors_header import TensorEntry

VERSION = 1
GROUP = 64
"""Entries of a row that share a scale at 4 bits."""
LEVELS = {8: 127, 4: 7, 1: 1}
"""The largest integer, by the number of bits."""

_HEAD = struct.Struct("<HH4x")
_LARGEST = {bits: np.nextafter(np.finfo(np.float32).max / np.float32(levels), np.float32(0))
            for bits, levels in LEVELS.items()}  # fmt: skip
"""The largest scale whose largest product is still a float32."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class QuantisedLayout:
    """Where the blocks of a stored delta lie."""

    bits: int
    columns: int
    size: int
    starts: tuple[int, ...]
    """Bytes from the beginning of the delta; one more than there are blocks, the last is the end."""


def layout_of(shape: tuple[int, ...], bits: int) -> QuantisedLayout:
    """The layout of a delta of one dimension or more and without a length of zero, at a number of bits."""
    columns, size = shape[-1], int(np.prod(shape, dtype=object))
    starts = [_HEAD.size]
    for start, stop in blocks(size):
        starts.append(starts[-1] + 4 * _scale_count(start, stop, columns, bits) + -(-(stop - start) * bits // 8))
    return QuantisedLayout(bits, columns, size, tuple(starts))


def _scale_count(start: int, stop: int, columns: int, bits: int) -> int:
    """How many scales the entries from `start` to `stop` have."""
    if bits == 1:
        return 1
    group = columns if bits == 8 else GROUP

    def begun_before(entry: int) -> int:
        rows, column = divmod(entry, columns)
        return rows * -(-columns // group) + -(-column // group)

    cut = start % columns % group > 0
    return begun_before(stop) - begun_before(start) + cut


def _scale_starts(start: int, stop: int, columns: int, bits: int) -> Indices:
    """The first entry of every scale, counted from `start`."""
    if bits == 1:
        return np.zeros(1, np.int64)
    column = np.arange(start, stop) % columns
    begins = column == 0 if bits == 8 else column % GROUP == 0
    begins[0] = True
    return np.flatnonzero(begins)


def head(bits: int) -> bytes:
    """The first bytes of a delta."""
    return _HEAD.pack(VERSION, bits)


def encode_block(values: Doubles, start: int, layout: QuantisedLayout, mean: float) -> tuple[bytes, bytes]:
    """The entries from `start` on, which is where a block starts, as they are stored, and their digest.

    `mean` is the mean magnitude of the whole tensor, of which 1 bit makes its scale. Halves are rounded to even.
    """
    bits, levels = layout.bits, LEVELS[layout.bits]
    begins = _scale_starts(start, start + len(values), layout.columns, bits)
    largest = np.array([mean]) if bits == 1 else np.maximum.reduceat(np.abs(values), begins) / levels
    with np.errstate(over="ignore", under="ignore"):
        scales = np.minimum(largest.astype("<f4"), _LARGEST[bits])
    if bits == 1:
        packed = np.packbits(values > 0, bitorder="little")
    else:
        spread = np.repeat(scales, np.diff(begins, append=len(values))).astype(np.float64)
        steps = np.divide(values, spread, out=np.zeros(len(values)), where=spread > 0)
        integers = np.clip(np.rint(steps), -levels, levels).astype(np.int8)
        packed = integers.view(np.uint8) if bits == 8 else _pack_pairs(integers)
    data = scales.tobytes() + packed.tobytes()
    return data, block_digest(head(bits), data)


def _pack_pairs(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    shifted = np.zeros(len(integers) + len(integers) % 2, np.uint8)
    shifted[: len(integers)] = (integers + np.int8(8)).view(np.uint8)
    return shifted[::2] | (shifted[1::2] << np.uint8(4))


def read_layout(entry: TensorEntry, shape: tuple[int, ...], reader: TensorReader) -> QuantisedLayout:
    """The layout of a stored delta of this shape. Raises VectorError where the two do not fit one another."""
    if not shape or 0 in shape:
        raise _damaged(entry, f"its shape {list(shape)} has no rows to quantise")
    if entry.nbytes < _HEAD.size:
        raise _damaged(entry, f"it has {entry.nbytes} bytes, less than its head of {_HEAD.size}")
    first = bytearray(_HEAD.size)
    reader.read_into(entry, 0, memoryview(first))
    version, bits = _HEAD.unpack(first)
    if version != VERSION or bits not in LEVELS or bytes(first) != head(bits):
        raise _damaged(entry, f"its head speaks of version {version} and {bits} bits; known are version {VERSION} and "
                              f"{', '.join(map(str, LEVELS))} bits")  # fmt: skip
    layout = layout_of(shape, bits)
    if layout.starts[-1] != entry.nbytes:
        raise _damaged(entry, f"it has {entry.nbytes} bytes, and {layout.size} entries of {bits} bits in rows of "
                              f"{layout.columns} need {layout.starts[-1]}")  # fmt: skip
    return layout


def read_block(
    entry: TensorEntry, layout: QuantisedLayout, number: int, reader: TensorReader, scratch: Scratch
) -> tuple[Floats, bytes]:
    """Block `number` in float32 and its digest. Raises VectorError for a block that `encode_block` does not make."""
    begin, end = layout.starts[number], layout.starts[number + 1]
    start, stop = number * BLOCK, min((number + 1) * BLOCK, layout.size)
    stored = scratch.array("quantised block", end - begin, np.uint8)
    reader.read_into(entry, begin, stored.data)
    begins = _scale_starts(start, stop, layout.columns, layout.bits)
    scales = stored[: 4 * len(begins)].view("<f4")
    if not ((scales >= 0) & (scales <= _LARGEST[layout.bits])).all():  # no comparison holds for NaN
        raise _damaged(entry, f"block {number} has a scale that is negative, not finite or too large")
    integers = _unpack(stored[4 * len(begins) :], stop - start, layout.bits)
    if (np.abs(integers) > LEVELS[layout.bits]).any():
        raise _damaged(entry, f"block {number} has an integer beyond {LEVELS[layout.bits]}, the largest at "
                              f"{layout.bits} bits")  # fmt: skip
    values: Floats = scratch.array("quantised values", stop - start, np.float32)
    with np.errstate(under="ignore"):
        np.multiply(integers, np.repeat(scales, np.diff(begins, append=stop - start)), out=values)
    return values, block_digest(head(layout.bits), stored.data)


def _unpack(packed: NDArray[np.uint8], count: int, bits: int) -> Floats:
    if bits == 8:
        return packed.view(np.int8).astype(np.float32)
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little").astype(np.float32) * 2 - 1
    pairs = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32) - 8


def _damaged(entry: TensorEntry, reason: str) -> VectorError:
    return VectorError(f"{entry.path}: the quantised delta {entry.name!r} is damaged: {reason}. Copy or compress the "
                       f"vector again.")  # fmt: skip
