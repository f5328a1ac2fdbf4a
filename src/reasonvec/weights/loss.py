"""What a lossy vector has lost: both are read, block by block, and compared as numbers and, added to a checkpoint, bit
for bit. How it was made does not matter here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from reasonvec.weights.arithmetic import Doubles, LaneSum
from reasonvec.weights.blocks import BLOCK, Scratch, Workers, blocks, tensor_digest
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.enhance import TensorWork, work_dtype
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sources import DeltaBlock, DeltaBlocks, Proof
from reasonvec.weights.tensors import read_tensor_block


@dataclass(frozen=True)
class Loss:
    """Sums over a tensor, or over many, with v the exact delta and v' the lossy one."""

    squares: float
    """<v, v>."""
    lossy_squares: float
    """<v', v'>."""
    product: float
    """<v, v'>."""
    error_squares: float
    """<v' - v, v' - v>."""
    entries: int
    """Entries of weights + v and weights + v' that were compared; 0 where there were no weights."""
    changed: int
    """How many of them differ in their bits."""

    @property
    def relative_error(self) -> float | None:
        """||v' - v|| / ||v||; 0 where both are zero, None where only v is."""
        if not self.squares:
            return None if self.error_squares else 0.0
        return math.sqrt(self.error_squares / self.squares)

    @property
    def cosine(self) -> float | None:
        """Of v and v'; None where one of them is zero."""
        size = math.sqrt(self.squares) * math.sqrt(self.lossy_squares)
        return max(-1.0, min(1.0, self.product / size)) if size else None

    @property
    def changed_share(self) -> float | None:
        """Share of the entries of weights + v' that differ from weights + v; None where nothing was compared."""
        return self.changed / self.entries if self.entries else None

    def to_json(self) -> dict[str, Any]:
        """As vector.json and `--json` say it."""
        return {"relative_error": self.relative_error, "cosine": self.cosine, "changed_share": self.changed_share}


def together(losses: Iterable[Loss]) -> Loss:
    """Several tensors as one."""
    found = list(losses)
    return Loss(**{field.name: sum(getattr(loss, field.name) for loss in found) for field in fields(Loss)})


@dataclass(frozen=True)
class Measurement:
    """What was found of one tensor."""

    loss: Loss
    not_zero: int
    """Entries of v'."""
    weights_digest: str | None
    """Of the tensor that both were added to."""


def measure(
    *, exact: DeltaBlocks, lossy: DeltaBlocks, size: int, weights: TensorEntry | None, dtype: str, reader: TensorReader,
    pool: Workers,
) -> Measurement:  # fmt: skip
    """Compare two deltas of `size` entries; with `weights`, also the two sums, each as `apply` at alpha 1 would have it
    in `dtype`, to which the weights are rounded first.

    Raises VectorError if one of the two does not match its checksum, CheckpointError where a sum is not finite.
    """

    def one(number: int, scratch: Scratch) -> _Block:
        return _compare(number, exact, lossy, weights, dtype, reader, scratch)

    found = list(pool.map(one, range(len(blocks(size)))))
    exact.finish([block.exact for block in found])
    lossy.finish([block.lossy for block in found])
    digest = tensor_digest(block.weights for block in found) if weights else None
    return Measurement(together(block.loss for block in found), sum(block.not_zero for block in found), digest)


@dataclass(frozen=True)
class _Block:
    loss: Loss
    not_zero: int
    exact: Proof
    lossy: Proof
    weights: bytes


def _compare(
    number: int, exact: DeltaBlocks, lossy: DeltaBlocks, weights: TensorEntry | None, dtype: str, reader: TensorReader,
    scratch: Scratch,
) -> _Block:  # fmt: skip
    work = work_dtype(replace(weights, dtype=dtype), FLOATS[dtype]) if weights else np.dtype(np.float64)
    mine, theirs = exact.read(number, work, scratch.part(0)), lossy.read(number, work, scratch.part(1))
    exact.refuse_non_finite(mine.main)
    v, w = _doubles(mine), _doubles(theirs)
    changed, digest = 0, b""
    if weights:
        changed, digest = _changed(number, mine, theirs, weights, dtype, reader, scratch)
    loss = Loss(_dot(v, v), _dot(w, w), _dot(v, w), _dot(w - v, w - v), len(v) if weights else 0, changed)
    return _Block(loss, int(np.count_nonzero(w)), mine.proof, theirs.proof, digest)


def _changed(
    number: int, mine: DeltaBlock, theirs: DeltaBlock, weights: TensorEntry, dtype: str, reader: TensorReader,
    scratch: Scratch,
) -> tuple[int, bytes]:  # fmt: skip
    """Entries in which the two sums differ, and the digest of the weights."""
    out = FLOATS[dtype]
    weight, digest = read_tensor_block(weights, number, reader, scratch, "weight")
    adder = TensorWork(replace(weights, dtype=dtype), dtype, [], [], reader)
    results = []
    for role, block in (("exact sum", mine), ("lossy sum", theirs)):
        result = scratch.array(role, len(weight), out.numpy)
        adder.add(weight.astype(out.numpy, copy=False), [(1.0, block)], result, number * BLOCK, scratch)
        results.append(result.view(out.bits))
    return int(np.count_nonzero(results[0] != results[1])), digest


def _doubles(block: DeltaBlock) -> Doubles:
    values: Doubles = block.main.astype(np.float64)
    values[block.index] = block.high
    return values


def _dot(a: Doubles, b: Doubles) -> float:
    total = LaneSum()
    with np.errstate(over="ignore", under="ignore"):
        total.add(a, b)
    return total.total()
