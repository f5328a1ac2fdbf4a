"""`apply` and `transfer`: target + sum of alpha * vector, streamed in constant memory, with a receipt.

Only how bytes flow is here; what belongs together is in `alignment`, the numbers are in `arithmetic`, and where deltas
come from is in `sources`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.alignment import Misfit, NameFilter, Twins, listing, match_donors, match_names
from reasonvec.weights.arithmetic import stream_key
from reasonvec.weights.checkpoint import INDEX, SINGLE, Checkpoint, TensorReader, layer_of, tensor_reader
from reasonvec.weights.compatibility import donor_findings, includes_embedding
from reasonvec.weights.documents import format_document
from reasonvec.weights.dtypes import BITS_PER_ENTRY, FLOATS, format_named
from reasonvec.weights.enhance import Enhanced, Sink, copy_tensor, enhance_tensor
from reasonvec.weights.findings import Finding
from reasonvec.weights.hub import locate_checkpoint, locate_vector
from reasonvec.weights.output import Staging, check_output, staged
from reasonvec.weights.provenance import (
    absolute,
    check_unchanged,
    describe_checkpoint,
    fingerprint,
    input_identity,
    tool,
)
from reasonvec.weights.receipt import FORMAT, FORMAT_VERSION, RECEIPT, RealisedAlpha
from reasonvec.weights.safetensors_header import TensorEntry, format_header
from reasonvec.weights.sources import DeltaSource, DonorDeltas, StoredDeltas
from reasonvec.weights.vector import Vector
from reasonvec.weights.vector_writer import file_checksums

Rounding = Literal["nearest", "stochastic"]
Progress = Callable[[int], None]

MOST = 1e30
"""Alphas beyond this would leave the range of float32 with any delta."""

MISSED = 0.05
"""A realised alpha further from the requested one than this share is worth a warning."""


@dataclass(frozen=True)
class Options:
    """How a vector is added. Saved in the receipt."""

    only: tuple[str, ...] = ()
    """Globs of tensor names that take part; all where empty."""
    skip: tuple[str, ...] = ()
    """Globs of tensor names that stay as they are in the target."""
    rounding: Rounding = "nearest"
    seed: int = 0
    """Of stochastic rounding."""
    dtype: str = "keep"
    """Of the output's floating-point tensors: `keep`, `float32`, `bfloat16` or `float16`."""
    max_shard_bytes: int = 5_000_000_000
    """A shard holds at most this many bytes of tensors, or a single larger tensor."""

    def __post_init__(self) -> None:
        if self.rounding not in ("nearest", "stochastic"):
            raise UsageError(f"rounding is nearest or stochastic, not {self.rounding!r}.")
        if self.dtype not in ("keep", "float32", "bfloat16", "float16"):
            raise UsageError(f"dtype is keep, float32, bfloat16 or float16, not {self.dtype!r}.")
        if self.max_shard_bytes < 1:
            raise UsageError("the largest shard size must be positive.")

    def to_json(self) -> dict[str, Any]:
        """As the receipt holds it."""
        return {"only": list(self.only), "skip": list(self.skip), "rounding": self.rounding, "seed": self.seed,
                "dtype": self.dtype, "max_shard_bytes": self.max_shard_bytes}  # fmt: skip

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> "Options":
        """The inverse of `to_json`."""
        return cls(**{**options, "only": tuple(options["only"]), "skip": tuple(options["skip"])})


@dataclass(frozen=True)
class Term:
    """One summand: alpha times the deltas of a source, and which of them goes to which tensor of the target."""

    alpha: float
    source: DeltaSource
    pairs: Mapping[str, str]
    """Tensor name in the target -> name of its delta in the source."""


@dataclass(frozen=True)
class Application:
    """What `apply` or `transfer` did, or with `dry_run` would do."""

    out: Path
    shards: Mapping[str, int]
    """Bytes of tensors by shard name."""
    changed_tensors: int
    kept_tensors: int
    realised: RealisedAlpha | None
    """None after a dry run."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "path": str(self.out),
            "dry_run": self.realised is None,
            "shards": dict(self.shards),
            "changed_tensors": self.changed_tensors,
            "kept_tensors": self.kept_tensors,
            "realised_alpha": self.realised.to_json() if self.realised else None,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Shard:
    """One file of the output and the tensors in it, in the order of their data."""

    name: str
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    """Name, dtype and shape."""

    @property
    def nbytes(self) -> int:
        """Bytes of tensors."""
        return sum(math.prod(shape) * BITS_PER_ENTRY[dtype] // 8 for _, dtype, shape in self.tensors)


def apply(
    *,
    vectors: Sequence[tuple[str | Path, float]],
    target: str | Path,
    out: str | Path,
    options: Options = Options(),
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Application:
    """Write `target + sum(alpha * vector)` over the pairs (vector, alpha) to the new directory `out`.

    Computed in float32 (float64 where the output is float32) and rounded once. Entries without a delta keep their
    bits; alpha 0 returns the target. Configuration, tokenizer, chat template and generation settings are the target's.

    Raises IncompatibleError listing every misfit, CheckpointError and VectorError for damaged or unsafe inputs and for
    sums beyond the output's range, UsageError for patterns that match nothing, OutputError if `out` cannot be written.
    """
    job = plan_apply(vectors=vectors, target=target, options=options, follow_links=follow_links, offline=offline)
    return job.run(Path(out), dry_run=dry_run, resume=resume, force=force, progress=progress)


def plan_apply(
    *,
    vectors: Sequence[tuple[str | Path, float]],
    target: str | Path,
    options: Options,
    follow_links: bool = False,
    offline: bool = False,
) -> "Job":
    """Open and check everything that `apply` needs; raises what it raises, but for the output."""
    if not vectors:
        raise UsageError("apply needs at least one vector.")
    checkpoint = locate_checkpoint(target, offline=offline, follow_links=follow_links)
    opened = [(locate_vector(location, offline=offline), alpha) for location, alpha in vectors]
    inputs = [describe_vector(vector, alpha) for vector, alpha in opened]
    job = Job("apply", checkpoint, options, [vector for vector, _ in opened], {"vectors": inputs})
    job.add([(alpha, StoredDeltas(vector), vector.donor()) for vector, alpha in opened])
    return job


def describe_vector(vector: Vector, alpha: float) -> dict[str, Any]:
    """What a receipt says of a vector."""
    return {"location": absolute(vector.location), "revision": vector.revision, "fingerprint": vector.fingerprint,
            "alpha": alpha}  # fmt: skip


def transfer(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    out: str | Path,
    alpha: float = 1.0,
    options: Options = Options(),
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Application:
    """Write `target + alpha * (tuned - base)` to `out` in one pass, with no vector stored between.

    Gives the bytes that `extract` and then `apply` would; raises what they raise.
    """
    job = plan_transfer(tuned=tuned, base=base, target=target, alpha=alpha, options=options,
                        follow_links=follow_links, offline=offline)  # fmt: skip
    return job.run(Path(out), dry_run=dry_run, resume=resume, force=force, progress=progress)


def plan_transfer(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    alpha: float,
    options: Options,
    follow_links: bool = False,
    offline: bool = False,
) -> "Job":
    """Open and check everything that `transfer` needs; raises what it raises, but for the output."""
    donors = [locate_checkpoint(d, offline=offline, follow_links=follow_links) for d in (tuned, base)]
    checkpoint = locate_checkpoint(target, offline=offline, follow_links=follow_links)
    job = Job("transfer", checkpoint, options, donors, {"alpha": alpha})
    # a pattern may match names of the donors or of the target only; `add` checks it against all of them
    match = match_donors(donors[0], donors[1], job.names)
    if not match.computed:
        raise IncompatibleError(f"{tuned} and {base} have no floating-point tensor in common; there is no difference.")
    source = DonorDeltas(donors[0], donors[1], match)
    job.add([(alpha, source, donors[1])])
    return job


class Job:
    """What is to be written, planned from headers and small files; `run` writes it."""

    def __init__(
        self, operation: str, target: Checkpoint, options: Options, inputs: Sequence[Checkpoint | Vector],
        described: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.operation, self.target, self.options = operation, target, options
        self.inputs = [target, *inputs]
        self.described = dict(described)
        self.names = NameFilter(options.only, options.skip)
        self.terms: list[Term] = []
        self._twins: Twins | None = None
        self.warnings: list[str] = []

    def add(self, summands: Sequence[tuple[float, DeltaSource, Checkpoint]]) -> None:
        """Take in the summands (alpha, deltas, the small files of their base donor).

        Raises IncompatibleError with every misfit of all of them, UsageError for a pattern that matches nothing.
        """
        known = {name for _, source, _ in summands for name in (*source.forms, *source.carried, *source.left_out)}
        self.names.check(known | self.target.tensors.keys())
        misfits: dict[str, list[Misfit]] = {}
        findings: list[Finding] = []
        for alpha, source, donor in summands:
            if not abs(alpha) <= MOST:
                raise UsageError(f"alpha is {alpha}; it must be a finite number, at most {MOST:g} in size.")
            pairs, bad = match_names(
                source.forms, source.carried, source.left_out, source.tied, self.target, self.names
            )
            if bad:
                misfits[source.location] = bad
            self.terms.append(Term(alpha, source, pairs))
            findings += donor_findings(donor, self.target, includes_embedding(self.target, pairs))
        self._refuse(misfits, findings)
        self.warnings += [f"{f.title}: {f.evidence} {f.advice}" for f in findings if f.level == "warning"]

    def _refuse(self, misfits: Mapping[str, list[Misfit]], findings: Sequence[Finding]) -> None:
        problems = [
            f"{location} does not fit {self.target.location}: {len(bad)} tensors differ:\n{listing(bad)}"
            for location, bad in misfits.items()
        ]
        problems += [f"{f.title}: {f.evidence} {f.advice}" for f in findings if f.level == "blocking"]
        if problems:
            raise IncompatibleError("\n".join(problems) + (
                "\nA vector is added whole or not at all: part of one makes a model that nobody trained. Use a target "
                "of the donors' architecture, or leave tensors out by name with --skip."
            ))  # fmt: skip

    def shards(self) -> list[Shard]:
        """The files of the output. They depend on the tensors and the largest shard size, not on the input's shards."""
        groups: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
        filled = 0
        for name, entry in sorted(self.target.tensors.items()):
            dtype = self.out_dtype(entry)
            nbytes = entry.size * BITS_PER_ENTRY[dtype] // 8
            if groups[-1] and filled + nbytes > self.options.max_shard_bytes:
                groups.append([])
                filled = 0
            groups[-1].append((name, dtype, entry.shape))
            filled += nbytes
        names = [SINGLE] if len(groups) == 1 else [
            f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)
        ]  # fmt: skip
        # the widest dtypes first, as safetensors orders them, so that every tensor is aligned
        ordered = [sorted(group, key=lambda t: (-BITS_PER_ENTRY[t[1]], t[0])) for group in groups]
        return [Shard(name, tuple(group)) for name, group in zip(names, ordered, strict=True)]

    def out_dtype(self, entry: TensorEntry) -> str:
        """The dtype that a tensor of the target gets in the output."""
        if self.options.dtype == "keep" or entry.dtype not in FLOATS:
            return entry.dtype
        return format_named(self.options.dtype).code

    def active(self, name: str) -> list[tuple[float, DeltaSource, str]]:
        """The summands of a tensor: alpha, source, name of the delta. Those with alpha 0 are none."""
        return [(term.alpha, term.source, term.pairs[name]) for term in self.terms
                if name in term.pairs and term.alpha != 0]  # fmt: skip

    def compute(self, name: str, reader: TensorReader, sink: Sink) -> Enhanced:
        """Stream one tensor of the output to `sink`."""
        entry = self.target.tensors[name]
        active, dtype = self.active(name), self.out_dtype(entry)
        if not active and dtype == entry.dtype:
            return copy_tensor(entry, reader, sink)
        terms = [(alpha, source.open(delta, reader)) for alpha, source, delta in active]
        key = None
        if self.options.rounding == "stochastic" and active:
            # tied tensors share a stream, so that they stay equal
            first = min([name, *self.twins(name, reader)])
            key = stream_key(self.options.seed, "rounding", first)
        return enhance_tensor(entry, FLOATS[dtype], terms, reader, sink, stochastic_key=key)

    def twins(self, name: str, reader: TensorReader) -> list[str]:
        """The tensors of the target that are copies of this one."""
        if self._twins is None:
            self._twins = Twins(self.target, reader)
        return self._twins.of(name)

    def configuration(self) -> bytes | None:
        """The output's config.json where it is not the target's own: another dtype is written into it."""
        if self.options.dtype == "keep" or not self.target.config:
            return None
        fields = [field for field in ("torch_dtype", "dtype") if field in self.target.config] or ["dtype"]
        config: dict[str, Any] = self.target.config | dict.fromkeys(fields, self.options.dtype)
        return (json.dumps(config, indent=2) + "\n").encode()

    def run(self, out: Path, *, dry_run: bool, resume: bool, force: bool, progress: Progress) -> Application:
        """Write the output, or with `dry_run` only say what would be written."""
        check_output(out, force=force, inputs=tuple(source.path for source in self.inputs))
        shards = self.shards()
        realised = None
        if not dry_run:
            realised = self._write(out, shards, resume=resume, force=force, progress=progress)
            self.warnings += self._missed(realised)
        changed = sum(bool(self.active(name)) for name in self.target.tensors)
        return Application(
            out, {shard.name: shard.nbytes for shard in shards}, changed, len(self.target.tensors) - changed,
            realised, tuple(self.warnings),
        )  # fmt: skip

    def _write(
        self, out: Path, shards: Sequence[Shard], *, resume: bool, force: bool, progress: Progress
    ) -> RealisedAlpha:
        identity = input_identity(self.inputs)
        plan = {"operation": self.operation, "tool": tool(), "inputs": identity, "options": self.options.to_json(),
                **self.described}  # fmt: skip
        small = self.target.small_files()
        needed = sum(shard.nbytes for shard in shards) + sum((self.target.path / n).stat().st_size for n in small)
        with staged(out, plan=plan, needed=needed, resume=resume, force=force) as staging:
            with tensor_reader() as reader:
                for shard in shards:
                    self._write_shard(shard, staging, reader, progress)
            for name in small:
                staging.copy(name, self.target.path / name)
            if configuration := self.configuration():
                staging.put("config.json", configuration)
            if len(shards) > 1:
                staging.put(INDEX, _index(shards))
            check_unchanged(self.inputs, identity)
            claims = self.claims(shards, staging.finished)
            files = file_checksums(staging, RECEIPT, without={shard.name for shard in shards})
            # written last: its presence means that the checkpoint is whole
            staging.put(RECEIPT, format_document({**claims, "files": files}))
        return self.realised(staging.finished)

    def _write_shard(self, shard: Shard, staging: Staging, reader: TensorReader, progress: Progress) -> None:
        header = format_header(shard.tensors, {"format": "pt"})
        staging.file(shard.name, len(header) + shard.nbytes)
        staging.write(shard.name, 0, header)
        position = len(header)
        for name, dtype, shape in shard.tensors:
            if name not in staging.finished:
                begin = position

                def sink(offset: int, data: memoryview, begin: int = begin) -> None:
                    staging.write(shard.name, begin + offset, data)

                record = self.record(name, reader, sink)
                staging.finish(name, record, self.target.tensors[name].nbytes)
            progress(self.target.tensors[name].nbytes)
            position += math.prod(shape) * BITS_PER_ENTRY[dtype] // 8
        staging.complete(shard.name)

    def record(self, name: str, reader: TensorReader, sink: Sink) -> dict[str, Any]:
        """Stream one tensor of the output to `sink`; what the journal keeps of it."""
        return {**self.compute(name, reader, sink).to_json(), "donors": self._donor_digests(name)}

    def _donor_digests(self, name: str) -> dict[str, tuple[str, str]]:
        """By name of the delta, the SHA-256 of what was read of tuned and of base for this tensor."""
        return {delta: source.digests[delta] for _, source, delta in self.active(name)
                if isinstance(source, DonorDeltas)}  # fmt: skip

    def realised(self, records: Mapping[str, Any]) -> RealisedAlpha:
        sums: dict[str, list[float]] = {}
        for name in sorted(self.target.tensors):
            layer = layer_of(name)
            for group in ("all", "other" if layer is None else str(layer)):
                total = sums.setdefault(group, [0.0, 0.0])
                total[0] += records[name]["asked"]
                total[1] += records[name]["realised"]
        ratio = {group: got / asked if asked else None for group, (asked, got) in sums.items()}
        overall = ratio.pop("all")
        order = sorted(ratio, key=lambda group: (not group.isdigit(), int(group) if group.isdigit() else 0))
        return RealisedAlpha(overall, {group: ratio[group] for group in order})

    def _missed(self, realised: RealisedAlpha) -> list[str]:
        """The warning that nothing was added, or that the target's grid swallowed or magnified the change."""
        if realised.overall is None:
            if any(term.alpha for term in self.terms):
                return ["Nothing was added: the vector is zero in all tensors that take part."]
            return []
        if abs(realised.overall - 1) <= MISSED:
            return []
        alphas = ", ".join(f"{term.alpha:g} became {term.alpha * realised.overall:.3g}" for term in self.terms)
        return [
            f"Rounding to the target's dtype changed alpha: {alphas} ({realised.overall:.1%} of what was asked). A "
            f"step smaller than half a unit in the last place is rounded away, a larger one to a whole unit; see "
            f"docs/method.md. Use --rounding stochastic, or --dtype float32."
        ]

    def claims(self, shards: Sequence[Shard], records: Mapping[str, Any]) -> dict[str, Any]:
        """What the receipt says, but for the list of files; `verify` computes it again and compares."""
        described = dict(self.described)
        pairs = {delta: pair for record in records.values() for delta, pair in record["donors"].items()}
        for source in (term.source for term in self.terms if isinstance(term.source, DonorDeltas)):
            for index, (role, donor) in enumerate((("tuned", source.tuned), ("base", source.base))):
                described[role] = describe_checkpoint(donor, {delta: pair[index] for delta, pair in pairs.items()})
        outputs = [
            (TensorEntry(name, dtype, shape, Path(shard.name), 0, 0), records[name]["sha256"])
            for shard in shards for name, dtype, shape in shard.tensors
        ]  # fmt: skip
        realised = self.realised(records)
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), "operation": self.operation,
            "formula": "target + sum(alpha * delta)",
            "target": describe_checkpoint(self.target, {n: records[n]["input_sha256"] for n in self.target.tensors}),
            **described, "options": self.options.to_json(), "realised_alpha": realised.to_json(),
            "warnings": [*self.warnings, *self._missed(realised)], "fingerprint": fingerprint(outputs),
            "tensors": {entry.name: digest for entry, digest in sorted(outputs, key=lambda pair: pair[0].name)},
        }  # fmt: skip


def _index(shards: Sequence[Shard]) -> bytes:
    weight_map = {name: shard.name for shard in shards for name, _, _ in shard.tensors}
    index = {"metadata": {"total_size": sum(shard.nbytes for shard in shards)}, "weight_map": weight_map}
    return (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
