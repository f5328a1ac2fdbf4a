"""The lab's tiny models: an ordinary Qwen2 of some 150 thousand parameters."""

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from reasonvec.lab.recipe import ModelShape


def build_model(shape: ModelShape, tokenizer: Qwen2Tokenizer, *, seed: int) -> Qwen2ForCausalLM:
    """A freshly initialised float32 model for `tokenizer`; the caller's global random state is left as it was."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=32768,  # rotary positions cost nothing, and benchmarks' prompts are long
        tie_word_embeddings=True,
        initializer_range=shape.initializer_range,
        # generate() stops on these
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).to(torch.float32)
