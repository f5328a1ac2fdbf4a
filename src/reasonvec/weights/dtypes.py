"""What each safetensors dtype is in NumPy, and which of them reasonvec computes with. No files, no arithmetic here."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point dtype that vectors are made of and added to."""

    code: str
    """Its name in a safetensors header: `BF16`, `F16` or `F32`."""
    name: str
    """Its name in torch and on our command line: `bfloat16`, `float16`, `float32`."""
    numpy: np.dtype[Any]
    work: np.dtype[Any]
    """The dtype that sums are computed in before they are rounded once: one that holds this dtype's products."""
    bits: np.dtype[Any]
    """The unsigned integer of the same width, for comparing bit patterns."""
    significand: int
    """Bits of precision, the hidden one included. Orders the formats by how fine their grid is."""


FLOATS: dict[str, FloatFormat] = {
    fmt.code: fmt
    for fmt in (
        FloatFormat(
            "BF16", "bfloat16", np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.uint16), significand=8
        ),
        FloatFormat("F16", "float16", np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.uint16), significand=11),
        FloatFormat("F32", "float32", np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint32), significand=24),
    )
}

BITS_PER_ENTRY: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Every dtype of the safetensors format. Those not in `FLOATS` are carried: copied from the target, never computed."""

STORED: dict[str, np.dtype[Any]] = {
    "BF16": FLOATS["BF16"].numpy, "F16": np.dtype(np.float16), "F32": np.dtype(np.float32), "F64": np.dtype(np.float64)
}  # fmt: skip
"""The dtypes a delta may be stored in."""

EXACT_CHAIN: dict[str, tuple[str, ...]] = {
    "BF16": ("BF16", "F32", "F64"),
    "F16": ("F16", "F32", "F64"),
    "F32": ("F32", "F64"),
}
"""For deltas between tensors of a dtype: the storage dtypes to try, narrowest first."""


def format_named(name: str) -> FloatFormat:
    """The format that torch calls `name` ("bfloat16", "float16", "float32"); KeyError for anything else."""
    return {fmt.name: fmt for fmt in FLOATS.values()}[name]


def coarser(a: str, b: str) -> str:
    """Of two float dtype codes the one with the coarser grid: the common grid for donors that differ."""
    return min(a, b, key=lambda code: FLOATS[code].significand)
