"""Bootstrap interval and sign-flip test for a mean over problems, graded or not; both draw from the given seed only."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap, permutation_test

from reasonvec.evaluation.statistics.intervals import Interval, group_places

RESAMPLES = 9_999
_BATCH_BYTES = 16 * 2**20


def bootstrap_interval(
    values: Sequence[float],
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """BCa bootstrap interval of the mean of `values`; with `groups` whole groups are drawn, such as problems.

    Efron 1987, JASA 82:171; computed by scipy. None where there is one value or group alone, or all are equal, since
    the bootstrap can only repeat what varied.
    """
    sums, sizes = _grouped(values, groups)
    if len(sums) < 2 or not np.ptp(sums / sizes):
        return None

    grouped = groups is not None
    found = bootstrap(
        (sums, sizes) if grouped else (sums,),
        _ratio if grouped else np.mean,
        paired=grouped,
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(len(sums)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def sign_flip_p(
    differences: Sequence[float], *, seed: int, groups: Sequence[Hashable] | None = None, resamples: int = RESAMPLES
) -> float:
    """Two-sided p of the mean of paired `differences`: how often is it as large when each sign is a fair coin's?

    With `groups` the differences of a group change sign together. Fisher's randomisation test for pairs (The Design of
    Experiments, 1935, section 21), computed by scipy: over all signs where there are no more of them than `resamples`,
    else over a seeded sample. One difference alone gives 1, and so do those that are all 0.
    """
    sums, _ = _grouped(differences, groups)
    sums = sums[sums != 0]  # a zero has no sign
    if len(sums) < 2:
        return 1.0
    # whole multiples compare exactly, where sums of floats in another order would miss a tie
    whole = np.round(sums * 2**20)
    found = permutation_test(
        (whole,),
        lambda drawn, axis=-1: drawn.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(len(whole)),
        rng=np.random.default_rng(seed),
    )
    return float(min(found.pvalue, 1.0))


def _grouped(values: Sequence[float], groups: Sequence[Hashable] | None) -> tuple[Any, Any]:
    """Sum and size of every group; without groups every value is one."""
    array = np.asarray(values, dtype=np.float64)
    if groups is None:
        return array, np.ones(len(array))
    places = group_places(groups, len(array))
    return np.bincount(places, array), np.bincount(places).astype(np.float64)


def _ratio(sums: Any, sizes: Any, axis: int = -1) -> Any:
    """The mean of all values from the groups' sums and sizes."""
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _batch(n: int) -> int:
    """Resamples drawn at a time, so that memory stays small for large benchmarks."""
    return max(1, _BATCH_BYTES // (8 * n))
