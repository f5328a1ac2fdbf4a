"""Numbers in English prose: where they stand, their exact values, and how to write them another way."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
          "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
CARDINALS: dict[str, int] = (
    {word: value for value, word in enumerate(_UNITS)}
    | {word: 10 * place for place, word in enumerate(_TENS, 2)}
    | {f"{ten}-{_UNITS[unit]}": 10 * place + unit for place, ten in enumerate(_TENS, 2) for unit in range(1, 10)}
)
"""Words for 0 to 99 that stand for themselves."""
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
"""Words that multiply the number before them."""
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4,
          "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10,
          "tenths": 10}  # fmt: skip
_TIMES = {"once": 1, "first": 1, "second": 2, "twice": 2, "double": 2, "doubled": 2, "doubles": 2, "both": 2,
          "couple": 2, "pair": 2, "pairs": 2, "twins": 2, "thrice": 3, "triple": 3, "tripled": 3, "triples": 3,
          "triplets": 3, "quadruple": 4, "quadrupled": 4, "decade": 10, "decades": 10, "dozen": 12, "dozens": 12,
          "score": 20, "century": 100}  # fmt: skip
NUMBER_WORDS = frozenset({*CARDINALS, *SCALES, *_PARTS, *_TIMES, "each", "per", "percent", "every", "all", "none",
                          "single", "another"})  # fmt: skip
"""Words that carry a quantity: no operator but number-format touches them."""

_DIGITS = re.compile(
    r"(?P<fraction>\d+/\d+(?![\d/]))"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<percent>\s?%|\spercent\b)?",
    re.ASCII,
)
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Quantity:
    """A number written in digits."""

    value: Fraction
    """Of 20% it is 20."""
    start: int
    end: int
    """Of the number itself, without a percent sign."""
    kind: Literal["number", "percent", "fraction"]


def digit_tokens(text: str) -> list[str]:
    """Every number in digits as it is written, in order: what a number-safe operator leaves alone."""
    return [found["fraction"] or found["number"] for found in _DIGITS.finditer(text)]


def quantities(text: str) -> list[Quantity]:
    """Every number in digits, in order. A fraction by zero counts as its numerator and its denominator."""
    found: list[Quantity] = []
    for match in _DIGITS.finditer(text):
        if match["fraction"]:
            above, _, below = match["fraction"].partition("/")
            middle = match.start() + len(above)
            if int(below):
                found.append(Quantity(Fraction(int(above), int(below)), match.start(), match.end(), "fraction"))
            else:
                found.append(Quantity(Fraction(above), match.start(), middle, "number"))
                found.append(Quantity(Fraction(0), middle + 1, match.end(), "number"))
            continue
        kind: Literal["number", "percent"] = "percent" if match["percent"] else "number"
        value = Fraction(f"0{match['number']}".replace(",", ""))
        found.append(Quantity(value, match.start("number"), match.end("number"), kind))
    return found


def word_values(text: str) -> list[frozenset[Fraction]]:
    """For each word that carries a number, all the values that it may stand for in a calculation, in order.

    `half` may be 1/2 (in one number or in two), divide by 2, leave 1/2 over or make 3/2 of something. `twenty-five`
    gives 25, 20 and 5; `two hundred` gives 2, 100 and 200.
    """
    words = [word.lower() for word in _WORD.findall(text)]
    found = []
    for word in words:
        if word in _PARTS:
            part = Fraction(1, _PARTS[word])
            found.append(frozenset({part, 1 / part, 1 - part, 1 + part, Fraction(1)}))
        elif word in _TIMES or word in CARDINALS or word in SCALES:
            found.append(frozenset({Fraction((_TIMES | CARDINALS | SCALES)[word])}))
    for first, second in pairwise(words):
        if first in CARDINALS and second in SCALES:
            found.append(frozenset({Fraction(CARDINALS[first] * SCALES[second])}))
        elif f"{first}-{second}" in CARDINALS:
            found.append(frozenset({Fraction(CARDINALS[f"{first}-{second}"])}))
        elif first in CARDINALS and second in _PARTS:
            share = Fraction(CARDINALS[first], _PARTS[second])
            found.append(frozenset({share, 1 - share, 1 + share}))
    return found


def write_in_words(value: int) -> str:
    """0 to 99 as English words."""
    return next(word for word, number in CARDINALS.items() if number == value)


def write_like(value: Fraction, text: str) -> str:
    """A number in the form of another one's text: with its decimal places, and thousands separators if it has them."""
    places = len(text.partition(".")[2])
    digits = str(value * 10**places)
    if "/" in digits:
        raise ValueError(f"{value} does not have the {places} decimal places of {text!r}.")
    digits = digits.rjust(places + 1, "0")
    whole, decimals = (digits[:-places], digits[-places:]) if places else (digits, "")
    grouped = f"{int(whole):,}" if "," in text else whole
    return f"{grouped}.{decimals}" if places else grouped


def replaced(text: str, pieces: Sequence[tuple[int, int, str]]) -> str:
    """`text` with (start, end, new text) put in; the pieces do not overlap and may be in any order."""
    for start, end, new in sorted(pieces, reverse=True):
        text = text[:start] + new + text[end:]
    return text
