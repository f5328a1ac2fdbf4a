"""Read every delta of a vector tile by tile, as `apply` does, and print how long that took.

    python benchmarks/decode_vector.py VECTOR

Prints JSON: `seconds` of the reading alone, and `bytes`, 2 for every entry, as a bfloat16 checkpoint has.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import open_vector

TILE = 1 << 16

vector = open_vector(Path(sys.argv[1]))
source = StoredDeltas(vector)
work = np.dtype(np.float32)
begin = time.perf_counter()
with tensor_reader() as reader:
    for name, delta in vector.deltas.items():
        tiles = source.open(name, reader)
        for start in range(0, delta.size, TILE):
            tiles.read(start, min(start + TILE, delta.size), work)
print(json.dumps({"seconds": time.perf_counter() - begin,
                  "bytes": sum(2 * delta.size for delta in vector.deltas.values())}))  # fmt: skip
