"""The sparse encoding of a delta: the positions of the entries that changed and their exact differences, block by
block, compressed. docs/format.md specifies it; this module packs and unpacks single blocks and reads whole deltas.

    block   = head, palette, gaps (zstd), symbols (zstd), literals, wide values
    delta   = block, block, ..., lengths of the blocks (U32)
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from reasonvec.errors import VectorError
from reasonvec.weights.arithmetic import Doubles, Indices
from reasonvec.weights.blocks import BLOCK, Scratch, block_digest
from reasonvec.weights.checkpoint import TensorReader
from reasonvec.weights.dtypes import Array
from reasonvec.weights.kernel import BF16, PALETTE, SKIP, Streams, all_finite, put_together
from reasonvec.weights.safetensors_header import TensorEntry

VERSION = 1
_CONTENT = struct.Struct("<HHIIII")
"""Version; how many are in palette, gaps, symbols, literals and wide values. The part of the head that is hashed."""
_HEAD = struct.Struct("<HHIIIIII32sI")
"""The same; bytes of the compressed gaps and symbols; BLAKE3 of what was compressed; 0."""
_LEVEL = 1
"""Of zstandard: higher levels find matches where there are none and come out larger."""
_LONGEST = _HEAD.size + 2 * PALETTE + 2 * BLOCK + BLOCK // 64 + 20 * BLOCK + 4096
"""Bytes a block can have at most."""


def pack(streams: Streams, scratch: Scratch) -> tuple[bytes, bytes]:
    """One block as it is stored, and its digest, which does not depend on the compressor."""
    counts = (VERSION, len(streams.palette), len(streams.gaps), len(streams.symbols), len(streams.literals),
              len(streams.wide) // 2)  # fmt: skip
    parts = [np.ascontiguousarray(part).view(np.uint8).data for part in streams]
    palette, gaps, symbols, literals, wide = parts
    digest = block_digest(_CONTENT.pack(*counts), *parts)
    if "compressor" not in scratch.tools:
        scratch.tools["compressor"] = zstandard.ZstdCompressor(level=_LEVEL)
    compress = scratch.tools["compressor"].compress
    packed_gaps, packed_symbols = (compress(part) if len(part) else b"" for part in (gaps, symbols))
    head = _HEAD.pack(*counts, len(packed_gaps), len(packed_symbols), digest, 0)
    return b"".join((head, palette, packed_gaps, packed_symbols, literals, wide)), digest


def unpack(data: memoryview, count: int, scratch: Scratch, out: Array) -> tuple[Indices, Doubles, bytes]:
    """Fill `out`, float32 of `count` entries, with a stored block.

    Returns the positions of the wide entries, left zero in `out`; their high and low parts, two a row; and the digest.
    Raises ValueError as `open_block` does, and for streams that do not fit one another.
    """
    streams, digest = open_block(data, count, scratch)
    positions = put_together(streams, out)
    if positions is None:
        raise ValueError("its streams do not fit one another")
    return positions, streams.wide.reshape(-1, 2), digest


def open_block(data: memoryview, count: int, scratch: Scratch) -> tuple[Streams, bytes]:
    """The streams of a stored block of `count` entries, and its digest.

    Raises ValueError with the reason if the block is not what `pack` makes, or does not match its checksum. Allocates
    no more than a few times what a block of `count` entries can hold, whatever the head says.
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"it has {len(data)} bytes, less than its head of {_HEAD.size}")
    version, *lengths, gap_bytes, symbol_bytes, digest, padding = _HEAD.unpack(data[: _HEAD.size])
    palette, gaps, symbols, literals, wide = lengths
    if version != VERSION or padding:
        raise ValueError(f"its version is {version} and its padding {padding}, not {VERSION} and 0")
    sizes = (2 * palette, gap_bytes, symbol_bytes, 4 * literals, 16 * wide)
    if palette > PALETTE or symbols > count or literals + wide > symbols or gaps > symbols + count // SKIP:
        raise ValueError("its head claims more entries than it can have")
    if _HEAD.size + sum(sizes) != len(data):
        raise ValueError(f"it has {len(data)} bytes and its head speaks of {_HEAD.size + sum(sizes)}")
    parts, start = [], _HEAD.size
    for size in sizes:
        parts.append(data[start : start + size])
        start += size
    streams = Streams(
        np.frombuffer(parts[0], "<u2"), _decompress(parts[1], gaps, scratch), _decompress(parts[2], symbols, scratch),
        np.frombuffer(parts[3], "<f4"), np.frombuffer(parts[4], "<f8"),
    )  # fmt: skip
    if block_digest(_CONTENT.pack(version, *lengths), *(part.view(np.uint8).data for part in streams)) != digest:
        raise ValueError("it does not match its checksum")
    floats = (streams.palette.view(BF16.numpy), streams.literals, streams.wide)
    if not all(all_finite(values) for values in floats if len(values)):
        raise ValueError("it holds NaN or infinity, which no difference of finite donors has")
    return streams, digest


def _decompress(data: memoryview, size: int, scratch: Scratch) -> Any:
    if not size and not len(data):
        return np.empty(0, np.uint8)
    try:
        claimed = zstandard.frame_content_size(data)
        if claimed != size:
            raise ValueError(f"a stream claims {claimed} bytes, its head {size}")
        if "decompressor" not in scratch.tools:
            scratch.tools["decompressor"] = zstandard.ZstdDecompressor()
        content = scratch.tools["decompressor"].decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"a stream cannot be decompressed: {error}") from None
    if len(content) != size:
        raise ValueError(f"a stream has {len(content)} bytes, not {size}")
    return np.frombuffer(content, np.uint8)


@dataclass(frozen=True)
class SparseLayout:
    """Where the blocks of a stored delta lie, in bytes from its beginning."""

    starts: NDArray[np.int64]
    """One more than there are blocks: the last is the end of the last block."""


def pack_lengths(lengths: Sequence[int]) -> bytes:
    """The table at the end of a delta."""
    return np.array(lengths, "<u4").tobytes()


def read_layout(entry: TensorEntry, size: int, reader: TensorReader) -> SparseLayout:
    """The places of the blocks of a delta of `size` entries. Raises VectorError for a table that does not fit."""
    count = max(1, -(-size // BLOCK))
    if entry.nbytes < (_HEAD.size + 4) * count:
        raise _damaged(entry, f"it has {entry.nbytes} bytes, too few for the {count} blocks of {size} entries")
    table = bytearray(4 * count)
    reader.read_into(entry, entry.nbytes - len(table), memoryview(table), alone=True)
    lengths = np.frombuffer(table, "<u4")
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    if starts[-1] != entry.nbytes - len(table):
        raise _damaged(entry, f"its blocks have {starts[-1]} bytes and its table speaks of {entry.nbytes - len(table)}")
    if lengths.max() > _LONGEST:
        raise _damaged(entry, f"one of its blocks claims {lengths.max()} bytes; none can have more than {_LONGEST}")
    return SparseLayout(starts)


def read_block(
    entry: TensorEntry, layout: SparseLayout, number: int, size: int, reader: TensorReader, scratch: Scratch
) -> tuple[Array, Indices, Doubles, bytes]:
    """Block `number` of a delta of `size` entries: its values in float32 (valid until the next call with `scratch`),
    and what `unpack` returns. Raises VectorError for a block that is damaged."""
    count = min(BLOCK, size - number * BLOCK)
    out = scratch.array("sparse values", count, np.float32)
    try:
        return out, *unpack(_stored(entry, layout, range(number, number + 1), reader, scratch), count, scratch, out)
    except ValueError as error:
        raise _damaged(entry, f"block {number} cannot be read: {error}") from None


def read_streams(
    entry: TensorEntry, layout: SparseLayout, run: range, size: int, reader: TensorReader, scratch: Scratch
) -> list[tuple[Streams, bytes]]:
    """The blocks of `run`, which follow one another, as `open_block` gives them: each need not fit together."""
    data, found = _stored(entry, layout, run, reader, scratch), []
    for number in run:
        begin, end = (layout.starts[place] - layout.starts[run.start] for place in (number, number + 1))
        try:
            found.append(open_block(data[begin:end], min(BLOCK, size - number * BLOCK), scratch))
        except ValueError as error:
            raise _damaged(entry, f"block {number} cannot be read: {error}") from None
    return found


def _stored(entry: TensorEntry, layout: SparseLayout, run: range, reader: TensorReader, scratch: Scratch) -> memoryview:
    begin, end = int(layout.starts[run.start]), int(layout.starts[run.stop])
    stored = scratch.array("sparse block", end - begin, np.uint8)
    reader.read_into(entry, begin, stored.data)
    return stored.data


def _damaged(entry: TensorEntry, reason: str) -> VectorError:
    return VectorError(f"{entry.path}: the sparse delta {entry.name!r} is damaged: {reason}. Copy or extract the "
                       f"vector again.")  # fmt: skip
