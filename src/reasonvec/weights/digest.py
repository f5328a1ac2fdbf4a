"""SHA-256 beside the arithmetic: hashing is as slow as all the rest together, and it leaves Python's lock free, so it
runs on a thread of its own."""

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

_WAITING = 32
"""Pieces that may wait to be hashed; at 64 Ki entries each they hold at most some 10 MB."""

_thread: ThreadPoolExecutor | None = None
_room = threading.BoundedSemaphore(_WAITING)


def _forget_thread() -> None:
    """A forked process has no threads but the one that forked."""
    global _thread, _room
    _thread, _room = None, threading.BoundedSemaphore(_WAITING)


os.register_at_fork(after_in_child=_forget_thread)


class Digest:
    """The SHA-256 of data that is handed over piece by piece. A piece must not change once it was handed over."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, data: memoryview) -> None:
        """Take the next piece; returns before it is hashed."""
        global _thread
        if _thread is None:
            _thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        _room.acquire()
        self._last = _thread.submit(self._hash, data)

    def _hash(self, data: memoryview) -> None:
        try:
            self._digest.update(data)
        finally:
            _room.release()

    def hexdigest(self) -> str:
        """Of all pieces so far, once they are hashed: there is one thread, so the last is the last to be done."""
        if self._last:
            self._last.result()
        return self._digest.hexdigest()
