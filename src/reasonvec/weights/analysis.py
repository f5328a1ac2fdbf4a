"""`inspect`: what is in a vector, by tensor, by layer and by kind of module. Norms and histograms were counted when the
vector was extracted; only the spectrum, and the relation to an ancestor, read weights.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import UsageError, VectorError
from reasonvec.weights.arithmetic import STEP_BINS
from reasonvec.weights.checkpoint import Checkpoint, layer_of, tensor_reader
from reasonvec.weights.hub import locate_checkpoint, locate_vector, recorded_donor
from reasonvec.weights.modules import KINDS, kind_of
from reasonvec.weights.relation import relate
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.spectrum import top_energy
from reasonvec.weights.vector import Delta, Vector

Progress = Callable[[int], None]
"""Called with the number of bytes of the vector that were just analysed."""


@dataclass(frozen=True)
class Change:
    """How much of something changed: of a tensor, a layer, a kind of module or the whole."""

    parameters: int
    changed: int
    """Entries that differ between the donors."""
    norm: float
    base_norm: float
    """Of the base donor's weights."""

    @property
    def relative_norm(self) -> float | None:
        """Norm of the delta over norm of the weights; None where the weights are zero."""
        return self.norm / self.base_norm if self.base_norm else None

    @property
    def unchanged_share(self) -> float | None:
        """None where there are no entries."""
        return 1 - self.changed / self.parameters if self.parameters else None

    def to_json(self) -> dict[str, Any]:
        """As `inspect --json` prints it."""
        return {"parameters": self.parameters, "norm": self.norm, "relative_norm": self.relative_norm,
                "unchanged_share": self.unchanged_share}  # fmt: skip


@dataclass(frozen=True)
class TensorAnalysis:
    """One tensor of a vector."""

    name: str
    layer: int | None
    kind: str
    """One of `modules.KINDS`."""
    shape: tuple[int, ...]
    dtype: str
    """In which the delta is stored, or its encoding."""
    checkpoint_dtype: str
    change: Change
    steps: tuple[int, ...]
    """Entries by how many units in the last place they moved, in the bins of `arithmetic.STEP_BINS`."""
    energy: Mapping[int, float] | None
    """Number of singular values -> share of the squared norm in the largest of that number."""

    def to_json(self) -> dict[str, Any]:
        """As `inspect --json` prints it."""
        return {
            "name": self.name, "layer": self.layer, "kind": self.kind, "shape": list(self.shape), "dtype": self.dtype,
            "checkpoint_dtype": self.checkpoint_dtype, **self.change.to_json(), "steps": _histogram(self.steps),
            "energy": None if self.energy is None else {str(rank): share for rank, share in self.energy.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """What is in a vector."""

    name: str
    document: Mapping[str, Any]
    """vector.json."""
    nbytes: int
    """Of the whole vector on disk."""
    tensors: tuple[TensorAnalysis, ...]
    relation: Mapping[str, Any] | None
    """How the donors descend from an ancestor, as `relation.Relation.to_json` says it; None where none was given."""

    @property
    def total(self) -> Change:
        """All tensors together."""
        return _together(self.tensors)

    @property
    def layers(self) -> dict[int | None, Change]:
        """By layer number, first layer first; None, last, for what lies outside the layers."""
        numbers = {tensor.layer for tensor in self.tensors}
        ordered = sorted(numbers, key=lambda layer: (layer is None, layer or 0))
        return {layer: _together(t for t in self.tensors if t.layer == layer) for layer in ordered}

    @property
    def kinds(self) -> dict[str, Change]:
        """By kind of module, in the order of `modules.KINDS`."""
        present = {tensor.kind for tensor in self.tensors}
        return {kind: _together(t for t in self.tensors if t.kind == kind) for kind in KINDS if kind in present}

    @property
    def steps(self) -> tuple[int, ...]:
        """The histogram over all tensors."""
        return tuple(sum(tensor.steps[i] for tensor in self.tensors) for i in range(len(STEP_BINS)))

    @property
    def energies(self) -> dict[str, dict[int, float]]:
        """By kind of module: number of singular values -> share of energy, the mean over tensors weighted by theirs."""
        found: dict[str, dict[int, float]] = {}
        for kind in self.kinds:
            measured = [t for t in self.tensors if t.kind == kind and t.energy]
            squares = sum(t.change.norm**2 for t in measured)
            if squares:
                found[kind] = {rank: sum(t.change.norm**2 * (t.energy or {})[rank] for t in measured) / squares
                               for rank in measured[0].energy or {}}  # fmt: skip
        return found

    @property
    def rounding_share(self) -> float | None:
        """What putting donors of different dtypes on one grid moved, over the norm; 0 for donors of one dtype, None for
        an empty vector of donors that differ."""
        rounding = math.sqrt(sum(float(info.get("rounding", 0.0)) for info in self.document["tensors"].values()))
        return 0.0 if rounding == 0 else rounding / self.total.norm if self.total.norm else None

    def to_json(self) -> dict[str, Any]:
        """As `inspect --json` prints it."""
        return {
            "name": self.name, "format_version": self.document["format_version"], "tensors_count": len(self.tensors),
            **self.total.to_json(), "rounding_share": self.rounding_share, "bytes": self.nbytes,
            "sha256": self.document["sha256"], "control": self.document.get("control"),
            "lossy": self.document.get("lossy"), "donors": self.document.get("donors", {}), "relation": self.relation,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "layers": [{"layer": layer, **change.to_json()} for layer, change in self.layers.items()],
            "kinds": [{"kind": kind, **change.to_json()} for kind, change in self.kinds.items()],
            "steps": _histogram(self.steps),
        }  # fmt: skip


def inspect(
    vector: str | Path,
    *,
    ancestor: str | Path | None = None,
    spectrum: bool = True,
    seed: int = 0,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Inspection:
    """Say what is in a vector. `spectrum` reads all of it for the energy in the largest singular values, by a
    randomised method that `seed` fixes. With `ancestor`, the donors are read again where they were at extraction.

    Raises VectorError for a vector that is damaged or whose donors are gone, CheckpointError for an ancestor that
    cannot be read, IncompatibleError for one that does not fit, UsageError for an ancestor of a control.
    """
    opened = locate_vector(vector, offline=offline)
    relation = opened.document.get("relation")
    if ancestor is not None:
        relation = _relation(opened, ancestor, offline)
    deltas, tensors = StoredDeltas(opened), []
    with tensor_reader() as reader:
        for delta in opened.deltas.values():
            energy = top_energy(deltas, delta, reader, seed=seed) if spectrum else None
            tensors.append(_tensor(delta, energy))
            progress(delta.entry.nbytes)
    nbytes = sum(int(info["bytes"]) for info in opened.document["files"].values())
    return Inspection(str(vector), opened.document, nbytes, tuple(tensors), relation)


def _tensor(delta: Delta, energy: Mapping[int, float] | None) -> TensorAnalysis:
    change = Change(delta.size, delta.changed, delta.norm, delta.base_norm)
    return TensorAnalysis(
        delta.name, layer_of(delta.name), kind_of(delta.name), delta.shape, delta.stored, delta.checkpoint_dtype,
        change, delta.steps, energy,
    )  # fmt: skip


def _together(tensors: Iterable[TensorAnalysis]) -> Change:
    changes = [tensor.change for tensor in tensors]
    return Change(
        sum(change.parameters for change in changes),
        sum(change.changed for change in changes),
        math.sqrt(sum(change.norm**2 for change in changes)),
        math.sqrt(sum(change.base_norm**2 for change in changes)),
    )


def _histogram(counts: Iterable[int]) -> dict[str, Any]:
    return {"bins": list(STEP_BINS), "counts": list(counts)}


def _relation(vector: Vector, ancestor: str | Path, offline: bool) -> dict[str, Any]:
    if vector.document.get("control"):
        raise UsageError(f"{vector.location} is a control made of another vector; it has no donors to relate.")
    tuned, base = (_donor(vector, role, offline) for role in ("tuned", "base"))
    return relate(
        tuned=tuned,
        base=base,
        ancestor=locate_checkpoint(ancestor, offline=offline),
        names=[name for name in vector.deltas if name not in vector.tied],
    ).to_json()


def _donor(vector: Vector, role: str, offline: bool) -> Checkpoint:
    """The donor at the place where it was at extraction, if it still looks the same."""
    try:
        return recorded_donor(vector, role, offline=offline)
    except VectorError as error:
        raise VectorError(f"--ancestor needs the donors again, and {error} Put it back, or extract the vector anew "
                          f"with --ancestor.") from error  # fmt: skip
