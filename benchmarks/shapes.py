"""The sizes of the models that are measured. Imports nothing large, so that a process that must stay small can look."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

Tensor = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2 model; numbers from the models' own config.json on the Hub. With `experts`, every layer has
    that many feed-forward blocks in the place of one."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    experts: int = 0

    def tensors(self) -> Iterator[Tensor]:
        """Name and shape of every tensor."""
        head = self.hidden // self.heads
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            for letter, rows in (("q", self.hidden), ("k", self.kv_heads * head), ("v", self.kv_heads * head)):
                yield f"{prefix}.self_attn.{letter}_proj.weight", (rows, self.hidden)
                yield f"{prefix}.self_attn.{letter}_proj.bias", (rows,)
            yield f"{prefix}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            for block in [f".experts.{expert}" for expert in range(self.experts)] or [""]:
                yield f"{prefix}.mlp{block}.gate_proj.weight", (self.intermediate, self.hidden)
                yield f"{prefix}.mlp{block}.up_proj.weight", (self.intermediate, self.hidden)
                yield f"{prefix}.mlp{block}.down_proj.weight", (self.hidden, self.intermediate)
            yield f"{prefix}.input_layernorm.weight", (self.hidden,)
            yield f"{prefix}.post_attention_layernorm.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, self.hidden)

    def weights(self) -> int:
        """How many there are."""
        return sum(math.prod(size) for _, size in self.tensors())

    def config(self) -> dict[str, object]:
        """config.json."""
        kind = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": self.experts}
        dense = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
        return {
            **(kind if self.experts else dense), "hidden_size": self.hidden,
            "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied, "rope_theta": 1000000.0, "rms_norm_eps": 1e-06, "hidden_act": "silu",
            "max_position_embeddings": 32768, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0,
        }  # fmt: skip


SHAPES = {
    "tiny": Shape(64, 192, 3, 4, 2, 512, tied=True),
    "qwen2.5-0.5b": Shape(896, 4864, 24, 14, 2, 151936, tied=True),
    "qwen2.5-1.5b": Shape(1536, 8960, 28, 12, 2, 151936, tied=True),
    "qwen2.5-7b": Shape(3584, 18944, 28, 28, 4, 152064, tied=False),
    # 700 thousand million weights in 47 thousand tensors: sizes near those of the largest open models
    "700b": Shape(7168, 2048, 61, 56, 8, 129280, tied=False, experts=256),
}


def layers_shape(layers: int) -> Shape:
    """A model that grows by 34 MB a layer in bfloat16 and has next to no vocabulary."""
    return Shape(1024, 4096, layers, 16, 16, 512, tied=True)
