"""`extract`: the difference of two donors, tensor by tensor, exact to the bit, in constant memory."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.alignment import DonorMatch, NameFilter, match_donors
from reasonvec.weights.arithmetic import STEP_BINS, random_words, stream_key
from reasonvec.weights.blocks import Scratch, Workers, blocks, tensor_digest
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, tensor_reader
from reasonvec.weights.dtypes import EXACT_CHAIN
from reasonvec.weights.hub import locate_checkpoint, locate_vector, recorded_location
from reasonvec.weights.kernel import Survey, survey, survey_bfloat16
from reasonvec.weights.output import Nowhere, Staging, check_output, destination, staged
from reasonvec.weights.provenance import (
    check_unchanged,
    describe_checkpoint,
    exceeds_memory,
    input_identity,
    places,
    tool,
)
from reasonvec.weights.relation import Relation, relate
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sources import DonorPair, Proof
from reasonvec.weights.tensors import digest_of, read_run
from reasonvec.weights.vector import DONOR, FORMAT, FORMAT_VERSION, SAMPLE, Vector
from reasonvec.weights.vector_writer import Encoded, Encoding, VectorWriter, encode, write_small_tensors

Progress = Callable[[int], None]
"""Called with the number of bytes of input that were just finished."""

SAMPLE_BLOCKS, SAMPLE_ENTRIES = 16, 64
"""The base donor's weights that a vector keeps of each tensor, so that `check` can tell a target's lineage later."""

NEARLY_EMPTY = 0.001
NOISY = 0.1


@dataclass(frozen=True)
class Extraction:
    """What `extract` made and what it noticed."""

    vector: Vector
    relation: Relation | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        deltas = self.vector.deltas.values()
        parameters, changed = sum(delta.size for delta in deltas), sum(delta.changed for delta in deltas)
        return {
            "path": str(places([self.vector])[0]),
            "fingerprint": self.vector.fingerprint,
            "tensors": len(deltas),
            "parameters": parameters,
            "changed": changed,
            "unchanged_share": 1 - changed / parameters if parameters else None,
            "norm": math.sqrt(sum(delta.norm**2 for delta in deltas)),
            "base_norm": math.sqrt(sum(delta.base_norm**2 for delta in deltas)),
            "left_out": sorted(self.vector.left_out),
            "tied": self.vector.tied,
            "relation": self.relation.to_json() if self.relation else None,
            "warnings": list(self.warnings),
        }


def extract(
    *,
    tuned: str | Path,
    base: str | Path,
    out: str | Path,
    ancestor: str | Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    encoding: Encoding = "auto",
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Extraction:
    """Write the vector `tuned - base` to the new directory `out`.

    `encoding` is how deltas are stored: `dense`, `sparse` (the changed entries alone, compressed), or `auto`, for each
    tensor the smaller of the two. `workers` threads share the work; the bytes do not depend on their number.

    Each delta is exact: `base + delta` rebuilds `tuned` bit for bit (-0.0 and 0.0 count as equal) for float32,
    bfloat16 and float16 donors. Donors of different dtypes are put on the coarser grid first. With `ancestor`, also
    says how the donors descend from it.

    Raises IncompatibleError if the donors do not fit, CheckpointError for a damaged, unsafe or non-finite donor,
    UsageError for a pattern in `only` or `skip` that matches nothing, OutputError if `out` cannot be written.
    """
    if encoding not in ("auto", "dense", "sparse"):
        raise UsageError(f"encoding is auto, dense or sparse, not {encoding!r}.")
    place = destination(out, offline=offline)
    where = {"offline": offline, "follow_links": follow_links}
    tuned_checkpoint, base_checkpoint = locate_checkpoint(tuned, **where), locate_checkpoint(base, **where)
    ancestor_checkpoint = locate_checkpoint(ancestor, **where) if ancestor is not None else None
    inputs = [c for c in (tuned_checkpoint, base_checkpoint, ancestor_checkpoint) if c]
    check_output(place, force=force, resume=resume, inputs=places(inputs))
    names = NameFilter(only, skip)
    names.check(tuned_checkpoint.tensors.keys() | base_checkpoint.tensors.keys())
    match = match_donors(tuned_checkpoint, base_checkpoint, names)
    if not match.computed:
        raise IncompatibleError(f"{tuned} and {base} have no floating-point tensor in common; there is no difference.")
    identity = input_identity(inputs)
    plan = {"operation": "extract", "tool": tool(), "inputs": identity, "only": list(only), "skip": list(skip),
            "encoding": encoding}  # fmt: skip
    shapes = {name: base_checkpoint.tensors[name].shape for name in match.computed}
    needed = _least_bytes(base_checkpoint, shapes, encoding)
    relation = None
    if ancestor_checkpoint:
        untied = [name for name in shapes if name not in match.tied]
        relation = relate(tuned=tuned_checkpoint, base=base_checkpoint, ancestor=ancestor_checkpoint, names=untied)
    with (
        staged(place, plan=plan, needed=needed, resume=resume, force=force) as staging,
        tensor_reader(drop_behind=exceeds_memory(inputs)) as reader,
        Workers(workers) as pool,
    ):
        writer = VectorWriter(staging, shapes, encoding)
        for name in shapes:
            if name not in staging.finished:
                donors = (tuned_checkpoint.tensors[name], base_checkpoint.tensors[name])
                record = _Tensor(*donors, match.computed[name], reader, pool).write(writer)
                staging.finish(name, record, record["nbytes"])
            progress(tuned_checkpoint.tensors[name].nbytes + base_checkpoint.tensors[name].nbytes)
        check_unchanged(inputs, identity)
        writer.finish_files()
        _write_donor(staging, base_checkpoint, shapes, reader)
        document = _document(
            staging.finished, writer, match, tuned_checkpoint, base_checkpoint, names, relation, encoding, reader
        )
        check_unchanged(inputs, identity)
        # written last: its presence means that the vector is whole
        writer.write_document(document)
    vector = locate_vector(place if isinstance(place, Path) else str(place))
    return Extraction(vector, relation, _warnings(vector, tuned_checkpoint, base_checkpoint, relation))


def _least_bytes(base: Checkpoint, shapes: Mapping[str, tuple[int, ...]], encoding: Encoding) -> int:
    """What the vector will take, as far as it can be told before the donors are read."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    small = sum((base.path / name).stat().st_size for name in base.small_files())
    small += sum(2 * min(size, SAMPLE_BLOCKS * SAMPLE_ENTRIES) for size in sizes)
    if encoding == "dense":  # float32 is what most deltas of bfloat16 donors need; a few may turn out wider
        return small + sum(4 * size for size in sizes)
    return small + sum(68 * len(blocks(size)) for size in sizes)


class _Tensor:
    """The difference of one tensor, and what is counted on the way."""

    def __init__(self, tuned: TensorEntry, base: TensorEntry, grid: str, reader: TensorReader, pool: Workers) -> None:
        self._chain, self._pool = EXACT_CHAIN[grid], pool
        self._pair, self._size = DonorPair(tuned, base, grid, reader), base.size
        self._counts: list[_Counts] = []

    def write(self, writer: VectorWriter) -> dict[str, Any]:
        """Write the delta; the record that the journal keeps."""
        written = writer.write(self._chain, self._encoded)
        tuned_digest, base_digest = (tensor_digest(counts.proof[role] for counts in self._counts) for role in (0, 1))
        return {
            **written.to_json(), "changed": sum(counts.survey.changed for counts in self._counts),
            "steps": np.sum([counts.survey.steps for counts in self._counts], axis=0).tolist(),
            "norm": math.sqrt(sum(counts.survey.squares for counts in self._counts)),
            "base_norm": math.sqrt(sum(counts.survey.base_squares for counts in self._counts)),
            "rounding": sum(counts.rounding for counts in self._counts),
            "tuned_digest": tuned_digest, "base_digest": base_digest,
        }  # fmt: skip

    def _encoded(self, kind: str) -> Iterator[Encoded]:
        self._counts = []
        numbers = range(len(blocks(self._size)))
        for encoded, counts in self._pool.map(lambda number, scratch: self._block(number, kind, scratch), numbers):
            self._counts.append(counts)
            yield encoded

    def _block(self, number: int, kind: str, scratch: Scratch) -> tuple[Encoded, "_Counts"]:
        pair = self._pair.read(number, scratch)
        count = len(pair.tuned)
        if pair.short is not None:
            encoded = encode(pair.short, count, kind, self._chain, scratch)
            return encoded, _Counts(survey_bfloat16(pair.tuned, pair.base, pair.short), pair.proof, pair.rounding)
        difference = pair.long
        encoded = encode(difference, count, kind, self._chain, scratch)
        high = np.zeros(count)
        high[difference.index] = difference.high
        return encoded, _Counts(survey(pair.tuned, pair.base, high), pair.proof, pair.rounding)


@dataclass(frozen=True)
class _Counts:
    """Of one block."""

    survey: Survey
    proof: Proof
    rounding: float


def _write_donor(staging: Staging, base: Checkpoint, names: Mapping[str, Any], reader: TensorReader) -> None:
    """Keep what `check` needs to know of the base donor: its small files and a sample of its weights."""
    for name in base.small_files():
        staging.copy(f"{DONOR}/{name}", base.path / name)
    write_small_tensors(staging, str(SAMPLE), {name: sample(base, name, reader) for name in names})


def sample(checkpoint: Checkpoint, name: str, reader: TensorReader) -> "np.ndarray[Any, Any]":
    """Some entries of a tensor, the same for every checkpoint: all of a small one, else `SAMPLE_BLOCKS` runs of
    `SAMPLE_ENTRIES` entries from places that only the name and size decide."""
    entry = checkpoint.tensors[name]
    if entry.size <= SAMPLE_BLOCKS * SAMPLE_ENTRIES:
        return read_run(entry, 0, entry.size, reader)
    words = random_words(stream_key(0, "sample", name), 0, SAMPLE_BLOCKS)
    starts = np.sort(words % np.uint64(entry.size - SAMPLE_ENTRIES + 1))
    runs = ((int(start), int(start) + SAMPLE_ENTRIES) for start in starts)
    return np.concatenate([read_run(entry, *run, reader, alone=True) for run in runs])


def recompute_document(
    vector: Vector, *, offline: bool, follow_links: bool, progress: Progress, pool: Workers
) -> dict[str, Any]:
    """Extract a vector again from the donors at the places that it names, write nothing, and return what vector.json
    would say. Raises CheckpointError or IncompatibleError where they are gone or no longer fit."""

    def locate(document: Mapping[str, Any]) -> Checkpoint:
        return locate_checkpoint(recorded_location(document), offline=offline, follow_links=follow_links)

    tuned, base = (locate(vector.document["donors"][role]) for role in ("tuned", "base"))
    names = NameFilter(vector.document["only"], vector.document["skip"])
    match = match_donors(tuned, base, names)
    shapes = {name: base.tensors[name].shape for name in match.computed}
    relation = None
    if vector.document["relation"]:
        ancestor = locate_checkpoint(str(vector.document["relation"].get("ancestor")), offline=offline)
        relation = relate(tuned=tuned, base=base, ancestor=ancestor, names=[n for n in shapes if n not in match.tied])
    nowhere = Nowhere()
    encoding = vector.document["options"]["encoding"]
    writer = VectorWriter(nowhere, shapes, encoding)
    with tensor_reader(drop_behind=exceeds_memory([tuned, base])) as reader:
        for name in shapes:
            entries = (tuned.tensors[name], base.tensors[name])
            nowhere.finish(name, _Tensor(*entries, match.computed[name], reader, pool).write(writer), 0)
            progress(tuned.tensors[name].nbytes + base.tensors[name].nbytes)
        return _document(nowhere.finished, writer, match, tuned, base, names, relation, encoding, reader)


def _document(
    records: Mapping[str, Any],
    writer: VectorWriter,
    match: DonorMatch,
    tuned: Checkpoint,
    base: Checkpoint,
    names: NameFilter,
    relation: Relation | None,
    encoding: Encoding,
    reader: TensorReader,
) -> dict[str, Any]:
    """What vector.json says, but for the list of files."""
    carried = {name: digest_of(base.tensors[name], reader) for name in match.carried}
    donors = {
        role: describe_checkpoint(donor, {**carried, **{name: records[name][f"{role}_digest"] for name in records}})
        for role, donor in (("tuned", tuned), ("base", base))
    }
    tensors = {
        name: {
            **writer.describe(name), "checkpoint_dtype": match.computed[name],
            **{key: records[name][key] for key in ("changed", "norm", "base_norm", "rounding", "steps")},
        }
        for name in sorted(match.computed)
    }  # fmt: skip
    return {
        "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), "formula": "tuned - base",
        "donors": donors, "only": list(names.only), "skip": list(names.skip), "left_out": list(match.left_out),
        "tied": dict(match.tied), "relation": relation.to_json() if relation else None,
        "carried": {
            name: {"shape": list(base.tensors[name].shape), "dtype": base.tensors[name].dtype, "digest": digest}
            for name, digest in carried.items()
        },
        "step_bins": list(STEP_BINS), "options": {"encoding": encoding}, "tensors": tensors,
    }  # fmt: skip


def _warnings(vector: Vector, tuned: Checkpoint, base: Checkpoint, relation: Relation | None) -> tuple[str, ...]:
    """What a user should know of a vector that is whole and yet may not be what was meant."""
    found = []
    entries = sum(delta.size for delta in vector.deltas.values())
    changed = sum(delta.changed for delta in vector.deltas.values())
    if changed == 0:
        found.append("The vector is empty: the donors are equal in every entry. Adding it changes nothing. Did you "
                     "name the same checkpoint twice, or was the training lost when it was saved?")  # fmt: skip
    elif changed < NEARLY_EMPTY * entries:
        found.append(f"The vector is nearly empty: {changed} of {entries} entries differ ({changed / entries:.2%}). "
                     f"Training in pure bfloat16 at a small learning rate rounds most steps away; see docs/method.md."
                     )  # fmt: skip
    squares = sum(delta.norm**2 for delta in vector.deltas.values())
    rounding = sum(float(info["rounding"]) for info in vector.document["tensors"].values())
    if rounding > 0:
        share = math.sqrt(rounding / squares) if squares else math.inf
        found.append(
            f"The donors differ in dtype, so the finer one was rounded to the grid of the coarser. That moved it by "
            f"{math.sqrt(rounding):.3g}, which is {share:.0%} of the vector's norm {math.sqrt(squares):.3g}; the "
            f"coarser donor carries as much rounding of its own"
            + ("." if share < NOISY else ", so much of this vector is rounding noise. Save both donors in one dtype.")
        )
    if len({delta.checkpoint_dtype for delta in vector.deltas.values()} - {"F32"}) > 1:
        found.append("The donors mix bfloat16 and float16 tensors; each delta is on its own grid.")
    if relation and relation.case in ("parallel", "unclear"):
        found.append(relation.explanation)
    return tuple(found)
