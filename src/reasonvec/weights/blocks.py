"""Blocks: the runs of entries in which every tensor is read, computed with, hashed and written, one after another or by
several threads. Their length is part of the format, because digests are made of them.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numpy as np
from blake3 import blake3

from reasonvec.weights.dtypes import Array

BLOCK = 1 << 18
"""Entries of a block: 512 KiB of bfloat16. What a block needs fits a second-level cache, and Python's part in it is
some ten calls, a hundredth of a nanosecond an entry each."""

MOST_WORKERS = 4
"""Threads that are started where nobody says how many: more do not help one disk, and each needs its own buffers."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def blocks(size: int) -> Sequence[tuple[int, int]]:
    """First entry and end of every block of a tensor of `size` entries; an empty tensor has one empty block."""
    return _Blocks(size)


class _Blocks(Sequence[tuple[int, int]]):
    """Computed when they are asked for: a small file can claim a tensor of millions of blocks."""

    def __init__(self, size: int) -> None:
        self._size, self._starts = size, range(0, max(size, 1), BLOCK)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> tuple[int, int]: ...

    @overload
    def __getitem__(self, number: slice) -> list[tuple[int, int]]: ...

    def __getitem__(self, number: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        start = self._starts[number]
        return start, min(start + BLOCK, self._size)


def block_digest(*parts: Any) -> bytes:
    """BLAKE3 of the bytes of one block, given in one or several parts."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def tensor_digest(digests: Iterable[bytes]) -> str:
    """The digest of a tensor, hexadecimal: BLAKE3 over the digests of its blocks. It can be made by any number of
    threads, and does not depend on shards."""
    hasher = blake3()
    for digest in digests:
        hasher.update(digest)
    return hasher.hexdigest()


class Scratch:
    """Arrays that one thread uses again and again. What it hands out is valid until the role is asked for again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}
        self._parts: dict[int, Scratch] = {}
        self.tools: dict[str, Any] = {}
        """Objects that may not be shared by threads, such as compressors."""

    def array(self, role: str, count: int, dtype: Any) -> Array:
        """An array of `count` entries with whatever is in it."""
        nbytes = count * np.dtype(dtype).itemsize
        held = self._buffers.get(role)
        if held is None or held.nbytes < nbytes:
            held = self._buffers[role] = np.zeros(nbytes, np.uint8)  # zeros, since `empty` could show another's bytes
        return held[:nbytes].view(dtype)

    def part(self, number: int) -> "Scratch":
        """Another scratch of the same thread, for what is needed several times at once."""
        return self._parts.setdefault(number, Scratch())


def default_workers() -> int:
    """As many threads as there are processors for this process, at most `MOST_WORKERS`."""
    return max(1, min(len(os.sched_getaffinity(0)), MOST_WORKERS))


class Workers:
    """Does work on blocks with a number of threads, reading, computing and writing at once; results come in order."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or default_workers()
        self._pool: ThreadPoolExecutor | None = None
        self._own = threading.local()

    def __enter__(self) -> "Workers":
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="reasonvec")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool:
            # nothing may still be written when the caller closes files
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[Task, Scratch], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """`work(task, scratch)` for every task, in the order of the tasks; a few are under way ahead of the result."""
        if self._pool is None:
            for task in tasks:
                yield self._run(work, task)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(self._run, work, task))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:
                if not future.cancelled():
                    future.exception()  # waits

    def _run(self, work: Callable[[Task, Scratch], Result], task: Task) -> Result:
        scratch = getattr(self._own, "scratch", None)
        if scratch is None:
            scratch = self._own.scratch = Scratch()
        return work(task, scratch)
