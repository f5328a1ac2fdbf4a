"""Mathematical answers: where they stand, and the comparisons that need no algebra.

Two plain numbers are compared here, exactly: math-verify rounds to 6 decimal places, by which 2.9e-19 equals 0.
"""

import re
from fractions import Fraction

from reasonvec.evaluation.grading.latex import plain_text
from reasonvec.evaluation.grading.marks import LONGEST, explicit_marks
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
_LOOSE = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!| )|[\s$~]")


def find_expression(reply: str) -> tuple[str, str] | None:
    """(the answer in LaTeX, how it was found): a mark, else the last formula, else the last number."""
    for mark in explicit_marks(reply):
        if mark.how == "boxed":
            return mark.text.strip(), mark.how
        text = _formulas(_sentence(mark.text))
        if text:
            return text, mark.how
    formulas = _all_formulas(reply)
    if formulas:
        return formulas[-1], "last formula"
    last = read_last(reply)
    return (last.text, "last number") if last else None


def read_exactly(text: str, gold: str) -> bool | None:
    """Whether two answers are the same, as far as their spelling or their being plain numbers tells; else None."""
    if _spelling(text) == _spelling(gold):
        return True
    value, wanted = _value(text), _value(gold)
    return None if value is None or wanted is None else value == wanted


def _value(text: str) -> Fraction | None:
    exact = exact_value(text)
    return exact_value(_UNIT.sub("", text, count=1)) if exact is None else exact


def _spelling(text: str) -> str:
    text = _LOOSE.sub("", text.strip().removesuffix("."))
    return re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", text))


def _sentence(text: str) -> str:
    """Up to the full stop; one within a formula does not end it."""
    for end in _SENTENCE_END.finditer(text):
        if text[: end.start()].count("$") % 2 == 0:
            return text[: end.start()]
    return text


def _formulas(clause: str) -> str:
    """The formulas of a clause with commas between, or all of it where there are none but a number or formula bare."""
    formulas = _all_formulas(clause)
    if formulas:
        return ", ".join(formulas)
    bare = plain_text(clause) if "\\" not in clause else clause
    return bare.strip()[:LONGEST] if re.search(r"\d|\\[a-zA-Z]|[=^]|^\W*[a-zA-Z]\W*$", bare) else ""


def _all_formulas(text: str) -> list[str]:
    return [next(group for group in found.groups() if group).strip() for found in _MATHS.finditer(text)]
