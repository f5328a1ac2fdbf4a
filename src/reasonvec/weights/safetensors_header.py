"""Read and write safetensors headers as if every file were hostile. No tensor data is touched here.

The format: 8 bytes little-endian header length N, N bytes of JSON (`{name: {dtype, shape, data_offsets}}`, optionally
`__metadata__`), then the data. See https://github.com/huggingface/safetensors#format.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError
from reasonvec.weights.dtypes import BITS_PER_ENTRY
from reasonvec.weights.files import open_regular
from reasonvec.weights.stores import RemoteFile

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation; a longer header is an attack or a damaged file."""

MAX_RANK = 64
"""Dimensions a tensor may have; NumPy's own limit."""

MAX_NAME = 1024
"""Letters a tensor's name may have."""

MAX_NESTING = 64
"""Objects and lists within one another that JSON may have; configurations have some 5. What is deeper may still be
parsed, but then neither compared nor printed."""

MAX_VALUES = 600_000
"""Commas and brackets that a header may have, which is some 75 000 tensors in one file. Without a limit JSON fills the
memory: a list of three bytes takes 64 there. With this one it takes less than 100 MB."""

MAX_ENTRIES = 1 << 62
"""More entries than any file could hold; keeps products of hostile shapes out of overflow."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: `nbytes` at byte `offset` of the file `path`, in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path | RemoteFile
    offset: int
    nbytes: int

    @cached_property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


class _DuplicateNameError(ValueError):
    pass


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateNameError(name)
            seen.add(name)
    return result


def loads_strictly(text: bytes | str, most_values: int = MAX_VALUES) -> Any:
    """`json.loads` that refuses duplicate names, nested bombs and more than some `most_values` values.

    Raises ValueError, never RecursionError.
    """
    counts = map(text.count, b",[{") if isinstance(text, bytes) else map(text.count, ",[{")
    if sum(counts) > most_values:
        raise ValueError(f"more than {most_values} values, which no file of its kind has")
    try:
        value = json.loads(text, object_pairs_hook=_refuse_duplicates)
        deep = _is_deep(value)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError(f"nested more than {MAX_NESTING} levels deep, which no file of its kind is")
    return value


def _is_deep(value: Any) -> bool:
    """Whether a JSON value has more than `MAX_NESTING` levels. Goes level by level, for want of a stack that deep."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def read_header(path: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The tensors of a safetensors file, by name in the order of their offsets, and its metadata.

    Checked: header length against the file, JSON, duplicate names, dtypes, shapes, and that the data offsets are in
    range, without overlap or gap, and end where the file ends. Raises CheckpointError with the first fault.
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
                raise CheckpointError(
                    f"{path} claims a header of {length} bytes, but the file has {size - 8} bytes after the length "
                    f"and a header may have at most {MAX_HEADER_BYTES}. The file is damaged, cut off, or not "
                    f"safetensors; fetch it again."
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse_header(path, text, size)


def parse_header(path: Path, text: bytes, size: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """`read_header`'s checks on the JSON `text` of a file of `size` bytes."""
    try:
        header = loads_strictly(text)
    except _DuplicateNameError as error:
        raise CheckpointError(
            f"{path} names the tensor {error.args[0]!r} twice in its header. Readers would disagree on which one "
            f"counts, so it is refused; write the file again with the safetensors library."
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} has a header that is not JSON ({error}). The file is damaged or not safetensors; fetch it again."
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is a JSON {type(header).__name__}, not an object.")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} has a `__metadata__` that is not a map from text to text.")
    start = 8 + len(text)
    entries = [_entry(path, name, info, start, size) for name, info in header.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.nbytes, entry.name))
    _check_contiguous(path, entries, start, size)
    return {entry.name: entry for entry in entries}, metadata


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
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: the header entry of {name!r} is not {{dtype, shape, data_offsets}}.")
    if not name.isprintable() or len(name) > MAX_NAME:
        raise CheckpointError(
            f"{path}: the tensor name {name[:80]!a} is longer than {MAX_NAME} letters or has control characters or "
            f"half a character in it, which could steer a terminal; it is refused."
        )
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS_PER_ENTRY:
        raise CheckpointError(
            f"{path}: {name!r} has the dtype {repr(dtype)[:80]}, which is none of the safetensors format's "
            f"({', '.join(BITS_PER_ENTRY)})."
        )
    if not is_shape(shape):
        raise CheckpointError(f"{path}: {name!r} has the shape {repr(shape)[:80]}, which is not a list of at most "
                              f"{MAX_RANK} counts.")  # fmt: skip
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise CheckpointError(f"{path}: {name!r} has the data offsets {repr(offsets)[:80]}, which are not two counts.")
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
