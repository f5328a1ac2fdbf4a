"""`verify`: recompute what a vector or an enhanced checkpoint says of itself, and compare it bit for bit."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reasonvec.errors import CheckpointError, IncompatibleError, VectorError, VerificationError
from reasonvec.weights.alignment import NameFilter, match_donors
from reasonvec.weights.application import Job, Options, plan_apply, plan_transfer
from reasonvec.weights.checkpoint import open_checkpoint, tensor_reader
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.receipt import read_receipt
from reasonvec.weights.sources import DonorDeltas, StoredDeltas, TensorTiles, tiles
from reasonvec.weights.vector import DOCUMENT, Vector, open_vector

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Verification:
    """What was found to hold."""

    path: Path
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
    offline: bool = False,
    follow_links: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Verification:
    """Check every file of a vector or an enhanced checkpoint against its checksums, then compute its tensors again from
    the inputs that it names, and compare them bit for bit.

    Raises VerificationError with the first thing that does not hold, or if an input is no longer where it was (with
    `checksums_only` inputs are not needed).
    """
    path = Path(path)
    if (path / DOCUMENT).is_file():
        vector = open_vector(path)
        _check_files(path, vector.document["files"])
        _check_deltas(vector)
        if not checksums_only:
            _recompute_vector(vector, offline=offline, follow_links=follow_links, progress=progress)
        return Verification(path, "vector", len(vector.deltas), not checksums_only)
    receipt = read_receipt(path)
    _check_files(path, receipt["files"])
    _check_tensors(path, receipt["tensors"])
    if not checksums_only:
        job = _job(receipt, offline=offline, follow_links=follow_links)
        _recompute_checkpoint(path, job, progress)
    return Verification(path, "enhanced checkpoint", len(receipt["tensors"]), not checksums_only)


def _check_files(path: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, info in files.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise VerificationError(f"{path} lists the file {name!r}, which lies outside of it.")
        if not file.is_file() or file.stat().st_size != info["bytes"]:
            found = f"has {file.stat().st_size}" if file.is_file() else "is missing"
            raise VerificationError(f"{file} should have {info['bytes']} bytes and {found}. It was changed or damaged.")
        if "sha256" in info:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            if digest != info["sha256"]:
                raise VerificationError(
                    f"{file} has the SHA-256 {digest}, and {info['sha256']} was recorded when it was written. It was "
                    f"changed since."
                )


def _check_tensors(path: Path, digests: Mapping[str, str]) -> None:
    checkpoint = open_checkpoint(path)
    if checkpoint.tensors.keys() != digests.keys():
        odd = sorted(checkpoint.tensors.keys() ^ digests.keys())
        raise VerificationError(f"{path}: the tensors are not those of the receipt; {odd[0]} is in one of them only.")
    with tensor_reader() as reader:
        for name, entry in checkpoint.tensors.items():
            digest, block = hashlib.sha256(), bytearray(1 << 20)
            for start in range(0, entry.nbytes, len(block)):
                view = memoryview(block)[: min(len(block), entry.nbytes - start)]
                reader.read_into(entry, start, view)
                digest.update(view)
            if digest.hexdigest() != digests[name]:
                raise VerificationError(f"{entry.path}: {name!r} does not match its checksum in the receipt. It was "
                                        f"changed after it was written.")  # fmt: skip


def _check_deltas(vector: Vector) -> None:
    with tensor_reader() as reader:
        for delta in vector.deltas.values():
            tensor = TensorTiles(delta.entry, reader)
            for start, stop in tiles(delta.size):
                tensor.read(start, stop)
            if tensor.sha256 != delta.sha256:
                raise VerificationError(f"{delta.entry.path}: the data of {delta.name!r} does not match its checksum "
                                        f"in vector.json. It was damaged after it was made.")  # fmt: skip


def _recompute_vector(vector: Vector, *, offline: bool, follow_links: bool, progress: Progress) -> None:
    if "control" in vector.document:
        raise VerificationError(f"{vector.path} holds random numbers, a control; its checksums hold. Use "
                                f"--checksums-only, or make it again from its seed to compare.")  # fmt: skip
    places = {role: str(donor["location"]) for role, donor in vector.document["donors"].items()}
    try:
        tuned, base = (
            locate_checkpoint(places[role], offline=offline, follow_links=follow_links) for role in ("tuned", "base")
        )
        match = match_donors(tuned, base, NameFilter(vector.document["only"], vector.document["skip"]))
    except (CheckpointError, IncompatibleError) as error:
        raise _unavailable(vector.path, error) from error
    if match.computed != {name: delta.checkpoint_dtype for name, delta in vector.deltas.items()}:
        raise VerificationError(f"{vector.path}: the donors at {places['tuned']} and {places['base']} have other "
                                f"tensors than the vector. They are not what it was made of.")  # fmt: skip
    donors, stored = DonorDeltas(tuned, base, match), StoredDeltas(vector)
    work = np.dtype(np.float64)
    with tensor_reader() as reader:
        for name, delta in vector.deltas.items():
            ours, theirs = stored.open(name, reader), donors.open(name, reader)
            for start, stop in tiles(delta.size):
                a, b = ours.read(start, stop, work), theirs.read(start, stop, work)
                if not (np.array_equal(a.main, b.main) and np.array_equal(a.low, b.low)):
                    raise VerificationError(f"{vector.path}: {name!r} is not {places['tuned']} minus "
                                            f"{places['base']}. A donor was changed, or the vector was.")  # fmt: skip
            progress(delta.entry.nbytes)


def _job(receipt: Mapping[str, Any], *, offline: bool, follow_links: bool) -> Job:
    """The computation that a receipt speaks of, planned anew."""
    options = Options.from_json(receipt["options"])
    target = receipt["target"]["location"]
    try:
        if receipt["operation"] == "transfer":
            return plan_transfer(tuned=receipt["tuned"]["location"], base=receipt["base"]["location"], target=target,
                                 alpha=receipt["alpha"], options=options, offline=offline,
                                 follow_links=follow_links)  # fmt: skip
        vectors = [(vector["location"], vector["alpha"]) for vector in receipt["vectors"]]
        return plan_apply(vectors=vectors, target=target, options=options, offline=offline, follow_links=follow_links)
    except (CheckpointError, VectorError, IncompatibleError) as error:
        raise _unavailable(Path(target), error) from error


def _unavailable(path: Path, error: Exception) -> VerificationError:
    return VerificationError(
        f"The checksums of {path} hold, but it could not be computed again: {error} Put the inputs back where they "
        f"were, or ask for --checksums-only."
    )


def _recompute_checkpoint(path: Path, job: Job, progress: Progress) -> None:
    written = open_checkpoint(path)
    with tensor_reader() as reader:
        for name, entry in written.tensors.items():
            if name not in job.target.tensors:
                raise VerificationError(f"{path}: {name!r} is not in the target {job.target.location}, which has "
                                        f"changed since.")  # fmt: skip

            def compare(offset: int, data: memoryview, entry: Any = entry) -> None:
                found = bytearray(len(data))
                reader.read_into(entry, offset, memoryview(found))
                if found != data:
                    raise VerificationError(
                        f"{path}: {entry.name!r} is not what its receipt says: computed again from the target and the "
                        f"deltas, it differs near byte {offset}. An input was changed since, or the receipt was."
                    )

            job.compute(name, reader, compare)
            progress(entry.nbytes)
