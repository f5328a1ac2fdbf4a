"""A checkpoint or vector in a store, opened without its weights: a private local directory that mirrors the names in
it, with the small files whole and of each shard its header alone, so that all checks of local files hold it too.

Nothing else is downloaded: a mirrored shard has the right size and a hole where the data would be, and whoever reads
tensors reads the `RemoteFile`.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reasonvec.errors import CheckpointError, ReasonvecError
from reasonvec.weights.files import MAX_SMALL_FILE
from reasonvec.weights.safetensors_header import MAX_HEADER_BYTES, TensorEntry
from reasonvec.weights.stores import DOCUMENTS, MARKER, RemoteDirectory, RemoteFile

MOST_FILES = 10_000
"""Objects below one address; a model has some hundred at most, the root of a bucket may have millions."""

_THREADS = 8
_FIRST_READ = 1 << 18
"""Bytes read of a shard at first; most headers are shorter."""

_WHOLE = ("donor/", "residual/", "additional_chat_templates/")
"""The folders of a vector or checkpoint whose files are small."""

_HOLLOW = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".ot")
"""Kinds of weights that are never read; they are mirrored for the messages that speak of them."""


@dataclass(frozen=True, eq=False)
class Mirror:
    """The local image of a `RemoteDirectory`. Its directory goes when it is no longer used, at the latest at exit."""

    directory: RemoteDirectory
    path: Path
    files: Mapping[str, RemoteFile]
    """What the listing said when it was opened, by name."""

    def remote(self, entry: TensorEntry) -> TensorEntry:
        """A tensor of a mirrored shard, where its data really is; one of a file that was fetched whole stays local."""
        assert isinstance(entry.path, Path)
        name = entry.path.relative_to(self.path).as_posix()
        return replace(entry, path=self.files[name]) if _is_shard(name) else entry

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors within speak of the store's addresses instead of the mirror."""
        try:
            yield
        except ReasonvecError as error:
            if str(self.path) not in str(error):
                raise
            raise type(error)(str(error).replace(str(self.path), str(self.directory))) from error


def mirror(directory: RemoteDirectory) -> Mirror:
    """Fetch the small files and the headers.

    Raises CheckpointError where there is nothing, a name could lead out of the mirror, a file that would be read whole
    is too large, or the store does not give them.
    """
    files = directory.listing()
    if not files:
        raise CheckpointError(f"{directory} does not exist: the store lists nothing below it. Check the spelling, and "
                              f"the endpoint and region that are set.")  # fmt: skip
    if MARKER in files and not any(name in files for name in DOCUMENTS):
        raise CheckpointError(f"{directory} is not finished: it is being written, or its run was interrupted. Wait for "
                              f"it, or run the command that makes it again with --resume.")  # fmt: skip
    if len(files) > MOST_FILES:
        raise CheckpointError(f"{directory} holds {len(files)} objects, more than the {MOST_FILES} that one checkpoint "
                              f"or vector may have. Name the prefix of the model itself.")  # fmt: skip
    path = Path(tempfile.mkdtemp(prefix="reasonvec-")).resolve()
    found = Mirror(directory, path, files)
    weakref.finalize(found, shutil.rmtree, path, ignore_errors=True)
    for name in files:
        _check_name(directory, name)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(lambda name: _fetch(path / name, name, files[name]), files):
                pass
    except OSError as error:
        raise CheckpointError(f"{directory} could not be mirrored in {path}: {error.strerror or error}. Make room "
                              f"there, or set TMPDIR to another disk.") from error  # fmt: skip
    return found


def _check_name(directory: RemoteDirectory, name: str) -> None:
    parts = name.split("/")
    too_long = any(len(os.fsencode(part)) > 255 for part in parts)
    if not all(parts) or {".", ".."} & set(parts) or not name.isprintable() or too_long:
        raise CheckpointError(f"{directory} holds an object named {name[:80]!a}. A name with `..`, an empty part or "
                              f"control characters could lead to any file of this machine, so it is refused; remove "
                              f"it.")  # fmt: skip


def _is_shard(name: str) -> bool:
    return name.endswith(".safetensors") and "/" not in name


def _is_whole(name: str) -> bool:
    """Whether it may be read as a whole. Model cards and hidden files never are."""
    if "/" in name:
        return name.startswith(_WHOLE)
    return not name.endswith((*_HOLLOW, ".safetensors")) and not name.startswith(".") and name != "README.md"


def _fetch(path: Path, name: str, file: RemoteFile) -> None:
    """Make the image of one object."""
    content = b""
    if _is_shard(name):
        content = _header(file)
    elif _is_whole(name):
        if file.size > MAX_SMALL_FILE:
            raise CheckpointError(
                f"{file} has {file.size} bytes; at most {MAX_SMALL_FILE} are fetched of a file that is no shard. It is "
                f"not what its name says, or does not belong there; remove it, or copy the rest to a local directory."
            )
        content = file.read(0, file.size) if file.size else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as image:
        image.write(content)
        image.truncate(file.size)  # the rest is a hole, which takes no room


def _header(file: RemoteFile) -> bytes:
    """The length and the header of a shard, as far as they are there and not longer than any may be."""
    first = file.read(0, min(_FIRST_READ, file.size)) if file.size else b""
    length = int.from_bytes(first[:8], "little")
    end = 8 + length
    if len(first) < 8 or end <= len(first) or length > min(MAX_HEADER_BYTES, file.size - 8):
        return first  # the checks of local files say what is wrong with it
    return first + file.read(len(first), end)


def changed(found: Mirror) -> Sequence[str]:
    """The addresses whose objects are not what they were when the mirror was made."""
    now = found.directory.listing()
    return [file.address for name, file in found.files.items() if now.get(name) != file]
