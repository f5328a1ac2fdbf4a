"""`compress`: every number that it tells against plain float64 NumPy, every bit that it stores against the
specification, and that nobody can take a lossy vector for an exact one."""

import hashlib
import itertools
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from reasonvec.errors import IncompatibleError, VectorError, VerificationError
from reasonvec.weights import apply, compress, extract, inspect, low_rank, output, verify, write_permuted
from reasonvec.weights.blocks import Scratch
from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.modules import kind_of
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import open_vector
from tests.checkpoints import BF16, bits, moved, random_tensors, read, write
from tests.vectors import BLOCK, read_vector
from tests.weights.test_output import contents, in_a_child

METHODS = {
    "rank": {"rank": 3},
    "magnitude": {"density": 0.3},
    "random": {"density": 0.3, "select": "random", "seed": 5},
    "rescaled": {"density": 0.25, "select": "random", "rescale": True},
    "8 bits": {"bits": 8},
    "4 bits": {"bits": 4},
    "1 bit": {"bits": 1},
}
LARGE = "model.layers.1.mlp.up_proj.weight"
EXPERTS = "model.layers.1.mlp.experts.gate_up_proj"
NORMS = ["model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight", "model.norm.weight"]


def donors(dtype=BF16):
    """A toy model with a tensor of two blocks whose rows no block ends with, and a stack of experts."""
    rng = np.random.default_rng(7)
    base = random_tensors(0, dtype)
    base[LARGE] = (rng.standard_normal((701, 399)) * 0.02).astype(dtype)
    base[EXPERTS] = (rng.standard_normal((3, 40, 70)) * 0.02).astype(dtype)
    return base, moved(base, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("compress")
    base, tuned = donors()
    for name, tensors in (("base", base), ("tuned", tuned), ("target", moved(base, 2))):
        write(root / name, tensors)
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector", encoding="dense")
    extract(tuned=root / "tuned", base=root / "base", out=root / "sparse")
    return root


@pytest.fixture(scope="module")
def exact(root):
    """The exact deltas in float64, from the donors."""
    base, tuned = read(root / "base"), read(root / "tuned")
    return {name: tuned[name].astype(np.float64) - base[name].astype(np.float64) for name in base}


def single(path, delta, encoding="dense"):
    """A vector of one float32 matrix."""
    write(path / "base", {"w.weight": np.zeros_like(delta)})
    write(path / "tuned", {"w.weight": delta})
    extract(tuned=path / "tuned", base=path / "base", out=path / "vector", encoding=encoding)
    return path / "vector"


def optimum(matrix, rank):
    """The best approximation of a rank, and its relative error (Eckart, Young 1936)."""
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    return best, float(np.sqrt((values[rank:] ** 2).sum() / (values**2).sum()))


# low rank


@pytest.mark.parametrize("shape", [(500, 400), (300, 700), (120, 90)])
@pytest.mark.parametrize("spectrum", ["falling", "noise"])
def test_low_rank_is_within_one_percent_of_the_optimum(tmp_path, shape, spectrum):
    rng = np.random.default_rng(3)
    delta = rng.standard_normal(shape)
    if spectrum == "falling":
        left, values, right = np.linalg.svd(delta, full_matrices=False)
        delta = (left / np.arange(1, len(values) + 1)) @ right
    delta = (delta * 1e-3).astype(np.float32)
    compress(vector=single(tmp_path, delta), out=tmp_path / "out", rank=8)
    found = read_vector(tmp_path / "out")["w.weight"]
    error = np.linalg.norm(found - delta) / np.linalg.norm(delta)
    assert optimum(delta, 8)[1] * (1 - 1e-6) <= error <= optimum(delta, 8)[1] * 1.01


def test_a_matrix_of_that_rank_is_kept_nearly_whole(tmp_path):
    rng = np.random.default_rng(4)
    delta = (rng.standard_normal((300, 5)) @ rng.standard_normal((5, 250)) * 1e-9).astype(np.float32)
    found = compress(vector=single(tmp_path, delta), out=tmp_path / "out", rank=5)
    assert found.lossy["relative_error"] < 1e-5
    assert found.lossy["cosine"] == pytest.approx(1, abs=1e-9)


def test_each_expert_has_factors_of_its_own(root, exact, tmp_path):
    compress(vector=root / "vector", out=tmp_path / "out", rank=3)
    found = read_vector(tmp_path / "out")[EXPERTS]
    for mine, theirs in zip(found, exact[EXPERTS], strict=True):
        assert np.linalg.norm(mine - theirs) == pytest.approx(optimum(theirs, 3)[1] * np.linalg.norm(theirs), rel=0.01)


def test_the_factors_are_two_plain_float32_matrices(root, tmp_path):
    compress(vector=root / "vector", out=tmp_path / "out", rank=3)
    assert read(tmp_path / "out")[LARGE].shape == (3 * (701 + 399),)
    assert inspect(tmp_path / "out", spectrum=False).to_json()["tensors"][0]["dtype"] == "low-rank"


def test_the_seed_reaches_the_factors(tmp_path):
    delta = np.random.default_rng(0).standard_normal((250, 220)).astype(np.float32)
    vector = single(tmp_path, delta)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        compress(vector=vector, out=tmp_path / name, rank=4, seed=seed)
    a, b, c = (read_vector(tmp_path / name)["w.weight"] for name in "abc")
    assert bits(a) == bits(b) != bits(c)


# density


def largest(delta, density):
    """The entries that a magnitude keeps, by sorting all of them; of equals the first."""
    flat, kept = delta.ravel(), np.zeros(delta.size)
    count = int(Fraction(str(density)) * int(np.count_nonzero(flat)) + Fraction(1, 2))
    chosen = np.argsort(-np.abs(flat), kind="stable")[: max(count, 1)]
    kept[chosen] = flat[chosen]
    return kept.reshape(delta.shape)


@pytest.mark.parametrize("density", [0.5, 0.3, 0.01, 1e-9])
def test_magnitude_keeps_exactly_the_largest(root, exact, tmp_path, density):
    compress(vector=root / "sparse", out=tmp_path / "out", density=density)
    for name, delta in read_vector(tmp_path / "out").items():
        assert np.array_equal(delta, largest(exact[name], density)), name


@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=str)
def test_magnitudes_of_any_bit_pattern_are_sorted(tmp_path, dtype):
    rng = np.random.default_rng(8)
    delta = (rng.standard_normal(5000) * 2.0 ** rng.integers(-12, 3, 5000)).astype(dtype)
    delta[rng.random(5000) < 0.2] = dtype(0.001)  # many that are equal
    write(tmp_path / "base", {"w": np.zeros_like(delta)})
    write(tmp_path / "tuned", {"w": delta})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    for density in (0.1, 0.35, 0.9):
        compress(vector=tmp_path / "vector", out=tmp_path / "out", density=density, force=True)
        assert np.array_equal(read_vector(tmp_path / "out")["w"], largest(delta.astype(np.float64), density))


def word(key, counter):
    """SplitMix64 (Steele, Lea, Flood 2014) in Python's integers."""
    mask = (1 << 64) - 1
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_random_keeps_each_entry_by_its_own_word(root, exact, tmp_path):
    compress(vector=root / "vector", out=tmp_path / "out", density=0.3, select="random", seed=5)
    found = read_vector(tmp_path / "out")
    for name in (EXPERTS, NORMS[0]):
        key = int.from_bytes(hashlib.blake2b(f"density\0{5}\0{name}".encode(), digest_size=8).digest(), "little")
        kept = np.array([word(key, i) < 0.3 * 2**64 for i in range(exact[name].size)]).reshape(exact[name].shape)
        assert np.array_equal(found[name], np.where(kept, exact[name], 0))
    assert np.count_nonzero(found[LARGE]) == pytest.approx(0.3 * np.count_nonzero(exact[LARGE]), rel=0.02)


def test_rescaled_entries_are_rounded_once_to_bfloat16(root, exact, tmp_path):
    for name, rescale in (("plain", False), ("large", True)):
        compress(vector=root / "vector", out=tmp_path / name, density=0.3, select="random", rescale=rescale)
    plain, large = read_vector(tmp_path / "plain"), read_vector(tmp_path / "large")
    for name, delta in plain.items():
        wanted = delta / 0.3
        half_a_step = 2.0 ** (np.frexp(wanted)[1] - 9)  # ml_dtypes rounds float64 twice and is no oracle here
        assert (np.abs(large[name] - wanted) <= half_a_step).all()
        assert np.array_equal(large[name].astype(BF16).astype(np.float64), large[name])
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors")) for name in ("plain", "large")]
    assert sizes[1] < 1.05 * sizes[0]


def test_what_rescaling_would_carry_beyond_the_range_is_refused(tmp_path):
    vector = single(tmp_path, np.full((4, 4), 2e38, np.float32))
    with pytest.raises(
        VectorError, match=r"'w.weight' has an entry that leaves the range of float32 when .* --rescale"
    ):
        compress(vector=vector, out=tmp_path / "out", density=0.5, rescale=True)
    assert not (tmp_path / "out").exists()


# bits


def quantised(delta, number):
    """Rows, groups or the tensor, cut at every 2^18 entries, by the formula and nothing else."""
    flat, columns, found = delta.ravel(), delta.shape[-1], np.zeros(delta.size)
    if number == 1:
        return np.where(delta > 0, 1.0, -1.0) * float(np.float32(np.abs(delta).mean()))
    levels = {8: 127, 4: 7}[number]
    edges = set(range(0, delta.size, columns)) | set(range(0, delta.size, BLOCK)) | {delta.size}
    if number == 4:
        edges |= {row + column for row in range(0, delta.size, columns) for column in range(0, columns, 64)}
    ordered = sorted(edges)
    for first, last in itertools.pairwise(ordered):
        scale = np.float32(np.abs(flat[first:last]).max() / levels)
        if scale:
            integers = np.rint(flat[first:last] / np.float64(scale))
            found[first:last] = integers.astype(np.float32) * scale
    return found.reshape(delta.shape)


@pytest.mark.parametrize("number", [8, 4, 1])
def test_quantised_values_are_those_of_the_formula(root, exact, tmp_path, number):
    compress(vector=root / "vector", out=tmp_path / "out", bits=number)
    found = read_vector(tmp_path / "out")
    for name, delta in exact.items():
        expected = delta if delta.ndim == 1 else quantised(delta, number)
        assert np.array_equal(found[name], expected) if number > 1 else np.allclose(found[name], expected, rtol=1e-6)


def test_quantised_deltas_have_the_size_that_their_bits_say(root, tmp_path):
    for number, scales in ((8, 701 + 1), (4, 701 * 7 + 1), (1, 2)):
        compress(vector=root / "vector", out=tmp_path / "out", bits=number, force=True)
        assert read(tmp_path / "out")[LARGE].nbytes == 8 + 4 * scales + -(-701 * 399 * number // 8)


def test_one_bit_of_a_delta_with_many_zeros_warns_that_it_has_no_zero(root, tmp_path):
    found = compress(vector=root / "vector", out=tmp_path / "out", bits=1)
    assert any("% of the entries are zero, and one bit has no zero" in warning for warning in found.warnings)
    assert found.lossy["relative_error"] > 0.7


# what is told


@pytest.mark.parametrize("method", METHODS)
def test_the_errors_are_those_of_the_decoded_vector(root, exact, tmp_path, method):
    told = compress(vector=root / "vector", out=tmp_path / "out", **METHODS[method]).lossy
    found, base = read_vector(tmp_path / "out"), read(root / "base")

    def flat(deltas, names):
        return np.concatenate([deltas[name].ravel() for name in names])

    def expected(names):
        v, w = flat(exact, names), flat(found, names)
        weights = flat(base, names).astype(np.float32)
        sums = [(weights + delta.astype(np.float32)).astype(BF16).view(np.uint16) for delta in (v, w)]
        return {
            "relative_error": float(np.linalg.norm(w - v) / np.linalg.norm(v)),
            "cosine": float(v @ w / np.linalg.norm(v) / np.linalg.norm(w)),
            "changed_share": float((sums[0] != sums[1]).mean()),
        }

    assert {key: told[key] for key in expected(exact)} == pytest.approx(expected(exact), rel=1e-9)
    for name in exact:
        assert told["tensors"][name] == pytest.approx(expected([name]), rel=1e-9), name
    for kind, errors in told["kinds"].items():
        assert errors == pytest.approx(expected([name for name in exact if kind_of(name) == kind]), rel=1e-9)
    document = json.loads((tmp_path / "out/vector.json").read_text())
    assert document["lossy"] == told
    assert told["of"] == {"location": str(root / "vector"), "fingerprint": open_vector(root / "vector").fingerprint}
    assert told["measured_on"] == str(root / "base")
    for name, info in document["tensors"].items():
        assert info["norm"] == pytest.approx(np.linalg.norm(found[name]), rel=1e-9)
        assert info["changed"] == np.count_nonzero(found[name])


@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=str)
def test_changed_entries_are_counted_in_the_donors_dtype(tmp_path, dtype):
    base = random_tensors(0, dtype)
    tuned = moved(base, 1)
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", tuned)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector", encoding="dense")
    told = compress(vector=tmp_path / "vector", out=tmp_path / "out", bits=8).lossy
    decoded, changed = read_vector(tmp_path / "out"), 0
    for name, weights in base.items():
        enhanced = (weights.astype(np.float64) + decoded[name]).astype(dtype)
        changed += int((enhanced != tuned[name]).sum())
    assert told["changed_share"] == pytest.approx(changed / sum(t.size for t in base.values()))


def test_a_donor_that_is_gone_or_another_is_said_and_a_target_takes_its_place(root, tmp_path):
    base, tuned = donors()
    write(tmp_path / "base", base)
    extract(tuned=root / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    other = {name: t.copy() for name, t in base.items()}
    other[LARGE][0, 0] = 1
    shutil.rmtree(tmp_path / "base")
    write(tmp_path / "base", other)
    found = compress(vector=tmp_path / "vector", out=tmp_path / "out", density=0.5)
    assert any("now is not the base donor that" in warning for warning in found.warnings)
    assert (found.lossy["changed_share"], found.lossy["measured_on"]) == (None, None)
    shutil.rmtree(tmp_path / "base")
    found = compress(vector=tmp_path / "vector", out=tmp_path / "gone", density=0.5)
    assert any("could not be measured: the base donor" in w and "--target" in w for w in found.warnings)
    assert found.lossy["changed_share"] is None and found.lossy["relative_error"] > 0
    found = compress(vector=tmp_path / "vector", out=tmp_path / "on", density=0.5, target=root / "target")
    decoded, target = read_vector(tmp_path / "on"), read(root / "target")
    changed = 0
    for name, weights in target.items():
        v = tuned[name].astype(np.float32) - base[name].astype(np.float32)
        sums = [(weights.astype(np.float32) + delta).astype(BF16) for delta in (v, decoded[name].astype(np.float32))]
        changed += int((sums[0].view(np.uint16) != sums[1].view(np.uint16)).sum())
    assert found.lossy["changed_share"] == pytest.approx(changed / sum(t.size for t in target.values()))
    assert found.lossy["measured_on"] == str(root / "target") and found.warnings == ()


def test_a_target_that_does_not_fit_is_refused(root, tmp_path):
    tensors = read(root / "target")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:5]
    write(tmp_path / "other", tensors)
    with pytest.raises(IncompatibleError, match=r"on which the loss was to be measured: 1 tensors(.|\n)*model.norm"):
        compress(vector=root / "vector", out=tmp_path / "out", bits=8, target=tmp_path / "other")


def test_whoever_meets_a_lossy_vector_is_told(root, tmp_path):
    made = compress(vector=root / "vector", out=tmp_path / "out", density=0.1)
    error = f"{made.lossy['relative_error']:.2%}"
    assert inspect(tmp_path / "out", spectrum=False).to_json()["lossy"]["method"] == "density"
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "out"), "--no-spectrum"])
    assert "lossy" in shown.stdout and error in shown.stdout
    arguments = ["apply", "--vector", str(tmp_path / "out"), "--target", str(root / "target"), "--out"]
    applied = CliRunner().invoke(main, [*arguments, str(tmp_path / "enhanced")])
    assert applied.exit_code == 0
    assert f"is lossy (density: density 0.1, select magnitude, rescale False): over all tensors it is {error}" in (
        applied.stderr
    )
    receipt = json.loads((tmp_path / "enhanced/reasonvec.json").read_text())
    assert receipt["vectors"][0]["lossy"]["relative_error"] == made.lossy["relative_error"]
    assert any("is lossy" in warning for warning in receipt["warnings"])
    checked = CliRunner().invoke(main, ["check", "--vector", str(tmp_path / "out"), "--target", str(root / "target")])
    assert checked.exit_code == 0 and "The vector is lossy" in checked.stdout
    assert verify(tmp_path / "enhanced").recomputed
    assert verify(tmp_path / "out", checksums_only=True)
    with pytest.raises(VerificationError, match="is lossy; its checksums hold. Use --checksums-only"):
        verify(tmp_path / "out")


def test_the_table_shows_every_kind_and_the_whole(root, tmp_path):
    arguments = ["compress", str(root / "vector"), "--bits", "4", "--out", str(tmp_path / "out"), "--tensors"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    for words in ("relative error", "gate_up", "embedding", "all", "kept exactly", "3 of 10 tensors", EXPERTS):
        assert words in shown.stdout
    assert "Next: reasonvec apply" in shown.stderr
    told = CliRunner().invoke(main, [*arguments, "--json", "--force"])
    assert set(json.loads(told.stdout)) == {"path", "fingerprint", "bytes", "bytes_before", "lossy", "warnings"}


def test_a_result_that_is_no_smaller_says_so(root, tmp_path):
    found = compress(vector=root / "sparse", out=tmp_path / "out", bits=8)
    assert any("nothing was won for what was lost" in warning for warning in found.warnings)


# what is stored


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_do_not_depend_on_workers(root, tmp_path, method):
    for workers in (1, 3):
        compress(vector=root / "vector", out=tmp_path / str(workers), workers=workers, **METHODS[method])
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


@pytest.mark.parametrize("vector", ["vector", "sparse"])
@pytest.mark.parametrize("method", ["rank", "8 bits"])
def test_what_is_kept_exactly_is_kept_bit_for_bit(root, exact, tmp_path, vector, method):
    told = compress(vector=root / vector, out=tmp_path / "out", **METHODS[method]).lossy
    assert set(NORMS) <= set(told["kept_exactly"])
    found, stored, before = read_vector(tmp_path / "out"), read(tmp_path / "out"), read(root / vector)
    for name in told["kept_exactly"]:
        assert np.array_equal(found[name], exact[name])
        assert bits(stored[name]) == bits(before[name])
        assert told["tensors"][name] == {"relative_error": 0.0, "cosine": pytest.approx(1), "changed_share": 0.0}


def test_entries_beyond_float64_are_kept_exactly_too(tmp_path):
    base = {"n": np.array([1.0, 1.0], BF16), "w": np.ones((3, 3), BF16)}
    tuned = {"n": np.array([2.0**-60, 1.5], BF16), "w": np.full((3, 3), 1.5, BF16)}
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", tuned)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector", encoding="dense")
    compress(vector=tmp_path / "vector", out=tmp_path / "out", bits=8)
    apply(vectors=[(tmp_path / "out", 1.0)], target=tmp_path / "base", out=tmp_path / "enhanced")
    assert bits(read(tmp_path / "enhanced")["n"]) == bits(tuned["n"])


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_applied_it_is_the_target_plus_alpha_times_what_it_decodes_to(root, tmp_path, method, workers):
    compress(vector=root / "vector", out=tmp_path / "out", **METHODS[method])
    apply(vectors=[(tmp_path / "out", 0.7)], target=root / "target", out=tmp_path / "enhanced", workers=workers)
    target, decoded, found = read(root / "target"), read_vector(tmp_path / "out"), read(tmp_path / "enhanced")
    for name, weights in target.items():
        change = decoded[name].astype(np.float32) * np.float32(0.7)
        expected = (weights.astype(np.float32) + change).astype(BF16)
        assert bits(found[name]) == bits(np.where(change == 0, weights, expected)), name


@pytest.mark.parametrize("method", ["rank", "8 bits", "4 bits", "1 bit"])
def test_blocks_are_read_in_any_order_and_give_the_bits_of_the_specification(root, tmp_path, method, monkeypatch):
    compress(vector=root / "vector", out=tmp_path / "out", **METHODS[method])
    expected = read_vector(tmp_path / "out")
    source, scratch = StoredDeltas(open_vector(tmp_path / "out")), Scratch()
    with tensor_reader() as reader:
        for tile in (1 << 15, 100):
            monkeypatch.setattr(low_rank, "_TILE", tile)
            for name in (LARGE, EXPERTS):
                found, delta = np.zeros(expected[name].size, np.float32), source.blocks(name, reader)
                for number in reversed(range(-(-found.size // BLOCK))):
                    part = delta.read(number, np.dtype(np.float32), scratch).main
                    found[number * BLOCK : number * BLOCK + len(part)] = part
                assert bits(found) == bits(expected[name].astype(np.float32))


@pytest.mark.parametrize("method", METHODS)
def test_tensors_of_every_shape_and_size_come_through(tmp_path, method):
    rng = np.random.default_rng(0)
    base = {
        "empty": np.zeros((0, 4), BF16), "scalar": np.array(1, BF16), "column": np.ones((300, 1), BF16),
        "row": np.ones((1, 300), BF16), "convolution": rng.standard_normal((3, 4, 2, 5)).astype(np.float16),
        "same": np.ones((8, 9), BF16), "wide": np.ones((40, 50), BF16), "integers": np.arange(5),
        "huge": (rng.standard_normal((30, 40)) * 3e37).astype(np.float32),
        "tiny": (rng.standard_normal((30, 40)) * 1e-44).astype(np.float32),
    }  # fmt: skip
    tuned = {name: (t * t.dtype.type(1.25) if t.dtype.kind != "i" else t) for name, t in base.items()}
    tuned["same"] = base["same"]
    tuned["wide"] = (rng.standard_normal((40, 50)) * 2.0 ** rng.integers(-60, 3, (40, 50))).astype(BF16)
    tuned["scalar"] = np.array(1.25, BF16)
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", tuned)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector", encoding="dense")
    told = compress(vector=tmp_path / "vector", out=tmp_path / "out", **METHODS[method]).lossy
    exact, found = read_vector(tmp_path / "vector"), read_vector(tmp_path / "out")
    for name, delta in exact.items():
        norm = np.linalg.norm(delta)
        error = np.linalg.norm(found[name] - delta) / norm if norm else 0
        assert told["tensors"][name]["relative_error"] == pytest.approx(error, rel=1e-6, abs=1e-12), name
    apply(vectors=[(tmp_path / "out", 0.5)], target=tmp_path / "base", out=tmp_path / "enhanced")
    assert verify(tmp_path / "enhanced").recomputed


def test_controls_can_be_compressed_as_the_vector_was(root, tmp_path):
    write_permuted(vector=root / "vector", out=tmp_path / "permuted", seed=0)
    told = compress(vector=tmp_path / "permuted", out=tmp_path / "out", density=0.2).lossy
    assert told["changed_share"] > 0 and open_vector(tmp_path / "out").document["control"]["kind"] == "permuted"


@pytest.mark.parametrize("method", ["rank", "magnitude", "4 bits"])
def test_a_kill_at_any_instant_leaves_nothing_or_everything_and_resumes(root, tmp_path, monkeypatch, method):
    monkeypatch.setattr(output, "COMMIT_BYTES", 1)

    def run(out, **options):
        compress(vector=root / "vector", out=out, **METHODS[method], **options)

    run(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    calls = in_a_child(lambda: run(tmp_path / "out"))
    assert contents(tmp_path / "out") == expected
    for instant in np.linspace(2, calls - 1, 6).astype(int).tolist():
        out = tmp_path / f"out{instant}"
        in_a_child(lambda out=out: run(out), kill_at=instant)
        assert not out.exists() or contents(out) == expected
        run(out, **({"force": True} if out.exists() else {"resume": True}))
        assert contents(out) == expected, instant


def test_resuming_does_not_compress_finished_tensors_again(root, tmp_path, monkeypatch):
    from reasonvec.weights import compression

    monkeypatch.setattr(output, "COMMIT_BYTES", 1)
    done, original = [], compression._Work.compress

    def counted(self, delta, *, exactly):
        done.append(delta.name)
        if len(done) == 5:
            raise KeyboardInterrupt
        return original(self, delta, exactly=exactly)

    monkeypatch.setattr(compression._Work, "compress", counted)
    with pytest.raises(KeyboardInterrupt):
        compress(vector=root / "vector", out=tmp_path / "out", bits=4)
    assert not (tmp_path / "out").exists()
    compress(vector=root / "vector", out=tmp_path / "out", bits=4, resume=True)
    assert done[4] == done[5] and len(done) == 11
