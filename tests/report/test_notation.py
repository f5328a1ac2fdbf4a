"""Numbers are spelt as the page promises; the oracles are written out by hand."""

import pytest

from reasonvec.report import notation


@pytest.mark.parametrize(
    ("value", "text"),
    [(17.24, "+17.2"), (-3.0, "−3.0"), (0.04, "0.0"), (-0.04, "0.0"), (0.06, "+0.1")],
)
def test_points_carry_their_sign_and_zero_has_none(value: float, text: str) -> None:
    assert notation.points(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1"), (0.89, "0.89"), (0.0312, "0.031"), (0.001, "0.001"), (0.00041, "4 × 10⁻⁴"),
        (8.1e-11, "8 × 10⁻¹¹"), (0.0, "< 10⁻³⁰⁰"),
    ],
)  # fmt: skip
def test_a_small_p_is_a_power_of_ten_and_never_zero(p: float, text: str) -> None:
    assert notation.p_number(p).replace("\u00a0", " ") == text
    assert " " not in notation.p_value(p), "a p value is never broken over two lines"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0054, "0.54 %"), (0.000031, "0.0031 %"), (0.123, "12 %"), (1.0, "100 %"), (0.0, "0 %"), (None, "–")],
)
def test_a_share_keeps_two_significant_digits(value: float | None, text: str) -> None:
    assert notation.share(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("arm", "alpha", "label"),
    [
        ("target", 0.0, "target"),
        ("target+1.0v", 1.0, "target + v"),
        ("target-1.0v", -1.0, "target − v"),
        ("target+0.25v", 0.25, "target + 0.25 v"),
        ("random-2", None, "random vector 2"),
        ("permuted", None, "shuffled vector"),
        ("grpo", None, "GRPO donor"),
        ("target+1.0v-again", None, "target+1.0v-again"),
    ],
)
def test_an_arm_says_its_alpha_and_has_a_label(arm: str, alpha: float | None, label: str) -> None:
    assert notation.alpha_of(arm) == alpha
    assert notation.arm_label(arm).replace("\u00a0", " ") == label


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (0.94, "0.9 s"), (45.2, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert notation.duration(seconds).replace("\u00a0", " ") == text
