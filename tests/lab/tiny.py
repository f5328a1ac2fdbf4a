"""A checkpoint small enough to make in a test: the lab's tokenizer and an untrained Qwen2 of some thousand weights."""

from pathlib import Path

from reasonvec.lab.models import build_model
from reasonvec.lab.recipe import ModelShape
from reasonvec.lab.world import world_tokenizer
from reasonvec.training.checkpoints import save_checkpoint

SHAPE = ModelShape(hidden=16, intermediate=32, layers=2, heads=2, key_value_heads=1, initializer_range=0.3)


def tiny_checkpoint(out: Path, *, seed: int = 0) -> Path:
    """Write one to `out` and return it."""
    tokenizer = world_tokenizer()
    save_checkpoint(build_model(SHAPE, tokenizer, seed=seed), tokenizer, out=out)
    return out
