"""GSM8K's calculator annotations as a program: <<16-3-4=9>> with every operand traced to where its value comes from.

Only the strict subset is taken, in which each operand has one possible source; there the program of a question with
other numbers gives the gold answer of that question. Relaxed tracing was wrong far more often (docs/evaluation.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from reasonvec.evaluation.benchmarks import BenchmarkProblem, format_number
from reasonvec.evaluation.perturbations.language import words
from reasonvec.evaluation.perturbations.quantities import Quantity, quantities, word_values

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_TOKEN = re.compile(r"\s*(?:(\d[\d,]*(?:\.\d+)?|\.\d+)|([-+*/x()%]))", re.ASCII)
_FIXED_AROUND = re.compile(r"[\w:#/]|['’-]")
MAX_VALUE = 10**40
"""Numerators and denominators of values are below: no sum of a word problem comes near, a hostile one cannot grow."""
MAX_DEPTH = 50
"""Brackets or signs of one expression at most; GSM8K has 4."""

UNITS: dict[int, tuple[frozenset[str], ...]] = {
    3: (frozenset({"yard", "yards"}),),
    4: (frozenset({"week", "weeks", "weekly"}), frozenset({"month", "months", "monthly"})),
    7: (frozenset({"week", "weeks", "weekly", "daily", "day", "days"}),),
    10: (frozenset({"decade", "decades", "dime", "dimes", "millimeters", "mm"}),),
    12: (frozenset({"dozen", "dozens", "year", "years", "yearly", "annual", "foot", "feet", "inch", "inches"}),),
    16: (frozenset({"ounce", "ounces", "pound", "pounds", "oz"}),),
    24: (frozenset({"day", "days", "daily", "hour", "hours"}),),
    25: (frozenset({"quarter", "quarters"}),),
    30: (frozenset({"month", "months", "monthly"}), frozenset({"day", "days", "daily"})),
    52: (frozenset({"year", "years", "yearly", "annual"}), frozenset({"week", "weeks", "weekly"})),
    60: (frozenset({"hour", "hours", "minute", "minutes", "second", "seconds", "hourly"}),),
    100: (frozenset({"percent", "%", "cent", "cents", "dollar", "dollars", "meter", "meters", "centimeters"}),),
    365: (frozenset({"year", "years", "yearly", "annual"}),),
    1000: (frozenset({"kilometer", "kilometers", "km", "kilogram", "kilograms", "kg", "gram", "grams", "liter",
                      "liters", "ml", "milliliters", "thousand"}),),
    3600: (frozenset({"hour", "hours"}),),
    5280: (frozenset({"mile", "miles"}),),
}  # fmt: skip
"""Constant -> sets of words of which the question must hold one each, for the constant to mean a unit."""


@dataclass(frozen=True)
class Operand:
    """A number in an expression and where its value comes from."""

    source: Literal["question", "step", "constant"]
    index: int
    """Of the quantity in the question or of the step before; meaningless for a constant."""
    value: Fraction
    """In the original problem."""


@dataclass(frozen=True)
class Step:
    """One annotation: an expression, as tokens, and its operands in the order of the number tokens."""

    tokens: tuple[str, ...]
    operands: tuple[Operand, ...]
    value: Fraction
    """In the original problem."""


@dataclass(frozen=True)
class Program:
    """The steps that lead from a question's numbers to the gold answer, the value of the last one."""

    quantities: tuple[Quantity, ...]
    """All numbers of the question that are written in digits."""
    changeable: tuple[int, ...]
    """Which of them may be given another value: plain numbers that a step uses."""
    steps: tuple[Step, ...]


class NoProgram(Exception):  # noqa: N818
    """Why a solution is not in the strict subset, in few words; never leaves this package."""


def strict_program(problem: BenchmarkProblem) -> Program:
    """The program of a problem in the strict subset. Raises NoProgram with the reason for any other.

    Each condition below holds for fewer problems than the one before; docs/evaluation.md has the counts.
    """
    if problem.kind != "number" or problem.solution is None:
        raise NoProgram("no worked solution")
    parsed = [_parse(text) for text in _ANNOTATION.findall(problem.solution)]
    if not parsed:
        raise NoProgram("no annotations")
    if parsed[-1][1] != Fraction(problem.gold):
        raise NoProgram("last annotation is not the answer")
    if any(sum(map(_is_number, tokens)) == 1 for tokens, _ in parsed):
        raise NoProgram("a step without a calculation")
    found = tuple(quantities(problem.question))
    fixed = frozenset(place for place, quantity in enumerate(found) if not _may_change(quantity, problem.question))
    named = word_values(problem.question)
    units = _unit_constants(problem.question)
    steps: list[Step] = []
    ambiguous = False
    for tokens, value in parsed:
        operands = []
        for token in filter(_is_number, tokens):
            number = _value(token)
            sources = _sources(number, found, fixed, named, units, steps)
            if not sources:
                raise NoProgram("a number from nowhere")
            ambiguous |= len(sources) > 1
            operands.append(sources[0])
        steps.append(Step(tokens, tuple(operands), value))
    used = {operand.index for step in steps for operand in step.operands if operand.source == "question"}
    if not used:
        raise NoProgram("no number that may change")
    if ambiguous:
        raise NoProgram("a number with two possible sources")
    values = {number for step in steps for number in map(_value, filter(_is_number, step.tokens))}
    if any(place not in used and not _possible_values(quantity) & values for place, quantity in enumerate(found)):
        raise NoProgram("a number that no step uses")
    return Program(found, tuple(sorted(used)), tuple(steps))


def run(program: Program, values: Mapping[int, Fraction]) -> list[Fraction]:
    """The value of every step when the quantities of the question have `values`; those not named keep their own.

    Raises ZeroDivisionError where the changed numbers divide by zero.
    """
    results: list[Fraction] = []
    for step in program.steps:
        numbers = [_operand_value(operand, values, results) for operand in step.operands]
        results.append(_evaluate(step.tokens, numbers))
    return results


def written_out(program: Program, values: Mapping[int, Fraction]) -> str:
    """The steps as GSM8K writes them, one a line, with changed numbers: `16-3-4 = <<16-3-4=9>>9`; last `#### gold`."""
    results: list[Fraction] = []
    lines = []
    for step in program.steps:
        numbers = [_operand_value(operand, values, results) for operand in step.operands]
        results.append(_evaluate(step.tokens, numbers))
        supply = iter(numbers)
        expression = "".join(_literal(next(supply)) if _is_number(token) else token for token in step.tokens)
        result = format_number(results[-1])
        lines.append(f"{expression} = <<{expression}={result}>>{result}")
    return "\n".join([*lines, f"#### {format_number(results[-1])}"])


def _operand_value(operand: Operand, values: Mapping[int, Fraction], results: list[Fraction]) -> Fraction:
    if operand.source == "step":
        return results[operand.index]
    if operand.source == "question":
        return values.get(operand.index, operand.value)
    return operand.value


def _literal(value: Fraction) -> str:
    text = format_number(value)
    return f"({text})" if "/" in text or value < 0 else text


def _sources(
    number: Fraction,
    found: tuple[Quantity, ...],
    fixed: frozenset[int],
    named: list[frozenset[Fraction]],
    units: frozenset[int],
    steps: list[Step],
) -> list[Operand]:
    """Where an operand may come from. What never changes counts as one source, however often it is there."""
    sources = [Operand("question", place, number) for place, quantity in enumerate(found)
               if place not in fixed and quantity.value == number]  # fmt: skip
    sources += [Operand("step", place, number) for place, step in enumerate(steps) if step.value == number]
    unchanging = (
        any(number in _possible_values(found[place]) for place in fixed)
        or any(number in meanings for meanings in named)
        or number in units
    )
    return sources + ([Operand("constant", 0, number)] if unchanging else [])


def _possible_values(quantity: Quantity) -> frozenset[Fraction]:
    """What a quantity that is left alone may stand for: 20% is 20, 0.2, 0.8, 1.2, 80 or 120; 3/4 also 3 and 4."""
    if quantity.kind == "percent":
        share = quantity.value / 100
        return frozenset({quantity.value, share, 1 - share, 1 + share, 100 - quantity.value, 100 + quantity.value})
    if quantity.kind == "fraction":
        value = quantity.value
        return frozenset({value, 1 - value, 1 + value, Fraction(value.numerator), Fraction(value.denominator)})
    return frozenset({quantity.value})


def _may_change(quantity: Quantity, text: str) -> bool:
    """Whether a number may be given another value: no percentage, fraction, 0 or 1, and nothing glued to it that makes
    it a name, a time, a date, an ordinal or a decimal of another kind."""
    before, after = text[: quantity.start][-1:], text[quantity.end :][:1]
    if quantity.kind != "number" or quantity.value <= 1:
        return False
    if (before and _FIXED_AROUND.match(before)) or (after and _FIXED_AROUND.match(after)):
        return False
    rest = text[quantity.end :].lower().split(maxsplit=1)[:1]
    return not (
        rest and rest[0].strip(".,;?!") in {"am", "pm", "a.m", "p.m", "o'clock", "hundred", "thousand", "million"}
    )


def _unit_constants(question: str) -> frozenset[int]:
    here = set(words(question)) | ({"%"} if "%" in question else set()) | ({"dollars"} if "$" in question else set())
    return frozenset(number for number, groups in UNITS.items() if all(group & here for group in groups))


def _parse(annotation: str) -> tuple[tuple[str, ...], Fraction]:
    """The tokens left of the last equals sign, and the value, which both sides must have exactly."""
    left, _, right = annotation.rpartition("=")
    try:
        tokens, stated = _tokens(left), _tokens(right)
        value = _evaluate(tokens, [_value(token) for token in tokens if _is_number(token)])
        if value != _evaluate(stated, [_value(token) for token in stated if _is_number(token)]):
            raise NoProgram("an annotation that is not exact")
    except (ValueError, ZeroDivisionError):
        raise NoProgram("an annotation that is not arithmetic") from None
    if max(abs(value.numerator), value.denominator) >= MAX_VALUE:
        raise NoProgram("an annotation of enormous numbers")
    return tokens, value


def _tokens(text: str) -> tuple[str, ...]:
    text = text.replace("$", "").strip()
    tokens, place = [], 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if not found:
            raise ValueError(f"{text[place]!r} is no arithmetic")
        tokens.append(found[1] or found[2].replace("x", "*"))
        place = found.end()
    return tuple(tokens)


def _is_number(token: str) -> bool:
    return token[0].isdigit() or token[0] == "."


def _value(token: str) -> Fraction:
    return Fraction(f"0{token}".replace(",", ""))


def _evaluate(tokens: tuple[str, ...], numbers: list[Fraction]) -> Fraction:
    """The value of an expression in + - * / % and brackets, its number tokens replaced by `numbers`. ValueError for
    what is not one."""
    if max(map(tokens.count, "(+-")) > MAX_DEPTH:
        raise ValueError("too deep")
    supply = iter(numbers)
    rest = list(reversed(tokens))

    def total() -> Fraction:
        value = product()
        while rest and rest[-1] in "+-":
            value += product() if rest.pop() == "+" else -product()
        return value

    def product() -> Fraction:
        value = signed()
        while rest and rest[-1] in "*/(":
            operator = "*" if rest[-1] == "(" else rest.pop()
            value = value * signed() if operator == "*" else value / signed()
        return value

    def signed() -> Fraction:
        if rest and rest[-1] in "+-":
            return signed() if rest.pop() == "+" else -signed()
        value = atom()
        while rest and rest[-1] == "%":
            rest.pop()
            value /= 100
        return value

    def atom() -> Fraction:
        token = rest.pop() if rest else ""
        if token == "(":  # noqa: S105
            value = total()
            if not rest or rest.pop() != ")":
                raise ValueError("a bracket is not closed")
            return value
        if not token or not _is_number(token):
            raise ValueError(f"{token!r} is no number")
        return next(supply)

    value = total()
    if rest:
        raise ValueError(f"{rest[-1]!r} is left over")
    return value
