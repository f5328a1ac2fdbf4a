"""Where deltas come from, one tile at a time: a vector on disk, or two donors subtracted on the way. Both give the same
numbers for the same donors, so that `transfer` writes the bytes that `extract` and `apply` would.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from reasonvec.errors import CheckpointError, VectorError
from reasonvec.weights.alignment import DonorMatch, Form
from reasonvec.weights.arithmetic import TILE, Doubles, Indices, first_non_finite, has_non_finite, subtract
from reasonvec.weights.checkpoint import Checkpoint, TensorReader
from reasonvec.weights.digest import Digest
from reasonvec.weights.dtypes import FLOATS, STORED, Array
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.vector import Vector

_NO_INDEX: Indices = np.empty(0, np.int64)
_NO_VALUES: Doubles = np.empty(0, np.float64)


@dataclass(frozen=True)
class DeltaTile:
    """A run of entries of one delta: `main` in the work dtype, and the few entries that do not fit it exactly."""

    main: Array
    index: Indices = field(default_factory=lambda: _NO_INDEX)
    """Which entries of the tile `main` holds only nearly; their exact value is `high + low`."""
    high: Doubles = field(default_factory=lambda: _NO_VALUES)
    low: Doubles = field(default_factory=lambda: _NO_VALUES)


class TensorTiles:
    """One tensor of a file, read in order a tile at a time, with the SHA-256 of what was read."""

    def __init__(self, entry: TensorEntry, reader: TensorReader) -> None:
        self.entry = entry
        self._reader = reader
        self._digest = Digest()
        self._itemsize = entry.nbytes // entry.size if entry.size else 1
        dtype = FLOATS[entry.dtype].numpy if entry.dtype in FLOATS else STORED.get(entry.dtype)
        self._dtype = dtype or np.dtype(np.uint8)

    def read(self, start: int, stop: int) -> Array:
        """The entries from `start` to `stop`, a writable array of its own."""
        raw = np.empty((stop - start) * self._itemsize, np.uint8)
        self._reader.read_into(self.entry, start * self._itemsize, raw.data)
        self._digest.update(raw.data)
        return raw.view(self._dtype)

    @property
    def sha256(self) -> str:
        """Of all that was read so far, hexadecimal."""
        return self._digest.hexdigest()


class DeltaTiles(Protocol):
    """One delta, read in order."""

    def read(self, start: int, stop: int, work: "np.dtype[Any]") -> DeltaTile:
        """The entries from `start` to `stop` in the dtype `work`. Raises where a donor is not finite."""

    def close(self) -> None:
        """Called after the last entry was read. Raises VectorError if the data did not match its checksum."""


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

    def open(self, name: str, reader: TensorReader) -> DeltaTiles:
        """Begin to read the delta `name`."""


def tiles(size: int) -> list[tuple[int, int]]:
    """The runs of at most `TILE` entries that a tensor of `size` entries is computed in."""
    return [(start, min(start + TILE, size)) for start in range(0, size, TILE)]


class StoredDeltas:
    """The deltas of a vector on disk."""

    def __init__(self, vector: Vector) -> None:
        self.vector = vector
        self.forms = {name: (delta.shape, delta.checkpoint_dtype) for name, delta in vector.deltas.items()}
        self.carried = {name: (tuple(c["shape"]), str(c["dtype"])) for name, c in vector.carried.items()}
        self.left_out, self.tied, self.location = vector.left_out, vector.tied, vector.location

    def open(self, name: str, reader: TensorReader) -> "_StoredDelta":
        """Begin to read the delta `name`."""
        return _StoredDelta(self.vector, name, reader)


class _StoredDelta:
    def __init__(self, vector: Vector, name: str, reader: TensorReader) -> None:
        self._delta = vector.deltas[name]
        self._tiles = TensorTiles(self._delta.entry, reader)
        self._where, self._rest = vector.residuals.get(name, (_NO_INDEX, _NO_VALUES))

    def read(self, start: int, stop: int, work: "np.dtype[Any]") -> DeltaTile:
        stored = self._tiles.read(start, stop)
        if stored.dtype != np.float64:
            if has_non_finite(stored):
                raise self._not_finite()
            return DeltaTile(stored.astype(work, copy=False))
        if not np.isfinite(stored).all():
            raise self._not_finite()
        main = _shortened(stored, work)
        first, last = np.searchsorted(self._where, [start, stop])
        low = np.zeros(stop - start)
        low[self._where[first:last] - start] = self._rest[first:last]
        index = np.flatnonzero((main != stored) | (low != 0))
        return DeltaTile(main, index, stored[index], low[index])

    def _not_finite(self) -> VectorError:
        return VectorError(f"{self._delta.entry.path}: {self._delta.name!r} holds NaN or infinity, which no difference "
                           f"of finite donors has. The vector was made by something else or damaged.")  # fmt: skip

    def close(self) -> None:
        if self._tiles.sha256 != self._delta.sha256:
            raise VectorError(
                f"{self._delta.entry.path}: the data of {self._delta.name!r} does not match its checksum in "
                f"vector.json. The vector was damaged after it was made; copy or extract it again."
            )


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
        """Tensor name -> the SHA-256 of its bytes in tuned and in base, once it was read."""

    def open(self, name: str, reader: TensorReader) -> "_DonorDelta":
        """Begin to read the delta `name`."""
        return _DonorDelta(self, name, reader)


class _DonorDelta:
    def __init__(self, donors: DonorDeltas, name: str, reader: TensorReader) -> None:
        self._donors, self._name = donors, name
        self._pair = DonorTiles(donors.tuned.tensors[name], donors.base.tensors[name], donors.grid[name], reader)

    def read(self, start: int, stop: int, work: "np.dtype[Any]") -> DeltaTile:
        tuned, base = self._pair.read(start, stop)
        difference = subtract(tuned, base)
        main = np.zeros(stop - start, work)
        main[difference.index] = _shortened(difference.high, work)
        long = np.flatnonzero((main[difference.index] != difference.high) | (difference.low != 0))
        return DeltaTile(main, difference.index[long], difference.high[long], difference.low[long])

    def close(self) -> None:
        self._donors.digests[self._name] = self._pair.digests


class DonorTiles:
    """The same tensor of two donors, read together and put on the coarser of their two grids."""

    def __init__(self, tuned: TensorEntry, base: TensorEntry, grid: str, reader: TensorReader) -> None:
        self._tuned, self._base = TensorTiles(tuned, reader), TensorTiles(base, reader)
        self._grid = FLOATS[grid]
        self.rounding = 0.0
        """Sum of squares of what putting the donors on one grid has changed so far; 0 for donors of one dtype."""

    def read(self, start: int, stop: int) -> tuple[Array, Array]:
        """The entries from `start` to `stop` of tuned and of base. Raises CheckpointError for NaN and infinity."""
        return self._on_grid("tuned", self._tuned, start, stop), self._on_grid("base", self._base, start, stop)

    def _on_grid(self, role: str, tensor: TensorTiles, start: int, stop: int) -> Array:
        values = tensor.read(start, stop)
        if has_non_finite(values):
            bad = first_non_finite(values)
            raise CheckpointError(
                f"{tensor.entry.path}: {tensor.entry.name!r} of the {role} donor holds "
                f"{float(values[bad])} at entry {start + bad}. A difference with NaN or infinity means nothing and "
                f"would spoil every model it is added to; the donor is broken."
            )
        if values.dtype == self._grid.numpy:
            return values
        with np.errstate(over="ignore"):
            rounded = values.astype(self._grid.numpy)
        if has_non_finite(rounded):
            raise CheckpointError(
                f"{tensor.entry.path}: {tensor.entry.name!r} of the {role} donor holds a value beyond the range of "
                f"{self._grid.name}, in which the other donor is stored. Save both donors in one dtype."
            )
        error = values.astype(np.float64) - rounded.astype(np.float64)
        self.rounding += float(np.add.reduce(error * error))
        return rounded

    @property
    def digests(self) -> tuple[str, str]:
        """SHA-256 of what was read of tuned and of base."""
        return self._tuned.sha256, self._base.sha256
