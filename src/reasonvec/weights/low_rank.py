"""The low-rank encoding of a delta: two thin factors for each of its matrices, from which any block of entries is
computed in a fixed order. Finding the factors is for `spectrum`.

    delta        = B, A of the first matrix, B, A of the next, ...       (float32, C order; B is m x rank, A rank x n)
    entry (i, j) = ((0 + B[i,0] A[0,j]) + B[i,1] A[1,j]) + ...           every product and every sum in float32

No BLAS and no fused multiply-add takes part, so every machine and any number of threads give the same bits.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import VectorError
from reasonvec.weights.blocks import BLOCK, Scratch, block_digest
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.stacks import Stack, stack_of

Floats = NDArray[np.float32]

_TILE = 1 << 15
"""Entries that are summed at once: they and their products stay in a second-level cache. No bit depends on it."""
_ITEM = 4
_MOST = 1 << 16
"""Entries of a matrix for each number in its factors, at most: rank 1 of a matrix of 131072 x 131072. A small file
could claim any number of entries otherwise."""


@dataclass(frozen=True)
class LowRankLayout:
    """Where the factors of a stored delta lie."""

    stack: Stack
    rank: int

    @property
    def nbytes(self) -> int:
        """Of all factors."""
        return self.stack.count * self._matrix_bytes

    @property
    def plausible(self) -> bool:
        """Whether a reader takes it."""
        return self.stack.area <= _MOST * self.rank * (self.stack.rows + self.stack.columns)

    @property
    def _matrix_bytes(self) -> int:
        return _ITEM * self.rank * (self.stack.rows + self.stack.columns)

    def left(self, number: int, row: int) -> int:
        """The byte at which a row of B of a matrix begins."""
        return number * self._matrix_bytes + _ITEM * self.rank * row

    def right(self, number: int) -> int:
        """The byte at which A of a matrix begins."""
        return self.left(number, self.stack.rows)


def read_layout(entry: TensorEntry, shape: tuple[int, ...]) -> LowRankLayout:
    """The layout of a stored delta of this shape. Raises VectorError where the two do not fit one another."""
    stack = stack_of(shape)
    if stack is None:
        raise _damaged(entry, f"its shape {list(shape)} is no matrix and no stack of matrices, so it has no factors")
    unit = stack.count * (stack.rows + stack.columns)
    rank, rest = divmod(entry.size, unit)
    if rest or not 1 <= rank <= min(stack.rows, stack.columns):
        raise _damaged(
            entry,
            f"it has {entry.size} numbers, which are no factors of {stack.count} matrices of {stack.rows} x "
            f"{stack.columns} ({unit} a unit of rank, of which there can be 1 to {min(stack.rows, stack.columns)})",
        )
    layout = LowRankLayout(stack, rank)
    if not layout.plausible:
        raise _damaged(entry, f"it claims more than {_MOST} entries for every number in its factors")
    return layout


def encode_factors(stack: Stack, factors: Iterable[tuple[Floats, Floats]]) -> Iterator[tuple[memoryview, list[bytes]]]:
    """The bytes of a delta in order, each piece with the digests of the blocks that it completes.

    `factors` are B (rows, rank) and A (rank, columns) of every matrix. The digest of a block is BLAKE3 over, for each
    matrix that it touches, the BLAKE3 of all of A and the rows of B that it touches.
    """
    parts: list[Any] = []
    for number, (left, right) in enumerate(factors):
        left, right = (np.ascontiguousarray(factor, "<f4") for factor in (left, right))
        whole = block_digest(right.view(np.uint8).data)
        begin, done = number * stack.area, list[bytes]()
        end = begin + stack.area
        for start in range(begin // BLOCK * BLOCK, end, BLOCK):
            first, last = max(start, begin), min(start + BLOCK, end)
            rows = slice((first - begin) // stack.columns, -((begin - last) // stack.columns))
            parts += [whole, left[rows].tobytes()]
            if last == start + BLOCK or last == stack.count * stack.area:
                done.append(block_digest(*parts))
                parts = []
        yield left.reshape(-1).view(np.uint8).data, []
        yield right.reshape(-1).view(np.uint8).data, done


class LowRankDelta:
    """A stored delta, whose blocks can be read in any order by several threads. Keeps A of the last two matrices."""

    def __init__(self, entry: TensorEntry, shape: tuple[int, ...], reader: TensorReader) -> None:
        self._entry, self._reader = entry, reader
        self._layout = read_layout(entry, shape)
        self._rights: dict[int, tuple[Floats, bytes]] = {}
        self._lock = threading.Lock()

    def read(self, number: int, scratch: Scratch) -> tuple[Floats, bytes]:
        """Block `number` in float32, valid until the next call with `scratch`, and its digest. Raises VectorError for
        factors that are not finite or give what is not."""
        stack = self._layout.stack
        start, stop = number * BLOCK, min((number + 1) * BLOCK, stack.count * stack.area)
        out, parts = scratch.array("low-rank values", stop - start, np.float32), list[Any]()
        for matrix in range(start // stack.area, (stop - 1) // stack.area + 1):
            begin = matrix * stack.area
            first, last = max(start, begin), min(stop, begin + stack.area)
            right, digest = self._right(matrix)
            left, top = self._left(matrix, first - begin, last - begin, scratch)
            parts += [digest, left.tobytes()]
            _fill(out[first - start : last - start], left, right, first - begin - top * stack.columns, scratch)
        if not np.isfinite(out).all():
            raise _damaged(self._entry, f"block {number} holds NaN or infinity, which nothing that was compressed has")
        return out, block_digest(*parts)

    def _left(self, matrix: int, first: int, last: int, scratch: Scratch) -> tuple[Floats, int]:
        """The rows of B that the entries from `first` to `last` of a matrix need, and the number of the first."""
        columns, rank = self._layout.stack.columns, self._layout.rank
        top, bottom = first // columns, -(-last // columns)
        left: Floats = scratch.array("left factor", (bottom - top) * rank, np.float32)
        self._reader.read_into(self._entry, self._layout.left(matrix, top), left.view(np.uint8).data)
        return left.reshape(-1, rank), top

    def _right(self, matrix: int) -> tuple[Floats, bytes]:
        """A of a matrix and its digest."""
        with self._lock:
            if matrix not in self._rights:
                right = np.empty((self._layout.rank, self._layout.stack.columns), np.float32)
                data = right.reshape(-1).view(np.uint8).data
                self._reader.read_into(self._entry, self._layout.right(matrix), data)
                if len(self._rights) > 1:
                    del self._rights[min(self._rights, key=lambda held: abs(held - matrix))]
                self._rights[matrix] = (right, block_digest(data))
            return self._rights[matrix]


def _fill(out: Floats, left: Floats, right: Floats, offset: int, scratch: Scratch) -> None:
    """Entries of `left @ right` in C order from entry `offset` on, as many as `out` has, in the order stated above."""
    columns, at = right.shape[1], 0
    while at < len(out):
        row, column = divmod(offset + at, columns)
        if column or len(out) - at < columns:
            width, rows = min(columns - column, len(out) - at), 1
        else:
            width, rows = columns, min((len(out) - at) // columns, max(1, _TILE // columns))
        tile = out[at : at + rows * width].reshape(rows, width)
        product = scratch.array("product", rows * width, np.float32).reshape(rows, width)
        tile[:] = 0
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for i in range(len(right)):
                np.multiply(left[row : row + rows, i, None], right[i, column : column + width], out=product)
                tile += product
        at += rows * width


def _damaged(entry: TensorEntry, reason: str) -> VectorError:
    return VectorError(f"{entry.path}: the low-rank delta {entry.name!r} is damaged: {reason}. Copy or compress the "
                       f"vector again.")  # fmt: skip
