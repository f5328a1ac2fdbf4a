"""Operators that change the look of a question and leave every number's value: typo, surface, number-format."""

import re

from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.perturbations.change import Edit, Inapplicable, Others, Perturbed, reworded
from reasonvec.evaluation.perturbations.language import COMPARATORS, has_formula
from reasonvec.evaluation.perturbations.quantities import (
    CARDINALS,
    NUMBER_WORDS,
    SCALES,
    quantities,
    replaced,
    write_in_words,
)
from reasonvec.evaluation.perturbations.stream import RandomStream

TYPO_SHARES = {1: 0.05, 2: 0.10, 3: 0.20}
"""Severity -> share of the eligible words that get a typing error; at least one word does."""

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = re.compile(r"(?<![\w\\'’])[A-Za-z]+(?![\w])")
_CARDINAL = re.compile(r"(?<![\w-])[A-Za-z]+(?:-[A-Za-z]+)*(?![\w-])")
_FRACTION_WORDS = re.compile(r"half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|dozens?")
_SPACE = re.compile(r"(?<=\S) (?=\S)")
_COMMA = re.compile(r",(?!\d)")


def typo(problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others) -> Perturbed | Inapplicable:
    """One typing error in each of 5, 10 or 20 % of the eligible words: two letters swapped, one left out, repeated, or
    hit beside its key.

    Eligible are words of four letters or more that are no number, negation, comparator or capitalised name; a
    sentence's first word counts as a name. What comes out is never such a word either.
    """
    if has_formula(problem.question):
        return Inapplicable("holds a formula")
    eligible = [found for found in _WORD.finditer(problem.question) if _may_be_mistyped(found[0])]
    if not eligible:
        return Inapplicable("no word may be mistyped")
    count = max(1, round(TYPO_SHARES[severity] * len(eligible)))
    edits: list[Edit] = []
    pieces = []
    for found in sorted(stream.shuffled(eligible)[:count], key=re.Match.start):
        kind, word = _mistype(found[0], stream)
        pieces.append((found.start(), found.end(), word))
        edits.append({"kind": kind, "at": found.start(), "from": found[0], "to": word})
    return reworded(problem, replaced(problem.question, pieces), edits)


def surface(problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others) -> Perturbed | Inapplicable:
    """Lower case, no commas outside of numbers, two spaces between words; nothing is drawn."""
    if has_formula(problem.question):
        return Inapplicable("holds a formula")
    question = _SPACE.sub("  ", _COMMA.sub("", problem.question).lower())
    if question == problem.question:
        return Inapplicable("nothing to change")
    steps = ["lower case", "commas dropped", "spaces doubled"]
    return reworded(problem, question, [{"kind": "surface", "steps": steps}])


def number_format(
    problem: BenchmarkProblem, severity: int, stream: RandomStream, others: Others
) -> Perturbed | Inapplicable:
    """16 becomes sixteen and sixteen 16, 1200 becomes 1,200 and 1,200 becomes 1200: all that can. Nothing is drawn.

    Numbers with a unit or sign on them, decimals, and those beside `hundred`, `dozen` or `thirds` stay. `one` stays
    too: it is mostly no number.
    """
    if has_formula(problem.question):
        return Inapplicable("holds a formula")
    text = problem.question
    pieces = sorted([*_digits_in_another_form(text), *_words_as_digits(text)])
    if not pieces:
        return Inapplicable("no number has another form")
    edits: list[Edit] = [{"kind": "number-format", "at": start, "from": text[start:end], "to": new}
                         for start, end, new in pieces]  # fmt: skip
    return reworded(problem, replaced(text, pieces), edits)


def _may_be_mistyped(word: str) -> bool:
    return len(word) >= 4 and word.islower() and not _protected(word)


def _protected(word: str) -> bool:
    return word in NUMBER_WORDS or word in COMPARATORS or bool(_FRACTION_WORDS.fullmatch(word))


def _mistype(word: str, stream: RandomStream) -> tuple[str, str]:
    """(kind of error, mistyped word). Kinds are drawn until one changes the word into none that carries a quantity."""
    while True:
        kind = stream.choose(("swap", "delete", "repeat", "neighbour"))
        place = stream.below(len(word) - (kind == "swap"))
        head, letter, tail = word[:place], word[place], word[place + 1 :]
        if kind == "swap":
            new = head + tail[0] + letter + tail[1:]
        elif kind == "neighbour":
            new = head + stream.choose(_beside(letter)) + tail
        else:
            new = head + letter * (0 if kind == "delete" else 2) + tail
        if new != word and not _protected(new):
            return kind, new


def _beside(letter: str) -> str:
    """The keys left and right of a letter on an English keyboard."""
    row = next(row for row in _KEYBOARD if letter in row)
    place = row.index(letter)
    return row[max(0, place - 1) : place] + row[place + 1 : place + 2]


def _digits_in_another_form(text: str) -> list[tuple[int, int, str]]:
    pieces = []
    for quantity in quantities(text):
        token = text[quantity.start : quantity.end]
        before, after = text[: quantity.start][-1:], text[quantity.end :][:1]
        if quantity.kind != "number" or "." in token or re.match(r"[\w.:/#-]", before) or re.match(r"[\w:/%-]", after):
            continue
        if _next_word(text, quantity.end) in SCALES or _FRACTION_WORDS.fullmatch(_next_word(text, quantity.end)):
            continue
        value = quantity.value.numerator
        if "," in token:
            pieces.append((quantity.start, quantity.end, str(value)))
        elif value >= 1000 and not token.startswith("0") and not 1900 <= value < 2100:  # which may be a year
            pieces.append((quantity.start, quantity.end, f"{value:,}"))
        elif value < 100 and not token.startswith("0") and before not in ("$", "€", "£"):
            word = write_in_words(value)
            opening = not text[: quantity.start].strip() or text[: quantity.start].rstrip()[-1] in ".?!"
            pieces.append((quantity.start, quantity.end, word.capitalize() if opening else word))
    return pieces


def _words_as_digits(text: str) -> list[tuple[int, int, str]]:
    pieces = []
    for found in _CARDINAL.finditer(text):
        value = CARDINALS.get(found[0].lower())
        if value is None or value < 2:
            continue
        before = re.search(r"([A-Za-z]+)\s+$", text[: found.start()])
        beside = (before[1].lower() if before else "", _next_word(text, found.end()))
        if any(word in SCALES or word in CARDINALS or _FRACTION_WORDS.fullmatch(word) for word in beside):
            continue
        pieces.append((found.start(), found.end(), str(value)))
    return pieces


def _next_word(text: str, place: int) -> str:
    found = re.match(r"\s+([A-Za-z]+)", text[place:])
    return found[1].lower() if found else ""
