"""One tensor of the target, streamed: read, add the deltas, round once, hand on. Used to write and to verify."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError
from reasonvec.weights.arithmetic import (
    Indices,
    add,
    add_stochastically,
    code_of,
    dot,
    first_non_finite,
    has_non_finite,
    long_sum,
    rounded,
)
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.digest import Digest
from reasonvec.weights.dtypes import FLOATS, Array, FloatFormat
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sources import DeltaTile, DeltaTiles, TensorTiles, tiles

Sink = Callable[[int, memoryview], None]
"""Takes the output of one tensor in order: byte position in the tensor, bytes."""

_COPY_BLOCK = 1 << 20


@dataclass(frozen=True)
class Enhanced:
    """What became of one tensor."""

    sha256: str
    """Of the output's bytes."""
    input_sha256: str
    """Of the target's bytes."""
    asked: float
    """<d, d> with d the sum of alpha times delta."""
    realised: float
    """<output - target, d>."""

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return dict(vars(self))


def copy_tensor(entry: TensorEntry, reader: TensorReader, sink: Sink) -> Enhanced:
    """Hand on the bytes of a tensor as they are, whatever its dtype."""
    digest, block = hashlib.sha256(), bytearray(_COPY_BLOCK)
    for start in range(0, entry.nbytes, _COPY_BLOCK):
        view = memoryview(block)[: min(_COPY_BLOCK, entry.nbytes - start)]
        reader.read_into(entry, start, view)
        digest.update(view)
        sink(start, view)
    return Enhanced(digest.hexdigest(), digest.hexdigest(), 0.0, 0.0)


def enhance_tensor(
    entry: TensorEntry,
    out: FloatFormat,
    terms: Sequence[tuple[float, DeltaTiles]],
    reader: TensorReader,
    sink: Sink,
    *,
    stochastic_key: int | None = None,
) -> Enhanced:
    """Hand on `weight + sum(alpha * delta)` in the dtype `out`, tile by tile; `terms` are the pairs (alpha, delta).

    With `stochastic_key`, the key of a random stream, sums are rounded at random, else to nearest. Raises
    CheckpointError where the result is not finite: a NaN or infinity in the target, or a sum beyond the range of `out`.
    """
    target, digest = TensorTiles(entry, reader), Digest()
    work = _work_dtype(entry, out, stochastic_key)
    asked = realised = 0.0
    for start, stop in tiles(entry.size):
        weight = target.read(start, stop)
        parts = [(alpha, delta.read(start, stop, work)) for alpha, delta in terms]
        change = _change(parts, work, stop - start)
        result = _rounded_sum(weight, change, out, stochastic_key, start)
        _correct_long(result, weight, parts)
        if has_non_finite(result):
            raise _not_finite(entry, weight, result, start, out)
        if parts:
            asked += dot(change, change)
            realised += dot(_moved(result, weight, work), change)
        data = result.view(np.uint8).data
        digest.update(data)
        sink(start * out.numpy.itemsize, data)
    for _, delta in terms:
        delta.close()
    return Enhanced(digest.hexdigest(), target.sha256, asked, realised)


def _moved(result: Array, weight: Array, work: "np.dtype[Any]") -> Array:
    with np.errstate(over="ignore"):
        moved: Array = result.astype(work) - weight.astype(work)
    limit = np.finfo(work).max
    return moved if np.isfinite(moved).all() else np.clip(moved, -limit, limit)


def _work_dtype(entry: TensorEntry, out: FloatFormat, stochastic_key: int | None) -> "np.dtype[Any]":
    if stochastic_key is not None:
        return np.dtype(np.float64)
    return max(FLOATS[entry.dtype].work, out.work, key=lambda dtype: dtype.itemsize)


def _change(parts: Sequence[tuple[float, DeltaTile]], work: "np.dtype[Any]", count: int) -> Array:
    """The sum of alpha times delta in the dtype `work`."""
    if not parts:
        return np.zeros(count, work)
    change: Array = np.multiply(parts[0][1].main, work.type(parts[0][0]))
    for alpha, tile in parts[1:]:
        change += tile.main * work.type(alpha)
    return change


def _rounded_sum(weight: Array, change: Array, out: FloatFormat, key: int | None, start: int) -> Array:
    if weight.dtype == out.numpy and not change.any():
        return weight.copy()
    if key is None:
        return add(weight, change, out)
    return add_stochastically(weight, change, out, key, start)


def _correct_long(result: Array, weight: Array, parts: Sequence[tuple[float, DeltaTile]]) -> None:
    """Put the right sums into `result` where a delta has an entry that the work dtype does not hold."""
    if not any(tile.index.size for _, tile in parts):
        return
    where: Indices = np.unique(np.concatenate([tile.index for _, tile in parts]))
    terms = []
    for alpha, tile in parts:
        high, low = tile.main[where].astype(np.float64), np.zeros(where.size)
        place = np.searchsorted(where, tile.index)
        high[place], low[place] = tile.high, tile.low
        terms.append((alpha, high, low))
    with np.errstate(over="ignore"):
        result[where] = rounded(long_sum(weight[where].astype(np.float64), terms), FLOATS[code_of(result)])


def _not_finite(entry: TensorEntry, weight: Array, result: Array, start: int, out: FloatFormat) -> CheckpointError:
    bad = first_non_finite(result)
    before = float(weight[bad])
    if not np.isfinite(before):
        return CheckpointError(
            f"{entry.path}: {entry.name!r} of the target holds {before} at entry {start + bad}. A model with NaN or "
            f"infinity among its weights is broken; use another target, or leave the tensor out with --skip."
        )
    return CheckpointError(
        f"{entry.name!r}: at entry {start + bad} the sum leaves the range of {out.name} (the target has {before:g} "
        f"there, the largest {out.name} is {float(np.finfo(out.numpy).max if out.code != 'BF16' else 3.3895e38):g}). "
        f"Use a smaller alpha, or --dtype float32."
    )
