"""A vector on a model in memory: what `apply` would have written, and afterwards the model that was there, bit for bit.

The oracles are `apply`'s own output loaded by transformers, and copies of the model's bits.
"""

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from itertools import product  # noqa: E402
from math import prod  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from reasonvec.errors import CheckpointError, IncompatibleError, UsageError, VectorError  # noqa: E402
from reasonvec.weights import Options, apply, compress, extract, live, sources  # noqa: E402
from reasonvec.weights.live import attached  # noqa: E402
from reasonvec.weights.loaded import Place  # noqa: E402
from reasonvec.weights.vector import open_vector  # noqa: E402
from tests.checkpoints import BF16  # noqa: E402
from tests.weights.test_architectures import FAMILIES, SIZES, family, load  # noqa: E402, F401


def bits(model):
    """Every parameter and buffer of a model, as bytes that can be compared."""
    with torch.no_grad():
        return {name: tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                for name, tensor in model.state_dict().items()}  # fmt: skip


@pytest.mark.parametrize("alpha", [1.0, 0.3, -2.0])
def test_attached_is_what_apply_writes_and_taken_off_is_what_was_there(family, alpha):  # noqa: F811
    extract(tuned=family / "tuned", base=family / "base", out=family / "vector")
    apply(vectors=[(family / "vector", alpha)], target=family / "target", out=family / "enhanced")
    model = load(family / "target")
    before, expected = bits(model), bits(load(family / "enhanced"))
    assert before != expected
    with attached(model, family / "vector", alpha=alpha) as attachment:
        assert bits(model) == expected
        assert attachment.tensors > 5
    assert bits(model) == before


def qwen(root, name, seed, *, base=None, dtype=torch.bfloat16, **settings):
    """A tiny Qwen2 checkpoint; with `base`, that one with a third of its weights moved."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if base is None:
            config = transformers.Qwen2Config(**SIZES, **{"tie_word_embeddings": True, **settings})
            model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(root / base, dtype=dtype)
            with torch.no_grad():
                for parameter in model.parameters():
                    moved = torch.randn(parameter.shape) * (torch.rand(parameter.shape) < 0.3) * 1e-2
                    parameter.add_(moved.to(dtype))
        model.save_pretrained(root / name)
    return root / name


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """base, tuned, target and vector of a tiny tied Qwen2 in bfloat16."""
    root = tmp_path_factory.mktemp("toy")
    qwen(root, "base", 0)
    qwen(root, "tuned", 1, base="base")
    qwen(root, "target", 2, base="base")
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector")
    return root


@pytest.fixture
def model(toy):
    return load(toy / "target")


def written(toy, alpha, out, vector=None, **options):
    """The bits that `apply` writes, as transformers loads them."""
    apply(vectors=[(vector or toy / "vector", alpha)], target=toy / "target", out=out, options=Options(**options))
    return out


def test_the_way_of_a_model_on_a_device_gives_the_same_bits(family, monkeypatch):  # noqa: F811
    """There no array is the model's own memory: blocks are copied to the processor's, and back."""
    monkeypatch.setattr("reasonvec.weights.loaded.Place.flat", None)
    extract(tuned=family / "tuned", base=family / "base", out=family / "vector")
    expected = bits(load(written(family, 0.7, family / "enhanced")))
    model = load(family / "target")
    before = bits(model)
    with attached(model, family / "vector", alpha=0.7):
        assert bits(model) == expected
    assert bits(model) == before


@pytest.mark.parametrize("encoding", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_every_dtype_and_encoding(tmp_path, dtype, encoding):
    for role, seed, base in (("base", 0, None), ("tuned", 1, "base"), ("target", 2, "base")):
        qwen(tmp_path, role, seed, base=base, dtype=dtype)
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector", encoding=encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, enhanced = (
            transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
            for path in (tmp_path / "target", written(tmp_path, 0.3, tmp_path / "out"))
        )
    before = bits(model)
    with attached(model, tmp_path / "vector", alpha=0.3):
        assert bits(model) == bits(enhanced) != before
    assert bits(model) == before


@pytest.mark.parametrize("how", [{"bits": 4}, {"rank": 2}, {"density": 0.1}], ids=str)
def test_lossy_vectors_are_attached_too_and_said_to_be_lossy(toy, model, tmp_path, how):
    compress(vector=toy / "vector", out=tmp_path / "small", **how)
    expected = bits(load(written(toy, 1.0, tmp_path / "out", vector=tmp_path / "small")))
    before = bits(model)
    with attached(model, tmp_path / "small") as attachment:
        assert bits(model) == expected != before
        assert any("lossy" in warning for warning in attachment.warnings)
    assert bits(model) == before


def test_a_model_loaded_in_float32_is_summed_in_float32(toy, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(toy / "target", dtype=torch.float32)
    apply(
        vectors=[(toy / "vector", 0.3)], target=toy / "target", out=tmp_path / "out", options=Options(dtype="float32")
    )
    expected = load_file(tmp_path / "out" / "model.safetensors")
    with attached(model, toy / "vector", alpha=0.3):
        found = dict(model.named_parameters())
        for name, tensor in expected.items():
            assert np.array_equal(found[name].detach().numpy(), tensor), name


def test_the_receipt_and_the_attachment_agree(toy, model, tmp_path):
    receipt = json.loads((written(toy, 0.3, tmp_path / "out") / "reasonvec.json").read_text())
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    with attached(model, toy / "vector", alpha=0.3) as attachment:
        assert attachment.realised_alpha == pytest.approx(receipt["realised_alpha"]["overall"], rel=1e-6)
        changed = sum(int((tensor != before[name]).sum()) for name, tensor in model.named_parameters())
        assert attachment.changed == changed
        assert attachment.fingerprint == receipt["vectors"][0]["fingerprint"]
        entries = sum(tensor.numel() for tensor in before.values())
        added = sum(delta.changed for delta in open_vector(toy / "vector").deltas.values())
        assert attachment.kept_bytes < 2 * added + entries / 8 + len(before)


def test_alpha_zero_changes_nothing(toy, model):
    before = bits(model)
    with attached(model, toy / "vector", alpha=0.0) as attachment:
        assert bits(model) == before
        assert (attachment.tensors, attachment.changed, attachment.warnings) == (0, 0, ())


def test_the_file_that_the_model_is_mapped_from_stays_as_it_is(toy):
    before = (toy / "target" / "model.safetensors").read_bytes()
    model = load(toy / "target")
    with attached(model, toy / "vector"):
        assert (toy / "target" / "model.safetensors").read_bytes() == before
    assert (toy / "target" / "model.safetensors").read_bytes() == before


def test_a_vector_on_a_vector_and_the_same_twice_come_off_in_order(toy, model, tmp_path):
    opened = open_vector(toy / "vector")
    before = bits(model)
    apply(vectors=[(toy / "vector", 0.5)], target=toy / "target", out=tmp_path / "once")
    apply(vectors=[(toy / "vector", 0.5)], target=tmp_path / "once", out=tmp_path / "twice")
    once, twice = (bits(load(tmp_path / name)) for name in ("once", "twice"))
    for _ in range(2):
        with attached(model, opened, alpha=0.5):
            with attached(model, opened, alpha=0.5):
                assert bits(model) == twice
            assert bits(model) == once
        assert bits(model) == before


def test_taken_off_out_of_order_all_come_off_and_it_is_said(toy, model):
    before = bits(model)
    outer, inner = attached(model, toy / "vector"), attached(model, toy / "vector", alpha=0.5)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(UsageError, match="1 vectors that were attached later"):
        outer.__exit__(None, None, None)
    assert bits(model) == before
    inner.__exit__(None, None, None)
    assert bits(model) == before


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_it_comes_off_whatever_is_raised_inside(toy, model, raised):
    before = bits(model)
    with pytest.raises(raised), attached(model, toy / "vector"):
        raise raised
    assert bits(model) == before


@pytest.mark.parametrize("raised", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 3, 11])
def test_an_attachment_that_is_interrupted_leaves_the_model_as_it_was(toy, model, monkeypatch, raised, at):
    before, whole, count = bits(model), live._Work.add, iter(range(1000))

    def add(self, *arguments):
        if next(count) == at:
            raise raised
        return whole(self, *arguments)

    monkeypatch.setattr(live._Work, "add", add)
    with pytest.raises(raised), attached(model, toy / "vector"):
        pytest.fail("it was attached")
    assert bits(model) == before


def test_ctrl_c_while_it_comes_off_waits_until_it_is_off(toy, model, monkeypatch):
    before, whole = bits(model), live._Old.put_back

    def put_back(self):
        os.kill(os.getpid(), signal.SIGINT)
        whole(self)

    monkeypatch.setattr(live._Old, "put_back", put_back)
    with pytest.raises(KeyboardInterrupt), attached(model, toy / "vector"):
        pass
    assert bits(model) == before


def test_a_damaged_vector_is_found_and_what_it_changed_is_put_back(toy, model, tmp_path):
    extract(tuned=toy / "tuned", base=toy / "base", out=tmp_path / "vector", encoding="dense")
    file = next(tmp_path.glob("vector/vector-*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    before = bits(model)
    with pytest.raises(VectorError, match="does not match its checksum"), attached(model, tmp_path / "vector"):
        pytest.fail("it was attached")
    assert bits(model) == before


def test_a_sum_beyond_the_dtype_is_refused_and_the_model_stays(toy, model):
    before = bits(model.to(torch.float16))
    with (
        pytest.raises(CheckpointError, match="the sum leaves the range of float16"),
        attached(model, toy / "vector", alpha=1e8),
    ):
        pytest.fail("it was attached")
    assert bits(model) == before


def test_every_misfit_is_told_at_once_and_nothing_is_changed(toy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.Qwen2Config(**{**SIZES, "num_hidden_layers": 3, "intermediate_size": 40},
                                          tie_word_embeddings=True)  # fmt: skip
        other = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    before = bits(other)
    with pytest.raises(IncompatibleError) as error, attached(other, toy / "vector"):
        pytest.fail("it was attached")
    text = str(error.value)
    assert "does not fit the Qwen2ForCausalLM in memory: 18 tensors differ" in text  # 12 of a layer, 6 shapes
    assert "model.layers.0.mlp.down_proj.weight: shape (32, 48) in the vector, (32, 40) in the target" in text
    assert "12 extra" in text or "in the target, not in the vector" in text
    assert "attached whole or not at all" in text
    assert bits(other) == before


def test_another_architecture_of_the_same_shapes_is_refused(toy, model):
    model.config.num_attention_heads = 2
    with (
        pytest.raises(IncompatibleError, match="The architectures differ: num_attention_heads is 4 for the donors"),
        attached(model, toy / "vector"),
    ):
        pytest.fail("it was attached")


def test_a_tensor_that_the_model_lacks_is_an_error_not_a_skip(toy, model):
    del model.model.layers[1].mlp.up_proj
    with (
        pytest.raises(IncompatibleError, match=r"layers\.1\.mlp\.up_proj\.weight: in the vector, missing"),
        attached(model, toy / "vector"),
    ):
        pytest.fail("it was attached")
    with attached(model, toy / "vector", skip=["model.layers.1.mlp.up_proj.weight"]):
        pass


def test_only_and_skip_choose_as_they_do_for_apply(toy, model, tmp_path):
    expected = bits(load(written(toy, 1.0, tmp_path / "out", only=("*.mlp.*",), skip=("*.0.*",))))
    with attached(model, toy / "vector", only=["*.mlp.*"], skip=["*.0.*"]) as attachment:
        assert bits(model) == expected
        assert attachment.tensors == 3
    with pytest.raises(UsageError, match="matches none of the"), attached(model, toy / "vector", skip=["*.9.*"]):
        pass


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 1e31])
def test_an_alpha_that_is_no_number_is_refused(toy, model, alpha):
    with pytest.raises(UsageError, match="alpha is"), attached(model, toy / "vector", alpha=alpha):
        pass


def test_tied_weights_are_changed_once_and_stay_tied(toy, model):
    storage = model.model.embed_tokens.weight.data_ptr()
    assert model.lm_head.weight.data_ptr() == storage
    with attached(model, toy / "vector") as attachment:
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr() == storage
        assert attachment.tensors == len({p.data_ptr() for p in model.parameters()})


def test_a_model_that_unties_what_the_donors_tie_gets_the_delta_twice_or_not_at_all(toy, model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with attached(model, toy / "vector"):
        assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1
    with (
        pytest.raises(IncompatibleError, match=r"lm_head\.weight: in the target, not in the vector"),
        attached(model, toy / "vector"),
    ):
        pytest.fail("it was attached")


def test_a_trunk_is_found_under_the_names_that_its_checkpoint_has(toy, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trunk = transformers.AutoModel.from_pretrained(toy / "target", dtype=torch.bfloat16)
    with attached(model, toy / "vector"), attached(trunk, toy / "vector"):
        assert bits(trunk) == bits(model.model)


def test_a_model_built_from_a_configuration_has_the_names_of_its_checkpoint(family):  # noqa: F811
    """Nothing was loaded, so nothing is known of how: experts are stacked all the same."""
    extract(tuned=family / "tuned", base=family / "base", out=family / "vector")
    loaded = load(family / "target")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = transformers.AutoModelForCausalLM.from_config(loaded.config).to(torch.bfloat16)
    built.load_state_dict(loaded.state_dict())
    with attached(loaded, family / "vector", alpha=0.4), attached(built, family / "vector", alpha=0.4):
        assert bits(built) == bits(loaded)


@pytest.mark.parametrize("compiled", ["whole", "layers"])
def test_what_was_compiled_follows_and_comes_back(toy, model, compiled):
    tokens = torch.tensor([[1, 5, 9, 7]])
    plain = load(toy / "target")
    if compiled == "whole":
        running = torch.compile(model, backend="eager")
    else:
        running = model
        for number, layer in enumerate(model.model.layers):
            model.model.layers[number] = torch.compile(layer, backend="eager")
    with torch.no_grad():
        before = running(tokens).logits
        with attached(running, toy / "vector", alpha=4.0), attached(plain, toy / "vector", alpha=4.0):
            during = running(tokens).logits
            assert torch.equal(during, plain(tokens).logits)
        assert not torch.equal(during, before)
        assert torch.equal(running(tokens).logits, before)
    torch.compiler.reset()


def test_weights_that_do_not_lie_in_order_are_changed_where_they_are(toy, model, tmp_path):
    expected = bits(load(written(toy, 1.0, tmp_path / "out")))
    for layer in model.model.layers:
        turned = layer.mlp.up_proj.weight.detach().t().contiguous().t()
        layer.mlp.up_proj.weight = torch.nn.Parameter(turned)
        assert not layer.mlp.up_proj.weight.is_contiguous()
    before = bits(model)
    with attached(model, toy / "vector"):
        assert bits(model) == expected
    assert bits(model) == before


def test_weights_made_in_inference_mode_can_be_changed(toy, model, tmp_path):
    expected = bits(load(written(toy, 1.0, tmp_path / "out")))
    with torch.inference_mode():
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(parameter.detach().clone(), requires_grad=False))
        model.tie_weights()
    assert model.model.norm.weight.is_inference()
    before = bits(model)
    with attached(model, toy / "vector"):
        assert bits(model) == expected
    assert bits(model) == before


def test_a_graph_from_before_is_not_followed_back_through_other_weights(toy, model):
    loss = model(torch.tensor([[1, 5, 9]])).logits.float().sum()
    with attached(model, toy / "vector"), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = model(torch.tensor([[1, 5, 9]])).logits.float().sum()
    loss.backward()
    assert model.model.norm.weight.grad is not None


def test_offloaded_layers_are_refused_by_name(toy, model):
    before = bits(model)
    kept = model.model.layers[1].mlp.up_proj.weight
    model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(kept.detach().to("meta"))
    message = r"model\.layers\.1\.mlp\.up_proj\.weight: is not in memory: its layer is offloaded"
    with pytest.raises(IncompatibleError, match=message), attached(model, toy / "vector"):
        pytest.fail("it was attached")
    model.model.layers[1].mlp.up_proj.weight = kept
    assert bits(model) == before


class Params4bit(torch.nn.Parameter):
    """What bitsandbytes calls its parameters."""


def test_quantised_weights_are_refused_by_name(toy, model):
    weight = model.model.layers[0].mlp.up_proj
    weight.weight = Params4bit(torch.zeros((768, 1), dtype=torch.uint8), requires_grad=False)
    message = r"model\.layers\.0\.mlp\.up_proj\.weight: is a Params4bit"
    with pytest.raises(IncompatibleError, match=message), attached(model, toy / "vector"):
        pytest.fail("it was attached")


def test_a_model_that_transformers_cannot_save_by_its_names_is_refused(toy, model, monkeypatch):
    def revert(model, state):
        raise ValueError("Cannot reverse the transform with TP or quantization")

    monkeypatch.setattr("transformers.core_model_loading.revert_weight_conversion", revert)
    message = r"\(Cannot reverse the transform with TP or quantization\)"
    with pytest.raises(IncompatibleError, match=message), attached(model, toy / "vector"):
        pytest.fail("it was attached")


def test_a_model_with_an_adapter_is_refused_and_a_merged_one_is_not(toy, model):
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(IncompatibleError, match="merge_and_unload"), attached(adapted, toy / "vector"):
        pytest.fail("it was attached")
    merged = adapted.merge_and_unload()
    with attached(merged, toy / "vector") as attachment:
        assert attachment.changed


def test_a_module_that_is_no_transformers_model_is_known_by_its_names(tmp_path):
    """Buffers and numbers that are not computed with included."""
    rng = np.random.default_rng(0)
    base = {"weight": rng.standard_normal((3, 4), np.float32), "running_mean": rng.standard_normal(5, np.float32)}
    steps = {"num_batches_tracked": np.array(7)}
    for name, change in (("base", 0), ("tuned", 1)):
        (tmp_path / name).mkdir()
        save_file({key: value + np.float32(change) for key, value in base.items()} | steps,
                  tmp_path / name / "model.safetensors")  # fmt: skip
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector")
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.from_numpy(base["weight"].copy()))
    module.register_buffer("running_mean", torch.from_numpy(base["running_mean"].copy()))
    module.register_buffer("num_batches_tracked", torch.tensor(7))
    module.register_buffer("scratch", torch.zeros(2), persistent=False)
    tuned = load_file(tmp_path / "tuned" / "model.safetensors")
    with attached(module, tmp_path / "vector"):
        assert np.array_equal(module.weight.detach().numpy(), tuned["weight"])
        assert np.array_equal(module.running_mean.numpy(), tuned["running_mean"])
        assert int(module.num_batches_tracked) == 7
    assert np.array_equal(module.weight.detach().numpy(), base["weight"])


@pytest.mark.parametrize("encoding", ["dense", "sparse"])
def test_differences_that_float32_does_not_hold_rebuild_the_tuned_donor(tmp_path, encoding):
    """Weights of any exponent, 600 000 of them: three blocks."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 1 << 16, (2, 600, 1000), dtype=np.uint16)
    patterns[(patterns & 0x7F80) == 0x7F80] &= 0xBF7F
    patterns[:, rng.random((600, 1000)) < 0.7] = 0x3C01
    for name, weight in zip(("base", "tuned"), patterns, strict=True):
        (tmp_path / name).mkdir()
        save_file({"weight": weight.view(BF16)}, tmp_path / name / "model.safetensors")
    extract(tuned=tmp_path / "tuned", base=tmp_path / "base", out=tmp_path / "vector", encoding=encoding)
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.from_numpy(patterns[0].view(np.int16).copy()).view(torch.bfloat16))
    found = module.weight.detach().view(torch.int16).numpy().view(np.uint16)
    with attached(module, tmp_path / "vector"):
        differ = found != patterns[1]
        assert not (found[differ] & 0x7FFF).any()  # -0.0 and 0.0 are one number
        assert not (patterns[1][differ] & 0x7FFF).any()
    assert np.array_equal(found, patterns[0])


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Donors of one tensor of five blocks, and their sparse vector."""
    root, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(1)
    base = (rng.standard_normal((1100, 1000)) * 0.02).astype(BF16)
    tuned = base + (rng.standard_normal(base.shape) * 1e-4 * (rng.random(base.shape) < 0.2)).astype(BF16)
    for name, weight in (("base", base), ("tuned", tuned)):
        (root / name).mkdir()
        save_file({"weight": weight}, root / name / "model.safetensors")
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector", encoding="sparse")
    return root


def one_tensor(weight):
    """A module that has `weight`, and the bits that the module's memory holds."""
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.from_numpy(weight.view(np.int16).copy()).view(torch.bfloat16))
    return module, module.weight.detach().view(torch.int16).numpy().view(np.uint16)


@pytest.mark.parametrize("run", [1, 2, 3, 8])
@pytest.mark.parametrize("stored", [1, 100_000, 4 << 20])
def test_blocks_are_added_in_runs_of_any_length(long, monkeypatch, run, stored):
    monkeypatch.setattr(live, "RUN", run)
    monkeypatch.setattr(sources, "RUN_BYTES", stored)
    base, tuned = (load_file(long / name / "model.safetensors")["weight"] for name in ("base", "tuned"))
    module, found = one_tensor(base)
    with attached(module, long / "vector") as attachment:
        assert np.array_equal(found, tuned.view(np.uint16))
        assert attachment.changed == (base.view(np.uint16) != tuned.view(np.uint16)).sum()
        assert attachment.realised_alpha == pytest.approx(1)
    assert np.array_equal(found, base.view(np.uint16))


@pytest.mark.parametrize("run", [2, 8])
def test_a_fault_in_a_later_block_is_told_and_the_earlier_ones_come_off(long, monkeypatch, tmp_path, run):
    monkeypatch.setattr(live, "RUN", run)
    base = load_file(long / "base" / "model.safetensors")["weight"]
    entry, base[1090, 7] = base[1090, 7], np.inf
    module, found = one_tensor(base)
    with (
        pytest.raises(CheckpointError, match="'weight' of the target holds inf at entry 1090007"),
        attached(module, long / "vector"),
    ):
        pytest.fail("it was attached")
    assert np.array_equal(found, base.view(np.uint16))
    base[1090, 7] = entry
    module, found = one_tensor(base)
    shutil.copytree(long / "vector", tmp_path / "vector")
    (file,) = (tmp_path / "vector").glob("vector-*.safetensors")
    data = bytearray(file.read_bytes())
    data[-100] ^= 1  # of the last block
    file.write_bytes(data)
    with pytest.raises(VectorError, match="block 4 cannot be read"), attached(module, tmp_path / "vector"):
        pytest.fail("it was attached")
    assert np.array_equal(found, base.view(np.uint16))


@pytest.mark.parametrize("shape", [(), (7,), (5, 6), (3, 4, 5), (2, 1, 3, 2)], ids=str)
def test_runs_of_entries_are_read_and_written_at_their_place_in_a_box(shape):
    """Every run of every box that a process can hold of a tensor; NumPy's own indexing is the oracle."""
    whole = torch.arange(prod(shape), dtype=torch.int32).reshape(shape)
    inside = [[(0, n), (n // 2, n), (0, (n + 1) // 2)] for n in shape]
    for box in product(*inside):
        offset, cut = tuple(first for first, _ in box), tuple(slice(*ends) for ends in box)
        here = np.zeros(shape, np.bool_)
        here[cut] = True
        for start in range(whole.numel()):
            for stop in range(start + 1, whole.numel() + 1):
                place = Place(whole[cut].clone(), offset, shape, whole)
                out = np.full(stop - start, 1000, np.uint32)
                place.read(start, out)
                run = here.reshape(-1)[start:stop]
                assert np.array_equal(out, np.where(run, np.arange(start, stop), 1000))
                assert np.array_equal(place.held(start, stop - start), run)
                place.write(start, out + 5000)
                expected = whole.clone().reshape(-1)
                expected[start:stop] += 5000
                assert torch.equal(place.tensor, expected.reshape(shape)[cut])


def test_each_process_changes_its_own_part_of_a_sharded_model(toy, tmp_path):
    """`fully_shard` over two processes, and tensors cut along their columns; tests/weights/sharded.py says what."""
    written(toy, 0.6, tmp_path / "out")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, Path(__file__).with_name("sharded.py"), toy, tmp_path]
    both = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True) for rank in range(2)]  # fmt: skip
    try:
        said = [process.communicate(timeout=500)[0] for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert [process.returncode for process in both] == [0, 0], "\n".join(said)
    assert all(text.endswith("all of it held\n") for text in said), said
