"""Any architecture: tiny models of real families, built by transformers, carried through extract, apply and generate.

transformers is the reader here, and its own arithmetic on state dicts the oracle.
"""

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from reasonvec.weights import apply, check, extract, transfer  # noqa: E402

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip

FAMILIES = {
    "qwen2": lambda: transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "gemma": lambda: transformers.GemmaConfig(**SIZES, head_dim=8),
    "olmo2": lambda: transformers.Olmo2Config(**SIZES),
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64,
                                            pad_token_id=0, bos_token_id=1, eos_token_id=2),
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    """base, tuned and target checkpoints of one family in bfloat16, saved by transformers in several shards."""
    config = FAMILIES[request.param]()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        generator = torch.Generator().manual_seed(1)
        for role in ("base", "tuned", "target"):
            with torch.no_grad():
                for parameter in model.parameters():
                    noise = torch.randn(parameter.shape, generator=generator) * 1e-2
                    parameter.add_((noise * (torch.rand(noise.shape, generator=generator) < 0.3)).to(torch.bfloat16))
            model.save_pretrained(tmp_path / role, max_shard_size="20KB")
    return tmp_path


def load(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)


def test_a_vector_goes_from_donors_to_a_target_that_generates(family):
    extract(tuned=family / "tuned", base=family / "base", out=family / "vector")
    assert check(vector=family / "vector", target=family / "target").fits
    apply(vectors=[(family / "vector", 0.5)], target=family / "target", out=family / "enhanced")
    models = {name: load(family / name) for name in ("base", "tuned", "target", "enhanced")}
    states = {name: model.state_dict() for name, model in models.items()}
    changed = 0
    for name, weight in states["target"].items():
        if weight.is_floating_point():
            delta = states["tuned"][name].float() - states["base"][name].float()
            expected = (weight.float() + 0.5 * delta).bfloat16()
            assert torch.equal(states["enhanced"][name], expected), name
            changed += int(not torch.equal(expected, weight))
    assert changed >= 5
    prompt = torch.tensor([[1, 5, 9]])
    mask = torch.ones_like(prompt)
    tokens = models["enhanced"].generate(prompt, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert tokens.shape[1] > 3


def test_alpha_one_on_the_base_is_the_tuned_model(family):
    transfer(tuned=family / "tuned", base=family / "base", target=family / "base", out=family / "rebuilt")
    tuned, rebuilt = load(family / "tuned").state_dict(), load(family / "rebuilt").state_dict()
    assert tuned.keys() == rebuilt.keys()
    assert all(torch.equal(tuned[name], rebuilt[name]) for name in tuned)
