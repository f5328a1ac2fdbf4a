"""Training data as a stream of texts: every string in every line of JSONL files, in memory that does not grow."""

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from reasonvec.errors import BenchmarkError, CheckpointError
from reasonvec.weights.files import open_regular

MAX_LINE = 64 << 20
"""Bytes of one line at most; it is held whole."""
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class Line(NamedTuple):
    """The texts of one training row."""

    file: int
    """Which of the files."""
    number: int
    """Counted from 1."""
    texts: tuple[str, ...]
    """Every string in it that is no name of a field, at any depth, in order."""
    nbytes: int
    """Of the line as it stands, uncompressed."""


def check_training(files: tuple[Path, ...]) -> None:
    """Raise BenchmarkError unless all are regular JSONL files by their names: before the first is read."""
    wrong = []
    for file in files:
        if not file.name.endswith(_ENDINGS):
            wrong.append(f"{file} does not end in {', '.join(_ENDINGS)}")
            continue
        try:
            os.close(open_regular(file))
        except CheckpointError as error:
            wrong.append(str(error).rstrip("."))
    if wrong:
        raise BenchmarkError(
            f"The training data cannot be searched: {'; '.join(wrong)}. It is JSON lines, one training row a line, as "
            f"`datasets` writes with to_json."
        )


def read_lines(files: tuple[Path, ...], progress: Callable[[int], None] | None = None) -> Iterator[Line]:
    """Every row of the files in order; `progress` is told the bytes of each. Raises BenchmarkError at a line that is
    not JSON: what cannot be read cannot be called free of overlap."""
    for place, file in enumerate(files):
        with ExitStack() as stack:
            raw = stack.enter_context(os.fdopen(open_regular(file), "rb"))
            stream = stack.enter_context(_uncompressed(raw, file.name))
            number = 0
            while True:
                line = _next_line(stream, file, number + 1)
                if not line:
                    break
                number += 1
                if progress:
                    progress(len(line))
                if not line.strip():
                    continue
                yield Line(place, number, tuple(_strings(_parsed(line, file, number))), len(line))


def _uncompressed(raw: IO[bytes], name: str) -> IO[bytes]:
    if name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20)
    if name.endswith(".zst"):
        return io.BufferedReader(_ZstdFrames(raw), 1 << 20)
    return raw


class _ZstdFrames(io.RawIOBase):
    """The content of zstd frames one after another, as pzstd and `cat` make them. EOFError where the last is cut off,
    which the library's own reader takes for its end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._raw.read(1 << 17)
            if not self._input:
                if self._begun:
                    raise EOFError("a frame is cut off")
                return 0
            self._begun = True
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._begun = False
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count


def _next_line(stream: IO[bytes], file: Path, number: int) -> bytes:
    try:
        line = stream.readline(MAX_LINE + 1)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise BenchmarkError(
            f"{file} cannot be read after line {number - 1}: {error}. It is damaged or cut off; fetch it again."
        ) from None
    if len(line) > MAX_LINE:
        raise BenchmarkError(
            f"{file} line {number} has more than {MAX_LINE} bytes. A file of JSON lines has one training row a line; a "
            f"JSON array has to be split first: jq -c '.[]' FILE.json > FILE.jsonl"
        )
    return line


def _parsed(line: bytes, file: Path, number: int) -> Any:
    try:
        # editors of Windows begin a file with a mark
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        value, end = _scan(text, 0)  # json.loads guesses encodings and looks for white space first: a tenth of the time
        if end < len(text):
            raise ValueError(f"something follows the value at character {end}")
        return value
    except StopIteration as error:
        raise BenchmarkError(_no_json(file, number, f"no value at character {error.value}")) from None
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(_no_json(file, number, str(error)[:200])) from None


def _no_json(file: Path, number: int, why: str) -> str:
    return (
        f"{file} line {number} is no JSON: {why}. What cannot be read cannot be called free of overlap; mend or remove "
        f"the line."
    )


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value that is no key, in order; without recursion, which depth could exhaust."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(reversed(item.values()))
        elif isinstance(item, list):
            waiting.extend(reversed(item))
