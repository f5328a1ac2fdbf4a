"""How much of a delta lies in its first few directions: the largest singular values, by a seeded randomised method that
reads the matrix in blocks of rows and never holds it whole.

Power iteration on A'A from a random block, with oversampling (Halko, Martinsson, Tropp 2011, arXiv:0909.4061), one
pass over the rows of A an iteration; all iterates together are the basis (block Krylov: Musco, Musco 2015,
arXiv:1504.05477), which costs no further pass and is much closer where the spectrum is flat. The estimates never exceed
the true values (Rayleigh-Ritz); on pure noise, the worst case, they fall some 6 % short.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.weights.arithmetic import stream_key
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import Array
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import Delta

RANKS = (1, 4, 16)
"""The numbers of singular values whose energy is reported."""

OVERSAMPLING = 16
ITERATIONS = 3
"""Power iterations before the pass that measures."""

EXACT_COLUMNS = 192
"""Up to this many columns A'A is formed whole and the result is exact; that is cheaper than four sketched passes."""

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
    if stack.columns <= EXACT_COLUMNS:
        basis = None
    else:
        basis = _krylov_basis(deltas, delta, stack, reader, stream_key(seed, "spectrum", delta.name))
    gram, total = _measure(_blocks(deltas, delta, stack, reader), stack, basis)
    values = np.linalg.eigvalsh(gram)[:, ::-1].clip(min=0)
    return {rank: min(1.0, float(values[:, :rank].sum() / total)) for rank in RANKS} if total else None


def _rows(stack: Stack) -> Iterator[tuple[int, int, int]]:
    """Runs of rows in the order they are stored: the number of their matrix, first entry, end."""
    height = max(1, BLOCK_ENTRIES // stack.columns)
    for number in range(stack.count):
        for first in range(0, stack.rows, height):
            last = min(first + height, stack.rows)
            yield number, (number * stack.rows + first) * stack.columns, (number * stack.rows + last) * stack.columns


def _scaled(values: Array, delta: Delta, stack: Stack) -> Floats:
    """Entries near 1: squares of tiny deltas would vanish in float32."""
    wide: Array = values.astype(np.float64 if values.dtype == np.float64 else np.float32, copy=False)
    per_unit = 1 / max(delta.norm / delta.size**0.5, 1e-30)
    scaled = np.multiply(wide, per_unit, dtype=wide.dtype)
    rows: Floats = scaled.astype(np.float32, copy=False).reshape(-1, stack.columns)
    return rows


def _blocks(deltas: StoredDeltas, delta: Delta, stack: Stack, reader: TensorReader) -> Iterator[tuple[int, Floats]]:
    """Runs of rows."""
    source = deltas.open(delta.name, reader)
    work = np.dtype(np.float64 if delta.entry.dtype == "F64" else np.float32)
    for number, start, stop in _rows(stack):
        yield number, _scaled(source.read(start, stop, work).main, delta, stack)
    source.close()


def _krylov_basis(deltas: StoredDeltas, delta: Delta, stack: Stack, reader: TensorReader, key: int) -> Floats:
    """For each matrix an orthonormal basis of (A'A) X, (A'A)^2 X, ... for a random X."""
    block, iterates = _start(stack, key), []
    for _ in range(ITERATIONS):
        block = _iterate(_blocks(deltas, delta, stack, reader), block)
        iterates.append(block)
    joined = np.concatenate(iterates, axis=2)[:, :, : stack.columns]
    return np.stack([np.linalg.qr(matrix)[0] for matrix in joined])


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
