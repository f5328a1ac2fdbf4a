"""Numbers as models write them, read as exact fractions; several numbers where one is asked for are no answer.

Nothing is calculated: 5 + 13 is not read as 18. Decimal points are points: 1.234,5 is refused, as is 1,5.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from reasonvec.evaluation.grading.latex import plain_text
from reasonvec.evaluation.perturbations.quantities import CARDINALS, SCALES

_RUN = r"(?:\d[\d,.]*\d|\.\d+|\d)"
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_])(?P<sign>(?<![\w)\]])-)?[$€£¥₹]?(?P<inner>-)?(?P<first>{_RUN})
    (?:
        (?P<clock>(?:\s?:\s?\d+)+)
      | [eE](?P<exponent>[+-]?\d{{1,5}})(?![\d.])
      | \s?[×*x]\s?10\s?\^\s?[({{]?(?P<ten>[+-]?\d{{1,5}})[)}}]?
      | \s?\^\s?[({{]?(?P<power>[+-]?\d{{1,5}})[)}}]?
      | \s(?P<over>\d{{1,9}})\s?/\s?(?P<under>\d{{1,9}})
    )?
    (?P<below>(?:\s?/\s?-?[\d.,]*\d)+)?
    (?:\s?(?P<scale>hundred|thousand|million|billion|k)\b)?""",
    re.VERBOSE | re.ASCII,
)
_DECIMAL = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+", re.ASCII)
_MOST_DIGITS = 400
_MOST_EXPONENT = 400
_LIST = re.compile(r"[^\w]*(?:[,;~/&-]|\.\.+|\b(?:or|and|to|through)\b)[^\w]*", re.IGNORECASE)
_OR = re.compile(
    r"\W*(?P<unit>(?:[a-z]+\W+){0,3}?)or\W+(?P<doubt>(?:(?:maybe|perhaps|possibly|probably|even|else|it|that|could|may|"
    r"might|be|is)\W+){1,4})?",
    re.IGNORECASE,
)
_CALCULATION = re.compile(r"\W*(?:[+*/×÷^-]|\b(?:times|plus|minus|divided by|multiplied by)\b)\W*", re.IGNORECASE)
_EQUALS = re.compile(r"[=≈]|\\approx\b")
_SENTENCE_END = re.compile(r"[.!?;](?=\s)|[.!?;]$")
_BRACKETED = re.compile(r"\([^()]*\)")
_COMMAND = re.compile(r"\\[a-zA-Z]+|[√π∞]")
_COMMAND_BEFORE = re.compile(r"(?:\\[a-zA-Z]+\s{0,3}\{?|√)\s{0,3}$")
_COMMAND_AFTER = re.compile(r"\s?(?:\\[a-zA-Z]|[√π∞])")
_BULLET = re.compile(r"\s*[-*•]\s+")
_MINUS = re.compile(r"(?<![\d)]\s)\b(?:negative|minus)\s+(?=[$€£¥₹]?\d)", re.IGNORECASE)
_NOT = re.compile(r"(?:\bnot|n['’]t)\s+\W*$", re.IGNORECASE)
_SPACED = re.compile(r"\W*[1-9]\d{0,2}(?: \d{3})+\W*", re.ASCII)
_OUTCOME = re.compile(r"\b(?:is|equals|makes|gives)\b", re.IGNORECASE)
_CURRENCY = re.compile(r"[$€£¥₹]")
_NEGATED = re.compile(r"\W*(?:\w+\s+){0,1}not\b", re.IGNORECASE)
_STEP = re.compile(
    r"^[ \t]*(?:[*#>-]{1,4}[ \t]*)?\d{1,2}[.)][ \t*]+(?=\S)"
    r"|\b(?:step|part|case|equation|problem|question|example|option|figure)[ \t]{0,3}#?\d+\b",
    re.IGNORECASE | re.MULTILINE,
)
_SPLIT = re.compile(r"[.!?](?:\s+|$)|\n+")
_WORDS = re.compile(r"(?:(minus|negative)\s+)?([a-z]+(?:[-\s]+(?:and\s+)?[a-z]+){0,11})", re.IGNORECASE)
_PROSE_WORDS = 4


@dataclass(frozen=True)
class Reading:
    """A number that was found, or what stands where one should be."""

    text: str
    """As it is written, with mark-up removed."""
    value: Fraction | None
    """None where it is not one number: a list, a range, a time of day, a calculation, too many digits."""


def read_box(text: str) -> Reading | None:
    """The number in a box, with its unit if it likes: one number and no other, or the last of an equation's sides."""
    plain = plain_text(text)
    if sum("=" in piece for piece in re.split(r"[,;]\s|\b(?:and|or)\b", plain)) > 1:
        return _refused(plain)
    return _last_side(plain, alone=True)


def read_clause(text: str) -> Reading | None:
    """The number that the sentence after "the answer is" gives: what it begins with, else what it ends with."""
    if _NEGATED.match(text):
        return None
    plain = plain_text(text)
    end = _SENTENCE_END.search(plain)
    return _last_side(plain[: end.start()] if end else plain, alone=False)


def read_hashes(text: str) -> Reading | None:
    """The number after ####, unless the line is a heading: `#### 18 eggs`, not `#### 2. Count the eggs`."""
    plain = plain_text(text)
    found = _NUMBER.search(plain)
    if not found or plain[: found.start()].strip(" $=:*"):
        return None
    rest = plain[found.end() :].strip()
    if re.match(r"[.):]\s*\w", rest) or len(rest.split()) > _PROSE_WORDS:
        return None
    return _last_side(plain, alone=True)


def read_last(reply: str) -> Reading | None:
    """The last number of the last sentence that has one. Numbers of steps, list items and in brackets do not count."""
    plain = _STEP.sub(" ", plain_text(reply))
    for sentence in reversed(_SPLIT.split(plain)):
        text = _without_brackets(sentence)
        numbers = [found for found in _NUMBER.finditer(text) if not _NOT.search(text[: found.start()][-12:])]
        if numbers:
            return _last(text, numbers)
    return None


def exact_value(text: str) -> Fraction | None:
    """The number that is all of a text but for mark-up; None for anything else, a number with a unit among them."""
    found = _NUMBER.fullmatch(plain_text(text).strip().removesuffix("."))
    return _value(found) if found else None


def _last(sentence: str, numbers: list[re.Match[str]]) -> Reading:
    if len(numbers) > 1:
        between = sentence[numbers[-2].end() : numbers[-1].start()]
        after = sentence[numbers[-1].end() :]
        if re.fullmatch(r"\s*(?:-|\bor\b|\bto\b)\s*\$?", between) or _either(between, after):
            return _refused(sentence[numbers[-2].start() : numbers[-1].end()])
    return _number(numbers[-1])


def _last_side(plain: str, *, alone: bool) -> Reading | None:
    """Of an equation the last side that is a number: 5 + 13 = 18, but also 18 = 5 + 13."""
    refused = None
    for side in reversed(_EQUALS.split(plain)):
        reading = _side(side, alone=alone)
        if reading and reading.value is not None:
            return reading
        refused = refused or reading
    return refused


def _side(side: str, *, alone: bool) -> Reading | None:
    text = _without_brackets(_BULLET.sub("", side, count=1) if _BULLET.match(side) else side)
    text = _MINUS.sub("-", text)
    if _SPACED.fullmatch(text):
        return Reading(text.strip(" .$"), _decimal(re.sub(r"[^\d-]", "", text)))
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return _in_words(text)
    first, last = numbers[0], numbers[-1]
    before = text[: first.start()][-40:]
    if (alone and _COMMAND.search(text)) or _COMMAND_BEFORE.search(before) or _COMMAND_AFTER.match(text, first.end()):
        return _refused(text)  # \sqrt{16}, 18\pi
    if _CALCULATION.search(before[-2:]):
        return _refused(text)
    if len({_value(number) for number in numbers}) == 1:
        return _number(first)
    if alone:
        return _refused(text)
    between = text[first.end() : numbers[1].start()]
    if _CALCULATION.fullmatch(between):
        *_, outcome = _OUTCOME.split(text, maxsplit=1)
        return _refused(text) if outcome == text else _side(outcome, alone=False)
    if _LIST.fullmatch(between) or _either(between, text[numbers[1].end() :]):
        return _refused(text)
    return _number(first if len(text[: first.start()].split()) <= _PROSE_WORDS else last)


def _either(between: str, after: str) -> bool:
    """Whether two numbers are two guesses: 18 or maybe 20, 18 eggs or 20 eggs. Not so 60 minutes or 1 hour."""
    found = _OR.fullmatch(between)
    if not found:
        return False
    unit = re.findall(r"[a-z]+", found["unit"].lower())
    same = unit and re.findall(r"[a-z]+", after.lower())[: len(unit)] == unit
    return bool(found["doubt"] or same)


def _number(found: re.Match[str]) -> Reading:
    return Reading(_CURRENCY.sub("", found[0]).strip(), _value(found))


def _refused(text: str) -> Reading:
    return Reading(" ".join(text.split()), None)


def _without_brackets(text: str) -> str:
    """Without what stands in brackets, as long as a number stands outside of them."""
    bare = _BRACKETED.sub(" ", text)
    return bare if _NUMBER.search(bare) else text


def _value(found: re.Match[str]) -> Fraction | None:
    value = _decimal(found["first"])
    if value is None or found["clock"]:
        return None
    if found["power"] and value != 10:
        return None  # a calculation: 2^10
    exponent = int(found["exponent"] or found["ten"] or (int(found["power"]) - 1 if found["power"] else 0))
    if abs(exponent) > _MOST_EXPONENT:
        return None
    value *= Fraction(10) ** exponent
    if found["over"]:
        value = _mixed(value, int(found["over"]), int(found["under"]))
    if found["below"] and value is not None:
        below = _decimal(found["below"].strip().removeprefix("/").strip())
        value = value / below if below else None
    if value is None:
        return None
    if found["scale"]:
        value *= 1000 if found["scale"] == "k" else SCALES[found["scale"]]
    return -value if found["sign"] or found["inner"] else value


def _mixed(whole: Fraction, over: int, under: int) -> Fraction | None:
    return whole + Fraction(over, under) if under and whole.denominator == 1 else None


def _decimal(text: str) -> Fraction | None:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if len(digits) > _MOST_DIGITS or not _DECIMAL.fullmatch(digits):
        return None
    return sign * Fraction("0" + digits.replace(",", ""))


def _in_words(text: str) -> Reading | None:
    """Eighteen, twenty-five, two hundred and six: only where the text begins with the number."""
    found = _WORDS.match(text.strip())
    if not found:
        return None
    total, part = 0, 0
    read: list[str] = []
    for word in re.findall(r"[a-z]+", found[2].lower()):
        if word in CARDINALS:
            part += CARDINALS[word]
        elif word in SCALES and part:
            part *= SCALES[word]
            if SCALES[word] > 100:
                total, part = total + part, 0
        elif not (word == "and" and read):
            if word in ("of", "half", "third", "thirds", "quarter", "quarters"):
                return None
            break
        read.append(word)
    if not read:
        return None
    return Reading(" ".join(read), Fraction(-(total + part) if found[1] else total + part))
