"""Starting, awaiting and ending confined processes. Safe from several threads: each call has its own pipes, and a new
interpreter is always executed, never a fork of the caller gone on with."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from typing import Any

from reasonvec.errors import SandboxError
from reasonvec.evaluation.sandbox.host import Host
from reasonvec.evaluation.sandbox.wire import CONFINED, readable

MAX_REPORT = 1 << 14
"""Bytes that a checker or a probe may write."""
_START = "import sys; sys.path += {search!r}; from reasonvec.evaluation.sandbox.inside import main; main()"
# PYTHONHASHSEED makes the order of a set the same every time; -I would ignore it, and is -E, -P and -s
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
_FLAGS = ("-P", "-s", "-S", "-B")


def pipe(stack: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """Where one reads and where one writes; `stack` closes both."""
    reading, writing = os.pipe()
    return stack.enter_context(FileIO(reading, "rb")), stack.enter_context(FileIO(writing, "wb"))


@contextlib.contextmanager
def confined(host: Host, *, role: str, ends: Sequence[FileIO], timeout_s: float,
             settings: Mapping[str, Any]) -> Iterator[None]:  # fmt: skip
    """A process in its `role` that has `ends` of pipes, which are closed here; killed with its group in the end."""
    descriptors = [end.fileno() for end in ends]
    document = {
        **settings, "role": role, "descriptors": descriptors, "search": host.search, "user": host.user,
        "ruleset": host.ruleset, "filter": host.filter and host.filter.hex(), "cpu_s": int(timeout_s) + 1,
        "parent": os.getpid(),
    }  # fmt: skip
    kept = [*descriptors, host.ruleset] if host.ruleset is not None else descriptors
    with os.fdopen(os.memfd_create("settings"), "w+b") as file:  # a pipe could fill up while nobody reads it
        file.write(json.dumps(document).encode())
        file.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 (our own interpreter and program)
                [host.python, *_FLAGS, "-c", _START.format(search=list(host.search))], stdin=file,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=kept, env=_ENVIRONMENT, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SandboxError(not_run(f"{host.python}: {error.strerror}")) from None
    try:
        for end in ends:
            end.close()  # or nobody would hear that the process has ended
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # not yet awaited, so its number is still its own
        process.wait()


def report_of(end: FileIO, deadline: float) -> bytes | None:
    """What a process reports before `deadline` (of time.monotonic), without the end of its line; None if it is late.

    Empty where it ends without a word, or writes more than it may. Raises SandboxError if it was not confined.
    """
    text = b""
    while text.count(b"\n") < 2:
        if not readable(end.fileno(), deadline - time.monotonic()):
            return None
        block = end.read(MAX_REPORT) or b""
        text += block
        if not block or len(text) > MAX_REPORT:
            break
    confined, _, report = text.partition(b"\n")
    if confined != CONFINED:
        raise SandboxError(not_run(confined.decode("utf-8", "replace") or "a process that did not start"))
    return report.removesuffix(b"\n") if report.count(b"\n") == 1 else b""


def not_run(why: str) -> str:
    """The message where a process could not be confined, so that nothing was graded."""
    return (
        f"Model-written code was not run, since its process could not be confined: {why}. Nothing is wrong with the "
        f"program; see what the self-test says of this host."
    )
