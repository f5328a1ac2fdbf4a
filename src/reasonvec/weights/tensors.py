"""The data of single tensors: a block with its digest, a digest of all, a run of entries."""

import numpy as np

from reasonvec.weights.blocks import BLOCK, Scratch, block_digest, blocks, tensor_digest
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import BITS_PER_ENTRY, STORED, Array
from reasonvec.weights.safetensors_header import TensorEntry


def read_tensor_block(
    entry: TensorEntry, number: int, reader: TensorReader, scratch: Scratch, role: str
) -> tuple[Array, bytes]:
    """Block `number` of a tensor, in its NumPy dtype (bytes where that has none), and its digest.

    The array is the scratch's `role`. BLOCK entries of any dtype are whole bytes.
    """
    begin = number * BLOCK * BITS_PER_ENTRY[entry.dtype] // 8
    end = min(entry.nbytes, begin + BLOCK * BITS_PER_ENTRY[entry.dtype] // 8)
    raw = scratch.array(role, end - begin, np.uint8)
    reader.read_into(entry, begin, raw.data)
    dtype = STORED.get(entry.dtype)
    return raw.view(dtype) if dtype else raw, block_digest(raw.data)


def digest_of(entry: TensorEntry, reader: TensorReader) -> str:
    """The digest of a tensor of any dtype, read by one thread."""
    scratch = Scratch()
    numbers = range(len(blocks(entry.size)))
    return tensor_digest(read_tensor_block(entry, number, reader, scratch, "digest")[1] for number in numbers)


def read_run(entry: TensorEntry, start: int, stop: int, reader: TensorReader, *, alone: bool = False) -> Array:
    """The entries from `start` to `stop` of a float tensor, an array of its own; `alone` as for `read_into`."""
    dtype = STORED[entry.dtype]
    values = np.empty(stop - start, dtype)
    reader.read_into(entry, start * dtype.itemsize, values.view(np.uint8).data, alone=alone)
    return values
