"""`export lora`: the adapter that peft loads adds the vector, as nearly as its rank allows, and says truly how nearly.
The logits of peft and exact singular values of NumPy are the oracle.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from reasonvec.errors import IncompatibleError, OutputError, UsageError, VectorError
from reasonvec.interchange import export_lora, import_lora
from reasonvec.interchange.factors import factorise
from reasonvec.weights import apply, extract, verify
from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.sources import StoredDeltas
from tests.checkpoints import bits, everything_under, read
from tests.interchange.models import (
    SIZES,
    gpt2,
    load,
    logits,
    quiet,
    qwen2,
    torch,
    transformers,
    with_adapter,
    write_adapter,
    write_model,
    write_moved,
)

FAMILIES = {
    "qwen2": qwen2,
    "qwen2 tied": lambda: qwen2(tied=True),
    "gpt2": gpt2,
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
}


def donors(tmp_path, config, **moved):
    base = write_model(tmp_path / "base", config)
    tuned = write_moved(tmp_path / "tuned", base, **moved)
    extract(tuned=tuned, base=base, out=tmp_path / "vector")
    return tmp_path / "vector"


def exact_deltas(tmp_path):
    base, tuned = read(tmp_path / "base"), read(tmp_path / "tuned")
    return {name: tuned[name].astype(np.float64) - base[name].astype(np.float64) for name in base}


@pytest.mark.parametrize("family", FAMILIES)
def test_at_full_rank_the_base_with_the_adapter_is_the_tuned_donor(tmp_path, family):
    vector = donors(tmp_path, FAMILIES[family](), matrices_only=True)
    exported = export_lora(vector, rank=64, out=tmp_path / "adapter")
    assert exported.lost_energy < 1e-12 and not exported.left_out
    adapted, tuned = logits(with_adapter(tmp_path / "base", tmp_path / "adapter")), logits(load(tmp_path / "tuned"))
    torch.testing.assert_close(adapted, tuned, rtol=0, atol=1e-5)
    assert (tuned - logits(load(tmp_path / "base"))).abs().max() > 1e-3


def test_another_target_gets_its_own_weights_plus_the_delta(tmp_path):
    vector = donors(tmp_path, qwen2(), matrices_only=True)
    target = write_model(tmp_path / "target", qwen2(), seed=7)
    export_lora(vector, rank=64, out=tmp_path / "adapter")
    apply(vectors=[(vector, 1.0)], target=target, out=tmp_path / "enhanced")
    adapted = logits(with_adapter(target, tmp_path / "adapter"))
    torch.testing.assert_close(adapted, logits(load(tmp_path / "enhanced")), rtol=0, atol=1e-5)
    assert (adapted - logits(load(tmp_path / "tuned"))).abs().max() > 1e-2


def test_norms_and_biases_are_left_out_and_said_so(tmp_path):
    vector = donors(tmp_path, qwen2())
    exported = export_lora(vector, rank=4, out=tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert all(name.endswith(("lora_A.weight", "lora_B.weight", "_A", "_B")) for name in tensors)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["modules_to_save"] is None
    deltas = exact_deltas(tmp_path)
    vectors = {name: np.linalg.norm(delta) for name, delta in deltas.items() if delta.ndim == 1}
    assert {rest.name: pytest.approx(rest.norm, rel=1e-9) for rest in exported.left_out} == vectors
    assert {rest.reason for rest in exported.left_out} == {"a norm or bias"}


def test_the_reported_errors_are_those_of_what_is_in_the_files(tmp_path):
    vector, rank = donors(tmp_path, qwen2()), 4
    exported = export_lora(vector, rank=rank, out=tmp_path / "adapter")
    deltas, factors = exact_deltas(tmp_path), load_file(tmp_path / "adapter/adapter_model.safetensors")
    lost = sum(np.square(delta).sum() for delta in deltas.values() if delta.ndim == 1)
    for fit in exported.modules:
        delta, name = deltas[f"{fit.name}.weight"], f"base_model.model.{fit.name}"
        if f"{name}.lora_A.weight" in factors:
            product = factors[f"{name}.lora_B.weight"].astype(float) @ factors[f"{name}.lora_A.weight"].astype(float)
        else:
            product = (factors[f"{name}.lora_embedding_B"].astype(float) @ factors[f"{name}.lora_embedding_A"]).T
        error = np.linalg.norm(delta - product)
        values = np.linalg.svd(delta, compute_uv=False)
        assert fit.relative_error == pytest.approx(error / np.linalg.norm(delta), rel=1e-6)
        assert fit.energy == pytest.approx(1 - np.square(error / np.linalg.norm(delta)), rel=1e-6)
        assert error == pytest.approx(np.sqrt(np.square(values[rank:]).sum()), rel=0.01)
        lost += error**2
    assert exported.lost_energy == pytest.approx(lost / sum(np.square(d).sum() for d in deltas.values()), rel=1e-6)


def decaying(rows, columns, power):
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((rows, min(rows, columns))))[0]
    right = np.linalg.qr(rng.standard_normal((columns, min(rows, columns))))[0]
    return ((left * np.arange(1, min(rows, columns) + 1) ** -power) @ right.T * 1e-3).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 8, 40])
@pytest.mark.parametrize(
    "delta",
    [
        np.random.default_rng(1).standard_normal((500, 700)).astype(np.float32) * 1e-4,  # the worst case
        decaying(700, 400, 0.5),
        decaying(300, 900, 1.0),
        decaying(400, 400, 3.0),
        decaying(30, 900, 1.0),
        np.outer(np.arange(1, 301), np.arange(400)).astype(np.float32) * 1e-30,
    ],
    ids=["noise", "flat", "wide", "steep", "few rows", "rank one, tiny"],
)
def test_the_error_is_within_one_percent_of_the_least_possible(tmp_path, delta, rank):
    for role, weights in (("base", np.zeros_like(delta)), ("tuned", delta)):
        (tmp_path / role).mkdir()
        save_file({"w.weight": weights}, tmp_path / role / "model.safetensors")
    vector = extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector").vector
    with tensor_reader() as reader:
        factors = factorise(StoredDeltas(vector), vector.deltas["w.weight"], rank, reader, seed=0)
    values = np.linalg.svd(delta.astype(np.float64), compute_uv=False)
    least = np.sqrt(np.square(values[rank:]).sum())
    assert factors.norm == pytest.approx(np.linalg.norm(values), rel=1e-9)
    assert factors.error >= least * (1 - 1e-6)
    assert factors.error <= least * 1.01 + 1e-6 * factors.norm
    product = factors.left.astype(np.float64) @ factors.right.astype(np.float64)
    assert factors.error == pytest.approx(np.linalg.norm(delta - product), rel=1e-5)


def test_a_tied_embedding_gets_the_delta_at_both_ends_and_a_warning_not_to_merge(tmp_path):
    vector = donors(tmp_path, qwen2(tied=True), matrices_only=True)
    exported = export_lora(vector, rank=3, out=tmp_path / "adapter")
    assert any("both get the delta" in w and "peft's merge would add it to the one tensor twice" in w
               for w in exported.warnings)  # fmt: skip
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert bits(tensors["base_model.model.lm_head.lora_B.weight"]) == bits(
        np.ascontiguousarray(tensors["base_model.model.model.embed_tokens.lora_embedding_A"].T)
    )
    export_lora(vector, rank=3, out=tmp_path / "without", target_modules=["*_proj"])
    assert not any("embed" in name or "head" in name for name in
                   load_file(tmp_path / "without/adapter_model.safetensors"))  # fmt: skip


def test_an_adapter_goes_through_a_vector_and_comes_back(tmp_path):
    base = write_model(tmp_path / "base", qwen2())
    adapter = write_adapter(tmp_path / "adapter", base, r=4, target_modules=["q_proj", "down_proj", "embed_tokens"])
    import_lora(adapter, base=base, out=tmp_path / "vector")
    exported = export_lora(tmp_path / "vector", rank=4, out=tmp_path / "back")
    assert exported.lost_energy < 1e-10
    assert {fit.name.rpartition(".")[2] for fit in exported.modules} == {"q_proj", "down_proj", "embed_tokens"}
    torch.testing.assert_close(logits(with_adapter(base, tmp_path / "back")), logits(with_adapter(base, adapter)),
                               rtol=0, atol=1e-5)  # fmt: skip


def test_experts_and_routers_are_left_out(tmp_path):
    config = transformers.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    vector = donors(tmp_path, config, size=0.01)
    exported = export_lora(vector, rank=4, out=tmp_path / "adapter")
    reasons = {rest.reason.split(":")[0].split(",")[0] for rest in exported.left_out}
    assert reasons == {"a norm or bias", "an expert", "a router"}
    assert not any("experts" in fit.name or fit.name.endswith("gate") for fit in exported.modules)
    with_adapter(tmp_path / "base", tmp_path / "adapter")  # peft finds every module that the adapter names


def test_target_modules_choose_by_name_or_last_part(tmp_path):
    vector = donors(tmp_path, qwen2())
    exported = export_lora(vector, rank=2, out=tmp_path / "a", target_modules=["q_proj", "model.layers.1.mlp.*"])
    names = {fit.name.removeprefix("model.layers.") for fit in exported.modules}
    assert names == {"0.self_attn.q_proj", "1.self_attn.q_proj", *(f"1.mlp.{m}_proj" for m in ("up", "down", "gate"))}
    assert "not among --target-modules" in {rest.reason for rest in exported.left_out}
    with pytest.raises(UsageError, match=r"--target-modules 'lm_haed' matches none of the 27 modules"):
        export_lora(vector, rank=2, out=tmp_path / "b", target_modules=["lm_haed"])
    with pytest.raises(IncompatibleError, match="no matrix with a delta that an adapter could hold"):
        export_lora(vector, rank=2, out=tmp_path / "b", target_modules=["norm"])
    with pytest.raises(UsageError, match="--rank is 0"):
        export_lora(vector, rank=0, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_base_is_named_only_where_it_is_on_the_hub(tmp_path, monkeypatch):
    vector = donors(tmp_path, qwen2(), matrices_only=True)
    export_lora(vector, rank=2, out=tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert config["r"] == config["lora_alpha"] == 2
    monkeypatch.setattr("reasonvec.weights.hub._fetch", lambda name, offline, wanted: tmp_path / "base")
    extract(tuned=tmp_path / "tuned", base="owner/base", out=tmp_path / "from hub")
    export_lora(tmp_path / "from hub", rank=2, out=tmp_path / "named")
    assert json.loads((tmp_path / "named/adapter_config.json").read_text())["base_model_name_or_path"] == "owner/base"


def test_an_interrupted_export_goes_on(tmp_path, monkeypatch):
    vector = donors(tmp_path, qwen2(), matrices_only=True)
    export_lora(vector, rank=2, out=tmp_path / "whole")
    monkeypatch.setattr("reasonvec.weights.output.COMMIT_BYTES", 1)
    seen = []

    def stop_after_five(nbytes):
        seen.append(nbytes)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lora(vector, rank=2, out=tmp_path / "adapter", progress=stop_after_five)
    with pytest.raises(OutputError, match="begun with other inputs or options: rank differ"):
        export_lora(vector, rank=3, out=tmp_path / "adapter", resume=True)
    export_lora(vector, rank=2, out=tmp_path / "adapter", resume=True)
    for file in everything_under(tmp_path / "whole"):
        assert (tmp_path / "adapter" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_same_vector_and_seed_give_the_same_bytes_and_nothing_is_overwritten(tmp_path):
    vector = donors(tmp_path, qwen2(), matrices_only=True)
    for out in ("one", "two"):
        export_lora(vector, rank=2, out=tmp_path / out)
    for file in everything_under(tmp_path / "one"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        export_lora(vector, rank=2, out=tmp_path / "one")
    export_lora(vector, rank=3, out=tmp_path / "one", force=True)
    assert json.loads((tmp_path / "one/reasonvec.json").read_text())["rank"] == 3
    with pytest.raises(VectorError, match=r"is a reasonvec.adapter, not a reasonvec.receipt"):
        verify(tmp_path / "one")


def test_a_damaged_vector_is_found_and_nothing_is_left(tmp_path):
    vector = donors(tmp_path, qwen2(), matrices_only=True)
    file = max(vector.glob("vector-*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    before = everything_under(tmp_path)
    with pytest.raises(VectorError, match="damaged|checksum"):
        export_lora(vector, rank=2, out=tmp_path / "adapter")
    assert everything_under(tmp_path) == before


def test_peft_says_nothing_of_missing_or_unexpected_tensors(tmp_path):
    vector = donors(tmp_path, qwen2(), matrices_only=True)
    export_lora(vector, rank=2, out=tmp_path / "adapter")
    base = load(tmp_path / "base")
    with quiet():
        from peft import PeftModel, set_peft_model_state_dict

        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
        weights = {name: torch.from_numpy(value) for name, value in
                   load_file(tmp_path / "adapter/adapter_model.safetensors").items()}  # fmt: skip
        result = set_peft_model_state_dict(adapted, weights)
    assert not result.unexpected_keys
    assert not [name for name in result.missing_keys if "lora" in name]
