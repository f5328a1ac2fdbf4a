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
        elif info["encoding"] in ("low-rank", "quantised"):
            read = read_low_rank if info["encoding"] == "low-rank" else read_quantised
            values, digest = read(stored, tuple(info["shape"]))
            deltas[name] = values.astype(np.float64).reshape(info["shape"])
            assert digest == info["digest"]
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


def read_low_rank(factors: np.ndarray[Any, Any], shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], str]:
    """The values of a low-rank delta in float32, summed in the order of the specification, and its digest."""
    rows, columns = shape[-2:]
    count = shape[0] if len(shape) == 3 else 1
    assert factors.dtype == np.float32
    matrices, parts = [], []
    for matrix in factors.reshape(count, -1):
        rank = matrix.size // (rows + columns)
        left, right = matrix[: rows * rank].reshape(rows, rank), matrix[rows * rank :].reshape(rank, columns)
        total = np.zeros((rows, columns), np.float32)
        for i in range(rank):
            total = total + left[:, i : i + 1] * right[i]
        matrices.append(total)
        parts.append((left, blake3(right.tobytes()).digest()))
    digests = []
    for start in range(0, count * rows * columns, BLOCK):
        stop, hasher = min(start + BLOCK, count * rows * columns), blake3()
        for number, (left, digest) in enumerate(parts):
            ends = [(number * rows + row + 1) * columns for row in range(rows)]
            touched = [row for row, end in enumerate(ends) if end - columns < stop and end > start]
            if touched:
                hasher.update(digest)
                hasher.update(left[touched].tobytes())
        digests.append(hasher.digest())
    return np.stack(matrices), blake3(b"".join(digests)).hexdigest()


def read_quantised(stored: np.ndarray[Any, Any], shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], str]:
    """The values of a quantised delta in float32, an entry at a time, and its digest."""
    data, columns, size = stored.tobytes(), shape[-1], int(np.prod(shape))
    version, bits, zero = struct.unpack("<HHI", data[:8])
    assert (version, zero) == (1, 0)
    values, digests, at = [], [], 8
    for start in range(0, size, BLOCK):
        stop, begin = min(start + BLOCK, size), at
        runs = []
        for entry in range(start, stop):
            row, column = divmod(entry, columns)
            group = {8: row, 4: (row, column // 64), 1: 0}[bits]
            if not runs or runs[-1] != group:
                runs.append(group)
                at += 4
        scales = dict(zip(runs, struct.unpack(f"<{len(runs)}f", data[begin:at]), strict=True))
        length = -(-(stop - start) * bits // 8)
        packed = data[at : at + length]
        at += length
        for i, entry in enumerate(range(start, stop)):
            row, column = divmod(entry, columns)
            scale = np.float32(scales[{8: row, 4: (row, column // 64), 1: 0}[bits]])
            word = packed[i * bits // 8] >> (i * bits % 8) & ((1 << bits) - 1)
            integer = {8: word - 256 * (word > 127), 4: word - 8, 1: 2 * word - 1}[bits]
            values.append(np.float32(integer) * scale)
        digests.append(blake3(data[:8] + data[begin:at]).digest())
    assert at == len(data)
    return np.array(values, np.float32), blake3(b"".join(digests)).hexdigest()
