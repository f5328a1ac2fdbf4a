"""Move reasoning ability between language models by arithmetic on their weights, and prove that it helped.

What the commands do, as functions on paths:

    reasonvec.extract(tuned="grpo", base="sft", out="vector")
    reasonvec.apply(vectors=[("vector", 1.0)], target="instruct", out="enhanced")
    reasonvec.evaluate("enhanced", tasks=["gsm8k"], out="runs/enhanced")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reasonvec.errors import (
    BenchmarkError,
    CheckpointError,
    ClusterError,
    IncompatibleError,
    MissingExtraError,
    OutputError,
    ReasonvecError,
    RunError,
    SandboxError,
    UsageError,
    VectorError,
    VerificationError,
)

if TYPE_CHECKING:
    from reasonvec.evaluation.comparison import compare_runs
    from reasonvec.evaluation.measuring import evaluate
    from reasonvec.evaluation.overlap import find_overlap
    from reasonvec.evaluation.perturbations import perturb
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
    from reasonvec.weights.live import attached

__all__ = [
    "BenchmarkError",
    "CheckpointError",
    "ClusterError",
    "IncompatibleError",
    "MissingExtraError",
    "Options",
    "OutputError",
    "ReasonvecError",
    "RunError",
    "SandboxError",
    "UsageError",
    "VectorError",
    "VerificationError",
    "apply",
    "apply_sweep",
    "attached",
    "check",
    "compare",
    "compare_runs",
    "compress",
    "evaluate",
    "export_lora",
    "extract",
    "find_overlap",
    "follow_trajectory",
    "import_dcp",
    "import_lora",
    "inspect",
    "perturb",
    "transfer",
    "transfer_sweep",
    "verify",
    "write_permuted",
    "write_random",
]


_ELSEWHERE = {
    "attached": "weights.live",
    "compare_runs": "evaluation.comparison",
    "evaluate": "evaluation.measuring",
    "export_lora": "interchange",
    "find_overlap": "evaluation.overlap",
    "import_dcp": "interchange",
    "import_lora": "interchange",
    "perturb": "evaluation.perturbations",
}
"""Name -> the module it is in, where that is not `weights`."""


def __getattr__(name: str) -> Any:
    # on first use, so that `reasonvec --help` starts without NumPy, and weights are added without torch
    if name in __all__:
        return getattr(import_module(f"reasonvec.{_ELSEWHERE.get(name, 'weights')}"), name)
    raise AttributeError(f"module 'reasonvec' has no attribute {name!r}")
