"""An output that goes to a store: finished files are sent and their local copies emptied, and the document that makes
it whole goes last. What was sent is journaled, so that an interrupted run sends the rest.

A store has no rename, so the objects of an unfinished output can be seen. Without its document nothing takes them for a
vector or a checkpoint that is whole, and beside them stands the object MARKER: written first, since it shows before
hours of work that the store can be written to, and removed last.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from reasonvec.errors import OutputError, ReasonvecError
from reasonvec.weights.stores import DOCUMENTS, MARKER, RemoteDirectory, asked, filesystem

_LAST = ("config.json", *DOCUMENTS)
"""In this order, after all else."""

PART_BYTES = 8 << 20
"""Of one part of a large object; four are in memory at once."""

_PARTS_AT_ONCE, _MOST_PARTS = 4, 9_000
"""S3 takes 10,000 parts of one object."""


class UploadError(OutputError):
    """A store did not take a file; all of it is still on the disk."""


class Uploads:
    """What is sent of one output to `directory`; `root` is its staging directory, `root / "output"` what is sent."""

    def __init__(self, directory: RemoteDirectory, root: Path) -> None:
        self.directory = directory
        self._root = root
        self._journal = root / "uploads.jsonl"
        self._replaced = root / "replaced.json"
        self.sent: dict[str, list[Any]] = {}
        """Name -> bytes and version of what is in the store."""
        self._begun = False

    def begin(self) -> None:
        """Note what is there, which `--force` allows to replace, and mark the place as one that is being written."""
        self._journal.unlink(missing_ok=True)
        _write(self._replaced, json.dumps(sorted(self.directory.listing(OutputError))))
        marker = self.directory.file(MARKER)
        asked(lambda: filesystem(marker).pipe_file(marker, b"This output is not finished.\n"), marker, OutputError)
        self._begun = True

    def resume(self) -> None:
        """Read the journal. Raises OutputError if what was sent is no longer there as it was."""
        if not self._replaced.exists():
            self.begin()
        self._begun = True
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        for line in lines:
            with contextlib.suppress(ValueError):  # the line that was being written when the run was killed
                name, record = json.loads(line)
                self.sent[name] = record
        there = self.directory.listing(OutputError)
        for name, record in self.sent.items():
            found = there.get(name)
            if found is None or [found.size, found.version] != record:
                raise OutputError(
                    f"{self.directory.file(name)} is no longer what the interrupted run sent: it had {record[0]} bytes "
                    f"and version {record[1]}, and now {f'{found.size} and {found.version}' if found else 'is gone'}. "
                    f"Pass --force to start again."
                )

    def send(self, name: str) -> None:
        """Put a finished file into the store and give its room on the disk back. Raises UploadError."""
        path = self._root / "output" / name
        if name not in self.sent:
            try:
                self._withdraw_documents()
                record = self._put(path, self.directory.file(name))
            except ReasonvecError as error:
                raise UploadError(f"{self.directory} could not be written: {error} What was finished is kept in "
                                  f"{self._root}; clear the cause, then run the same command with --resume."
                                  ) from error  # fmt: skip
            self.sent[name] = record
            _write(self._journal, json.dumps([name, record]) + "\n", append=True)
        # a hole of its size takes its place, in one step, since what lists the output's files still has to find it
        hole = self._root / "hole"
        with hole.open("wb") as file:
            file.truncate(self.sent[name][0])
        hole.replace(path)

    def _put(self, path: Path, address: str) -> list[Any]:
        store, size = filesystem(address), path.stat().st_size
        parts = {
            "s3": {"chunksize": max(PART_BYTES, -(-size // _MOST_PARTS)), "max_concurrency": _PARTS_AT_ONCE},
            "gs": {"chunksize": PART_BYTES},
        }.get(self.directory.scheme, {})
        asked(lambda: store.put_file(str(path), address, **parts), address, OutputError)
        found = self.directory.file_info(address, OutputError)
        if found.size != size:
            raise OutputError(f"{address} has {found.size} bytes after {size} were sent.")
        return [found.size, found.version]

    def _withdraw_documents(self) -> None:
        """What is replaced is whole until the first file of the new one is sent, and then must not look it."""
        if not self.sent:
            for name in set(json.loads(self._replaced.read_text())) & set(DOCUMENTS):
                self._remove(name)

    def publish(self) -> None:
        """Send all that was not sent yet, what makes it whole at the very end. Raises UploadError."""
        output = self._root / "output"
        names = [path.relative_to(output).as_posix() for path in sorted(output.rglob("*")) if path.is_file()]
        for name in sorted(names, key=lambda name: _LAST.index(name) if name in _LAST else -1):
            if name in DOCUMENTS:
                for stale in set(json.loads(self._replaced.read_text())) - {*names, MARKER}:
                    self._remove(stale)
            self.send(name)
        self._remove(MARKER)
        self._begun = False

    def withdraw(self) -> None:
        """Remove what was sent of an output that will not be, as far as the store lets us; nothing of a whole one."""
        for name in [*self.sent, MARKER] if self._begun else ():
            with contextlib.suppress(ReasonvecError):
                self._remove(name)

    def _remove(self, name: str) -> None:
        address = self.directory.file(name)
        with contextlib.suppress(FileNotFoundError):
            asked(lambda: filesystem(address).rm_file(address), address, UploadError)


def check_place(directory: RemoteDirectory, *, force: bool, begun: bool) -> None:
    """Raise OutputError unless `directory` is free, may be replaced, or was `begun` by a run whose staging is here."""
    found = directory.listing(OutputError)
    if not found or (begun and MARKER in found):
        return
    ours = any(name in found for name in (*DOCUMENTS, MARKER))
    if not force and MARKER in found:
        raise OutputError(f"{directory} holds the beginning of an output, and what is left of that run is not on this "
                          f"machine. Resume it where it was begun, or pass --force to start again.")  # fmt: skip
    if not force:
        raise OutputError(f"{directory} exists already and is never overwritten. Choose another --out, or pass "
                          f"--force.")  # fmt: skip
    if not ours:
        raise OutputError(
            f"{directory} was not made by reasonvec (it holds neither {' nor '.join(DOCUMENTS)}), so not even --force "
            f"replaces it. Remove it yourself, or choose another --out."
        )


def _write(path: Path, text: str, *, append: bool = False) -> None:
    """Write text and put it on the disk."""
    with path.open("a" if append else "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
