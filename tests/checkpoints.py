"""Small checkpoints for tests, written with the safetensors library, so that what reads them is not what wrote them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = (BF16, np.dtype(np.float16), np.dtype(np.float32))
CONFIG = {"model_type": "toy", "hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 40}

Tensors = Mapping[str, np.ndarray[Any, Any]]


def random_tensors(seed: int, dtype: Any = BF16, scale: float = 0.02) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a toy transformer: two layers, an embedding, a norm."""
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (40, 16), "model.norm.weight": (16,)}
    for layer in range(2):
        shapes |= {
            f"model.layers.{layer}.self_attn.q_proj.weight": (16, 16),
            f"model.layers.{layer}.mlp.down_proj.weight": (16, 33),
            f"model.layers.{layer}.input_layernorm.weight": (16,),
        }
    return {name: (rng.standard_normal(shape) * scale).astype(dtype) for name, shape in shapes.items()}


def moved(tensors: Tensors, seed: int, share: float = 0.3, size: float = 1e-3) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors after some training: a share of the entries has moved."""
    rng = np.random.default_rng(seed)
    return {
        name: (t.astype(np.float64) + (rng.random(t.shape) < share) * rng.standard_normal(t.shape) * size).astype(
            t.dtype
        )
        for name, t in tensors.items()
    }


def write(path: Path, tensors: Tensors, config: Mapping[str, Any] | None = CONFIG, shards: int = 1) -> Path:
    """Write a checkpoint, in one file or in several with an index."""
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(dict(tensors), path / "model.safetensors", metadata={"format": "pt"})
        return path
    names = list(tensors)
    weight_map = {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        mine = {name: tensors[name] for name in names[number::shards]}
        save_file(mine, path / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, shard)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of a checkpoint or a vector, by the safetensors library."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def bits(tensor: np.ndarray[Any, Any]) -> bytes:
    """For comparing bit for bit."""
    return np.ascontiguousarray(tensor).tobytes()


def everything_under(path: Path) -> list[str]:
    """Every file and directory below `path`, hidden ones too."""
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))
