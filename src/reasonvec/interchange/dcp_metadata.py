"""What a distributed checkpoint of torch holds: its tensors and where their chunks lie, checked before any is read.
Both flavours: `.metadata` with `*.distcp` (FSDP, accelerate, torchtitan, verl), and safetensors files with offsets.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError
from reasonvec.interchange.inert_pickle import Name, Record, read_inertly
from reasonvec.weights.dtypes import BITS_PER_ENTRY
from reasonvec.weights.files import check_inside, read_small
from reasonvec.weights.safetensors_header import MAX_ENTRIES, MAX_NAME, MAX_RANK, read_header
from reasonvec.weights.strict_json import Budget, complaint, loads_strictly

METADATA = ".metadata"
SHARDING = "DCP_SHARDING_INFO"
"""Where torch's HuggingFaceStorageWriter says, in a safetensors header, at which offsets its chunks stand."""

DTYPES = {
    "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
"""torch's name of a dtype -> the name in a safetensors header."""

_DCP = "torch.distributed.checkpoint"
_SHARDED = "torch.distributed._shard.sharded_tensor.metadata"
_ALLOWED = frozenset({
    *(f"{_DCP}.metadata.{name}" for name in (
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties",
        "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    )),
    f"{_DCP}.filesystem._StorageInfo", f"{_DCP}.filesystem._StoragePrefix",
    f"{_SHARDED}.TensorProperties", f"{_SHARDED}.MEM_FORMAT_ENCODING",
    "torch.Size", "torch.serialization._get_layout",
    "torch.device", "collections.OrderedDict", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath", *(f"torch.{name}" for name in DTYPES), *(f"torch.{n}" for n in (
        "complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fnuz", "float8_e5m2fnuz",
        "float8_e8m0fnu", "quint8", "qint8", "qint32",
    )),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a tensor and the bytes that hold it."""

    offsets: tuple[int, ...]
    """Its first entry's place in the tensor."""
    sizes: tuple[int, ...]
    path: Path
    offset: int
    """First byte in the file."""
    nbytes: int
    packed: bool
    """Whether the bytes are an archive that `torch.save` wrote; else the entries themselves."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a distributed checkpoint; its chunks cover it once."""

    name: str
    dtype: str
    """As safetensors calls it."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


_CHUNK_BYTES = 500
"""What a chunk takes beside the entry of the header that it is made of."""


@dataclass(frozen=True)
class DistributedCheckpoint:
    """A directory whose metadata was checked; `open_dcp` makes them."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    others: tuple[str, ...]
    """Names of what is no tensor: steps, schedules, generators."""
    files: tuple[Path, ...]


def open_dcp(path: Path, *, follow_links: bool = False) -> DistributedCheckpoint:
    """Read what a distributed checkpoint says of itself. Nothing is unpickled, and no weights are read.

    Raises CheckpointError for a directory that is none, metadata that names what torch does not write there, storage
    outside the directory or of its files, and chunks that overlap or leave entries out.
    """
    if not path.is_dir():
        what = "is a file; name the directory that holds it" if path.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}. A distributed checkpoint is a directory with {METADATA} and *.distcp.")
    root = path.resolve()
    if os.path.lexists(root / METADATA):
        check_inside(root / METADATA, root, follow_links)
        tensors, others = _from_metadata(root, follow_links)
        files = {root / METADATA}
    else:
        tensors, others, files = _from_safetensors(root, follow_links), [], set()
    _check_all(root, tensors)
    files |= {chunk.path for tensor in tensors for chunk in tensor.chunks}
    return DistributedCheckpoint(root, {t.name: t for t in tensors}, tuple(others), tuple(sorted(files)))


def _from_metadata(root: Path, follow_links: bool) -> tuple[list[StoredTensor], list[str]]:
    file = root / METADATA
    document = read_inertly(read_small(file), _ALLOWED, str(file))
    entries, places = (document.field(field) if isinstance(document, Record) else None
                       for field in ("state_dict_metadata", "storage_data"))  # fmt: skip
    if not isinstance(entries, dict) or not isinstance(places, dict):
        raise CheckpointError(f"{file} is no torch.distributed.checkpoint Metadata with a list of tensors and of where "
                              f"they lie. It was written by something else.")  # fmt: skip
    infos = {_place(file, index): info for index, info in places.items()}
    storage = _Storage(root, follow_links)
    tensors, others = [], []
    for name, entry in entries.items():
        if not isinstance(name, str) or not name.isprintable() or len(name) > MAX_NAME:
            raise CheckpointError(f"{file}: the name {name!a:.120} is longer than {MAX_NAME} letters or has control "
                                  f"characters in it; it is refused.")  # fmt: skip
        if isinstance(entry, Record) and entry.kind == "TensorStorageMetadata":
            tensors.append(_tensor(storage, name, entry, infos))
        else:
            others.append(name)
    return tensors, others


class _Storage:
    """The files of a checkpoint that `.metadata` names, each looked at once."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self.file, self._follow_links = root, root / METADATA, follow_links
        self._found: dict[str, tuple[Path, int]] = {}

    def find(self, relative: str, name: str) -> tuple[Path, int]:
        """The path of a file and its size. Raises CheckpointError for one outside the directory."""
        if relative not in self._found:
            if relative in ("", ".", "..") or Path(relative).name != relative or "\0" in relative:
                raise CheckpointError(
                    f"{self.file} puts {name!r} in {relative!a:.120}. Storage is a file in the same directory; a path "
                    f"that leads elsewhere could read any file of this machine, so it is refused."
                )
            check_inside(self.root / relative, self.root, self._follow_links)
            self._found[relative] = self.root / relative, (self.root / relative).stat().st_size
        return self._found[relative]


def _place(file: Path, index: Any) -> tuple[str, tuple[int, ...]]:
    name = index.field("fqn") if isinstance(index, Record) else None
    if not isinstance(name, str):
        raise CheckpointError(f"{file} says where something lies, but not what. It is damaged; copy it again.")
    offset = index.field("offset")
    return name, () if offset is None else _counts(file, name, offset)


def _counts(file: Path, name: str, value: Any) -> tuple[int, ...]:
    """A `torch.Size` as a tuple of counts that can be multiplied."""
    inner = value.arguments[0] if isinstance(value, Record) and value.kind == "Size" and value.arguments else value
    if (
        not isinstance(inner, (tuple, list))
        or len(inner) > MAX_RANK
        or not all(type(n) is int and n >= 0 for n in inner)
    ):
        raise CheckpointError(f"{file}: {name!r} has a size or an offset that is not at most {MAX_RANK} counts.")
    if math.prod(inner) >= MAX_ENTRIES or any(n >= MAX_ENTRIES for n in inner):
        raise CheckpointError(f"{file}: {name!r} has a size or an offset beyond any file.")
    return tuple(inner)


def _tensor(
    storage: _Storage, name: str, entry: Record, infos: Mapping[tuple[str, tuple[int, ...]], Any]
) -> StoredTensor:
    file = storage.file
    shape, listed = _counts(file, name, entry.field("size")), entry.field("chunks")
    if not isinstance(listed, list) or not all(isinstance(chunk, Record) for chunk in listed):
        raise CheckpointError(f"{file}: {name!r} has no list of chunks. It is damaged; copy it again.")
    chunks = []
    for chunk in listed:
        offsets, sizes = (_counts(file, name, chunk.field(field)) for field in ("offsets", "sizes"))
        if 0 in sizes:
            continue  # a rank that holds nothing of the tensor
        chunks.append(_chunk(storage, name, offsets, sizes, infos.get((name, offsets))))
    return StoredTensor(name, _dtype(file, name, entry.field("properties")), shape, tuple(chunks))


def _dtype(file: Path, name: str, properties: Any) -> str:
    """The dtype; an unknown one is kept as it is and refused if the tensor is wanted."""
    state = properties.state if isinstance(properties, Record) else None
    dtype = state.get("dtype") if isinstance(state, dict) else state[0] if isinstance(state, tuple) and state else None
    if not isinstance(dtype, Name) or dtype.module != "torch":
        raise CheckpointError(f"{file}: {name!r} has no dtype. It is damaged; copy it again.")
    return DTYPES.get(dtype.name, dtype.name)


def _chunk(storage: _Storage, name: str, offsets: tuple[int, ...], sizes: tuple[int, ...], info: Any) -> Chunk:
    relative, offset, length = (info.field(f) if isinstance(info, Record) else None
                                for f in ("relative_path", "offset", "length"))  # fmt: skip
    if not isinstance(relative, str) or type(offset) is not int or type(length) is not int:
        raise CheckpointError(f"{storage.file} does not say where the chunk of {name!r} at {offsets} lies. A rank's "
                              f"part is missing, or the file is damaged; copy it again.")  # fmt: skip
    path, size = storage.find(relative, name)
    if info.field("transform_descriptors"):
        raise CheckpointError(f"{storage.file}: {name!r} was written through an extension, as for compression, which "
                              f"is not read. Save it without.")  # fmt: skip
    if not 0 <= offset <= offset + length <= size:
        raise CheckpointError(
            f"{storage.file} puts {name!r} at bytes {offset} to {offset + length} of {relative}, which has {size}. It "
            f"was cut off or damaged; copy it again."
        )
    return Chunk(offsets, sizes, path, offset, length, packed=True)


def _from_safetensors(root: Path, follow_links: bool) -> list[StoredTensor]:
    """The flavour of HuggingFaceStorageWriter: ordinary safetensors files, each with the offsets of its chunks."""
    found: dict[str, list[tuple[Chunk, str]]] = {}
    budget = Budget()  # one for all: many small files take as much as a large one
    for path in sorted(root.glob("*.safetensors")):
        check_inside(path, root, follow_links)
        budget.grow(path.stat().st_size)
        entries, metadata = read_header(path, budget)
        try:
            budget.spend(_CHUNK_BYTES * len(entries))
            with budget.lent():
                sharding = loads_strictly(metadata.get(SHARDING, "{}"), budget)
        except ValueError as error:
            raise CheckpointError(f"{path} has a {SHARDING} that {complaint(error)}. It is damaged.") from None
        for name, entry in entries.items():
            info = sharding.get(name, {}) if isinstance(sharding, dict) else {}
            at = info.get("saved_offsets") if isinstance(info, dict) else None
            offsets = _counts(path, name, [0] * len(entry.shape) if at is None else at)
            chunk = Chunk(offsets, entry.shape, path, entry.offset, entry.nbytes, packed=False)
            found.setdefault(name, []).append((chunk, entry.dtype))
    if not found:
        pickles = sorted(path.name for path in root.glob("*.pt"))
        hint = f" ({pickles[0]} is a file for torch.load, which can run any program)" if pickles else ""
        raise CheckpointError(
            f"{root} has neither {METADATA} nor safetensors files{hint}. torch writes {METADATA} last, so a run that "
            f"was killed while it saved leaves none; take an earlier one."
        )
    return [_joined(root, name, parts) for name, parts in sorted(found.items())]


def _joined(root: Path, name: str, parts: Sequence[tuple[Chunk, str]]) -> StoredTensor:
    chunks, dtypes = [chunk for chunk, _ in parts if 0 not in chunk.sizes], {dtype for _, dtype in parts}
    ranks = {len(chunk.offsets) for chunk, _ in parts} | {len(chunk.sizes) for chunk, _ in parts}
    if len(ranks) > 1 or len(dtypes) > 1:
        raise CheckpointError(f"{root}: the chunks of {name!r} differ in dtype ({', '.join(sorted(dtypes))}) or number "
                              f"of dimensions. They are of two checkpoints; remove the stale files.")  # fmt: skip
    ends = [tuple(o + n for o, n in zip(chunk.offsets, chunk.sizes, strict=True)) for chunk in chunks]
    shape = tuple(max(end[i] for end in ends) for i in range(ranks.pop())) if ends else parts[0][0].sizes
    return StoredTensor(name, dtypes.pop(), shape, tuple(chunks))


def _check_all(root: Path, tensors: Iterable[StoredTensor]) -> None:
    wrong = [f"{tensor.name!r}: {why}" for tensor in tensors if (why := _fault(tensor))]
    if wrong:
        rest = f"\n  and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"{root}: the chunks of {len(wrong)} tensors do not make them up:\n  " + "\n  ".join(wrong[:5]) + rest
            + "\nEntries that are missing or said twice have no defined value. A rank's file is missing or stale; copy "
            "the whole checkpoint again."
        )  # fmt: skip


def _fault(tensor: StoredTensor) -> str | None:
    """Why the chunks do not cover the tensor exactly once, or None. Inside, disjoint and of its size means once."""
    for chunk in tensor.chunks:
        if len(chunk.offsets) != len(tensor.shape) or len(chunk.sizes) != len(tensor.shape):
            return f"a chunk of {len(chunk.sizes)} dimensions in a tensor of {len(tensor.shape)}"
        if any(o + n > end for o, n, end in zip(chunk.offsets, chunk.sizes, tensor.shape, strict=True)):
            return f"the chunk at {chunk.offsets} of {chunk.sizes} leaves the shape {tensor.shape}"
    covered = sum(math.prod(chunk.sizes) for chunk in tensor.chunks)
    if twice := _overlap(tensor.chunks):
        return f"the chunks at {twice[0].offsets} and {twice[1].offsets} overlap"
    if covered != tensor.size:
        return f"its chunks hold {covered} of its {tensor.size} entries"
    bits = BITS_PER_ENTRY.get(tensor.dtype)
    for chunk in tensor.chunks:
        if not chunk.packed and bits and 8 * chunk.nbytes != bits * math.prod(chunk.sizes):
            return f"the chunk at {chunk.offsets} has {chunk.nbytes} bytes"
    return None


def _overlap(chunks: Sequence[Chunk]) -> tuple[Chunk, Chunk] | None:
    """Two chunks that share an entry, or None."""
    ordered = sorted(chunks, key=lambda chunk: chunk.offsets)
    if len(ordered) < 2 or not ordered[0].offsets:
        return (ordered[0], ordered[1]) if len(ordered) > 1 else None
    starts = np.array([chunk.offsets for chunk in ordered], np.int64)
    ends = starts + np.array([chunk.sizes for chunk in ordered], np.int64)
    reach = np.searchsorted(starts[:, 0], ends[:, 0], side="left")
    for i in np.flatnonzero(reach > np.arange(1, len(ordered) + 1)):
        others = slice(i + 1, int(reach[i]))
        shared = ((starts[others] < ends[i]) & (ends[others] > starts[i])).all(axis=1)
        if shared.any():
            return ordered[i], ordered[i + 1 + int(shared.argmax())]
    return None
