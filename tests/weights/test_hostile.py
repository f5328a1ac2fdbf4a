"""What a hostile or damaged directory could do, and the corners of the arithmetic where a promise is easily broken."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from reasonvec.errors import CheckpointError, IncompatibleError, ReasonvecError, VectorError, VerificationError
from reasonvec.weights import Options, apply, check, extract, inspect, transfer, verify
from reasonvec.weights.arithmetic import rounded
from reasonvec.weights.checkpoint import open_checkpoint
from reasonvec.weights.documents import format_document
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.hub import locate_vector
from reasonvec.weights.strict_json import loads_strictly
from reasonvec.weights.vector import open_vector
from tests.checkpoints import BF16, CONFIG, bits, moved, random_tensors, read, write


@pytest.fixture
def root(tmp_path):
    base = random_tensors(0)
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(tmp_path / name, tensors)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    return tmp_path


def made(root, alpha=1.0, **options):
    apply(vectors=[(root / "vector", alpha)], target=root / "target", out=root / "out", options=Options(**options))
    return root / "out"


# verify


def test_no_byte_of_a_header_can_change_unseen(root):
    file = made(root) / "model.safetensors"
    original = file.read_bytes()
    length = 8 + int.from_bytes(original[:8], "little")
    assert verify(root / "out", checksums_only=True)
    metadata = original.index(b'{"format"'), original.index(b"}", original.index(b'{"format"'))
    for place in range(length):
        if metadata[0] <= place <= metadata[1]:
            continue  # words for other programs, which say nothing about weights
        damaged = bytearray(original)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(ReasonvecError):
            verify(root / "out", checksums_only=True)


def test_a_file_that_was_put_there_later_is_found(root):
    made(root)
    (root / "out/README.md").write_text("a model card may be added")
    assert verify(root / "out")
    (root / "out/chat_template.jinja").write_text("{{ evil }}")
    with pytest.raises(VerificationError, match=r"chat_template.jinja was not there when"):
        verify(root / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda receipt, out: receipt["realised_alpha"].update(overall=42.0),
        lambda receipt, out: receipt["target"].update(fingerprint="0" * 64),
        lambda receipt, out: receipt["vectors"][0].update(fingerprint="0" * 64),
        lambda receipt, out: receipt.update(warnings=["all is well"]),
    ],
)
def test_no_claim_of_a_receipt_is_believed(root, change):
    out = made(root, 0.01)
    receipt = json.loads((out / "reasonvec.json").read_text())
    change(receipt, out)
    (out / "reasonvec.json").write_bytes(format_document(receipt))
    with pytest.raises(VerificationError, match="is not what it says it is"):
        verify(out)


def test_small_files_must_be_the_targets(root):
    out = made(root)
    (out / "config.json").write_text('{"model_type": "evil"}')
    receipt = json.loads((out / "reasonvec.json").read_text())
    content = (out / "config.json").read_bytes()
    receipt["files"]["config.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (out / "reasonvec.json").write_bytes(format_document(receipt))
    with pytest.raises(VerificationError, match="its small files are not the target's"):
        verify(out)


@pytest.mark.parametrize("field", ["norm", "changed", "rounding"])
def test_no_count_of_a_vector_is_believed(root, field):
    document = json.loads((root / "vector/vector.json").read_text())
    document["tensors"]["model.norm.weight"][field] += 1
    (root / "vector/vector.json").write_bytes(format_document(document))
    with pytest.raises(VerificationError, match=rf"tensors.model.norm.weight.{field} is"):
        verify(root / "vector")


def test_the_receipt_holds_the_warning_that_was_given(root):
    for name in ("target",):
        large = {key: t + t.dtype.type(64) for key, t in read(root / name).items()}
    write(root / "large", large)
    application = apply(vectors=[(root / "vector", 0.1)], target=root / "large", out=root / "out")
    assert json.loads((root / "out/reasonvec.json").read_text())["warnings"] == list(application.warnings) != []
    assert verify(root / "out")


# the Hub's cache


def test_a_vector_in_the_hub_cache_is_opened_and_verified_at_its_commit(root, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root / "hub"))
    monkeypatch.chdir(root)
    repository = root / "hub/models--me--vec"
    snapshot = repository / "snapshots" / ("c" * 40)
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("c" * 40)
    for number, file in enumerate(sorted(p for p in (root / "vector").rglob("*") if p.is_file())):
        blob = repository / "blobs" / f"{number:064d}"
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(root / "vector")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    vector = locate_vector("me/vec", offline=True)
    assert vector.revision == "c" * 40
    apply(vectors=[("me/vec", 1.0)], target=root / "target", out=root / "out", offline=True)
    receipt = json.loads((root / "out/reasonvec.json").read_text())
    assert (receipt["vectors"][0]["location"], receipt["vectors"][0]["revision"]) == ("me/vec", "c" * 40)
    (repository / "refs/main").write_text("d" * 40)  # the repository moves on; what was read stays
    assert verify(root / "out", offline=True)


# corners of the arithmetic


def test_stochastic_rounding_keeps_tied_tensors_equal(tmp_path):
    base = random_tensors(0)
    for role, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        write(tmp_path / role, tensors, {**CONFIG, "tie_word_embeddings": True})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    out = read(made(tmp_path, 0.3, rounding="stochastic"))
    assert bits(out["lm_head.weight"]) == bits(out["model.embed_tokens.weight"])


@pytest.mark.parametrize("stored", [True, False])
def test_an_untied_target_is_refused_however_the_donors_store_their_copy(tmp_path, stored):
    base = random_tensors(0)
    for role, tensors in (("base", base), ("tuned", moved(base, 1))):
        if stored:
            tensors = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
        write(tmp_path / role, tensors)
    write(tmp_path / "target", {**moved(base, 2), "lm_head.weight": random_tensors(7)["model.embed_tokens.weight"]})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    with pytest.raises(IncompatibleError, match=r"lm_head\.weight"):
        made(tmp_path)


def test_a_tied_embedding_with_empty_rows_is_recognised(tmp_path):
    embedding = np.random.default_rng(0).standard_normal((40, 2048)).astype(BF16)
    embedding[0] = 0
    write(tmp_path / "base", {"embed": embedding, "head": embedding, "w": np.ones(3, BF16)})
    write(tmp_path / "tuned", {"embed": embedding, "w": np.full(3, 2, BF16)})
    vector = extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector").vector
    assert vector.tied == {"head": "embed"}


def test_nothing_half_written_stays_in_a_vector(tmp_path):
    base = np.full(600_000, 1.0, BF16)
    tuned = base.copy()
    tuned[300_000] = BF16.type(-0.00390625 * 1.0078125)  # the second block needs float32
    write(tmp_path / "base", {"w": base})
    write(tmp_path / "tuned", {"w": tuned})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector", encoding="dense")
    assert [path.name for path in (tmp_path / "vector").glob("*.safetensors")] == ["vector-float32-00001.safetensors"]
    assert read(tmp_path / "vector").keys() == {"w"}


def scalar(path, value, dtype):
    return write(path, {"w": np.array([value], dtype)})


def test_a_vector_added_and_subtracted_leaves_the_target(tmp_path):
    scalar(tmp_path / "base", 1.0078125, BF16)
    scalar(tmp_path / "tuned", 2.0**60, BF16)
    scalar(tmp_path / "target", 1.5, BF16)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    both = [(tmp_path / "vector", 1.0), (tmp_path / "vector", -1.0)]
    apply(vectors=both, target=tmp_path / "target", out=tmp_path / "out")
    assert float(read(tmp_path / "out")["w"][0]) == 1.5


def test_a_delta_beyond_the_range_of_float32_is_added_and_reported(tmp_path):
    scalar(tmp_path / "base", -3e38, BF16)
    scalar(tmp_path / "tuned", 3e38, BF16)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    application = apply(vectors=[(tmp_path / "vector", 1.0)], target=tmp_path / "base", out=tmp_path / "out")
    assert bits(read(tmp_path / "out")["w"]) == bits(read(tmp_path / "tuned")["w"])
    json.dumps(application.to_json(), allow_nan=False)
    assert verify(tmp_path / "out")


def test_float64_sums_reach_bfloat16_in_one_rounding(tmp_path):
    scalar(tmp_path / "base", 0.0, np.float32)
    scalar(tmp_path / "tuned", 2.0**-40, np.float32)
    scalar(tmp_path / "target", 1 + 2.0**-8, np.float32)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    assert float(read(made(tmp_path, dtype="bfloat16"))["w"][0]) == 1.0078125


@given(st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=30), st.integers(-60, 60))
def test_rounding_to_bfloat16_finds_the_nearest(values, exponent):
    wide = np.clip(np.array(values) * 2.0**exponent, -3e38, 3e38)
    got = rounded(wide, FLOATS["BF16"])
    for step in (np.nextafter(got, BF16.type(np.inf)), np.nextafter(got, BF16.type(-np.inf))):
        other = step.astype(np.float64)
        fits = np.isfinite(other)
        assert (np.abs(got.astype(np.float64) - wide) <= np.abs(other - wide))[fits].all()


def test_leaving_out_an_embedding_does_not_touch_its_copy(tmp_path):
    base = random_tensors(0)
    write(tmp_path / "base", base)
    write(tmp_path / "tuned", moved(base, 1))
    longer = np.random.default_rng(5).standard_normal((48, 16)).astype(BF16)
    target = {**moved(base, 2), "model.embed_tokens.weight": longer, "lm_head.weight": longer}
    write(tmp_path / "target", target, {**CONFIG, "tie_word_embeddings": False})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    for attempt in (
        lambda: made(tmp_path, skip=("model.embed*",)),
        lambda: transfer(tuned=tmp_path / "tuned", base=tmp_path / "base", target=tmp_path / "target",
                         out=tmp_path / "out", options=Options(skip=("model.embed*",))),
    ):  # fmt: skip
        with pytest.raises(IncompatibleError, match=r"lm_head\.weight"):
            attempt()


# files that are no files


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_a_pipe_is_refused_and_does_not_hang(root, name):
    (root / "target" / name).unlink(missing_ok=True)
    os.mkfifo(root / "target" / name)
    with pytest.raises(CheckpointError, match="a pipe, socket or device|names other files|not JSON"):
        _ = open_checkpoint(root / "target").config


def test_a_file_slipped_into_the_donor_folder_is_refused(root):
    os.mkfifo(root / "vector/donor/chat_template.jinja")
    with pytest.raises(ReasonvecError, match="is not among the files of the vector"):
        check(vector=root / "vector", target=root / "target")


def test_an_index_that_is_a_link_to_elsewhere_is_refused(tmp_path):
    path = write(tmp_path / "c", random_tensors(0), shards=2)
    index = path / "model.safetensors.index.json"
    index.rename(tmp_path / "index")
    index.symlink_to(tmp_path / "index")
    with pytest.raises(CheckpointError, match="--follow-links"):
        open_checkpoint(path)


def test_many_equal_matrices_are_compared_once(tmp_path):
    tensors = {f"layers.{i}.w": np.arange(4, dtype=np.float32).reshape(2, 2) for i in range(500)}
    write(tmp_path / "base", tensors)
    write(tmp_path / "tuned", tensors)
    code = (
        "import resource; from reasonvec import extract\n"
        f"extract(tuned='{tmp_path}/tuned', base='{tmp_path}/base', out='{tmp_path}/v')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20, "user seconds; it was 36 when all pairs were compared"


# text that steers terminals, and documents with the wrong types


def test_names_that_steer_terminals_are_refused_or_made_harmless(root):
    from click.testing import CliRunner

    from reasonvec.cli import main

    (root / "evil").mkdir()
    (root / "evil/\x1b[2Jx.bin").write_text("")
    result = CliRunner().invoke(main, ["check", "--vector", str(root / "vector"), "--target", str(root / "evil")])
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    write(root / "markup/base", {"w[/]": np.ones((2, 2), np.float32)})
    write(root / "markup/tuned", {"w[/]": np.zeros((2, 2), np.float32)})
    extract(tuned=root / "markup/tuned", base=root / "markup/base", out=root / "markup/v[bold]")
    result = CliRunner().invoke(main, ["inspect", str(root / "markup/v[bold]"), "--tensors"])
    assert result.exit_code == 0
    assert "w[/]" in result.output


BAD = [None, True, -1, 1.5, "x", [], {}, [1], {"a": 1}, float("nan")]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_no_type_in_a_signed_document_is_a_traceback(root, bad):
    out = made(root)
    for file, act in (
        (root / "vector/vector.json", lambda: inspect(root / "vector").to_json()),
        (root / "vector/vector.json", lambda: check(vector=root / "vector", target=root / "target").to_json()),
        (out / "reasonvec.json", lambda: verify(out)),
    ):
        original = file.read_bytes()
        document = json.loads(original)
        places = [[key] for key in document if key != "sha256"]
        places += [[key, inner] for key in document if isinstance(document[key], dict) for inner in document[key]]
        if file.name == "vector.json":
            places += [["tensors", "model.norm.weight", inner] for inner in document["tensors"]["model.norm.weight"]]
        for place in places:
            changed = json.loads(original)
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = bad
            content = {key: value for key, value in changed.items() if key != "sha256"}
            canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
            changed["sha256"] = hashlib.sha256(canonical).hexdigest()
            file.write_text(json.dumps(changed))
            with contextlib.suppress(ReasonvecError):  # anything else is a failure
                act()
        file.write_bytes(original)


# what fuzzing found (fuzz/regressions has the inputs)


def signed_with(root, change):
    document = json.loads((root / "vector/vector.json").read_text())
    change(document)
    (root / "vector/vector.json").write_bytes(format_document(document))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", r"'.*a\\x00b' is no name that a file can have: embedded null byte"),
        ("\ud800", r"'.*\\ud800' is no name that a file can have: .* surrogates not allowed"),
        ("x" * 300, r"x{300} is missing, though it is named as part of"),
    ],
    ids=["null byte", "half a character", "too long"],
)
def test_names_that_no_file_can_have_are_refused(root, name, message):
    signed_with(root, lambda document: document["files"].update({name: {"bytes": 1}}))
    with pytest.raises(VectorError, match=message):
        open_vector(root / "vector")
    write(root / "odd", random_tensors(0), shards=2)
    index = {"weight_map": {"model.norm.weight": f"{name}.safetensors"}}
    (root / "odd/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"is no name|is missing|so it is refused"):
        open_checkpoint(root / "odd")


@pytest.mark.parametrize("number", [2**64, -(2**64), 10**400], ids=["2^64", "-2^64", "400 digits"])
def test_integers_that_no_count_reaches_are_refused(root, number):
    signed_with(root, lambda document: document["tensors"]["model.norm.weight"].update(norm=number))
    with pytest.raises(VectorError, match=r"tensors\.model\.norm\.weight\.norm is too large"):
        open_vector(root / "vector")


@pytest.mark.parametrize("number", [1e300, 1e-300, 5e-324, 2**63 * 10**9, -1.0])
def test_norms_that_no_weights_have_are_refused(root, number):
    signed_with(root, lambda document: document["tensors"]["model.norm.weight"].update(base_norm=number))
    with pytest.raises(VectorError, match=r"base_norm is (.*, no norm of weights|too large)"):
        inspect(root / "vector").to_json()


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_numbers_that_are_none_are_refused_wherever_they_are(root, number):
    file = root / "vector/vector.json"
    file.write_text(file.read_text().replace('"formula": "tuned - base"', f'"formula": {number}'))
    with pytest.raises(VectorError, match="holds NaN or infinity"):
        open_vector(root / "vector")


@pytest.mark.parametrize(
    ("field", "value"), [("relation", {"a": [1]}), ("relation", {}), ("control", {"kind": "random"}), ("control", [])]
)
def test_what_is_printed_of_a_document_is_checked_when_it_is_read(root, field, value):
    signed_with(root, lambda document: document.update({field: value}))
    with pytest.raises(VectorError, match=rf"lacks or misstates a field: {field}"):
        open_vector(root / "vector")


def test_json_output_is_ascii_where_it_must_be(root):
    from click.testing import CliRunner

    from reasonvec.cli import main

    odd = "\ud800 \x9b2J \x7f é"
    signed_with(root, lambda document: document["donors"]["tuned"].update(location=odd))
    result = CliRunner().invoke(main, ["inspect", str(root / "vector"), "--json"])
    assert result.exit_code == 0
    assert r"\ud800 \u009b2J \u007f é" in result.output
    assert json.loads(result.output)["donors"]["tuned"]["location"] == odd


@pytest.mark.parametrize("version", [True, 1.0])
def test_what_only_equals_the_version_is_another_version(root, version):
    signed_with(root, lambda document: document.update(format_version=version))
    with pytest.raises(VectorError, match=f"is of format version {version}"):
        open_vector(root / "vector")


@pytest.mark.parametrize(("depth", "fits"), [(64, True), (65, False), (900, False), (100_000, False)])
def test_json_nested_more_than_64_levels_is_refused(depth, fits):
    for text in ("[" * depth + "]" * depth, '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)):
        if fits:
            loads_strictly(text)
        else:
            with pytest.raises(ValueError, match="nested more than 64 levels deep"):
                loads_strictly(text)


@pytest.fixture
def with_residual(tmp_path):
    """A vector with a delta of three entries, of which the first two need more than a float64."""
    write(tmp_path / "base", {"w": np.array([1, 1, 1], BF16)})
    write(tmp_path / "tuned", {"w": np.array([2.0**-60, 2.0**-61, 1], BF16)})
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    assert [list(part) for part in open_vector(tmp_path / "vector").residuals["w"]] == [[0, 1], [2.0**-60, 2.0**-61]]
    return tmp_path


@pytest.mark.parametrize(
    ("index", "value"),
    [([0, 3], [1, 1]), ([-1, 0], [1, 1]), ([1, 0], [1, 1]), ([1, 1], [1, 1]), ([0], [1]), ([0, 1], [1]),
     ([0, 1, 2], [1, 1, 1]), ([0, 1], [1, np.nan]), ([0, 1], [np.inf, 1]), ([], [])],
)  # fmt: skip
def test_residuals_that_are_none_are_refused(with_residual, index, value):
    path = with_residual / "vector/residual/residual.safetensors"
    save_file({"w#index": np.array(index, np.int64), "w#value": np.array(value, np.float64)}, path)
    content = path.read_bytes()
    info = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    signed_with(with_residual, lambda document: document["files"].update({"residual/residual.safetensors": info}))
    with pytest.raises(VectorError, match="does not hold 2 finite numbers for ascending entries of 'w'"):
        apply(vectors=[(with_residual / "vector", 1.0)], target=with_residual / "base", out=with_residual / "out")


def test_a_folder_in_donor_that_is_a_link_to_elsewhere_is_refused(root):
    (root / "templates").mkdir()
    (root / "templates/secret.jinja").write_text("{{ secret }}")
    (root / "vector/donor/additional_chat_templates").symlink_to(root / "templates")
    with pytest.raises(VectorError, match="additional_chat_templates is not among the files of the vector"):
        open_vector(root / "vector").donor()


def test_verify_finds_a_folder_that_is_a_link_to_elsewhere(root):
    (root / "templates").mkdir()
    (root / "templates/tool.jinja").write_text("{{ evil }}")
    (made(root) / "additional_chat_templates").symlink_to(root / "templates")
    with pytest.raises(VerificationError, match="additional_chat_templates was not there when"):
        verify(root / "out")
