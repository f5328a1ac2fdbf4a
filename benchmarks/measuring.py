"""Run a program and say what it cost, by the operating system's accounting of the finished process. Knows nothing of
what is run.

This process must stay small: Linux counts the memory of the process that starts another into the peak of the one that
is started. So nothing here imports NumPy, and `floor` says what no measured peak can be below.
"""

import contextlib
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_EVERY = 0.005
"""Seconds between two looks at the memory of a running process."""
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True)
class Usage:
    """What one run cost, whole process and the children it waited for."""

    wall: float
    """Seconds from its start until its end was seen."""
    user: float
    """CPU seconds of the program."""
    system: float
    """CPU seconds of the kernel on its behalf."""
    resident: int
    """Largest resident set in bytes, pages of mapped files included: ru_maxrss; where it had several processes at a
    time and their sampled sum was larger, that sum."""
    anonymous: int
    """Largest sampled sum of RssAnon in bytes, the part that the kernel cannot drop."""

    @property
    def cpu(self) -> float:
        """CPU seconds in all."""
        return self.user + self.system


@dataclass(frozen=True)
class Contender:
    """A program that does the work."""

    name: str
    command: tuple[str, ...]
    reads: tuple[Path, ...] = ()
    """Files and directories that are read into the page cache before a warm run."""
    output: Path | None = None
    """What it writes; it must be there afterwards and is removed before and after every run, unless `keep`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    core: int | None = None
    """The one CPU that it may use."""
    keep: bool = False


class CrashedError(Exception):
    """A contender did not do its work; says which and its last words."""


def measure(contender: Contender, log: Path, *, cold: bool = False) -> Usage:
    """Run it once, inputs warm or the whole page cache cold, its output dropped outside the timing.

    What it prints goes to `log`. Raises CrashedError if it fails or leaves no output.
    """
    remove(contender.output)
    os.sync()  # else it would pay for writing back what the run before it left
    if cold:
        DROP_CACHES.write_text("3")
    else:
        warm(contender.reads)
    try:
        usage = _run(contender, log)
        if contender.output and not contender.output.exists():
            raise CrashedError(f"{contender.name} left no output.{_last_words(log)}")
    finally:
        if not contender.keep:
            remove(contender.output)
    return usage


def rounds(
    contenders: Sequence[Contender], pairs: int, log: Path, crashes: list[str], *, cold: bool = False
) -> dict[str, list[Usage]]:
    """Run all in turn, `pairs` times: A B C A B C. One that crashed is named in `crashes` and left out from then on,
    also from the result, so that the i-th entries of all belong to one round."""
    usages: dict[str, list[Usage]] = {contender.name: [] for contender in contenders}
    for _ in range(pairs):
        for contender in contenders:
            if contender.name in usages:
                try:
                    usages[contender.name].append(measure(contender, log, cold=cold))
                except CrashedError as error:
                    crashes.append(str(error))
                    del usages[contender.name]
    return usages


def may_drop_caches() -> bool:
    """Whether this process may empty the page cache: root on a kernel that lets it."""
    try:
        DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True


def warm(paths: Sequence[Path]) -> None:
    """Read files and directories whole, so that they are in the page cache as far as it holds them."""
    buffer = bytearray(1 << 20)
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb", buffering=0) as stream:
                    while stream.readinto(buffer):
                        pass


def remove(path: Path | None) -> None:
    """Remove a file or directory, if it is there."""
    if path is not None and path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path is not None:
        path.unlink(missing_ok=True)


def floor() -> int:
    """The peak of this process so far in bytes: no measured peak can be below it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _run(contender: Contender, log: Path) -> Usage:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **contender.environment}
    with log.open("wb") as output, _pinned(contender.core):
        begin = time.perf_counter()
        process = subprocess.Popen(
            contender.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    with _sampled(process.pid) as peak:
        try:
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:  # interrupted
                process.kill()
                process.wait()
    if process.returncode:
        raise CrashedError(f"{contender.name} ended with status {process.returncode}.{_last_words(log)}")
    resident = max(used.ru_maxrss * 1024, peak["resident"])
    return Usage(wall, used.ru_utime, used.ru_stime, resident, peak["anonymous"])


@contextlib.contextmanager
def _pinned(core: int | None) -> Iterator[None]:
    """What this thread starts within may use one CPU only; the sampler, started later, stays free."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _sampled(pid: int) -> Iterator[dict[str, int]]:
    """The largest sums over the process and its descendants that a thread saw within."""
    peak = {"anonymous": 0, "resident": 0}
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_EVERY):
            seen = [_memory(each) for each in _family(pid)]
            peak["anonymous"] = max(peak["anonymous"], sum(anonymous for anonymous, _ in seen))
            peak["resident"] = max(peak["resident"], sum(resident for _, resident in seen))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _family(pid: int) -> list[int]:
    """A process and its descendants; those that end meanwhile are left out."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):  # noqa: PTH208 - 200 times a second
                with open(f"/proc/{each}/task/{task}/children") as children:  # noqa: PTH123
                    found += map(int, children.read().split())
    return found


def _memory(pid: int) -> tuple[int, int]:
    """RssAnon and VmRSS of a process in bytes, 0 once it has ended."""
    fields = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - 200 times a second
        fields = dict(line.split(":", 1) for line in status)
    anonymous, resident = (int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("RssAnon", "VmRSS"))
    return anonymous, resident


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "".join(f"\n    {line}" for line in lines[-4:])
