"""Intervals and tests, against published figures, hand computation and simulation."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from reasonvec.evaluation.statistics import exact_mcnemar, mid_p_mcnemar, paired_difference, wilson_interval


def _pair(both: int, gained: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Outcomes of arm and baseline with the given cells of the 2 x 2 table."""
    cells = [(True, True)] * both + [(True, False)] * gained + [(False, True)] * lost + [(False, False)] * neither
    return [arm for arm, _ in cells], [baseline for _, baseline in cells]


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(correct: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(correct, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_no_problems_have_no_accuracy(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(correct, n)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (5, 1), (0, 8), (40, 40), (131, 31)])
def test_mcnemar_is_twice_the_binomial_tail(gained: int, lost: int) -> None:
    flips = gained + lost
    tail = sum(Fraction(comb(flips, k), 2**flips) for k in range(max(gained, lost), flips + 1))
    assert exact_mcnemar(gained=gained, lost=lost) == pytest.approx(float(min(2 * tail, Fraction(1))), rel=1e-9)


@pytest.mark.parametrize(("gained", "lost"), [(3, 9), (12, 2), (200, 120)])
def test_mcnemar_agrees_with_statsmodels(gained: int, lost: int) -> None:
    expected = mcnemar([[7, gained], [lost, 5]], exact=True).pvalue
    assert exact_mcnemar(gained=gained, lost=lost) == pytest.approx(expected, rel=1e-9)


def test_without_flips_p_is_one() -> None:
    assert exact_mcnemar(gained=0, lost=0) == 1.0


def test_the_difference_counts_pairs_and_not_margins() -> None:
    difference = paired_difference(*_pair(both=200, gained=131, lost=31, neither=138))
    assert (difference.n, difference.gained, difference.lost) == (500, 131, 31)
    assert difference.points == pytest.approx(20.0)
    assert difference.low < 20 < difference.high


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:2635, table II, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_the_interval_of_the_difference_is_the_published_one(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    difference = paired_difference(*_pair(*cells))
    assert difference.low / 100 == pytest.approx(low, abs=5e-5)
    assert difference.high / 100 == pytest.approx(high, abs=5e-5)


def test_swapping_the_arms_mirrors_the_difference() -> None:
    arm, baseline = _pair(both=150, gained=40, lost=10, neither=300)
    there, back = paired_difference(arm, baseline), paired_difference(baseline, arm)
    assert (back.points, back.low, back.high, back.p) == pytest.approx(
        (-there.points, -there.high, -there.low, there.p), rel=1e-9
    )


def test_the_interval_covers_the_truth_in_about_95_of_100_studies() -> None:
    generator = np.random.default_rng(7)
    cells = np.array([0.45, 0.22, 0.08, 0.25])  # the truth: +14 points
    covered = 0
    for _ in range(400):
        both, gained, lost, neither = map(int, generator.multinomial(500, cells))
        difference = paired_difference(*_pair(both, gained, lost, neither))
        covered += difference.low <= 14 <= difference.high
    assert 0.92 <= covered / 400 <= 0.985


@pytest.mark.parametrize(("arm", "baseline"), [([], []), ([True], [True, False])])
def test_what_cannot_be_paired_is_refused(arm: list[bool], baseline: list[bool]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(arm, baseline)


@pytest.mark.parametrize(
    ("gained", "lost", "exact", "mid"),
    [  # Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91: airway hyper-responsiveness
        # before and after a stem cell transplantation, and complete response before and after consolidation therapy
        (1, 7, 0.0703, 0.0391),
        (6, 16, 0.0525, 0.0347),
    ],
)
def test_exact_and_mid_p_are_the_published_ones(gained: int, lost: int, exact: float, mid: float) -> None:
    assert exact_mcnemar(gained=gained, lost=lost) == pytest.approx(exact, abs=5e-5)
    assert mid_p_mcnemar(gained=gained, lost=lost) == pytest.approx(mid, abs=5e-5)


@pytest.mark.parametrize("flips", [0, 1, 2, 7, 12])
def test_both_p_values_are_those_of_every_coin_sequence_counted(flips: int) -> None:
    sums = [sum(coins) for coins in product((0, 1), repeat=flips)]
    for gained in range(flips + 1):
        away = abs(gained - flips / 2)
        further = sum(abs(total - flips / 2) > away for total in sums)
        as_far = sum(abs(total - flips / 2) == away for total in sums)
        counts = {"gained": gained, "lost": flips - gained}
        assert exact_mcnemar(**counts) == pytest.approx((further + as_far) / 2**flips, rel=1e-12)
        expected = (further + as_far / 2) / 2**flips if flips else 1.0
        assert mid_p_mcnemar(**counts) == pytest.approx(expected, rel=1e-12)


def test_a_null_comes_with_what_could_have_been_seen() -> None:
    difference = paired_difference(*_pair(both=40, gained=66, lost=66, neither=1147))
    assert difference.detectable == pytest.approx(
        2.4, abs=0.05
    )  # d * sqrt(1319) = 1.96 * sqrt(0.1) + 0.84 * sqrt(0.1 - d²)
    assert paired_difference(*_pair(both=5, gained=2, lost=1, neither=2)).detectable is None
