"""Reading objects in stores: a request takes a hundred times as long as one of a disk, so tensors are fetched in long
windows, several at once, ahead of whoever reads them block by block.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.stores import RemoteFile

WINDOW = 4 << 20
"""Bytes of one request. At 50 ms and 80 MB/s, what a connection to S3 gives, as long is waited as is read."""

AHEAD = 3
"""Windows of a tensor that are fetched beyond the one that is read: with it, the requests under way at once."""

_MOST_WINDOWS = 48
"""Windows that are kept at most. One goes when all of it was read, so only reads in odd orders reach this."""

_THREADS = 16


@dataclass
class _Window:
    begin: int
    data: "Future[bytes]"
    unread: int = field(default=0)


class ReadAhead:
    """Reads of tensors in stores, by several threads."""

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[RemoteFile, int, int], _Window] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")

    def read_into(self, file: RemoteFile, entry: TensorEntry, start: int, buffer: memoryview, alone: bool) -> None:
        """Fill `buffer` from byte `start` of `entry`; `alone` fetches this and nothing near it."""
        if alone:
            buffer[:] = file.read(entry.offset + start, entry.offset + start + len(buffer))
            return
        position, stop = start, start + len(buffer)
        while position < stop:
            window = self._window(file, entry, position // WINDOW)
            data = window.data.result()
            part = data[position - window.begin : stop - window.begin]
            buffer[position - start : position - start + len(part)] = part
            position += len(part)
            self._done(file, entry, window, len(part))

    def _window(self, file: RemoteFile, entry: TensorEntry, number: int) -> _Window:
        """A window of a tensor, with the next ones on their way."""
        last = (entry.nbytes - 1) // WINDOW
        with self._lock:
            for each in range(number, min(number + AHEAD, last) + 1):
                key = (file, entry.offset, each)
                if key not in self._windows:
                    begin, end = each * WINDOW, min((each + 1) * WINDOW, entry.nbytes)
                    data = self._pool.submit(file.read, entry.offset + begin, entry.offset + end)
                    self._windows[key] = _Window(begin, data, end - begin)
            found = self._windows[file, entry.offset, number]
            self._windows.move_to_end((file, entry.offset, number))
            while len(self._windows) > _MOST_WINDOWS:
                self._windows.popitem(last=False)
            return found

    def _done(self, file: RemoteFile, entry: TensorEntry, window: _Window, count: int) -> None:
        with self._lock:
            window.unread -= count
            if window.unread <= 0:
                self._windows.pop((file, entry.offset, window.begin // WINDOW), None)

    def close(self) -> None:
        """Wait for what is under way and drop it."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._windows.clear()
