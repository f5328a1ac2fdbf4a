"""The vector on disk: a directory with vector.json and ordinary safetensors files. docs/format.md specifies it.

Reading only; `extract` writes vectors of donors, `controls` the random ones, `compress` the lossy ones, all through
`VectorWriter`.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError, VectorError
from reasonvec.weights.arithmetic import STEP_BINS, Doubles, Indices
from reasonvec.weights.blocks import BLOCK
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.documents import CHECKPOINT, FILES, NORM, NUMBER, read_document
from reasonvec.weights.dtypes import EXACT_CHAIN, STORED
from reasonvec.weights.files import check_inside, sha256_of
from reasonvec.weights.findings import shown
from reasonvec.weights.mirror import Mirror
from reasonvec.weights.safetensors_header import TensorEntry, is_shape, read_header
from reasonvec.weights.strict_json import Budget, complaint, memory_of

FORMAT = "reasonvec.vector"
FORMAT_VERSION = 2
DOCUMENT = "vector.json"
RESIDUAL = Path("residual") / "residual.safetensors"
DONOR = Path("donor")
SAMPLE = DONOR / "sample.safetensors"


@dataclass(frozen=True, slots=True)
class Delta:
    """One tensor of a vector, as vector.json describes it and its shard holds it."""

    name: str
    shape: tuple[int, ...]
    checkpoint_dtype: str
    """The donors' common dtype: BF16, F16 or F32."""
    encoding: str
    """`dense`: the differences themselves, in the narrowest dtype that holds every entry exactly. `sparse`: the changed
    entries alone, compressed. `low-rank`, `quantised`: nearly the differences, where `compress` made them."""
    entry: TensorEntry
    """Where it lies; but for a dense delta its shape is the number of its bytes, or of the numbers of its factors."""
    digest: str
    """`blocks.tensor_digest` of the blocks as `encoding` has them."""
    changed: int
    """Entries that differ between the donors; in a lossy vector, those that are not zero."""
    norm: float
    base_norm: float
    steps: tuple[int, ...]
    """How many entries moved by how many units in the last place; the bins are `arithmetic.STEP_BINS`."""
    residual: int
    """Entries of a dense delta that need more than a float64; their rest is in residual.safetensors."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def stored(self) -> str:
        """How it is stored, in a word: a dtype, or the encoding."""
        return self.entry.dtype if self.encoding == "dense" else self.encoding


@dataclass(frozen=True)
class Vector:
    """A vector whose document and headers have been checked; `open_vector` makes them."""

    location: str
    path: Path
    revision: str | None
    """The commit on the Hub, where that is known."""
    document: Mapping[str, Any]
    deltas: Mapping[str, Delta]
    mirror: Mirror | None = None
    """Of a vector in a store, whose directory `path` then is."""

    @property
    def tied(self) -> dict[str, str]:
        """Tensor names that the donors tie -> the tensor that they are a copy of."""
        return dict(self.document["tied"])

    @property
    def left_out(self) -> frozenset[str]:
        """Names that the donors have and `--only` or `--skip` left out of the vector."""
        return frozenset(self.document["left_out"])

    @property
    def carried(self) -> Mapping[str, Mapping[str, Any]]:
        """Tensors that are not computed with (integers, 8-bit floats) and that the donors agree on."""
        carried: Mapping[str, Mapping[str, Any]] = self.document["carried"]
        return carried

    @property
    def lossy(self) -> Mapping[str, Any] | None:
        """How `compress` made this vector and what it lost; None for an exact one."""
        lossy: Mapping[str, Any] | None = self.document.get("lossy")
        return lossy

    @property
    def lossy_notice(self) -> str | None:
        """What whoever adds it should know of a vector that is lossy."""
        if self.lossy is None:
            return None
        error = self.lossy["relative_error"]
        # by fingerprint: the receipt holds this too, and `verify` may name the vector in another way
        what = f"The vector with the fingerprint {self.fingerprint[:16]} is lossy ({lossy_method(self.lossy)})"
        if error is None:
            return f"{what}, made of one that is zero."
        return (f"{what}: over all tensors it is {error:.2%} of the exact vector's norm away from it. Exact is the one "
                f"with the fingerprint {self.lossy['of']['fingerprint'][:16]}.")  # fmt: skip

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the document, which holds the checksums of everything else."""
        return str(self.document["sha256"])

    @cached_property
    def residuals(self) -> dict[str, tuple[Indices, Doubles]]:
        """Tensor name -> the entries that need more than a float64, ascending, and what is missing there."""
        names = [name for name, delta in self.deltas.items() if delta.residual]
        if not names:
            return {}
        self.check_file(str(RESIDUAL))
        path = self.path / RESIDUAL
        entries, _ = read_header(path)
        with path.open("rb") as file:
            found = {name: (_read(file, path, entries, f"{name}#index", np.dtype("<i8")),
                            _read(file, path, entries, f"{name}#value", np.dtype("<f8")))
                     for name in names}  # fmt: skip
        for name, (index, value) in found.items():
            if not _is_residual(self.deltas[name], index, value):
                raise VectorError(f"{path} does not hold {self.deltas[name].residual} finite numbers for ascending "
                                  f"entries of {name!r}, as vector.json says. Extract the vector again.")  # fmt: skip
        return found

    def check_file(self, name: str) -> None:
        """Raise VectorError if one of the small files does not match its checksum."""
        if sha256_of(self.path / name) != self.document["files"].get(name, {}).get("sha256"):
            raise VectorError(f"{self.path / name} does not match its checksum in vector.json. The vector was damaged "
                              f"after it was made; copy or extract it again.")  # fmt: skip

    def donor(self) -> Checkpoint:
        """The base donor's small files, kept in the vector, as a checkpoint without tensors. Raises VectorError if they
        do not match their checksums."""
        for name in self.document["files"]:
            if name.startswith(f"{DONOR}/"):
                self.check_file(name)
        folder = self.path / DONOR
        for path in folder.rglob("*") if folder.is_dir() else ():
            name = path.relative_to(self.path).as_posix()
            if (path.is_symlink() or not path.is_dir()) and name not in self.document["files"]:
                raise VectorError(f"{path} is not among the files of the vector that vector.json lists. Somebody put "
                                  f"it there; remove it.")  # fmt: skip
        return Checkpoint(f"{self.location}/{DONOR}", folder, None, {}, follow_links=True, mirror=self.mirror)


def lossy_method(lossy: Mapping[str, Any]) -> str:
    """Method and parameters in a few words, from a document that may hold anything there."""
    parameters = ", ".join(f"{name} {value}" for name, value in lossy["parameters"].items())
    return f"{lossy['method']}: {parameters}"[:120]


def _read(file: Any, path: Path, entries: Mapping[str, TensorEntry], name: str, dtype: np.dtype[Any]) -> Any:
    if name not in entries or entries[name].dtype != {"<i8": "I64", "<f8": "F64"}[dtype.str]:
        raise VectorError(f"{path} lacks {name!r} as {dtype}, which vector.json speaks of. The vector is damaged; "
                          f"extract it again.")  # fmt: skip
    file.seek(entries[name].offset)
    return np.frombuffer(file.read(entries[name].nbytes), dtype)


def _is_residual(delta: Delta, index: Indices, value: Doubles) -> bool:
    if not (delta.entry.dtype == "F64" and index.size == value.size == delta.residual):
        return False
    runs = ((index[start : start + BLOCK + 1], value[start : start + BLOCK]) for start in range(0, index.size, BLOCK))
    return bool(
        index[0] >= 0
        and index[-1] < delta.size
        and all((places[1:] > places[:-1]).all() and np.isfinite(numbers).all() for places, numbers in runs)
    )


def open_vector(
    path: Path, *, location: str | None = None, revision: str | None = None, mirror: Mirror | None = None
) -> Vector:
    """Read vector.json and the headers of a vector and check that they agree. One in a store is opened by its `mirror`.

    Raises VectorError for a directory that is no vector, another format version, a document whose checksum does not
    hold, or files that are missing or differ in size, names, shapes or dtypes from what the document says, and
    CheckpointError for files that are not regular ones inside the vector. The data is checked as it is read.
    """
    file = path / DOCUMENT
    if not os.path.lexists(file):
        if (path / "config.json").exists() or (path / "model.safetensors").exists():
            raise VectorError(f"{path} is a checkpoint, not a vector. Take the difference of two first: reasonvec "
                              f"extract --tuned TUNED --base BASE --out VECTOR.")  # fmt: skip
        raise VectorError(f"{path} has no {DOCUMENT}, so it is not a vector. `reasonvec extract` makes them.")
    root = path.resolve()
    check_inside(file, root)
    budget = Budget()  # one for all: the document, and what it and the headers become
    for shard in root.glob("*.safetensors"):
        budget.grow(shard.stat().st_size if shard.is_file() else 0)
    document = read_document(file, FORMAT_VERSION, _FORM, budget)
    if document["format"] != FORMAT:
        raise VectorError(f"{file} is a {document['format']}, not a {FORMAT}.")
    for name, info in document["files"].items():
        _check_size(root / name, root, info["bytes"])
    deltas = _deltas(root, document, budget)
    if mirror:
        deltas = {name: replace(delta, entry=mirror.remote(delta.entry)) for name, delta in deltas.items()}
    return Vector(location or str(path), root, revision, document, deltas, mirror)


RELATION = {"ancestor": str, "case": str, "norm_v": NORM, "norm_s": NORM, "norm_g": NORM, "explanation": str,
            **dict.fromkeys(("cosine_v_s", "cosine_v_g", "cosine_s_g", "share"), NUMBER | None)}  # fmt: skip
CONTROL = {"kind": str, "seed": int, "of": str}
_ERRORS = {"relative_error": NUMBER | None, "cosine": NUMBER | None, "changed_share": NUMBER | None}
_LOSSY = {
    "method": str, "parameters": dict, "seed": NUMBER, "of": {"location": str, "fingerprint": str},
    "measured_on": str | None, "kept_exactly": [str], **_ERRORS, "kinds": {str: _ERRORS}, "tensors": {str: _ERRORS},
}  # fmt: skip
_FORM = {
    "format": str, "donors": {"tuned": CHECKPOINT, "base": CHECKPOINT}, "only": [str], "skip": [str],
    "left_out": [str], "tied": {str: str}, "files": FILES, "options": {"encoding": str}, "relation": (RELATION,),
    "control": (CONTROL,), "lossy": (_LOSSY,), "step_bins": [str],
    "carried": {str: {"shape": [int], "dtype": str, "digest": str}},
    "tensors": {str: {
        "shape": [int], "dtype": str, "encoding": str, "file": str, "digest": str, "residual": int,
        "checkpoint_dtype": str, "changed": int, "norm": NORM, "base_norm": NORM, "rounding": NORM,
        "steps": [int],
    }},
}  # fmt: skip


def _check_size(file: Path, root: Path, size: int) -> None:
    try:
        check_inside(file, root)
    except CheckpointError as error:
        raise VectorError(f"{error} Copy or extract the vector again.") from None
    if not file.is_file() or file.stat().st_size != size:
        raise VectorError(f"{file} has {file.stat().st_size} bytes; vector.json says {size} bytes. The vector was cut "
                          f"off or damaged; copy or extract it again.")  # fmt: skip


_DELTA_BYTES = 350
"""What a `Delta` takes beside what it shares with the document, with the places in two dicts."""


def _deltas(root: Path, document: Mapping[str, Any], budget: Budget) -> dict[str, Delta]:
    _share_shapes(document["tensors"], budget)
    names_in: dict[str, list[str]] = {}
    for name, info in sorted(document["tensors"].items()):
        if info["file"] not in names_in and info["file"] not in document["files"]:
            raise VectorError(f"{root / DOCUMENT} puts {shown(name)} in {shown(info['file'])}, which it does not list.")
        names_in.setdefault(info["file"], []).append(name)
    deltas = {}
    for file, names in names_in.items():
        with budget.lent():  # the header's own entries go
            entries, _ = read_header(root / file, budget)
            for name in names:
                deltas[name] = _delta(root, document, name, entries.get(name))
        try:
            budget.spend(_DELTA_BYTES * len(names))
        except ValueError as error:
            raise VectorError(f"{root / DOCUMENT} {complaint(error)}. It is damaged; make it again.") from None
    return dict(sorted(deltas.items()))


def _share_shapes(tensors: Mapping[str, dict[str, Any]], budget: Budget) -> None:
    """Keep each shape once: a model has thousands of tensors of a few shapes."""
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    for info in tensors.values():
        shape = tuple(info["shape"])
        if (like := known.setdefault(shape, shape)) is not shape:
            budget.spent -= memory_of(info["shape"])
        info["shape"] = like


def _delta(root: Path, document: Mapping[str, Any], name: str, entry: TensorEntry | None) -> Delta:
    info = document["tensors"][name]
    _check_encoding(root, name, info, lossy="lossy" in document)
    dense = info["encoding"] == "dense"
    if entry is None or entry.dtype != info["dtype"] or (dense and entry.shape != info["shape"]):
        raise VectorError(f"{root / info['file']} does not hold {shown(name)} as {info['encoding']} {info['dtype']} of "
                          f"shape {list(info['shape'])}, as vector.json says. Extract the vector again.")  # fmt: skip
    if len(info["steps"]) != len(STEP_BINS):
        raise VectorError(f"{root / DOCUMENT}: {shown(name)} has {len(info['steps'])} counts of steps, not "
                          f"{len(STEP_BINS)}. The vector is damaged; extract it again.")  # fmt: skip
    steps = info["steps"] = tuple(info["steps"])  # the document shares what it has in common with its deltas
    shape = info["shape"]
    entry = replace(entry, name=name, dtype=info["dtype"], shape=shape if dense else entry.shape)
    return Delta(
        name, shape, info["checkpoint_dtype"], info["encoding"], entry, info["digest"],
        info["changed"], float(info["norm"]), float(info["base_norm"]), steps, info["residual"],
    )  # fmt: skip


_DTYPES = {"dense": tuple(STORED), "sparse": ("U8",), "low-rank": ("F32",), "quantised": ("U8",)}
"""What safetensors calls the data of each encoding."""


def _check_encoding(root: Path, name: str, info: Mapping[str, Any], *, lossy: bool) -> None:
    """Raise VectorError for a delta that is stored in a way that this version does not read."""
    dtypes = _DTYPES.get(info["encoding"], ())
    if info["dtype"] not in dtypes or info["checkpoint_dtype"] not in EXACT_CHAIN:
        raise VectorError(f"{root / DOCUMENT} encodes {name!r} as {info['encoding']!r} {info['dtype']} of "
                          f"{info['checkpoint_dtype']}, which this version cannot read.")  # fmt: skip
    if not is_shape(list(info["shape"])):
        raise VectorError(f"{root / DOCUMENT} gives {name!r} the shape {list(info['shape'])}, which no tensor has.")
    if info["encoding"] in ("low-rank", "quantised") and not lossy:
        raise VectorError(f"{root / DOCUMENT}: {name!r} is {info['encoding']}, which is lossy, and the document does "
                          f"not say what was lost. Compress the exact vector again.")  # fmt: skip
    if info["encoding"] != "dense" and info["residual"]:
        raise VectorError(f"{root / DOCUMENT}: {name!r} is {info['encoding']} and yet has a residual; the vector is "
                          f"damaged.")  # fmt: skip
