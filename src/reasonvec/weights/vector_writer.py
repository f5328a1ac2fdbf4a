"""Write the files of a vector: every delta sparse or dense, whichever is asked for or smaller, and a dense one in the
narrowest dtype that holds it exactly, found out while writing.

How large a sparse delta is, and which dtype a dense one needs, is known only when all of it was seen, and a header
stands before the data. So each file holds deltas of one kind (which also keeps them aligned), leaves room for its
header, and gets it at the end. A delta that turns out not to fit its kind is begun again in the next; in practice the
first block tells.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reasonvec.weights.arithmetic import Difference, Doubles, Indices, narrowest
from reasonvec.weights.blocks import Scratch, block_digest, tensor_digest
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.documents import format_document
from reasonvec.weights.dtypes import BITS_PER_ENTRY, STORED, Array
from reasonvec.weights.files import sha256_of
from reasonvec.weights.kernel import take_apart, take_apart_listed
from reasonvec.weights.output import Staging
from reasonvec.weights.safetensors_header import TensorEntry, format_header
from reasonvec.weights.sparse import pack, pack_lengths
from reasonvec.weights.vector import DOCUMENT, RESIDUAL, Delta

Encoding = Literal["auto", "dense", "sparse"]

SHARD_BYTES = 5_000_000_000
"""A file is closed to further deltas when it has this much."""

_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "sparse": "sparse",
          "low-rank": "low-rank", "quantised": "quantised"}  # fmt: skip
_METADATA = {"format": "pt", "reasonvec": "deltas"}


@dataclass(frozen=True)
class Encoded:
    """One block of a delta, in one kind: `sparse`, or a dtype."""

    entries: int
    narrowest: int
    """The first dtype of the chain that holds every entry of the block exactly, by its position."""
    data: bytes | None
    """None where the kind is a dtype that does not hold it."""
    digest: bytes
    residual: list[tuple[int, float]]
    """Entry in the block and low part of what needs more than a float64; in a dense block only."""


_COPIED = 1 << 20
"""Bytes that are copied at once."""

EncodedBlocks = Callable[[str], Iterator[Encoded]]
"""Begins to compute a delta in a kind, and gives its blocks in order."""


def encode(difference: Array | Difference, count: int, kind: str, chain: Sequence[str], scratch: Scratch) -> Encoded:
    """A block of `count` differences in the `kind` "sparse" or a dtype of `chain`, in which the last holds anything.

    `difference` is all of them in float32 (then BF16 and F32 are in the chain), or those that are not zero, exactly.
    """
    if isinstance(difference, Difference):
        level = narrowest(difference.high, tuple(chain)) if not difference.low.any() else len(chain) - 1
    else:
        brief = not np.bitwise_or.reduce(difference.view(np.uint32)) & 0xFFFF  # bfloat16 is the upper half of float32
        level = chain.index("BF16" if brief else "F32")
    if kind == "sparse":
        if isinstance(difference, Difference):
            streams = take_apart_listed(difference.index, difference.high, difference.low)
        else:
            streams = take_apart(difference, scratch)
        data, digest = pack(streams, scratch)
        return Encoded(count, level, data, digest, [])
    if level > chain.index(kind):
        return Encoded(count, level, None, b"", [])
    return _dense(difference, count, kind, level)


def _dense(difference: Array | Difference, count: int, dtype: str, level: int) -> Encoded:
    residual: list[tuple[int, float]] = []
    if isinstance(difference, Difference):
        values = np.zeros(count, STORED[dtype])
        values[difference.index] = difference.high.astype(STORED[dtype])
        long = np.flatnonzero(difference.low)
        residual = [(int(difference.index[i]), float(difference.low[i])) for i in long]
    else:
        values = difference.astype(STORED[dtype])
    data = values.tobytes()
    return Encoded(count, level, data, block_digest(data), residual)


@dataclass(frozen=True)
class Written:
    """Where a delta went."""

    file: str
    offset: int
    nbytes: int
    encoding: str
    dtype: str
    """As safetensors has it; U8 for a sparse or quantised delta, F32 for the factors of a low-rank one."""
    digest: str
    residual: list[list[float]]
    """[entry, low part] of every entry that needs more than a float64."""

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return dict(vars(self))


class VectorWriter:
    """Appends deltas to the files of a vector in `staging`, in the order of `shapes`, after those already finished."""

    def __init__(self, staging: Staging, shapes: Mapping[str, tuple[int, ...]], encoding: Encoding = "auto") -> None:
        self._staging, self._shapes, self._encoding = staging, shapes, encoding
        # as much as any file's header can take: all deltas in it, each with the longest offsets and dtype
        widest = format_header([(name, "F64", shape) for name, shape in shapes.items()], _METADATA)
        self._reserve = -(-(len(widest) + 16 * len(shapes)) // 8) * 8
        self._ends: dict[str, int] = {}
        self._finished_files: set[str] = set()
        for record in staging.finished.values():
            self._note_end(record)

    def _note_end(self, record: Mapping[str, Any]) -> None:
        self._ends[record["file"]] = max(self._ends.get(record["file"], 0), record["offset"] + record["nbytes"])

    def _place(self, kind: str) -> tuple[str, int]:
        """The file and offset where the next delta of this kind goes."""
        number = 1
        while self._ends.get(file := f"vector-{_NAMES[kind]}-{number:05d}.safetensors", 0) >= SHARD_BYTES:
            self._finish_file(file)
            number += 1
        return file, self._ends.get(file, 0)

    def write(self, chain: Sequence[str], encoded: EncodedBlocks) -> Written:
        """Write one delta: sparse, or dense in the first dtype of `chain` that holds every entry of it exactly."""
        kinds = {"auto": ["sparse", *chain], "sparse": ["sparse"], "dense": list(chain)}[self._encoding]
        for kind in kinds:
            if written := self._try(kind, chain, encoded(kind)):
                self._note_end(written.to_json())
                return written
        raise AssertionError("the last dtype of a chain holds anything")

    def write_pieces(
        self, encoding: str, dtype: str, pieces: Iterable[tuple[bytes | memoryview, list[bytes]]]
    ) -> Written:
        """Write one delta that is given as it is to be stored, in pieces, each with the digests of the blocks that it
        completes."""
        file, begin = self._place(encoding)
        position, digests = begin, list[bytes]()
        for data, done in pieces:
            self._staging.write(file, self._reserve + position, data)
            position += len(data)
            digests += done
        written = Written(file, begin, position - begin, encoding, dtype, tensor_digest(digests), [])
        self._note_end(written.to_json())
        return written

    def copy(self, delta: Delta, residual: tuple[Indices, Doubles], reader: TensorReader) -> Written:
        """Write one delta byte for byte as it is stored; who reads it again holds it against its digest."""
        file, begin = self._place(delta.stored)
        buffer = memoryview(bytearray(min(_COPIED, delta.entry.nbytes)))
        for start in range(0, delta.entry.nbytes, _COPIED):
            part = buffer[: delta.entry.nbytes - start]
            reader.read_into(delta.entry, start, part)
            self._staging.write(file, self._reserve + begin + start, part)
        rest = [[int(entry), float(low)] for entry, low in zip(*residual, strict=True)]
        written = Written(file, begin, delta.entry.nbytes, delta.encoding, delta.entry.dtype, delta.digest, rest)
        self._note_end(written.to_json())
        return written

    def entry(self, name: str, written: Written) -> TensorEntry:
        """Where a delta that was written lies at this moment, so that it can be read again before all is done."""
        place = self._staging.output / written.file
        self._staging.file(written.file)  # of empty deltas alone nothing was written yet
        shape = self._shape(name, written.to_json())
        return TensorEntry(name, written.dtype, shape, place, self._reserve + written.offset, written.nbytes)

    def _try(self, kind: str, chain: Sequence[str], found: Iterator[Encoded]) -> Written | None:
        """Write the delta as `kind`; None if an entry does not fit, or dense is smaller where that may be chosen."""
        file, begin = self._place(kind)
        digests, lengths, residual = list[bytes](), list[int](), list[list[float]]()
        position, entries, level = begin, 0, 0
        for block in found:
            level = max(level, block.narrowest)
            if block.data is None:
                return None
            residual += [[entry + entries, low] for entry, low in block.residual]
            entries += block.entries
            self._staging.write(file, self._reserve + position, block.data)
            position += len(block.data)
            digests.append(block.digest)
            lengths.append(len(block.data))
            # decided at every block by what was seen so far, so that it does not depend on how work is cut
            dense = entries * STORED[chain[level]].itemsize
            if kind == "sparse" and self._encoding == "auto" and position + 4 * len(lengths) - begin > dense:
                return None
        if kind == "sparse":
            table = pack_lengths(lengths)
            self._staging.write(file, self._reserve + position, table)
            position += len(table)
        encoding, dtype = ("sparse", "U8") if kind == "sparse" else ("dense", kind)
        return Written(file, begin, position - begin, encoding, dtype, tensor_digest(digests), residual)

    def finish_files(self) -> None:
        """Give every file its header and its exact size, and write the residuals where there are any."""
        files = sorted({self._staging.finished[name]["file"] for name in self._shapes})
        for file in files:
            self._finish_file(file)
        for path in self._staging.output.glob("vector-*.safetensors"):
            if path.name not in files:
                self._staging.remove(path.name)  # begun for deltas that turned out to be of another kind
        residuals = {name: self._staging.finished[name]["residual"] for name in self._shapes}
        self._write_residuals({name: rest for name, rest in residuals.items() if rest})

    def _finish_file(self, file: str) -> None:
        """Give a file to which nothing more is added its header and its exact size."""
        if file in self._finished_files:
            return
        finished = self._staging.finished
        deltas = sorted((finished[name]["offset"], name) for name in self._shapes
                        if name in finished and finished[name]["file"] == file)  # fmt: skip
        header = format_header([(name, *self._stored(name)) for _, name in deltas], _METADATA, reserve=self._reserve)
        self._staging.file(file, self._reserve + self._ends[file])
        self._staging.write(file, 0, header)
        self._staging.complete(file)
        self._finished_files.add(file)

    def _stored(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape in the file."""
        record = self._staging.finished[name]
        return record["dtype"], self._shape(name, record)

    def _shape(self, name: str, record: Mapping[str, Any]) -> tuple[int, ...]:
        if record["encoding"] == "dense":
            return tuple(self._shapes[name])
        return (8 * int(record["nbytes"]) // BITS_PER_ENTRY[record["dtype"]],)

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
        return {"shape": list(self._shapes[name]), "residual": len(record["residual"]),
                **{key: record[key] for key in ("encoding", "dtype", "file", "digest")}}  # fmt: skip

    def write_document(self, document: Mapping[str, Any]) -> None:
        """Write vector.json, with the sizes of all other files and the checksums of the small ones.

        The large files need none of their own: each delta has its digest, and their headers are in the document.
        """
        large = {self._staging.finished[name]["file"] for name in self._shapes}
        files = file_checksums(self._staging, DOCUMENT, without=large)
        self._staging.put(DOCUMENT, format_document({**document, "files": files}))


def encode_all(differences: Callable[[], Iterable[tuple[int, Difference]]], chain: Sequence[str]) -> EncodedBlocks:
    """For deltas that are computed by one thread: `differences()` gives entries and difference of every block."""

    def encoded(kind: str) -> Iterator[Encoded]:
        scratch = Scratch()
        for count, difference in differences():
            yield encode(difference, count, kind, chain, scratch)

    return encoded


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
