"""Draw docs/first-result.png, the README's picture, from what `make demo` measured: demo/results.json."""

import json
import sys
from pathlib import Path

import matplotlib
from statsmodels.stats.proportion import proportion_confint

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHOWN = {
    "start": "instructions, the target's own",
    "story": "stories, the target's own",
    "walk": "a phrasing new to all",
    "distracting": "with a distracting sentence, new to all",
}


def draw(results: dict, out: Path) -> None:
    """Accuracy over alpha with Wilson intervals, and the controls at alpha 1, for four kinds of problem."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(13, 3.4), sharey=True, layout="constrained")
    for axis, (kind, title) in zip(axes, SHOWN.items(), strict=True):
        arms = [arm for arm in results["arms"] if arm["kind"] == kind]
        curve = sorted((arm for arm in arms if arm["alpha"] is not None), key=lambda arm: arm["alpha"])
        share = [100 * arm["correct"] / arm["n"] for arm in curve]
        limits = [proportion_confint(arm["correct"], arm["n"], method="wilson") for arm in curve]
        alphas = [arm["alpha"] for arm in curve]
        axis.fill_between(alphas, [100 * low for low, _ in limits], [100 * high for _, high in limits], alpha=0.2)
        axis.plot(alphas, share, "o-", markersize=4, label="target + α·v")
        controls = [100 * arm["correct"] / arm["n"] for arm in arms if arm["group"] == "control"]
        axis.plot([1] * len(controls), controls, "x", color="black", label="random and shuffled vectors")
        axis.axhline(share[alphas.index(0)], color="grey", linestyle="--", linewidth=1, label="target alone")
        axis.set(xlabel="α", title=title)
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("% of 500 held-out problems right")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.suptitle(f"Toy world with a planted habit, `make demo`, seed {results['seed']}", fontsize=11)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/results.json").read_text()),
         Path("docs/first-result.png"))  # fmt: skip
