"""Reading results: what is left out is derived, what is measured is kept as it is."""

import pytest

from reasonvec.report.measurements import read_measurements

from .build import difference, measurements


def test_alpha_and_group_are_derived_from_the_arms_name() -> None:
    arms = ["random-1", "target+2.0v", "grpo", "target", "target-1.0v", "ancestor", "permuted", "another"]
    read = read_measurements({"arms": [{"arm": arm, "kind": "k", "n": 10, "correct": 4} for arm in arms]})
    assert {score.arm: (score.group, score.alpha) for score in read.scores} == {
        "ancestor": ("donor", None), "grpo": ("donor", None), "target": ("target", 0.0), "another": ("other", None),
        "target-1.0v": ("sweep", -1.0), "target+2.0v": ("sweep", 2.0), "random-1": ("control", None),
        "permuted": ("control", None),
    }  # fmt: skip
    assert read.arms == (
        "grpo", "ancestor", "target", "target-1.0v", "target+2.0v", "random-1", "permuted", "another",
    )  # fmt: skip


def test_a_control_with_an_alpha_lies_on_no_curve() -> None:
    entries = [
        {"arm": "target", "kind": "k", "n": 10, "correct": 4},
        {"arm": "random-1", "kind": "k", "n": 10, "correct": 4, "alpha": 1.0, "group": "control"},
        {"arm": "target+1.0v", "kind": "k", "n": 10, "correct": 6},
    ]
    assert [score.arm for score in read_measurements({"arms": entries}).sweep("k")] == ["target", "target+1.0v"]


def test_the_targets_own_kinds_come_first_and_unmeasured_kinds_not_at_all() -> None:
    kinds = [
        {"name": "a", "title": "A", "seen_by_target": False},
        {"name": "b", "title": "B", "seen_by_target": True},
        {"name": "never", "title": "Never", "seen_by_target": True},
    ]
    arms = [{"arm": "target", "kind": kind, "n": 1, "correct": 1} for kind in ("a", "undescribed", "b")]
    assert [kind.title for kind in read_measurements({"arms": arms, "kinds": kinds}).kinds] == ["B", "A", "undescribed"]


def test_the_interval_is_wilsons() -> None:
    score = read_measurements({"arms": [{"arm": "target", "kind": "k", "n": 20, "correct": 0}]}).scores[0]
    # by hand: with no success the upper limit is z²/(n + z²), z = 1.959964
    assert score.interval == pytest.approx((0.0, 100 * 3.841459 / 23.841459), abs=1e-4)


def test_an_empty_set_has_no_accuracy() -> None:
    score = read_measurements({"arms": [{"arm": "target", "kind": "k", "n": 0, "correct": 0}]}).scores[0]
    assert score.accuracy is None
    assert score.interval == (0.0, 100.0)


@pytest.mark.parametrize(
    ("points", "half_width", "p", "outcome"),
    [
        (10.0, 4.0, 1e-5, "gain"),
        (-10.0, 4.0, 1e-5, "loss"),
        (3.0, 4.0, 0.2, "unclear"),
        (5.0, 4.0, 0.06, "unclear"),  # interval without zero, but p is not small
        (3.0, 4.0, 0.04, "unclear"),  # p is small, but the interval holds zero
    ],
)
def test_a_gain_needs_both_a_small_p_and_an_interval_without_zero(
    points: float, half_width: float, p: float, outcome: str
) -> None:
    read = measurements(difference("target+1.0v", points, half_width, p=p))
    assert read.differences[0].outcome == outcome


def test_the_enhanced_arm_is_alpha_one_or_the_nearest_positive() -> None:
    assert measurements(difference("target+2.0v", 1), difference("target+1.0v", 1)).enhanced == "target+1.0v"
    assert measurements(difference("target+0.75v", 1), difference("target-1.0v", 1)).enhanced == "target+0.75v"
    assert measurements(difference("target-1.0v", 1)).enhanced is None


def test_ten_kinds_are_ten_chances_and_their_marks_allow_for_it() -> None:
    """p = 0.03 in one of ten kinds: Holm's is 0.3; 0.001 becomes 0.01."""
    kinds = [difference("target+1.0v", 0.5, kind=f"k{number}") for number in range(8)]
    lucky = difference("target+1.0v", 5.0, kind="lucky", p=0.03)
    sure = difference("target+1.0v", 9.0, kind="sure", p=0.001)
    elsewhere = difference("target-1.0v", 5.0, kind="lucky", p=0.03)
    read = measurements(*kinds, lucky, sure, elsewhere)
    found = {(one.arm, one.kind): one for one in read.differences}
    assert found["target+1.0v", "lucky"].holm_p == pytest.approx(9 * 0.03)
    assert found["target+1.0v", "sure"].holm_p == pytest.approx(0.01)
    assert (found["target+1.0v", "lucky"].outcome, found["target+1.0v", "lucky"].among_kinds) == ("gain", "unclear")
    assert found["target+1.0v", "sure"].among_kinds == "gain"
    assert found["target-1.0v", "lucky"].among_kinds == "gain"  # a table of its own, with one row
