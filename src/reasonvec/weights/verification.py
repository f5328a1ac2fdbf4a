"""`verify`: recompute what a vector or an enhanced checkpoint says of itself, and compare it bit for bit."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError, IncompatibleError, VectorError, VerificationError
from reasonvec.weights.application import plan_apply, plan_transfer
from reasonvec.weights.blocks import Scratch, Workers, blocks, tensor_digest
from reasonvec.weights.checkpoint import INDEX, Checkpoint, TensorReader, open_checkpoint, tensor_reader
from reasonvec.weights.documents import first_difference
from reasonvec.weights.extraction import recompute_document
from reasonvec.weights.files import check_inside, sha256_of
from reasonvec.weights.hub import open_mirror, recorded_location
from reasonvec.weights.job import Job, Options
from reasonvec.weights.mirror import Mirror
from reasonvec.weights.provenance import exceeds_memory, fingerprint
from reasonvec.weights.receipt import RECEIPT, read_receipt
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sources import DeltaBlocks, Proof, StoredDeltas
from reasonvec.weights.stores import is_address
from reasonvec.weights.tensors import read_tensor_block
from reasonvec.weights.vector import DOCUMENT, Vector, open_vector

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Verification:
    """What was found to hold."""

    path: Path | str
    """Where it is: a directory, or an address in a store."""
    kind: str
    """`vector` or `enhanced checkpoint`."""
    tensors: int
    recomputed: bool
    """Whether the tensors were computed again from the inputs; False if only checksums were asked for."""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**vars(self), "path": str(self.path), "verified": True}


def verify(
    path: str | Path,
    *,
    checksums_only: bool = False,
    workers: int | None = None,
    offline: bool = False,
    follow_links: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Verification:
    """Check every file of a vector or an enhanced checkpoint against its checksums, then compute its tensors again from
    the inputs that it names, and compare them bit for bit.

    Raises VerificationError with the first thing that does not hold, or if an input is no longer where it was (with
    `checksums_only` inputs are not needed).
    """
    where = {"offline": offline, "follow_links": follow_links}

    def run(directory: Path, mirror: Mirror | None) -> Verification:
        with Workers(workers) as pool:
            return _verify(directory, mirror, pool, checksums_only=checksums_only, progress=progress, **where)

    if not is_address(path):
        return run(Path(path), None)
    mirror, _ = open_mirror(str(path), offline=offline)
    with mirror.named():
        return replace(run(mirror.path, mirror), path=str(mirror.directory))


def _verify(
    path: Path, mirror: Mirror | None, pool: Workers, *, checksums_only: bool, offline: bool, follow_links: bool,
    progress: Progress,
) -> Verification:  # fmt: skip
    where = {"offline": offline, "follow_links": follow_links}
    if (path / DOCUMENT).is_file():
        vector = open_vector(path, mirror=mirror)
        _check_files(path, vector.document["files"], DOCUMENT)
        _check_deltas(vector, pool)
        if not checksums_only:
            _recompute_vector(vector, pool, progress=progress, **where)
        return Verification(path, "vector", len(vector.deltas), not checksums_only)
    receipt = read_receipt(path)
    _check_files(path, receipt["files"], RECEIPT)
    _check_tensors(open_checkpoint(path, mirror=mirror), receipt, pool)
    if not checksums_only:
        _recompute_checkpoint(path, receipt, pool, progress=progress, **where)
    return Verification(path, "enhanced checkpoint", len(receipt["tensors"]), not checksums_only)


def _check_files(path: Path, files: Mapping[str, Mapping[str, Any]], document: str) -> None:
    """Size and checksum of every listed file, and that there are no others, but for a model card."""
    root = path.resolve()
    for name, info in files.items():
        file = root / name
        try:
            check_inside(file, root)
            size = file.stat().st_size
        except (CheckpointError, OSError) as error:
            raise VerificationError(f"{error} It was there when {path} was made.") from None
        if size != info["bytes"]:
            raise VerificationError(f"{file} should have {info['bytes']} bytes and has {size}. It was changed since.")
        if "sha256" in info and (digest := sha256_of(file)) != info["sha256"]:
            raise VerificationError(
                f"{file} has the SHA-256 {digest}, and {info['sha256']} was recorded when it was written. It was "
                f"changed since."
            )
    for file in sorted(root.rglob("*")):
        name = file.relative_to(root).as_posix()
        known = name in (*files, document, "README.md") or name.startswith(".")
        if not known and (file.is_symlink() or not file.is_dir()):  # a folder that is a link may lead anywhere
            raise VerificationError(
                f"{file} was not there when {path} was made. Other programs may read it with the rest; remove it."
            )


def _check_tensors(checkpoint: Checkpoint, receipt: Mapping[str, Any], pool: Workers) -> None:
    """Names, dtypes, shapes and data of the output against the receipt."""
    path = checkpoint.path
    if odd := sorted(checkpoint.tensors.keys() ^ receipt["tensors"].keys()):
        raise VerificationError(f"{path}: the tensors are not those of the receipt; {odd[0]} is in one of them only.")
    digests = {}
    with tensor_reader(drop_behind=exceeds_memory([checkpoint])) as reader:
        for entry, digest in _digests(checkpoint.tensors.values(), reader, pool):
            digests[entry.name] = digest
            if digest != receipt["tensors"][entry.name]:
                raise VerificationError(f"{entry.path}: {entry.name!r} does not match its checksum in the receipt. It "
                                        f"was changed after it was written.")  # fmt: skip
    if fingerprint((checkpoint.tensors[name], digest) for name, digest in digests.items()) != receipt["fingerprint"]:
        raise VerificationError(f"{path}: the data is that of the receipt, but a dtype or shape in the headers is not. "
                                f"The weights would be read as other numbers; it was changed since.")  # fmt: skip


def _digests(entries: Iterable[TensorEntry], reader: TensorReader, pool: Workers) -> Iterator[tuple[TensorEntry, str]]:
    """Every tensor with its digest."""

    def one(task: tuple[TensorEntry, int], scratch: Scratch) -> tuple[TensorEntry, bytes]:
        return task[0], read_tensor_block(*task, reader, scratch, "digest")[1]

    found: list[bytes] = []
    tasks = ((each, number) for each in entries for number in range(len(blocks(each.size))))
    for entry, digest in pool.map(one, tasks):
        found.append(digest)
        if len(found) == len(blocks(entry.size)):
            yield entry, tensor_digest(found)
            found = []


def _check_deltas(vector: Vector, pool: Workers) -> None:
    """Every block of every delta against its checksum, and the deltas against the document."""
    source = StoredDeltas(vector)
    try:
        with tensor_reader(drop_behind=exceeds_memory([vector])) as reader:
            for name, delta in vector.deltas.items():
                stored = source.blocks(name, reader)
                tasks = ((stored, number) for number in range(len(blocks(delta.size))))
                stored.finish(pool.map(_proof, tasks))
    except VectorError as error:
        raise VerificationError(str(error)) from error


def _proof(task: tuple[DeltaBlocks, int], scratch: Scratch) -> Proof:
    delta, number = task
    return delta.read(number, np.dtype(np.float32), scratch).proof


_NOT_COMPUTED = ("sha256", "files", "tool")
"""Of a document: its own checksum, what was checked on the disk, and the version that wrote it."""


def _compare(path: Path, document: Mapping[str, Any], computed: Mapping[str, Any]) -> None:
    claims = {key: value for key, value in document.items() if key not in _NOT_COMPUTED}
    again = {key: value for key, value in computed.items() if key not in _NOT_COMPUTED}
    if wrong := first_difference(claims, again):
        raise VerificationError(
            f"{path} is not what it says it is: {wrong}. An input was changed since it was made, or what it says was."
        )


def _recompute_vector(vector: Vector, pool: Workers, *, offline: bool, follow_links: bool, progress: Progress) -> None:
    if "control" in vector.document:
        raise VerificationError(f"{vector.path} holds random numbers, a control; its checksums hold. Use "
                                f"--checksums-only, or make it again from its seed to compare.")  # fmt: skip
    if "imported" in vector.document:
        raise VerificationError(f"{vector.path} was imported from an adapter and has no tuned donor; its checksums "
                                f"hold. Use --checksums-only, or import it again and compare the two.")  # fmt: skip
    if vector.lossy:
        raise VerificationError(f"{vector.path} is lossy; its checksums hold. Use --checksums-only, or compress the "
                                f"exact vector again and compare the two.")  # fmt: skip
    try:
        computed = recompute_document(vector, offline=offline, follow_links=follow_links, progress=progress, pool=pool)
    except (CheckpointError, IncompatibleError) as error:
        raise _unavailable(vector.path, error) from error
    _compare(vector.path, vector.document, computed)


def _job(receipt: Mapping[str, Any], *, offline: bool, follow_links: bool) -> Job:
    """The computation that a receipt speaks of, planned anew."""
    options = Options.from_json(receipt["options"])
    target = recorded_location(receipt["target"])
    if receipt["operation"] == "transfer":
        tuned, base = recorded_location(receipt["tuned"]), recorded_location(receipt["base"])
        return plan_transfer(tuned=tuned, base=base, target=target, alphas=[receipt["alpha"]], options=options,
                             offline=offline, follow_links=follow_links)  # fmt: skip
    vectors = [(recorded_location(vector), vector["alpha"]) for vector in receipt["vectors"]]
    return plan_apply(vectors=vectors, alphas=[1.0], target=target, options=options, offline=offline,
                      follow_links=follow_links)  # fmt: skip


def _unavailable(path: Path, error: Exception) -> VerificationError:
    return VerificationError(
        f"The checksums of {path} hold, but it could not be computed again: {error} Put the inputs back where they "
        f"were, or ask for --checksums-only."
    )


def _recompute_checkpoint(
    path: Path, receipt: Mapping[str, Any], pool: Workers, *, offline: bool, follow_links: bool, progress: Progress
) -> None:
    try:
        job = _job(receipt, offline=offline, follow_links=follow_links)
    except (CheckpointError, VectorError, IncompatibleError) as error:
        raise _unavailable(path, error) from error
    records = {}
    with tensor_reader(drop_behind=exceeds_memory(job.inputs)) as reader:
        works = ((name, job.work(name, reader, [lambda offset, data: None])) for name in job.target.tensors)
        for name, (record,) in job.stream(works, pool):
            # the digest of what is computed is compared with the one that the file was just held against
            records[name] = record
            progress(job.target.tensors[name].nbytes)
    _compare(path, receipt, job.claims(job.settings[0], job.shards(), records))
    _compare_small_files(path, receipt["files"], job)


def _compare_small_files(path: Path, files: Mapping[str, Mapping[str, Any]], job: Job) -> None:
    own = {shard.name for shard in job.shards()} | {INDEX}
    expected = {name: sha256_of(job.target.path / name) for name in job.target.small_files()}
    if configuration := job.configuration():
        expected["config.json"] = hashlib.sha256(configuration).hexdigest()
    found = {name: info.get("sha256") for name, info in files.items() if name not in own}
    if wrong := first_difference(found, expected):
        raise VerificationError(f"{path}: its small files are not the target's: {wrong}. They were changed since.")
