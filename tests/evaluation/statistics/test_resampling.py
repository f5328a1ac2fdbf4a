"""Bootstrap and sign flips: against enumeration, against the formula they approximate, and under a true null."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from reasonvec.evaluation.statistics import (
    bootstrap_interval,
    clustered_interval,
    exact_mcnemar,
    mean_interval,
    mid_p_mcnemar,
    sign_flip_p,
)


def _differences(gained: int, lost: int, n: int) -> list[float]:
    return [1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost)


def test_for_many_problems_the_bootstrap_is_the_analytic_interval() -> None:
    values = _differences(160, 100, 1319)
    drawn, formula = bootstrap_interval(values, seed=1), mean_interval(values)
    assert drawn is not None and formula is not None
    assert (drawn.low, drawn.high) == pytest.approx((formula.low, formula.high), abs=0.0015)


def test_the_same_seed_draws_the_same() -> None:
    values = _differences(20, 9, 164)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_memory_bound_batches_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _differences(20, 9, 164)
    whole = bootstrap_interval(values, seed=3, resamples=500), sign_flip_p(values, seed=3, resamples=500)
    monkeypatch.setattr("reasonvec.evaluation.statistics.resampling._BATCH_BYTES", 1)
    assert (bootstrap_interval(values, seed=3, resamples=500), sign_flip_p(values, seed=3, resamples=500)) == whole


def test_groups_are_drawn_whole() -> None:
    generator = np.random.default_rng(2)
    groups = [number for number in range(200) for _ in range(6)]
    values = list(np.repeat(generator.normal(0.1, 0.3, 200), 6) + generator.normal(0, 0.2, 1200))
    drawn, formula = bootstrap_interval(values, seed=0, groups=groups), clustered_interval(values, groups)
    assert drawn is not None and formula is not None
    assert (drawn.low, drawn.high) == pytest.approx((formula.low, formula.high), abs=0.005)


@pytest.mark.parametrize("values", [[0.5], [1.0] * 9, [0.0] * 9, [0.1] * 3])
def test_what_does_not_vary_has_no_bootstrap(values: list[float]) -> None:
    assert bootstrap_interval(values, seed=0) is None


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0] + [0.0] * 40, [-1.0] * 30 + [0.0]])
def test_one_odd_problem_gives_a_finite_interval(values: list[float]) -> None:
    interval = bootstrap_interval(values, seed=0)
    assert interval is not None
    assert -1 <= interval.low <= interval.high <= 1


def test_sign_flips_are_every_sign_counted() -> None:
    thirds = [2 / 3, -1 / 3, 1.0, 1 / 3, 1 / 3, -2 / 3, 0.0, 1.0, 1 / 3]
    whole = [round(3 * value) for value in thirds]
    sums = [sum(s * v for s, v in zip(signs, whole, strict=True)) for signs in product((1, -1), repeat=9)]
    expected = sum(abs(total) >= abs(sum(whole)) for total in sums) / 2**9
    assert sign_flip_p(thirds, seed=0) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (5, 1), (3, 3), (2, 9)])
def test_for_right_and_wrong_sign_flips_are_mcnemars_exact_test(gained: int, lost: int) -> None:
    p = sign_flip_p(_differences(gained, lost, 50), seed=0)
    assert p == pytest.approx(exact_mcnemar(gained=gained, lost=lost), rel=1e-12)


def test_of_many_flips_a_sample_is_close_to_the_exact_test() -> None:
    p = sign_flip_p(_differences(60, 42, 500), seed=0)
    assert p == pytest.approx(exact_mcnemar(gained=60, lost=42), abs=0.012)  # 2.5 standard errors of 9,999 draws


def test_problems_that_flip_together_count_once() -> None:
    groups = [number for number in range(6) for _ in range(3)]
    assert sign_flip_p([1.0] * 18, seed=0, groups=groups) == pytest.approx(2 / 2**6)
    assert sign_flip_p([0.0] * 4, seed=0) == 1.0


def test_under_a_true_null_two_thousand_comparisons_reject_as_often_as_they_say() -> None:
    """500 problems, of which each flips with probability 0.2, either way alike: mid-p and the bootstrap reject in 4 to
    6 %, the exact test in at most 5 %."""
    n, generator = 500, np.random.default_rng(20250901)

    @cache  # the interval follows from the counts, and many comparisons share theirs
    def excludes_zero(gained: int, lost: int) -> bool:
        interval = bootstrap_interval(_differences(gained, lost, n), seed=0, resamples=999)
        return interval is not None and not interval.low <= 0 <= interval.high

    counts = generator.multinomial(n, [0.1, 0.1, 0.8], size=2000)[:, :2].tolist()
    exact = np.mean([exact_mcnemar(gained=gained, lost=lost) < 0.05 for gained, lost in counts])
    mid = np.mean([mid_p_mcnemar(gained=gained, lost=lost) < 0.05 for gained, lost in counts])
    bootstrap = np.mean([excludes_zero(gained, lost) for gained, lost in counts])
    assert exact <= 0.05
    assert 0.04 <= mid <= 0.06
    assert 0.04 <= bootstrap <= 0.06


def test_perturbations_of_one_problem_reject_as_often_as_they_say_only_in_groups() -> None:
    """80 problems, each changed in four ways that go together: 400 studies without an effect."""
    generator = np.random.default_rng(3)
    groups = [number for number in range(80) for _ in range(4)]
    together = apart = 0
    for _ in range(400):
        problem = np.repeat(generator.choice([-1, 0, 1], p=[0.15, 0.7, 0.15], size=80), 4)
        values = [float(value) for value in np.where(generator.random(320) < 0.8, problem, 0)]
        together += sign_flip_p(values, seed=1, groups=groups, resamples=999) < 0.05
        apart += sign_flip_p(values, seed=1, resamples=999) < 0.05
    assert 0.02 <= together / 400 <= 0.08  # 5 % give or take 3 standard errors
    assert apart / 400 > 0.2
