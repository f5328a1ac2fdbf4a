"""The table of answers that fool graders, written by a person: what is to be taken as the answer, and is it right?"""

import json
from collections import Counter
from pathlib import Path

import pytest

from reasonvec.evaluation.grading import grade
from tests.evaluation.grading.problems import problem

ROWS = [json.loads(line) for line in Path(__file__).with_name("fooling.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['kind']}-{row['why']}" for row in ROWS])
def test_an_answer_that_fools_graders(row):
    found = grade(problem(row["kind"], row["gold"], **row.get("details", {})), row["completion"])
    assert (found.extracted, found.correct) == (row["extracted"], row["correct"])
    assert (found.extracted is None) == (found.how is None)


def test_the_table_has_right_wrong_and_missing_answers_of_every_kind():
    counts = Counter((row["kind"], row["correct"], row["extracted"] is None) for row in ROWS)
    for kind in ("number", "expression", "text", "choice"):
        assert counts[kind, True, False] >= 5
        assert counts[kind, False, False] >= 4
        assert counts[kind, False, True] >= 2
    assert len({(row["kind"], row["gold"], row["completion"]) for row in ROWS}) == len(ROWS) >= 150
