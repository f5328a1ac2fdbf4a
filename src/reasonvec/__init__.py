"""Move reasoning ability between language models by arithmetic on their weights, and prove that it helped.

What the commands do, as functions on paths:

    reasonvec.extract(tuned="grpo", base="sft", out="vector")
    reasonvec.apply(vectors=[("vector", 1.0)], target="instruct", out="enhanced")
"""

from typing import TYPE_CHECKING, Any

from reasonvec.errors import (
    BenchmarkError,
    CheckpointError,
    ClusterError,
    IncompatibleError,
    MissingExtraError,
    OutputError,
    ReasonvecError,
    UsageError,
    VectorError,
    VerificationError,
)

if TYPE_CHECKING:
    from reasonvec.interchange import export_lora, import_dcp, import_lora
    from reasonvec.weights import (
        Options,
        apply,
        apply_sweep,
        check,
        compare,
        compress,
        extract,
        follow_trajectory,
        inspect,
        transfer,
        transfer_sweep,
        verify,
        write_permuted,
        write_random,
    )

__all__ = [
    "BenchmarkError",
    "CheckpointError",
    "ClusterError",
    "IncompatibleError",
    "MissingExtraError",
    "Options",
    "OutputError",
    "ReasonvecError",
    "UsageError",
    "VectorError",
    "VerificationError",
    "apply",
    "apply_sweep",
    "check",
    "compare",
    "compress",
    "export_lora",
    "extract",
    "follow_trajectory",
    "import_dcp",
    "import_lora",
    "inspect",
    "transfer",
    "transfer_sweep",
    "verify",
    "write_permuted",
    "write_random",
]


def __getattr__(name: str) -> Any:
    # on first use, so that `reasonvec --help` starts without NumPy
    if name in __all__:
        from reasonvec import interchange, weights

        return getattr(interchange if hasattr(interchange, name) else weights, name)
    raise AttributeError(f"module 'reasonvec' has no attribute {name!r}")
