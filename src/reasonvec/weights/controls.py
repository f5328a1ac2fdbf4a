"""Vectors that carry nothing: what a gain has to be held against. Each has, tensor by tensor, the norm of the real one.

A Gaussian vector is a weak null: it shares the norm of the real one and nothing else. A permuted one shares its values
too, but not where they stand. Neither tells what a drift of training without information would do.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.weights.arithmetic import STEP_BINS, Difference, check_seed, dot, stream_key
from reasonvec.weights.blocks import blocks
from reasonvec.weights.checkpoint import TensorReader, tensor_reader
from reasonvec.weights.dtypes import Array
from reasonvec.weights.hub import locate_vector
from reasonvec.weights.output import Out, check_output, destination, staged
from reasonvec.weights.provenance import input_identity, places, tool
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import DONOR, FORMAT, FORMAT_VERSION, SAMPLE, Delta, Vector
from reasonvec.weights.vector_writer import VectorWriter, encode_all

_CHAIN = ("F32",)  # a control is defined as float32 numbers, so that is exact


def write_random(*, vector: str | Path, out: str | Path, seed: int, force: bool = False) -> Vector:
    """Write a vector of Gaussian noise that has in every tensor the norm of `vector`; seeded by `seed` and the tensor's
    name, so it depends on neither order nor other tensors."""

    def noise(delta: Delta, reader: TensorReader) -> Array:
        generator = np.random.Generator(np.random.Philox(stream_key(seed, "random", delta.name)))
        values = generator.standard_normal(delta.size, dtype=np.float32)
        norm = float(np.sqrt(dot(values, values)))
        return values * np.float32(delta.norm / norm) if norm else values

    return _write(vector, destination(out), "random", seed, noise, force)


def write_permuted(*, vector: str | Path, out: str | Path, seed: int, force: bool = False) -> Vector:
    """Write `vector` with the entries of each tensor shuffled among themselves; one tensor at a time is in memory."""

    opened = locate_vector(vector)

    def shuffled(delta: Delta, reader: TensorReader) -> Array:
        generator = np.random.Generator(np.random.Philox(stream_key(seed, "permuted", delta.name)))
        stored = StoredDeltas(opened).open(delta.name, reader)
        values = stored.read(0, delta.size, np.dtype(np.float32)).main
        stored.close()
        return generator.permutation(values)

    return _write(vector, destination(out), "permuted", seed, shuffled, force)


def _write(
    location: str | Path, out: Out, kind: str, seed: int, values: Callable[[Delta, TensorReader], Array], force: bool
) -> Vector:
    check_seed(seed)
    vector = locate_vector(location)
    check_output(out, force=force, inputs=places([vector]))
    control = {"kind": kind, "seed": seed, "of": vector.fingerprint}
    plan = {"operation": "control", "tool": tool(), "inputs": input_identity([vector]), **control}
    shapes = {name: delta.shape for name, delta in vector.deltas.items()}
    needed = sum(4 * delta.size for delta in vector.deltas.values())
    with staged(out, plan=plan, needed=needed, force=force) as staging, tensor_reader() as reader:
        writer = VectorWriter(staging, shapes)
        for name, delta in vector.deltas.items():
            entries = values(delta, reader)
            written = writer.write(_CHAIN, encode_all(partial(_differences, entries), _CHAIN))
            norm = float(np.sqrt(dot(entries, entries)))
            staging.finish(name, {**written.to_json(), "norm": norm, "changed": int(np.count_nonzero(entries))},
                           entries.nbytes)  # fmt: skip
        writer.finish_files()
        donor = vector.donor()
        for name in donor.small_files():
            staging.copy(f"{DONOR}/{name}", donor.path / name)
        if (vector.path / SAMPLE).is_file():
            staging.copy(str(SAMPLE), vector.path / SAMPLE)
        tensors = {name: _describe(writer, delta, staging.finished[name]) for name, delta in vector.deltas.items()}
        carried_over = {key: vector.document[key] for key in ("donors", "left_out", "tied", "carried", "only", "skip")}
        writer.write_document({
            "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), "formula": f"{kind} control",
            "control": control, **carried_over, "relation": None, "step_bins": list(STEP_BINS),
            "options": {"encoding": "auto"}, "tensors": tensors,
        })  # fmt: skip
    return locate_vector(out if isinstance(out, Path) else str(out))


def _differences(values: Array) -> Iterator[tuple[int, Difference]]:
    for start, stop in blocks(len(values)):
        block = values[start:stop]
        index = np.flatnonzero(block)
        yield stop - start, Difference(index, block[index].astype(np.float64), np.zeros(index.size))


def _describe(writer: VectorWriter, delta: Delta, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **writer.describe(delta.name), "checkpoint_dtype": delta.checkpoint_dtype, "changed": record["changed"],
        "norm": record["norm"], "base_norm": delta.base_norm, "rounding": 0.0, "steps": [0] * len(STEP_BINS),
    }  # fmt: skip
