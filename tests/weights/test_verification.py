"""Promise 7, traceable: `verify` says yes to what was made, and no to any change of it or of its inputs."""

import json

import numpy as np
import pytest

from reasonvec.errors import VectorError, VerificationError
from reasonvec.weights import Options, apply, extract, transfer, verify, write_permuted, write_random
from reasonvec.weights.documents import format_document
from tests.checkpoints import moved, random_tensors, read, write
from tests.vectors import read_vector


@pytest.fixture
def root(tmp_path):
    base = random_tensors(0)
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(tmp_path / name, tensors)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    options = Options(skip=("*norm*",), rounding="stochastic", seed=4, max_shard_bytes=900)
    apply(vectors=[(tmp_path / "vector", 0.7)], target=tmp_path / "target", out=tmp_path / "applied", options=options)
    transfer(tuned=tmp_path / "tuned", base=tmp_path / "base", target=tmp_path / "target", out=tmp_path / "moved",
             alpha=-1.0, options=options)  # fmt: skip
    return tmp_path


MADE = ("vector", "applied", "moved")


@pytest.mark.parametrize("made", MADE)
def test_what_was_made_is_verified(root, made):
    verification = verify(root / made)
    assert verification.recomputed
    assert verification.tensors == 8


@pytest.mark.parametrize("made", MADE)
def test_every_changed_byte_is_found(root, made):
    for file in sorted((root / made).rglob("*")):
        if not file.is_file():
            continue
        original = file.read_bytes()
        for place in np.random.default_rng(0).integers(0, len(original), 3):
            damaged = bytearray(original)
            damaged[place] ^= 4
            file.write_bytes(damaged)
            with pytest.raises(Exception) as caught:
                verify(root / made, checksums_only=True)
            assert type(caught.value).__module__ == "reasonvec.errors", (file, place)
        file.write_bytes(original)
    assert verify(root / made, checksums_only=True)


def test_a_receipt_that_lies_is_found_by_computing_again(root):
    file = root / "applied/reasonvec.json"
    receipt = json.loads(file.read_text())
    receipt["vectors"][0]["alpha"] = 0.8
    file.write_bytes(format_document(receipt))
    assert verify(root / "applied", checksums_only=True)
    with pytest.raises(VerificationError, match="is not what it says it is: realised_alpha"):
        verify(root / "applied")


def test_a_donor_that_changed_is_found(root):
    tensors = read(root / "tuned")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    (root / "tuned").rename(root / "old")
    write(root / "tuned", tensors)
    with pytest.raises(VerificationError, match=r"vector is not what it says it is: donors.tuned.fingerprint is"):
        verify(root / "vector")


def test_inputs_that_are_gone_are_named(root):
    (root / "base").rename(root / "away")
    with pytest.raises(VerificationError, match=r"base does not exist.*--checksums-only"):
        verify(root / "vector")
    assert not verify(root / "vector", checksums_only=True).recomputed


def test_a_directory_of_somebody_else_is_no_claim(root):
    with pytest.raises(VectorError, match="was not made by reasonvec"):
        verify(root / "target")


def test_the_receipt_says_who_made_this_of_what(root):
    receipt = json.loads((root / "applied/reasonvec.json").read_text())
    vector = json.loads((root / "vector/vector.json").read_text())
    assert receipt["vectors"] == [
        {"location": str(root / "vector"), "revision": None, "fingerprint": vector["sha256"], "alpha": 0.7}
    ]
    assert receipt["target"]["location"] == str(root / "target")
    assert receipt["options"]["rounding"] == "stochastic"
    assert set(receipt["realised_alpha"]["layers"]) == {"0", "1", "other"}
    moved_receipt = json.loads((root / "moved/reasonvec.json").read_text())
    for role in ("tuned", "base"):
        assert len(moved_receipt[role]["fingerprint"]) == 64
        assert vector["donors"][role]["location"] == str(root / role)


# controls


def test_a_random_vector_has_the_norm_of_the_real_one_and_its_direction_not(root):
    write_random(vector=root / "vector", out=root / "random", seed=3)
    real, noise = read_vector(root / "vector"), read_vector(root / "random")
    for name, delta in real.items():
        a, b = delta.astype(np.float64).ravel(), noise[name].astype(np.float64).ravel()
        assert np.linalg.norm(b) == pytest.approx(np.linalg.norm(a), rel=1e-5)
        if a.size > 500:
            assert abs(a @ b) < 0.2 * (a @ a)


def test_a_permuted_vector_has_the_entries_of_the_real_one_elsewhere(root):
    write_permuted(vector=root / "vector", out=root / "permuted", seed=3)
    real, mixed = read_vector(root / "vector"), read_vector(root / "permuted")
    for name, delta in real.items():
        a, b = delta.astype(np.float64).ravel(), mixed[name].astype(np.float64).ravel()
        assert np.array_equal(np.sort(a), np.sort(b))
        if np.count_nonzero(a) > 10:
            assert not np.array_equal(a, b)


@pytest.mark.parametrize("control", [write_random, write_permuted])
def test_controls_depend_on_their_seed_alone_and_are_applied_like_vectors(root, control):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        control(vector=root / "vector", out=root / out, seed=seed)
    a, b, c = ((root / out / "vector-float32-00001.safetensors").read_bytes() for out in "abc")
    assert a == b != c
    apply(vectors=[(root / "a", 1.0)], target=root / "target", out=root / "out")
    assert verify(root / "a", checksums_only=True)
    with pytest.raises(VerificationError, match="holds random numbers"):
        verify(root / "a")
