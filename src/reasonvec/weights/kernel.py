"""The inner loops: compiled where the package was built with a C compiler, else the NumPy that is written here. Both
give the same bits, sums included; `tests/weights/test_kernel.py` holds them together.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reasonvec.weights.arithmetic import (
    STEP_BINS,
    Doubles,
    Indices,
    LaneSum,
    add,
    add_stochastically,
    has_non_finite,
    step_histogram,
)
from reasonvec.weights.dtypes import FLOATS, Array


def _load() -> Any:
    if os.environ.get("REASONVEC_KERNEL") == "numpy":
        return None
    try:
        return importlib.import_module("reasonvec.weights._kernel")
    except ImportError:  # built where there was no compiler
        return None


compiled = _load()
"""The compiled loops, or None."""

BF16 = FLOATS["BF16"]
PALETTE = 254
"""The most frequent values of a block that get a symbol of one byte."""
LITERAL, WIDE = 254, 255
"""Symbols: a value that follows as float32, and one that follows as two float64."""
SKIP = 255
"""A gap byte that is not the last one of its gap."""
_NOT_FINITE, _INEXACT = 3, 4


def add_bfloat16(weight: Array, delta: Array, alpha: float, out: Array) -> tuple[float, float, bool]:
    """`out = weight + alpha * delta` in float32, rounded once, for bfloat16 `weight` and `out` and a `delta` of
    bfloat16 or float32, all of one length.

    Also the sums <d, d> and <out - weight, d> with d = alpha * delta, and whether every sum was finite (if not, `out`
    is not to be used). An entry whose d is zero keeps its bits.
    """
    if compiled:
        result: tuple[float, float, bool] = compiled.add(_bits(weight), _bits(delta), alpha, _bits(out))
        return result
    return _add_bfloat16(weight, delta, alpha, out)


def _add_bfloat16(weight: Array, delta: Array, alpha: float, out: Array) -> tuple[float, float, bool]:
    asked, realised = LaneSum(), LaneSum()
    finite = _add_tiles(weight, delta, alpha, out, asked, realised)
    return asked.total(), realised.total(), finite


def _add_tiles(weight: Array, delta: Array, alpha: float, out: Array, asked: LaneSum, realised: LaneSum) -> bool:
    finite = True
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, len(weight), _TILE):
            part = slice(start, start + _TILE)
            change = delta[part].astype(np.float32) * np.float32(alpha)
            out[part] = add(weight[part], change, BF16)
            moved = out[part].astype(np.float32) - weight[part].astype(np.float32)
            asked.add(change, change)
            realised.add(moved, change)
            finite = finite and not has_non_finite(out[part])
    return finite


_TILE = 1 << 14


def add_bfloat16_at_random(
    weight: Array, delta: Array, alpha: float, out: Array, key: int, start: int
) -> tuple[float, float, bool]:
    """`add_bfloat16` in float64 and rounded up or down at random, as `arithmetic.add_stochastically` does it, for the
    entries of a tensor from the even `start` on."""
    if compiled:
        arguments = (_bits(weight), _bits(delta), alpha, _bits(out), key, start)
        result: tuple[float, float, bool] = compiled.add_at_random(*arguments)
        return result
    return _add_bfloat16_at_random(weight, delta, alpha, out, key, start)


def _add_bfloat16_at_random(
    weight: Array, delta: Array, alpha: float, out: Array, key: int, start: int
) -> tuple[float, float, bool]:
    asked, realised, finite = LaneSum(), LaneSum(), True
    for first in range(0, len(weight), _TILE):
        part = slice(first, first + _TILE)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            change = delta[part].astype(np.float64) * alpha
            out[part] = add_stochastically(weight[part], change, BF16, key, start + first)
            asked.add(change, change)
            realised.add(out[part].astype(np.float64) - weight[part].astype(np.float64), change)
        finite = finite and not has_non_finite(out[part])
    return asked.total(), realised.total(), finite


def subtract_bfloat16(tuned: Array, base: Array, out: Array) -> bool:
    """`out = tuned - base` in float32, +0.0 where they are equal. False where `out` is not to be used: an entry is not
    finite, or a difference does not fit float32."""
    if compiled:
        return int(compiled.subtract(_bits(tuned), _bits(base), out)) == 0
    return _subtract_bfloat16(tuned, base, out)


def _subtract_bfloat16(tuned: Array, base: Array, out: Array) -> bool:
    if has_non_finite(tuned) or has_non_finite(base):
        return False
    a, b = tuned.astype(np.float64), base.astype(np.float64)
    with np.errstate(over="ignore"):
        np.subtract(tuned, base, out=out, dtype=np.float32, casting="unsafe")
    out += np.float32(0)  # -0.0 becomes 0.0
    exact = a - b
    # float64 holds the difference of two bfloat16 numbers unless one is tiny beside the other; then `exact` is the
    # larger of them, and so is `out`
    lost = (exact + b != a) | (a - exact != b)
    return not (lost.any() or (out != exact).any() or has_non_finite(out))


class Survey(NamedTuple):
    """What `extract` counts in a block."""

    changed: int
    squares: float
    base_squares: float
    steps: list[int]
    """By the bins of `arithmetic.STEP_BINS`."""


def survey_bfloat16(tuned: Array, base: Array, difference: Array) -> Survey:
    """Count a block of bfloat16 donors whose `difference` is in float32."""
    if compiled:
        return Survey(*compiled.survey(_bits(tuned), _bits(base), difference))
    return survey(tuned, base, difference)


def survey(tuned: Array, base: Array, difference: Array) -> Survey:
    """Count a block of donors of any one dtype."""
    squares, base_squares = LaneSum(), LaneSum()
    with np.errstate(over="ignore", under="ignore"):
        squares.add(difference, difference)
        base_squares.add(base, base)
    steps = step_histogram(tuned, base) if len(tuned) else np.zeros(len(STEP_BINS), np.int64)
    return Survey(int(steps[1:].sum()), squares.total(), base_squares.total(), steps.tolist())


class Streams(NamedTuple):
    """The changed entries of a block, taken apart. `sparse` says what is where."""

    palette: NDArray[np.uint16]
    gaps: NDArray[np.uint8]
    symbols: NDArray[np.uint8]
    literals: NDArray[np.float32]
    wide: Doubles
    """High and low part, one after the other, of each entry that float32 does not hold."""


def take_apart(values: Array, scratch: Any) -> Streams:
    """The streams of float32 `values`, none of which is wide. They are views of `scratch`."""
    count = len(values)
    if not compiled:
        index = np.flatnonzero(values)
        return take_apart_listed(index, values[index].astype(np.float64), np.zeros(index.size))
    counts = scratch.array("palette counts", 65536, np.uint32)  # zeros at first, and left so by the kernel
    palette = scratch.array("palette", 256, np.uint16)
    gaps = scratch.array("gaps", count + count // SKIP + 1, np.uint8)
    symbols, literals = scratch.array("symbols", count, np.uint8), scratch.array("literals", count, np.float32)
    where = scratch.array("where", count + 1, np.uint32)
    p, g, s, n = compiled.encode(values, counts, where, palette, gaps, symbols, literals)
    return Streams(palette[:p], gaps[:g], symbols[:s], literals[:n], _NO_DOUBLES)


_NO_DOUBLES: Doubles = np.empty(0, np.float64)


def take_apart_listed(index: Indices, high: Doubles, low: Doubles) -> Streams:
    """The streams of the entries at `index`, ascending, whose exact values `high + low` are not zero."""
    with np.errstate(over="ignore", under="ignore"):
        short = high.astype(np.float32)
    wide = (short != high) | (low != 0)
    words = short.view(np.uint32)
    brief = ~wide & (words & 0xFFFF == 0)
    patterns, times = np.unique((words[brief] >> 16).astype(np.uint16), return_counts=True)
    palette = np.sort(patterns[np.argsort(-times, kind="stable")[:PALETTE]])
    symbol_of = np.full(65536, LITERAL, np.uint8)
    symbol_of[palette] = np.arange(len(palette), dtype=np.uint8)
    symbols = np.where(brief, symbol_of[words >> 16], LITERAL).astype(np.uint8)
    symbols[wide] = WIDE
    return Streams(palette, _gaps(index), symbols, short[symbols == LITERAL],
                   np.stack([high[wide], low[wide]], axis=1).reshape(-1))  # fmt: skip


def _gaps(index: Indices) -> NDArray[np.uint8]:
    gaps = np.diff(index, prepend=-1) - 1
    skips = gaps // SKIP
    result = np.full(len(index) + int(skips.sum()), SKIP, np.uint8)
    result[np.arange(len(index)) + np.cumsum(skips)] = gaps % SKIP
    return result


def put_together(streams: Streams, out: Array) -> Indices | None:
    """Fill `out`, float32, with what the streams hold; the positions of the wide entries, which are left zero. None for
    streams that do not fit one another or the block: nothing that was taken apart gives such."""
    if not compiled:
        return _put_together(streams, out)
    wide = np.empty(len(streams.wide) // 2, np.int64)
    fits = compiled.decode(streams.gaps, streams.symbols, streams.palette, streams.literals, wide, out)
    return wide if fits else None


def _put_together(streams: Streams, out: Array) -> Indices | None:
    out[:] = 0
    ends, places = streams.gaps != SKIP, _places(streams)
    symbols, known = streams.symbols, min(len(streams.palette), PALETTE)
    fits = (
        len(places) == len(symbols)
        and (not len(places) or int(places[-1]) < len(out))
        and (not len(ends) or bool(ends[-1]))
        and not ((symbols >= known) & (symbols < LITERAL)).any()
        and int((symbols == LITERAL).sum()) == len(streams.literals)
        and 2 * int((symbols == WIDE).sum()) == len(streams.wide)
    )
    if not fits:
        return None
    values = np.zeros(256, np.float32)
    values[:known] = (streams.palette[:known].astype(np.uint32) << 16).view(np.float32)
    out[places] = values[symbols]
    out[places[symbols == LITERAL]] = streams.literals
    wide: Indices = places[symbols == WIDE]
    return wide


def _places(streams: Streams) -> Indices:
    """The position of each symbol's entry."""
    places: Indices = np.cumsum(streams.gaps, dtype=np.int64)[streams.gaps != SKIP]
    return places + np.arange(len(places))


class Patch(NamedTuple):
    """What `patch_bfloat16` did."""

    changed: int
    """Entries that have other bits now."""
    asked: float
    realised: float
    """The sums of `add_bfloat16`, but for their order."""
    finite: bool


def patch_bfloat16(
    weight: Array, blocks: Sequence[Streams], length: int, alpha: float, touched: Array, old: Array
) -> Patch | None:
    """`weight += alpha * delta` in place, as `add_bfloat16` has it, for a delta in streams without wide entries: those
    of consecutive blocks of `length` entries, the last of which may be shorter.

    `touched`, zeros of uint8, gets a bit for each entry of the delta, the lowest of a byte first, and `old`, uint16 and
    as long as there are symbols, those entries' bits as they were. None for streams that do not fit. With that, and
    where a sum is not finite, `weight` is not to be used before `put_back`.
    """
    if compiled:
        parts = [(block.gaps, block.symbols, block.palette, block.literals) for block in blocks]
        found = compiled.patch(parts, length, alpha, _bits(weight), touched, old)
        return None if found is None else Patch(*found)
    return _patch_bfloat16(weight, blocks, length, alpha, touched, old)


def _patch_bfloat16(
    weight: Array, blocks: Sequence[Streams], length: int, alpha: float, touched: Array, old: Array
) -> Patch | None:
    kept, found, asked, realised = 0, 0, LaneSum(), LaneSum()
    for number, streams in enumerate(blocks):
        part = slice(number * length, (number + 1) * length)  # a length of whole bytes of `touched`
        if has_non_finite(weight[part]):
            return Patch(found, 0.0, 0.0, False)
        if (streams.symbols == WIDE).any():
            return None
        delta = np.empty(len(weight[part]), np.float32)
        if _put_together(streams, delta) is None:
            return None
        where = _places(streams)
        before = weight[part][where]
        after = np.empty(len(where), weight.dtype)
        finite = _add_tiles(before, delta[where], alpha, after, asked, realised)
        old[kept : kept + len(where)] = _bits(before)
        mask = np.zeros(len(delta), np.bool_)
        mask[where] = True
        touched[part.start // 8 : part.stop // 8] = np.packbits(mask, bitorder="little")
        weight[part][where] = after
        kept += len(where)
        found += int((_bits(before) != _bits(after)).sum())
        if not finite:
            return Patch(found, 0.0, 0.0, False)
    return Patch(found, asked.total(), realised.total(), True)


def put_back(weight: Array, touched: Array, old: Array) -> None:
    """The inverse of `patch_bfloat16`, for unsigned integers of any width. ValueError where `old` is too short."""
    if compiled and weight.itemsize == 2:
        if compiled.put_back(weight, touched, old) < 0:
            raise ValueError("fewer entries are kept than were changed")
        return
    mask = np.unpackbits(touched, count=len(weight), bitorder="little").view(np.bool_)
    weight[mask] = old[: int(mask.sum())]


def all_finite(values: Array) -> bool:
    """Whether an array of any float dtype holds neither NaN nor infinity."""
    if values.dtype == np.float64:
        return bool(np.isfinite(values).all())
    if not compiled:
        return not has_non_finite(values)
    itemsize = values.dtype.itemsize
    mask = 0x7C00 if values.dtype == np.float16 else 0x7F80 if itemsize == 2 else 0x7F80_0000
    return not compiled.any_all_ones(_bits(values), mask, itemsize)


def _bits(values: Array) -> Array:
    """The same bytes as integers: NumPy does not lend out arrays of bfloat16."""
    return values.view(np.uint16) if values.dtype.itemsize == 2 else values
