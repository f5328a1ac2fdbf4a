"""The sparse encoding: exact, found out when it is damaged, and never larger in memory than it says."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonvec.errors import VectorError, VerificationError
from reasonvec.weights import extract, verify
from reasonvec.weights.blocks import BLOCK, Scratch
from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.documents import format_document
from reasonvec.weights.kernel import take_apart, take_apart_listed
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.sparse import pack, unpack
from reasonvec.weights.vector import open_vector
from tests.checkpoints import BF16, write
from tests.vectors import read_block, read_vector


def a_block(count=5000, share=0.2, seed=0):
    rng = np.random.default_rng(seed)
    values = (2.0 ** rng.integers(-20, -10, count) * rng.integers(-3, 4, count)).astype(np.float32)
    values[rng.random(count) < 0.02] *= np.float32(1.00001)
    values[rng.random(count) >= share] = 0
    return values


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 1.0])
def test_a_block_is_unpacked_as_it_was_packed_and_as_the_specification_reads_it(share):
    values = a_block(share=share)
    data, digest = pack(take_apart(values, Scratch()), Scratch())
    out = np.empty(len(values), np.float32)
    index, wide, found = unpack(memoryview(data), len(values), Scratch(), out)
    assert out.tobytes() == (values + np.float32(0)).tobytes()
    assert (len(index), len(wide), found) == (0, 0, digest)
    oracle = np.zeros(len(values))
    assert read_block(data, oracle) == digest
    assert np.array_equal(oracle, values.astype(np.float64))


def test_entries_that_float32_does_not_hold_are_kept_exactly():
    index = np.array([3, 70, 71, 900])
    high, low = np.array([1.0, 1 + 2.0**-40, 3e300, -1.0]), np.array([2.0**-60, 0.0, 0.0, 0.0])
    data, _ = pack(take_apart_listed(index, high, low), Scratch())
    out = np.empty(1000, np.float32)
    where, wide, _ = unpack(memoryview(data), 1000, Scratch(), out)
    assert where.tolist() == [3, 70, 71]
    assert wide.tolist() == [[1.0, 2.0**-60], [1 + 2.0**-40, 0.0], [3e300, 0.0]]
    assert out[900] == -1
    assert np.count_nonzero(out) == 1


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0])
def test_a_palette_with_infinity_or_nan_is_refused(bits):
    """Found by fuzzing."""
    block = signed_block(palette=struct.pack("<H", bits), gaps=bytes(1), symbols=bytes(1))
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        unpack(memoryview(block), 100, Scratch(), np.empty(100, np.float32))


def signed_block(palette, gaps, symbols):
    counts = struct.pack("<HHIIII", 1, len(palette) // 2, len(gaps), len(symbols), 0, 0)
    packed = [zstandard.ZstdCompressor().compress(part) for part in (gaps, symbols)]
    digest = blake3(counts + palette + gaps + symbols).digest()
    return counts + struct.pack("<II", *map(len, packed)) + digest + bytes(4) + palette + b"".join(packed)


def test_every_flipped_bit_is_found_or_means_nothing():
    values = a_block(count=300)
    data, _ = pack(take_apart(values, Scratch()), Scratch())
    out, missed = np.empty(300, np.float32), []
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        try:
            unpack(memoryview(damaged), 300, Scratch(), out)
        except ValueError:
            continue
        missed.append(position)
        assert out.tobytes() == (values + np.float32(0)).tobytes()
    assert len(missed) <= 4  # the bits of a zstd frame that nobody reads
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"."):
            unpack(memoryview(data)[:length], 300, Scratch(), out)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300), head=st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6))
def test_hostile_blocks_are_refused_and_take_no_memory(data, head):
    block = struct.pack("<HHIIIIII", 1, head[0] % 300, *head[1:], 7) + bytes(36) + data
    out = np.empty(1000, np.float32)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            unpack(memoryview(block), 1000, Scratch(), out)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_stream_that_claims_more_than_its_head_is_refused_before_it_is_decompressed():
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200 << 20))
    head = struct.pack("<HHIIIIII", 1, 0, 10, 10, 0, 0, len(bomb), len(bomb)) + bytes(36)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="a stream claims 209715200 bytes, its head 10"):
            unpack(memoryview(head + bomb + bomb), 1000, Scratch(), np.empty(1000, np.float32))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# the shares of unchanged entries of donors as reinforcement learning leaves them, and what the whole vector may take
@pytest.mark.parametrize(("step", "unchanged", "most"), [(0.0023, 0.55, 24), (0.00095, 0.77, 13.5),
                                                         (0.0005, 0.88, 8), (0.00024, 0.94, 4.5)])  # fmt: skip
def test_a_vector_takes_a_few_percent_of_the_model(tmp_path, step, unchanged, most):
    rng = np.random.default_rng(0)
    base = (rng.standard_normal((1500, 1000), dtype=np.float32) * np.float32(0.02)).astype(BF16)
    moved = base.astype(np.float32) + rng.standard_normal(base.shape, dtype=np.float32) * np.float32(0.02 * step)
    tuned = moved.astype(BF16)
    assert np.mean(base == tuned) == pytest.approx(unchanged, abs=0.04)
    write(tmp_path / "base", {"w": base})
    write(tmp_path / "tuned", {"w": tuned})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "v", encoding="sparse")
    size = sum(path.stat().st_size for path in (tmp_path / "v").rglob("*") if path.is_file())
    assert 100 * size / base.nbytes < most
    assert np.array_equal(read_vector(tmp_path / "v")["w"], tuned.astype(np.float64) - base.astype(np.float64))


def sparse_vector(tmp_path, share=0.2, encoding="sparse"):
    values = a_block(count=2 * BLOCK + 100, share=share)
    write(tmp_path / "base", {"w": np.zeros(len(values), BF16), "x": np.zeros(3, BF16)})
    write(tmp_path / "tuned", {"w": values.astype(BF16), "x": np.zeros(3, BF16)})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "v", encoding=encoding)
    return tmp_path / "v"


def test_auto_takes_the_smaller_encoding_for_each_tensor(tmp_path):
    rng = np.random.default_rng(0)
    base = {"few": np.ones(5000, BF16), "all": (rng.standard_normal(5000)).astype(BF16)}
    tuned = {"few": base["few"].copy(), "all": (rng.standard_normal(5000) * 2.0 ** rng.integers(0, 30, 5000))
             .astype(BF16)}  # fmt: skip
    tuned["few"][::100] = 1.5
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", tuned)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "v")
    assert {name: delta.encoding for name, delta in open_vector(tmp_path / "v").deltas.items()} == {
        "few": "sparse", "all": "dense"
    }  # fmt: skip
    for name, delta in read_vector(tmp_path / "v").items():
        assert np.array_equal(delta, tuned[name].astype(np.float64) - base[name].astype(np.float64)), name
    assert verify(tmp_path / "v").recomputed


def read_in_order(vector, name, steps):
    source = StoredDeltas(open_vector(vector))
    with tensor_reader() as reader:
        deltas = source.open(name, reader)
        size, at, parts = source.vector.deltas[name].size, 0, []
        for step in steps:
            stop = min(size, at + step)
            parts.append(deltas.read(at, stop, np.dtype(np.float64)).main)
            at = stop
        deltas.close()
    return np.concatenate(parts)


@pytest.mark.parametrize("encoding", ["sparse", "dense"])
@pytest.mark.parametrize("step", [1000, 65_536, BLOCK, BLOCK + 1, 10**7])
def test_runs_of_any_length_are_read_in_order(tmp_path, encoding, step):
    vector = sparse_vector(tmp_path, encoding=encoding)
    whole = read_vector(vector)["w"]
    assert np.array_equal(read_in_order(vector, "w", [step] * -(-len(whole) // step)), whole)


def test_a_table_of_lengths_that_does_not_fit_is_refused(tmp_path):
    vector = sparse_vector(tmp_path)
    opened = open_vector(vector)
    entry = opened.deltas["w"].entry
    for change in (1, 1 << 20):
        data = bytearray(entry.path.read_bytes())
        end = entry.offset + entry.nbytes
        (length,) = struct.unpack("<I", data[end - 4 : end])
        data[end - 4 : end] = struct.pack("<I", length + change)
        entry.path.write_bytes(data)
        with pytest.raises(VectorError, match=r"sparse delta 'w' is damaged: its blocks have .* its table speaks of"):
            read_in_order(vector, "w", [10**7])
        data[end - 4 : end] = struct.pack("<I", length)
        entry.path.write_bytes(data)


def test_a_shape_that_its_bytes_cannot_hold_takes_no_memory(tmp_path):
    """Found by fuzzing: a sparse delta may claim any shape."""
    vector = sparse_vector(tmp_path)
    document = json.loads((vector / "vector.json").read_text())
    document["tensors"]["w"]["shape"] = [1 << 60]
    (vector / "vector.json").write_bytes(format_document(document))
    with pytest.raises(
        VectorError, match=r"bytes, too few for the 4398046511104 blocks of 1152921504606846976 entries"
    ):
        read_in_order(vector, "w", [10])
    with pytest.raises(VerificationError, match="too few for the"):
        verify(vector, checksums_only=True)


def test_a_block_moved_to_another_place_is_found(tmp_path):
    """Each block matches its own checksum; their order is held by the digest of the delta."""
    vector = sparse_vector(tmp_path, share=0.0)
    values = a_block(count=2 * BLOCK)
    values[BLOCK:] = values[:BLOCK]
    values[5], values[BLOCK + 6] = 1, 1
    for folder in ("base", "tuned", "v"):
        for path in sorted((tmp_path / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / folder).rmdir()
    write(tmp_path / "base", {"w": np.zeros(len(values), BF16)})
    write(tmp_path / "tuned", {"w": values.astype(BF16)})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=vector, encoding="sparse")
    entry = open_vector(vector).deltas["w"].entry
    data = bytearray(entry.path.read_bytes())
    stored = data[entry.offset : entry.offset + entry.nbytes]
    first, second = struct.unpack("<II", stored[-8:])
    swapped = stored[first : first + second] + stored[:first] + struct.pack("<II", second, first)
    data[entry.offset : entry.offset + entry.nbytes] = swapped
    entry.path.write_bytes(data)
    with pytest.raises(VectorError, match="does not match its checksum in vector.json"):
        read_in_order(vector, "w", [10**7])
