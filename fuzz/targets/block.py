"""The decoder of sparse blocks. Half of the inputs get the checksum that fits them, so that it keeps nothing out."""

from pathlib import Path

import numpy as np
import zstandard
from blake3 import blake3

from reasonvec.errors import VectorError
from reasonvec.weights.blocks import Scratch
from reasonvec.weights.kernel import take_apart_listed
from reasonvec.weights.sparse import pack, unpack

COUNT = 3000
"""Entries of the block that an input is read as."""

SIGNED, PLAIN = b"$", b"="


def run(data: bytes, directory: Path) -> None:
    """Decode, as the first byte says with or without the checksum put right."""
    kind, block = data[:1], data[1:]
    out = np.empty(COUNT, np.float32)
    try:
        positions, wide, digest = unpack(memoryview(_signed(block) if kind == SIGNED else block), COUNT, Scratch(), out)
    except ValueError as error:
        assert str(error)
        raise VectorError(str(error)) from error  # as `sparse.read_block` does
    assert np.isfinite(out).all()
    assert np.isfinite(wide).all()
    assert len(positions) == len(wide)
    assert all(0 <= position < COUNT for position in positions.tolist())
    assert len(digest) == 32


def _signed(block: bytes) -> bytes:
    """The block with the digest of what it holds; as it is where that cannot be told."""
    if len(block) < 64:
        return block
    palette = 2 * int.from_bytes(block[2:4], "little")
    gaps, symbols = (int.from_bytes(block[at : at + 4], "little") for at in (20, 24))
    first, second = 64 + palette, 64 + palette + gaps
    try:
        streams = [_decompressed(part) for part in (block[first:second], block[second : second + symbols])]
    except zstandard.ZstdError:
        return block
    parts = (block[:20], block[64:first], *streams, block[second + symbols :])
    return block[:28] + blake3(b"".join(parts)).digest() + block[60:]


def _decompressed(stream: bytes) -> bytes:
    if not stream:
        return b""
    if zstandard.frame_content_size(stream) > 1 << 16:
        raise zstandard.ZstdError("too much")
    return zstandard.ZstdDecompressor().decompress(stream, max_output_size=1 << 16)


def seeds() -> dict[str, bytes]:
    """Blocks with few and many entries, of every class, with and without their own checksum."""
    rng = np.random.default_rng(0)
    inputs = {"nothing": b"", "head": SIGNED + bytes(64)}
    for name, entries in (("none", 0), ("few", 9), ("many", 600)):
        index = np.sort(rng.choice(COUNT, entries, replace=False))
        high = 2.0 ** rng.integers(-20, -10, entries) * rng.integers(1, 4, entries)
        low = np.zeros(entries)
        high[1::7] *= 1.00001  # float64
        high[2::7] = np.float32(high[2::7] * 1.00001)
        low[3::40] = 2.0**-90
        data, _ = pack(take_apart_listed(index, high, low), Scratch())
        inputs[name] = PLAIN + data
        inputs[f"{name}-signed"] = SIGNED + data
    return inputs
