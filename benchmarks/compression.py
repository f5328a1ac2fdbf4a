"""What each way to store a vector takes and loses, as the Markdown table of docs/compression.md.

    python benchmarks/compression.py [--layers 1] [--unchanged 0.8] [--seed 0]

The donors are those of make_checkpoints.py: Gaussian weights, and a Gaussian step rounded to bfloat16. Sizes and the
losses of bits and densities depend on that little; those of a rank are the losses of noise, which has none to find.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import reasonvec
from make_checkpoints import make
from reasonvec.weights.vector import Vector
from shapes import layers_shape

METHODS: dict[str, dict[str, Any]] = {
    "`--bits 8`": {"bits": 8},
    "`--bits 4`": {"bits": 4},
    "`--bits 1`": {"bits": 1},
    "`--density 0.5`": {"density": 0.5},
    "`--density 0.1`": {"density": 0.1},
    "`--density 0.01`": {"density": 0.01},
    "`--density 0.1 --select random`": {"density": 0.1, "select": "random"},
    "`--density 0.1 --select random --rescale`": {"density": 0.1, "select": "random", "rescale": True},
    "`--rank 4`": {"rank": 4},
    "`--rank 16`": {"rank": 16},
    "`--rank 64`": {"rank": 64},
}


def nbytes(vector: Vector) -> int:
    """Of all deltas."""
    return sum(delta.entry.nbytes for delta in vector.deltas.values())


def percent(share: float) -> str:
    """Three digits."""
    return f"{100 * share:.3g} %"


def main(layers: int, unchanged: float, seed: int) -> None:
    """Make donors and both exact vectors, compress the dense one in every way, print a row for each."""
    shape = layers_shape(layers)
    dense = 2 * shape.weights()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, shape, 1, unchanged=unchanged, seed=seed, repeat=False, filled=None)
        print("| | size | relative error | cosine | entries changed |\n|---|---|---|---|---|")
        for encoding, words in (("sparse", "**exact, sparse**"), ("dense", "exact, dense")):
            made = reasonvec.extract(tuned=root / "tuned", base=root / "base", out=root / encoding, encoding=encoding)
            print(f"| {words} | {percent(nbytes(made.vector) / dense)} | 0 | 1 | 0 |")
        for words, options in METHODS.items():
            found = reasonvec.compress(vector=root / "dense", out=root / "out", seed=seed, force=True, **options)
            print(f"| {words} | {percent(found.nbytes / dense)} | {found.lossy['relative_error']:.3g} "
                  f"| {found.lossy['cosine']:.3g} | {percent(found.lossy['changed_share'])} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1, help="of 34 MB each")
    parser.add_argument("--unchanged", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
