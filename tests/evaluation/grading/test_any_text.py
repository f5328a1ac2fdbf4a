"""Whatever a model writes is graded: made-up answers by Python's own arithmetic, and texts that no rule foresaw."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonvec.evaluation.benchmarks import load_benchmark
from reasonvec.evaluation.benchmarks.problem import format_number
from reasonvec.evaluation.grading import grade
from reasonvec.evaluation.perturbations.sentences import ABSTAIN
from tests.evaluation.grading.problems import problem
from tests.evaluation.word_problems import real_data

NUMBER = problem("number", "18")
PROBLEMS = [
    NUMBER,
    problem("text", "(A)", "Which?\nOptions:\n(A) yes\n(B) no"),
    problem("text", "Yes"),
    problem("text", "Mrs. Hilt"),
    problem("text", "] } )"),
    problem("text", ABSTAIN),
    problem("choice", "red cell", distractors=["blue cell"]),
    problem("choice", "red cell", options=["blue cell", "red cell"]),
]
TEMPLATES = [
    "\\boxed{{{}}}",
    "So she has 7 of them.\n\n$\\boxed{{{} \\text{{ eggs}}}}$",
    "The answer is {}.",
    "1. Take 7.\n2. Done.\n\n**Final answer:** ${}$",
    "7 - 3 = 4\n#### {}",
    "7 eggs make {} in all.\n\nStep 3. Done.",
    "<think>It is 7.</think>The answer is: {}\n\nQuestion: And 7?\nThe answer is 7.",
]


def spellings(value):
    yield str(value)
    yield f"{value.numerator}/{value.denominator}"
    yield f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    if value.denominator == 1:
        yield f"{value.numerator:,}"
        yield f"{value.numerator:,}.00"
        yield f"{value.numerator}e0"
        yield f"{value.numerator:,}".replace("-", "−").replace(",", "\u202f")
        yield str(value.numerator).translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    elif value.denominator in (2, 4, 5, 10):
        yield str(float(value))


def test_a_number_is_right_in_every_spelling_and_sentence_and_another_is_wrong():
    stream = random.Random(0)
    for _ in range(60):
        value = Fraction(stream.randint(-(10 ** stream.randint(1, 7)), 10**7), stream.choice((1, 1, 1, 2, 4, 5, 3)))
        other = value + Fraction(stream.choice((-1, 1)), stream.choice((1, 10)))
        for template in TEMPLATES:
            for spelling in spellings(value):
                completion = template.format(spelling)
                assert grade(problem("number", format_number(value)), completion).correct, completion
                assert not grade(problem("number", format_number(other)), completion).correct, completion


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters() | st.sampled_from("\\{}[]()$#*0123456789.,:/^-\n "), max_size=80))
def test_any_text_has_a_verdict_and_none_extracted_is_never_right(text):
    for one in PROBLEMS:
        verdict = grade(one, text)
        assert verdict == grade(one, text)
        assert verdict.extracted is not None or not verdict.correct
        assert (verdict.extracted or "").encode().decode() == (verdict.extracted or "")  # it can be written to a file


HOSTILE = {
    "digits": "1" * 100_000, "commas": "," * 100_000, "digits and commas": "1," * 50_000, "backslashes": "\\" * 100_000,
    "open boxes": "\\boxed{" * 14_000, "closed boxes": "\\boxed{" * 12_000 + "}" * 12_000,
    "many boxes": "\\boxed{1}, " * 9_000, "braces": "{" * 100_000, "brackets": "(" * 100_000,
    "answers": "the answer is " * 7_000, "answer lines": "answer is\n" * 10_000, "hashes": "#### x\n" * 14_000,
    "dollars": "$1" * 50_000, "spaces": " " * 100_000, "spaced digits": "1 234 " * 16_000, "slashes": "1/" * 50_000,
    "equations": "1=" * 50_000, "thoughts": "<think>" * 14_000, "headings": "Question:\n" * 10_000,
    "fractions": "\\frac{1}{" * 11_000, "texts": "\\text{" * 16_000, "powers": "10^" * 33_000, "stars": "*1" * 50_000,
    "words": "twenty-" * 14_000, "negations": "not enough a a a " * 6_000, "surrogates": "\ud800" * 100_000,
    "halves": "½" * 30_000, "ends": "</s>" * 25_000, "formulas": "\\[ " * 33_000,
    "letters": "(A) or (B) or " * 7_000 + "(C)",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hundred_thousand_characters_of_anything_are_no_right_answer(name):
    # where a search takes quadratic time, one of these takes minutes
    for one in PROBLEMS:
        verdict = grade(one, HOSTILE[name])
        assert not verdict.correct
        assert len(verdict.extracted or "") <= 301


def test_a_program_is_not_graded_by_its_text():
    with pytest.raises(ValueError, match="test/0 is of kind 'program': its tests have to be run"):
        grade(problem("program", "return 1"), "return 1")


def test_an_option_of_the_question_may_be_given_by_its_text():
    asked = problem("text", "(B)", "What day is it?\nOptions:\n(A) 01/02/1990\n(B) 02/01/1990")
    assert grade(asked, "So the answer is 02/01/1990.").correct
    assert not grade(asked, "So the answer is 01/02/1990.").correct
    assert grade(asked, "So the answer is 01/02/1990.").extracted == "A"


REAL = {
    "gsm8k": (1319, lambda one: one.solution),
    "gsm8k/train": (7473, lambda one: one.solution),
    "math500": (500, lambda one: one.solution),
    "aime24": (30, lambda one: one.solution),
    "minerva": (272, lambda one: one.solution),
    "olympiadbench": (675, lambda one: f"Hence\n\\[\n\\boxed{{{one.gold}}}\n\\]"),
    "amc23": (40, lambda one: f"Hence $\\boxed{{{one.gold}}}$."),
    "svamp": (1000, lambda one: f"7 - 5 = 2. The answer is {one.gold}."),
    "asdiv": (2215, lambda one: f"7 - 5 = 2. The answer is {one.gold}."),
    "multiarith": (600, lambda one: f"She has 7.\n#### {one.gold}"),
    "bbh": (6511, lambda one: f"Let's think step by step. (A) No, 7 is wrong.\nSo the answer is {one.gold}."),
    "sciq": (1000, lambda one: f"The answer is {one.gold}."),
}


@pytest.mark.parametrize("task", REAL)
def test_gold_answers_are_right(task):
    count, answer = REAL[task]
    problems = load_benchmark(task, data=real_data()).problems
    assert len(problems) == count
    assert [one.id for one in problems if not grade(one, answer(one)).correct] == []
