"""The vector on disk: a directory with vector.json and ordinary safetensors files. docs/format.md specifies it.

Reading only; `extract` writes vectors of donors, `controls` writes the random ones, both through `write_document`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import VectorError
from reasonvec.weights.arithmetic import Doubles, Indices
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.dtypes import EXACT_CHAIN, STORED
from reasonvec.weights.safetensors_header import TensorEntry, loads_strictly, read_header

FORMAT = "reasonvec.vector"
FORMAT_VERSION = 1
DOCUMENT = "vector.json"
RESIDUAL = Path("residual") / "residual.safetensors"
DONOR = Path("donor")
SAMPLE = DONOR / "sample.safetensors"
MAX_DOCUMENT = 256 << 20


@dataclass(frozen=True)
class Delta:
    """One tensor of a vector, as vector.json describes it and its shard holds it."""

    name: str
    shape: tuple[int, ...]
    checkpoint_dtype: str
    """The donors' common dtype: BF16, F16 or F32."""
    entry: TensorEntry
    """Where the difference lies, in the narrowest dtype that holds every entry of it exactly."""
    sha256: str
    changed: int
    """Entries that differ between the donors."""
    norm: float
    base_norm: float
    steps: tuple[int, ...]
    """How many entries moved by how many units in the last place; the bins are `arithmetic.STEP_BINS`."""
    residual: int
    """Entries whose difference needs more than a float64; their rest is in residual.safetensors."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.entry.size


@dataclass(frozen=True)
class Vector:
    """A vector whose document and headers have been checked; `open_vector` makes them."""

    location: str
    path: Path
    document: Mapping[str, Any]
    deltas: Mapping[str, Delta]

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
        self._check_file(str(RESIDUAL))
        path = self.path / RESIDUAL
        entries, _ = read_header(path)
        with path.open("rb") as file:
            return {name: (_read(file, path, entries, f"{name}#index", np.dtype("<i8")),
                           _read(file, path, entries, f"{name}#value", np.dtype("<f8"))) for name in names}  # fmt: skip

    def _check_file(self, name: str) -> None:
        """Raise VectorError if one of the small files does not match its checksum."""
        digest = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
        if digest != self.document["files"].get(name, {}).get("sha256"):
            raise VectorError(f"{self.path / name} does not match its checksum in vector.json. The vector was damaged "
                              f"after it was made; copy or extract it again.")  # fmt: skip

    def donor(self) -> Checkpoint:
        """The base donor's small files, kept in the vector, as a checkpoint without tensors. Raises VectorError if they
        do not match their checksums."""
        for name in self.document["files"]:
            if name.startswith(f"{DONOR}/"):
                self._check_file(name)
        return Checkpoint(f"{self.location}/{DONOR}", self.path / DONOR, None, {})


def _read(file: Any, path: Path, entries: Mapping[str, TensorEntry], name: str, dtype: np.dtype[Any]) -> Any:
    if name not in entries or entries[name].dtype != {"<i8": "I64", "<f8": "F64"}[dtype.str]:
        raise VectorError(f"{path} lacks {name!r} as {dtype}, which vector.json speaks of. The vector is damaged; "
                          f"extract it again.")  # fmt: skip
    file.seek(entries[name].offset)
    return np.frombuffer(file.read(entries[name].nbytes), dtype)


def open_vector(path: Path, *, location: str | None = None) -> Vector:
    """Read vector.json and the headers of a vector and check that they agree.

    Raises VectorError for a directory that is no vector, another format version, a document whose checksum does not
    hold, or files that are missing or differ in size, names, shapes or dtypes from what the document says. The data
    is checked as it is read.
    """
    file = path / DOCUMENT
    if not file.is_file():
        if (path / "config.json").exists() or (path / "model.safetensors").exists():
            raise VectorError(f"{path} is a checkpoint, not a vector. Take the difference of two first: reasonvec "
                              f"extract --tuned TUNED --base BASE --out VECTOR.")  # fmt: skip
        raise VectorError(f"{path} has no {DOCUMENT}, so it is not a vector. `reasonvec extract` makes them.")
    document = read_document(file)
    try:
        deltas = _deltas(path.resolve(), document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VectorError(f"{file} lacks or misstates a field ({error!r}). The vector is damaged; extract it "
                          f"again.") from None  # fmt: skip
    return Vector(location or str(path), path.resolve(), document, deltas)


def read_document(file: Path) -> dict[str, Any]:
    """The JSON of a vector.json or reasonvec.json, its version and its own checksum held against it."""
    try:
        if file.stat().st_size > MAX_DOCUMENT:
            raise VectorError(f"{file} has {file.stat().st_size} bytes; at most {MAX_DOCUMENT} are read.")
        document = loads_strictly(file.read_bytes())
    except ValueError as error:
        raise VectorError(f"{file} is not JSON ({error}). It is damaged; make it again.") from None
    except OSError as error:
        raise VectorError(f"{file} cannot be read: {error.strerror or error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), str):
        raise VectorError(f"{file} does not say of what format it is; it was not written by reasonvec.")
    if document.get("format_version") != FORMAT_VERSION:
        raise VectorError(
            f"{file} is of format version {document.get('format_version')!r}; this reasonvec reads {FORMAT_VERSION}. "
            f"Make it again, or use the version of reasonvec that wrote it."
        )
    if document.get("sha256") != document_digest(document):
        raise VectorError(f"{file} does not match its own checksum: it was edited or damaged. Make it again.")
    return document


def document_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 over the document as canonical JSON without its own `sha256`."""
    content = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def format_document(document: Mapping[str, Any]) -> bytes:
    """The bytes of vector.json or reasonvec.json, with the checksum put in."""
    signed = {**document, "sha256": document_digest(document)}
    return (json.dumps(signed, indent=1, ensure_ascii=False) + "\n").encode()


def _deltas(path: Path, document: Mapping[str, Any]) -> dict[str, Delta]:
    if document["format"] != FORMAT:
        raise VectorError(f"{path / DOCUMENT} is a {document['format']}, not a {FORMAT}.")
    headers: dict[str, Mapping[str, TensorEntry]] = {}
    for name, size in ((name, info["bytes"]) for name, info in document["files"].items()):
        file = path / name
        if not file.resolve().is_relative_to(path):
            raise VectorError(f"{path / DOCUMENT} names the file {name!r}, which lies outside the vector.")
        if not file.is_file() or file.stat().st_size != size:
            found = f"has {file.stat().st_size} bytes" if file.is_file() else "is missing"
            raise VectorError(f"{file} {found}; vector.json says {size} bytes. The vector was cut off or damaged; "
                              f"copy or extract it again.")  # fmt: skip
    deltas = {}
    for name, info in sorted(document["tensors"].items()):
        if info["file"] not in headers:
            if info["file"] not in document["files"]:
                raise VectorError(f"{path / DOCUMENT} puts {name!r} in {info['file']!r}, which it does not list.")
            headers[info["file"]] = read_header(path / info["file"])[0]
        entry = headers[info["file"]].get(name)
        if entry is None or list(entry.shape) != info["shape"] or entry.dtype != info["dtype"]:
            raise VectorError(f"{path / info['file']} does not hold {name!r} as {info['dtype']} of shape "
                              f"{info['shape']}, as vector.json says. Extract the vector again.")  # fmt: skip
        if info["encoding"] != "dense" or entry.dtype not in STORED or info["checkpoint_dtype"] not in EXACT_CHAIN:
            raise VectorError(f"{path / DOCUMENT} encodes {name!r} as {info['encoding']!r} {entry.dtype} of "
                              f"{info['checkpoint_dtype']}, which this version cannot read.")  # fmt: skip
        deltas[name] = Delta(
            name, tuple(entry.shape), info["checkpoint_dtype"], entry, str(info["sha256"]), int(info["changed"]),
            float(info["norm"]), float(info["base_norm"]), tuple(int(n) for n in info["steps"]), int(info["residual"]),
        )  # fmt: skip
    return deltas
