"""One block of the target: read, add the deltas, round once, hand on. To write and to verify, by several threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError
from reasonvec.weights.arithmetic import (
    TILE,
    Indices,
    LaneSum,
    add,
    add_stochastically,
    code_of,
    first_non_finite,
    long_sum,
    rounded,
)
from reasonvec.weights.blocks import BLOCK, Scratch, block_digest, blocks, tensor_digest
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import FLOATS, Array, FloatFormat
from reasonvec.weights.kernel import BF16, add_bfloat16, add_bfloat16_at_random, all_finite
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sources import DeltaBlock, DeltaBlocks, Proof
from reasonvec.weights.tensors import read_tensor_block

Sink = Callable[[int, memoryview], None]
"""Takes the output of one tensor: byte position in the tensor, bytes. Called by several threads, in any order."""


@dataclass(frozen=True)
class Enhanced:
    """What became of one tensor in one output."""

    digest: str
    """Of the output."""
    input_digest: str
    """Of the target."""
    asked: float
    """<d, d> with d the sum of alpha times delta."""
    realised: float
    """<output - target, d>."""

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Output:
    """Where one of the outputs of a tensor goes, and how much of each delta is in it."""

    alphas: tuple[float, ...]
    """One for each of the deltas."""
    sink: Sink


@dataclass(frozen=True)
class _Part:
    """What became of one block in one output."""

    digest: bytes
    asked: float
    realised: float


@dataclass(frozen=True)
class EnhancedBlock:
    """What became of one block."""

    input_digest: bytes
    parts: tuple[_Part, ...]
    """One for each output."""
    proofs: tuple[Proof, ...]
    """One for each delta."""


class TensorWork:
    """One tensor of the target with the deltas that are added to it. `block` may be called by several threads, once for
    each number below `count`; `finish` takes what it returned, in order."""

    def __init__(
        self, entry: TensorEntry, dtype: str, deltas: Sequence[DeltaBlocks], outputs: Sequence[Output],
        reader: TensorReader, stochastic_key: int | None = None,
    ) -> None:  # fmt: skip
        self.entry, self.dtype = entry, dtype
        self._deltas, self._outputs, self._reader, self._key = deltas, outputs, reader, stochastic_key
        self.count = len(blocks(entry.size))

    def block(self, number: int, scratch: Scratch) -> EnhancedBlock:
        """Hand on `weight + sum(alpha * delta)` of one block, for every output.

        Raises CheckpointError where a sum is not finite: a NaN or infinity in the target, or a sum beyond the range of
        the output's dtype.
        """
        weight, digest = read_tensor_block(self.entry, number, self._reader, scratch, "target")
        as_it_is = self.dtype == self.entry.dtype
        if as_it_is and not self._deltas:
            for output in self._outputs:
                output.sink(_offset(number, self.entry), weight.view(np.uint8).data)
            return EnhancedBlock(digest, tuple(_Part(digest, 0.0, 0.0) for _ in self._outputs), ())
        out = FLOATS[self.dtype]
        read = self._read_deltas(number, scratch)
        parts = []
        for output in self._outputs:
            terms = [(alpha, delta) for alpha, delta in zip(output.alphas, read, strict=True) if alpha]
            if as_it_is and not terms:  # alpha 0: the target's bits, whatever they are
                parts.append(_Part(digest, 0.0, 0.0))
                output.sink(_offset(number, self.entry), weight.view(np.uint8).data)
                continue
            result = scratch.array("result", len(weight), out.numpy)
            try:
                asked, realised = self.add(weight, terms, result, number * BLOCK, scratch)
            except CheckpointError:
                for source, delta in zip(self._deltas, read, strict=True):
                    source.refuse_non_finite(delta.main)  # it may not be the target's fault
                raise
            data = result.view(np.uint8).data
            parts.append(_Part(block_digest(data), asked, realised))
            output.sink(number * BLOCK * out.numpy.itemsize, data)
        return EnhancedBlock(digest, tuple(parts), tuple(delta.proof for delta in read))

    def _read_deltas(self, number: int, scratch: Scratch) -> list[DeltaBlock]:
        """The blocks of the deltas: in float32 where it holds them, which is quicker to add."""
        work = work_dtype(self.entry, FLOATS[self.dtype], self._key)
        if self._key is not None and self.entry.dtype == self.dtype == "BF16":
            read = [delta.read(number, np.dtype(np.float32), scratch.part(i)) for i, delta in enumerate(self._deltas)]
            if not any(delta.index.size for delta in read):
                return read
        return [delta.read(number, work, scratch.part(i)) for i, delta in enumerate(self._deltas)]

    def add(
        self, weight: Array, terms: Sequence[tuple[float, DeltaBlock]], result: Array, start: int, scratch: Scratch
    ) -> tuple[float, float]:
        """Fill `result` with the sum of a block and, over `terms`, alpha times delta; the sums of `Enhanced`."""
        short = all(not delta.index.size and delta.main.dtype != np.float64 for _, delta in terms)
        found = (0.0, 0.0, False)
        if short and terms and weight.dtype == result.dtype == BF16.numpy:
            if self._key is None:
                alpha, change = (terms[0][0], terms[0][1].main) if len(terms) == 1 else (1.0, _total(terms, scratch))
                found = add_bfloat16(weight, change, alpha, result)
            elif len(terms) == 1:
                found = add_bfloat16_at_random(weight, terms[0][1].main, terms[0][0], result, self._key, start)
        if found[2]:
            return found[:2]
        return self._add_any(weight, terms, result, start)

    def _add_any(
        self, weight: Array, terms: Sequence[tuple[float, DeltaBlock]], result: Array, start: int
    ) -> tuple[float, float]:
        """The same for every dtype and kind of rounding, a tile at a time."""
        out = FLOATS[self.dtype]
        work = work_dtype(self.entry, out, self._key)
        asked, realised = LaneSum(), LaneSum()
        for first in range(0, len(weight), TILE):
            tile = slice(first, first + TILE)
            change = np.zeros(len(weight[tile]), work)
            with np.errstate(over="ignore", invalid="ignore"):  # found in the sum
                for alpha, delta in terms:
                    change += delta.main[tile].astype(work) * work.type(alpha)
            result[tile] = _rounded_sum(weight[tile], change, out, self._key, start + first)
            cut = [(alpha, _cut(delta, first, first + len(change))) for alpha, delta in terms]
            _correct_long(result[tile], weight[tile], cut)
            if not all_finite(result[tile]):
                raise _not_finite(self.entry, weight[tile], result[tile], start + first, out)
            asked.add(change, change)
            realised.add(_moved(result[tile], weight[tile], work), change)
        return asked.total(), realised.total()

    def finish(self, found: Sequence[EnhancedBlock]) -> list[Enhanced]:
        """What became of the tensor in each output. Raises VectorError if a delta did not match its checksum."""
        for i, delta in enumerate(self._deltas):
            delta.finish([block.proofs[i] for block in found])
        before = tensor_digest(block.input_digest for block in found)
        return [
            Enhanced(
                tensor_digest(block.parts[i].digest for block in found), before,
                sum(block.parts[i].asked for block in found), sum(block.parts[i].realised for block in found),
            )
            for i in range(len(self._outputs))
        ]  # fmt: skip


def _offset(number: int, entry: TensorEntry) -> int:
    return entry.nbytes * (number * BLOCK) // entry.size if entry.size else 0


def _total(terms: Sequence[tuple[float, DeltaBlock]], scratch: Scratch) -> Array:
    """The sum of alpha times delta in float32."""
    change = scratch.array("change", len(terms[0][1].main), np.float32)
    change[:] = 0
    with np.errstate(over="ignore", invalid="ignore"):  # found in the sum
        for alpha, delta in terms:
            change += delta.main.astype(np.float32, copy=False) * np.float32(alpha)
    return change


def _moved(result: Array, weight: Array, work: "np.dtype[Any]") -> Array:
    with np.errstate(over="ignore"):
        moved: Array = result.astype(work) - weight.astype(work)
    limit = np.finfo(work).max
    return moved if np.isfinite(moved).all() else np.clip(moved, -limit, limit)


def work_dtype(entry: TensorEntry, out: FloatFormat, stochastic_key: int | None = None) -> "np.dtype[Any]":
    """The dtype in which sums of a tensor and deltas are computed."""
    if stochastic_key is not None:
        return np.dtype(np.float64)
    return max(FLOATS[entry.dtype].work, out.work, key=lambda dtype: dtype.itemsize)


def _rounded_sum(weight: Array, change: Array, out: FloatFormat, key: int | None, start: int) -> Array:
    if weight.dtype == out.numpy and not change.any():
        return weight
    if key is None:
        return add(weight, change, out)
    return add_stochastically(weight, change, out, key, start)


def _cut(delta: DeltaBlock, first: int, last: int) -> DeltaBlock:
    """The entries from `first` to `last` of a block."""
    a, b = np.searchsorted(delta.index, [first, last])
    return DeltaBlock(delta.main[first:last], delta.index[a:b] - first, delta.high[a:b], delta.low[a:b])


def _correct_long(result: Array, weight: Array, parts: Sequence[tuple[float, DeltaBlock]]) -> None:
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
