"""The grader, against a table of completions and what a person would say of them."""

import pytest

from reasonvec.evaluation.grading import extract_marked_answer, grade_marked_answer, is_correct


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("12 + 5 = 17 - 8 = 9 # 9", "9"),
        ("12 plus 5 is 17 minus 8 is 9 so 9", "9"),
        ("12 plus 5 is 17 So 17, no, so 18.", "18"),
        ("# 3 9 4", "3 9 4"),
        ("so  3   9 4 .", "3 9 4"),
        ("#9", "9"),
        ("# 4 so 5", "5"),
        ("so 5 # 4", "4"),
        ("12 + 5 = 17", None),
        ("17 #", None),
        ("so .", None),
        ("", None),
        ("also 9", None),
        ("some 9", None),
    ],
)
def test_the_answer_is_what_follows_the_last_marker(completion: str, answer: str | None) -> None:
    assert extract_marked_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "gold", "right"),
    [
        ("12 + 5 = 17 # 17", "17", True),
        ("12 + 5 = 17 # 17.", "17", True),
        ("12 + 5 = 17 # 170", "17", False),
        ("12 + 5 = 17 # 17 apples", "17", False),
        ("12 + 5 = 17 # -17", "17", False),
        ("17", "17", False),
        ("so 3 9 4", "3  9 4", True),
        ("so 3 9", "3 9 4", False),
        ("", "", False),
        ("so", "None", False),
    ],
)
def test_only_exactly_the_gold_answer_is_right(completion: str, gold: str, right: bool) -> None:
    assert grade_marked_answer(completion, gold) is right


def test_a_completion_that_was_cut_off_is_wrong_whatever_it_says() -> None:
    assert is_correct("# 9", "9", finished=True)
    assert not is_correct("# 9", "9", finished=False)


def test_another_grader_takes_the_place_of_the_marked_answer() -> None:
    assert is_correct("B", "b", finished=True, grader=lambda completion, gold: completion.lower() == gold)
