"""The benchmark's side of the search: words, runs of 8 words, and where a batch of text holds one of them.

A run is found by a 64-bit sum over the numbers of its words and then compared word by word: no false finds.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RUN = 8
"""Words of a run; a question that has fewer is one run of all its words."""
SEPARATOR = b"\x01"
"""A word that no text holds; set between texts, so that no run spans two."""

_TABLE = bytes(
    ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else byte if byte >= 128 else 32 for byte in range(256)
)
_PUNCTUATION = "‘’“”–—…×÷·•−→≤≥≠°£€«»„‚′″\u200b\u200d\ufeff"
_NO_LETTER = re.compile(r"[^\w\x00-\x7f]+")
# odd constants, so that each is invertible modulo 2**64; from the digits of pi
_WEIGHTS = np.array(
    [0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1, 0x082EFA98EC4E6C89,
     0x452821E638D01377, 0xBE5466CF34E90C6D, 0xC0AC29B7C97C50DD, 0x3F84D5B5B5470917], np.uint64,
)  # fmt: skip
_MIX = np.array([0x9216D5D98979FB1B, 0xD1310BA698DFB5AD], np.uint64)
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
"""Number of bytes -> the mask that keeps so many, the first being the lowest."""


class Find(NamedTuple):
    """A run of one problem at one place of a batch."""

    text: int
    """Which text of the batch."""
    problem: int
    run: int
    """Which run of the problem."""
    place: int
    """In words of the batch; runs that follow one another in problem and text have equal `place - run`."""


class RunIndex:
    """Every run of every question, to be looked up in batches of text."""

    def __init__(self, questions: Sequence[str]) -> None:
        words = [normalised(question).split() for question in questions]
        self.runs = [0 if not question else max(1, len(question) - RUN + 1) for question in words]
        """Runs of each question; 0 where it has no word at all and cannot be searched for."""
        self._owners: dict[tuple[bytes, ...], list[tuple[int, int]]] = defaultdict(list)
        for problem, question in enumerate(words):
            for run in range(self.runs[problem]):
                self._owners[tuple(question[run : run + RUN])].append((problem, run))
        self._tables = {length: self._table(length) for length in sorted({len(run) for run in self._owners})}

    def distinctive_runs(self) -> list[frozenset[int]]:
        """Of each problem, the runs that no other problem has."""
        found: list[set[int]] = [set() for _ in self.runs]
        for owners in self._owners.values():
            if len({problem for problem, _ in owners}) == 1:
                found[owners[0][0]].update(run for _, run in owners)
        return [frozenset(runs) for runs in found]

    def find(self, texts: Sequence[bytes]) -> list[Find]:
        """All runs of problems in normalised texts."""
        joined = (b" " + SEPARATOR + b" ").join(texts)
        numbers, starts, ends = _words(joined)
        borders = np.flatnonzero(numbers == _SEPARATOR_NUMBER)
        finds = []
        for length, sums in _sums(numbers):
            if length not in self._tables:
                continue
            for place in _places(sums, *self._tables[length]).tolist():
                run = tuple(joined[starts[place] : ends[place + length - 1]].split())
                if owners := self._owners.get(run):
                    text = int(np.searchsorted(borders, place))
                    finds += [Find(text, problem, number, place) for problem, number in owners]
        return finds

    def _table(self, length: int) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """The sums of all runs of one length, sorted, and for each value of their leading bits whether there is one."""
        runs = [run for run in self._owners if len(run) == length]
        numbers = _words(b" ".join(word for run in runs for word in run))[0].reshape(len(runs), length)
        sums = np.unique((numbers * _WEIGHTS[:length]).sum(axis=1, dtype=np.uint64))
        bits = min(max(16, len(sums).bit_length() + 4), 24)  # one place in 16 or fewer is taken
        filter_ = np.zeros(1 << bits, np.bool_)
        filter_[sums >> np.uint64(64 - bits)] = True
        return filter_, sums


def normalised(text: str) -> bytes:
    """Words in lower case between single or more spaces, as UTF-8: letters and digits stay, all else is a space.

    NFKC and case folding for what is not ASCII, so that ligatures, full-width digits and curly quotation marks do not
    hide a copy.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        for mark in _PUNCTUATION:  # the usual ones, at the speed of memory
            if mark in text:
                text = text.replace(mark, " ")
        if not text.isascii():
            text = _NO_LETTER.sub(" ", text.casefold())
    return text.encode("utf-8", "replace").translate(_TABLE)


def _words(text: bytes) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """For each word a number made of its first 16 bytes, and where it starts and ends. Words that share those have one
    number, so what is found by it has to be compared."""
    padded = b" " + text + b" " * 17
    space = np.frombuffer(padded, np.uint8) == 32
    edges = np.flatnonzero(space[1:] != space[:-1])  # as places in `text`: one space stands before it
    starts, ends = edges[::2], edges[1::2]
    eight = np.ndarray((len(padded) - 8,), "<u8", padded, strides=(1,))  # the 8 bytes from any place on
    lengths = ends - starts
    numbers = (eight[starts + 1] & _MASKS[np.minimum(lengths, 8)]) * _MIX[0]
    longer = np.flatnonzero(lengths > 8)
    numbers[longer] += (eight[starts[longer] + 9] & _MASKS[np.minimum(lengths[longer] - 8, 8)]) * _MIX[1]
    numbers ^= numbers >> np.uint64(31)
    return numbers, starts, ends


def _sums(ids: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """For each length of a run from 1 on, the weighted sums, modulo 2**64, of that many numbers from each place on.

    One array, added to from length to length: what was given before has changed by then.
    """
    if not len(ids):
        return
    total = ids * _WEIGHTS[0]
    yield 1, total
    for place in range(1, min(RUN, len(ids))):
        total = total[:-1]
        total += ids[place:] * _WEIGHTS[place]
        yield place + 1, total


def _places(found: NDArray[np.uint64], filter_: NDArray[np.bool_], sums: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where `found` holds one of the sorted `sums`."""
    places = np.flatnonzero(filter_[found >> np.uint64(65 - len(filter_).bit_length())])
    candidates = found[places]
    slots = np.minimum(np.searchsorted(sums, candidates), len(sums) - 1)
    matching: NDArray[np.int64] = places[sums[slots] == candidates]
    return matching


_SEPARATOR_NUMBER = _words(SEPARATOR)[0][0]
