"""Several comparisons at once: adjusted p values, controls as a yardstick, and how well the best of many looks."""

from collections.abc import Sequence

import numpy as np
from statsmodels.stats.multitest import multipletests


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values in the given order; below 0.05 together, at most 5 % of families hold a false finding.

    Holm 1979, Scandinavian Journal of Statistics 6:65; computed by statsmodels. An empty family has none.
    """
    if not len(p_values):
        return ()
    return tuple(float(p) for p in multipletests(p_values, method="holm")[1])


def rank_p(real: float, controls: Sequence[float]) -> float:
    """Share of {the real one and its controls} that do at least as well as the real one: (1 + #{control >= real}) /
    (K + 1) for K controls.

    One-sided, a permutation test's p (Phipson and Smyth 2010, arXiv:1603.05766). It cannot be below 1 / (K + 1), so
    19 controls are the fewest that can give 0.05.
    """
    return (1 + sum(control >= real for control in controls)) / (len(controls) + 1)


def best_of_optimism(differences: Sequence[Sequence[float]], *, seed: int, resamples: int = 2000) -> float:
    """How large the largest of several means looks on average where none of them is truly above 0.

    `differences` holds for each candidate, such as an alpha, its difference on every problem; all on the same problems.
    Problems are drawn again with replacement, together for all candidates, so that their correlation counts; what is
    averaged is the largest deviation from the candidates' own means.
    """
    values = np.asarray(differences, dtype=np.float64)
    means, n = values.mean(axis=1), values.shape[1]
    generator = np.random.default_rng(seed)
    found = 0.0
    for _ in range(resamples):  # one at a time, so that memory does not grow with them
        drawn = generator.multinomial(n, np.full(n, 1 / n)) / n
        found += float((values @ drawn - means).max())
    return found / resamples
