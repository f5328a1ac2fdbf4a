"""Promises 1 to 3: exact to the bit, honest about rounding, whole or not at all. What was written is read with the
safetensors library and computed again with float64 NumPy."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reasonvec.errors import CheckpointError, IncompatibleError, UsageError, VectorError
from reasonvec.weights import Options, apply, apply_sweep, extract, transfer, transfer_sweep, verify
from tests.checkpoints import BF16, CONFIG, FLOATS, bits, everything_under, moved, random_tensors, read, write
from tests.vectors import read_vector


@pytest.fixture
def donors(tmp_path):
    """base, tuned and target checkpoints in bfloat16, with their tensors."""
    base = random_tensors(0)
    tensors = {"base": base, "tuned": moved(base, 1), "target": moved(base, 2, share=1.0)}
    for name, content in tensors.items():
        write(tmp_path / name, content)
    return tmp_path, tensors


def make_vector(root, **options):
    return extract(tuned=root / "tuned", base=root / "base", out=root / "vector", **options)


def add(root, alpha=1.0, out="out", target="target", **options):
    return apply(vectors=[(root / "vector", alpha)], target=root / target, out=root / out, options=Options(**options))


ENCODINGS = ("auto", "dense", "sparse")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_alpha_one_on_the_base_donor_rebuilds_the_tuned_donor(tmp_path, dtype, encoding):
    base = random_tensors(0, dtype)
    tuned = moved(base, 1)
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", tuned)
    make_vector(tmp_path, encoding=encoding)
    add(tmp_path, target="base")
    rebuilt = read(tmp_path / "out")
    assert rebuilt.keys() == tuned.keys()
    for name, tensor in tuned.items():
        assert rebuilt[name].dtype == dtype
        assert bits(rebuilt[name]) == bits(tensor), name


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_two_finite_donors_are_rebuilt(tmp_path_factory, dtype, encoding, data):
    """Whatever their exponents: 1e-38 from 3e38 and back."""
    unsigned = {2: np.uint16, 4: np.uint32}[dtype.itemsize]
    patterns = st.lists(st.integers(0, 2 ** (8 * dtype.itemsize) - 1), min_size=12, max_size=12)
    root = tmp_path_factory.mktemp("any")
    tensors = {}
    for name in ("base", "tuned"):
        array = np.array(data.draw(patterns), unsigned).view(dtype)
        with np.errstate(invalid="ignore"):  # signalling NaN
            array[~np.isfinite(array.astype(np.float64))] = 1
        tensors[name] = array
        write(root / name, {"w": array})
    make_vector(root, encoding=encoding)
    add(root, target="base")
    rebuilt = read(root / "out")["w"]
    assert np.array_equal(rebuilt.astype(np.float64), tensors["tuned"].astype(np.float64))


def test_a_plain_reader_of_the_vector_gets_the_exact_difference(donors):
    root, tensors = donors
    make_vector(root, encoding="dense")
    deltas = read(root / "vector")
    for name, base in tensors["base"].items():
        exact = tensors["tuned"][name].astype(np.float64) - base.astype(np.float64)
        assert np.array_equal(deltas[name].astype(np.float64), exact), name


def test_each_delta_has_the_narrowest_dtype_that_is_exact(tmp_path):
    base = {"fits": np.array([1.0, 2.0], BF16), "needs 9 bits": np.array([1.0], BF16),
            "needs 30 bits": np.array([1.0], BF16)}  # fmt: skip
    tuned = {"fits": np.array([1.0078125, 2.0], BF16), "needs 9 bits": np.array([-0.00390625 * 1.0078125], BF16),
             "needs 30 bits": np.array([2.0**-29], BF16)}  # fmt: skip
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", tuned)
    vector = make_vector(tmp_path, encoding="dense").vector
    stored = {name: delta.entry.dtype for name, delta in vector.deltas.items()}
    assert stored == {"fits": "BF16", "needs 9 bits": "F32", "needs 30 bits": "F64"}


@pytest.mark.parametrize("alpha", [-1.0, -0.3, 0.5, 0.7, 1.0, 2.5])
def test_sums_are_float32_sums_rounded_once(donors, alpha):
    root, tensors = donors
    make_vector(root)
    add(root, alpha)
    for name, got in read(root / "out").items():
        delta = tensors["tuned"][name].astype(np.float32) - tensors["base"][name].astype(np.float32)
        expected = (tensors["target"][name].astype(np.float32) + np.float32(alpha) * delta).astype(BF16)
        assert bits(got) == bits(expected), name


def test_alpha_zero_returns_the_target_bit_for_bit(donors):
    root, tensors = donors
    tensors["target"]["model.norm.weight"][:2] = [-0.0, np.nan]  # what was there stays, whatever it was
    write(root / "odd", tensors["target"])
    make_vector(root)
    add(root, 0.0, target="odd")
    got = read(root / "out")
    assert all(bits(got[name]) == bits(tensor) for name, tensor in tensors["target"].items())


def test_negative_zeros_survive_where_the_vector_is_zero(tmp_path):
    write(tmp_path / "base", {"w": np.array([1.0, 1.0, 1.0], BF16)})
    write(tmp_path / "tuned", {"w": np.array([1.0, 1.0, 2.0], BF16)})
    write(tmp_path / "target", {"w": np.array([-0.0, 0.0, -1.0], BF16)})
    make_vector(tmp_path)
    add(tmp_path)
    assert np.signbit(read(tmp_path / "out")["w"].astype(np.float32)).tolist() == [True, False, False]


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
def test_shards_of_the_inputs_and_order_do_not_change_the_bytes(donors, encoding):
    root, tensors = donors
    (root / "cut").mkdir()
    for name in ("base", "tuned", "target"):
        write(root / "cut" / name, dict(reversed(tensors[name].items())), shards=3)
    for place in (root, root / "cut"):
        make_vector(place, encoding=encoding)
        add(place, 0.7)
    stored = {"dense": "vector-float32-00001", "sparse": "vector-sparse-00001"}[encoding]
    for file in (f"vector/{stored}.safetensors", "out/model.safetensors"):
        assert (root / file).read_bytes() == (root / "cut" / file).read_bytes()
    fingerprints = [json.loads((place / "vector/vector.json").read_text())["donors"]["tuned"]["fingerprint"]
                    for place in (root, root / "cut")]  # fmt: skip
    assert fingerprints[0] == fingerprints[1]


def test_transfer_writes_the_bytes_of_extract_and_apply(donors):
    root, _ = donors
    make_vector(root)
    add(root, 0.7, rounding="stochastic", seed=5)
    transfer(tuned=root / "tuned", base=root / "base", target=root / "target", out=root / "direct", alpha=0.7,
             options=Options(rounding="stochastic", seed=5))  # fmt: skip
    assert (root / "out/model.safetensors").read_bytes() == (root / "direct/model.safetensors").read_bytes()


def test_several_vectors_are_added_in_one_pass(donors):
    root, tensors = donors
    make_vector(root)
    extract(tuned=root / "target", base=root / "base", out=root / "second")
    apply(vectors=[(root / "vector", 0.5), (root / "second", -0.25)], target=root / "target", out=root / "out")
    for name, got in read(root / "out").items():
        t, b, g = (tensors[role][name].astype(np.float32) for role in ("target", "base", "tuned"))
        expected = (t + (np.float32(0.5) * (g - b) + np.float32(-0.25) * (t - b))).astype(BF16)
        assert bits(got) == bits(expected), name


def test_shards_of_the_output_are_read_by_transformers_rules(donors):
    root, tensors = donors
    make_vector(root)
    application = add(root, max_shard_bytes=1000)
    index = json.loads((root / "out/model.safetensors.index.json").read_text())
    assert len(application.shards) > 2
    assert set(index["weight_map"].values()) == set(application.shards)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors["target"].values())
    assert read(root / "out").keys() == tensors["target"].keys()


def test_everything_but_weights_comes_from_the_target(donors):
    root, _ = donors
    files = {"tokenizer.json": "{}", "chat_template.jinja": "{{ x }}", "generation_config.json": '{"top_p": 0.5}',
             "LICENSE": "terms"}  # fmt: skip
    for role in ("base", "tuned", "target"):
        for name, text in files.items():
            (root / role / name).write_text(text.replace("0.5", str(len(role))))
        for name in ("README.md", "pytorch_model.bin", "optimizer.pt", ".hidden", "other.safetensors.index.json"):
            (root / role / name).write_text("not to be copied")
    make_vector(root)
    add(root)
    written = set(everything_under(root / "out"))
    assert written == {"model.safetensors", "config.json", "reasonvec.json", *files}
    assert all((root / "out" / name).read_text() == (root / "target" / name).read_text() for name in files)


def test_dtype_converts_the_weights_and_the_configuration_says_so(donors):
    root, tensors = donors
    (root / "target/config.json").write_text(json.dumps({**CONFIG, "dtype": "bfloat16"}))
    make_vector(root)
    application = add(root, 0.3, dtype="float32")
    assert json.loads((root / "out/config.json").read_text())["dtype"] == "float32"
    for name, got in read(root / "out").items():
        t, b, g = (tensors[role][name].astype(np.float64) for role in ("target", "base", "tuned"))
        assert bits(got) == bits((t + 0.3 * (g - b)).astype(np.float32)), name
    assert application.realised.overall == pytest.approx(1, abs=1e-6)


# rounding


ALPHAS = [round(0.1 * step, 1) for step in range(1, 14)]


def staircase(tmp_path, entries, **options):
    """For alphas of 0.1 to 1.3 and deltas of one step in the last place: the realised share that is told, and the one
    that float64 finds in what was written (docs/method.md, Rounding)."""
    rng = np.random.default_rng(0)
    base = (rng.standard_normal(entries) * 0.02).astype(BF16)
    up = rng.random(base.size) < 0.2
    tuned = np.where(up, np.nextafter(base, BF16.type(np.inf)), base).astype(BF16)
    target = (base.astype(np.float64) + rng.standard_normal(base.size) * 1e-3).astype(BF16)
    if not (tmp_path / "base").exists():
        for name, w in (("base", base), ("tuned", tuned), ("target", target)):
            write(tmp_path / name, {"layers.0.w": w})
        make_vector(tmp_path)
    out = tmp_path / f"{options}-{{alpha}}"
    found = apply_sweep(vectors=[(tmp_path / "vector", None)], alphas=ALPHAS, target=tmp_path / "target", out=out,
                        options=Options(**options))  # fmt: skip
    v = tuned.astype(np.float64) - base.astype(np.float64)
    start = target.astype(np.float64)

    def share(w, alpha):
        return float((w - start) @ v / (alpha * (v @ v)))

    written = [read(application.out)["layers.0.w"].astype(np.float64) for application in found]
    nearest = [nearest_bfloat16(start + alpha * v) for alpha in ALPHAS]
    return (
        [application.realised.overall for application in found],
        [share(w, alpha) for w, alpha in zip(written, ALPHAS, strict=True)],
        [share(w, alpha) for w, alpha in zip(nearest, ALPHAS, strict=True)],
    )


def nearest_bfloat16(values):
    """float64 rounded to 8 bits of precision, to nearest even, by the definition."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.rint(fraction * 256) / 256, exponent)


def test_the_realised_alpha_is_a_staircase_in_bfloat16_and_is_told(tmp_path):
    told, true, expected = staircase(tmp_path, 1 << 17)
    assert told == pytest.approx(true, rel=1e-4)
    assert true == pytest.approx(expected, abs=1e-3)  # the sum is rounded to float32 on its way
    by_alpha = dict(zip(ALPHAS, true, strict=True))
    assert by_alpha[0.1] < 0.05
    assert by_alpha[0.3] < 0.2
    assert by_alpha[0.7] > 1.2
    assert by_alpha[1.0] == pytest.approx(1, abs=0.02)


def test_stochastic_rounding_cures_the_staircase_within_one_percent_on_average(tmp_path):
    runs = [staircase(tmp_path, 1 << 21, rounding="stochastic", seed=seed) for seed in range(4)]
    for told, true, _ in runs:
        assert told == pytest.approx(true, rel=1e-4)
    # 420,000 deltas, each rounded by a coin, four times: the standard deviation of the mean is 0.0023 at alpha 0.1, and
    # falls as alpha grows
    assert np.mean([true for _, true, _ in runs], axis=0) == pytest.approx([1] * len(ALPHAS), abs=0.01)


def test_several_alphas_give_the_bytes_of_runs_of_their_own(donors):
    root, _ = donors
    make_vector(root)
    where = {"tuned": root / "tuned", "base": root / "base", "target": root / "target"}
    alphas = [0.5, 0.0, -1.0]
    found = apply_sweep(vectors=[(root / "vector", None), (root / "vector", 0.25)], alphas=alphas,
                        target=root / "target", out=root / "a{alpha}")  # fmt: skip
    moved_at_once = transfer_sweep(**where, alphas=alphas, out=root / "t{alpha}")
    assert [application.out.name for application in found] == ["a0.5", "a0", "a-1"]
    for alpha, application, other in zip(alphas, found, moved_at_once, strict=True):
        alone = apply(vectors=[(root / "vector", alpha), (root / "vector", 0.25)], target=root / "target",
                      out=root / "alone")  # fmt: skip
        assert contents(application.out) == contents(root / "alone")
        assert application.realised == alone.realised
        assert verify(application.out).recomputed
        transfer(**where, alpha=alpha, out=root / "moved")
        assert contents(other.out) == contents(root / "moved")
        assert verify(other.out).recomputed
        shutil.rmtree(root / "alone")
        shutil.rmtree(root / "moved")


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_several_alphas_need_as_many_outputs(donors):
    root, _ = donors
    make_vector(root)
    before = everything_under(root)
    for alphas, out, words in (
        ([0.5, 1.0], "out", r"2 alphas \(0.5, 1\) need as many outputs, and --out .*out has no \{alpha\} in it"),
        ([0.5, 0.5], "{alpha}", r"2 alphas \(0.5, 0.5\) need as many outputs, and two of the alphas are equal"),
        ([float("nan")], "{alpha}", "alpha is nan; it must be a finite number"),
    ):
        with pytest.raises(UsageError, match=words):
            apply_sweep(vectors=[(root / "vector", None)], alphas=alphas, target=root / "target", out=root / out)
    with pytest.raises(UsageError, match=r"none takes the 2 alphas 0.5, 1 and all outputs would be equal"):
        apply_sweep(vectors=[(root / "vector", 0.3)], alphas=[0.5, 1.0], target=root / "target", out=root / "{alpha}")
    assert everything_under(root) == before


def test_stochastic_rounding_depends_on_the_seed_alone(donors):
    root, _ = donors
    make_vector(root)
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        add(root, 0.3, out=out, rounding="stochastic", seed=seed)
    a, b, c = ((root / out / "model.safetensors").read_bytes() for out in "abc")
    assert a == b != c


def test_a_swallowed_alpha_is_a_warning_with_its_cure(donors):
    root, _ = donors
    make_vector(root)
    for name, delta in read_vector(root / "vector").items():
        assert delta.size, name
    write(root / "large", {name: t + t.dtype.type(64) for name, t in read(root / "target").items()})
    warnings = add(root, 0.1, target="large").warnings
    assert any("alpha: 0.1 became" in text and "--rounding stochastic" in text for text in warnings)


# whole or not at all


def misfit(root, change):
    tensors = read(root / "target")
    change(tensors)
    write(root / "odd", tensors)
    make_vector(root)
    before = everything_under(root)
    with pytest.raises(IncompatibleError) as caught:
        add(root, target="odd")
    assert everything_under(root) == before
    return str(caught.value)


def test_every_misfit_is_listed_before_anything_is_written(donors):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.extra.weight"] = np.ones((2, 3), BF16)
        tensors["model.embed_tokens.weight"] = np.ones((41, 16), BF16)
        tensors["model.layers.0.mlp.down_proj.weight"] = np.ones((16, 33), np.int8)

    message = misfit(donors[0], change)
    assert "4 tensors differ" in message
    assert "model.norm.weight: in the vector, missing in the target" in message
    assert "model.extra.weight: in the target, not in the vector" in message
    assert "model.embed_tokens.weight: shape (40, 16) in the vector, (41, 16) in the target" in message
    assert "model.layers.0.mlp.down_proj.weight: a BF16 delta for a target of dtype I8" in message
    assert "--skip" in message


def test_donors_that_differ_are_refused_with_every_case(donors):
    root, tensors = donors
    tuned = dict(tensors["tuned"])
    del tuned["model.norm.weight"]
    tuned["model.layers.0.self_attn.q_proj.weight"] = np.ones((16, 17), BF16)
    tuned["new"] = np.ones(3, BF16)
    write(root / "other", tuned)
    with pytest.raises(IncompatibleError) as caught:
        extract(tuned=root / "other", base=root / "base", out=root / "v")
    for part in ("3 of 9 tensors", "model.norm.weight: missing in tuned", "new: missing in base",
                 "q_proj.weight: shape (16, 17) in tuned, (16, 16) in base"):  # fmt: skip
        assert part in str(caught.value)
    assert not (root / "v").exists()


def test_a_longer_embedding_takes_the_rest_of_the_vector(donors):
    root, tensors = donors
    longer = {**tensors["target"], "model.embed_tokens.weight": np.ones((48, 16), BF16)}
    write(root / "longer", longer, {**CONFIG, "vocab_size": 48})
    make_vector(root)
    add(root, target="longer", skip=("model.embed_tokens.weight",))
    got = read(root / "out")
    assert bits(got["model.embed_tokens.weight"]) == bits(longer["model.embed_tokens.weight"])
    assert bits(got["model.layers.0.mlp.down_proj.weight"]) != bits(longer["model.layers.0.mlp.down_proj.weight"])


def test_what_is_outside_the_mask_stays_bit_identical(donors):
    root, tensors = donors
    make_vector(root)
    add(root, only=("*.layers.1.*",), skip=("*norm*",))
    got = read(root / "out")
    changed = {name for name in got if bits(got[name]) != bits(tensors["target"][name])}
    assert changed == {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"}


def test_a_vector_of_some_tensors_leaves_the_others(donors):
    root, tensors = donors
    vector = make_vector(root, skip=["*embed*", "*norm*"]).vector
    assert "model.embed_tokens.weight" in vector.left_out
    add(root)
    got = read(root / "out")
    assert bits(got["model.embed_tokens.weight"]) == bits(tensors["target"]["model.embed_tokens.weight"])


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_pattern_that_matches_nothing_is_a_typing_error(donors, option):
    root, _ = donors
    with pytest.raises(UsageError, match=r"'model.layer.0.\*' matches none of the 8 tensor names"):
        make_vector(root, **{option: ["model.layer.0.*"]})
    make_vector(root)
    with pytest.raises(UsageError, match="matches none"):
        add(root, **{option: ("lm_haed.weight",)})


# tied embeddings

TIED = {**CONFIG, "tie_word_embeddings": True}


def tied_family(root, stored):
    """Donors and target with tied embeddings; `stored` says which of them keep the copy in their files."""
    base = random_tensors(0)
    family = {"base": base, "tuned": moved(base, 1), "target": moved(base, 2)}
    for role, tensors in family.items():
        if role in stored:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        write(root / role, tensors, TIED)
    return family


@pytest.mark.parametrize("stored", [(), ("tuned",), ("base",), ("target",), ("tuned", "base"), ("tuned", "target"),
                                    ("tuned", "base", "target")], ids="+".join)  # fmt: skip
def test_a_tied_tensor_that_is_stored_here_and_not_there_is_no_difference(tmp_path, stored):
    family = tied_family(tmp_path, stored)
    make_vector(tmp_path)
    add(tmp_path)
    got = read(tmp_path / "out")
    assert got.keys() == family["target"].keys()
    delta = family["tuned"]["model.embed_tokens.weight"].astype(np.float32)
    delta -= family["base"]["model.embed_tokens.weight"].astype(np.float32)
    expected = (family["target"]["model.embed_tokens.weight"].astype(np.float32) + delta).astype(BF16)
    assert bits(got["model.embed_tokens.weight"]) == bits(expected)
    if "target" in stored:
        assert bits(got["lm_head.weight"]) == bits(expected), "the copies must stay equal"


def test_an_untied_head_of_the_target_is_not_left_behind_silently(tmp_path):
    family = tied_family(tmp_path, ("tuned", "base"))
    make_vector(tmp_path)
    head = {**family["target"], "lm_head.weight": random_tensors(9)["model.embed_tokens.weight"]}
    write(tmp_path / "lacking", family["target"], {**CONFIG, "tie_word_embeddings": False})
    with pytest.raises(IncompatibleError, match=r"lm_head.weight: in the vector, missing in the target"):
        add(tmp_path, target="lacking")
    family = tied_family(tmp_path / "second", ())
    make_vector(tmp_path / "second")
    write(tmp_path / "second/untied", head, {**CONFIG, "tie_word_embeddings": False})
    with pytest.raises(IncompatibleError, match=r"lm_head.weight: in the target, not in the vector"):
        add(tmp_path / "second", target="untied")


def test_a_missing_matrix_is_not_taken_for_tied_because_norms_are_equal(tmp_path):
    base = random_tensors(0)
    for name in base:
        if "norm" in name:
            base[name] = np.ones_like(base[name])
    write(tmp_path / "base", base, TIED)
    lacking = {name: t for name, t in base.items() if name != "model.layers.1.input_layernorm.weight"}
    write(tmp_path / "tuned", lacking, TIED)
    with pytest.raises(IncompatibleError, match=r"input_layernorm.weight: missing in tuned"):
        make_vector(tmp_path)


def test_leaving_out_one_of_two_tied_tensors_is_refused(tmp_path):
    tied_family(tmp_path, ("tuned", "base", "target"))
    make_vector(tmp_path)
    with pytest.raises(IncompatibleError, match=r"lm_head.weight: left out, but the target ties it to"):
        add(tmp_path, skip=("lm_head.weight",))
    add(tmp_path, skip=("lm_head.weight", "model.embed_tokens.weight"))


# dtypes


def test_integers_are_carried_when_the_donors_agree(donors):
    root, tensors = donors
    for role in ("base", "tuned", "target"):
        write(root / "i" / role, {**tensors[role], "table": np.arange(5), "mask": np.array([True, False])})
    vector = make_vector(root / "i").vector
    assert set(vector.carried) == {"table", "mask"}
    add(root / "i")
    assert np.array_equal(read(root / "i/out")["table"], np.arange(5))


def test_8_bit_floats_are_carried_too(tmp_path):
    def checkpoint(role, scale):
        weight = (np.arange(4) * scale).astype(BF16)
        header = {"q": {"dtype": "F8_E4M3", "shape": [2, 3], "data_offsets": [8, 14]},
                  "w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}  # fmt: skip
        text = json.dumps(header).encode()
        (tmp_path / role).mkdir()
        content = len(text).to_bytes(8, "little") + text + weight.tobytes() + b"abcdef"
        (tmp_path / role / "model.safetensors").write_bytes(content)

    for role, scale in (("base", 1), ("tuned", 2), ("target", 4)):
        checkpoint(role, scale)
    assert list(make_vector(tmp_path).vector.carried) == ["q"]
    add(tmp_path)
    written = (tmp_path / "out/model.safetensors").read_bytes()
    assert written.endswith(b"abcdef")
    assert np.frombuffer(written[-14:-6], BF16).astype(float).tolist() == [0, 5, 10, 15]


def test_integers_that_differ_between_donors_are_refused(donors):
    root, tensors = donors
    write(root / "i/base", {**tensors["base"], "table": np.arange(5)})
    write(root / "i/tuned", {**tensors["tuned"], "table": np.arange(1, 6)})
    with pytest.raises(IncompatibleError, match=r"table: I64 values that differ"):
        make_vector(root / "i")


def test_donors_of_two_dtypes_are_put_on_the_coarser_grid_and_the_noise_is_told(tmp_path):
    fine = random_tensors(0, np.float32)
    tuned = moved(fine, 1, share=1.0, size=1e-4)
    coarse = {name: t.astype(BF16) for name, t in fine.items()}
    write(tmp_path / "tuned", tuned)
    write(tmp_path / "base", coarse)
    extraction = make_vector(tmp_path)
    rounding = vector_norm = 0.0
    for name, delta in read_vector(tmp_path / "vector").items():
        on_grid = tuned[name].astype(BF16).astype(np.float64)
        assert np.array_equal(delta.astype(np.float64), on_grid - coarse[name].astype(np.float64)), name
        rounding += float(((tuned[name] - on_grid) ** 2).sum())
        vector_norm += float((delta.astype(np.float64) ** 2).sum())
    share = (rounding / vector_norm) ** 0.5
    assert f"{share:.0%} of the vector's norm" in extraction.warnings[0]


def test_an_empty_vector_is_called_empty(donors):
    root, _ = donors
    extraction = extract(tuned=root / "base", base=root / "base", out=root / "v")
    assert "The vector is empty" in extraction.warnings[0]


def test_a_nearly_empty_vector_is_called_so(donors):
    root, tensors = donors
    barely = {name: t.copy() for name, t in tensors["base"].items()}
    barely["model.norm.weight"][0] *= 2
    write(root / "barely", barely)
    assert "nearly empty: 1 of 2" in extract(tuned=root / "barely", base=root / "base", out=root / "v").warnings[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("role", ["tuned", "base"])
def test_nan_and_infinity_in_a_donor_are_refused(donors, role, bad):
    root, tensors = donors
    broken = {name: t.copy() for name, t in tensors[role].items()}
    broken["model.norm.weight"][3] = bad
    write(root / "broken", broken)
    arguments = {"tuned": root / "tuned", "base": root / "base", role: root / "broken"}
    with pytest.raises(CheckpointError, match=rf"'model.norm.weight' of the {role} donor holds {bad} at entry 3"):
        extract(**arguments, out=root / "v")
    assert not [name for name in everything_under(root) if "partial" in name or name.startswith("v")]


def test_nan_that_both_donors_share_is_seen_too(donors):
    root, tensors = donors
    for role in ("base", "tuned"):
        broken = {name: t.copy() for name, t in tensors[role].items()}
        broken["model.norm.weight"][:] = np.nan
        write(root / "nan" / role, broken)
    with pytest.raises(CheckpointError, match="holds nan at entry 0"):
        make_vector(root / "nan")


def test_nan_in_the_target_is_refused(donors):
    root, tensors = donors
    tensors["target"]["model.norm.weight"][1] = np.nan
    write(root / "broken", tensors["target"])
    make_vector(root)
    with pytest.raises(CheckpointError, match="of the target holds nan at entry 1"):
        add(root, target="broken")


def test_a_sum_beyond_the_range_is_refused(tmp_path):
    write(tmp_path / "base", {"w": np.array([0.0, 1.0], np.float16)})
    write(tmp_path / "tuned", {"w": np.array([60000.0, 1.0], np.float16)})
    write(tmp_path / "target", {"w": np.array([60000.0, 1.0], np.float16)})
    make_vector(tmp_path)
    with pytest.raises(CheckpointError, match=r"at entry 0 the sum leaves the range of float16 .* --dtype float32"):
        add(tmp_path)
    assert float(add(tmp_path, dtype="float32") and read(tmp_path / "out")["w"][0]) == 120000.0


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
def test_a_flipped_byte_in_a_vector_is_found_and_nothing_is_left(donors, encoding):
    root, _ = donors
    make_vector(root, encoding=encoding)
    file = (
        root
        / "vector"
        / {"dense": "vector-float32-00001.safetensors", "sparse": "vector-sparse-00001.safetensors"}[encoding]
    )
    data = bytearray(file.read_bytes())
    data[-80] ^= 1
    file.write_bytes(data)
    before = everything_under(root)
    words = {"dense": "does not match its checksum in vector.json", "sparse": "block 0 cannot be read"}[encoding]
    with pytest.raises(VectorError, match=words):
        add(root)
    assert everything_under(root) == before


@pytest.mark.parametrize("file", ["residual/residual.safetensors", "donor/config.json"])
def test_a_flipped_byte_beside_the_deltas_is_found(tmp_path, file):
    for role, value in (("base", 1.0), ("tuned", 2.0**-60), ("target", 1.0)):
        write(tmp_path / role, {"w": np.array([value], BF16)})
    make_vector(tmp_path)
    path = tmp_path / "vector" / file
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    with pytest.raises(VectorError, match="does not match its checksum"):
        add(tmp_path)


@pytest.mark.parametrize("damage", ["version", "edited", "not json", "gone", "cut"])
def test_a_damaged_vector_is_refused(donors, damage):
    root, _ = donors
    make_vector(root)
    document = root / "vector/vector.json"
    content = json.loads(document.read_text())
    file = root / "vector/vector-sparse-00001.safetensors"
    if damage == "version":
        document.write_text(json.dumps({**content, "format_version": 99}))
    elif damage == "edited":
        document.write_text(json.dumps({**content, "formula": "base - tuned"}))
    elif damage == "not json":
        document.write_text(document.read_text()[:-20])
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    message = {"version": "of format version 99; this reasonvec reads 2", "edited": "does not match its own checksum",
               "not json": "is not JSON", "gone": "is missing", "cut": "vector.json says"}[damage]  # fmt: skip
    with pytest.raises(VectorError, match=message):
        add(root)


def test_a_dry_run_checks_everything_and_writes_nothing(donors):
    root, _ = donors
    make_vector(root)
    before = everything_under(root)
    application = apply(vectors=[(root / "vector", 1.0)], target=root / "target", out=root / "out", dry_run=True)
    assert everything_under(root) == before
    assert application.changed_tensors == 8
    assert application.realised is None


@pytest.mark.parametrize("alpha", [np.nan, np.inf])
def test_alpha_must_be_finite(donors, alpha):
    root, _ = donors
    make_vector(root)
    with pytest.raises(UsageError, match="must be a finite number"):
        add(root, alpha)
