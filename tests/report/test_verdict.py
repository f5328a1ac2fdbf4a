"""The short answer is honest in every case: each test makes the numbers of one case and reads the words."""

import pytest

from reasonvec.report.verdict import verdict

from .build import difference, measurements

ADDED = difference("target+1.0v", 18.0)
CONTROLS = (difference("random-1", -0.4), difference("random-2", 1.6), difference("permuted", -1.8))


def test_a_gain_beyond_the_controls_is_a_yes() -> None:
    said = verdict(measurements(ADDED, difference("target-1.0v", -14.8), *CONTROLS))
    found = dict(said.findings)
    assert said.answer == "gain"
    assert said.headline == "Yes, it helped: with the vector, about 18 more problems in every hundred were solved."
    assert "+18.0 points is hard to explain by luck (95\u00a0% interval +14.0 to +22.0" in found["Added"]
    assert "Three meaningless vectors" in found["Controls"]
    assert "changed the result by −1.8 to +1.6 points; even the low end" in found["Controls"]
    assert "cost 14.8 points" in found["Subtracted"]
    assert "A warning" not in found


def test_a_gain_whose_interval_reaches_the_controls_is_only_probable() -> None:
    said = verdict(measurements(ADDED, difference("random-1", 15.0)))
    assert said.answer == "gain-unsure"
    assert said.headline.startswith("It probably helped")


def test_a_gain_that_a_random_vector_reaches_too_is_no_yes() -> None:
    said = verdict(measurements(ADDED, difference("random-1", 18.5)))
    assert said.answer == "gain-like-controls"
    assert "a meaningless vector did as much" in said.headline
    assert "cannot be what helped" in dict(said.findings)["Controls"]


def test_a_gain_without_controls_says_that_the_cause_is_open() -> None:
    said = verdict(measurements(ADDED))
    assert said.answer == "gain-uncontrolled"
    assert "cause stays open" in said.headline


def test_a_loss_is_a_no() -> None:
    said = verdict(measurements(difference("target+1.0v", -9.4), *CONTROLS))
    assert said.answer == "loss"
    assert said.headline == "No, it hurt: with the vector, about 9 fewer problems in every hundred were solved."


def test_a_small_change_is_no_effect_however_it_points() -> None:
    for points in (3.0, -3.0, 0.0):
        said = verdict(measurements(difference("target+1.0v", points), *CONTROLS))
        assert said.answer == "unclear"
        assert "may well be luck" in dict(said.findings)["Added"]


def test_a_gain_at_home_with_sure_losses_elsewhere_is_mixed() -> None:
    said = verdict(measurements(ADDED, difference("target+1.0v", -8.0, kind="big"), *CONTROLS))
    assert said.answer == "gain-mixed"
    assert "a gain on 1, a loss on 1" in dict(said.findings)["Elsewhere"]


def test_one_loss_in_many_that_luck_would_give_does_not_make_a_headline() -> None:
    others = [difference("target+1.0v", 0.0, kind=f"kind {n}") for n in range(8)]
    lucky = difference("target+1.0v", -5.0, kind="big", p=0.03)  # times ten comparisons: Holm's 0.27
    assert verdict(measurements(ADDED, lucky, *others, *CONTROLS)).answer == "gain"


@pytest.mark.parametrize(
    ("added", "subtracted", "said"),
    [
        (
            18.0,
            -14.8,
            "instead cost 14.8 points (95\u00a0% interval −18.8 to −10.8, p\u00a0=\u00a01\u00a0×\u00a010⁻⁶).",
        ),
        (18.0, 9.0, "also gained 9.0 points"),
        (18.0, 9.0, "speaks against a meaningful direction"),
        (-9.0, 9.0, "points the wrong way"),
        (-9.0, -9.0, "also cost 9.0 points"),
        (18.0, 1.0, "made no clear difference: +1.0 points"),
    ],
)
def test_subtracting_is_read_against_adding(added: float, subtracted: float, said: str) -> None:
    given = (difference("target+1.0v", added), difference("target-1.0v", subtracted))
    assert said in dict(verdict(measurements(*given, *CONTROLS)).findings)["Subtracted"]


def test_kinds_that_no_donor_saw_are_counted_apart() -> None:
    unseen = [difference("target+1.0v", points, kind=kind) for kind, points in (("big", 9.0), ("shuf", 1.0))]
    said = verdict(measurements(ADDED, *unseen, difference("target+1.0v", 12.0, kind="sym"), *CONTROLS))
    assert dict(said.findings)["Elsewhere"] == (
        "Over all 4 kinds of problem there is a gain on 3, a loss on 0, and no clear change on 1. "
        "Of the 3 kinds that the donors were not fine-tuned on, 2 gained."
    )


def test_a_donor_that_did_not_improve_is_pointed_out() -> None:
    said = verdict(measurements(ADDED, *CONTROLS, donors=(270, 260)))
    assert "54.0\u00a0% before, 52.0\u00a0% after, on “Sym”" in dict(said.findings)["A warning"]


def test_without_a_paired_difference_there_is_no_answer() -> None:
    assert verdict(measurements()).answer == "unmeasured"
    assert verdict(measurements(difference("target-1.0v", -5.0))).answer == "unmeasured"


def test_a_null_says_what_could_have_been_seen() -> None:
    said = dict(verdict(measurements(difference("target+1.0v", 2.0, detectable=3.44), *CONTROLS)).findings)
    assert "A true change of 3.4 points would have been found in 8 of 10 measurements like this one" in said["Added"]
    clear = dict(verdict(measurements(difference("target+1.0v", 18.0, detectable=3.44), *CONTROLS)).findings)
    assert "would have been found" not in clear["Added"]


def test_a_rank_among_few_controls_is_not_taken_for_proof() -> None:
    few = dict(verdict(measurements(ADDED, *CONTROLS)).findings)["Controls"]
    assert few.endswith(
        "Among these 4 vectors it is number 1, as luck alone gives in 1 of 4 cases; it takes 19 controls to make that "
        "1 of 20."
    )
    many = [difference(f"random-{number}", number / 10) for number in range(19)]
    enough = dict(verdict(measurements(ADDED, *many)).findings)["Controls"]
    assert enough.endswith("it is number 1, as luck alone gives in 1 of 20 cases.")


FORM = {
    "target": {"answered": 400, "finished": 450},
    "target+1.0v": {"answered": 490, "finished": 500},
}


def test_a_change_of_form_is_not_taken_for_one_of_reasoning() -> None:
    added = difference("target+1.0v", 18.0, answered_p=1e-9, answered_by_both=1.5)
    said = dict(verdict(measurements(added, *CONTROLS, form=FORM)).findings)["Form"].replace("\u00a0", " ")
    assert said == (
        "An answer could be read off 80.0 % of what the target wrote, and off 98.0 % of what it wrote with the vector; "
        "10.0 % and 0.0 % ran into the length limit. Part of the change can be form rather than reasoning: on the "
        "problems that both answered it is +1.5 points."
    )


def test_where_as_many_answers_are_given_the_change_is_none_of_form() -> None:
    added = difference("target+1.0v", 18.0, answered_p=0.8, answered_by_both=18.0)
    said = dict(verdict(measurements(added, *CONTROLS, form=FORM)).findings)["Form"]
    assert said.endswith("So the change is not one of form alone.")
    assert "Form" not in dict(verdict(measurements(ADDED, *CONTROLS)).findings)
