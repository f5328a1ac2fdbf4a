"""`compare`: how alike vectors are, pair by pair, overall and by layer. All are read together, a tile at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.alignment import Misfit, listing
from reasonvec.weights.arithmetic import TILE
from reasonvec.weights.checkpoint import layer_of, tensor_reader
from reasonvec.weights.hub import locate_vector
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import Vector

_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Likeness:
    """How alike two vectors are, over some of their entries."""

    cosine: float | None
    """None where one of the two is zero."""
    sign_agreement: float | None
    """Share of the entries in which both are not zero that have the same sign; 0.5 is chance. None without such."""
    both_changed_share: float | None
    """Share of all entries in which both are not zero."""
    entries: int

    def to_json(self) -> dict[str, Any]:
        """As `compare --json` prints it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Pair:
    """Two of the vectors, by their position."""

    first: int
    second: int
    overall: Likeness
    layers: Mapping[str, Likeness]
    """By layer number, "other" for tensors outside the layers."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    vectors: tuple[str, ...]
    """As they were named."""
    norms: tuple[float, ...]
    layer_norms: Mapping[str, tuple[float, ...]]
    """By layer number or "other": the norms of the vectors there."""
    pairs: tuple[Pair, ...]
    """Every two of the vectors."""

    def to_json(self) -> dict[str, Any]:
        """As `compare --json` prints it."""
        return {
            "vectors": [
                {
                    "name": name, "norm": self.norms[i],
                    "layers": [{"layer": layer, "norm": norms[i]} for layer, norms in self.layer_norms.items()],
                }
                for i, name in enumerate(self.vectors)
            ],
            "pairs": [
                {
                    "first": self.vectors[pair.first], "second": self.vectors[pair.second], **pair.overall.to_json(),
                    "layers": [{"layer": layer, **likeness.to_json()} for layer, likeness in pair.layers.items()],
                }
                for pair in self.pairs
            ],
        }  # fmt: skip


class _Sums:
    """What the likeness of every pair is made of, as matrices over the vectors."""

    def __init__(self, count: int) -> None:
        self.products: NDArray[np.float64] = np.zeros((count, count))
        self.both: NDArray[np.float64] = np.zeros((count, count))
        self.agreement: NDArray[np.float64] = np.zeros((count, count))
        """Entries of equal sign less entries of opposite sign."""
        self.entries = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in a tile, one row for each vector."""
        # sums of ones are exact in float32 up to 2**24, beyond any tile
        signs = np.subtract(values > 0, values < 0, dtype=np.float32)
        changed = np.abs(signs)
        self.products += values @ values.T
        self.both += changed @ changed.T
        self.agreement += signs @ signs.T
        self.entries += values.shape[1]

    @property
    def norms(self) -> tuple[float, ...]:
        return tuple(float(norm) for norm in np.sqrt(np.diag(self.products)))

    def likeness(self, first: int, second: int) -> Likeness:
        norms, both = self.norms, float(self.both[first, second])
        size = norms[first] * norms[second]
        return Likeness(
            max(-1.0, min(1.0, float(self.products[first, second]) / size)) if size else None,
            (both + float(self.agreement[first, second])) / (2 * both) if both else None,
            both / self.entries if self.entries else None,
            self.entries,
        )


def compare(vectors: Sequence[str | Path], *, offline: bool = False) -> Comparison:
    """Compare every two of `vectors`: cosine, agreement of signs and norms, overall and by layer.

    Raises UsageError for fewer than two, IncompatibleError listing the tensors that not all of them have in one shape,
    VectorError for a vector that is damaged.
    """
    if len(vectors) < 2:
        raise UsageError(f"compare needs at least two vectors, not {len(vectors)}. For one alone there is inspect.")
    opened = [locate_vector(location, offline=offline) for location in vectors]
    _check_alike(opened)
    sums: dict[str, _Sums] = {}
    sources = [StoredDeltas(vector) for vector in opened]
    with tensor_reader() as reader:
        for name, delta in opened[0].deltas.items():
            layer = layer_of(name)
            group = sums.setdefault("other" if layer is None else str(layer), _Sums(len(opened)))
            readers = [source.open(name, reader) for source in sources]
            for start in range(0, delta.size, TILE):
                stop = min(start + TILE, delta.size)
                group.add(np.stack([deltas.read(start, stop, _FLOAT64).main for deltas in readers]))
            for deltas in readers:
                deltas.close()
    return _comparison([str(location) for location in vectors], sums)


def _check_alike(vectors: Sequence[Vector]) -> None:
    """Raise unless all have the same tensors: a cosine over what happens to be common would answer another question."""
    everything = sorted({name for vector in vectors for name in vector.deltas})
    misfits = []
    for name in everything:
        shapes = [vector.deltas[name].shape if name in vector.deltas else None for vector in vectors]
        if None in shapes:
            lacking = [vector.location for vector, shape in zip(vectors, shapes, strict=True) if shape is None]
            misfits.append(Misfit(name, "missing", f"missing in {', '.join(lacking)}"))
        elif len(set(shapes)) > 1:
            found = [f"{shape} in {vector.location}" for vector, shape in zip(vectors, shapes, strict=True)]
            misfits.append(Misfit(name, "shape", f"shape {', '.join(found)}"))
    if misfits:
        raise IncompatibleError(
            f"The vectors do not fit: {len(misfits)} of {len(everything)} tensors are not in all of them in one shape:"
            f"\n{listing(misfits)}\nA cosine over the rest would compare parts of vectors. Compare vectors of one "
            f"architecture, extracted with the same --only and --skip."
        )


def _comparison(names: Sequence[str], sums: Mapping[str, _Sums]) -> Comparison:
    order = sorted(sums, key=lambda group: (not group.isdigit(), int(group) if group.isdigit() else 0))
    layers = {group: sums[group] for group in order}
    overall = _Sums(len(names))
    for group in layers.values():
        overall.products += group.products
        overall.both += group.both
        overall.agreement += group.agreement
        overall.entries += group.entries
    pairs = tuple(
        Pair(a, b, overall.likeness(a, b), {layer: group.likeness(a, b) for layer, group in layers.items()})
        for a in range(len(names))
        for b in range(a + 1, len(names))
    )
    return Comparison(tuple(names), overall.norms, {layer: group.norms for layer, group in layers.items()}, pairs)
