"""The product of two narrow matrices, entry by entry in a fixed order: what a LoRA adapter adds to a weight.

No BLAS is called, so that the bytes depend neither on its threads nor on its version. LoRA: Hu et al. 2021,
arXiv:2106.09685.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import CheckpointError
from reasonvec.weights.arithmetic import first_non_finite, has_non_finite
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import Array
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.tensors import read_run

Doubles = NDArray[np.float64]

_STRIP = 1 << 15
"""Entries whose float64 sum and summand (256 KiB each) stay in a second-level cache."""


@dataclass(frozen=True)
class LowRank:
    """The factors of one delta on disk: `scaling * B @ A`, or its transpose."""

    a: TensorEntry
    """Shape (rank, inputs)."""
    b: TensorEntry
    """Shape (outputs, rank)."""
    scaling: float
    transposed: bool
    """Whether the weight is stored as (inputs, outputs): Conv1D of GPT-2, and embeddings, whose inputs are tokens."""

    @property
    def rank(self) -> int:
        """The number of summands of each entry."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the delta."""
        outputs, inputs = self.b.shape[0], self.a.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)


class Product:
    """`scaling * left @ right` for factors in memory: left (rows, rank), right (rank, columns), any float dtype."""

    def __init__(self, left: Array, right: Array, scaling: float) -> None:
        self._left, self._right, self._scaling = left, right.astype(np.float64), scaling

    def read(self, start: int, stop: int) -> Doubles:
        """The entries from `start` to `stop` in C order, in float64, summed over the rank in ascending order."""
        columns, result = self._right.shape[1], np.empty(stop - start)
        height = max(1, _STRIP // max(1, columns))
        end_row = -(-stop // columns) if stop else 0
        for first in range(start // max(1, columns), end_row, height):
            strip = self._rows(first, min(first + height, end_row)).reshape(-1)
            at = first * columns
            begin, end = max(start, at), min(stop, at + len(strip))
            result[begin - start : end - start] = strip[begin - at : end - at]
        return result

    def _rows(self, first: int, last: int) -> Doubles:
        rows = self._left[first:last].astype(np.float64)
        total, summand = np.zeros((last - first, self._right.shape[1])), np.empty((last - first, self._right.shape[1]))
        for k in range(self._right.shape[0]):
            np.multiply(rows[:, k : k + 1], self._right[k], out=summand)
            np.add(total, summand, out=total)
        total *= self._scaling
        return total


def load_product(low_rank: LowRank, reader: TensorReader) -> Product:
    """Read both factors of a delta. Raises CheckpointError for NaN and infinity."""
    a, b = _load(low_rank.a, reader), _load(low_rank.b, reader)
    return Product(a.T, b.T, low_rank.scaling) if low_rank.transposed else Product(b, a, low_rank.scaling)


def _load(entry: TensorEntry, reader: TensorReader) -> Array:
    values = read_run(entry, 0, entry.size, reader)
    if has_non_finite(values):
        bad = first_non_finite(values)
        raise CheckpointError(
            f"{entry.path}: {entry.name!r} holds {float(values[bad])} at entry {bad}. A delta with NaN or infinity "
            f"would spoil every model it is added to; the adapter is broken."
        )
    return values.reshape(entry.shape)
