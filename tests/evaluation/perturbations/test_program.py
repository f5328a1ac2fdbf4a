"""Annotations as programs: the strict subset, against formulas written by hand and Python's own arithmetic."""

import random
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonvec.evaluation.benchmarks import BenchmarkProblem, load_benchmark
from reasonvec.evaluation.perturbations.program import NoProgram, run, strict_program, written_out
from tests.evaluation.word_problems import NOT_STRICT, STRICT, evaluated, numbers_in, real_data


@pytest.mark.parametrize("sample", STRICT, ids=lambda sample: sample.problem.id)
def test_the_original_numbers_give_the_original_answer(sample):
    program = strict_program(sample.problem)
    assert run(program, {})[-1] == Fraction(sample.problem.gold)
    assert sample.formula(*numbers_in(sample.problem.question)) == Fraction(sample.problem.gold)


@pytest.mark.parametrize("sample", STRICT, ids=lambda sample: sample.problem.id)
@given(st.data())
def test_other_numbers_give_what_the_formula_gives(sample, data):
    program = strict_program(sample.problem)
    assert program.changeable
    numbers = numbers_in(sample.problem.question)
    values = {place: Fraction(data.draw(st.integers(2, 10**6))) for place in program.changeable}
    changed = [values.get(place, number) for place, number in enumerate(numbers)]
    try:
        expected = sample.formula(*changed)
    except ZeroDivisionError:
        return
    assert run(program, values)[-1] == expected


@pytest.mark.parametrize("sample", STRICT, ids=lambda sample: sample.problem.id)
def test_what_is_written_out_is_right_by_pythons_arithmetic(sample):
    program = strict_program(sample.problem)
    values = {place: Fraction(random.Random(place).randrange(50, 900)) for place in program.changeable}
    text = written_out(program, values)
    steps = re.findall(r"<<(.*?)=(.*?)>>", text)
    assert all(evaluated(expression) == Fraction(value) for expression, value in steps)
    assert text.endswith(f"#### {steps[-1][1]}")


@pytest.mark.parametrize("reason", NOT_STRICT)
def test_what_is_not_strict_says_why(reason):
    with pytest.raises(NoProgram, match=f"^{reason}$"):
        strict_program(NOT_STRICT[reason].problem)


@pytest.mark.parametrize(
    ("question", "fixed"),
    [
        ("On May 5, 2020 Jo had {} pens and 7 caps.", "a decimal"),
        ("The 5th of 12 rows", "an ordinal"),
        ("At 5:30 there were 12.", "a time"),
        ("At 5 pm there were 12.", "an hour"),
        ("Movie#5 has 12.", "a name"),
        ("5 thousand and 12", "a scaled number"),
        ("1 and 12", "one"),
    ],
)
def test_what_is_no_plain_number_stays(question, fixed):
    text = question.format("1.5")
    solution = "5+12=<<5+12=17>>17\n#### 17" if "1 and" not in text else "1+12=<<1+12=13>>13\n#### 13"
    if "{}" in question:
        solution = "5+7=<<5+7=12>>12\n#### 12"
    try:
        program = strict_program(BenchmarkProblem("x", "x", text, solution.split()[-1], "number", solution))
    except NoProgram:
        return  # refused altogether is as safe
    kept = {program.quantities[place].value for place in program.changeable}
    assert not kept & {Fraction(1), Fraction(5)} or fixed == "a decimal"


@pytest.mark.parametrize(
    "annotation",
    ["2+=2", "(2=2", "2)=2", "=2", "2=", "2//1=2", "2**2=4", "1/0=1", "two=2", "2 3=6", "__import__=1", "2^2=4",
     "(" * 60 + "1+1" + ")" * 60 + "=2", "2" + "+-" * 60 + "2=4"],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(annotation):
    problem = BenchmarkProblem("x", "x", "2 and 3?", "2", "number", f"<<{annotation}>>\n#### 2")
    with pytest.raises(NoProgram):
        strict_program(problem)


@given(st.recursive(
    st.integers(1, 99).map(str),
    lambda inner: st.builds(lambda a, o, b: f"({a}{o}{b})", inner, st.sampled_from("+-*/"), inner), max_leaves=8,
))  # fmt: skip
def test_expressions_have_the_value_that_python_gives(expression):
    try:
        expected = evaluated(expression)
    except ZeroDivisionError:
        return
    if "(" not in expression:
        return
    value = f"{expected.numerator}/{expected.denominator}" if expected >= 0 else f"0-{-expected}"
    solution = f"<<{expression}={value}>>\n#### {expected}"
    # every number stands in the question twice, so that nothing else can be refused first
    numbers = " ".join(re.findall(r"\d+", expression) * 2)
    with pytest.raises(NoProgram, match="two possible sources|nothing|may change"):
        strict_program(BenchmarkProblem("x", "x", numbers, str(expected), "number", solution))


def test_the_strict_subset_of_gsm8k():
    """489 of 1,319, and each program gives its gold answer; docs/evaluation.md has the counts of every condition."""
    strict = []
    for problem in load_benchmark("gsm8k", data=real_data()).problems:
        try:
            strict.append((problem, strict_program(problem)))
        except NoProgram:
            continue
    assert len(strict) == 489
    assert all(run(program, {})[-1] == Fraction(problem.gold) for problem, program in strict)
