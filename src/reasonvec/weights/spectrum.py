"""How much of a delta lies in its first few directions: the largest singular values, by a seeded randomised method that
reads the matrix in blocks of rows and never holds it whole.

Subspace iteration from a random start, with oversampling (Halko, Martinsson, Tropp 2011, arXiv:0909.4061, algorithm
4.4), applied to A'A so that one pass over the rows of A makes one iteration and only a tall, narrow basis is kept. The
estimates never exceed the true values (Rayleigh-Ritz); where the spectrum is flat, as in noise, they fall some percent
short.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.weights.arithmetic import stream_key
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import Delta

RANKS = (1, 4, 16)
"""The numbers of singular values whose energy is reported."""

OVERSAMPLING = 16
ITERATIONS = 2
"""Power iterations before the one that measures."""

EXACT_COLUMNS = 192
"""Up to this many columns A'A is formed whole and the result is exact; that is cheaper than three sketched passes."""

BLOCK_ENTRIES = 1 << 20
MAX_MATRICES = 4096
"""More stacked matrices than any model has experts; a convolution has that many and no spectrum worth the time."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """A tensor as matrices: one, or for three dimensions one for each entry of the first (experts)."""

    count: int
    rows: int
    columns: int


def stack_of(shape: tuple[int, ...]) -> Stack | None:
    """How a tensor of this shape is seen; None for one that is no matrix or stack of matrices."""
    if len(shape) not in (2, 3) or 0 in shape:
        return None
    count = shape[0] if len(shape) == 3 else 1
    return Stack(count, shape[-2], shape[-1]) if count <= MAX_MATRICES else None


def top_energy(deltas: StoredDeltas, delta: Delta, reader: TensorReader, *, seed: int) -> Mapping[int, float] | None:
    """The share of the squared Frobenius norm that the largest 1, 4 and 16 singular values hold, by their number.

    For a stack of matrices each has its own singular values, and the shares are of the energy of all together. None for
    a tensor that is no matrix, or is zero. Raises VectorError if the data does not match its checksum.
    """
    stack = stack_of(delta.shape)
    if stack is None or delta.norm == 0:
        return None
    unit = delta.norm / delta.size**0.5  # entries near 1: squares of tiny deltas would vanish in float32

    def blocks() -> Iterator[tuple[int, Floats]]:
        return _blocks(deltas, delta, stack, reader, unit)

    if stack.columns <= EXACT_COLUMNS:
        gram, total = _measure(blocks(), stack, None)
    else:
        basis = _start(stack, stream_key(seed, "spectrum", delta.name))
        for _ in range(ITERATIONS):
            basis = _iterate(blocks(), basis)
        gram, total = _measure(blocks(), stack, basis)
    values = np.linalg.eigvalsh(gram)[:, ::-1].clip(min=0)
    return {rank: min(1.0, float(values[:, :rank].sum() / total)) for rank in RANKS}


def _blocks(
    deltas: StoredDeltas, delta: Delta, stack: Stack, reader: TensorReader, unit: float
) -> Iterator[tuple[int, Floats]]:
    """Runs of rows, each with the number of its matrix, in the order they are stored, so that the checksum is held."""
    source = deltas.open(delta.name, reader)
    height = max(1, BLOCK_ENTRIES // stack.columns)
    for number in range(stack.count):
        for first in range(0, stack.rows, height):
            last = min(first + height, stack.rows)
            start = (number * stack.rows + first) * stack.columns
            stop = (number * stack.rows + last) * stack.columns
            values = source.read(start, stop, np.dtype(np.float64)).main / unit
            yield number, values.astype(np.float32).reshape(last - first, stack.columns)
    source.close()


def _start(stack: Stack, key: int) -> Floats:
    width = min(stack.columns, RANKS[-1] + OVERSAMPLING)
    generator = np.random.Generator(np.random.Philox(key))
    return generator.standard_normal((stack.count, stack.columns, width), dtype=np.float32)


def _iterate(blocks: Iterator[tuple[int, Floats]], basis: Floats) -> Floats:
    """An orthonormal basis of A'A times `basis`, for each matrix of the stack."""
    image = np.zeros_like(basis)
    for number, block in blocks:
        image[number] += block.T @ (block @ basis[number])
    return np.stack([np.linalg.qr(matrix)[0] for matrix in image])


def _measure(blocks: Iterator[tuple[int, Floats]], stack: Stack, basis: Floats | None) -> tuple[Doubles, float]:
    """(A basis)'(A basis) for each matrix, whose eigenvalues are the squared singular values, and their sum in full.

    Without a basis the identity is meant, and nothing is lost.
    """
    width = stack.columns if basis is None else basis.shape[2]
    gram: Doubles = np.zeros((stack.count, width, width))
    total = 0.0
    for number, block in blocks:
        image: Any = block if basis is None else block @ basis[number]
        gram[number] += image.T @ image
        total += float(np.einsum("ij,ij->", block, block, dtype=np.float64))
    return gram, total
