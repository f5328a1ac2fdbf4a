"""Headers from hostile hands: each fault has its own message, and what the reference library wrote is accepted."""

import contextlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from reasonvec.errors import CheckpointError
from reasonvec.weights.safetensors_header import format_header, parse_header, read_header


def file_with(path: Path, header, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(begin=0, end=4, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

FAULTS = {
    "empty file": (None, b"", None, "too short"),
    "length beyond the file": ({"a": tensor()}, b"1234", 10**6, "claims a header of 1000000 bytes"),
    "length of an attack": ({"a": tensor()}, b"1234", 2**63, "may have at most"),
    "a pointer of Git LFS": (
        None,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 988097824\n",
        None,
        "`git lfs pull`",
    ),
    "not JSON": (b"hello!", b"", None, "not JSON"),
    "a text without an end": (b'{"a', b"", None, "Unterminated string starting at letter 2"),
    "not UTF-8": (b'{"\xff\xfe": 1}', b"", None, "not JSON"),
    "nested too deeply": (DEEP, b"", None, "not JSON"),
    "a list": ([1], b"", None, "is a JSON list"),
    "duplicate names": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', b"1234", None, "twice"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234", None, "{dtype, shape, data_offsets}"),
    "unknown dtype": ({"a": tensor(dtype="F7")}, b"1234", None, "has the dtype 'F7'"),
    "negative shape": ({"a": tensor(shape=(-1,))}, b"1234", None, "not a list of at most 64 counts"),
    "true as a shape": ({"a": tensor(shape=(True,))}, b"1234", None, "not a list of at most 64 counts"),
    "overflowing shape": ({"a": tensor(shape=(2**40, 2**40))}, b"1234", None, "not a list of at most 64 counts"),
    "offsets out of range": ({"a": tensor(0, 8, shape=(2,))}, b"1234", None, "lies at bytes 0 to 8"),
    "offsets reversed": ({"a": tensor(4, 0)}, b"1234", None, "lies at bytes 4 to 0"),
    "too few bytes": ({"a": tensor(shape=(2,))}, b"1234", None, "needs 8"),
    "overlap": ({"a": tensor(), "b": tensor(2, 6)}, b"123456", None, "overlaps"),
    "gap": ({"a": tensor(), "b": tensor(6, 10)}, b"1234567890", None, "leaves a gap"),
    "bytes after the end": ({"a": tensor()}, b"12345678", None, "has 4 bytes after"),
    "metadata that is no text": ({"__metadata__": {"a": 1}}, b"", None, "__metadata__"),
    "half a character": (b'{"\\ud800": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234", None, "half a"),
    "a line break in a name": ({"a\nb": tensor()}, b"1234", None, "control characters"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(tmp_path, fault):
    header, data, length, message = FAULTS[fault]
    path = tmp_path / "x.safetensors"
    if header is None:
        path.write_bytes(data)
    else:
        file_with(path, header, data, length)
    with pytest.raises(CheckpointError, match=message.replace("{", r"\{").replace("(", r"\(")) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_what_the_library_writes_is_read(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.zeros(0, np.float16), "é": np.int64([3])}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    entries, metadata = read_header(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt"}
    raw = (tmp_path / "x.safetensors").read_bytes()
    for name, array in tensors.items():
        entry = entries[name]
        assert entry.shape == array.shape
        assert raw[entry.offset : entry.offset + entry.nbytes] == array.tobytes()


def test_what_is_written_is_read_by_the_library(tmp_path):
    arrays = {"x": np.arange(4, dtype=np.float64), "y": np.arange(3, dtype=np.float32)}
    header = format_header([("x", "F64", (4,)), ("y", "F32", (3,))], {"format": "pt"}, reserve=512)
    assert len(header) == 512
    (tmp_path / "f.safetensors").write_bytes(header + arrays["x"].tobytes() + arrays["y"].tobytes())
    for name, array in load_file(tmp_path / "f.safetensors").items():
        assert np.array_equal(array, arrays[name])


def test_a_header_larger_than_its_room_is_not_written():
    with pytest.raises(ValueError, match="were reserved"):
        format_header([("x" * 50, "F64", (4,))], {}, reserve=32)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_bytes_make_it_fail_otherwise(text, size):
    with contextlib.suppress(CheckpointError):
        parse_header(Path("f"), BytesIO(text).read, len(text), 8 + len(text) + size)
