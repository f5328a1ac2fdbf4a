"""A tensor seen as matrices: one, or a stack of them."""

from dataclasses import dataclass

MAX_MATRICES = 4096
"""More stacked matrices than any model has experts; a convolution has that many and no spectrum worth the time."""


@dataclass(frozen=True)
class Stack:
    """A tensor as matrices: one, or for three dimensions one for each entry of the first (experts)."""

    count: int
    rows: int
    columns: int

    @property
    def area(self) -> int:
        """Entries of one matrix."""
        return self.rows * self.columns


def stack_of(shape: tuple[int, ...]) -> Stack | None:
    """How a tensor of this shape is seen; None for one that is no matrix or stack of matrices."""
    if len(shape) not in (2, 3) or 0 in shape:
        return None
    count = shape[0] if len(shape) == 3 else 1
    return Stack(count, shape[-2], shape[-1]) if count <= MAX_MATRICES else None
