"""Several completions of one problem: what a single one, or the best of k, would have given."""

from math import comb


def pass_at_k(samples: int, correct: int, *, k: int) -> float:
    """Probability that one of `k` completions is right, without bias from `samples` of which `correct` are.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, arXiv:2107.03374, equation 1. For k = 1 it is the share that is right.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {correct} right among {samples} completions: k is 1 to {samples}.")
    return 1 - comb(samples - correct, k) / comb(samples, k)
