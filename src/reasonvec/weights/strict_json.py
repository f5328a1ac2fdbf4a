"""JSON of strangers, read a window at a time: what is made of it takes the memory that it was granted, and no more.

`json.loads` holds the whole text, decoded, beside the values, and makes 20 bytes and more of one: of `[],` 64. Here the
scanner of the standard library is given 256 KiB of text at a time, and every value that is kept is counted. Where one
value does not fit into the window its parts are read one after another. What the text means is for others.
"""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from sys import getsizeof
from typing import Any

from reasonvec.weights.files import open_small

MAX_NESTING = 64
"""Objects and lists within one another that JSON may have; configurations have some 5. What is deeper may still be
parsed, but then neither compared nor printed."""

MAX_TEXT = 8 << 20
"""Bytes of one text, name or number in memory, where a letter takes 1, 2 or 4. The longest known, what torch says of
its chunks in a header, has some 2 million letters."""

MARGIN = 64 << 20
"""Bytes that values may take beyond the size of the files they are from. The 36 MB that are left to 100 are for what a
reader holds for a moment."""

_WINDOW = 1 << 18
"""Bytes of text that are looked at at once."""
_ATTEMPTS = 8
"""Places at which a window is cut in vain at most: a comma may stand in a text, or the object may end before."""
_MOST_KNOWN = 4096
_LONGEST_KNOWN = 63
"""Names and texts that are kept once however often they are read: at most so many, of at most so many letters."""

_RECORD = 64
"""Members that an object has at most whose names are taken for those of fields."""
_NUMBER, _ROUNDING = 32, 8
"""Bytes that a number takes, and that a text takes more than it says: memory is given out in multiples of 16."""

_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r"[-+.\w]*")
_CUT = object()


class TooLargeError(ValueError):
    """What was read would take more memory than its size explains."""


class DuplicateNameError(ValueError):
    """An object has a name twice; the name is `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:80]!a} is twice in one object")
        self.name = name


class Budget:
    """Bytes that may be made of files: their own sizes, which are added as they are opened, and a margin."""

    def __init__(self, margin: int = MARGIN) -> None:
        self.limit, self.spent = margin, 0

    def grow(self, nbytes: int) -> None:
        """A file of that size is read."""
        self.limit += nbytes

    def spend(self, nbytes: int) -> None:
        """Something of that size is kept. Raises TooLargeError where it does not fit."""
        self.spent += nbytes
        self.reserve(0)

    def reserve(self, nbytes: int) -> None:
        """Something of that size may be held for a moment: a dict that grows has its old and its new places at once.
        Raises TooLargeError where it does not fit."""
        if self.spent + nbytes > self.limit:
            raise TooLargeError(
                f"it holds so many values that they would take more than {self.limit} bytes of memory, which is what "
                f"its size allows; no file of its kind does"
            )

    @contextmanager
    def lent(self) -> Iterator[None]:
        """What is spent within the `with` block is free again behind it."""
        spent = self.spent
        try:
            yield
        finally:
            self.spent = spent


def complaint(error: ValueError) -> str:
    """What a message says of a file of which `error` was raised: `FILE is not JSON (why)`."""
    return f"is refused: {error}" if isinstance(error, TooLargeError) else f"is not JSON ({error})"


def read_json(path: Path, budget: Budget | None = None) -> Any:
    """The content of a file of at most `MAX_SMALL_FILE` bytes, within `budget` or its own size and `MARGIN`.

    Raises CheckpointError where there is no regular file, and ValueError, never RecursionError, with the reason for
    what is not JSON in UTF-8, has a name twice in an object, is nested too deeply or takes too much memory.
    """
    with json_reader(path, budget) as reader:
        return reader.everything()


def loads_strictly(text: bytes | str, budget: Budget | None = None) -> Any:
    """The same for a text in memory."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if budget is None:
        budget = Budget()
        budget.grow(len(data))
    return JsonReader(BytesIO(data).read, budget).everything()


@contextmanager
def json_reader(path: Path, budget: Budget | None = None) -> "Iterator[JsonReader]":
    """A `JsonReader` of a file for the duration of a `with` block; raises what `read_json` does."""
    with open_small(path) as file:
        budget = budget or Budget()
        budget.grow(os.fstat(file.fileno()).st_size)
        yield JsonReader(file.read, budget)


class JsonReader:
    """Reads one JSON text from its beginning to its end. What a method returns begins where the last one ended."""

    def __init__(self, read: Callable[[int], bytes], budget: Budget) -> None:
        self.budget = budget
        self._read = read
        self._to_text = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder(object_pairs_hook=self._object).raw_decode
        self._text, self._at = "", 0
        self._passed = 0
        """Letters before the window."""
        self._ended = False
        self._attempts = 0
        """How often the window may still be cut in vain."""
        self._depth = 0
        self._names: dict[str, str] = {}
        self._texts: dict[str, str] = {}

    def everything(self) -> Any:
        """The one value of a text, and nothing after it."""
        value = self.value()
        self.finish()
        return value

    def finish(self) -> None:
        """Raise ValueError unless nothing but space follows."""
        if self.next_letter():
            self._fail("Extra data")

    def next_letter(self) -> str:
        """The letter with which the next value begins, or what else comes next; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def value(self) -> Any:
        """A value that is kept: its memory is spent."""
        letter = self.next_letter()
        found = self._in_window(letter)
        if found is not _CUT:
            return found
        return self._object_in_parts() if letter == "{" else self._list_in_parts()

    def _object_in_parts(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for batch in self._members():
            size = getsizeof(result)
            self.budget.reserve(2 * size)
            add_members(result, batch)
            self.budget.spend(getsizeof(result) - size)
        return result

    def _list_in_parts(self) -> list[Any]:
        result: list[Any] = []
        for batch in self._elements():
            size = getsizeof(result)
            result += batch
            self.budget.spend(getsizeof(result) - size)
        return result

    def skip(self) -> None:
        """A value that is not kept."""
        with self.budget.lent():
            letter = self.next_letter()
            if self._in_window(letter) is _CUT:
                for _ in self.pairs() if letter == "{" else self.elements():
                    pass

    def names(self) -> Iterator[str]:
        """The names of an object, one at a time; the value of each has to be read before the next is asked for."""
        seen: set[str] = set()
        for name in self._names_one_by_one():
            if name in seen:
                raise DuplicateNameError(name)
            seen.add(name)
            self.budget.spend(getsizeof(name) + 64)
            yield name

    def pairs(self) -> Iterator[dict[str, Any]]:
        """The members of an object, some at a time. Who keeps them spends their memory, and joins them with
        `add_members`."""
        return self._lent("{", self._members())

    def elements(self) -> Iterator[list[Any]]:
        """The elements of a list, some at a time. Who keeps them spends their memory."""
        return self._lent("[", self._elements(kept=False))

    def _lent(self, letter: str, parts: Iterator[Any]) -> Iterator[Any]:
        spent = self.budget.spent
        if self.next_letter() == letter and (whole := self._in_window(letter)) is not _CUT:
            parts = iter([whole])
        for part in parts:
            self.budget.spent = spent
            yield part
            spent = self.budget.spent
        self.budget.spent = spent

    def _names_one_by_one(self) -> Iterator[str]:
        self._enter("{")
        if self.next_letter() == "}":
            self._leave()
            return
        while True:
            if self.next_letter() != '"':
                self._fail("Expecting property name enclosed in double quotes")
            name = self._in_window('"')
            if self.next_letter() != ":":
                self._fail("Expecting ':' delimiter")
            self._at += 1
            yield name
            if not self._goes_on("}"):
                return

    def _members(self) -> Iterator[dict[str, Any]]:
        names = self._names_one_by_one()
        for name in names:
            yield {name: self.value()}
            if self.next_letter() == "," and (batch := self._batch("{", "}")):
                yield batch

    def _elements(self, kept: bool = True) -> Iterator[list[Any]]:
        self._enter("[")
        if self.next_letter() == "]":
            self._leave()
            return
        while True:
            yield [self.value()]
            if self.next_letter() == "," and (batch := self._batch("[", "]", kept)):
                yield batch
            if not self._goes_on("]"):
                return

    def _batch(self, first: str, last: str, kept: bool = True) -> Any:
        """What follows the comma here, up to the last comma of the window that divides members or elements; None where
        none is found. A cut at another comma leaves a text or a bracket open, so that the scanner refuses it."""
        before = self._text[self._at - 1 : self._at]
        divider = f"{before}," if before in ('"', "]", "}") else ","
        spent, limit = self.budget.spent, len(self._text)
        while self._attempts:
            self._attempts -= 1
            cut = self._text.rfind(divider, self._at + 1, limit)
            if cut < 0:
                break
            limit = cut if limit == len(self._text) else (self._at + cut) // 2
            stop = cut + len(divider) - 1
            piece = f"{first}{self._text[self._at + 1 : stop]}{last}"
            try:
                batch, end = self._scan(piece)
            except json.JSONDecodeError:
                self.budget.spent = spent
                continue
            except RecursionError:
                raise self._too_deep() from None
            if end == len(piece) and batch:
                self._check_depth(batch, piece, 0, end, MAX_NESTING - self._depth + 1)
                if first == "{":
                    self.budget.spent -= getsizeof(batch)
                elif kept:
                    self.budget.spend(sum(map(memory_of, batch)))
                self._at = stop
                self._attempts += 1
                return batch
            self.budget.spent = spent
        return None

    def _in_window(self, letter: str) -> Any:
        """The value that begins here with `letter`, its memory spent; `_CUT` for an object or list of which the window
        does not hold all, at the beginning of which the reader then still stands."""
        if letter not in ("{", "[", '"'):
            while _TOKEN.match(self._text, self._at).end() == len(self._text) and self._more():  # type: ignore[union-attr]
                pass
        while True:
            spent = self.budget.spent
            try:
                value, end = self._scan(self._text, self._at)
                break
            except json.JSONDecodeError as error:
                self.budget.spent = spent
                if letter in ("{", "["):
                    if len(self._text) - self._at < _WINDOW // 2 and self._fill():
                        continue
                    return _CUT
                cut = error.msg.startswith("Unterminated") or error.pos + 12 > len(self._text)
                if letter != '"' or not cut or not self._more():
                    self._fail(error.msg, error.pos)
            except RecursionError:
                raise self._too_deep() from None
        self._check_depth(value, self._text, self._at, end, MAX_NESTING - self._depth)
        self.budget.spend(memory_of(value))
        self._at = end
        return value

    def _more(self) -> bool:
        """Whether more of the text or number that begins here could be read."""
        if getsizeof(self._text) > MAX_TEXT:
            raise TooLargeError(
                f"it holds a text or a number that takes more than {MAX_TEXT} bytes of memory; no file of its kind does"
            )
        return self._fill()

    def _fill(self) -> bool:
        """Let the window begin here and read more of it; False at the end."""
        if self._ended:
            return False
        data = self._read(_WINDOW)
        self._ended = not data
        try:
            more = self._to_text(data, self._ended)
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 ({error.reason})") from None
        self._text, self._passed, self._at = self._text[self._at :] + more, self._passed + self._at, 0
        self._attempts = _ATTEMPTS
        return True

    def _enter(self, letter: str) -> None:
        if self.next_letter() != letter:
            self._fail(f"Expecting {letter!r}")
        if self._depth >= MAX_NESTING:
            raise self._too_deep()
        self._depth += 1
        self._at += 1

    def _leave(self) -> None:
        self._depth -= 1
        self._at += 1

    def _goes_on(self, last: str) -> bool:
        """Read the comma, or `last`, which ends the object or list."""
        letter = self.next_letter()
        if letter == last:
            self._leave()
            return False
        if letter != ",":
            self._fail("Expecting ',' delimiter")
        self._at += 1
        return True

    def _check_depth(self, value: Any, text: str, start: int, end: int, levels: int) -> None:
        if text.count("[", start, end) + text.count("{", start, end) > levels and _is_deeper(value, levels):
            raise self._too_deep()

    def _too_deep(self) -> ValueError:
        return ValueError(f"nested more than {MAX_NESTING} levels deep, which no file of its kind is")

    def _fail(self, what: str, place: int | None = None) -> None:
        raise ValueError(
            f"{what.removesuffix(' at')} at letter {self._passed + (self._at if place is None else place) + 1}"
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object as the scanner has read it, its memory spent. Short texts are kept once, and so are the names of a
        record, of which there may be many alike."""
        if len(pairs) > _RECORD:
            result = dict(pairs)
            cost = sum(map(getsizeof, result)) + _ROUNDING * len(result)
            if any(kind is not int for kind in set(map(type, result.values()))):
                for name, value in result.items():
                    result[name], more = self._once(value, self._texts)
                    cost += more
            else:
                cost += _NUMBER * len(result)
        else:
            result, cost = {}, 0
            names, texts = self._names, self._texts
            for name, value in pairs:
                if (known := names.get(name)) is None:
                    known, more = self._once(name, names)
                    cost += more
                if type(value) is str:
                    value, more = self._once(value, texts)
                    cost += more
                else:
                    cost += memory_of(value)
                result[known] = value
        if len(result) != len(pairs):
            raise DuplicateNameError(_first_twice(pairs))
        self.budget.spend(cost + getsizeof(result))
        return result

    def _once(self, value: Any, known: dict[str, str]) -> tuple[Any, int]:
        """The value, or its like among the texts that are known, and what it costs."""
        if type(value) is not str:
            return value, memory_of(value)
        if (found := known.get(value)) is not None:
            return found, 0
        if len(value) <= _LONGEST_KNOWN and len(known) < _MOST_KNOWN:
            known[value] = value
        return value, memory_of(value)


def add_members(known: dict[str, Any], batch: dict[str, Any]) -> None:
    """Add a part of an object to those before it. Raises DuplicateNameError for a name that is in both."""
    if twice := known.keys() & batch.keys():
        raise DuplicateNameError(min(twice))
    known.update(batch)


def _first_twice(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    return name


def memory_of(value: Any) -> int:
    """Bytes that a value takes, without the objects in it, which were counted when they were made."""
    kind = type(value)
    if kind is str:
        return getsizeof(value) + _ROUNDING
    if kind is list:
        if set(map(type, value)) == {int}:
            return getsizeof(value) + _NUMBER * (len(value) - int(value.count(0)))
        return getsizeof(value) + sum(map(memory_of, value))
    if kind is dict or kind is bool or value is None or (kind is int and -6 < value < 257):
        return 0
    return max(_NUMBER, getsizeof(value))


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more than so many levels. Goes level by level, for want of a stack that deep."""
    level = [value]
    for _ in range(levels):
        within = [outer.values() if type(outer) is dict else outer for outer in level]
        if not {dict, list} & set(map(type, chain.from_iterable(within))):
            return False
        level = [inner for inner in chain.from_iterable(within) if type(inner) in (dict, list)]
    return True
