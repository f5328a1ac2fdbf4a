"""Draw docs/rounding.png: realised alpha over requested alpha in bfloat16, by the commands themselves."""

import tempfile
from pathlib import Path

import matplotlib
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import reasonvec

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BF16 = ml_dtypes.bfloat16
ALPHAS = [round(0.1 * step, 1) for step in range(1, 21)]


def main() -> None:
    """Write donors and target as docs/method.md says, apply at every alpha, draw."""
    rng = np.random.default_rng(0)
    base = (rng.standard_normal(1 << 19) * 0.02).astype(BF16)
    up = rng.random(base.size) < 0.2
    weights = {
        "base": base,
        "tuned": np.where(up, np.nextafter(base, BF16(np.inf)), base).astype(BF16),
        "target": (base.astype(np.float64) + rng.standard_normal(base.size) * 1e-3).astype(BF16),
    }
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, tensor in weights.items():
            (root / name).mkdir()
            save_file({"layers.0.weight": tensor}, root / name / "model.safetensors")
        reasonvec.extract(tuned=root / "tuned", base=root / "base", out=root / "vector")
        for rounding, marker in (("nearest", "o-"), ("stochastic", "s-")):
            realised = []
            for alpha in ALPHAS:
                application = reasonvec.apply(
                    vectors=[(root / "vector", alpha)], target=root / "target", out=root / f"{rounding}{alpha}",
                    options=reasonvec.Options(rounding=rounding),
                )  # fmt: skip
                realised.append(alpha * application.realised.overall)
            axes.plot(ALPHAS, realised, marker, markersize=4, label=f"rounded {rounding}")
    axes.plot([0, 2], [0, 2], color="grey", linewidth=1, label="what was asked")
    axes.set(xlabel="requested α", ylabel="realised α", title="Deltas of one bfloat16 step: α becomes a staircase")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig("docs/rounding.png", dpi=130)


if __name__ == "__main__":
    main()
