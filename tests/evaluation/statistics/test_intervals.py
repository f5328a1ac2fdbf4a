"""Intervals of one mean, of clusters and of strata, against published figures, formulas by hand and simulation."""

from math import sqrt

import numpy as np
import pytest

from reasonvec.evaluation.statistics import clustered_interval, mean_interval, stratified_interval

Z = 1.959963984540054


def test_the_analytic_interval_of_a_paired_difference_is_agrestis() -> None:
    # approval of the prime minister: 794 twice, 150 lost, 86 gained, 570 never; Agresti 2002, Categorical Data
    # Analysis, 10.1.1: difference -0.04, standard error 0.0095
    differences = [-1.0] * 150 + [1.0] * 86 + [0.0] * (794 + 570)
    interval = mean_interval(differences)
    assert interval is not None
    assert (interval.low + interval.high) / 2 == pytest.approx(-0.04)
    assert (interval.high - interval.low) / 2 / Z == pytest.approx(0.0095, abs=6e-5)  # 0.00955, cut after four digits


def test_the_clustered_error_is_the_sum_over_pairs_of_one_cluster() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    groups = ["a", "b", "a", "c", "b", "b", "c", "c", "a"]
    interval = clustered_interval(values, groups)
    mean, n = sum(values) / 9, 9
    # Miller 2024, arXiv:2411.00640, times G / (G - 1) for G clusters
    pairs = sum(
        (first - mean) * (second - mean)
        for first, one in zip(values, groups, strict=True)
        for second, other in zip(values, groups, strict=True)
        if one == other
    )
    error = sqrt(pairs / n**2 * 3 / 2)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((mean - Z * error, mean + Z * error))


def test_variants_of_one_problem_need_the_clustered_interval() -> None:
    generator = np.random.default_rng(11)
    groups = [number for number in range(100) for _ in range(8)]
    clustered = naive = 0
    for _ in range(200):
        problem = generator.normal(0, 0.3, 100)
        values = list(np.repeat(problem, 8) + generator.normal(0, 0.3, 800))
        found, ignoring = clustered_interval(values, groups), mean_interval(values)
        assert found is not None and ignoring is not None
        clustered += found.low <= 0 <= found.high
        naive += ignoring.low <= 0 <= ignoring.high
    assert clustered / 200 >= 0.90
    assert naive / 200 <= 0.80


def test_the_stratified_error_is_that_of_the_strata_alone() -> None:
    strata = [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]]
    interval = stratified_interval(strata, weights=[1.0, 3.0])
    # s² of shares: p(1-p)·n/(n-1)
    errors = [sqrt(0.75 * 0.25 * 4 / 3 / 4), sqrt((1 / 3) * (2 / 3) * 6 / 5 / 6)]
    mean, error = 0.25 * 0.75 + 0.75 / 3, sqrt((0.25 * errors[0]) ** 2 + (0.75 * errors[1]) ** 2)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((mean - Z * error, mean + Z * error))


def test_fixed_tasks_of_different_difficulty_are_covered_by_a_narrower_interval() -> None:
    generator = np.random.default_rng(5)
    levels = np.linspace(0.05, 0.95, 27)  # the tasks' true accuracies: the same in every study
    covered, widths, ignoring = 0, 0.0, 0.0
    for _ in range(400):
        strata = [list((generator.random(50) < level).astype(float)) for level in levels]
        interval = stratified_interval(strata, weights=[1.0] * 27)
        pooled = mean_interval([value for stratum in strata for value in stratum])
        assert interval is not None and pooled is not None
        covered += interval.low <= 0.5 <= interval.high
        widths += interval.high - interval.low
        ignoring += pooled.high - pooled.low
    assert 0.925 <= covered / 400 <= 0.975
    assert widths < 0.9 * ignoring


def test_what_does_not_vary_has_no_interval() -> None:
    assert mean_interval([0.3]) is None
    assert mean_interval([0.1] * 7) is None
    assert clustered_interval([1.0, 0.0], ["a", "a"]) is None
    assert clustered_interval([1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b"]) is None
    assert stratified_interval([[1.0, 0.0], [1.0]], weights=[1, 1]) is None
    assert stratified_interval([[1.0, 1.0], [0.0, 0.0]], weights=[1, 1]) is None


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf"), 1.0]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values have no mean"):
        mean_interval(values)


def test_groups_and_weights_have_to_fit() -> None:
    with pytest.raises(ValueError, match="3 values have 2 groups"):
        clustered_interval([1.0, 0.0, 1.0], ["a", "b"])
    with pytest.raises(ValueError, match="1 strata have 2 weights"):
        stratified_interval([[1.0, 0.0]], weights=[1, 1])
