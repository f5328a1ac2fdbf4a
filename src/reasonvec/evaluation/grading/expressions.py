"""Mathematical answers: where they stand, and the comparisons that need no algebra.

Two plain numbers are compared here, exactly: math-verify rounds to 6 decimal places, by which 2.9e-19 equals 0.
"""

import re
from fractions import Fraction

from reasonvec.evaluation.grading.latex import plain_text
from reasonvec.evaluation.grading.marks import LISTED, LONGEST, explicit_marks
from reasonvec.evaluation.grading.numerals import exact_value, read_last

_MATHS = re.compile(
    r"\$\$([^$]{1,1000})\$\$|(?<!\\)\$([^$\n]{1,1000})\$|\\\[((?:[^\\]|\\(?!\])){1,1000})\\\]"
    r"|\\\(((?:[^\\]|\\(?!\))){1,1000})\\\)"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_UNIT = re.compile(
    r"(?:\\[,;:! ]|[\s~])*(?:\\(?:text|mathrm|textrm|rm|operatorname)\s*\{[^{}]*\}(?:\s*/\s*|\s*\\cdot\s*)?)+"
    r"(?:\s*\^\s*\{?-?\d\}?)?\s*\.?$"
    r"|\s+[a-zA-Z]{2,12}\.?$"
)
_BASE = re.compile(r"\d\s*_\s*\{?\s*\d")
_LOOSE = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!| )|[\s$~]")


def find_expression(reply: str) -> tuple[str, str] | None:
    """(the answer in LaTeX, how it was found): a mark, else the last formula, else the last number."""
    for mark in explicit_marks(reply):
        if mark.how == "boxed":
            return mark.text.strip(), mark.how
        text = _formulas(_sentence(mark.text))
        if text:
            return text, mark.how
    formulas = _found_formulas(reply)
    last = read_last(reply[formulas[-1].end() :] if formulas else reply)
    if last:
        return last.text, "last number"
    return (_last_formulas(reply, formulas), "last formula") if formulas else None


def read_exactly(text: str, gold: str) -> bool | None:
    """Whether two answers are the same, as far as their spelling or their being plain numbers tells; else None."""
    if _spelling(text) == _spelling(gold):
        return True
    if _BASE.search(text) or _BASE.search(gold):
        return False  # 52_8 is a spelling of 42; math-verify would read 52
    value, wanted = _value(text), _value(gold)
    return None if value is None or wanted is None else value == wanted


def _value(text: str) -> Fraction | None:
    exact = exact_value(text)
    return exact_value(_UNIT.sub("", text, count=1)) if exact is None else exact


def _spelling(text: str) -> str:
    text = _LOOSE.sub("", text.strip().removesuffix("."))
    text = re.sub(r"_\{(\d+)\}", r"_\1", text)
    return re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", text))


def _sentence(text: str) -> str:
    """Up to the full stop; one within a formula does not end it."""
    for end in _SENTENCE_END.finditer(text):
        if text[: end.start()].count("$") % 2 == 0:
            return text[: end.start()]
    return text


def _formulas(clause: str) -> str:
    """The formulas of a clause with commas between, or all of it where there are none but a number or formula bare."""
    formulas = _found_formulas(clause)
    if formulas:
        return ", ".join(map(_inside, formulas))
    bare = plain_text(clause) if "\\" not in clause else clause
    return bare.strip()[:LONGEST] if re.search(r"\d|\\[a-zA-Z]|[=^]|^\W*[a-zA-Z]\W*$", bare) else ""


def _last_formulas(reply: str, formulas: list[re.Match[str]]) -> str:
    """The last formula, and those before it with no more than a comma, `and` or `or` between: one answer."""
    first = len(formulas) - 1
    while first and LISTED.fullmatch(reply, formulas[first - 1].end(), formulas[first].start()):
        first -= 1
    return ", ".join(map(_inside, formulas[first:]))


def _found_formulas(text: str) -> list[re.Match[str]]:
    return [found for found in _MATHS.finditer(text) if _inside(found)]


def _inside(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group is not None).strip()
