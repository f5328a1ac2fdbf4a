"""Outputs that appear whole or not at all: a staging directory beside the output, a journal of what is finished, and
a rename at the end. Knows nothing of what is written.

    .OUT.reasonvec-partial/    beside OUT; for an output in a store, in the directory for temporary files
        lock            held by the process that writes
        plan.json       what is being made, of which inputs; a resumed run must match it
        journal.jsonl   one line a finished unit, written after its data is on the disk
        output/         becomes OUT
"""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, ClusterError, OutputError
from reasonvec.weights.files import open_regular
from reasonvec.weights.stores import RemoteDirectory, is_address, remote_directory
from reasonvec.weights.uploads import UploadError, Uploads, check_place

COMMIT_BYTES = 64 << 20
"""So much is finished between one commit and the next. One commit can be on its way to the disk, one can wait, and one
be filled: a killed run redoes at most these 192 MiB, and the tensor that was being written."""

Out = Path | RemoteDirectory
"""Where an output goes."""

_MARKS = ("vector.json", "reasonvec.json")
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


class Staging:
    """The directory under construction. `staged` makes it, publishes it on success and clears up after a failure.

    `write` may be called by several threads; all else is for the one that made it. Data and journal go to the disk on a
    thread of their own, while the next data is computed.
    """

    def __init__(self, out: Out, plan: Mapping[str, Any], *, drop_behind: bool = False) -> None:
        self.out = out
        self.root = staging_root(out)
        self.uploads = Uploads(out, self.root) if isinstance(out, RemoteDirectory) else None
        self.output = self.root / "output"
        self.plan = json.loads(json.dumps(plan))
        self.finished: dict[str, Any] = {}
        """What the journal says is finished: unit name -> the record given to `finish`."""
        self.committed = False
        self._made = False
        """Whether this run, and no earlier one, began what is here."""
        self._drop_behind = drop_behind
        self._pending: list[str] = []
        self._pending_bytes = 0
        self._files: dict[str, int] = {}
        self._syncing: deque[Future[None]] = deque()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")  # starts no thread before it is used
        self._lock = -1

    def file(self, name: str, size: int | None = None) -> int:
        """The descriptor of the output file `name`, created where it is new and set to `size` bytes."""
        if name not in self._files:
            path = self.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if size is not None and os.fstat(self._files[name]).st_size != size:
            os.ftruncate(self._files[name], size)
        return self._files[name]

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at byte `offset` of the output file `name`."""
        write_at(self.file(name), offset, data)

    def put(self, name: str, content: bytes) -> None:
        """Write a small file whole, over what an interrupted run may have left of it."""
        self.file(name, len(content))
        self.write(name, 0, content)

    def copy(self, name: str, source: Path) -> None:
        """Write a copy of a regular file of any size."""
        with os.fdopen(open_regular(source), "rb") as file:
            position = 0
            while block := file.read(1 << 20):
                self.write(name, position, block)
                position += len(block)
        self.file(name, position)

    def remove(self, name: str) -> None:
        """Drop an output file."""
        self.settle()
        if name in self._files:
            os.close(self._files.pop(name))
        (self.output / name).unlink(missing_ok=True)

    def complete(self, name: str) -> None:
        """Put a finished output file on the disk, close it, and send it where it goes to a store."""
        if self.uploads:
            self._begin_commit()  # the journal speaks of all that is in it, before its local copy goes
        if name in self._files:
            self._later(self._sync_and_close, self._files.pop(name))
        if self.uploads:
            self._later(self.uploads.send, name)

    def finish(self, unit: str, record: Any, nbytes: int) -> None:
        """Note that `unit`, `nbytes` of data, is written; now and then begin to put data and journal on the disk."""
        self.finished[unit] = record
        self._pending.append(json.dumps([unit, record]))
        self._pending_bytes += nbytes
        if self._pending_bytes >= COMMIT_BYTES:
            self._begin_commit()

    def _begin_commit(self) -> None:
        while self._syncing and (len(self._syncing) > 1 or self._syncing[0].done()):
            self._syncing.popleft().result()  # where the disk is slower than the arithmetic, one waits for it here
        lines, self._pending, self._pending_bytes = self._pending, [], 0
        self._later(self._commit, list(self._files.values()), lines)

    def _later(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do something on the disk's thread, in the order of the calls."""
        self._syncing.append(self._disk.submit(work, *arguments))

    def _commit(self, descriptors: Sequence[int], lines: Sequence[str]) -> None:
        """First the data, then the journal lines that speak of it."""
        for descriptor in descriptors:
            os.fsync(descriptor)
            if self._drop_behind:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not lines:
            return
        with (self.root / "journal.jsonl").open("a") as journal:
            journal.write("".join(f"{line}\n" for line in lines))
            journal.flush()
            os.fsync(journal.fileno())
        self.committed = True

    def _sync_and_close(self, descriptor: int) -> None:
        try:
            self._commit([descriptor], [])
        finally:
            os.close(descriptor)

    def settle(self) -> None:
        """Wait until nothing is under way on the disk's thread. Raises what went wrong there."""
        while self._syncing:
            self._syncing.popleft().result()

    def commit(self) -> None:
        """Put everything finished on the disk."""
        self._begin_commit()
        self.settle()

    def begin(self, *, resume: bool, restart: bool) -> None:
        """Take the lock; continue from the journal of an earlier run, or start empty."""
        self.root.mkdir(mode=0o777 if self.uploads is None else 0o700, exist_ok=True)
        if self.uploads:
            _check_own(self.root)
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(
                f"{self.out} is being written by another process at this moment (it holds {self.root / 'lock'}). "
                f"Wait for it, or choose another --out."
            ) from None
        plan_file = self.root / "plan.json"
        if plan_file.exists() and self.output.exists() and not restart:
            if not resume:
                raise OutputError(
                    f"{self.root} holds an unfinished run for {self.out}. Pass --resume to continue it, or --force to "
                    f"throw it away and start again."
                )
            self._load(plan_file)
            if self.uploads:
                self.uploads.resume()
            return
        self._made = True
        if self.output.exists():
            shutil.rmtree(self.output)
        (self.root / "journal.jsonl").unlink(missing_ok=True)
        self.output.mkdir()
        self._write_plan()
        if self.uploads:
            self.uploads.begin()

    def _write_plan(self) -> None:
        plan_file = self.root / "plan.json"
        plan_file.write_text(json.dumps(self.plan, indent=1))
        _sync_file(plan_file)

    def _load(self, plan_file: Path) -> None:
        try:
            before = json.loads(plan_file.read_text())
        except ValueError:
            before = {}
        before = before if isinstance(before, dict) else {}
        if before != self.plan:
            changed = sorted(key for key in before.keys() | self.plan.keys() if before.get(key) != self.plan.get(key))
            raise OutputError(
                f"{self.root} was begun with other inputs or options: {', '.join(changed)} differ. Continuing would "
                f"mix the two. Repeat the options it was begun with, or pass --force to start again."
            )
        journal = self.root / "journal.jsonl"
        if journal.exists():
            whole = 0
            for line in journal.read_bytes().splitlines(keepends=True):
                try:
                    unit, record = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.finished[unit] = record
                whole += len(line)
            os.truncate(journal, whole)  # a line that was being written when the run was killed would spoil the next
            self.committed = bool(self.finished)

    def publish(self, force: bool) -> None:
        """Put all on the disk and give it its final name."""
        self.commit()
        self.close_files()
        if self.uploads:
            self.uploads.publish()
            self.discard()
            return
        assert isinstance(self.out, Path)
        for path in sorted(self.output.rglob("*")):
            if path.is_file():
                _sync_file(path)
        for path in (*(p for p in self.output.rglob("*") if p.is_dir()), self.output):
            _sync_directory(path)
        if self.out.exists() and force:
            self._replace(self.out)
        else:
            self.output.rename(self.out)
        _sync_directory(self.out.parent)
        self.discard()

    def _replace(self, out: Path) -> None:
        """Exchange what was made and what is there. A run killed here begins anew: after the exchange the old one lies
        in `output`, and with plan and journal beside it would be taken for what they speak of."""
        (self.root / "plan.json").unlink()
        _sync_directory(self.root)
        try:
            _exchange(self.output, out)
        except OSError:
            self._write_plan()
            raise

    def close_files(self) -> None:
        """Close the output files."""
        self._disk.shutdown(wait=True)
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def release(self) -> None:
        """Close every file and give the lock back; the directory stays for `--resume`."""
        self.close_files()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def abandon(self) -> bool:
        """Give up after a fault of the disk or a cluster: keep for `--resume` what is on the disk, else clear up. Say
        whether it is kept."""
        self.close_files()  # a commit may be on its way to the disk
        kept = self.committed or not self._made
        if kept:
            self.release()
        else:
            self.discard()
        return kept

    def discard(self) -> None:
        """Remove the staging directory, and what was sent of an output that is not whole."""
        self.close_files()
        if self.uploads:
            self.uploads.withdraw()
        shutil.rmtree(self.root, ignore_errors=True)
        self.release()


def write_at(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of `data` at byte `offset`."""
    view = memoryview(data).cast("B")
    while len(view):
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


class Nowhere(Staging):
    """A staging that keeps records and no data, for computing again what was written."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), {})

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Drop the data."""

    def finish(self, unit: str, record: Any, nbytes: int) -> None:
        """Keep the record."""
        self.finished[unit] = record

    def remove(self, name: str) -> None:
        """There is nothing to drop."""


def destination(out: str | Path, *, offline: bool = False) -> Out:
    """Where an output goes: a directory, or a place in a store. Raises what `remote_directory` raises."""
    return remote_directory(str(out), offline=offline) if is_address(out) else Path(out)


def staging_root(out: Out) -> Path:
    """The staging directory of an output: beside it, or where temporary files go if it is in a store."""
    if isinstance(out, Path):
        return out.parent / f".{out.name}.reasonvec-partial"
    # the same for every run to one address, so that --resume finds it
    digest = hashlib.sha256(out.address.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f".{digest}.reasonvec-partial"


def _check_own(root: Path) -> None:
    """Raise OutputError unless the directory is this user's: others may write to where temporary files go."""
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OutputError(f"{root} is not a directory of this user's, so nothing is staged in it. Remove it, or set "
                          f"TMPDIR to a directory of your own.")  # fmt: skip


@contextmanager
def staged(
    out: Out, *, plan: Mapping[str, Any], needed: int, resume: bool = False, force: bool = False,
    drop_behind: bool = False,
) -> Iterator[Staging]:  # fmt: skip
    """A `Staging` for `out`, published when the block ends and never when it raises.

    `plan` says what is made of what, for `resume`; `needed` is the bytes that will be written, held against the free
    space first; with `drop_behind` what was written leaves the page cache. Raises OutputError before anything is made
    if `out` exists (unless `force`), cannot be written or would not fit. If writing or a cluster fails with some of it
    on the disk already, that is kept for `--resume`, else removed.
    """
    check_output(out, force=force, resume=resume)
    staging = Staging(out, plan, drop_behind=drop_behind)
    try:
        staging.begin(resume=resume, restart=force and not resume)
    except OSError as error:
        staging.abandon()
        raise _write_error(out, error) from error
    except OutputError:
        staging.abandon()
        raise
    try:
        check_space([staging], needed)
        yield staging
        staging.publish(force)
    except OSError as error:
        ours = out.parent if isinstance(out, Path) else staging.root
        if error.filename and not Path(os.fsdecode(error.filename)).absolute().is_relative_to(ours.absolute()):
            staging.discard()
            raise CheckpointError(
                f"{os.fsdecode(error.filename)} cannot be read: {error.strerror}. It was there when the run began. Put "
                f"it back and run again; nothing was written."
            ) from error
        kept = staging.abandon()
        raise _write_error(out, error, staging.root if kept else None) from error
    except (KeyboardInterrupt, SystemExit, UploadError):
        staging.release()
        raise
    except ClusterError:
        staging.abandon()
        raise
    except BaseException:
        staging.discard()
        raise


def check_output(out: Out, *, force: bool, resume: bool = False, inputs: Sequence[Path | str] = ()) -> None:
    """Raise OutputError unless `out` can be made: it is free or may be replaced, is no input and holds none."""
    if isinstance(out, RemoteDirectory):
        addresses = [path for path in inputs if isinstance(path, str)]
        if hit := [each for each in addresses if f"{each}/".startswith(f"{out}/") or f"{out}/".startswith(f"{each}/")]:
            raise _is_input(out, hit[0])
        begun = (staging_root(out) / "plan.json").exists()
        check_place(out, force=force, begun=begun)
        return
    if out.name in ("", "..") or out.absolute() == Path.cwd():
        raise OutputError(f"--out {str(out)!r} is the current directory or one above it; name a new directory.")
    real = Path(os.path.realpath(out))
    for path in (each for each in inputs if isinstance(each, Path)):
        if real == path.resolve() or path.resolve().is_relative_to(real) or real.is_relative_to(path.resolve()):
            raise _is_input(out, path)
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} does not exist or is no directory, so {out.name} cannot be made in it. Check "
                          f"the spelling, or make it first: mkdir -p {shlex.quote(str(out.parent))}")  # fmt: skip
    if not os.path.lexists(out):
        return
    if not force:
        if resume and any((out / mark).is_file() for mark in _MARKS):
            left = staging_root(out)
            whole = left.is_dir() and not (left / "output").exists()
            raise OutputError(
                f"{out} exists already, and an output has its name only when it is whole: there is nothing to resume. "
                f"`reasonvec verify {shlex.quote(str(out))}` holds it against its inputs. Of several --alpha leave out "
                f"those whose output exists; or pass --force to make it again."
                + (f" {left}, which is left of the run that made it, can be removed." if whole else "")
            )
        raise OutputError(f"{out} exists already and is never overwritten. Choose another --out, or pass --force.")
    ours = out.is_dir() and (not any(out.iterdir()) or any((out / mark).is_file() for mark in _MARKS))
    if not ours or out.is_symlink():
        raise OutputError(
            f"{out} was not made by reasonvec (it holds neither {' nor '.join(_MARKS)}), so not even --force replaces "
            f"it. Remove it yourself, or choose another --out."
        )


def _is_input(out: Out, path: Path | str) -> OutputError:
    return OutputError(f"--out {out} and the input {path} are one directory, or one lies in the other. Inputs are "
                       f"never changed; choose another --out.")  # fmt: skip


def check_space(stagings: Sequence[Staging], needed: int) -> None:
    """Raise OutputError unless there is room for `needed` bytes in each of them, what they already have included."""
    missing: dict[int, int] = {}
    for staging in stagings:
        done = sum(p.stat().st_blocks * 512 for p in staging.output.rglob("*") if p.is_file())
        device = staging.root.stat().st_dev
        missing[device] = missing.get(device, 0) + max(0, needed - done)
        free = shutil.disk_usage(staging.root).free
        if free < missing[device]:
            way = "set TMPDIR to another disk" if staging.uploads else "choose an --out on another disk"
            raise OutputError(
                f"{staging.out} needs {missing[device] / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free. "
                f"Nothing was written. Make room, or {way}."
            )


def _write_error(out: Out, error: OSError, kept: Path | None = None) -> OutputError:
    reason = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied",
        errno.EIO: "the disk answered with an input/output error",
        errno.EFBIG: "the file would be larger than this system allows",
    }.get(error.errno or 0, error.strerror or str(error))
    if kept:
        return OutputError(f"{out} could not be written: {reason}. What was finished is kept in {kept}; clear the "
                           f"cause, then run the same command with --resume.")  # fmt: skip
    return OutputError(f"{out} could not be written: {reason}. Nothing was left behind.")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories in one step, so that at every instant one of them is whole under the final name."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    if renameat2 and renameat2(_AT_FDCWD, bytes(new), _AT_FDCWD, bytes(old), _RENAME_EXCHANGE) == 0:
        return  # `old` now lies in the staging directory and goes with it
    aside = new.parent / "replaced"  # a file system without the exchange: for an instant there is neither
    old.rename(aside)
    new.rename(old)
