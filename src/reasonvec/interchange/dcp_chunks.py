"""Put a tensor of a distributed checkpoint together from its chunks. A chunk is an archive that `torch.save` wrote; its
pickle is read inertly and must describe a plain view of one block of bytes, which is then taken as it lies.
"""

import io
import math
import os
import struct
import zipfile
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError
from reasonvec.interchange.dcp_metadata import DTYPES, Chunk, StoredTensor
from reasonvec.interchange.inert_pickle import Name, Record, read_inertly
from reasonvec.weights.dtypes import BITS_PER_ENTRY, Array
from reasonvec.weights.files import open_regular

_STORAGES = {
    "BFloat16Storage": "BF16", "HalfStorage": "F16", "FloatStorage": "F32", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_ALLOWED = frozenset({
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3", "collections.OrderedDict",
    "torch.storage.UntypedStorage", *(f"torch.{name}" for name in (*_STORAGES, *DTYPES)),
})  # fmt: skip
_LONGEST_PICKLE = 1 << 16
_FAULTS = (zipfile.BadZipFile, struct.error, ValueError, KeyError, NotImplementedError, RuntimeError, EOFError)


def assemble(tensor: StoredTensor) -> Array:
    """The whole tensor, as unsigned integers of its entries' width. Raises CheckpointError for damaged chunks."""
    whole = np.empty(tensor.shape, _unit(tensor.dtype))
    for chunk in tensor.chunks:
        place = tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.sizes, strict=True))
        whole[place] = _unpacked(tensor, chunk) if chunk.packed else _raw(tensor, chunk)
    return whole


def _unit(dtype: str) -> "np.dtype[Any]":
    return np.dtype(f"<u{BITS_PER_ENTRY[dtype] // 8}")


def _raw(tensor: StoredTensor, chunk: Chunk) -> Array:
    with os.fdopen(open_regular(chunk.path), "rb") as file:
        file.seek(chunk.offset)
        data = file.read(chunk.nbytes)
    if len(data) != chunk.nbytes:
        raise _damaged(tensor, chunk, "the file ended early")
    return np.frombuffer(data, _unit(tensor.dtype)).reshape(chunk.sizes)


def _unpacked(tensor: StoredTensor, chunk: Chunk) -> Array:
    """The entries of an archive: those of one storage, seen through an offset, a shape and strides."""
    with os.fdopen(open_regular(chunk.path), "rb") as file:
        window = io.BufferedReader(_Window(file.fileno(), chunk.offset, chunk.nbytes))
        try:
            with zipfile.ZipFile(window) as archive:
                return _view(tensor, chunk, archive)
        except _FAULTS as error:
            raise _damaged(tensor, chunk, str(error)) from None


def _view(tensor: StoredTensor, chunk: Chunk, archive: zipfile.ZipFile) -> Array:
    root = next((name.rpartition("/")[0] for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if root is None:
        raise _damaged(tensor, chunk, "it is no archive of torch.save")
    described = read_inertly(_member(archive, f"{root}/data.pkl", _LONGEST_PICKLE), _ALLOWED,
                             f"{chunk.path} at byte {chunk.offset}")  # fmt: skip
    key, dtype, first, shape, strides = _described(described)
    if shape != chunk.sizes or dtype != tensor.dtype:
        raise _damaged(tensor, chunk, f"it holds {dtype} of shape {shape}, not {tensor.dtype} of {chunk.sizes}")
    if f"{root}/byteorder" in archive.namelist() and _member(archive, f"{root}/byteorder", 16) != b"little":
        raise _damaged(tensor, chunk, "it is in big-endian byte order, which is not read")
    unit = _unit(dtype)
    last = first + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    data = np.frombuffer(_member(archive, f"{root}/data/{key}", chunk.nbytes), np.uint8)
    if len(data) % unit.itemsize or last >= len(data) // unit.itemsize:
        raise _damaged(tensor, chunk, f"it has {len(data)} bytes, its entries reach to {(last + 1) * unit.itemsize}")
    return np.lib.stride_tricks.as_strided(
        data.view(unit)[first:], shape, [stride * unit.itemsize for stride in strides], writeable=False
    )


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member that is stored as it is: torch compresses none, and what is not compressed cannot swell."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.file_size > limit:
        raise ValueError(f"{name!a:.80} is compressed or longer than {limit} bytes")
    return archive.read(info)


def _described(record: Any) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
    """Of a call of torch's `_rebuild_tensor`: storage key, dtype, first entry, shape, strides; else ValueError.

    https://github.com/pytorch/pytorch/blob/main/torch/_utils.py
    """
    wrong = ValueError("it does not hold one plain tensor")
    if not isinstance(record, Record) or not record.kind.startswith("_rebuild_tensor_v") or len(record.arguments) < 6:
        raise wrong
    storage, first, shape, strides = record.arguments[:4]
    if not isinstance(storage, Record) or storage.kind != "persistent" or len(storage.arguments) != 5:
        raise wrong
    kind, key = storage.arguments[1], storage.arguments[2]
    named = record.arguments[6] if record.kind.endswith("v3") and len(record.arguments) > 6 else kind
    if not isinstance(named, Name) or not isinstance(key, str) or not key.isdecimal():
        raise wrong
    dtype = (DTYPES if named is not kind else _STORAGES).get(named.name)
    plain = all(isinstance(v, tuple) and all(type(n) is int and n >= 0 for n in v) for v in (shape, strides))
    if dtype is None or not plain or len(shape) != len(strides) or type(first) is not int or first < 0:
        raise wrong
    if 0 in shape or math.prod(shape) < 1:
        raise wrong
    return key, dtype, first, shape, strides


def _damaged(tensor: StoredTensor, chunk: Chunk, why: str) -> CheckpointError:
    return CheckpointError(f"{chunk.path}: the chunk of {tensor.name!r} at byte {chunk.offset} cannot be read: "
                           f"{why[:200]}. It was cut off or damaged; copy it again.")  # fmt: skip


class _Window(io.RawIOBase):
    """The bytes of a file from `start` on, as a file of `length` bytes; nothing outside of them can be read."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor, self._start, self._length, self._position = descriptor, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._length - self._position))
        data = os.pread(self._descriptor, count, self._start + self._position)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
