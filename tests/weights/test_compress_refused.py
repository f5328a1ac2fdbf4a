"""What `compress` refuses, and what readers refuse of what it made, damaged or hostile."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import UsageError, VectorError, VerificationError
from reasonvec.weights import compress, extract, verify
from reasonvec.weights.documents import format_document
from reasonvec.weights.safetensors_header import format_header
from reasonvec.weights.vector import open_vector
from tests.checkpoints import everything_under, read, write
from tests.weights.test_compress import LARGE, METHODS, donors, single


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("refused")
    for name, tensors in zip(("base", "tuned"), donors(), strict=True):
        write(root / name, tensors)
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector", encoding="dense")
    return root


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "compress needs one of --rank, --density and --bits, not none"),
        (("--rank", "2", "--bits", "8"), "not --rank and --bits"),
        (("--rank", "0"), "--rank is 0; it must be 1 or more"),
        (("--rank", "-3"), "--rank is -3"),
        (("--rank", "500"), "--rank 500 would keep every tensor of vector exactly; the largest, "
                            "'model.layers.1.mlp.up_proj.weight' of shape [701, 399], has no rank above 399"),
        (("--rank", "399"), "bytes without loss, and its factors would take 1755600"),
        (("--density", "0"), "--density is 0.0; it must be more than 0"),
        (("--density", "1"), "less than 1, which is the vector itself"),
        (("--density", "1.5"), "--density is 1.5"),
        (("--density", "nan"), "--density is nan"),
        (("--bits", "3"), "--bits is 3; it must be one of 8, 4, 1"),
        (("--bits", "8", "--rescale"), "--select and --rescale belong to --density; --bits keeps every entry"),
        (("--rank", "2", "--select", "random"), "--select and --rescale belong to --density; --rank"),
    ],
)  # fmt: skip
def test_mistakes_are_one_message_and_leave_nothing(root, monkeypatch, options, words):
    monkeypatch.chdir(root)
    before = everything_under(root)
    result = CliRunner().invoke(main, ["compress", "vector", "--out", "no", *options])
    assert result.exit_code == 2, result.output
    assert words in result.stderr and result.stdout == ""
    assert everything_under(root) == before


def test_a_lossy_vector_is_not_compressed_again(root, tmp_path):
    compress(vector=root / "vector", out=tmp_path / "once", rank=3)
    with pytest.raises(UsageError, match=r"is lossy already \(low-rank: rank 3\).*compress that one instead"):
        compress(vector=tmp_path / "once", out=tmp_path / "twice", bits=8)
    with pytest.raises(UsageError, match="select is magnitude or random, not 'largest'"):
        compress(vector=root / "vector", out=tmp_path / "out", density=0.5, select="largest")


@pytest.mark.parametrize("method", ["rank", "magnitude", "4 bits"])
def test_a_damaged_vector_is_found_and_nothing_is_written(root, tmp_path, method):
    shutil.copytree(root / "vector", tmp_path / "vector")
    for file in (tmp_path / "vector").glob("vector-*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
    with pytest.raises(VectorError, match="does not match its checksum"):
        compress(vector=tmp_path / "vector", out=tmp_path / "out", **METHODS[method])
    assert [path.name for path in tmp_path.iterdir()] == ["vector"]


@pytest.mark.parametrize("method", ["rank", "8 bits", "4 bits", "1 bit"])
def test_no_stored_byte_can_change_unseen(root, tmp_path, method):
    compress(vector=root / "vector", out=tmp_path / "out", **METHODS[method])
    file = next((tmp_path / "out").glob("vector-[lq]*.safetensors"))
    data, begin = file.read_bytes(), 8 + int.from_bytes(file.read_bytes()[:8], "little")
    rng = np.random.default_rng(0)
    for place in rng.integers(begin, len(data), 12).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with pytest.raises(VerificationError, match=r"checksum|damaged"):
            verify(tmp_path / "out", checksums_only=True)


def forge(path, change):
    """Change the only delta of a compressed vector of one 6 x 70 tensor, and sign the document again."""
    document = json.loads((path / "vector.json").read_text())
    info = document["tensors"]["w.weight"]
    file = path / info["file"]
    stored = read(path)["w.weight"].tobytes()
    data, info["shape"] = change(bytearray(stored), info["shape"])
    dtype, item = info["dtype"], 4 if info["dtype"] == "F32" else 1
    file.write_bytes(format_header([("w.weight", dtype, (len(data) // item,))], {}) + bytes(data))
    document["files"][file.name]["bytes"] = file.stat().st_size
    (path / "vector.json").write_bytes(format_document(document))


def put(place, value):
    def change(data, shape):
        data[place : place + len(value)] = value
        return data, shape

    return change


NAN, INFINITY, HUGE = (np.float32(value).tobytes() for value in (np.nan, np.inf, 3e38))


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("rank", lambda data, shape: (data[:-4], shape), "which are no factors of 1 matrices of 6 x 70"),
        ("rank", lambda data, shape: (data, [420]), r"shape \[420\] is no matrix"),
        ("rank", lambda data, shape: (bytearray(4 * 7 * 76), shape), "of which there can be 1 to 6"),
        ("rank", lambda data, shape: (bytearray(), shape), "has 0 numbers"),
        ("rank", lambda data, shape: (bytearray(4 * 400_000), [200_000, 200_000]), "more than 65536 entries for every"),
        ("rank", put(0, NAN), "holds NaN or infinity"),
        ("rank", put(0, INFINITY), "holds NaN or infinity"),
        ("rank", lambda data, shape: (HUGE * (len(data) // 4), shape), "holds NaN or infinity"),
        ("8 bits", lambda data, shape: (data[:5], shape), "less than its head"),
        ("8 bits", put(0, b"\x02"), "version 2 and 8 bits; known are version 1 and 8, 4, 1 bits"),
        ("8 bits", put(2, b"\x03"), "version 1 and 3 bits"),
        ("8 bits", put(4, b"\x01"), "its head speaks of"),
        ("8 bits", lambda data, shape: (data[:-1], shape), "420 entries of 8 bits in rows of 70 need 452"),
        ("8 bits", lambda data, shape: (data, [420]), "in rows of 420 need 432"),
        ("8 bits", lambda data, shape: (data, [0, 70]), r"shape \[0, 70\] has no rows"),
        ("8 bits", put(8, NAN), "scale that is negative, not finite or too large"),
        ("8 bits", put(8, np.float32(-1).tobytes()), "scale that is negative"),
        ("8 bits", put(8, HUGE), "too large"),
        ("8 bits", put(8 + 24, b"\x80"), "integer beyond 127"),
        ("4 bits", put(8 + 48, b"\x08"), "integer beyond 7"),
        ("1 bit", put(8, INFINITY), "scale that is negative, not finite"),
    ],
)  # fmt: skip
def test_hostile_deltas_are_refused_with_the_reason(tmp_path, method, change, words):
    delta = np.random.default_rng(0).standard_normal((6, 70)).astype(np.float32)
    compress(vector=single(tmp_path, delta), out=tmp_path / "out", **METHODS[method])
    forge(tmp_path / "out", change)
    with pytest.raises((VectorError, VerificationError), match=words) as caught:
        verify(tmp_path / "out", checksums_only=True)
    assert "delta 'w.weight' is damaged" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document.pop("lossy"), "is low-rank, which is lossy, and the document does not say what"),
        (lambda document: document["lossy"].pop("of"), "lossy.of is missing"),
        (lambda document: document["lossy"].update(relative_error="none"), "lossy.relative_error is a str"),
        (lambda document: document["tensors"][LARGE].update(dtype="BF16"), "encodes .* as 'low-rank' BF16"),
        (lambda document: document["tensors"][LARGE].update(residual=1), "is low-rank and yet has a residual"),
        (lambda document: document["tensors"][LARGE].update(encoding="sparse"), "encodes .* as 'sparse' F32"),
    ],
)
def test_a_document_that_misstates_what_is_lossy_is_refused(root, tmp_path, change, words):
    compress(vector=root / "vector", out=tmp_path / "out", rank=3)
    document = json.loads((tmp_path / "out/vector.json").read_text())
    change(document)
    (tmp_path / "out/vector.json").write_bytes(format_document(document))
    with pytest.raises(VectorError, match=words):
        open_vector(tmp_path / "out")
