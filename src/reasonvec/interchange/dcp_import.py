"""`import dcp`: a distributed checkpoint of torch becomes an ordinary one, with the names, configuration and tokenizer
of the checkpoint that it was trained from. Weights keep their dtype and every bit, unless another dtype is asked for.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError, IncompatibleError, UsageError
from reasonvec.interchange.dcp_chunks import assemble
from reasonvec.interchange.dcp_metadata import DistributedCheckpoint, StoredTensor, open_dcp
from reasonvec.interchange.names import Renaming, renamings
from reasonvec.interchange.ties import Ties
from reasonvec.weights.alignment import Misfit, NameFilter, listing
from reasonvec.weights.arithmetic import has_non_finite, rounded
from reasonvec.weights.checkpoint import INDEX, SINGLE, Checkpoint, tensor_reader
from reasonvec.weights.documents import format_document
from reasonvec.weights.dtypes import BITS_PER_ENTRY, FLOATS, Array, format_named
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.job import Shard
from reasonvec.weights.output import Staging, check_output, staged
from reasonvec.weights.provenance import absolute, check_unchanged, input_identity, tool
from reasonvec.weights.receipt import FORMAT_VERSION, RECEIPT
from reasonvec.weights.safetensors_header import format_header
from reasonvec.weights.stores import local_directory
from reasonvec.weights.vector_writer import file_checksums

FORMAT = "reasonvec.conversion"

Progress = Callable[[int], None]
"""Called with the number of bytes of weights that were just finished."""


@dataclass(frozen=True)
class DcpImport:
    """What `import_dcp` made and what it left out."""

    out: Path
    tensors: Mapping[str, str]
    """Tensor name -> dtype in the output."""
    shards: Mapping[str, int]
    """Bytes of tensors by shard name."""
    prefix: str
    """What stood before the model's names in the distributed checkpoint; `(nothing)` where they agree."""
    ignored: tuple[str, ...]
    """Names in the distributed checkpoint that are not the model's."""
    tied: tuple[str, ...]
    """Names of copies that were not written: the configuration ties them."""
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "path": str(self.out), "tensors": len(self.tensors), "dtypes": sorted(set(self.tensors.values())),
            "shards": dict(self.shards), "prefix": self.prefix, "ignored": list(self.ignored), "tied": list(self.tied),
            "warnings": list(self.warnings),
        }  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """Which tensor of the distributed checkpoint becomes which of the output."""

    sources: Mapping[str, StoredTensor]
    renaming: Renaming
    ignored: tuple[str, ...]
    copies: Mapping[str, str]
    """Name in the distributed checkpoint that must equal, bit for bit, the one with this name in the output."""
    tied: tuple[str, ...]
    """Names of `like` that need not be there."""


def import_dcp(
    directory: str | Path,
    *,
    like: str | Path,
    out: str | Path,
    dtype: str = "keep",
    prefix: str | None = None,
    skip: Sequence[str] = (),
    max_shard_bytes: int = 5_000_000_000,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> DcpImport:
    """Write the model of the distributed checkpoint `directory` as an ordinary checkpoint to the new directory `out`.

    `prefix` is what stands before the model's names where that is not found by itself; `skip` are globs of names to
    leave out; `dtype` rounds floating-point tensors to `float32`, `bfloat16` or `float16`. Memory: one tensor. Nothing
    is unpickled.

    Raises UsageError if `directory` or `out` is an address in a store; CheckpointError for damaged or unsafe input,
    NaN, infinity and values beyond the range of `dtype`; IncompatibleError listing every tensor that differs from those
    of `like`; OutputError if `out` cannot be written.
    """
    if dtype not in ("keep", "float32", "bfloat16", "float16"):
        raise UsageError(f"dtype is keep, float32, bfloat16 or float16, not {dtype!r}.")
    out = local_directory(out, "--out")
    stored = open_dcp(local_directory(directory, "The distributed checkpoint"), follow_links=follow_links)
    model = locate_checkpoint(like, offline=offline, follow_links=follow_links)
    check_output(out, force=force, inputs=(stored.path, model.path))
    plan = _plan(stored, model, prefix, skip)
    formats = {name: _out_dtype(tensor, dtype) for name, tensor in plan.sources.items()}
    shards = _shards(plan.sources, formats, max_shard_bytes)
    identity, files = input_identity([model]), _state(stored)
    options = {"dtype": dtype, "prefix": prefix, "skip": list(skip), "max_shard_bytes": max_shard_bytes}
    described = {"operation": "import dcp", "tool": tool(), "inputs": {**identity, **files}, **options}
    needed = sum(shard.nbytes for shard in shards)
    with staged(out, plan=described, needed=needed, resume=resume, force=force) as staging:
        for shard in shards:
            _write_shard(shard, plan, staging, progress)
        _check_copies(stored, plan)
        _write_small_files(staging, model, formats, shards)
        check_unchanged([model], identity)
        if _state(stored) != files:
            raise CheckpointError(f"{stored.path} changed while it was being read. The result would mix two versions, "
                                  f"so it was thrown away; run again when nothing writes to it.")  # fmt: skip
        sizes = {Path(file).name: state[0] for file, state in files.items()}
        document = {
            "format": FORMAT, "format_version": FORMAT_VERSION, "tool": tool(), **options,
            "distributed": {"location": absolute(str(directory)), "files": sizes},
            "like": {"location": absolute(model.location), "revision": model.revision},
            "tensors": {name: staging.finished[name] for name in sorted(formats)},
            "files": file_checksums(staging, RECEIPT, without={shard.name for shard in shards}),
        }  # fmt: skip
        # written last: its presence means that the checkpoint is whole
        staging.put(RECEIPT, format_document(document))
    names = {name: FLOATS[code].name if code in FLOATS else code for name, code in formats.items()}
    return DcpImport(out, names, {shard.name: shard.nbytes for shard in shards}, plan.renaming.theirs or "(nothing)",
                     plan.ignored, plan.tied, _warnings(plan, formats))  # fmt: skip


def _state(stored: DistributedCheckpoint) -> dict[str, list[int]]:
    """Path -> size and time of change (nanoseconds) of every file that is read."""
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in stored.files}


def _plan(stored: DistributedCheckpoint, model: Checkpoint, prefix: str | None, skip: Sequence[str]) -> _Plan:
    """Match the names. Raises IncompatibleError with everything that does not, UsageError for patterns without a match
    or a prefix that has to be chosen."""
    names = NameFilter((), skip)
    names.check(stored.tensors)
    theirs = {name: tensor for name, tensor in stored.tensors.items() if name in names}
    with tensor_reader() as reader:
        ties = Ties(model, reader)
        copies = ties.copies()
    renaming = _choose(stored, model, theirs, copies, prefix)
    found = {name: theirs.get(renaming.to_theirs(name) or "") for name in model.tensors}
    tied = tuple(name for name in copies if found[name] is None and found[copies[name]] is not None)
    sources = {name: tensor for name, tensor in found.items() if tensor is not None}
    misfits = [
        *(Misfit(name, "missing", f"missing; expected as {renaming.to_theirs(name) or name}")
          for name in model.tensors if name not in sources and name not in tied),
        *(misfit for name, tensor in sources.items() for misfit in _fit(name, tensor, model)),
    ]  # fmt: skip
    used, tops = {tensor.name for tensor in sources.values()}, {name.split(".")[0] for name in model.tensors}
    same, ignored = {}, [*stored.others]
    for name in sorted(stored.tensors.keys() - used):
        ours = renaming.to_ours(name) if name in theirs else None
        twin = ties.stored(ours) if ours else None
        if ours is None or ours.split(".")[0] not in tops | {"lm_head"}:
            ignored.append(name)
        elif twin in sources:
            same[name] = twin
        else:
            misfits.append(Misfit(ours, "extra", f"in the distributed checkpoint as {name}, not in {model.location}"))
    if misfits:
        raise IncompatibleError(
            f"{stored.path} is not of the model {model.location}: {len(misfits)} tensors differ:\n{listing(misfits)}\n"
            f"Only all of a model is converted. Give the checkpoint that it was trained from as --like, name what "
            f"stands before the model's names with --prefix, or leave extra tensors out by name with --skip."
        )
    return _Plan(sources, renaming, tuple(ignored), same, tied)


def _choose(
    stored: DistributedCheckpoint,
    model: Checkpoint,
    theirs: Mapping[str, StoredTensor],
    copies: Mapping[str, str],
    prefix: str | None,
) -> Renaming:
    """The one prefix under which all of the model is found; of none that has it all the one that has most."""
    if prefix is not None:
        return Renaming(theirs=prefix)
    needed = [name for name in model.tensors if name not in copies]

    def count(renaming: Renaming) -> int:
        return sum((renaming.to_theirs(name) or "") in theirs for name in needed)

    counts = {renaming: count(renaming) for renaming in renamings(theirs, model.tensors)}
    whole = [renaming for renaming, number in counts.items() if number == len(needed)]
    if len(whole) > 1:
        prefixes = " and ".join(repr(renaming.theirs) for renaming in whole)
        raise UsageError(f"{stored.path} holds {len(whole)} whole models, under the prefixes {prefixes}, such as "
                         f"weights and their running average. Say which one with --prefix.")  # fmt: skip
    return whole[0] if whole else max(counts, key=lambda renaming: counts[renaming])


def _fit(name: str, tensor: StoredTensor, model: Checkpoint) -> list[Misfit]:
    entry = model.tensors[name]
    if tensor.shape != entry.shape:
        return [Misfit(name, "shape", f"shape {tensor.shape} in the distributed checkpoint, {entry.shape} in --like")]
    if tensor.dtype not in BITS_PER_ENTRY or (tensor.dtype in FLOATS) != (entry.dtype in FLOATS):
        return [Misfit(name, "dtype", f"dtype {tensor.dtype} in the distributed checkpoint, {entry.dtype} in --like")]
    return []


def _out_dtype(tensor: StoredTensor, dtype: str) -> str:
    return format_named(dtype).code if dtype != "keep" and tensor.dtype in FLOATS else tensor.dtype


def _shards(sources: Mapping[str, StoredTensor], formats: Mapping[str, str], largest: int) -> list[Shard]:
    """The files of the output; a shard has at most `largest` bytes of tensors, or one larger tensor."""
    groups: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, tensor in sorted(sources.items()):
        nbytes = tensor.size * BITS_PER_ENTRY[formats[name]] // 8
        if groups[-1] and filled + nbytes > largest:
            groups.append([])
            filled = 0
        groups[-1].append((name, formats[name], tensor.shape))
        filled += nbytes
    names = [SINGLE] if len(groups) == 1 else [
        f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)
    ]  # fmt: skip
    # the widest dtypes first, as safetensors orders them, so that every tensor is aligned
    ordered = [sorted(group, key=lambda t: (-BITS_PER_ENTRY[t[1]], t[0])) for group in groups]
    return [Shard(name, tuple(group)) for name, group in zip(names, ordered, strict=True)]


def _write_shard(shard: Shard, plan: _Plan, staging: Staging, progress: Progress) -> None:
    header = format_header(shard.tensors, {"format": "pt"})
    staging.file(shard.name, len(header) + shard.nbytes)
    staging.write(shard.name, 0, header)
    position = len(header)
    for name, dtype, shape in shard.tensors:
        nbytes = math.prod(shape) * BITS_PER_ENTRY[dtype] // 8
        if name not in staging.finished:
            data = _values(plan.sources[name], dtype).view(np.uint8).data
            if nbytes:
                staging.write(shard.name, position, data)
            staging.finish(name, hashlib.sha256(data).hexdigest(), nbytes)
        position += nbytes
        progress(nbytes)
    staging.complete(shard.name)


def _values(tensor: StoredTensor, dtype: str) -> Array:
    """The entries of a tensor in the output's dtype. Raises CheckpointError for NaN, infinity and what is too large."""
    bits = assemble(tensor).reshape(-1)
    if tensor.dtype not in FLOATS:
        return bits
    values: Array = bits.view(FLOATS[tensor.dtype].numpy)
    if has_non_finite(values):
        raise CheckpointError(f"{tensor.chunks[0].path}: {tensor.name!r} holds NaN or infinity. A model with it among "
                              f"its weights is broken; take an earlier checkpoint of the run.")  # fmt: skip
    if dtype == tensor.dtype:
        return values
    with np.errstate(over="ignore", under="ignore"):
        short = rounded(values.astype(np.float32), FLOATS[dtype])
    if has_non_finite(short):
        raise CheckpointError(f"{tensor.name!r} holds values beyond the range of {FLOATS[dtype].name}. Choose another "
                              f"--dtype.")  # fmt: skip
    return short


def _check_copies(stored: DistributedCheckpoint, plan: _Plan) -> None:
    """What the configuration ties must be equal in the distributed checkpoint: only one of the two is kept."""
    for name, twin in plan.copies.items():
        copy, kept = stored.tensors[name], plan.sources[twin]
        if (copy.dtype, copy.shape) != (kept.dtype, kept.shape) or not np.array_equal(assemble(copy), assemble(kept)):
            raise IncompatibleError(
                f"{stored.path}: {name} differs from {kept.name}, which the configuration of --like says are one. "
                f"Training has untied them, and one tensor cannot hold both. Give a --like that stores both and has "
                f"tie_word_embeddings false in its config.json."
            )


def _write_small_files(
    staging: Staging, model: Checkpoint, formats: Mapping[str, str], shards: Sequence[Shard]
) -> None:
    for name in model.small_files():
        staging.copy(name, model.path / name)
    fields = [field for field in ("torch_dtype", "dtype") if field in model.config] or ["dtype"]
    floats = {code for code in formats.values() if code in FLOATS}
    # the finest of them: loaded in a coarser one, the others would lose bits
    dtype = FLOATS[max(floats, key=lambda code: FLOATS[code].significand)].name if floats else None
    if model.config and dtype and any(model.config.get(field) != dtype for field in fields):
        config = model.config | dict.fromkeys(fields, dtype)
        staging.put("config.json", (json.dumps(config, indent=2) + "\n").encode())
    if len(shards) > 1:
        weight_map = {name: shard.name for shard in shards for name, _, _ in shard.tensors}
        index = {"metadata": {"total_size": sum(shard.nbytes for shard in shards)}, "weight_map": weight_map}
        staging.put(INDEX, (json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def _warnings(plan: _Plan, formats: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    if plan.ignored:
        tops = sorted({name.split(".")[0] for name in plan.ignored})
        found.append(f"{len(plan.ignored)} entries that are not the model's were left out, as those of an optimizer "
                     f"are: under {', '.join(tops[:6])}{' ...' if len(tops) > 6 else ''}.")  # fmt: skip
    kinds = sorted({code for code in formats.values() if code in FLOATS})
    if len(kinds) > 1:
        found.append(f"The tensors are of several dtypes ({', '.join(FLOATS[code].name for code in kinds)}); each was "
                     f"kept, and config.json names the finest.")  # fmt: skip
    return tuple(found)
