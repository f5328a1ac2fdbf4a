"""Checkpoints, vectors and the arithmetic between them. Knows nothing of evaluation; needs neither torch nor
transformers."""

from reasonvec.weights.analysis import inspect
from reasonvec.weights.application import apply, apply_sweep, transfer, transfer_sweep
from reasonvec.weights.comparison import compare
from reasonvec.weights.compatibility import check
from reasonvec.weights.controls import write_permuted, write_random
from reasonvec.weights.extraction import extract
from reasonvec.weights.job import Options
from reasonvec.weights.verification import verify

__all__ = [
    "Options", "apply", "apply_sweep", "check", "compare", "extract", "inspect", "transfer", "transfer_sweep", "verify",
    "write_permuted", "write_random",
]  # fmt: skip
