"""Operators that give a problem another gold answer, computed exactly from its program: numbers, compose."""

import re
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from reasonvec.evaluation.benchmarks import BenchmarkProblem, format_number
from reasonvec.evaluation.perturbations.change import Edit, Inapplicable, Others, Perturbed
from reasonvec.evaluation.perturbations.program import NoProgram, Program, run, strict_program, written_out
from reasonvec.evaluation.perturbations.quantities import replaced, write_like
from reasonvec.evaluation.perturbations.stream import RandomStream

RANGES = {1: (Fraction(1, 2), Fraction(2)), 2: (Fraction(5), Fraction(20)), 3: (Fraction(500), Fraction(2000))}
"""Severity -> the factors between which each number is drawn anew."""
CHAINED = {1: 2, 2: 3}
"""Severity -> problems in one chain of compose."""
DRAWS = 200
"""So often is drawn until the problem with the new numbers is valid."""
_LETTERS = ("X", "Y")


def numbers(problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others) -> Perturbed | Inapplicable:
    """Every number that may change is another one, 0.5 to 2, 5 to 20 or 500 to 2,000 times as large; the gold answer is
    computed from the worked solution's annotations.

    Only the strict subset (program.py), and only a draw that is valid: in each step what was whole stays whole, what
    was positive stays positive, decimals stay as fine, and the answer is another one.
    """
    try:
        program = strict_program(problem)
    except NoProgram as reason:
        return Inapplicable(str(reason))
    for _ in range(DRAWS):
        values = {index: _drawn(program, problem.question, index, severity, stream) for index in program.changeable}
        if valid(program, values):
            return _with_values(problem, program, values)
    return Inapplicable(f"no valid numbers in {DRAWS} draws")


def compose(problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others) -> Perturbed | Inapplicable:
    """One number of the problem is the answer of another one: "Let X be the answer to: ... ." Two or three in a chain.

    Every problem of the chain but the first is of the strict subset and valid with the answer put in, so the gold
    answer of the last is exact. Compositional GSM, Hosseini et al. 2024, arXiv:2410.01748.
    """
    try:
        program = strict_program(problem)
    except NoProgram as reason:
        return Inapplicable(str(reason))
    usable = [index for index in program.changeable if _stands_for_a_letter(problem.question, program, index)]
    if not usable or not others.problems or _names_a_letter(problem.question):
        return Inapplicable("no number that a letter can stand for")
    for _ in range(DRAWS):
        head = _chain(stream.choose(others.problems), problem.id, CHAINED[severity] - 1, stream, others)
        if head is None:
            continue
        question, gold, edits, solution = head
        index = stream.choose(usable)
        values = {index: gold}
        if not _differ(program, values) or not valid(program, values):
            continue
        letter = _LETTERS[CHAINED[severity] - 2]
        text = _with_letter(problem.question, program, index, letter)
        result = run(program, values)[-1]
        edit = _letter_edit(problem, program, index, letter, gold)
        return Perturbed(
            f"{question} {text}",
            (*edits, edit),
            format_number(result),
            f"{solution}\n{written_out(program, values)}",
            gold_changed=True,
        )
    return Inapplicable(f"no valid chain in {DRAWS} draws")


def valid(program: Program, values: Mapping[int, Fraction]) -> bool:
    """Whether the problem with these values is as sensible as the original: see `numbers`."""
    try:
        results = run(program, values)
    except ZeroDivisionError:
        return False
    for step, result in zip(program.steps, results, strict=True):
        parts = step.value.denominator
        grid = 100 if parts > 1 and 100 % parts == 0 else parts  # whole stays whole, cents cents, thirds thirds
        if (result * grid).denominator != 1:
            return False
        if step.value > 0 and result <= 0:
            return False
    return results[-1] != program.steps[-1].value


def _with_values(problem: BenchmarkProblem, program: Program, values: Mapping[int, Fraction]) -> Perturbed:
    pieces, edits = [], []
    for index, value in sorted(values.items()):
        quantity = program.quantities[index]
        old = problem.question[quantity.start : quantity.end]
        new = write_like(value, old)
        pieces.append((quantity.start, quantity.end, new))
        edits.append({"kind": "number", "at": quantity.start, "from": old, "to": new})
    return Perturbed(
        replaced(problem.question, pieces),
        tuple(edits),
        format_number(run(program, values)[-1]),
        written_out(program, values),
        gold_changed=True,
    )


def _drawn(program: Program, question: str, index: int, severity: int, stream: RandomStream) -> Fraction:
    """Another value for a quantity: above 1, and with as many decimal places as it has."""
    quantity = program.quantities[index]
    unit = 10 ** len(question[quantity.start : quantity.end].partition(".")[2])
    low, high = (quantity.value * factor * unit for factor in RANGES[severity])
    least, most = max(ceil(low), unit + 1), max(floor(high), unit + 2)
    value = quantity.value
    while value == quantity.value:
        value = Fraction(stream.between(least, most), unit)
    return value


def _chain(
    first: BenchmarkProblem,
    last: str,
    length: int,
    stream: RandomStream,
    others: Others,
) -> tuple[str, Fraction, tuple[Edit, ...], str] | None:
    """The text that names X, or X and Y, the value of the last letter, edits and solution; None where a draw failed."""
    if first.id == last or first.kind != "number" or not _may_be_named(first):
        return None
    value = Fraction(first.gold)
    text = f"Let X be the answer to: {first.question.strip()}"
    edits: tuple[Edit, ...] = ({"kind": "compose", "origin": first.id, "letter": "X", "value": first.gold},)
    solution = (first.solution or f"#### {first.gold}").strip()
    if length == 1:
        return text, value, edits, solution
    second = stream.choose(others.problems)
    if second.id in (first.id, last) or _names_a_letter(second.question):
        return None
    program = _programs(others).get(second.id)
    if program is None:
        return None
    usable = [index for index in program.changeable if _stands_for_a_letter(second.question, program, index)]
    if not usable:
        return None
    index = stream.choose(usable)
    values = {index: value}
    if not _differ(program, values) or not valid(program, values):
        return None
    result = run(program, values)[-1]
    if result.denominator != 1 or result < 2:
        return None
    text += f" Let Y be the answer to: {_with_letter(second.question, program, index, 'X')}"
    edits += ({"kind": "compose", "origin": second.id, "letter": "Y", "value": format_number(result)},
              _letter_edit(second, program, index, "X", value))  # fmt: skip
    return text, result, edits, f"{solution}\n{written_out(program, values)}"


def _may_be_named(problem: BenchmarkProblem) -> bool:
    """Whether its answer can stand where a count or an amount stood: whole and 2 or more."""
    gold = Fraction(problem.gold)
    return gold.denominator == 1 and gold >= 2 and not _names_a_letter(problem.question)


def _names_a_letter(question: str) -> bool:
    return bool(re.search(r"\b[XYZxyz]\b", question))


def _stands_for_a_letter(question: str, program: Program, index: int) -> bool:
    """Whether the number is whole and stands alone, with at most a dollar sign before it."""
    quantity = program.quantities[index]
    return quantity.value.denominator == 1 and "." not in question[quantity.start : quantity.end]


def _differ(program: Program, values: Mapping[int, Fraction]) -> bool:
    return all(value != program.quantities[index].value for index, value in values.items())


def _with_letter(question: str, program: Program, index: int, letter: str) -> str:
    quantity = program.quantities[index]
    return replaced(question, [(quantity.start, quantity.end, letter)]).strip()


def _letter_edit(problem: BenchmarkProblem, program: Program, index: int, letter: str, value: Fraction) -> Edit:
    quantity = program.quantities[index]
    old = problem.question[quantity.start : quantity.end]
    return {"kind": "letter", "origin": problem.id, "at": quantity.start, "from": old, "to": letter,
            "value": format_number(value)}  # fmt: skip


@lru_cache(maxsize=4)
def _programs(others: Others) -> dict[str, Program]:
    """Of those in the strict subset, by id."""
    found = {}
    for other in others.problems:
        with suppress(NoProgram):
            found[other.id] = strict_program(other)
    return found
