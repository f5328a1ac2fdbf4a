"""From what a user names to a directory: a local path, `owner/name[@revision]` on the Hugging Face Hub, or an address
in a store."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, UsageError, VectorError
from reasonvec.weights.checkpoint import Checkpoint, open_checkpoint
from reasonvec.weights.mirror import Mirror, mirror
from reasonvec.weights.provenance import size_of
from reasonvec.weights.stores import is_address, pinned, remote_directory
from reasonvec.weights.vector import DOCUMENT, Vector, open_vector

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
# no pickles and no code: what is not fetched cannot be run
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*"]

_VECTOR_FILES = ["vector.json", "*.safetensors", "residual/*", "donor/*"]


def recorded_location(document: Mapping[str, Any]) -> str:
    """Where a document says that something was: a path, or a Hub id at the commit that was read."""
    location, revision = str(document["location"]), document["revision"]
    return f"{location}@{revision}" if revision and "@" not in location else location


def locate_checkpoint(location: str | Path, *, offline: bool = False, follow_links: bool = False) -> Checkpoint:
    """Open the checkpoint that `location` names, fetching it into the Hub's cache where it is a Hub id. Of one in a
    store the small files are fetched and the shards stay there.

    A directory of that name wins over a Hub id. Raises CheckpointError as `open_checkpoint` does, and where the Hub
    does not have it or cannot be reached; for a store also what `remote_directory` raises.
    """
    path = Path(location)
    if is_address(location):
        found, revision = open_mirror(str(location), offline=offline)
        with found.named():
            return open_checkpoint(found.path, location=str(found.directory), revision=revision, mirror=found)
    if not is_hub_id(location):
        return open_checkpoint(path, location=str(location), follow_links=follow_links)
    directory = _fetch(str(location), offline, _WANTED)
    return open_checkpoint(directory, location=str(location), revision=directory.name, follow_links=follow_links)


def locate_vector(location: str | Path, *, offline: bool = False) -> Vector:
    """`locate_checkpoint` for vectors."""
    path = Path(location)
    if is_address(location):
        found, revision = open_mirror(str(location), offline=offline)
        with found.named():
            return open_vector(found.path, location=str(found.directory), revision=revision, mirror=found)
    if is_hub_id(location):
        directory = _fetch(str(location), offline, _VECTOR_FILES)
        return open_vector(directory, location=str(location), revision=directory.name)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise VectorError(f"{path} {what}. A vector is a directory with {DOCUMENT}, as `reasonvec extract` makes them, "
                          f"or an `owner/name` on the Hub.")  # fmt: skip
    return open_vector(path, location=str(location))


def open_mirror(address: str, *, offline: bool = False) -> tuple[Mirror, str | None]:
    """The mirror of what is at an address, and the commit where the store has such."""
    directory, revision = pinned(remote_directory(address, offline=offline))
    return mirror(directory), revision


def recorded_donor(vector: Vector, role: str, *, offline: bool = False) -> Checkpoint:
    """The `tuned` or `base` donor at the place where it was at extraction, if it still looks the same: its names,
    shapes and the sizes of its files. Raises VectorError if it is gone or another."""
    info = vector.document["donors"][role]
    location = recorded_location(info)
    try:
        donor = locate_checkpoint(location, offline=offline)
    except CheckpointError as error:
        raise VectorError(f"the {role} donor {location} of {vector.location} cannot be opened: {error}") from error
    sizes = {entry.path.name: size_of(entry.path) for entry in donor.tensors.values()}
    fits = all(name in donor.tensors and donor.tensors[name].shape == delta.shape for name, delta in
               vector.deltas.items())  # fmt: skip
    if not fits or sizes != {name: file["bytes"] for name, file in info["files"].items()}:
        raise VectorError(f"what lies at {location} now is not the {role} donor that {vector.location} was extracted "
                          f"from.")  # fmt: skip
    return donor


def locate_directory(location: str | Path, *, offline: bool = False) -> tuple[Path, str | None]:
    """The directory that `location` names, fetched where it is a Hub id, and then its commit. Nothing in it is checked.

    Raises CheckpointError where the Hub does not have it or cannot be reached.
    """
    if not is_hub_id(location):
        return Path(location), None
    directory = _fetch(str(location), offline, _WANTED)
    return directory, directory.name


def is_hub_id(location: str | Path) -> bool:
    """Whether `location` is `owner/name[@revision]` and no directory of that name exists."""
    if not str(location).strip():
        raise UsageError("an empty name names no checkpoint and no vector.")
    return isinstance(location, str) and not Path(location).exists() and bool(_HUB_ID.fullmatch(location))


def _fetch(name: str, offline: bool, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download  # here for start-up time: the import takes 0.2 s
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted,
                                      local_files_only=offline))  # fmt: skip
    except LocalEntryNotFoundError:
        where = "is not in the Hub's cache here and going online was forbidden" if offline else "could not be fetched"
        raise CheckpointError(
            f"There is no directory {name}, and as a Hub id it {where}. Check the spelling, or fetch it first: "
            f"hf download {repository}."
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"There is no directory {name}, and the Hub did not give it: {str(error).splitlines()[0]} Check the "
            f"spelling, your connection and, for a private or gated model, `hf auth login`."
        ) from error
