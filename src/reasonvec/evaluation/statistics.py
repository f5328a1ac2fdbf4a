"""Intervals and tests for 0/1 outcomes: one arm's accuracy, and the paired difference of two arms. Nothing else.

Every comparison is paired, because two arms answer the same problems (notes in docs/lab.md; Miller, arXiv:2411.00640).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """How much better an arm is than its baseline on the same problems."""

    n: int
    """Problems, each answered by both."""
    gained: int
    """Problems that only the arm got right."""
    lost: int
    """Problems that only the baseline got right."""
    points: float
    """Accuracy of the arm minus accuracy of the baseline, in percentage points."""
    low: float
    """Lower end of the 95 % interval of `points`."""
    high: float
    """Upper end of the 95 % interval of `points`."""
    p: float
    """Exact two-sided McNemar p value."""


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson score interval of the proportion `correct / n`, in 0..1; it does not collapse at 0 or 1.

    (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), Wilson 1927, JASA 22:209; computed by statsmodels.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} right of {n} problems is no proportion: at least one problem is needed.")
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method="wilson")
    return Interval(float(low), float(high))


def exact_mcnemar(*, gained: int, lost: int) -> float:
    """Two-sided exact McNemar p: is `gained` of `gained + lost` flips compatible with a fair coin?

    McNemar 1947, Psychometrika 12:153, in its exact binomial form. No flips at all give 1.
    """
    flips = gained + lost
    return float(binomtest(gained, flips, 0.5).pvalue) if flips else 1.0


def paired_difference(arm: Sequence[bool], baseline: Sequence[bool], *, confidence: float = 0.95) -> PairedDifference:
    """Difference of two arms over the same problems in the same order, with its interval and exact p.

    The interval is Newcombe's for paired proportions (score limits combined with the correlation of the pairs;
    Newcombe 1998, Statistics in Medicine 17:2635, method 10). It stays within ±100 and has a width even where no
    problem flipped, which the normal approximation has not.
    """
    if len(arm) != len(baseline) or not arm:
        raise ValueError(
            f"{len(arm)} outcomes against {len(baseline)} cannot be paired: both arms answer the same, one or more."
        )
    both = sum(a and b for a, b in zip(arm, baseline, strict=True))
    gained = sum(arm) - both
    lost = sum(baseline) - both
    n = len(arm)
    low, high = _newcombe(both=both, gained=gained, lost=lost, n=n, confidence=confidence)
    return PairedDifference(
        n=n,
        gained=gained,
        lost=lost,
        points=100 * (gained - lost) / n,
        low=100 * low,
        high=100 * high,
        p=exact_mcnemar(gained=gained, lost=lost),
    )


def _newcombe(*, both: int, gained: int, lost: int, n: int, confidence: float) -> tuple[float, float]:
    """Limits of (gained - lost) / n in -1..1, Newcombe 1998, method 10."""
    neither = n - both - gained - lost
    arm, baseline = both + gained, both + lost
    arm_limits = wilson_interval(arm, n, confidence=confidence)
    baseline_limits = wilson_interval(baseline, n, confidence=confidence)
    arm_below, arm_above = arm / n - arm_limits.low, arm_limits.high - arm / n
    baseline_below, baseline_above = baseline / n - baseline_limits.low, baseline_limits.high - baseline / n
    cross = float(both * neither - gained * lost)
    cross = max(cross - n / 2, 0.0) if cross > 0 else cross  # his continuity correction of phi
    margins = arm * (n - arm) * baseline * (n - baseline)
    phi = cross / sqrt(margins) if margins else 0.0
    difference = (gained - lost) / n
    low = difference - sqrt(arm_below**2 - 2 * phi * arm_below * baseline_above + baseline_above**2)
    high = difference + sqrt(arm_above**2 - 2 * phi * arm_above * baseline_below + baseline_below**2)
    return low, high
