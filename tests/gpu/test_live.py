"""What a GPU alone can show of vectors on loaded models. `make gpu` runs it; elsewhere it is not collected.

Every check prints its figures. The models are random ones of real shapes: no download, and the work is the same.
"""

import time

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from reasonvec.weights import extract  # noqa: E402
from reasonvec.weights.live import attached  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1800),  # donors of 15 GB are written
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no GPU is at hand, so none of the checks that need one was run"
    ),
]

SHAPES = {
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}  # fmt: skip


def random_model(shape):
    """A Qwen2.5 of that shape on the GPU, in bfloat16."""
    config = transformers.Qwen2Config(**SHAPES[shape], pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    with torch.device("cuda"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def vector_for(model, root):
    """Two donors on disk, the second with a fifth of its entries one step further, and their difference."""
    model.save_pretrained(root / "base")
    originals = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            originals[name] = parameter.detach().cpu().clone()
            steps = (torch.rand(parameter.shape, device="cuda") < 0.2).to(torch.int16)
            parameter.view(torch.int16).add_(steps)
        model.save_pretrained(root / "tuned")
        for name, parameter in model.named_parameters():
            parameter.copy_(originals[name])
    extract(tuned=root / "tuned", base=root / "base", out=root / "vector", encoding="sparse")
    return root / "vector"


def timed(work):
    """What `work` gives, and the seconds until the GPU has done it."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - begin


def same_bits(model, state):
    return all(torch.equal(tensor.view(torch.int16), state[name].view(torch.int16))
               for name, tensor in model.state_dict().items())  # fmt: skip


def say(text):
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}: {text}")


def test_attached_and_taken_off_bit_for_bit_on_the_gpu(tmp_path):
    """The same model on the processor is the oracle."""
    model = random_model("0.5b")
    vector = vector_for(model, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    context = attached(model, vector, alpha=0.5)
    attachment, attaching = timed(context.__enter__)
    with attached(other, vector, alpha=0.5):
        expected = {name: tensor.to("cuda") for name, tensor in other.state_dict().items()}
        assert same_bits(model, expected)
    assert not same_bits(model, before)
    _, taking_off = timed(lambda: context.__exit__(None, None, None))
    assert same_bits(model, before)
    kept = attachment.kept_bytes / 1e6
    say(f"0.5B attached in {attaching:.2f} s, taken off in {taking_off:.2f} s, {kept:.0f} MB kept")


def test_evaluation_throughput_with_a_vector_attached(tmp_path):
    """A model with a vector is the same kernels on the same memory, so it answers as fast; and it answers otherwise."""
    model = random_model("1.5b")
    vector = vector_for(model, tmp_path)
    prompts = torch.randint(3, 150000, (64, 256), device="cuda")
    settings = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 128, "min_new_tokens": 128,
                "do_sample": False}  # fmt: skip
    new = prompts.shape[0] * 128

    @torch.no_grad()
    def rate():
        """The last logits of the prompts, and new tokens a second."""
        _, seconds = timed(lambda: model.generate(prompts, **settings))
        return model(prompts, logits_to_keep=1).logits, new / seconds

    rate()  # what is done once
    before, plain = rate()
    with attached(model, vector, alpha=4.0):
        during, with_vector = rate()
    after, again = rate()
    assert not torch.equal(during, before)
    assert torch.equal(after, before)
    say(f"1.5B, 64 prompts of 256 tokens, 128 new: {plain:.0f} tokens/s, {with_vector:.0f} with the vector, "
        f"{again:.0f} after")  # fmt: skip


def test_attaching_to_a_7b_shape(tmp_path):
    model = random_model("7b")
    vector = vector_for(model, tmp_path)
    weight = model.model.layers[13].mlp.down_proj.weight
    before = weight.clone()
    context = attached(model, vector, alpha=0.5)
    attachment, attaching = timed(context.__enter__)
    assert not torch.equal(weight, before)
    _, taking_off = timed(lambda: context.__exit__(None, None, None))
    assert torch.equal(weight.view(torch.int16), before.view(torch.int16))
    _, loading = timed(lambda: transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=torch.bfloat16, device_map="cuda"))  # fmt: skip
    kept = attachment.kept_bytes / 1e6
    say(f"7B attached in {attaching:.2f} s, taken off in {taking_off:.2f} s, {kept:.0f} MB kept; loading it took "
        f"{loading:.2f} s with a warm page cache")  # fmt: skip
