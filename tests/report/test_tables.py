"""Rows, drawings and worked examples."""

from reasonvec.report import tables
from reasonvec.report.measurements import Difference

from .build import difference, measurements


def test_a_strip_places_zero_in_the_middle_and_clips_at_its_ends() -> None:
    drawn = tables.strip(Difference("a", "target", "k", 5, points=10, low=5, high=30, p=0.01, holm_p=0.01), reach=20)
    assert (drawn.zero, drawn.low, drawn.point, drawn.high) == (50.0, 62.5, 75.0, 100.0)


def test_the_axis_holds_every_interval_and_ends_on_fives() -> None:
    read = measurements(difference("target+1.0v", 18.0), difference("random-1", 0.0))
    assert tables.reach_of(read.differences) == 25.0  # 18 + 4 rounded up
    assert tables.reach_of([]) == 5.0


def test_adding_comes_first_then_subtracting_then_the_controls() -> None:
    read = measurements(difference("random-1", 1), difference("target-1.0v", -12), difference("target+1.0v", 18))
    assert [row.label for row in tables.glance_rows(read)] == ["Vector added", "Vector subtracted", "Random vector 1"]
    made = tables.difference_tables(read)
    assert [(table.arm, table.important) for table in made] == [
        ("target+1.0v", True), ("target-1.0v", True), ("random-1", False),
    ]  # fmt: skip
    assert made[0].tally() == {"gain": 1, "loss": 0, "unclear": 0}


def test_differences_against_another_baseline_have_their_own_table() -> None:
    against_sft = {**difference("grpo", 20.0, kind="sym"), "baseline": "sft"}
    (made,) = tables.difference_tables(measurements(against_sft))
    assert made.title == "GRPO donor against SFT donor"
    assert made.rows[0].before is not None
    assert made.rows[0].before.correct == 270


def test_what_differs_from_the_targets_answer_is_marked_and_nothing_is_lost() -> None:
    pieces = tables.changed_pieces("27+6=34-4=30 so 30", "27+6=33-4=29 so 29")
    assert "".join(piece for piece, _ in pieces) == "27+6=33-4=29 so 29"
    assert [piece for piece, changed in pieces if changed] == ["33", "29", "29"]


def test_examples_show_target_and_enhanced_first_and_are_limited() -> None:
    read = measurements(difference("target+1.0v", 18))
    entry = {
        "kind": "start", "problem": "p", "gold": "9", "correct": {"target": False, "target+1.0v": True},
        "completions": {"sft": "8", "target+1.0v": "9", "target": "8"},
    }  # fmt: skip
    shown = tables.examples(read, [entry] * 30)
    assert len(shown) == tables.EXAMPLE_LIMIT
    assert [(answer.label.replace("\u00a0", " "), answer.correct) for answer in shown[0].answers] == [
        ("target", False), ("target + v", True),
    ]  # fmt: skip
    assert [(answer.label, answer.correct) for answer in shown[0].others] == [("SFT donor", None)]
    assert shown[0].kind == "Start"
