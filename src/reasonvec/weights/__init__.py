"""Checkpoints, vectors and the arithmetic between them. Knows nothing of evaluation; needs neither torch nor
transformers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reasonvec.weights.analysis import inspect
    from reasonvec.weights.application import apply, apply_sweep, transfer, transfer_sweep
    from reasonvec.weights.comparison import compare
    from reasonvec.weights.compatibility import check
    from reasonvec.weights.compression import compress
    from reasonvec.weights.controls import write_permuted, write_random
    from reasonvec.weights.extraction import extract
    from reasonvec.weights.job import Options
    from reasonvec.weights.trajectory import follow_trajectory
    from reasonvec.weights.verification import verify

__all__ = [
    "Options", "apply", "apply_sweep", "check", "compare", "compress", "extract", "follow_trajectory", "inspect",
    "transfer", "transfer_sweep", "verify", "write_permuted", "write_random",
]  # fmt: skip

_HOMES = {
    "Options": "job", "apply": "application", "apply_sweep": "application", "check": "compatibility",
    "compare": "comparison", "compress": "compression", "extract": "extraction", "follow_trajectory": "trajectory",
    "inspect": "analysis", "transfer": "application", "transfer_sweep": "application", "verify": "verification",
    "write_permuted": "controls", "write_random": "controls",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # on first use: a command pays for what it needs
    if name not in _HOMES:
        raise AttributeError(f"module 'reasonvec.weights' has no attribute {name!r}")
    return getattr(importlib.import_module(f"reasonvec.weights.{_HOMES[name]}"), name)
