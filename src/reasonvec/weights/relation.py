"""How two donors descend from an ancestor: reinforcement learning on top of SFT, or both from the same start.

The paper's wording (arXiv:2509.01363) allows both. In the second case v = (GRPO - ancestor) - (SFT - ancestor) is
mostly minus the SFT update and behaves quite differently.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reasonvec.errors import CheckpointError, IncompatibleError
from reasonvec.weights.arithmetic import TILE, has_non_finite
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, tensor_reader
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.provenance import absolute
from reasonvec.weights.tensors import read_run

Case = Literal["chained", "parallel", "from the ancestor", "unclear"]

PARALLEL = -0.5
CHAINED = -0.25
"""The share of the SFT update that v holds. If GRPO went on from the SFT donor the two are nearly orthogonal and the
share is near 0 (0.11 to 0.17 in cosine on the lab's models); if it started again from the ancestor, v takes the whole
update back and the share is near -1. Between the two bounds the weights do not tell."""


@dataclass(frozen=True)
class Relation:
    """Norms of and cosines between v = tuned - base, s = base - ancestor and g = tuned - ancestor."""

    ancestor: str
    norm_v: float
    norm_s: float
    norm_g: float
    cosine_v_s: float | None
    """None where one of the two is zero."""
    cosine_v_g: float | None
    cosine_s_g: float | None
    share: float | None
    """<v, s> / <s, s>: how much of the SFT update v holds; -1 if v takes it back."""

    @property
    def case(self) -> Case:
        """Which of the readings the weights speak for."""
        if self.share is None:
            return "from the ancestor"
        if self.share <= PARALLEL:
            return "parallel"
        return "chained" if self.share >= CHAINED else "unclear"

    @property
    def explanation(self) -> str:
        """One or two sentences for people."""
        return {
            "chained": "The tuned donor went on from the base donor: v is what the later training added.",
            "parallel": f"Both donors were trained from the ancestor: v takes {-(self.share or 0):.0%} of the base "
                        f"donor's update back, and at alpha 1 usually does more harm than good. Use a tuned donor that "
                        f"went on from the base donor, or take --base ANCESTOR instead, or a small alpha.",
            "from the ancestor": "The base donor is the ancestor itself: v is all that training added to it.",
            "unclear": "The weights do not tell whether the tuned donor went on from the base donor or started again "
                       "from the ancestor. Find out before you trust alpha 1.",
        }[self.case]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As vector.json and `--json` hold it."""
        return {
            "ancestor": self.ancestor, "case": self.case, "norm_v": self.norm_v, "norm_s": self.norm_s,
            "norm_g": self.norm_g, "cosine_v_s": self.cosine_v_s, "cosine_v_g": self.cosine_v_g,
            "cosine_s_g": self.cosine_s_g, "share": self.share, "explanation": self.explanation,
        }  # fmt: skip


def relate(*, tuned: Checkpoint, base: Checkpoint, ancestor: Checkpoint, names: Collection[str]) -> Relation:
    """Compare the two donors with their `ancestor` over the tensors `names`, in float64; of tied tensors name one.

    Raises IncompatibleError if the ancestor lacks one of them or has it in another shape.
    """
    wrong = [name for name in names if name not in ancestor.tensors
             or ancestor.tensors[name].shape != base.tensors[name].shape
             or ancestor.tensors[name].dtype not in FLOATS]  # fmt: skip
    if wrong:
        raise IncompatibleError(
            f"{ancestor.location} is not the donors' ancestor: {len(wrong)} of {len(names)} tensors are missing there, "
            f"or of another shape or kind, first {wrong[0]}. Leave --ancestor out, or name the model both came from."
        )
    total = np.zeros(6)
    with tensor_reader() as reader:
        for name in sorted(names):
            total += _products(tuned, base, ancestor, name, reader)
    vv, ss, gg, vs, vg, sg = (float(value) for value in total)

    def cosine(product: float, a: float, b: float) -> float | None:
        return product / math.sqrt(a * b) if a > 0 and b > 0 else None

    return Relation(
        absolute(ancestor.location), math.sqrt(vv), math.sqrt(ss), math.sqrt(gg),
        cosine(vs, vv, ss), cosine(vg, vv, gg), cosine(sg, ss, gg), vs / ss if ss > 0 else None,
    )  # fmt: skip


def _products(tuned: Checkpoint, base: Checkpoint, ancestor: Checkpoint, name: str, reader: TensorReader) -> Any:
    """The inner products vv, ss, gg, vs, vg, sg of one tensor."""
    total = np.zeros(6)
    entries, size = [checkpoint.tensors[name] for checkpoint in (tuned, base, ancestor)], base.tensors[name].size
    for start in range(0, size, TILE):
        tiles_read = [read_run(entry, start, min(start + TILE, size), reader) for entry in entries]
        if any(has_non_finite(tile) for tile in tiles_read):
            raise CheckpointError(f"{name!r} of the donors or of the ancestor {ancestor.location} holds NaN or "
                                  f"infinity. A norm with it means nothing; that checkpoint is broken.")  # fmt: skip
        t, b, a = (tile.astype(np.float64) for tile in tiles_read)
        v, s, g = t - b, b - a, t - a
        total += [np.add.reduce(x * y) for x, y in ((v, v), (s, s), (g, g), (v, s), (v, g), (s, g))]
    return total
