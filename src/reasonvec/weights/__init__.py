"""Checkpoints, vectors and the arithmetic between them. Knows nothing of evaluation; needs neither torch nor
transformers."""

from reasonvec.weights.analysis import inspect
from reasonvec.weights.apply import Options, apply, transfer
from reasonvec.weights.comparison import compare
from reasonvec.weights.compatibility import check
from reasonvec.weights.controls import write_permuted, write_random
from reasonvec.weights.extract import extract
from reasonvec.weights.verify import verify

__all__ = [
    "Options", "apply", "check", "compare", "extract", "inspect", "transfer", "verify", "write_permuted",
    "write_random",
]  # fmt: skip
