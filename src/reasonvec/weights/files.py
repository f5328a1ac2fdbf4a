"""Opening files of a directory that is not trusted: regular files only, inside the directory, of bounded size."""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from reasonvec.errors import CheckpointError

MAX_SMALL_FILE = 256 << 20
"""Bytes of a file that is read whole at most; the largest tokenizer files are some 30 MB."""
_PIECE = 1 << 20


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file. Raises CheckpointError for anything else: a pipe would wait for ever, a
    device has no end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        kind = "a directory" if path.is_dir() else "no regular file but a pipe, socket or device"
        raise CheckpointError(f"{path} cannot be read: it is {kind}. Put the file itself there.")
    return descriptor


def open_small(path: Path, most: int = MAX_SMALL_FILE) -> BinaryIO:
    """A regular file of at most so many bytes, open to be read."""
    file = os.fdopen(open_regular(path), "rb")
    size = os.fstat(file.fileno()).st_size
    if size > most:
        file.close()
        raise CheckpointError(
            f"{path} has {size} bytes; at most {most} are read of a file of its kind. It is not what its "
            f"name says; replace it."
        )
    return file


def read_small(path: Path, most: int = MAX_SMALL_FILE) -> bytes:
    """The whole content of a regular file of at most so many bytes."""
    with open_small(path, most) as file:
        return file.read()


def same_content(first: Path, second: Path) -> bool:
    """Whether two regular files of at most `MAX_SMALL_FILE` bytes are equal byte for byte."""
    with open_small(first) as ours, open_small(second) as theirs:
        while (piece := ours.read(_PIECE)) == theirs.read(_PIECE):
            if not piece:
                return True
    return False


def sha256_of(path: Path) -> str:
    """The SHA-256 of a regular file of any size."""
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_inside(path: Path, root: Path, follow_links: bool = False) -> None:
    """Raise CheckpointError unless `path` exists and stays inside `root` (a resolved path), or is the Hub cache's own
    link from a snapshot to a blob."""
    try:
        real = path.resolve(strict=True)
    except ValueError as error:
        raise CheckpointError(f"{str(path)!a} is no name that a file can have: {error}. It is refused.") from None
    except (OSError, RuntimeError):
        # not Path.is_symlink, which raises where a name is too long
        missing = "is a link to a file that does not exist" if os.path.islink(path) else "is missing"  # noqa: PTH114
        raise CheckpointError(
            f"{path} {missing}, though it is named as part of {root}. A download was interrupted; fetch it again."
        ) from None
    if follow_links or real.is_relative_to(root) or is_hub_blob(real, root):
        return
    raise CheckpointError(
        f"{path} is a link to {real}, outside of {root}. A hostile directory could point at any file of this machine, "
        f"so such links are not followed. If you made it yourself, pass --follow-links."
    )


def is_hub_blob(real: Path, root: Path) -> bool:
    """Whether `real` is a blob of the cache that the snapshot `root` belongs to:
    models--owner--name/snapshots/COMMIT/file -> models--owner--name/blobs/DIGEST."""
    return root.parent.name == "snapshots" and real.parent == root.parent.parent / "blobs"
