"""Each layout, on records written by hand in it."""

import gzip
import json

import pytest

from reasonvec.evaluation.benchmarks import records


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_gsm8k():
    answer = "2+3=<<2+3=5>>5\n#### 1,005"
    problem, other = records.gsm8k(lines({"question": "Q", "answer": answer}, {"question": "R", "answer": "#### -4"}),
                                   "gsm8k")  # fmt: skip
    assert (problem.id, problem.gold, problem.kind, problem.solution) == ("gsm8k/test/0", "1005", "number", answer)
    assert (other.id, other.gold) == ("gsm8k/test/1", "-4")
    assert records.gsm8k(lines({"question": "Q", "answer": answer}), "gsm8k/train")[0].id == "gsm8k/train/0"


def test_humaneval():
    row = {"task_id": "HumanEval/3", "prompt": "def f():", "entry_point": "f", "canonical_solution": "  return 1",
           "test": "def check(f): assert f() == 1"}  # fmt: skip
    (problem,) = records.humaneval(gzip.compress(lines(row)), "humaneval")
    assert (problem.id, problem.question, problem.gold) == ("humaneval/3", "def f():", "  return 1")
    assert problem.details == {"entry_point": "f", "test": row["test"]}


def test_sciq():
    row = {"question": "Q", "correct_answer": "right", "distractor1": "a", "distractor2": "b", "distractor3": "c",
           "support": "It is right."}  # fmt: skip
    (problem,) = records.sciq(json.dumps([row]).encode(), "sciq/valid")
    assert (problem.id, problem.gold, problem.kind) == ("sciq/valid/0", "right", "choice")
    assert problem.details == {"distractors": ["a", "b", "c"], "support": "It is right."}


@pytest.mark.parametrize(("targets", "kind"), [(["8", "-11"], "number"), (["8", "(A)"], "text"), (["Yes"], "text")])
def test_bbh_is_numeric_where_all_its_targets_are(targets, kind):
    examples = [{"input": "Q", "target": target} for target in targets]
    problems = records.bbh(json.dumps({"canary": "C", "examples": examples}).encode(), "bbh/navigate")
    assert [(problem.gold, problem.kind) for problem in problems] == [(target, kind) for target in targets]
    assert problems[0].id == "bbh/navigate/0"


def test_the_canary_is_no_part_of_a_prompt():
    assert records.chain_of_thought(b"a canary\n-----\nThink.\n\nQ: 1?\nA: 1") == "Think.\n\nQ: 1?\nA: 1"


def test_math_500():
    row = {"problem": "P", "solution": "S", "answer": "\\frac12", "subject": "Algebra", "level": 2,
           "unique_id": "test/algebra/7.json"}  # fmt: skip
    (problem,) = records.math500(lines(row), "math500")
    assert (problem.id, problem.gold, problem.kind) == ("math500/test/algebra/7", "\\frac12", "expression")
    assert problem.details == {"subject": "Algebra", "level": 2}


def test_contests_have_whole_numbers_however_they_are_written():
    content = b'{"id": 60, "problem": "P", "answer": "025", "solution": "S"}\n{"id": 0, "problem": "P", "answer": 27.0}'
    assert [(problem.id, problem.gold, problem.solution) for problem in records.contest(content, "aime24")] == [
        ("aime24/60", "25", "S"), ("aime24/0", "27", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"so \boxed{1.6} cm", "1.6"),
        (r"\boxed{1} no, \boxed{\frac{1}{2}} it is {so}", r"\frac{1}{2}"),
        (r"\boxed{{a}}", "{a}"),
        ("nothing", ""),
        (r"\boxed{open", ""),
    ],
)
def test_the_answer_is_in_the_last_box(solution, gold):
    assert records.boxed(solution) == gold


def test_minerva():
    row = {"problem": "P", "solution": r"\boxed{4.5e33}", "type": "Astronomy", "idx": 4}
    (problem,) = records.minerva(lines(row), "minerva")
    assert (problem.id, problem.gold, problem.details) == ("minerva/4", "4.5e33", {"course": "Astronomy"})


def test_olympiadbench():
    row = {"id": 9, "question": "Q", "solution": ["first", "second"], "final_answer": ["$1$,$2$"], "unit": None,
           "subfield": "Algebra", "answer_type": "Tuple", "is_multiple_answer": True, "context": None}  # fmt: skip
    (problem,) = records.olympiadbench(lines(row), "olympiadbench")
    assert (problem.id, problem.gold, problem.solution) == ("olympiadbench/9", "$1$,$2$", "first")
    assert problem.details["is_multiple_answer"] is True


def test_svamp():
    row = (b'{"ID": "chal-7", "Body": "Jo has 3 pens.", "Question": "How many?", "Answer": 3.0, "Equation": "E", '
           b'"Type": "T"}')  # fmt: skip
    (problem,) = records.svamp(row, "svamp")
    assert (problem.id, problem.question, problem.gold) == ("svamp/chal-7", "Jo has 3 pens. How many?", "3")


def test_asdiv():
    row = {"body": "B.", "question": "Q?", "solution_type": "Sum", "formula": "7+2=9", "idx": 5}
    content = lines({**row, "answer": "9 (apples)"}, {**row, "answer": "3:30 p.m."}, {**row, "answer": "383"})
    assert [(problem.gold, problem.kind, problem.details["unit"]) for problem in records.asdiv(content, "asdiv")] == [
        ("9", "number", "apples"), ("3:30 p.m.", "text", ""), ("383", "number", ""),
    ]  # fmt: skip


def test_multiarith():
    (problem,) = records.multiarith(lines({"input": "Q", "target": 39}), "multiarith")
    assert (problem.id, problem.question, problem.gold) == ("multiarith/0", "Q", "39")


def test_a_gold_answer_that_is_no_number_is_not_guessed():
    with pytest.raises(ValueError, match="'many' is no number"):
        records.gsm8k(lines({"question": "Q", "answer": "#### many"}), "gsm8k")
