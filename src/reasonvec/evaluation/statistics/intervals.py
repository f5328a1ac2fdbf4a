"""Intervals of one share or one mean: by itself, over clusters, over strata. Comparisons of two arms are elsewhere."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import norm
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float

    def within(self, low: float, high: float) -> "Interval":
        """The part of it that lies in low..high, where alone the quantity can be."""
        return Interval(min(max(self.low, low), high), max(min(self.high, high), low))


def wilson_interval(correct: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson score interval of the proportion `correct / n`, in 0..1; it does not collapse at 0 or 1.

    (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), Wilson 1927, JASA 22:209; computed by statsmodels.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} right of {n} problems is no proportion: at least one problem is needed.")
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method="wilson")
    share = correct / n
    return Interval(min(float(low), share), max(float(high), share))  # at 0 and 1 the ends are off by rounding


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Interval of the mean of independent `values`: mean ± z·sqrt(s²/n), s² their sample variance.

    Miller 2024, arXiv:2411.00640 (central limit theorem). None where there is one value alone, or all are
    equal: then nothing tells how far the mean could be off.
    """
    array = _numbers(values)
    error = _standard_error(array)
    return _around(float(array.mean()), error, confidence) if error else None


def clustered_interval(
    values: Sequence[float], groups: Sequence[Hashable], *, confidence: float = 0.95
) -> Interval | None:
    """Interval of the mean of `values` of which those of one group go together, such as variants of one problem.

    The regression on a constant with cluster-robust errors (Liang and Zeger 1986, Biometrika 73:13; for evaluations
    Miller, arXiv:2411.00640), computed by statsmodels with its correction for few clusters. None where there
    is one group alone, or the groups' sums do not vary.
    """
    array = _numbers(values)
    places = group_places(groups, len(array))
    if places.max() == 0 or not np.ptp(array):
        return None
    fit = OLS(array, np.ones(len(array))).fit(cov_type="cluster", cov_kwds={"groups": places})
    error = float(fit.bse[0])
    return _around(float(array.mean()), error, confidence) if error > 1e-12 else None


def stratified_interval(
    strata: Sequence[Sequence[float]], *, weights: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """Interval of the weighted mean of the strata's means; tasks are fixed, so only problems within them vary.

    mean ± z·sqrt(sum w²·SE²), the `weights` scaled to sum 1 (Cochran 1977, Sampling Techniques, 5.4). Equal weights
    give the macro mean, the strata's sizes the micro one. None where a stratum has one value, or nothing varies.
    """
    arrays = [_numbers(values) for values in strata]
    if len(weights) != len(arrays) or not arrays or sum(weights) <= 0:
        raise ValueError(f"{len(arrays)} strata have {len(weights)} weights: each has one, and their sum is above 0.")
    shares = np.asarray(weights, dtype=float) / sum(weights)
    if any(len(array) < 2 for array in arrays):
        return None
    error = sqrt(sum((w * _standard_error(array)) ** 2 for w, array in zip(shares, arrays, strict=True)))
    centre = float(sum(w * array.mean() for w, array in zip(shares, arrays, strict=True)))
    return _around(centre, error, confidence) if error else None


def group_places(groups: Sequence[Hashable], n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For each of `n` values the number of its group, counted in the order in which groups first appear."""
    if len(groups) != n:
        raise ValueError(f"{n} values have {len(groups)} groups: every value belongs to one.")
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.int64)


def _numbers(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{array.size} values have no mean: it takes one or more, all of them finite.")
    return array


def _standard_error(array: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Of the mean; 0 for one value or equal ones, whatever the rounding of their mean."""
    return float(array.std(ddof=1)) / sqrt(len(array)) if len(array) > 1 and np.ptp(array) else 0.0


def _around(centre: float, error: float, confidence: float) -> Interval:
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    return Interval(centre - reach, centre + reach)
