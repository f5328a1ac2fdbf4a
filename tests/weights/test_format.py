"""The bytes of small vectors, pinned: docs/format.md in numbers. A change here is a new format version."""

import hashlib
import json
import struct

import numpy as np
import pytest
import zstandard
from blake3 import blake3

from reasonvec.weights import extract
from reasonvec.weights.vector import open_vector
from tests.checkpoints import BF16, write
from tests.vectors import read_block, read_vector, tensor_digest

TUNED = {"a": np.array([1.0078125, 2.0], BF16), "b": np.array([-0.00390625 * 1.0078125, 1.0], BF16),
         "c": np.array([[2.0**-60]], BF16)}  # fmt: skip
BASE = {"a": np.array([1.0, 2.0], BF16), "b": np.array([1.0, 1.0], BF16), "c": np.array([[1.0]], BF16)}


@pytest.fixture(scope="module")
def vector(tmp_path_factory):
    root = tmp_path_factory.mktemp("golden")
    write(root / "base", BASE)
    write(root / "tuned", TUNED)
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector", encoding="dense")
    return root / "vector"


def golden(header: bytes, data: bytes, room: int) -> bytes:
    return struct.pack("<Q", room) + header.ljust(room) + data


METADATA = b'{"__metadata__":{"format":"pt","reasonvec":"deltas"},'


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("vector-bfloat16-00001.safetensors",
         golden(METADATA + b'"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', b"\x00\x3c\x00\x00", 272)),
        ("vector-float32-00001.safetensors",
         golden(METADATA + b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                struct.pack("<2f", -0.00390625 * 1.0078125 - 1, 0), 272)),
        ("vector-float64-00001.safetensors",
         golden(METADATA + b'"c":{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]}}', struct.pack("<d", -1.0), 272)),
        ("residual/residual.safetensors",
         golden(b'{"c#index":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},'
                b'"c#value":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}',
                struct.pack("<qd", 0, 2.0**-60), 120)),
        ("donor/config.json", json.dumps({"model_type": "toy", "hidden_size": 16, "num_hidden_layers": 2,
                                          "vocab_size": 40}).encode()),
    ],
)  # fmt: skip
def test_every_byte_is_as_specified(vector, file, expected):
    assert (vector / file).read_bytes() == expected


def test_the_document_says_what_the_specification_asks(vector):
    document = json.loads((vector / "vector.json").read_text())
    assert document["format"] == "reasonvec.vector"
    assert document["format_version"] == 2
    delta = document["tensors"]["a"]
    assert delta == {
        "shape": [2], "dtype": "BF16", "encoding": "dense", "file": "vector-bfloat16-00001.safetensors",
        "digest": blake3(blake3(b"\x00\x3c\x00\x00").digest()).hexdigest(), "residual": 0, "checkpoint_dtype": "BF16",
        "changed": 1, "norm": 2.0**-7, "base_norm": 5**0.5, "rounding": 0.0, "steps": [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    }  # fmt: skip
    assert document["tensors"]["c"]["residual"] == 1
    content = {key: value for key, value in document.items() if key != "sha256"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert document["sha256"] == hashlib.sha256(canonical).hexdigest()
    listed = set(document["files"])
    assert listed == {str(p.relative_to(vector)) for p in vector.rglob("*") if p.is_file()} - {"vector.json"}


def test_the_fingerprint_of_a_donor_is_computed_as_specified(vector):
    document = json.loads((vector / "vector.json").read_text())
    lines = [f"{name}\tBF16\t{list(t.shape)}\t{tensor_digest(t)}\n" for name, t in TUNED.items()]
    assert document["donors"]["tuned"]["fingerprint"] == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_the_residual_is_read_back(vector):
    index, value = open_vector(vector).residuals["c"]
    assert (index.tolist(), value.tolist()) == ([0], [2.0**-60])


@pytest.fixture(scope="module")
def sparse(vector):
    extract(tuned=vector.parent / "tuned", base=vector.parent / "base", out=vector.parent / "sparse", encoding="sparse")
    return vector.parent / "sparse"


def stored(sparse, name):
    """The bytes of a sparse delta of one block, without the table of lengths behind it."""
    file = sparse / "vector-sparse-00001.safetensors"
    header = json.loads(file.read_bytes()[8:280])
    begin, end = header[name]["data_offsets"]
    assert header[name] == {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    data = file.read_bytes()[280 + begin : 280 + end]
    assert data[-4:] == struct.pack("<I", len(data) - 4)
    return data[:-4]


def block(palette=b"", gaps=b"", symbols=b"", literals=b"", wide=b""):
    counts = struct.pack("<HHIIII", 1, len(palette) // 2, len(gaps), len(symbols), len(literals) // 4, len(wide) // 16)
    packed = [zstandard.ZstdCompressor(level=1).compress(part) for part in (gaps, symbols)]
    digest = blake3(counts + palette + gaps + symbols + literals + wide).digest()
    return (counts + struct.pack("<II", *map(len, packed)) + digest + bytes(4) + palette + b"".join(packed) + literals
            + wide)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", block(palette=b"\x00\x3c", gaps=b"\x00", symbols=b"\x00")),
        ("b", block(gaps=b"\x00", symbols=b"\xfe", literals=struct.pack("<f", -0.00390625 * 1.0078125 - 1))),
        ("c", block(gaps=b"\x00", symbols=b"\xff", wide=struct.pack("<dd", -1.0, 2.0**-60))),
    ],
    ids=["a", "b", "c"],
)
def test_every_byte_of_a_sparse_delta_is_as_specified(sparse, name, expected):
    assert stored(sparse, name) == expected


def test_a_sparse_vector_reads_as_the_dense_one_by_the_specification_alone(vector, sparse):
    dense = read_vector(vector)
    for name, delta in read_vector(sparse).items():
        assert np.array_equal(delta, dense[name]), name


def test_a_gap_of_255_and_more_is_written_in_pieces():
    values = np.zeros(1000)
    read_block(block(palette=b"\x00\x3c", gaps=b"\xff\x00\xff\xff\x02", symbols=b"\x00\x00"), values)
    assert np.flatnonzero(values).tolist() == [255, 768]
