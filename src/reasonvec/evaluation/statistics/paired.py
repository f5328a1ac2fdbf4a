"""Two arms on the same problems, right or wrong: the difference, its interval and exact tests.

Every comparison is paired, because two arms answer the same problems (notes in docs/lab.md; Miller, arXiv:2411.00640).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from scipy.stats import binom, binomtest

from reasonvec.evaluation.statistics.design import detectable_share
from reasonvec.evaluation.statistics.intervals import wilson_interval


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
    detectable: float | None
    """Smallest true difference in points that would be found in 80 % of such studies, with as many flips as here; None
    where flips are too few for any."""


def exact_mcnemar(*, gained: int, lost: int) -> float:
    """Two-sided exact McNemar p: is `gained` of `gained + lost` flips compatible with a fair coin?

    McNemar 1947, Psychometrika 12:153, in its exact binomial form. No flips at all give 1.
    """
    flips = gained + lost
    return float(binomtest(gained, flips, 0.5).pvalue) if flips else 1.0


def mid_p_mcnemar(*, gained: int, lost: int) -> float:
    """McNemar's p with half the probability of what was observed: the exact one errs on the side of no difference.

    Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91. It may reject a little too often, so
    it stands beside the exact p and not in its place. No flips at all give 1.
    """
    if not gained + lost:
        return 1.0
    observed = float(binom.pmf(gained, gained + lost, 0.5))
    return exact_mcnemar(gained=gained, lost=lost) - (observed / 2 if gained == lost else observed)


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
    detectable = detectable_share(n, discordance=(gained + lost) / n)
    return PairedDifference(
        n=n,
        gained=gained,
        lost=lost,
        points=100 * (gained - lost) / n,
        low=100 * low,
        high=100 * high,
        p=exact_mcnemar(gained=gained, lost=lost),
        detectable=None if detectable is None else 100 * detectable,
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
