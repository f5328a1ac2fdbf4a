"""Families of comparisons and several samples, against published examples and enumeration."""

from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from reasonvec.evaluation.statistics import best_of_optimism, holm, pass_at_k, rank_p


def test_holm_gives_the_textbook_example() -> None:
    # p = 0.01, 0.04, 0.03, 0.005 at 5 %: the first and the last are rejected, the other two are not
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_is_closed_testing_with_bonferroni() -> None:
    # Marcus, Peritz and Gabriel 1976: adjusted p is the largest of |S| * min(S) over all sets S that hold it
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 7):
        p_values = (generator.random(size) ** 3).tolist()
        for place, adjusted in enumerate(holm(p_values)):
            others = [p for other, p in enumerate(p_values) if other != place]
            sets = ((p_values[place], *chosen) for count in range(size) for chosen in combinations(others, count))
            assert adjusted == pytest.approx(min(1.0, max(len(one) * min(one) for one in sets)))
    assert holm([]) == ()


@pytest.mark.parametrize(
    ("real", "controls", "p"),
    [(3.0, [0.0] * 19, 1 / 20), (3.0, [3.0, 1.0, 5.0], 3 / 4), (3.0, [0.0] * 3, 1 / 4), (0.0, [], 1.0)],
)
def test_the_rank_among_controls_counts_ties_against_the_vector(real: float, controls: list[float], p: float) -> None:
    assert rank_p(real, controls) == pytest.approx(p)


def test_the_best_of_ten_alphas_looks_better_than_it_is() -> None:
    # ten candidates with correlation 0.5: E[max] = se·sqrt(1 - 0.5)·1.53875, the last the mean of the largest of ten
    # standard normals (Harter 1961, Biometrika 48:151, table 1)
    generator = np.random.default_rng(1)
    n = 1000
    shared, own = generator.normal(0, 1, n), generator.normal(0, 1, (10, n))
    values = sqrt(0.5) * shared + sqrt(0.5) * own
    expected = sqrt(0.5) * 1.53875 / sqrt(n)
    assert best_of_optimism(values.tolist(), seed=0) == pytest.approx(expected, rel=0.06)


def test_one_candidate_alone_is_not_flattered() -> None:
    values = np.random.default_rng(1).normal(0, 1, (1, 400)).tolist()
    assert best_of_optimism(values, seed=0) == pytest.approx(0.0, abs=0.004)


@pytest.mark.parametrize(("samples", "correct"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 6), (8, 1), (8, 5)])
def test_pass_at_k_is_every_choice_of_k_counted(samples: int, correct: int) -> None:
    completions = [number < correct for number in range(samples)]
    for k in range(1, samples + 1):
        choices = list(combinations(completions, k))
        assert pass_at_k(samples, correct, k=k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize(("samples", "correct", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_what_is_no_count_is_refused(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="k is 1 to 4"):
        pass_at_k(samples, correct, k=k)
