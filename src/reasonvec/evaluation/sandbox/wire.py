"""Plain Python values as one line of JSON, the only thing that the two processes tell each other. What is no plain
value is refused, and no line, whatever it holds, does more than raise ValueError."""

import json
import os
import select
from collections.abc import Callable
from typing import Any

MAX_LINE = 4 << 20
"""Bytes of one line: the answers of honest programs are far below."""
MAX_DEPTH = 100
"""Levels of nesting of a value; far above any answer, far below what overflows a stack."""
CONFINED = b"confined"
"""The first line of every process; another one says why not."""


class NotPlainError(ValueError):
    """A value that is not sent: of another type, too deep or too long."""


class PipeClosedError(ValueError):
    """The other side has ended."""


def encode(value: object) -> bytes:
    """`value` as a line with its end. Raises NotPlainError.

    None, bool, int, float, complex, str, bytes, list, tuple, dict, set and frozenset, also within one another; of
    their subclasses (Counter, OrderedDict, namedtuple, IntEnum) the value of the base type, which compares equal.
    """
    line = json.dumps(_tagged(value, MAX_DEPTH), separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise NotPlainError(f"a value of more than {MAX_LINE >> 20} MiB")
    return line


def decode(line: bytes) -> Any:
    """The value of a line. Raises ValueError for whatever `encode` would not have written."""
    try:
        return _value(json.loads(line, parse_int=_no_number, parse_float=_no_number, parse_constant=_no_number),
                      MAX_DEPTH)  # fmt: skip
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, KeyError) as error:
        raise ValueError(f"a line that is no plain value ({type(error).__name__})") from None


class Lines:
    """Lines from a pipe, one at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = bytearray()

    def next(self) -> bytes:
        """The next line without its end. Raises PipeClosedError, or ValueError if it is too long."""
        searched = 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            if searched > MAX_LINE:
                raise ValueError("a line that is too long")
            if not (block := os.read(self._descriptor, 1 << 16)):
                raise PipeClosedError("the other side ended")
            self._read += block
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def more(self) -> bool:
        """Whether there is something already, be it the end."""
        return bool(self._read) or readable(self._descriptor, 0)


def readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, the end included, within so many seconds."""
    waiting = select.poll()  # select.select knows descriptors up to 1023 alone
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(1000 * max(0.0, seconds)))


def send(descriptor: int, line: bytes) -> None:
    """All of `line`, in as many writes as it takes."""
    while line:
        line = line[os.write(descriptor, line) :]


def _tagged(value: object, depth: int) -> Any:
    # integers and floats as hexadecimal text: exact, and read in linear time however long
    if not depth:
        raise NotPlainError(f"a value nested more than {MAX_DEPTH} deep")
    if value is None or value is True or value is False:
        return value
    for kind, tag, write in _WRITTEN:
        if isinstance(value, kind):
            return [tag, write(value, depth - 1)]
    raise NotPlainError(f"a {type(value).__name__}")


def _items(value: Any, depth: int) -> list[Any]:
    return [_tagged(item, depth) for item in value]


def _pairs(value: Any, depth: int) -> list[Any]:
    return [[_tagged(key, depth), _tagged(item, depth)] for key, item in value.items()]


_WRITTEN: tuple[tuple[type | tuple[type, ...], str, Callable[[Any, int], Any]], ...] = (
    (int, "int", lambda value, _: format(int(value), "x")),
    (float, "float", lambda value, _: float.hex(value)),
    (complex, "complex", lambda value, _: [float.hex(value.real), float.hex(value.imag)]),
    (str, "str", lambda value, _: str.__str__(value)),
    ((bytes, bytearray), "bytes", lambda value, _: bytes(value).hex()),
    (list, "list", _items),
    (tuple, "tuple", _items),
    (dict, "dict", _pairs),
    (set, "set", _items),
    (frozenset, "frozenset", _items),
)


def _value(tagged: Any, depth: int) -> Any:
    if not depth:
        raise ValueError("too deep")
    if tagged is None or tagged is True or tagged is False:
        return tagged
    tag, content = tagged
    return _READ[tag](content, depth - 1)


def _values(content: Any, depth: int) -> list[Any]:
    if type(content) is not list:
        raise TypeError("no list")
    return [_value(item, depth) for item in content]


def _text(content: Any, _: int) -> str:
    if type(content) is not str:
        raise TypeError("no text")
    return content


_READ: dict[str, Callable[[Any, int], Any]] = {
    "int": lambda content, _: int(content, 16),
    "float": lambda content, _: float.fromhex(content),
    "complex": lambda content, _: complex(*map(float.fromhex, content)),
    "str": _text,
    "bytes": lambda content, _: bytes.fromhex(content),
    "list": _values,
    "tuple": lambda content, depth: tuple(_values(content, depth)),
    "dict": lambda content, depth: {_value(key, depth): _value(item, depth) for key, item in content},
    "set": lambda content, depth: set(_values(content, depth)),
    "frozenset": lambda content, depth: frozenset(_values(content, depth)),
}


def _no_number(text: str) -> Any:
    raise ValueError("a bare number")
