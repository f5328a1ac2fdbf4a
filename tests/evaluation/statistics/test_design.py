"""What a design can see, against a published example, a table computed apart from this code, and exact power."""

from math import isclose, sqrt

import pytest
from scipy.stats import binom

from reasonvec.evaluation.statistics.design import detectable_mean, detectable_share


@pytest.mark.parametrize(
    ("n", "points"),
    [  # differences in points that can be seen where 10, 20, 30 % of the problems flip; None: not any
        (1319, (2.4, 3.4, 4.2)),  # GSM8K
        (1000, (2.8, 4.0, 4.8)),  # SciQ
        (164, (6.9, 9.7, 11.9)),  # HumanEval
        (6511, (1.1, 1.6, 1.9)),  # BIG-Bench Hard
        (250, (5.6, 7.9, 9.7)),  # one of its tasks
        (500, (4.0, 5.6, 6.8)),  # MATH-500
        (675, (3.4, 4.8, 5.9)),  # OlympiadBench
        (272, (5.3, 7.6, 9.3)),  # Minerva
        (473, (4.1, 5.7, 7.0)),  # GSM8K with other numbers
        (40, (None, 19, 24)),  # AMC23
        (30, (None, None, 27)),  # AIME24
    ],
)
def test_benchmarks_can_see_this_much(n: int, points: tuple[float | None, ...]) -> None:
    digits = 1 if n > 100 else 0
    for discordance, expected in zip((0.1, 0.2, 0.3), points, strict=True):
        found = detectable_share(n, discordance=discordance)
        assert (None if found is None else round(100 * found, digits)) == expected


@pytest.mark.parametrize(("n", "points"), [(1319, (3.2, 4.5, 5.5)), (164, (8.9, 12.6, 15.5)), (6511, (1.4, 2.0, 2.5))])
def test_at_holms_first_step_of_ten_they_see_less(n: int, points: tuple[float, ...]) -> None:
    for discordance, expected in zip((0.1, 0.2, 0.3), points, strict=True):
        found = detectable_share(n, discordance=discordance, significance=0.005)
        assert found is not None and round(100 * found, 1) == expected


@pytest.mark.parametrize(("n", "discordance"), [(1319, 0.1), (164, 0.2), (500, 0.2), (1000, 0.3)])
def test_the_exact_test_finds_it_in_about_eight_of_ten_studies(n: int, discordance: float) -> None:
    difference = detectable_share(n, discordance=discordance)
    assert difference is not None
    wins = (discordance + difference) / 2 / discordance
    power = 0.0
    for flips in range(1, n + 1):
        weight = binom.pmf(flips, n, discordance)
        if weight < 1e-9:
            continue
        lost = binom.ppf(0.025, flips, 0.5)  # reject where at most so many, less one if that is too often
        most = lost if binom.cdf(lost, flips, 0.5) <= 0.025 else lost - 1
        power += weight * (binom.cdf(most, flips, 1 - wins) + binom.cdf(most, flips, wins))
    assert 0.755 <= power <= 0.81


def test_millers_example() -> None:
    # 3 points, variance of the differences 1/9: 969 problems; arXiv:2411.00640
    assert isclose(detectable_mean(sqrt(1 / 9 / 969)), 0.03, abs_tol=5e-7)


@pytest.mark.parametrize(("n", "discordance"), [(0, 0.1), (10, -0.1), (10, 1.1)])
def test_what_is_no_design_is_refused(n: int, discordance: float) -> None:
    with pytest.raises(ValueError, match="it takes one or more, and 0 to 1"):
        detectable_share(n, discordance=discordance)


def test_where_nothing_differs_nothing_can_be_seen() -> None:
    assert detectable_share(100, discordance=0.0) is None
