"""What the tests of training share: a model of two layers, a file of sums, and the shortest training of each kind."""

import json
from pathlib import Path
from typing import Any

from reasonvec.evaluation.prompts import PromptStyle
from reasonvec.lab.models import build_model
from reasonvec.lab.recipe import ModelShape
from reasonvec.lab.world import world_tokenizer
from reasonvec.training.checkpoints import save_checkpoint
from reasonvec.training.donor import Request
from reasonvec.training.quiet import quiet

SHAPE = ModelShape(hidden=32, intermediate=64, layers=2, heads=2, key_value_heads=1, initializer_range=0.2)
BARE = PromptStyle(bare=True)
SFT = ("max_steps=6", "per_device_train_batch_size=8", "learning_rate=5e-3", "save_steps=2")
GRPO = (
    "max_steps=6", "per_device_train_batch_size=16", "num_generations=4", "max_completion_length=6",
    "learning_rate=1e-3", "save_steps=2",
)  # fmt: skip


def write_base(out: Path, *, seed: int = 0) -> Path:
    """A checkpoint of some 20 thousand untrained weights."""
    tokenizer = world_tokenizer()
    with quiet():
        save_checkpoint(build_model(SHAPE, tokenizer, seed=seed), tokenizer, out=out)
    return out


def write_sums(file: Path, count: int = 24) -> Path:
    """So many different sums, each with its worked answer."""
    rows = []
    for number in range(count):
        first, second, third = 10 + number % 20, 1 + number % 7, 1 + number // 20
        total = first + second - third
        working = f"{first} + {second} = {first + second} - {third} = {total}"
        rows.append({"question": f"What is {first} + {second} - {third}?", "answer": f"{working} #### {total}"})
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def small_ids(*, completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """A reward that an untrained model earns a part of: the share of tokens from the first half of the vocabulary."""
    return [sum(token < 180 for token in ids) / len(ids) for ids in completion_ids]


def request(kind: Any, model: Path, data: Path, out: Path, *changes: str, **others: Any) -> Request:
    """The shortest training of a kind; `changes` win over its settings."""
    settings = SFT if kind == "sft" else GRPO
    rewards = others.pop("rewards", () if kind == "sft" else ("tests.training.small:small_ids",))
    return Request(
        kind=kind, model=str(model), data=str(data), out=out, data_dir=out.parent / "no-benchmarks", style=BARE,
        rewards=rewards, changes=(*settings, *changes), **others,
    )  # fmt: skip
