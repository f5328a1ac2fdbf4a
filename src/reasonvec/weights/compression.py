"""`compress`: a smaller vector that is only nearly the same, with the error that this makes, measured from what was
written. Never by default: `extract` stores without loss.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import IncompatibleError, UsageError, VectorError
from reasonvec.weights.alignment import NameFilter, listing, match_names
from reasonvec.weights.arithmetic import STEP_BINS, Doubles, Indices, check_seed
from reasonvec.weights.blocks import Workers
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, tensor_reader
from reasonvec.weights.hub import locate_checkpoint, locate_vector, recorded_donor
from reasonvec.weights.loss import Loss, measure, together
from reasonvec.weights.lossy import Inputs, LowRank, Method, Quantisation, Selection, Thinning
from reasonvec.weights.modules import KINDS, kind_of
from reasonvec.weights.output import Staging, check_output, destination, staged
from reasonvec.weights.provenance import (
    absolute,
    check_unchanged,
    exceeds_memory,
    fingerprint,
    input_identity,
    places,
    tool,
)
from reasonvec.weights.sources import StoredDeltas, stored_blocks
from reasonvec.weights.tensors import digest_of
from reasonvec.weights.vector import DONOR, SAMPLE, Delta, Vector, lossy_method
from reasonvec.weights.vector_writer import VectorWriter

Progress = Callable[[int], None]
"""Called with the number of bytes of the vector that were just finished."""

MANY_ZEROS = 0.5
"""With more zeros than this share, one bit is a bad choice: it has none."""


@dataclass(frozen=True)
class Compression:
    """What `compress` made."""

    vector: Vector
    nbytes: int
    """Of all deltas as they are stored now."""
    nbytes_before: int
    warnings: tuple[str, ...]

    @property
    def lossy(self) -> Mapping[str, Any]:
        """Method, parameters and errors, as vector.json has them."""
        assert self.vector.lossy is not None
        return self.vector.lossy

    @property
    def method(self) -> str:
        """In a few words."""
        return lossy_method(self.lossy)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"path": str(places([self.vector])[0]), "fingerprint": self.vector.fingerprint, "bytes": self.nbytes,
                "bytes_before": self.nbytes_before, "lossy": self.lossy, "warnings": list(self.warnings)}  # fmt: skip


def compress(
    *,
    vector: str | Path,
    out: str | Path,
    rank: int | None = None,
    density: float | None = None,
    select: Selection | None = None,
    rescale: bool = False,
    bits: int | None = None,
    target: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Compression:
    """Write a smaller vector that is nearly `vector` to the new directory `out`, and say how nearly.

    One of: `rank`, of each matrix the best approximation of that rank, by the randomised method of `spectrum`;
    `density`, that share of each tensor's entries that are not zero, the largest or by `select` "random" ones, with
    `rescale` divided by the density; `bits` 8, 4 or 1, integers with scales. What has no matrices, and matrices of
    which factors would be no smaller, are kept exactly; a density takes from every tensor. `seed` fixes what is random.

    The errors are measured by reading again what was written: relative error and cosine, and the share of the entries
    of the base donor + vector that are not the same bits as with the exact vector; the donor is read where it was at
    extraction. With `target`, that is the checkpoint instead. The bytes do not depend on `workers`.

    Raises UsageError unless one method is chosen and makes something smaller, and for a vector that is lossy already or
    a seed that is negative or beyond 64 bits;
    VectorError for one that is damaged, IncompatibleError for a target that it does not fit, OutputError if `out`
    cannot be written.
    """
    method = _method(rank, density, select, rescale, bits)
    check_seed(seed)
    original = locate_vector(vector, offline=offline)
    if original.lossy:
        raise UsageError(
            f"{vector} is lossy already ({lossy_method(original.lossy)}). The error of a second loss would be told "
            f"against the first, not against the exact vector; compress that one instead."
        )
    receiver, unmeasured = _receiver(original, target, offline=offline, follow_links=follow_links)
    inputs: list[Checkpoint | Vector] = [original, *([receiver.checkpoint] if receiver else [])]
    place = destination(out, offline=offline)
    check_output(place, force=force, resume=resume, inputs=places(inputs))
    exact = {name: reason for name, delta in original.deltas.items() if (reason := method.why_exact(delta))}
    if len(exact) == len(original.deltas):
        largest = max(original.deltas.values(), key=lambda delta: delta.size)
        raise UsageError(
            f"{method.option} would keep every tensor of {vector} exactly; the largest, {largest.name!r} of shape "
            f"{list(largest.shape)}, {exact[largest.name]}. Use the vector as it is, or ask for less."
        )
    identity = input_identity(inputs)
    plan = {
        "operation": "compress", "tool": tool(), "inputs": identity, "method": method.name,
        "parameters": method.parameters, "seed": seed, "measured_on": receiver.location if receiver else None,
    }  # fmt: skip
    needed = sum(
        delta.entry.nbytes if name in exact else method.nbytes(delta) for name, delta in original.deltas.items()
    )
    with (
        staged(place, plan=plan, needed=needed, resume=resume, force=force) as staging,
        tensor_reader(drop_behind=exceeds_memory(inputs)) as reader,
        Workers(workers) as pool,
    ):
        writer = VectorWriter(staging, {name: delta.shape for name, delta in original.deltas.items()})
        work = _Work(method, seed, Inputs(StoredDeltas(original), reader, pool), writer, receiver)
        for name, delta in original.deltas.items():
            if name not in staging.finished:
                record = work.compress(delta, exactly=name in exact)
                staging.finish(name, record, record["nbytes"])
            progress(delta.entry.nbytes)
        writer.finish_files()
        _copy_donor(staging, original)
        records = staging.finished
        if receiver and target is None and not _is_base(original, receiver.checkpoint, records, reader):
            unmeasured = (f"what lies at {receiver.location} now is not the base donor that {vector} was extracted "
                          f"from.")  # fmt: skip
            receiver = None
        lossy = {
            "method": method.name, "parameters": method.parameters, "seed": seed,
            "of": {"location": absolute(original.location), "fingerprint": original.fingerprint},
            "measured_on": receiver.location if receiver else None,
            "kept_exactly": sorted(exact),
            **_errors(records, measured=receiver is not None),
        }  # fmt: skip
        check_unchanged(inputs, identity)
        # written last: its presence means that the vector is whole
        writer.write_document(_document(original, writer, lossy, records))
    made = locate_vector(place if isinstance(place, Path) else str(place))
    before, after = (sum(delta.entry.nbytes for delta in each.deltas.values()) for each in (original, made))
    return Compression(made, after, before, _warnings(original, method, after, before, unmeasured))


def _method(
    rank: int | None, density: float | None, select: Selection | None, rescale: bool, bits: int | None
) -> Method:
    chosen = [
        f"--{name}" for name, value in (("rank", rank), ("density", density), ("bits", bits)) if value is not None
    ]
    if len(chosen) != 1:
        raise UsageError(f"compress needs one of --rank, --density and --bits, not {' and '.join(chosen) or 'none'}.")
    if density is not None:
        return Thinning(density, select or "magnitude", rescale)
    if select or rescale:
        raise UsageError(f"--select and --rescale belong to --density; {chosen[0]} keeps every entry.")
    if rank is not None:
        return LowRank(rank)
    assert bits is not None
    return Quantisation(bits)


@dataclass(frozen=True)
class _Receiver:
    """The checkpoint to which the exact and the lossy vector are added, to see what changes."""

    checkpoint: Checkpoint
    tensors: Mapping[str, str]
    """Name of a delta -> of the tensor it is added to."""
    base: bool
    """Whether it is the base donor."""

    @property
    def location(self) -> str:
        """Where it is."""
        return absolute(self.checkpoint.location)


def _receiver(
    vector: Vector, target: str | Path | None, *, offline: bool, follow_links: bool
) -> tuple[_Receiver | None, str | None]:
    """The receiver, or why there is none."""
    if target is None:
        try:
            base = recorded_donor(vector, "base", offline=offline)
        except VectorError as error:
            return None, str(error)
        return _Receiver(base, {name: name for name in vector.deltas}, True), None
    checkpoint = locate_checkpoint(target, offline=offline, follow_links=follow_links)
    source = StoredDeltas(vector)
    pairs, bad = match_names(source.forms, source.carried, source.left_out, source.tied, checkpoint, NameFilter((), ()))
    if bad:
        raise IncompatibleError(
            f"{vector.location} does not fit {target}, on which the loss was to be measured: {len(bad)} tensors "
            f"differ:\n{listing(bad)}\nName a checkpoint that it fits, or leave --target out."
        )
    return _Receiver(checkpoint, {delta: name for name, delta in sorted(pairs.items(), reverse=True)}, False), None


@dataclass(frozen=True)
class _Work:
    """How one tensor after another is written and measured."""

    method: Method
    seed: int
    inputs: Inputs
    writer: VectorWriter
    receiver: _Receiver | None

    def compress(self, delta: Delta, *, exactly: bool) -> dict[str, Any]:
        """Write a delta, read it again and compare; the record that the journal keeps."""
        deltas, reader = self.inputs.deltas, self.inputs.reader
        if exactly:
            residual = deltas.vector.residuals[delta.name] if delta.residual else _listed([])
            written = self.writer.copy(delta, residual, reader)
        else:
            written = self.method.write(delta, self.inputs, self.writer, self.seed)
        stored = replace(delta, encoding=written.encoding, entry=self.writer.entry(delta.name, written),
                         digest=written.digest, residual=len(written.residual))  # fmt: skip
        weights, dtype = None, delta.checkpoint_dtype
        if self.receiver and delta.name in self.receiver.tensors:
            weights = self.receiver.checkpoint.tensors[self.receiver.tensors[delta.name]]
            dtype = dtype if self.receiver.base else weights.dtype
        with tensor_reader() as again:  # of its own: the file may be removed when it turns out to be of another kind
            found = measure(
                exact=deltas.blocks(delta.name, reader), lossy=stored_blocks(stored, _listed(written.residual), again),
                size=delta.size, weights=weights, dtype=dtype, reader=reader, pool=self.inputs.pool,
            )  # fmt: skip
        return {
            **written.to_json(), "loss": dict(vars(found.loss)), "weights_digest": found.weights_digest,
            "changed": found.not_zero,
            "norm": delta.norm if exactly else math.sqrt(found.loss.lossy_squares),
        }  # fmt: skip


def _listed(residual: Sequence[Sequence[float]]) -> tuple[Indices, Doubles]:
    """Entries and low parts, as arrays."""
    entries, low = ([pair[i] for pair in residual] for i in (0, 1))
    return np.array(entries, np.int64), np.array(low, np.float64)


def _copy_donor(staging: Staging, vector: Vector) -> None:
    donor = vector.donor()
    for name in donor.small_files():
        staging.copy(f"{DONOR}/{name}", donor.path / name)
    if (vector.path / SAMPLE).is_file():
        staging.copy(str(SAMPLE), vector.path / SAMPLE)


def _is_base(vector: Vector, base: Checkpoint, records: Mapping[str, Any], reader: TensorReader) -> bool:
    """Whether what was read has the fingerprint of the base donor at extraction."""
    if any(name not in base.tensors for name in vector.carried):
        return False
    digests = {name: records[name]["weights_digest"] for name in vector.deltas}
    digests |= {name: digest_of(base.tensors[name], reader) for name in vector.carried}
    found = fingerprint((base.tensors[name], digest) for name, digest in digests.items())
    return found == str(vector.document["donors"]["base"]["fingerprint"])


def _errors(records: Mapping[str, Any], *, measured: bool) -> dict[str, Any]:
    """Overall, by kind of module and by tensor."""
    losses = {name: Loss(**records[name]["loss"]) for name in sorted(records)}
    if not measured:
        losses = {name: replace(loss, entries=0, changed=0) for name, loss in losses.items()}
    kinds = {kind: [loss for name, loss in losses.items() if kind_of(name) == kind] for kind in KINDS}
    return {
        **together(losses.values()).to_json(),
        "kinds": {kind: together(found).to_json() for kind, found in kinds.items() if found},
        "tensors": {name: loss.to_json() for name, loss in losses.items()},
    }


def _document(
    original: Vector, writer: VectorWriter, lossy: Mapping[str, Any], records: Mapping[str, Any]
) -> dict[str, Any]:
    """What vector.json says, but for the list of files: all of what the exact vector's says of its donors."""
    tensors = {
        name: {
            **writer.describe(name), "checkpoint_dtype": delta.checkpoint_dtype, "changed": records[name]["changed"],
            "norm": records[name]["norm"], "base_norm": delta.base_norm,
            "rounding": original.document["tensors"][name]["rounding"],
            "steps": [0] * len(STEP_BINS),  # counted between donors; of some tensors only they would mislead
        }
        for name, delta in original.deltas.items()
    }  # fmt: skip
    kept = {key: value for key, value in original.document.items() if key not in ("files", "sha256")}
    return {**kept, "tool": tool(), "lossy": dict(lossy), "tensors": tensors}


def _warnings(original: Vector, method: Method, after: int, before: int, unmeasured: str | None) -> tuple[str, ...]:
    found = []
    if unmeasured:
        found.append(f"The share of changed entries could not be measured: {unmeasured} Name a checkpoint with "
                     f"--target to measure it on that one.")  # fmt: skip
    if after >= before:
        found.append(f"With {method.option} the deltas take {after} bytes and the exact ones {before}: nothing was won "
                     f"for what was lost. Use the exact vector.")  # fmt: skip
    entries = sum(delta.size for delta in original.deltas.values())
    zeros = entries - sum(delta.changed for delta in original.deltas.values())
    if method.parameters.get("bits") == 1 and zeros > MANY_ZEROS * entries:
        found.append(f"{zeros / entries:.0%} of the entries are zero, and one bit has no zero: each becomes minus the "
                     f"mean magnitude of its tensor. --density suits such a vector better.")  # fmt: skip
    return tuple(found)
