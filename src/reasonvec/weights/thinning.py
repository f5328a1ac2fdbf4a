"""Which entries of a delta are kept at a density, and by how much they are enlarged. Constant memory: a delta is read
again rather than held.

Magnitude: the top share, as TIES-Merging trims (Yadav et al. 2023, arXiv:2306.01708). Random: each entry by itself, and
enlarged to keep the mean, as DARE drops and rescales (Yu et al. 2023, arXiv:2311.03099).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasonvec.weights.arithmetic import Difference, random_words, rounded
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.sources import WholeDelta


@dataclass(frozen=True)
class Cut:
    """The smallest magnitude that is kept."""

    pattern: int
    """Its float32 bits."""
    ties: tuple[int, ...]
    """For each block, how many of the entries of just that magnitude are kept: its first ones."""

    def keep(self, number: int, difference: Difference) -> Difference:
        """What is kept of the entries of block `number`."""
        magnitudes = _magnitudes(difference)
        kept = magnitudes > self.pattern
        kept[np.flatnonzero(magnitudes == self.pattern)[: self.ties[number]]] = True
        return _only(difference, kept)


def kept_count(density: float, not_zero: int) -> int:
    """How many of the entries that are not zero are kept by magnitude: the nearest number, at least one of some."""
    return max(1, int(density * not_zero + 0.5)) if not_zero else 0


def find_cut(delta: WholeDelta, density: float) -> Cut:
    """The cut that keeps `kept_count` entries, the largest; of equals, those that come first in C order.

    Magnitudes are compared as float32, whose bit patterns are ordered as they are: one pass counts the upper halves of
    the patterns, one the lower halves of those that share the upper half of the cut, and one the entries of each block
    that are equal to it.
    """
    upper = np.zeros(1 << 15, np.int64)
    for counts in delta.map(lambda number, difference, scratch: np.bincount(_magnitudes(difference) >> 16)):
        upper[: len(counts)] += counts
    keep = kept_count(density, int(upper.sum()))
    high, keep = _place(upper, keep)
    lower = np.zeros(1 << 16, np.int64)
    for counts in delta.map(lambda number, difference, scratch: _lower_halves(difference, high)):
        lower[: len(counts)] += counts
    low, keep = _place(lower, keep)
    pattern, ties = high << 16 | low, []
    for equal in delta.map(lambda number, difference, scratch: int((_magnitudes(difference) == pattern).sum())):
        ties.append(min(equal, keep))
        keep -= ties[-1]
    return Cut(pattern, tuple(ties))


def _place(counts: NDArray[np.int64], keep: int) -> tuple[int, int]:
    """The bin from which up there are at least `keep`, and how many of it itself are needed for that."""
    above = np.cumsum(counts[::-1])[::-1]  # of this bin and all larger ones
    place = max(0, int(np.searchsorted(-above, -keep, side="right")) - 1)
    return place, keep - int(above[place] - counts[place])


def _lower_halves(difference: Difference, high: int) -> NDArray[np.int64]:
    magnitudes = _magnitudes(difference)
    return np.bincount(magnitudes[magnitudes >> 16 == high] & 0xFFFF)


def _magnitudes(difference: Difference) -> NDArray[np.int64]:
    """float32 bits of |delta|; what is beyond float32 counts as its largest number."""
    with np.errstate(under="ignore"):
        short = np.minimum(np.abs(difference.high), float(np.finfo(np.float32).max)).astype(np.float32)
    return short.view(np.uint32).astype(np.int64)


def keep_at_random(difference: Difference, density: float, key: int, start: int, count: int) -> Difference:
    """What is kept of a block of `count` entries that begins at entry `start`: entry i if word i of the stream `key` is
    less than `density` * 2**64."""
    words = random_words(key, start, count)[difference.index]
    return _only(difference, words < np.uint64(int(density * 2.0**64)))


def enlarge(difference: Difference, density: float, dtype: str) -> Difference:
    """The entries over `density`, rounded once to bfloat16 between bfloat16 donors, else to float32.

    Rounded, so that a few values stay a few and compress as well. Raises OverflowError beyond the range.
    """
    out = FLOATS["BF16" if dtype == "BF16" else "F32"]
    with np.errstate(over="ignore", under="ignore"):
        high = rounded(difference.high / density, out).astype(np.float64)
    if not np.isfinite(high).all():
        raise OverflowError(out.name)
    return _only(Difference(difference.index, high, np.zeros(len(high))), high != 0)


def _only(difference: Difference, kept: NDArray[np.bool_]) -> Difference:
    return Difference(difference.index[kept], difference.high[kept], difference.low[kept])
