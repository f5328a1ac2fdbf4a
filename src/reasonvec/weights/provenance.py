"""Who made this of what: fingerprints of inputs, and that they stayed the same while they were read."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.files import is_hub_blob, sha256_of
from reasonvec.weights.mirror import changed
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.stores import RemoteFile
from reasonvec.weights.vector import Vector

_SHA256 = re.compile(r"[0-9a-f]{64}")


def tool() -> dict[str, str]:
    """The name and version of this program."""
    try:
        return {"name": "reasonvec", "version": version("reasonvec")}
    except PackageNotFoundError:  # run from a source tree that was not installed
        return {"name": "reasonvec", "version": "unknown"}


def fingerprint(digests: Iterable[tuple[TensorEntry, str]]) -> str:
    """One SHA-256 for a set of tensors: over a line `name dtype shape digest` for each, in the order of their names.

    It does not depend on how the checkpoint is cut into shards, so it tells whether two are the same model.
    """
    lines = sorted(f"{entry.name}\t{entry.dtype}\t{list(entry.shape)}\t{digest}\n" for entry, digest in digests)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe_checkpoint(checkpoint: Checkpoint, digests: Mapping[str, str]) -> dict[str, Any]:
    """What a document says of a checkpoint: where it was, its commit, and a fingerprint of what was read of it.

    `digests` are those of its tensors (`blocks.tensor_digest`); the fingerprint covers the tensors named there.
    """
    return {
        "location": absolute(checkpoint.location),
        "revision": checkpoint.revision,
        "fingerprint": fingerprint((checkpoint.tensors[name], digest) for name, digest in digests.items()),
        "tensors": len(digests),
        "files": {path.name: _file(path) for path in weight_files(checkpoint)},
        "small_files": {name: sha256_of(checkpoint.path / name) for name in checkpoint.small_files()},
    }


def absolute(location: str) -> str:
    """A local path made absolute, so that `verify` finds it from any directory; a Hub id or an address as it is."""
    given = Path(location)
    return str(given.absolute()) if given.exists() else location


def places(inputs: Sequence[Checkpoint | Vector]) -> tuple[Path | str, ...]:
    """Where the inputs are: directories, and addresses in stores."""
    return tuple(str(source.mirror.directory) if source.mirror else source.path for source in inputs)


def weight_files(checkpoint: Checkpoint) -> list[Path | RemoteFile]:
    """The shards of a checkpoint."""
    return sorted({entry.path for entry in checkpoint.tensors.values()}, key=str)


def size_of(path: Path | RemoteFile) -> int:
    """Bytes of a file on a disk or in a store."""
    return path.size if isinstance(path, RemoteFile) else path.stat().st_size


def _file(path: Path | RemoteFile) -> dict[str, Any]:
    """Its size; and its SHA-256 where the Hub's cache has it as the name of the blob, or its version in a store."""
    if isinstance(path, RemoteFile):
        return {"bytes": path.size, **({"etag": path.version} if path.version else {})}
    info: dict[str, Any] = {"bytes": size_of(path)}
    real = path.resolve()
    if is_hub_blob(real, path.parent) and _SHA256.fullmatch(real.name):
        info["sha256"] = real.name
    return info


def exceeds_memory(inputs: Sequence[Checkpoint | Vector]) -> bool:
    """Whether the inputs are too large for the page cache: reading them would push out all else, for nothing."""
    total = sum(int(size) for size, _ in input_identity(inputs).values())
    return total > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def input_identity(inputs: Sequence[Checkpoint | Vector]) -> dict[str, list[Any]]:
    """Path -> size and time of change (nanoseconds) of every file that will be read; of an object in a store, size and
    version when it was opened."""
    files: set[Path] = set()
    remote: dict[str, list[Any]] = {}
    for source in inputs:
        if source.mirror:
            remote |= {file.address: [file.size, file.version] for file in source.mirror.files.values()}
        elif isinstance(source, Checkpoint):
            files.update(path for path in weight_files(source) if isinstance(path, Path))
            files.update(source.path / name for name in source.small_files())
        else:
            files.update(source.path / name for name in [*source.document["files"], "vector.json"])
    found = {}
    for path in sorted(files):
        try:
            status = path.stat()
        except OSError as error:
            raise CheckpointError(f"{path} vanished: {error.strerror}. Nothing was written.") from error
        found[str(path)] = [status.st_size, status.st_mtime_ns]
    return found | remote


def check_unchanged(inputs: Sequence[Checkpoint | Vector], identity: Mapping[str, list[Any]]) -> None:
    """Raise CheckpointError if an input is not the file that it was when the run began."""
    now = input_identity(inputs)
    other = [path for path, seen in identity.items() if now.get(path) != seen]
    other += [address for source in inputs if source.mirror for address in changed(source.mirror)]
    if other:
        raise CheckpointError(
            f"{other[0]} changed while it was being read{f', and {len(other) - 1} more' if other[1:] else ''}. "
            f"The result would mix two versions, so it was thrown away; run again when nothing writes to it."
        )
