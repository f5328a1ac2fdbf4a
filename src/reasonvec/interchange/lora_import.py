"""`import lora`: an adapter of peft becomes a vector, with no merged model between. Tensors that the adapter does not
touch are zero: they did not change.

A low-rank delta is summed in float64 and rounded once to float32; that is the delta, so float32 holds it exactly. The
delta of a tensor that is replaced whole is the exact difference.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError, IncompatibleError
from reasonvec.interchange.adapter import LoraAdapter, TensorChange, changes, open_adapter
from reasonvec.interchange.low_rank import load_product
from reasonvec.interchange.ties import Ties
from reasonvec.weights.alignment import Misfit, equal_bytes, listing
from reasonvec.weights.arithmetic import STEP_BINS, Difference, LaneSum, first_non_finite, has_non_finite, subtract
from reasonvec.weights.blocks import BLOCK, Scratch, Workers, blocks, tensor_digest
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, tensor_reader
from reasonvec.weights.dtypes import EXACT_CHAIN, FLOATS, Array
from reasonvec.weights.extraction import sample
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.output import Staging, check_output, staged
from reasonvec.weights.provenance import check_unchanged, describe_checkpoint, exceeds_memory, input_identity, tool
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.stores import local_directory
from reasonvec.weights.tensors import digest_of, read_tensor_block
from reasonvec.weights.vector import DONOR, FORMAT, FORMAT_VERSION, SAMPLE, Vector, open_vector
from reasonvec.weights.vector_writer import Encoded, VectorWriter, encode, write_small_tensors

Progress = Callable[[int], None]
"""Called with the number of bytes of the base that were just finished."""

_ZERO = Difference(np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass(frozen=True)
class LoraImport:
    """What `import_lora` made and what it noticed."""

    vector: Vector
    low_rank: int
    """Tensors that got the product of two factors."""
    replaced: int
    """Tensors that the adapter holds whole, and other than the base."""
    touched: int
    """Tensors of the base that get one of them, copies of tied ones counted too; all others are zero."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        deltas = self.vector.deltas.values()
        return {
            "path": str(self.vector.path),
            "fingerprint": self.vector.fingerprint,
            "tensors": len(deltas),
            "parameters": sum(delta.size for delta in deltas),
            "changed": sum(delta.changed for delta in deltas),
            "low_rank_tensors": self.low_rank,
            "replaced_tensors": self.replaced,
            "touched_tensors": self.touched,
            "norm": math.sqrt(sum(delta.norm**2 for delta in deltas)),
            "base_norm": math.sqrt(sum(delta.base_norm**2 for delta in deltas)),
            "warnings": list(self.warnings),
        }


def import_lora(
    adapter: str | Path,
    *,
    base: str | Path,
    out: str | Path,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> LoraImport:
    """Write the vector `(base with adapter) - base` to the new directory `out`: what peft's merge would add, unrounded.

    `workers` threads share the work; the bytes do not depend on their number. Memory: the two factors of one matrix.

    Raises UsageError if adapter or `out` is an address in a store; CheckpointError for an adapter or base that is
    damaged, unsafe, not finite, or of a kind that is no fixed difference of weights; IncompatibleError listing every
    tensor of the adapter that does not fit the base; OutputError if `out` cannot be written.
    """
    out = local_directory(out, "--out")
    opened = open_adapter(adapter, offline=offline, follow_links=follow_links)
    checkpoint = locate_checkpoint(base, offline=offline, follow_links=follow_links)
    inputs = [opened.checkpoint, checkpoint]
    check_output(out, force=force, inputs=tuple(source.path for source in inputs))
    with tensor_reader() as reader:
        planned, copies = _plan(opened, checkpoint, reader)
    floats = {name: entry for name, entry in checkpoint.tensors.items() if entry.dtype in FLOATS}
    identity = input_identity(inputs)
    plan = {"operation": "import lora", "tool": tool(), "inputs": identity}
    needed = sum(4 * floats[name].size for name, change in planned.items() if change.low_rank)
    with (
        staged(out, plan=plan, needed=needed, resume=resume, force=force) as staging,
        tensor_reader(drop_behind=exceeds_memory(inputs)) as reader,
        Workers(workers) as pool,
    ):
        writer = VectorWriter(staging, {name: entry.shape for name, entry in floats.items()})
        for name, entry in floats.items():
            if name not in staging.finished:
                record = _Tensor(entry, planned.get(name, TensorChange()), reader, pool).write(writer)
                staging.finish(name, record, record["nbytes"])
            progress(entry.nbytes)
        writer.finish_files()
        _write_donor(staging, checkpoint, list(floats), reader)
        document = _document(staging.finished, writer, opened, checkpoint, copies, reader)
        check_unchanged(inputs, identity)
        # written last: its presence means that the vector is whole
        writer.write_document(document)
    vector = open_vector(out, location=str(out))
    distinct = [change for name, change in planned.items() if name not in copies]
    return LoraImport(
        vector,
        sum(change.low_rank is not None for change in distinct),
        sum(change.replaced is not None for change in distinct),
        sum(change != TensorChange() for change in planned.values()),
        _warnings(vector),
    )


def _warnings(vector: Vector) -> tuple[str, ...]:
    if any(delta.changed for delta in vector.deltas.values()):
        return ()
    return ("The vector is empty: the adapter adds nothing to the base. An untrained adapter is like that; was the "
            "training lost when it was saved?",)  # fmt: skip


def _plan(
    adapter: LoraAdapter, base: Checkpoint, reader: TensorReader
) -> tuple[dict[str, TensorChange], dict[str, str]]:
    """Stored tensor -> its change; and the stored tensors that are copies, with what they copy.

    Raises IncompatibleError where the adapter changes two ends of one tied tensor differently.
    """
    ties = Ties(base, reader)
    copies = ties.copies()
    planned: dict[str, TensorChange] = {}
    misfits: list[Misfit] = []
    for stored, ends in changes(adapter, base, ties.stored).items():
        moved = {name: _without_copy(change, base.tensors[stored], reader) for name, change in ends.items()}
        first, *others = moved.values()
        if any(not _same(first, other, reader) for other in others):
            misfits.append(Misfit(stored, "tied", f"{' and '.join(ends)} are one in the base and get two deltas"))
        elif ties.is_tied(stored) and not others and not adapter.ties and first != TensorChange():
            misfits.append(Misfit(stored, "tied", f"tied in the base; the adapter changes {next(iter(ends))} alone"))
        planned |= dict.fromkeys((stored, *(n for n, twin in copies.items() if twin == stored)), first)
    if misfits:
        raise IncompatibleError(
            f"The adapter {adapter.checkpoint.location} unties what the base {base.location} ties, in {len(misfits)} "
            f"tensors:\n{listing(misfits)}\nIn training the two ends differed, and one matrix cannot hold both. Give a "
            f"base that stores both embeddings and has tie_word_embeddings false in its config.json; or, if both ends "
            f"may change, merge with peft, which does that, and extract --tuned MERGED."
        )
    return planned, copies


def _without_copy(change: TensorChange, base: TensorEntry, reader: TensorReader) -> TensorChange:
    """The change without a whole tensor that is the base's own: peft saves embeddings along with their factors."""
    if change.replaced and equal_bytes(change.replaced, base, reader):
        return TensorChange(change.low_rank)
    return change


def _same(first: TensorChange, second: TensorChange, reader: TensorReader) -> bool:
    """Whether two ends of a tied tensor get the same delta, as peft's ensure_weight_tying makes them."""
    if (first.replaced is None) != (second.replaced is None) or (first.low_rank is None) != (second.low_rank is None):
        return False
    if first.replaced and second.replaced and not equal_bytes(first.replaced, second.replaced, reader):
        return False
    if first.low_rank is None or second.low_rank is None:
        return True
    one, other = load_product(first.low_rank, reader), load_product(second.low_rank, reader)
    return first.low_rank.shape == second.low_rank.shape and all(
        np.array_equal(one.read(start, stop), other.read(start, stop))
        for start, stop in blocks(math.prod(first.low_rank.shape))
    )


class _Tensor:
    """One delta, and what is counted on the way."""

    def __init__(self, entry: TensorEntry, change: TensorChange, reader: TensorReader, pool: Workers) -> None:
        self._entry, self._replaced, self._reader, self._pool = entry, change.replaced, reader, pool
        self._product = load_product(change.low_rank, reader) if change.low_rank else None
        self._grid = self._entry.dtype
        if self._product or (self._replaced and self._replaced.dtype != entry.dtype):
            self._grid = "F32"  # a product has float32's numbers, whatever the base has
        # a product is defined as float32 numbers, so that is exact
        self._chain = ("F32",) if self._product else EXACT_CHAIN[self._grid]
        self._counts: list[_Counts] = []

    def write(self, writer: VectorWriter) -> dict[str, Any]:
        """Write the delta; the record that the journal keeps."""
        written = writer.write(self._chain, self._encoded)
        return {
            **written.to_json(), "grid": self._grid, "changed": sum(counts.changed for counts in self._counts),
            "norm": math.sqrt(sum(counts.squares for counts in self._counts)),
            "base_norm": math.sqrt(sum(counts.base_squares for counts in self._counts)),
            "base_digest": tensor_digest(counts.digest for counts in self._counts),
        }  # fmt: skip

    def _encoded(self, kind: str) -> Iterator[Encoded]:
        self._counts = []
        numbers = range(len(blocks(self._entry.size)))
        for encoded, counts in self._pool.map(lambda number, scratch: self._block(number, kind, scratch), numbers):
            self._counts.append(counts)
            yield encoded

    def _block(self, number: int, kind: str, scratch: Scratch) -> tuple[Encoded, "_Counts"]:
        base, digest = _finite(self._entry, number, self._reader, scratch, "base")
        new = _finite(self._replaced, number, self._reader, scratch, "new")[0] if self._replaced else None
        difference = self._difference(base, new, number * BLOCK)
        counts = _Counts(difference.index.size, _squares(difference.high), _squares(base), digest)
        return encode(difference, len(base), kind, self._chain, scratch), counts

    def _difference(self, base: Array, new: Array | None, start: int) -> Difference:
        if self._product is None:
            return _ZERO if new is None else _exact(new, base)
        total = self._product.read(start, start + len(base))
        if new is not None:
            total += new.astype(np.float64) - base.astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            delta = total.astype(np.float32)
        if has_non_finite(delta):
            bad = first_non_finite(delta)
            raise CheckpointError(
                f"{self._entry.name!r}: the adapter's factors make {total[bad]:g} at entry {start + bad}, beyond the "
                f"range of float32. The adapter is broken."
            )
        index = np.flatnonzero(delta)
        return Difference(index, delta[index].astype(np.float64), np.zeros(index.size))


@dataclass(frozen=True)
class _Counts:
    """Of one block."""

    changed: int
    squares: float
    base_squares: float
    digest: bytes


def _squares(values: Array) -> float:
    total = LaneSum()
    total.add(values, values)
    return total.total()


def _exact(new: Array, base: Array) -> Difference:
    """The difference of two tensors of any float dtypes; float32 holds both."""
    if new.dtype == base.dtype:
        return subtract(new, base)
    return subtract(new.astype(np.float32), base.astype(np.float32))


def _finite(entry: TensorEntry, number: int, reader: TensorReader, scratch: Scratch, role: str) -> tuple[Array, bytes]:
    """A block of a tensor and its digest. Raises CheckpointError for NaN and infinity."""
    values, digest = read_tensor_block(entry, number, reader, scratch, role)
    if has_non_finite(values):
        bad = first_non_finite(values)
        raise CheckpointError(
            f"{entry.path}: {entry.name!r} holds {float(values[bad])} at entry {number * BLOCK + bad}. A difference "
            f"with NaN or infinity means nothing and would spoil every model it is added to; it is broken."
        )
    return values, digest


def _write_donor(staging: Staging, base: Checkpoint, names: list[str], reader: TensorReader) -> None:
    """Keep what `check` needs to know of the base: its small files and a sample of its weights."""
    for name in base.small_files():
        staging.copy(f"{DONOR}/{name}", base.path / name)
    write_small_tensors(staging, str(SAMPLE), {name: sample(base, name, reader) for name in names})


def _document(
    records: Mapping[str, Any],
    writer: VectorWriter,
    adapter: LoraAdapter,
    base: Checkpoint,
    copies: Mapping[str, str],
    reader: TensorReader,
) -> dict[str, Any]:
    """What vector.json says, but for the list of files. The adapter stands where the tuned donor would."""
    carried = {name: digest_of(entry, reader) for name, entry in base.tensors.items() if name not in records}
    adapter_digests = {name: digest_of(entry, reader) for name, entry in adapter.checkpoint.tensors.items()}
    digests = {**carried, **{name: record["base_digest"] for name, record in records.items()}}
    tensors = {
        name: {
            **writer.describe(name), "checkpoint_dtype": record["grid"], "rounding": 0.0,
            "steps": [0] * len(STEP_BINS), **{key: record[key] for key in ("changed", "norm", "base_norm")},
        }
        for name, record in sorted(records.items())
    }  # fmt: skip
    return {
        "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), "formula": "scaling * B A",
        "imported": {"kind": "lora"},
        "donors": {"tuned": describe_checkpoint(adapter.checkpoint, adapter_digests),
                   "base": describe_checkpoint(base, digests)},
        "only": [], "skip": [], "left_out": [], "tied": dict(copies), "relation": None,
        "carried": {
            name: {"shape": list(base.tensors[name].shape), "dtype": base.tensors[name].dtype, "digest": digest}
            for name, digest in carried.items()
        },
        "step_bins": list(STEP_BINS), "options": {"encoding": "auto"}, "tensors": tensors,
    }  # fmt: skip
