"""Write bfloat16 donors and a target of a real model's shape, with random weights: something to run the commands on.

    python benchmarks/make_checkpoints.py OUT [--shape qwen2.5-0.5b] [--shards 4] [--unchanged 0.8] [--seed 0]

OUT/base, OUT/tuned and OUT/target are ordinary checkpoints that transformers loads. Weights are Gaussian; `tuned` is
`base` after a small Gaussian step in float32, rounded, so that about the share `--unchanged` of the entries keep their
bits, as reinforcement learning leaves them; `target` is `base` with noise of another tuning.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

BF16 = ml_dtypes.bfloat16
# standard deviation of the step, relative to a weight's, that leaves a share of bfloat16 entries unchanged
STEP_FOR = {0.55: 0.0025, 0.6: 0.0021, 0.8: 0.00088, 0.88: 0.0005, 0.9: 0.0004, 0.94: 0.00024, 0.95: 0.0002}


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2 model; numbers from the models' own config.json on the Hub."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor."""
        head = self.hidden // self.heads
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            for letter, rows in (("q", self.hidden), ("k", self.kv_heads * head), ("v", self.kv_heads * head)):
                yield f"{prefix}.self_attn.{letter}_proj.weight", (rows, self.hidden)
                yield f"{prefix}.self_attn.{letter}_proj.bias", (rows,)
            yield f"{prefix}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield f"{prefix}.mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield f"{prefix}.mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield f"{prefix}.mlp.down_proj.weight", (self.hidden, self.intermediate)
            yield f"{prefix}.input_layernorm.weight", (self.hidden,)
            yield f"{prefix}.post_attention_layernorm.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, self.hidden)

    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": self.hidden,
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
}


def make(out: Path, shape: Shape, shards: int, unchanged: float, seed: int) -> None:
    """Write the three checkpoints under `out`, one shard in memory at a time."""
    closest = min(STEP_FOR, key=lambda share: abs(share - unchanged))
    step = STEP_FOR[closest]
    names = list(shape.tensors())
    total = sum(2 * math.prod(size) for _, size in names)
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, size in names:
        if filled >= total / shards * len(groups) and len(groups) < shards:
            groups.append([])
        groups[-1].append((name, size))
        filled += 2 * math.prod(size)
    for role in ("base", "tuned", "target"):
        (out / role).mkdir(parents=True)
        (out / role / "config.json").write_text(json.dumps(shape.config(), indent=2))
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        weight_map |= dict.fromkeys((name for name, _ in group), file)
        made: dict[str, dict[str, np.ndarray]] = {"base": {}, "tuned": {}, "target": {}}
        for name, size in group:
            rng = np.random.default_rng([seed, *name.encode()])
            base = (rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)).astype(BF16)
            wide = base.astype(np.float32)
            made["base"][name] = base
            made["tuned"][name] = (wide + rng.standard_normal(size, dtype=np.float32) * np.float32(0.02 * step)).astype(
                BF16
            )
            made["target"][name] = (wide + rng.standard_normal(size, dtype=np.float32) * np.float32(1e-3)).astype(BF16)
        for role, tensors in made.items():
            save_file(tensors, out / role / file, metadata={"format": "pt"})
    if len(groups) > 1:
        index = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
        for role in ("base", "tuned", "target"):
            (out / role / "model.safetensors.index.json").write_text(index)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--unchanged", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.out, SHAPES[arguments.shape], arguments.shards, arguments.unchanged, arguments.seed)
    print(f"wrote {arguments.out}/base, /tuned and /target")
