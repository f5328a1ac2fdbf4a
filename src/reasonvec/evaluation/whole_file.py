"""A result in one file: written beside its place, flushed to the disk and renamed, so it is whole or not there."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from reasonvec.errors import OutputError

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without hard links says, such as exFAT and some that are shared over a network."""


def check_new(out: Path, *, force: bool) -> None:
    """Raise OutputError unless `out` can be written: before the work, not after it."""
    if out.is_dir():
        raise OutputError(f"{out} is a directory; the output is one file. Name a file in it.")
    if not force and (out.exists() or out.is_symlink()):
        raise OutputError(f"{out} exists already. Results that were measured on it would no longer be traceable; name "
                          f"another file, or replace it with --force.")  # fmt: skip
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is no directory, so {out.name} cannot be written there. Make it first.")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{out} cannot be written: {out.parent} may not be written to. Name another directory.")


def write_whole(out: Path, content: bytes, *, force: bool) -> None:
    """Write `content` to `out` by rename; without `force` never over a file that came into being meanwhile."""
    check_new(out, force=force)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}. Nothing was left there.") from None
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        if force:
            partial.replace(out)
        else:
            _name_anew(partial, out)
    except FileExistsError:
        raise OutputError(f"{out} came into being while it was being made. Nothing was replaced.") from None
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}. Nothing was left there.") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    directory = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _name_anew(partial: Path, out: Path) -> None:
    """Give `partial` the name `out`, which nothing may have; a rename would replace what came there meanwhile."""
    try:
        os.link(partial, out)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if out.exists():
            raise FileExistsError from None
        partial.replace(out)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
