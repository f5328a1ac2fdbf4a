"""A job: target + sum of alpha * delta, planned from headers, streamed block by block in constant memory to one output
for each set of alphas, each with a receipt.

Only how bytes flow is here; what belongs together is in `alignment`, the numbers are in `enhance`, where deltas come
from is in `sources`, and how several machines share the work is in `cluster`.
"""

import json
import math
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.alignment import Misfit, NameFilter, Twins, listing, match_names
from reasonvec.weights.arithmetic import check_seed, stream_key
from reasonvec.weights.blocks import Scratch, Workers
from reasonvec.weights.checkpoint import INDEX, SINGLE, Checkpoint, TensorReader, layer_of, tensor_reader
from reasonvec.weights.compatibility import donor_findings, includes_embedding
from reasonvec.weights.documents import format_document
from reasonvec.weights.dtypes import BITS_PER_ENTRY, FLOATS, format_named
from reasonvec.weights.enhance import Enhanced, EnhancedBlock, Output, Sink, TensorWork
from reasonvec.weights.findings import Finding
from reasonvec.weights.output import Out, Staging, check_output, check_space, staged
from reasonvec.weights.provenance import (
    check_unchanged,
    describe_checkpoint,
    exceeds_memory,
    fingerprint,
    input_identity,
    places,
    tool,
)
from reasonvec.weights.receipt import FORMAT, FORMAT_VERSION, RECEIPT, RealisedAlpha
from reasonvec.weights.safetensors_header import TensorEntry, format_header
from reasonvec.weights.sources import DeltaSource, DonorDeltas
from reasonvec.weights.vector import Vector
from reasonvec.weights.vector_writer import file_checksums

Rounding = Literal["nearest", "stochastic"]
Progress = Callable[[int], None]
Write = Callable[[int, memoryview], None]
"""Writes to one file: byte position in the file, bytes. Called by several threads, in any order."""

Records = list[dict[str, Any]]
"""What the journal keeps of one tensor, one record for each output."""

Written = Generator[tuple[str, Records], None, None]
"""Names of tensors with their records."""

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
        check_seed(self.seed)
        if not 1 <= self.max_shard_bytes < 1 << 64:
            raise UsageError(f"the largest shard size is {self.max_shard_bytes} bytes; it must be from 1 to 2^64 - 1, "
                             f"which is what a receipt can record.")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As the receipt holds it."""
        return {"only": list(self.only), "skip": list(self.skip), "rounding": self.rounding, "seed": self.seed,
                "dtype": self.dtype, "max_shard_bytes": self.max_shard_bytes}  # fmt: skip

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> "Options":
        """The inverse of `to_json`."""
        return cls(**{**options, "only": tuple(options["only"]), "skip": tuple(options["skip"])})


DEFAULT = Options()


@dataclass(frozen=True)
class Term:
    """One summand: the deltas of a source, and which of them goes to which tensor of the target."""

    source: DeltaSource
    pairs: Mapping[str, str]
    """Tensor name in the target -> name of its delta in the source."""


@dataclass(frozen=True)
class Setting:
    """What tells one output of a job from the others."""

    alphas: tuple[float, ...]
    """One for each term."""
    described: Mapping[str, Any]
    """The same for the receipt: `vectors` or `alpha`."""


@dataclass(frozen=True)
class Application:
    """What `apply` or `transfer` did, or with `dry_run` would do."""

    out: Out
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
        return sum(nbytes for _, nbytes in self._sizes())

    @cached_property
    def header(self) -> bytes:
        """What the file begins with."""
        return format_header(self.tensors, {"format": "pt"})

    def places(self) -> Iterator[tuple[str, int]]:
        """The name of every tensor and the byte of the file where its data begins."""
        position = len(self.header)
        for name, nbytes in self._sizes():
            yield name, position
            position += nbytes

    def _sizes(self) -> Iterator[tuple[str, int]]:
        return ((name, math.prod(shape) * BITS_PER_ENTRY[dtype] // 8) for name, dtype, shape in self.tensors)


class Executor(Protocol):
    """Who computes and writes the tensors of a job: this process (`Threads`), or others for it (`cluster.Nodes`)."""

    def write(self, job: "Job", shards: Sequence[Shard], stagings: Sequence[Staging]) -> Written:
        """Write the files of every output, without the tensors that all stagings have finished; the name of each
        tensor with its records, in any order, once its data needs nothing but a commit of the stagings."""


class Job:
    """What is to be written, planned from headers and small files; `run` writes it."""

    def __init__(
        self, operation: str, target: Checkpoint, options: Options, inputs: Sequence[Checkpoint | Vector],
        settings: Sequence[Setting],
    ) -> None:  # fmt: skip
        for alpha in (alpha for setting in settings for alpha in setting.alphas):
            if not abs(alpha) <= MOST:
                raise UsageError(f"alpha is {alpha}; it must be a finite number, at most {MOST:g} in size.")
        self.operation, self.target, self.options = operation, target, options
        self.inputs, self.settings = [target, *inputs], settings
        self.names = NameFilter(options.only, options.skip)
        self.terms: list[Term] = []
        self.again: Callable[[], Job] | None = None
        """Plans the same job in another process, from the paths of the inputs."""
        self._twins: Twins | None = None
        self._warnings = [notice for vector in inputs if isinstance(vector, Vector) if (notice := vector.lossy_notice)]

    def add(self, summands: Sequence[tuple[DeltaSource, Checkpoint]]) -> None:
        """Take in the summands (deltas, the small files of their base donor), in the order of the settings' alphas.

        Raises IncompatibleError with every misfit of all of them, UsageError for a pattern that matches nothing.
        """
        known = {name for source, _ in summands for name in (*source.forms, *source.carried, *source.left_out)}
        self.names.check(known | self.target.tensors.keys())
        misfits: dict[str, list[Misfit]] = {}
        findings: list[Finding] = []
        for source, donor in summands:
            pairs, bad = match_names(
                source.forms, source.carried, source.left_out, source.tied, self.target, self.names
            )
            if bad:
                misfits[source.location] = bad
            self.terms.append(Term(source, pairs))
            findings += donor_findings(donor, self.target, includes_embedding(self.target, pairs))
        self._refuse(misfits, findings)
        self._warnings += [f"{f.title}: {f.evidence} {f.advice}" for f in findings if f.level == "warning"]

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

    def active(self, name: str) -> list[int]:
        """The terms that change a tensor in at least one output, by number."""
        return [number for number, term in enumerate(self.terms)
                if name in term.pairs and any(setting.alphas[number] for setting in self.settings)]  # fmt: skip

    def work(self, name: str, reader: TensorReader, sinks: Sequence[Sink]) -> TensorWork:
        """How one tensor of every output is computed."""
        entry, active = self.target.tensors[name], self.active(name)
        deltas = [self.terms[number].source.blocks(self.terms[number].pairs[name], reader) for number in active]
        key = None
        if self.options.rounding == "stochastic" and active:
            # tied tensors share a stream, so that they stay equal
            first = min([name, *self.twins(name, reader)])
            key = stream_key(self.options.seed, "rounding", first)
        outputs = [Output(tuple(setting.alphas[number] for number in active), sink)
                   for setting, sink in zip(self.settings, sinks, strict=True)]  # fmt: skip
        return TensorWork(entry, self.out_dtype(entry), deltas, outputs, reader, key)

    def works(
        self, shard: Shard, names: Container[str], reader: TensorReader, writes: Sequence[Write]
    ) -> Iterator[tuple[str, TensorWork]]:
        """How those tensors of a shard that are among `names` are computed and written, to one file for each output."""
        for name, begin in shard.places():
            if name in names:
                yield name, self.work(name, reader, [_sink(write, begin) for write in writes])

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

    def run(
        self, outs: Sequence[Out], *, dry_run: bool, resume: bool, force: bool, progress: Progress, executor: Executor
    ) -> list[Application]:
        """Write the outputs, one for each setting, or with `dry_run` only say what would be written."""
        for out in outs:
            check_output(out, force=force, resume=resume, inputs=places(self.inputs))
        shards = self.shards()
        changed = sum(bool(self.active(name)) for name in self.target.tensors)
        found: Sequence[RealisedAlpha | None] = [None] * len(outs)
        if not dry_run:
            found = self._write(outs, shards, resume=resume, force=force, progress=progress, executor=executor)
        return [
            Application(
                out, {shard.name: shard.nbytes for shard in shards}, changed, len(self.target.tensors) - changed,
                realised, tuple(self.warnings(setting, realised)),
            )
            for out, setting, realised in zip(outs, self.settings, found, strict=True)
        ]  # fmt: skip

    def _write(
        self, outs: Sequence[Out], shards: Sequence[Shard], *, resume: bool, force: bool, progress: Progress,
        executor: Executor,
    ) -> list[RealisedAlpha]:  # fmt: skip
        identity = input_identity(self.inputs)
        plan = {"operation": self.operation, "tool": tool(), "inputs": identity, "options": self.options.to_json()}
        small = self.target.small_files()
        needed = sum((self.target.path / name).stat().st_size for name in small)
        # of an output in a store one shard is written while another is sent; then its local copy goes
        sizes = sorted((shard.nbytes for shard in shards), reverse=True)
        needed += sum(sizes if isinstance(outs[0], Path) else sizes[:2])
        drop_behind = exceeds_memory(self.inputs)
        with ExitStack() as stack:
            stagings = [
                stack.enter_context(staged(out, plan={**plan, **setting.described}, needed=needed, resume=resume,
                                           force=force, drop_behind=drop_behind))
                for out, setting in zip(outs, self.settings, strict=True)
            ]  # fmt: skip
            check_space(stagings, needed)
            self._write_shards(shards, stagings, executor, progress)
            check_unchanged(self.inputs, identity)
            for staging, setting in zip(stagings, self.settings, strict=True):
                self._write_small_files(shards, staging, setting, small)
            check_unchanged(self.inputs, identity)
        return [self.realised(staging.finished) for staging in stagings]

    def _write_shards(
        self, shards: Sequence[Shard], stagings: Sequence[Staging], executor: Executor, progress: Progress
    ) -> None:
        finished = self.target.tensors.keys() - self.unfinished(stagings)
        if finished:
            progress(sum(self.target.tensors[name].nbytes for name in finished))
        # closed before the stagings are, whatever happens: until then something may still be written
        with closing(executor.write(self, shards, stagings)) as written:
            for name, records in written:
                for staging, record in zip(stagings, records, strict=True):
                    staging.finish(name, record, self.target.tensors[name].nbytes)
                progress(self.target.tensors[name].nbytes)

    def unfinished(self, stagings: Sequence[Staging]) -> set[str]:
        """The tensors that at least one of the outputs lacks."""
        return {name for name in self.target.tensors if not all(name in staging.finished for staging in stagings)}

    def _write_small_files(
        self, shards: Sequence[Shard], staging: Staging, setting: Setting, small: Sequence[str]
    ) -> None:
        for name in small:
            staging.copy(name, self.target.path / name)
        if configuration := self.configuration():
            staging.put("config.json", configuration)
        if len(shards) > 1:
            staging.put(INDEX, _index(shards))
        claims = self.claims(setting, shards, staging.finished)
        files = file_checksums(staging, RECEIPT, without={shard.name for shard in shards})
        # written last: its presence means that the checkpoint is whole
        staging.put(RECEIPT, format_document({**claims, "files": files}))

    def stream(self, works: Iterable[tuple[str, TensorWork]], pool: Workers) -> Iterator[tuple[str, Records]]:
        """Compute tensors; the name of each with its records."""

        def one(task: tuple[str, TensorWork, int], scratch: Scratch) -> tuple[str, TensorWork, EnhancedBlock]:
            name, work, number = task
            return name, work, work.block(number, scratch)

        found: list[EnhancedBlock] = []
        tasks = ((name, work, number) for name, work in works for number in range(work.count))
        for name, work, block in pool.map(one, tasks):
            found.append(block)
            if len(found) == work.count:
                yield name, self._records(name, work.finish(found))
                found = []

    def _records(self, name: str, enhanced: Sequence[Enhanced]) -> Records:
        return [{**one.to_json(), "donors": self._donor_digests(name, setting)}
                for one, setting in zip(enhanced, self.settings, strict=True)]  # fmt: skip

    def _donor_digests(self, name: str, setting: Setting) -> dict[str, tuple[str, str]]:
        """By name of the delta, the digests of what was read of tuned and of base for this tensor."""
        found = {}
        for number in self.active(name):
            source, delta = self.terms[number].source, self.terms[number].pairs[name]
            if isinstance(source, DonorDeltas) and setting.alphas[number]:
                found[delta] = source.digests[delta]
        return found

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

    def warnings(self, setting: Setting, realised: RealisedAlpha | None) -> list[str]:
        """What a user should know; with `realised`, that nothing was added, or that the target's grid swallowed or
        magnified the change."""
        found = list(self._warnings)
        if realised is None:
            return found
        if realised.overall is None:
            if any(setting.alphas):
                found.append("Nothing was added: the vector is zero in all tensors that take part.")
        elif abs(realised.overall - 1) > MISSED:
            alphas = ", ".join(f"{alpha:g} became {alpha * realised.overall:.3g}" for alpha in setting.alphas)
            found.append(
                f"Rounding to the target's dtype changed alpha: {alphas} ({realised.overall:.1%} of what was asked). A "
                f"step smaller than half a unit in the last place is rounded away, a larger one to a whole unit; see "
                f"docs/method.md. Use --rounding stochastic, or --dtype float32."
            )
        return found

    def claims(self, setting: Setting, shards: Sequence[Shard], records: Mapping[str, Any]) -> dict[str, Any]:
        """What the receipt says, but for the list of files; `verify` computes it again and compares."""
        described = dict(setting.described)
        pairs = {delta: pair for record in records.values() for delta, pair in record["donors"].items()}
        for source in (term.source for term in self.terms if isinstance(term.source, DonorDeltas)):
            for index, (role, donor) in enumerate((("tuned", source.tuned), ("base", source.base))):
                described[role] = describe_checkpoint(donor, {delta: pair[index] for delta, pair in pairs.items()})
        outputs = [
            (TensorEntry(name, dtype, shape, Path(shard.name), 0, 0), records[name]["digest"])
            for shard in shards for name, dtype, shape in shard.tensors
        ]  # fmt: skip
        realised = self.realised(records)
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), "operation": self.operation,
            "formula": "target + sum(alpha * delta)",
            "target": describe_checkpoint(self.target, {n: records[n]["input_digest"] for n in self.target.tensors}),
            **described, "options": self.options.to_json(), "realised_alpha": realised.to_json(),
            "warnings": self.warnings(setting, realised), "fingerprint": fingerprint(outputs),
            "tensors": {entry.name: digest for entry, digest in sorted(outputs, key=lambda pair: pair[0].name)},
        }  # fmt: skip


class Threads:
    """Computes and writes with threads of this process."""

    def __init__(self, count: int | None) -> None:
        self._count = count

    def write(self, job: Job, shards: Sequence[Shard], stagings: Sequence[Staging]) -> Written:
        """As `Executor` has it, one shard after the other."""
        unfinished = job.unfinished(stagings)
        lacking = [shard for shard in shards if any(name in unfinished for name, _ in shard.places())]
        last = {[name for name, _ in shard.places() if name in unfinished][-1]: shard.name for shard in lacking}
        with tensor_reader(drop_behind=exceeds_memory(job.inputs)) as reader, Workers(self._count) as pool:

            def works() -> Iterator[tuple[str, TensorWork]]:
                for shard in lacking:
                    begin_file(shard, stagings)
                    yield from job.works(shard, unfinished, reader, [partial(s.write, shard.name) for s in stagings])

            for name, records in job.stream(works(), pool):
                yield name, records
                if name in last:
                    for staging in stagings:
                        staging.complete(last[name])


def begin_file(shard: Shard, stagings: Sequence[Staging]) -> None:
    """Make the file of a shard in every output, with its size and its header."""
    for staging in stagings:
        staging.file(shard.name, len(shard.header) + shard.nbytes)
        staging.write(shard.name, 0, shard.header)


def _sink(write: Write, begin: int) -> Sink:
    return lambda offset, data: write(begin + offset, data)


def _index(shards: Sequence[Shard]) -> bytes:
    weight_map = {name: shard.name for shard in shards for name, _, _ in shard.tensors}
    index = {"metadata": {"total_size": sum(shard.nbytes for shard in shards)}, "weight_map": weight_map}
    return (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
