"""How often each test rejects a difference that is not there, over simulated comparisons at 5 %. Prints a table.

python benchmarks/null_simulation.py [--comparisons 2000]
"""

import argparse

import numpy as np

from reasonvec.evaluation.statistics import (
    bootstrap_interval,
    exact_mcnemar,
    mean_interval,
    mid_p_mcnemar,
    paired_difference,
)

DESIGNS = ((100, 0.08), (164, 0.1), (164, 0.2), (250, 0.2), (500, 0.1), (500, 0.2), (1319, 0.1))
"""(problems, share of them that flip)."""
SEED = 20250901


def rates(n: int, discordance: float, comparisons: int) -> dict[str, float]:
    """Share of comparisons that each method rejects; each flip goes either way with probability one half."""
    generator = np.random.default_rng(SEED)
    cells = [discordance / 2, discordance / 2, 1 - discordance]
    counts = [tuple(row) for row in generator.multinomial(n, cells, size=comparisons)[:, :2].tolist()]
    found = {pair: _rejects(*pair, n) for pair in set(counts)}
    return {name: float(np.mean([found[pair][name] for pair in counts])) for name in found[counts[0]]}


def _rejects(gained: int, lost: int, n: int) -> dict[str, bool]:
    values = [1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost)
    # where the both-right problems lie matters to Newcombe's interval alone: half of those that did not flip
    both = (n - gained - lost) // 2
    arm = [True] * (both + gained) + [False] * (n - both - gained)
    baseline = [True] * both + [False] * gained + [True] * lost + [False] * (n - both - gained - lost)
    newcombe = paired_difference(arm, baseline)
    intervals = {"bootstrap": bootstrap_interval(values, seed=0, resamples=999), "analytic": mean_interval(values)}
    return {
        "exact": exact_mcnemar(gained=gained, lost=lost) < 0.05,
        "mid-p": mid_p_mcnemar(gained=gained, lost=lost) < 0.05,
        **{name: found is not None and not found.low <= 0 <= found.high for name, found in intervals.items()},
        "newcombe": not newcombe.low <= 0 <= newcombe.high,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=2000)
    arguments = parser.parse_args()
    print("| problems | flips | exact | mid-p | bootstrap | analytic | newcombe |\n|---|---|---|---|---|---|---|")
    for n, discordance in DESIGNS:
        shares = " | ".join(f"{100 * share:.1f} %" for share in rates(n, discordance, arguments.comparisons).values())
        print(f"| {n:,} | {100 * discordance:.0f} % | {shares} |", flush=True)


if __name__ == "__main__":
    main()
