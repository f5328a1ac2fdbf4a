"""Random choices that are the same on every Python and platform: a counter hashed with a key, and nothing of `random`,
whose drawing functions are free to change between versions."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class RandomStream:
    """Draws from BLAKE2b(key, counter). Streams of different keys are independent; equal keys give equal draws."""

    def __init__(self, *key: str | int) -> None:
        # lengths before the parts, so that ("a", "b/c") and ("a/b", "c") differ
        text = "".join(f"{len(str(part))}:{part}" for part in key)
        self._key = hashlib.blake2b(text.encode(), digest_size=32).digest()
        self._counter = 0

    def below(self, limit: int) -> int:
        """A uniform integer in 0 .. limit - 1; `limit` is at most 2**64."""
        if not 0 < limit <= 1 << 64:
            raise ValueError(f"Nothing can be drawn below {limit}: the limit is 1 to 2**64.")
        whole = (1 << 64) // limit * limit
        while True:
            self._counter += 1
            block = hashlib.blake2b(self._counter.to_bytes(8, "little"), key=self._key, digest_size=8).digest()
            drawn = int.from_bytes(block, "little")
            if drawn < whole:  # what is above would make low numbers likelier
                return drawn % limit

    def between(self, low: int, high: int) -> int:
        """A uniform integer in low .. high, both included."""
        return low + self.below(high - low + 1)

    def choose(self, items: Sequence[T]) -> T:
        """One of `items`, each equally likely."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of `items` in an order of which each is equally likely (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
