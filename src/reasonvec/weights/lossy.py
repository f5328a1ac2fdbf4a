"""The three ways to make a vector smaller than it is without loss: fewer directions, fewer entries, fewer bits. Each
writes one delta; what it costs is measured elsewhere, from what was written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from reasonvec.errors import UsageError, VectorError
from reasonvec.weights.arithmetic import Difference, LaneSum, stream_key
from reasonvec.weights.blocks import BLOCK, Scratch, Workers, blocks
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import EXACT_CHAIN
from reasonvec.weights.low_rank import LowRankLayout, encode_factors
from reasonvec.weights.quantised import LEVELS, QuantisedLayout, encode_block, head, layout_of
from reasonvec.weights.sources import StoredDeltas, WholeDelta
from reasonvec.weights.spectrum import low_rank_factors
from reasonvec.weights.stacks import stack_of
from reasonvec.weights.thinning import enlarge, find_cut, keep_at_random
from reasonvec.weights.vector import Delta
from reasonvec.weights.vector_writer import Encoded, VectorWriter, Written, encode

_LARGEST_NORM = 1e36
"""Entries and their partial sums are smaller than the norm times the root of the rank."""

Selection = Literal["magnitude", "random"]


@dataclass(frozen=True)
class Inputs:
    """What is read, and by whom."""

    deltas: StoredDeltas
    reader: TensorReader
    pool: Workers

    def whole(self, delta: Delta) -> WholeDelta:
        """All blocks of a delta."""
        return WholeDelta(self.deltas.blocks(delta.name, self.reader), delta.size, self.pool)


class Method(Protocol):
    """One of the three. `seed` fixes what is random in it."""

    @property
    def name(self) -> str:
        """As vector.json says it."""

    @property
    def option(self) -> str:
        """As the user asked for it."""

    @property
    def parameters(self) -> dict[str, Any]:
        """As vector.json says them."""

    def why_exact(self, delta: Delta) -> str | None:
        """Why a delta is kept exactly; None for one that is not."""

    def nbytes(self, delta: Delta) -> int:
        """What a delta that is not kept exactly will take, at least."""

    def write(self, delta: Delta, inputs: Inputs, writer: VectorWriter, seed: int) -> Written:
        """Write a delta that is not kept exactly."""


@dataclass(frozen=True)
class LowRank:
    """Of every matrix the best approximation of a rank, as two factors."""

    rank: int
    name = "low-rank"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--rank is {self.rank}; it must be 1 or more: a matrix of rank 0 is zero.")

    @property
    def option(self) -> str:
        """As the user asked for it."""
        return f"--rank {self.rank}"

    @property
    def parameters(self) -> dict[str, Any]:
        """As vector.json says them."""
        return {"rank": self.rank}

    def why_exact(self, delta: Delta) -> str | None:
        """Because it is no matrix, or its factors would be no smaller than what is stored now."""
        stack = stack_of(delta.shape)
        if stack is None:
            return "is no matrix"
        if self.rank > min(stack.rows, stack.columns):
            return f"has no rank above {min(stack.rows, stack.columns)}"
        if delta.norm > _LARGEST_NORM:
            return f"has the norm {delta.norm:.3g}, and sums of its factors could leave the range of float32"
        layout = LowRankLayout(stack, self.rank)
        nbytes = layout.nbytes
        if not layout.plausible:
            return "has more entries than a reader would take of such small factors"
        if nbytes >= delta.entry.nbytes:
            return f"takes {delta.entry.nbytes} bytes without loss, and its factors would take {nbytes}"
        return None

    def nbytes(self, delta: Delta) -> int:
        """Of the factors."""
        stack = stack_of(delta.shape)
        assert stack is not None
        return LowRankLayout(stack, self.rank).nbytes

    def write(self, delta: Delta, inputs: Inputs, writer: VectorWriter, seed: int) -> Written:
        """Write the factors, one matrix in memory at a time."""
        stack = stack_of(delta.shape)
        assert stack is not None
        factors = (low_rank_factors(inputs.deltas, delta, number, self.rank, inputs.reader, seed=seed)
                   for number in range(stack.count))  # fmt: skip
        return writer.write_pieces("low-rank", "F32", encode_factors(stack, factors))


@dataclass(frozen=True)
class Thinning:
    """A share of the entries that are not zero, as they are or enlarged; the others become zero."""

    density: float
    select: Selection = "magnitude"
    rescale: bool = False
    name = "density"

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise UsageError(f"--density is {self.density}; it must be more than 0, which keeps nothing, and less than "
                             f"1, which is the vector itself.")  # fmt: skip
        if self.select not in ("magnitude", "random"):
            raise UsageError(f"--select is magnitude or random, not {self.select!r}.")

    @property
    def option(self) -> str:
        """As the user asked for it."""
        return f"--density {self.density:g}"

    @property
    def parameters(self) -> dict[str, Any]:
        """As vector.json says them."""
        return {"density": self.density, "select": self.select, "rescale": self.rescale}

    def why_exact(self, delta: Delta) -> str | None:
        """None: a density takes from every tensor."""
        return None

    def nbytes(self, delta: Delta) -> int:
        """The least that a sparse delta takes."""
        return 64 * len(blocks(delta.size))

    def write(self, delta: Delta, inputs: Inputs, writer: VectorWriter, seed: int) -> Written:
        """Write the entries that are kept, sparse, or dense where that is smaller."""
        whole, runs = inputs.whole(delta), blocks(delta.size)
        chain = EXACT_CHAIN[delta.checkpoint_dtype]
        cut = find_cut(whole, self.density) if self.select == "magnitude" else None
        key = stream_key(seed, "density", delta.name)

        def thinned(number: int, difference: Difference) -> Difference:
            start, stop = runs[number]
            kept = (cut.keep(number, difference) if cut else
                    keep_at_random(difference, self.density, key, start, stop - start))  # fmt: skip
            return self._rescaled(kept, delta) if self.rescale else kept

        def encoded(kind: str) -> Iterator[Encoded]:
            def one(number: int, difference: Difference, scratch: Scratch) -> Encoded:
                start, stop = runs[number]
                return encode(thinned(number, difference), stop - start, kind, chain, scratch)

            return whole.map(one)

        return writer.write(chain, encoded)

    def _rescaled(self, kept: Difference, delta: Delta) -> Difference:
        try:
            return enlarge(kept, self.density, delta.checkpoint_dtype)
        except OverflowError as error:
            raise VectorError(
                f"{delta.name!r} has an entry that leaves the range of {error} when it is divided by the density "
                f"{self.density}. Leave --rescale out, or use a larger density."
            ) from None


@dataclass(frozen=True)
class Quantisation:
    """Integers of a few bits, with scales. What has less than two dimensions (norms, biases) is kept exactly."""

    bits: int
    name = "quantised"

    def __post_init__(self) -> None:
        if self.bits not in LEVELS:
            raise UsageError(f"--bits is {self.bits}; it must be one of {', '.join(map(str, LEVELS))}.")

    @property
    def option(self) -> str:
        """As the user asked for it."""
        return f"--bits {self.bits}"

    @property
    def parameters(self) -> dict[str, Any]:
        """As vector.json says them."""
        return {"bits": self.bits}

    def why_exact(self, delta: Delta) -> str | None:
        """Because it is a norm, a bias or empty."""
        return "has no rows of two dimensions or more" if len(delta.shape) < 2 or 0 in delta.shape else None

    def nbytes(self, delta: Delta) -> int:
        """Of integers and scales."""
        return layout_of(delta.shape, self.bits).starts[-1]

    def write(self, delta: Delta, inputs: Inputs, writer: VectorWriter, seed: int) -> Written:
        """Write scales and integers, block by block."""
        whole = inputs.whole(delta)
        mean = sum(whole.map(_magnitude)) / delta.size if self.bits == 1 else 0.0
        pieces = self._pieces(whole, layout_of(delta.shape, self.bits), mean)
        return writer.write_pieces("quantised", "U8", pieces)

    def _pieces(self, whole: WholeDelta, layout: QuantisedLayout, mean: float) -> Iterator[tuple[bytes, list[bytes]]]:
        runs = blocks(layout.size)

        def one(number: int, difference: Difference, scratch: Scratch) -> tuple[bytes, bytes]:
            start, stop = runs[number]
            values = np.zeros(stop - start)
            values[difference.index] = difference.high
            return encode_block(values, number * BLOCK, layout, mean)

        yield head(self.bits), []
        for data, digest in whole.map(one):
            yield data, [digest]


def _magnitude(number: int, difference: Difference, scratch: Scratch) -> float:
    """The sum of the magnitudes of a block."""
    total = LaneSum()
    total.add(difference.high, np.sign(difference.high))
    return total.total()
