"""Tiny models of transformers and adapters of peft with random weights, written by those libraries themselves."""

import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
TOKENS = torch.tensor([[1, 5, 9, 3, 60, 22]])


@contextmanager
def quiet():
    """The libraries warn of much that is meant here: fresh weights, tied embeddings, Conv1D."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def qwen2(*, tied=False):
    return transformers.Qwen2Config(**SIZES, tie_word_embeddings=tied)


def gpt2():
    return transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64, bos_token_id=1,
                                   eos_token_id=2, pad_token_id=0)  # fmt: skip


def write_model(path: Path, config, dtype=torch.float32, seed=0):
    """A random model saved by transformers; returns its path."""
    with quiet():
        torch.manual_seed(seed)
        transformers.AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(path)
    return path


def write_moved(path: Path, model: Path, *, matrices_only=False, size=0.02, seed=1):
    """A model some way off another one, as if trained on."""
    with quiet():
        moved = load(model)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in moved.parameters():
                if parameter.ndim == 2 or not matrices_only:
                    noise = torch.randn(parameter.shape, generator=generator) * size
                    parameter.add_(noise.to(parameter.dtype))
        moved.save_pretrained(path)
    return path


def load(path: Path, dtype="auto"):
    with quiet():
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def write_adapter(path: Path, model: Path, size=0.1, **options):
    """An adapter of peft on `model` with random factors, and trained whole modules; returns its path."""
    with quiet():
        adapted = peft.get_peft_model(load(model), peft.LoraConfig(**options))
        generator = torch.Generator().manual_seed(2)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * size
                parameter.data.copy_(noise.to(parameter.dtype))
        adapted.save_pretrained(path)
    return path


def with_adapter(model: Path, adapter: Path):
    with quiet():
        return peft.PeftModel.from_pretrained(load(model), adapter).eval()


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits.float()
