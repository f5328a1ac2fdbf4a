"""Read and write safetensors headers as if every file were hostile. No tensor data is touched here.

The format: 8 bytes little-endian header length N, N bytes of JSON (`{name: {dtype, shape, data_offsets}}`, optionally
`__metadata__`), then the data. See https://github.com/huggingface/safetensors#format.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import getsizeof
from typing import Any

from reasonvec.errors import CheckpointError
from reasonvec.weights.dtypes import BITS_PER_ENTRY
from reasonvec.weights.files import open_regular
from reasonvec.weights.findings import shown
from reasonvec.weights.stores import RemoteFile
from reasonvec.weights.strict_json import Budget, DuplicateNameError, JsonReader, add_members, complaint

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation; a longer header is an attack or a damaged file."""

_POINTER = b"version https://git-lfs"
"""How the files of a few lines begin that Git LFS leaves in place of what it has not fetched."""

MAX_RANK = 64
"""Dimensions a tensor may have; NumPy's own limit."""

MAX_NAME = 1024
"""Letters a tensor's name may have."""

MAX_ENTRIES = 1 << 62
"""More entries than any file could hold; keeps products of hostile shapes out of overflow."""

_ENTRY_BYTES, _COUNT_BYTES = 260, 40
"""What a `TensorEntry` takes beside its name, with its place in a dict or two, and each number of its shape."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: `nbytes` at byte `offset` of the file `path`, in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path | RemoteFile
    offset: int
    nbytes: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def read_header(path: Path, budget: Budget | None = None) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The tensors of a safetensors file, by name in the order of their offsets, and its metadata.

    Checked: header length against the file, JSON, duplicate names, dtypes, shapes, and that the data offsets are in
    range, without overlap or gap, and end where the file ends. Raises CheckpointError with the first fault, and for
    more tensors than fit into `budget`, which has grown by the file's size, or one of its own.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8:
                raise CheckpointError(
                    f"{path} is {size} bytes long: too short for a safetensors file, which starts with 8 bytes of "
                    f"header length. It was probably cut off while it was copied; fetch it again."
                )
            if length > min(MAX_HEADER_BYTES, size - 8):
                if (head + file.read(len(_POINTER))).startswith(_POINTER):
                    raise CheckpointError(
                        f"{path} is no weights but a pointer of Git LFS to them: the repository was cloned without "
                        f"git-lfs. Run `git lfs pull` in {path.parent}, or fetch it with `hf download`."
                    )
                raise CheckpointError(
                    f"{path} claims a header of {length} bytes, but the file has {size - 8} bytes after the length "
                    f"and a header may have at most {MAX_HEADER_BYTES}. The file is damaged, cut off, or not "
                    f"safetensors; fetch it again."
                )

            def read(count: int) -> bytes:
                return file.read(min(count, 8 + length - file.tell()))

            return parse_header(path, read, length, size, budget)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse_header(
    path: Path, read: Callable[[int], bytes], length: int, size: int, budget: Budget | None = None
) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """`read_header`'s checks on the JSON of `length` bytes that `read` gives, of a file of `size` bytes."""
    if budget is None:
        budget = Budget()
        budget.grow(size)
    start = 8 + length
    try:
        reader = JsonReader(read, budget)
        if reader.next_letter() != "{":
            raise CheckpointError(
                f"{path} has a header that is a JSON {type(reader.everything()).__name__}, not an object."
            )
        entries, metadata = _members(path, reader, start, size)
        reader.finish()
    except DuplicateNameError as error:
        raise CheckpointError(
            f"{path} names the tensor {error.name[:80]!r} twice in its header. Readers would disagree on which one "
            f"counts, so it is refused; write the file again with the safetensors library."
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} has a header that {complaint(error)}. The file is damaged or not safetensors; fetch it again."
        ) from None
    ordered = sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes, entry.name))
    _check_contiguous(path, ordered, start, size)
    return {entry.name: entry for entry in ordered}, metadata


def _members(path: Path, reader: JsonReader, start: int, size: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    entries: dict[str, TensorEntry] = {}
    metadata: dict[str, str] | None = None
    for batch in reader.pairs():
        if "__metadata__" in batch:
            words = batch.pop("__metadata__")
            if metadata is not None:
                raise DuplicateNameError("__metadata__")
            if not isinstance(words, dict) or not all(isinstance(value, str) for value in words.values()):
                raise CheckpointError(f"{path} has a `__metadata__` that is not a map from text to text.")
            reader.budget.spend(getsizeof(words) + sum(map(getsizeof, (*words, *words.values()))))
            metadata = words
        found = {name: _entry(path, name, info, start, size) for name, info in batch.items()}
        reader.budget.spend(sum(
            _ENTRY_BYTES + _COUNT_BYTES * len(entry.shape) + getsizeof(name) for name, entry in found.items()
        ))  # fmt: skip
        reader.budget.reserve(2 * getsizeof(entries))
        add_members(entries, found)
    return entries, metadata or {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_ENTRIES


def is_shape(shape: object) -> bool:
    """Whether this is a list of counts whose product a file could hold."""
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_RANK
        and all(_is_count(n) for n in shape)
        and math.prod(shape) < MAX_ENTRIES
    )


def _entry(path: Path, name: str, info: Any, start: int, size: int) -> TensorEntry:
    if not name.isprintable() or len(name) > MAX_NAME:
        raise CheckpointError(
            f"{path}: the tensor name {name[:80]!a} is longer than {MAX_NAME} letters or has control characters or "
            f"half a character in it, which could steer a terminal; it is refused."
        )
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: the header entry of {name!r} is not {{dtype, shape, data_offsets}}.")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS_PER_ENTRY:
        raise CheckpointError(
            f"{path}: {name!r} has the dtype {shown(dtype)}, which is none of the safetensors format's "
            f"({', '.join(BITS_PER_ENTRY)})."
        )
    if not is_shape(shape):
        raise CheckpointError(f"{path}: {name!r} has the shape {shown(shape)}, which is not a list of at most "
                              f"{MAX_RANK} counts.")  # fmt: skip
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise CheckpointError(f"{path}: {name!r} has the data offsets {shown(offsets)}, which are not two counts.")
    begin, end = offsets
    if not begin <= end <= size - start:
        raise CheckpointError(
            f"{path}: {name!r} lies at bytes {begin} to {end} of the data, but the file has {size - start} bytes of "
            f"data. It was cut off or damaged; fetch it again."
        )
    bits = math.prod(shape) * BITS_PER_ENTRY[dtype]
    if bits != 8 * (end - begin):
        raise CheckpointError(
            f"{path}: {name!r} has {end - begin} bytes, but {dtype} of shape {tuple(shape)} needs {bits / 8:g}."
        )
    return TensorEntry(name, dtype, tuple(shape), path, start + begin, end - begin)


def _check_contiguous(path: Path, entries: Sequence[TensorEntry], start: int, size: int) -> None:
    """Raise unless the tensors follow one another from `start` to `size` without overlap or gap."""
    position, before = start, "the header"
    for entry in entries:
        if entry.offset != position:
            fault = "overlaps" if entry.offset < position else "leaves a gap after"
            raise CheckpointError(
                f"{path}: {entry.name!r} starts at byte {entry.offset} and {fault} {before}, which ends at "
                f"{position}. The safetensors format allows neither; write the file again with its library."
            )
        position, before = entry.offset + entry.nbytes, repr(entry.name)
    if position != size:
        raise CheckpointError(
            f"{path} has {size - position} bytes after {before}, the last thing in its header. The safetensors format "
            f"allows none; fetch the file again."
        )


def format_header(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    reserve: int | None = None,
) -> bytes:
    """The 8 length bytes and the JSON for `tensors` (name, dtype, shape), laid out one after another in that order.

    Padded with spaces to a multiple of 8 bytes, or to `reserve` bytes in all, so that data is aligned and a header
    can be written after its data. Raises ValueError if it does not fit in `reserve`.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        nbytes = math.prod(shape) * BITS_PER_ENTRY[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    total = 8 + len(text)
    padded = reserve if reserve is not None else -(-total // 8) * 8
    if padded < total:
        raise ValueError(f"the header takes {total} bytes, {padded} were reserved")
    return (padded - 8).to_bytes(8, "little") + text + b" " * (padded - total)
