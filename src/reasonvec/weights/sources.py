"""Where deltas come from, one block at a time: a vector on disk, or two donors subtracted on the way. Both give the
same numbers for the same donors, so that `transfer` writes the bytes that `extract` and `apply` would.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from reasonvec.errors import CheckpointError, VectorError
from reasonvec.weights.alignment import DonorMatch, Form
from reasonvec.weights.arithmetic import Difference, Doubles, Indices, first_non_finite, subtract
from reasonvec.weights.blocks import BLOCK, Scratch, Workers, blocks, tensor_digest
from reasonvec.weights.checkpoint import Checkpoint, TensorReader
from reasonvec.weights.dtypes import FLOATS, Array
from reasonvec.weights.kernel import BF16, Streams, all_finite, subtract_bfloat16
from reasonvec.weights.low_rank import LowRankDelta
from reasonvec.weights.quantised import read_block as read_quantised_block
from reasonvec.weights.quantised import read_layout as read_quantised_layout
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sparse import read_block, read_layout, read_streams
from reasonvec.weights.tensors import read_tensor_block
from reasonvec.weights.vector import Delta, Vector

_NO_INDEX: Indices = np.empty(0, np.int64)
_NO_VALUES: Doubles = np.empty(0, np.float64)
_NO_RESIDUAL = (_NO_INDEX, _NO_VALUES)

Result = TypeVar("Result")

RUN_BYTES = 4 << 20
"""Stored bytes of several blocks that are read at once: bounds what a thread holds."""

Proof = tuple[bytes, ...]
"""The digests of what was read for one block."""


@dataclass(frozen=True)
class DeltaBlock:
    """A run of entries of one delta: `main`, and the few entries that do not fit its dtype exactly."""

    main: Array
    """bfloat16 where that is how it is stored, else the work dtype. Valid until the thread reads its next block."""
    index: Indices = field(default_factory=lambda: _NO_INDEX)
    """Which entries of the block `main` holds only nearly; their exact value is `high + low`."""
    high: Doubles = field(default_factory=lambda: _NO_VALUES)
    low: Doubles = field(default_factory=lambda: _NO_VALUES)
    proof: Proof = ()

    def listed(self) -> Difference:
        """The entries that are not zero, exactly."""
        high, low = self.main.astype(np.float64), np.zeros(len(self.main))
        high[self.index], low[self.index] = self.high, self.low
        index = np.flatnonzero(high)
        return Difference(index, high[index], low[index])


class DeltaBlocks(Protocol):
    """One delta, whose blocks can be read in any order by several threads."""

    def read(self, number: int, work: "np.dtype[Any]", scratch: Scratch) -> DeltaBlock:
        """Block `number` for sums in the dtype `work`. Raises where a donor is not finite or a block is damaged."""

    def refuse_non_finite(self, main: Array) -> None:
        """Raises VectorError for a NaN or infinity in a block that was read. Asked of who found one in a sum: to look
        for it in every block would take as long as to add it."""

    def finish(self, proofs: Iterable[Proof]) -> None:
        """Called with the proofs of all blocks, in order. Raises VectorError if the data did not match its checksum."""


class DeltaSource(Protocol):
    """A set of deltas by tensor name."""

    @property
    def forms(self) -> Mapping[str, Form]:
        """Shape and the donors' dtype of every delta."""

    @property
    def carried(self) -> Mapping[str, Form]:
        """The same of the tensors that are not computed with."""

    @property
    def left_out(self) -> frozenset[str]:
        """Names that the donors have and that were left out."""

    @property
    def tied(self) -> Mapping[str, str]:
        """Tensor names that the donors tie -> what they are a copy of."""

    @property
    def location(self) -> str:
        """For messages."""

    def blocks(self, name: str, reader: TensorReader) -> DeltaBlocks:
        """The delta `name`, to be read."""


class StoredDeltas:
    """The deltas of a vector on disk."""

    def __init__(self, vector: Vector) -> None:
        self.vector = vector
        self.forms = {name: (delta.shape, delta.checkpoint_dtype) for name, delta in vector.deltas.items()}
        self.carried = {name: (tuple(c["shape"]), str(c["dtype"])) for name, c in vector.carried.items()}
        self.left_out, self.tied, self.location = vector.left_out, vector.tied, vector.location

    def blocks(self, name: str, reader: TensorReader) -> DeltaBlocks:
        """The delta `name`, to be read."""
        delta = self.vector.deltas[name]
        return stored_blocks(delta, self.vector.residuals[name] if delta.residual else _NO_RESIDUAL, reader)

    def open(self, name: str, reader: TensorReader, start: int = 0) -> "InOrder":
        """The delta `name`, to be read in runs of any length from entry `start` on."""
        return InOrder(self.blocks(name, reader), self.vector.deltas[name].size, start)


def stored_blocks(delta: Delta, residual: tuple[Indices, Doubles], reader: TensorReader) -> DeltaBlocks:
    """A delta where its entry says, to be read; `residual` as `Vector.residuals` has it."""
    kinds: dict[str, Callable[[Delta, TensorReader], DeltaBlocks]] = {
        "sparse": SparseDelta,
        "low-rank": _LowRank,
        "quantised": _Quantised,
    }
    return kinds[delta.encoding](delta, reader) if delta.encoding in kinds else _Dense(delta, reader, residual)


class _Stored:
    """What all deltas on disk have in common; `read` is of each encoding."""

    def __init__(self, delta: Delta, reader: TensorReader) -> None:
        self._delta, self._reader = delta, reader

    def finish(self, proofs: Iterable[Proof]) -> None:
        if tensor_digest(proof for (proof,) in proofs) != self._delta.digest:
            raise VectorError(
                f"{self._delta.entry.path}: the data of {self._delta.name!r} does not match its checksum in "
                f"vector.json. The vector was damaged after it was made; copy or extract it again."
            )

    def refuse_non_finite(self, main: Array) -> None:
        """Others refuse it as they read."""


class _Dense(_Stored):
    def __init__(self, delta: Delta, reader: TensorReader, residual: tuple[Indices, Doubles]) -> None:
        super().__init__(delta, reader)
        self._residual = residual

    def read(self, number: int, work: "np.dtype[Any]", scratch: Scratch) -> DeltaBlock:
        stored, digest = read_tensor_block(self._delta.entry, number, self._reader, scratch, "delta")
        if stored.dtype != np.float64:
            main = stored if stored.dtype == BF16.numpy else stored.astype(work, copy=False)
            return DeltaBlock(main, proof=(digest,))
        self.refuse_non_finite(stored)  # a clipped infinity would not be seen later
        main = _shortened(stored, work)
        where, rest = self._residual
        start = number * BLOCK
        first, last = np.searchsorted(where, [start, start + len(stored)])
        low = np.zeros(len(stored))
        low[where[first:last] - start] = rest[first:last]
        index = np.flatnonzero((main != stored) | (low != 0))
        return DeltaBlock(main, index, stored[index], low[index], (digest,))

    def refuse_non_finite(self, main: Array) -> None:
        if not all_finite(main):
            raise VectorError(
                f"{self._delta.entry.path}: {self._delta.name!r} holds NaN or infinity, which no difference of finite "
                f"donors has. The vector was made by something else or damaged."
            )


class SparseDelta(_Stored):
    def __init__(self, delta: Delta, reader: TensorReader) -> None:
        super().__init__(delta, reader)
        self._layout = read_layout(delta.entry, delta.size, reader)

    def read(self, number: int, work: "np.dtype[Any]", scratch: Scratch) -> DeltaBlock:
        main, index, wide, digest = read_block(
            self._delta.entry, self._layout, number, self._delta.size, self._reader, scratch
        )
        main = main.astype(work, copy=False)
        high, low = wide[:, 0], wide[:, 1]
        main[index] = _shortened(high, work)
        long = (main[index] != high) | (low != 0)
        return DeltaBlock(main, index[long], high[long], low[long], (digest,))

    def runs(self, most: int) -> list[range]:
        """The blocks in runs of at most `most` that are at most `RUN_BYTES` long as they are stored, or of one."""
        starts, found = self._layout.starts, [range(0, 1)]
        for number in range(1, len(starts) - 1):
            first = found[-1].start
            if number - first < most and starts[number + 1] - starts[first] <= RUN_BYTES:
                found[-1] = range(first, number + 1)
            else:
                found.append(range(number, number + 1))
        return found

    def streams(self, run: range, scratch: Scratch) -> tuple[list[Streams], list[Proof]]:
        """The blocks of `run` as they are stored, for `kernel.patch_bfloat16`."""
        found = read_streams(self._delta.entry, self._layout, run, self._delta.size, self._reader, scratch)
        return [streams for streams, _ in found], [(digest,) for _, digest in found]


class _LowRank(_Stored):
    def __init__(self, delta: Delta, reader: TensorReader) -> None:
        super().__init__(delta, reader)
        self._factors = LowRankDelta(delta.entry, delta.shape, reader)

    def read(self, number: int, work: "np.dtype[Any]", scratch: Scratch) -> DeltaBlock:
        values, digest = self._factors.read(number, scratch)
        return DeltaBlock(values.astype(work, copy=False), proof=(digest,))


class _Quantised(_Stored):
    def __init__(self, delta: Delta, reader: TensorReader) -> None:
        super().__init__(delta, reader)
        self._layout = read_quantised_layout(delta.entry, delta.shape, reader)

    def read(self, number: int, work: "np.dtype[Any]", scratch: Scratch) -> DeltaBlock:
        values, digest = read_quantised_block(self._delta.entry, self._layout, number, self._reader, scratch)
        return DeltaBlock(values.astype(work, copy=False), proof=(digest,))


class WholeDelta:
    """All blocks of one delta, worked on by several threads."""

    def __init__(self, deltas: DeltaBlocks, size: int, pool: Workers) -> None:
        self._deltas, self._count, self._pool = deltas, len(blocks(size)), pool

    def map(self, work: Callable[[int, Difference, Scratch], Result]) -> Iterator[Result]:
        """`work(number, difference, scratch)` of every block, in order, with its entries that are not zero."""

        def one(number: int, scratch: Scratch) -> Result:
            block = self._deltas.read(number, np.dtype(np.float64), scratch)
            self._deltas.refuse_non_finite(block.main)
            return work(number, block.listed(), scratch)

        return self._pool.map(one, range(self._count))


class InOrder:
    """One delta read in runs of any length that follow one another, by one thread."""

    def __init__(self, deltas: DeltaBlocks, size: int, start: int = 0) -> None:
        self._deltas, self._blocks, self._first = deltas, blocks(size), start // BLOCK
        self._scratch, self._proofs = Scratch(), list[Proof]()
        self._block, self._begin = DeltaBlock(np.empty(0, np.float32)), 0

    def read(self, start: int, stop: int, work: "np.dtype[Any]") -> DeltaBlock:
        """The entries from `start`, which is where the last call stopped, to `stop`; `main` is an array of its own."""
        main = np.empty(stop - start, work)
        found: list[tuple[Indices, Doubles, Doubles]] = []
        at = start
        while at < stop:
            if at >= self._begin + len(self._block.main):
                self._next(work)
            first, last = at - self._begin, min(stop - self._begin, len(self._block.main))
            main[at - start : at - start + last - first] = self._block.main[first:last]
            a, b = np.searchsorted(self._block.index, [first, last])
            found.append((self._block.index[a:b] + (self._begin - start), self._block.high[a:b], self._block.low[a:b]))
            at = self._begin + last
        if not found:
            return DeltaBlock(main)
        index, high, low = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return DeltaBlock(main, index, high, low)

    def _next(self, work: "np.dtype[Any]") -> None:
        number = self._first + len(self._proofs)
        block = self._deltas.read(number, work, self._scratch)
        self._deltas.refuse_non_finite(block.main)
        self._block, self._begin = block, self._blocks[number][0]
        self._proofs.append(self._block.proof)

    def close(self) -> None:
        """Called after all was read, from the first entry on. Raises VectorError if it did not match its checksum."""
        if not len(self._proofs):  # an empty tensor has one empty block
            self._next(np.dtype(np.float32))
        self._deltas.finish(self._proofs)


def _shortened(values: Doubles, work: "np.dtype[Any]") -> Array:
    """`values` in the dtype `work`, within its range; what does not fit exactly is handed on beside it."""
    limit = float(np.finfo(work).max)
    return np.clip(values, -limit, limit).astype(work)


class DonorDeltas:
    """The deltas of two donors that `match_donors` found to fit."""

    def __init__(self, tuned: Checkpoint, base: Checkpoint, match: DonorMatch) -> None:
        self.tuned, self.base = tuned, base
        self.grid = match.computed
        self.forms = {name: (base.tensors[name].shape, dtype) for name, dtype in match.computed.items()}
        self.carried = {name: (base.tensors[name].shape, base.tensors[name].dtype) for name in match.carried}
        self.left_out, self.tied = frozenset(match.left_out), match.tied
        self.location = f"{tuned.location} − {base.location}"
        self.digests: dict[str, tuple[str, str]] = {}
        """Tensor name -> the digests of it in tuned and in base, once it was read."""

    def blocks(self, name: str, reader: TensorReader) -> "_DonorDelta":
        """The delta `name`, to be read."""
        return _DonorDelta(self, name, reader)


class _DonorDelta:
    def __init__(self, donors: DonorDeltas, name: str, reader: TensorReader) -> None:
        self._donors, self._name = donors, name
        self._pair = DonorPair(donors.tuned.tensors[name], donors.base.tensors[name], donors.grid[name], reader)

    def read(self, number: int, work: "np.dtype[Any]", scratch: Scratch) -> DeltaBlock:
        pair = self._pair.read(number, scratch)
        if pair.short is not None:
            return DeltaBlock(pair.short.astype(work, copy=False), proof=pair.proof)
        difference = pair.long
        main = np.zeros(len(pair.tuned), work)
        main[difference.index] = _shortened(difference.high, work)
        long = np.flatnonzero((main[difference.index] != difference.high) | (difference.low != 0))
        return DeltaBlock(main, difference.index[long], difference.high[long], difference.low[long], pair.proof)

    def refuse_non_finite(self, main: Array) -> None:
        """A donor that is not finite is refused as it is read."""

    def finish(self, proofs: Iterable[Proof]) -> None:
        both = list(proofs)
        tuned, base = (tensor_digest(proof[role] for proof in both) for role in (0, 1))
        self._donors.digests[self._name] = (tuned, base)


@dataclass(frozen=True)
class PairBlock:
    """The same block of two donors, on one grid, and their difference. Valid until the thread reads its next."""

    tuned: Array
    base: Array
    short: Array | None
    """The difference in float32, where that is exact in all entries; else None."""
    proof: Proof
    """Digests of what was read of tuned and of base."""
    rounding: float
    """Sum of squares of what putting the donors on one grid has changed; 0 for donors of one dtype."""

    @property
    def long(self) -> Difference:
        """The difference, exact whatever the exponents."""
        return subtract(self.tuned, self.base)


class DonorPair:
    """The same tensor of two donors, read together and put on the coarser of their two grids."""

    def __init__(self, tuned: TensorEntry, base: TensorEntry, grid: str, reader: TensorReader) -> None:
        self._tuned, self._base, self._reader = tuned, base, reader
        self._grid = FLOATS[grid]

    def read(self, number: int, scratch: Scratch) -> PairBlock:
        """Block `number` of tuned and base. Raises CheckpointError for NaN and infinity."""
        read = [
            (role, entry, *read_tensor_block(entry, number, self._reader, scratch, role))
            for role, entry in (("tuned", self._tuned), ("base", self._base))
        ]
        proof = tuple(digest for _, _, _, digest in read)
        if self._tuned.dtype == self._base.dtype == "BF16":
            tuned, base = (values for _, _, values, _ in read)
            short = scratch.array("difference", len(tuned), np.float32)
            if subtract_bfloat16(tuned, base, short):
                return PairBlock(tuned, base, short, proof, 0.0)
        (tuned, a), (base, b) = (self._on_grid(role, entry, values, number) for role, entry, values, _ in read)
        return PairBlock(tuned, base, None, proof, a + b)

    def _on_grid(self, role: str, entry: TensorEntry, values: Array, number: int) -> tuple[Array, float]:
        if not all_finite(values):
            bad = first_non_finite(values)
            raise CheckpointError(
                f"{entry.path}: {entry.name!r} of the {role} donor holds {float(values[bad])} at entry "
                f"{number * BLOCK + bad}. A difference with NaN or infinity means nothing and would spoil every model "
                f"it is added to; the donor is broken."
            )
        if values.dtype == self._grid.numpy:
            return values, 0.0
        with np.errstate(over="ignore"):
            rounded = values.astype(self._grid.numpy)
        if not all_finite(rounded):
            raise CheckpointError(
                f"{entry.path}: {entry.name!r} of the {role} donor holds a value beyond the range of "
                f"{self._grid.name}, in which the other donor is stored. Save both donors in one dtype."
            )
        error = values.astype(np.float64) - rounded.astype(np.float64)
        return rounded, float(np.add.reduce(error * error))
