"""A delta as two narrow matrices, and how good they are: measured on the delta itself, not concluded from its singular
values. The approximation is that of `weights.spectrum`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import VectorError
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.spectrum import BLOCK_ENTRIES, low_rank_factors
from reasonvec.weights.vector import Delta

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Factors:
    """A delta D of shape (rows, columns) as `left @ right`, nearly."""

    left: Floats
    """Shape (rows, rank)."""
    right: Floats
    """Shape (rank, columns)."""
    norm: float
    """Of D (Frobenius)."""
    error: float
    """Of D - left @ right, as stored, computed in float64."""


def factorise(deltas: StoredDeltas, delta: Delta, rank: int, reader: TensorReader, *, seed: int) -> Factors:
    """Two matrices of `rank` columns and rows whose product is as near to the delta, a matrix, as any of that rank, but
    for what the randomised method misses; exactly the delta where `rank` is its smaller side.

    The product's error is within 1 % of the least possible one in the tests, the worst on noise. Raises VectorError if
    the data does not match its checksum or leaves the range of float32.
    """
    rows, columns = delta.shape
    if rank < min(rows, columns):
        left, right = low_rank_factors(deltas, delta, 0, rank, reader, seed=seed)
    elif rows < columns:
        left, right = np.eye(rows, dtype=np.float32), _whole(deltas, delta, reader)
    else:
        left, right = _whole(deltas, delta, reader), np.eye(columns, dtype=np.float32)
    squares = error = 0.0
    for first, last, block in _blocks(deltas, delta, reader):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            product = left[first:last].astype(np.float64) @ right.astype(np.float64)
        if not np.isfinite(product).all():
            raise VectorError(
                f"{delta.name!r} has entries beyond the range of float32, in which adapters are stored. Such a delta "
                f"comes of a broken donor; leave the module out with --target-modules."
            )
        squares += float(np.einsum("ij,ij->", block, block))
        rest = block - product
        error += float(np.einsum("ij,ij->", rest, rest))
    return Factors(left, right, squares**0.5, error**0.5)


def _whole(deltas: StoredDeltas, delta: Delta, reader: TensorReader) -> Floats:
    found = np.empty(delta.shape, np.float32)
    for first, last, block in _blocks(deltas, delta, reader):
        with np.errstate(over="ignore", under="ignore"):
            found[first:last] = block
    return found


def _blocks(deltas: StoredDeltas, delta: Delta, reader: TensorReader) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Runs of rows in order: the first, the last plus one, the entries. Held against the delta's checksum."""
    rows, columns = delta.shape
    height = max(1, BLOCK_ENTRIES // columns)
    source = deltas.open(delta.name, reader)
    for first in range(0, rows, height):
        last = min(first + height, rows)
        run = source.read(first * columns, last * columns, np.dtype(np.float64)).main
        yield first, last, run.reshape(last - first, columns)
    source.close()
