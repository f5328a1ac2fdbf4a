"""Write the files of a vector: every delta in the narrowest dtype that holds it exactly, found out while writing.

The dtype of a delta is known only when all of it was seen, and a safetensors header stands before the data. So each
file holds deltas of one dtype (which also keeps them aligned), leaves room for its header, and gets it at the end. A
delta that turns out not to fit its dtype is begun again in the next wider one; in practice the first tile tells.
"""

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasonvec.weights.arithmetic import Difference, narrowest
from reasonvec.weights.digest import Digest
from reasonvec.weights.documents import format_document
from reasonvec.weights.dtypes import STORED
from reasonvec.weights.files import sha256_of
from reasonvec.weights.output import Staging
from reasonvec.weights.safetensors_header import format_header
from reasonvec.weights.vector import DOCUMENT, RESIDUAL

SHARD_BYTES = 5_000_000_000
"""A file is closed to further deltas when it has this much."""

_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_METADATA = {"format": "pt", "reasonvec": "deltas"}

DifferenceTiles = Callable[[], Iterator[tuple[int, int, Difference]]]
"""Begins to compute a delta and gives its tiles in order: first entry, end, difference."""


@dataclass(frozen=True)
class Written:
    """Where a delta went."""

    file: str
    offset: int
    dtype: str
    sha256: str
    residual: list[list[float]]
    """[entry, low part] of every entry that needs more than a float64."""

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {"file": self.file, "offset": self.offset, "dtype": self.dtype, "sha256": self.sha256,
                "residual": self.residual}  # fmt: skip


class VectorWriter:
    """Appends deltas to the files of a vector in `staging`, in the order of `shapes`, after those already finished."""

    def __init__(self, staging: Staging, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._staging, self._shapes = staging, shapes
        # as much as any file's header can take: all deltas in it, each with the longest offsets and dtype
        widest = format_header([(name, "F64", shape) for name, shape in shapes.items()], _METADATA)
        self._reserve = -(-(len(widest) + len(shapes)) // 8) * 8
        self._ends: dict[str, int] = {}
        for name, record in staging.finished.items():
            self._note_end(name, record)

    def _note_end(self, name: str, record: Mapping[str, Any]) -> None:
        nbytes = int(np.prod(self._shapes[name], dtype=np.int64)) * STORED[record["dtype"]].itemsize
        self._ends[record["file"]] = max(self._ends.get(record["file"], 0), record["offset"] + nbytes)

    def _place(self, dtype: str) -> tuple[str, int]:
        """The file and offset where the next delta of this dtype goes."""
        number = 1
        while self._ends.get(file := f"vector-{_NAMES[dtype]}-{number:05d}.safetensors", 0) >= SHARD_BYTES:
            number += 1
        return file, self._ends.get(file, 0)

    def write(self, name: str, chain: Sequence[str], differences: DifferenceTiles) -> Written:
        """Write one delta in the first dtype of `chain` that holds every entry of it exactly."""
        level = 0
        while True:
            written, level = self._try(chain[level], tuple(chain[level:]), differences), level + 1
            if written:
                self._note_end(name, written.to_json())
                return written

    def _try(self, dtype: str, chain: tuple[str, ...], differences: DifferenceTiles) -> Written | None:
        """Write the delta as `dtype`; None if an entry does not fit."""
        file, begin = self._place(dtype)
        stored, digest, position = STORED[dtype], Digest(), begin
        residual: list[list[float]] = []
        for start, stop, difference in differences():
            if len(chain) > 1 and narrowest(difference.high, chain) > 0:
                return None
            tile = np.zeros(stop - start, stored)
            tile[difference.index] = difference.high.astype(stored)
            long = np.flatnonzero(difference.low)
            if long.size and len(chain) > 1:
                return None
            residual += [[int(difference.index[i]) + start, float(difference.low[i])] for i in long]
            data = tile.view(np.uint8).data
            digest.update(data)
            self._staging.write(file, self._reserve + position, data)
            position += len(data)
        return Written(file, begin, dtype, digest.hexdigest(), residual)

    def finish_files(self) -> None:
        """Give every file its header and its exact size, and write the residuals where there are any."""
        by_file: dict[str, list[tuple[int, str, str]]] = {}
        for name in self._shapes:
            record = self._staging.finished[name]
            by_file.setdefault(record["file"], []).append((record["offset"], name, record["dtype"]))
        for file, deltas in by_file.items():
            tensors = [(name, dtype, tuple(self._shapes[name])) for _, name, dtype in sorted(deltas)]
            header = format_header(tensors, _METADATA, reserve=self._reserve)
            self._staging.file(file, self._reserve + self._ends[file])
            self._staging.write(file, 0, header)
        for path in self._staging.output.glob("vector-*.safetensors"):
            if path.name not in by_file:
                self._staging.remove(path.name)  # begun for deltas that turned out to need a wider dtype
        residuals = {name: self._staging.finished[name]["residual"] for name in self._shapes}
        self._write_residuals({name: rest for name, rest in residuals.items() if rest})

    def _write_residuals(self, residuals: Mapping[str, list[list[float]]]) -> None:
        if not residuals:
            return
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, rest in residuals.items():
            arrays[f"{name}#index"] = np.array([int(entry) for entry, _ in rest], np.int64)
            arrays[f"{name}#value"] = np.array([low for _, low in rest], np.float64)
        write_small_tensors(self._staging, str(RESIDUAL), arrays)

    def describe(self, name: str) -> dict[str, Any]:
        """What vector.json says of where a delta lies."""
        record = self._staging.finished[name]
        return {"shape": list(self._shapes[name]), "dtype": record["dtype"], "encoding": "dense",
                "file": record["file"], "sha256": record["sha256"], "residual": len(record["residual"])}  # fmt: skip

    def write_document(self, document: Mapping[str, Any]) -> None:
        """Write vector.json, with the sizes of all other files and the checksums of the small ones.

        The large files need none of their own: each delta has its checksum, and their headers are in the document.
        """
        large = {self._staging.finished[name]["file"] for name in self._shapes}
        files = file_checksums(self._staging, DOCUMENT, without=large)
        self._staging.put(DOCUMENT, format_document({**document, "files": files}))


def file_checksums(staging: Staging, document: str, without: Collection[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file but the `document` they go into, by name; of those in `without` the size alone."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(staging.output.rglob("*")):
        if path.is_file():
            name = path.relative_to(staging.output).as_posix()
            if name == document:
                continue  # left by a run that was killed after it had written it
            found[name] = {"bytes": path.stat().st_size}
            if name not in without:
                found[name]["sha256"] = sha256_of(path)
    return found


def write_small_tensors(staging: Staging, name: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a safetensors file of arrays that fit in memory."""
    codes = {np.dtype(np.int64): "I64", **{dtype: code for code, dtype in STORED.items()}}
    ordered = sorted(arrays, key=lambda key: (-arrays[key].itemsize, key))
    header = format_header([(key, codes[arrays[key].dtype], arrays[key].shape) for key in ordered], {})
    content = io.BytesIO()
    content.write(header)
    for key in ordered:
        content.write(arrays[key].tobytes())
    staging.put(name, content.getvalue())
