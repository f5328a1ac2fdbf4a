"""The bytes of a small vector, pinned: docs/format.md in numbers. A change here is a new format version."""

import hashlib
import json
import struct

import numpy as np
import pytest

from reasonvec.weights import extract
from reasonvec.weights.vector import open_vector
from tests.checkpoints import BF16, write

TUNED = {"a": np.array([1.0078125, 2.0], BF16), "b": np.array([-0.00390625 * 1.0078125, 1.0], BF16),
         "c": np.array([[2.0**-60]], BF16)}  # fmt: skip
BASE = {"a": np.array([1.0, 2.0], BF16), "b": np.array([1.0, 1.0], BF16), "c": np.array([[1.0]], BF16)}


@pytest.fixture(scope="module")
def vector(tmp_path_factory):
    root = tmp_path_factory.mktemp("golden")
    write(root / "base", BASE)
    write(root / "tuned", TUNED)
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector")
    return root / "vector"


def golden(header: bytes, data: bytes, room: int) -> bytes:
    return struct.pack("<Q", room) + header.ljust(room) + data


METADATA = b'{"__metadata__":{"format":"pt","reasonvec":"deltas"},'


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("vector-bfloat16-00001.safetensors",
         golden(METADATA + b'"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}', b"\x00\x3c\x00\x00", 232)),
        ("vector-float32-00001.safetensors",
         golden(METADATA + b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                struct.pack("<2f", -0.00390625 * 1.0078125 - 1, 0), 232)),
        ("vector-float64-00001.safetensors",
         golden(METADATA + b'"c":{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]}}', struct.pack("<d", -1.0), 232)),
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
    assert document["format_version"] == 1
    delta = document["tensors"]["a"]
    assert delta == {
        "shape": [2], "dtype": "BF16", "encoding": "dense", "file": "vector-bfloat16-00001.safetensors",
        "sha256": hashlib.sha256(b"\x00\x3c\x00\x00").hexdigest(), "residual": 0, "checkpoint_dtype": "BF16",
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
    lines = [f"{name}\tBF16\t{list(t.shape)}\t{hashlib.sha256(t.tobytes()).hexdigest()}\n" for name, t in TUNED.items()]
    assert document["donors"]["tuned"]["fingerprint"] == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_the_residual_is_read_back(vector):
    index, value = open_vector(vector).residuals["c"]
    assert (index.tolist(), value.tolist()) == ([0], [2.0**-60])
