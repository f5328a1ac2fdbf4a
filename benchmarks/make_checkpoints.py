"""Write bfloat16 donors and a target of a real model's shape, with random weights: something to run the commands on.

    python benchmarks/make_checkpoints.py OUT [--shape qwen2.5-0.5b] [--shards 4] [--unchanged 0.8] [--seed 0]

OUT/base, OUT/tuned and OUT/target are ordinary checkpoints that transformers loads. Weights are Gaussian; `tuned` is
`base` after a small Gaussian step in float32, rounded, so that about the share `--unchanged` of the entries keep their
bits, as reinforcement learning leaves them; `target` is `base` with noise of another tuning. For sizes at which random
numbers would take too long or the disk is too small, `--repeat` uses the same block of them again and again, and
`--filled N` writes the first N entries of each tensor only: the rest is a hole in the file, which reads as zeros.
"""

import argparse
import contextlib
import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from shapes import SHAPES, Shape, Tensor, layers_shape

BF16 = ml_dtypes.bfloat16
BLOCK = 1 << 22
"""Entries that are made at once."""
ROLES = ("base", "tuned", "target")
Blocks = Callable[[int], Mapping[str, memoryview]]
# a few words only: enough for tools that insist on copying a tokenizer
TOKENIZER = {
    "tokenizer.json": {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "one": 1, "two": 2}, "unk_token": "<unk>"},
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"},
}  # fmt: skip
# standard deviation of the step, relative to a weight's, that leaves a share of bfloat16 entries unchanged
STEP_FOR = {
    0.55: 0.0025,
    0.6: 0.0021,
    0.77: 0.00102,
    0.8: 0.00088,
    0.88: 0.0005,
    0.9: 0.0004,
    0.94: 0.00024,
    0.95: 0.0002,
}


def make(
    out: Path, shape: Shape, shards: int, *, unchanged: float, seed: int, repeat: bool, filled: int | None
) -> None:
    """Write the three checkpoints under `out`, one block of one tensor in memory at a time."""
    for role in ROLES:
        (out / role).mkdir(parents=True)
        (out / role / "config.json").write_text(json.dumps(shape.config(), indent=2))
        for name, content in TOKENIZER.items():
            (out / role / name).write_text(json.dumps(content, indent=2))
    step = STEP_FOR[min(STEP_FOR, key=lambda share: abs(share - unchanged))]
    groups = split(list(shape.tensors()), shards)
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        weight_map |= dict.fromkeys((name for name, _ in group), file)
        with contextlib.ExitStack() as stack:
            files = {role: stack.enter_context((out / role / file).open("wb")) for role in ROLES}
            write_shard(files, group, lambda name: block_maker([seed, *name.encode()], step, repeat), filled)
    if len(groups) > 1:
        index = json.dumps({"metadata": {"total_size": 2 * shape.weights()}, "weight_map": weight_map}, indent=2)
        for role in ROLES:
            (out / role / "model.safetensors.index.json").write_text(index)


def split(tensors: Sequence[Tensor], shards: int) -> list[list[Tensor]]:
    """The tensors in `shards` groups of about one size, in order."""
    total = sum(math.prod(size) for _, size in tensors)
    groups: list[list[Tensor]] = [[]]
    before = 0
    for name, size in tensors:
        if before >= total / shards * len(groups) and len(groups) < shards:
            groups.append([])
        groups[-1].append((name, size))
        before += math.prod(size)
    return groups


def write_shard(
    files: Mapping[str, BinaryIO], tensors: Sequence[Tensor], maker: Callable[[str], Blocks], filled: int | None
) -> None:
    """Write the same tensors to the file of each role, at most `filled` entries of each and holes for the rest."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, size in sorted(tensors):
        stop = offset + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    for file in files.values():
        file.write(len(text).to_bytes(8, "little") + text)
    for name, size in sorted(tensors):
        entries, blocks = math.prod(size), maker(name)
        written = entries if filled is None else min(filled, entries)
        for start in range(0, written, BLOCK):
            for role, data in blocks(min(BLOCK, written - start)).items():
                files[role].write(data)
        for file in files.values():
            file.seek(2 * (entries - written), os.SEEK_CUR)
    for file in files.values():
        file.truncate(8 + len(text) + offset)


def block_maker(seed: Sequence[int], step: float, repeat: bool) -> Blocks:
    """A function from a number of entries to that many of base, tuned and target, as bytes."""
    if repeat:
        whole = _repeated(step)
        return lambda count: {role: data[: 2 * count] for role, data in whole.items()}
    rng = np.random.default_rng(seed)
    return lambda count: _random_block(rng, count, step)


@functools.cache
def _repeated(step: float) -> dict[str, memoryview]:
    return _random_block(np.random.default_rng(0), BLOCK, step)


def _random_block(rng: np.random.Generator, count: int, step: float) -> dict[str, memoryview]:
    def normal(deviation: float) -> np.ndarray:
        return rng.standard_normal(count, dtype=np.float32) * np.float32(deviation)

    base = normal(0.02).astype(BF16)
    wide = base.astype(np.float32)
    made = {"base": base, "tuned": wide + normal(0.02 * step), "target": wide + normal(1e-3)}
    return {role: values.astype(BF16).view(np.uint8).data for role, values in made.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--layers", type=int, help="instead of a shape: this many layers of 34 MB")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--unchanged", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", action="store_true", help="one block of random numbers over and over: quick")
    parser.add_argument("--filled", type=int, metavar="N", help="write N entries of each tensor; the rest is a hole")
    arguments = parser.parse_args()
    make(
        arguments.out,
        layers_shape(arguments.layers) if arguments.layers else SHAPES[arguments.shape],
        arguments.shards,
        unchanged=arguments.unchanged,
        seed=arguments.seed,
        repeat=arguments.repeat,
        filled=arguments.filled,
    )
    print(f"wrote {arguments.out}/base, /tuned and /target")
