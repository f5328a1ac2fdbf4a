"""`import lora`: the vector plus the base is what peft merges, for every layout that is a fixed difference; what is not
is refused, all at once, before anything is written. peft and transformers are the oracle.
"""

import json
import math
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from reasonvec.errors import CheckpointError, IncompatibleError, OutputError, VerificationError
from reasonvec.interchange import import_lora
from reasonvec.weights import apply, check, inspect, verify
from tests.checkpoints import bits, everything_under, read
from tests.interchange.models import (
    gpt2,
    load,
    logits,
    peft,
    quiet,
    qwen2,
    torch,
    with_adapter,
    write_adapter,
    write_model,
)
from tests.vectors import read_vector

LAYOUTS = {
    "linear": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "down_proj"]},
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]},
    "patterns": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"],
                 "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 3}, "alpha_pattern": {r"layers\.1\..*": 5}},
    "embedding": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "lm_head"]},
    "modules_to_save": {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "all linear": {"r": 64, "lora_alpha": 3, "target_modules": "all-linear"},
    "bias": {"r": 2, "target_modules": ["q_proj"], "bias": "all"},
}  # fmt: skip


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def merged(model, adapter):
    with quiet():
        return with_adapter(model, adapter).merge_and_unload()


def test_the_vector_adds_what_peft_merges(tmp_path, layout):
    base = write_model(tmp_path / "base", qwen2())
    adapter = write_adapter(tmp_path / "adapter", base, **layout)
    import_lora(adapter, base=base, out=tmp_path / "vector")
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "enhanced")
    expected, enhanced = merged(base, adapter), load(tmp_path / "enhanced")
    moved = 0
    for name, weight in expected.state_dict().items():
        # peft sums the product in float32 and rounds it before it is added: a few units in the last place
        torch.testing.assert_close(enhanced.state_dict()[name], weight, rtol=1e-6, atol=1e-6)
        moved += int(not torch.equal(weight, load(base).state_dict()[name]))
    assert moved >= 2
    torch.testing.assert_close(logits(enhanced), logits(expected), rtol=0, atol=1e-5)
    assert (logits(enhanced) - logits(load(base))).abs().max() > 1e-3


def test_onto_a_bfloat16_base_it_is_rounded_once(tmp_path, layout):
    base = write_model(tmp_path / "base", qwen2(), torch.bfloat16)
    adapter = write_adapter(tmp_path / "adapter", base, **layout)
    import_lora(adapter, base=base, out=tmp_path / "vector")
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "enhanced")
    expected, enhanced = merged(base, adapter).state_dict(), load(tmp_path / "enhanced").state_dict()
    for name, weight in expected.items():
        # peft rounds the product to bfloat16 and then the sum: up to one unit in the last place of each
        torch.testing.assert_close(enhanced[name].float(), weight.float(), rtol=2**-7, atol=2**-8)


def test_a_delta_is_the_product_in_float64_rounded_once_to_float32(tmp_path):
    base = write_model(tmp_path / "base", qwen2(), torch.bfloat16)
    adapter = write_adapter(tmp_path / "adapter", base, **LAYOUTS["patterns"])
    import_lora(adapter, base=base, out=tmp_path / "vector")
    deltas, factors = read_vector(tmp_path / "vector"), load_file(adapter / "adapter_model.safetensors")
    ranks, alphas = {"q_proj": (2, 4), "v_proj": (3, 3)}, (8, 5)
    for name, delta in deltas.items():
        module = name.removesuffix(".weight")
        if f"base_model.model.{module}.lora_A.weight" not in factors:
            assert not delta.any(), name
            continue
        a, b = (factors[f"base_model.model.{module}.lora_{f}.weight"].astype(np.float64) for f in "AB")
        layer = int(module.split(".")[2])
        expected = sum(np.outer(b[:, k], a[k]) for k in range(len(a))) * (alphas[layer] / ranks[module[-6:]][layer])
        assert bits(delta) == bits(expected.astype(np.float32).astype(np.float64))


def test_a_module_that_is_saved_whole_gives_the_exact_difference(tmp_path):
    base = write_model(tmp_path / "base", qwen2())
    adapter = write_adapter(tmp_path / "adapter", base, **LAYOUTS["modules_to_save"])
    import_lora(adapter, base=base, out=tmp_path / "vector")
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "enhanced")
    saved = load_file(adapter / "adapter_model.safetensors")
    for name in ("lm_head.weight", "model.norm.weight"):
        assert bits(read(tmp_path / "enhanced")[name]) == bits(saved[f"base_model.model.{name}"])


@pytest.mark.parametrize("targets", [["c_attn", "c_fc"], ["attn.c_proj"]])
def test_conv1d_is_added_the_way_round_in_which_it_is_stored(tmp_path, targets):
    """c_proj of the attention is square: only the model's type tells."""
    base = write_model(tmp_path / "base", gpt2())
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=targets, fan_in_fan_out=True)
    import_lora(adapter, base=base, out=tmp_path / "vector")
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "enhanced")
    torch.testing.assert_close(logits(load(tmp_path / "enhanced")), logits(with_adapter(base, adapter)),
                               rtol=0, atol=1e-5)  # fmt: skip


def test_names_may_differ_by_one_prefix(tmp_path):
    """GPT-2 as it lies on the Hub has no `transformer.` before its names."""
    base = write_model(tmp_path / "base", gpt2())
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in read(base).items()}
    save_file(tensors, base / "model.safetensors")
    imported = import_lora(adapter, base=base, out=tmp_path / "vector")
    assert imported.low_rank == 2
    assert {name for name, delta in imported.vector.deltas.items() if delta.changed} == {
        "h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight"
    }  # fmt: skip


def test_both_ends_of_a_tied_embedding_get_the_delta_once(tmp_path):
    """peft's own merge adds it twice there, so the adapted model is the oracle."""
    base = write_model(tmp_path / "base", qwen2(tied=True))
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["embed_tokens"], ensure_weight_tying=True)
    imported = import_lora(adapter, base=base, out=tmp_path / "vector")
    assert imported.low_rank == 1
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "enhanced")
    torch.testing.assert_close(logits(load(tmp_path / "enhanced")), logits(with_adapter(base, adapter)),
                               rtol=0, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("stored", [False, True], ids=["one stored", "both stored"])
@pytest.mark.parametrize("layout", [{"target_modules": ["embed_tokens"]}, {"target_modules": ["lm_head"]},
                                    {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}])  # fmt: skip
def test_one_end_of_a_tied_embedding_is_refused(tmp_path, layout, stored):
    base = write_model(tmp_path / "base", qwen2(tied=True))
    if stored:
        tensors = read(base)
        save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, base / "model.safetensors")
    adapter = write_adapter(tmp_path / "adapter", base, r=4, **layout)
    with pytest.raises(IncompatibleError, match=r"unties what the base .* ties, in 1 tensors(?s:.*)one matrix cannot"):
        import_lora(adapter, base=base, out=tmp_path / "vector")


def test_layers_that_are_copies_are_not_tied(tmp_path):
    """As in a model that was made deeper by repeating its layers."""
    base = write_model(tmp_path / "base", qwen2(tied=True))
    tensors = read(base)
    for name in [name for name in tensors if ".layers.1." in name]:
        tensors[name] = tensors[name.replace(".layers.1.", ".layers.0.")]
    save_file(tensors, base / "model.safetensors")
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["q_proj"], layers_to_transform=[0])
    imported = import_lora(adapter, base=base, out=tmp_path / "vector")
    assert [name for name, delta in imported.vector.deltas.items() if delta.changed] == [f"{Q0[17:]}.weight"]
    assert imported.vector.tied == {}


def test_the_vector_is_whole_and_says_what_it_was_made_of(tmp_path):
    base = write_model(tmp_path / "base", qwen2())
    adapter = write_adapter(tmp_path / "adapter", base, **LAYOUTS["linear"])
    imported = import_lora(adapter, base=base, out=tmp_path / "vector")
    document = json.loads((tmp_path / "vector/vector.json").read_text())
    assert document["imported"] == {"kind": "lora"}
    assert document["donors"]["tuned"]["location"] == str(adapter)
    assert set(document["donors"]["tuned"]["small_files"]) == {"adapter_config.json"}
    assert document["tensors"].keys() == read(base).keys()
    assert check(vector=tmp_path / "vector", target=base).fits
    found, deltas = inspect(tmp_path / "vector"), read_vector(tmp_path / "vector")
    norm = math.sqrt(sum(float(np.square(d).sum()) for d in deltas.values()))
    assert found.total.norm == pytest.approx(norm, rel=1e-12)
    assert imported.to_json()["norm"] == pytest.approx(norm, rel=1e-12)
    assert imported.to_json()["changed"] == sum(np.count_nonzero(delta) for delta in deltas.values())
    assert imported.touched == 6 and imported.replaced == 0
    assert not verify(tmp_path / "vector", checksums_only=True).recomputed
    with pytest.raises(VerificationError, match="imported from an adapter .* its checksums hold. Use --checksums-only"):
        verify(tmp_path / "vector")


def test_an_untrained_adapter_gives_an_empty_vector_and_a_warning(tmp_path):
    base = write_model(tmp_path / "base", qwen2())
    with quiet():
        peft.get_peft_model(load(base), peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(
            tmp_path / "adapter"
        )
    imported = import_lora(tmp_path / "adapter", base=base, out=tmp_path / "vector")
    assert not any(delta.changed for delta in imported.vector.deltas.values())
    assert "the adapter adds nothing" in imported.warnings[0]


@pytest.fixture
def pair(tmp_path):
    base = write_model(tmp_path / "base", qwen2())
    return base, write_adapter(tmp_path / "adapter", base, **LAYOUTS["linear"])


def change_config(adapter, **fields):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "LOHA"}, "is of peft_type 'LOHA'; only LORA"),
        ({"use_dora": True}, "use_dora is set: DoRA rescales"),
        ({"lora_bias": True}, "lora_bias is set: its lora_B has a bias"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is set: it repeats layers"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters is set"),
        ({"something_new": {"a": 1}}, "something_new is set: this version does not know what it means"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa': the base was changed"),
        ({"r": "many", "lora_alpha": 0}, "lora_alpha is 0, not a positive number"),
        ({"r": 5}, r"factors of shape \(4, 32\) and \(32, 4\), expected \(5, inputs\) and \(outputs, 5\)"),
        ({"rank_pattern": {"(a*)*b": 4}}, "repeats a group, which can take for ever"),
        ({"rank_pattern": {".*.*.*x": 4}}, "repeats more than names of modules call for"),
        ({"alpha_pattern": {"q_proj(": 4}}, "is no regular expression"),
        ({"rank_pattern": [4]}, "rank_pattern is no object"),
    ],
)
def test_what_is_no_fixed_difference_is_refused(pair, tmp_path, fields, words):
    base, adapter = pair
    change_config(adapter, **fields)
    before = everything_under(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        import_lora(adapter, base=base, out=tmp_path / "vector")
    assert everything_under(tmp_path) == before


def test_every_reason_is_named_at_once(pair, tmp_path):
    base, adapter = pair
    change_config(adapter, use_dora=True, lora_bias=True, r=-1)
    with pytest.raises(CheckpointError) as caught:
        import_lora(adapter, base=base, out=tmp_path / "vector")
    assert all(word in str(caught.value) for word in ("use_dora", "lora_bias", "r is -1", "merge_and_unload"))


def edited(adapter, edit):
    tensors = load_file(adapter / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def test_factors_in_bfloat16_are_taken_as_they_are(pair, tmp_path):
    base, adapter = pair
    edited(adapter, lambda tensors: tensors.update({n: t.astype(ml_dtypes.bfloat16) for n, t in tensors.items()}))
    import_lora(adapter, base=base, out=tmp_path / "vector")
    apply(vectors=[(tmp_path / "vector", 1.0)], target=base, out=tmp_path / "enhanced")
    torch.testing.assert_close(logits(load(tmp_path / "enhanced")), logits(with_adapter(base, adapter)),
                               rtol=0, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "edit", "words"),
    [
        (CheckpointError, lambda t: t.pop(f"{Q0}.lora_B.weight"), "lora_B.weight is missing"),
        (CheckpointError, lambda t: t.update({f"{Q0}.lora_magnitude_vector": np.ones(32, np.float32)}), "no product"),
        (CheckpointError, lambda t: t.update({"q.lora_A.weight": np.ones((4, 3), np.float32)}), "does not begin with"),
        (CheckpointError, lambda t: t.update({f"{Q0}.lora_A.weight": np.ones((4, 32), np.int32)}), "dtype I32"),
        (CheckpointError, lambda t: t.update({Q0 + "x" * 300: np.ones(3, np.float32)}), "longer than 256 letters"),
        (CheckpointError, lambda t: t[f"{Q0}.lora_A.weight"].__setitem__((0, 0), np.nan), "holds nan at entry 0"),
        (CheckpointError, lambda t: [t[f"{Q0}.lora_{f}.weight"].fill(3e38) for f in "AB"], "range of float32"),
        (IncompatibleError, lambda t: t.update({f"{Q0}.lora_A.weight": np.ones((4, 31), np.float32)}),
         r"the factors make \(32, 31\), the base has \(32, 32\)"),
        (IncompatibleError, lambda t: t.update({f"{Q0}.gain": np.ones(3, np.float32)}),
         "self_attn.q_proj.gain: in the adapter, missing in the base"),
        (IncompatibleError, lambda t: t.update({"base_model.model.lm_head.weight": np.ones((70, 32), np.float32)}),
         r"lm_head.weight: shape \(70, 32\) in the adapter, \(64, 32\) in the base"),
    ],
)  # fmt: skip
def test_half_an_adapter_is_never_applied(pair, tmp_path, error, edit, words):
    base, adapter = pair
    edited(adapter, edit)
    before = everything_under(tmp_path)
    with pytest.raises(error, match=words):
        import_lora(adapter, base=base, out=tmp_path / "vector")
    assert everything_under(tmp_path) == before


def test_a_pickled_adapter_is_refused(pair, tmp_path):
    base, adapter = pair
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="a pickled adapter .* reasonvec never does.* save it again"):
        import_lora(adapter, base=base, out=tmp_path / "vector")
    with pytest.raises(CheckpointError, match=r"is a whole checkpoint: use `reasonvec extract`"):
        import_lora(base, base=base, out=tmp_path / "vector")
    with pytest.raises(CheckpointError, match="does not exist. An adapter is a directory with adapter_config.json"):
        import_lora(tmp_path / "nowhere", base=base, out=tmp_path / "vector")


def test_an_adapter_that_leads_out_of_its_directory_is_refused(pair, tmp_path):
    base, adapter = pair
    shutil.move(adapter / "adapter_model.safetensors", tmp_path / "elsewhere.safetensors")
    (adapter / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="is a link to .* outside of"):
        import_lora(adapter, base=base, out=tmp_path / "vector")
    import_lora(adapter, base=base, out=tmp_path / "vector", follow_links=True)


def test_an_existing_output_is_kept_and_the_same_inputs_give_the_same_bytes(pair, tmp_path):
    base, adapter = pair
    import_lora(adapter, base=base, out=tmp_path / "one")
    with pytest.raises(OutputError, match="exists already"):
        import_lora(adapter, base=base, out=tmp_path / "one")
    import_lora(adapter, base=base, out=tmp_path / "two", workers=3)
    for file in (p for p in (tmp_path / "one").rglob("*") if p.is_file()):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_an_adapter_on_the_hub_is_fetched_and_its_commit_recorded(pair, tmp_path, monkeypatch):
    base, adapter = pair
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.move(adapter, tmp_path / commit)
    monkeypatch.setattr("reasonvec.weights.hub._fetch", lambda name, offline, wanted: tmp_path / commit)
    import_lora("owner/adapter", base=base, out=tmp_path / "vector")
    tuned = json.loads((tmp_path / "vector/vector.json").read_text())["donors"]["tuned"]
    assert (tuned["location"], tuned["revision"]) == ("owner/adapter", commit)


def test_an_interrupted_import_goes_on(pair, tmp_path, monkeypatch):
    base, adapter = pair
    import_lora(adapter, base=base, out=tmp_path / "whole")
    monkeypatch.setattr("reasonvec.weights.output.COMMIT_BYTES", 1)

    class Stop(KeyboardInterrupt):
        pass

    seen = []

    def stop_after_five(nbytes):
        seen.append(nbytes)
        if len(seen) == 5:
            raise Stop

    with pytest.raises(Stop):
        import_lora(adapter, base=base, out=tmp_path / "vector", progress=stop_after_five)
    import_lora(adapter, base=base, out=tmp_path / "vector", resume=True)
    assert (tmp_path / "vector/vector.json").read_bytes() == (tmp_path / "whole/vector.json").read_bytes()
