"""How much of a delta lies in its first few directions: the largest singular values, by a seeded randomised method that
reads the matrix in blocks of rows and never holds it whole.

Power iteration on A'A from a random block, with oversampling (Halko, Martinsson, Tropp 2011, arXiv:0909.4061), one
pass over the rows of A an iteration; all iterates together are the basis (block Krylov: Musco, Musco 2015,
arXiv:1504.05477), which costs no further pass and is much closer where the spectrum is flat. The estimates never exceed
the true values (Rayleigh-Ritz); on pure noise, the worst case, they fall some 6 % short. The same basis gives the
factors that `compress` keeps.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.weights.arithmetic import stream_key
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import Array
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.stacks import Stack, stack_of
from reasonvec.weights.vector import Delta

RANKS = (1, 4, 16)
"""The numbers of singular values whose energy is reported."""

OVERSAMPLING = 16
ITERATIONS = 3
"""Power iterations before the pass that measures."""

EXACT_COLUMNS = 192
"""Up to this many columns A'A is formed whole and the result is exact; that is cheaper than four sketched passes."""

BLOCK_ENTRIES = 1 << 20

SKETCH_NUMBERS = 1 << 20
"""In the random starts of the matrices that are iterated together, at most, unless one alone has more: experts are
taken in groups, so that memory does not grow with their number."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

Rows = Callable[[], Iterator[tuple[int, Floats]]]
"""Begins to read, and gives runs of rows with the number of their matrix, in order."""


def top_energy(deltas: StoredDeltas, delta: Delta, reader: TensorReader, *, seed: int) -> Mapping[int, float] | None:
    """The share of the squared Frobenius norm that the largest 1, 4 and 16 singular values hold, by their number.

    For a stack of matrices each has its own singular values, and the shares are of the energy of all together. None for
    a tensor that is no matrix, or is zero. Raises VectorError if the data does not match its checksum.
    """
    stack = stack_of(delta.shape)
    if stack is None or delta.norm == 0:
        return None
    groups = list(_groups(stack))
    if len(groups) > 1:
        for _ in _blocks(deltas, delta, stack, reader):
            """The checksum is of all of it; a group alone is not held against one."""
    generator = _generator(stream_key(seed, "spectrum", delta.name))
    total, energy = 0.0, dict.fromkeys(RANKS, 0.0)
    for group in groups:
        part = Stack(len(group), stack.rows, stack.columns)
        rows = partial(_blocks, deltas, delta, stack, reader) if len(groups) == 1 else partial(
            _matrices, deltas, delta, part, group.start, reader)  # fmt: skip
        gram, norm = _measure(rows(), part, _basis(rows, part, RANKS[-1], generator))
        values = np.linalg.eigvalsh(gram)[:, ::-1].clip(min=0)
        total += norm
        energy = {rank: energy[rank] + float(values[:, :rank].sum()) for rank in RANKS}
    return {rank: min(1.0, energy[rank] / total) for rank in RANKS} if total else None


def _groups(stack: Stack) -> Iterator[range]:
    """Runs of matrices that are iterated together."""
    width = stack.columns if stack.columns <= EXACT_COLUMNS else RANKS[-1] + OVERSAMPLING
    count = max(1, SKETCH_NUMBERS // (stack.columns * width))
    for first in range(0, stack.count, count):
        yield range(first, min(first + count, stack.count))


def low_rank_factors(
    deltas: StoredDeltas, delta: Delta, number: int, rank: int, reader: TensorReader, *, seed: int
) -> tuple[Floats, Floats]:
    """B (rows, rank) and A (rank, columns) of one matrix of a stack, so that B A is nearest to it in the Frobenius norm
    among what lies in the basis: A are its first right singular vectors there and B is the matrix times them, but for a
    factor of each.

    `rank` is at most the number of rows and of columns. Their last digits are those of this machine's BLAS.
    """
    stack = stack_of(delta.shape)
    if stack is None:
        raise ValueError(f"{delta.name} of shape {delta.shape} is no matrix")
    alone = Stack(1, stack.rows, stack.columns)
    rows = partial(_matrices, deltas, delta, alone, number, reader)
    basis = _basis(rows, alone, rank, _generator(stream_key(seed, f"low-rank {number}", delta.name)))
    gram, _ = _measure(rows(), alone, basis)
    first = np.linalg.eigh(gram[0])[1][:, ::-1][:, :rank]
    directions: Floats = (first if basis is None else basis[0] @ first).astype(np.float32)
    left = np.concatenate([block @ directions for _, block in rows()])
    half = np.float32(math.sqrt(_unit(delta)))  # to each, so that neither leaves the range of float32
    return left * half, np.ascontiguousarray(directions.T) * half


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
    scaled = np.multiply(wide, 1 / _unit(delta), dtype=wide.dtype)
    rows: Floats = scaled.astype(np.float32, copy=False).reshape(-1, stack.columns)
    return rows


def _unit(delta: Delta) -> float:
    """Root of the mean square of the entries."""
    return max(delta.norm / math.sqrt(delta.size), 1e-30)


def _blocks(deltas: StoredDeltas, delta: Delta, stack: Stack, reader: TensorReader) -> Iterator[tuple[int, Floats]]:
    """Runs of rows."""
    source = deltas.open(delta.name, reader)
    for number, start, stop in _rows(stack):
        yield number, _scaled(source.read(start, stop, _work(delta)).main, delta, stack)
    source.close()


def _matrices(
    deltas: StoredDeltas, delta: Delta, part: Stack, first: int, reader: TensorReader
) -> Iterator[tuple[int, Floats]]:
    """Runs of rows of the matrices of a stack from `first`, counted from 0. What is read is not held against its
    checksum."""
    begin = first * part.area
    source = deltas.open(delta.name, reader, begin)
    for number, start, stop in _rows(part):
        yield number, _scaled(source.read(begin + start, begin + stop, _work(delta)).main, delta, part)


def _work(delta: Delta) -> "np.dtype[Any]":
    return np.dtype(np.float64 if delta.entry.dtype == "F64" else np.float32)


def _generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key))


def _basis(rows: Rows, stack: Stack, rank: int, generator: np.random.Generator) -> Floats | None:
    """For each matrix a basis that holds its first `rank` right singular vectors nearly; None for all of the space."""
    return None if stack.columns <= EXACT_COLUMNS else _krylov_basis(rows, stack, rank, generator)


def _krylov_basis(rows: Rows, stack: Stack, rank: int, generator: np.random.Generator) -> Floats:
    """For each matrix an orthonormal basis of (A'A) X, (A'A)^2 X, ... for a random X."""
    block, iterates = _start(stack, rank, generator), []
    for _ in range(ITERATIONS):
        block = _iterate(rows(), block)
        iterates.append(block)
    joined = np.concatenate(iterates, axis=2)[:, :, : stack.columns]
    return np.stack([np.linalg.qr(matrix)[0] for matrix in joined])


def _start(stack: Stack, rank: int, generator: np.random.Generator) -> Floats:
    width = min(stack.columns, rank + OVERSAMPLING)
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
