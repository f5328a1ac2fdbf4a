"""Read a vector by docs/format.md and nothing else: an oracle that shares no code with what it checks."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3
from safetensors.numpy import load_file

BLOCK = 1 << 18


def read_vector(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every delta in float64, high and low parts added."""
    document = json.loads((path / "vector.json").read_text())
    files: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    deltas = {}
    for name, info in document["tensors"].items():
        if info["file"] not in files:
            files[info["file"]] = load_file(path / info["file"])
        stored = files[info["file"]][name]
        if info["encoding"] == "dense":
            deltas[name] = stored.astype(np.float64)
            assert tensor_digest(stored) == info["digest"]
        else:
            deltas[name], digest = read_sparse(stored.tobytes(), int(np.prod(info["shape"], dtype=int)))
            deltas[name] = deltas[name].reshape(info["shape"])
            assert digest == info["digest"]
    return deltas


def tensor_digest(values: np.ndarray[Any, Any]) -> str:
    """BLAKE3 over the BLAKE3 of every run of 2^18 entries."""
    flat = np.ascontiguousarray(values).reshape(-1)
    parts = [flat[start : start + BLOCK].tobytes() for start in range(0, max(1, flat.size), BLOCK)]
    return blake3(b"".join(blake3(part).digest() for part in parts)).hexdigest()


def read_sparse(data: bytes, size: int) -> tuple[np.ndarray[Any, Any], str]:
    """The values of a sparse delta of `size` entries, and its digest."""
    count = max(1, -(-size // BLOCK))
    lengths = struct.unpack(f"<{count}I", data[-4 * count :])
    assert sum(lengths) + 4 * count == len(data)
    values, digests, position = np.zeros(size), [], 0
    for number, length in enumerate(lengths):
        block = data[position : position + length]
        position += length
        start = number * BLOCK
        digests.append(read_block(block, values[start : start + BLOCK]))
    return values, blake3(b"".join(digests)).hexdigest()


def read_block(block: bytes, values: np.ndarray[Any, Any]) -> bytes:
    """Put the entries of a block into `values`, all zero before; its digest."""
    version, palette_length, gap_count, symbol_count, literal_count, wide_count, gap_bytes, symbol_bytes = (
        struct.unpack("<HHIIIIII", block[:28])
    )
    digest, padding, rest = block[28:60], block[60:64], block[64:]
    assert version == 1
    assert padding == bytes(4)
    palette, rest = rest[: 2 * palette_length], rest[2 * palette_length :]
    packed_gaps, packed_symbols, rest = (
        rest[:gap_bytes],
        rest[gap_bytes : gap_bytes + symbol_bytes],
        rest[gap_bytes + symbol_bytes :],
    )
    gaps = zstandard.decompress(packed_gaps) if gap_count else b""
    symbols = zstandard.decompress(packed_symbols) if symbol_count else b""
    literals, wide = rest[: 4 * literal_count], rest[4 * literal_count :]
    assert (len(gaps), len(symbols), len(wide)) == (gap_count, symbol_count, 16 * wide_count)
    assert blake3(block[:20] + palette + gaps + symbols + literals + wide).digest() == digest
    short = [struct.unpack("<f", bytes(2) + palette[i : i + 2])[0] for i in range(0, len(palette), 2)]
    long = [value for (value,) in struct.iter_unpack("<f", literals)]
    pairs = list(struct.iter_unpack("<dd", wide))
    place, symbol_at = 0, iter(symbols)
    for gap in gaps:
        place += gap
        if gap == 255:
            continue
        symbol = next(symbol_at)
        values[place] = long.pop(0) if symbol == 254 else sum(pairs.pop(0)) if symbol == 255 else short[symbol]
        place += 1
    assert not long
    assert not pairs
    assert next(symbol_at, None) is None
    return digest
