"""A benchmark's problem as it is read, before anybody words a prompt of it; and gold answers as exact numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

Kind = Literal["number", "expression", "text", "choice", "program"]
"""How gold answers are to be compared: as rational numbers; as LaTeX by a computer algebra system; as text; as one of
several options; by running the problem's tests."""

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+|/\d+)?", re.ASCII)
_GROUPS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True)
class BenchmarkProblem:
    """One question of a benchmark with its gold answer."""

    id: str
    """Unique among all benchmarks and the same in every run: task/place in the pinned file, or the file's own id."""
    task: str
    """The task it belongs to, such as `gsm8k` or `bbh/navigate`: one stratum, where results are stratified."""
    question: str
    """What is asked, in the file's words."""
    gold: str
    """The answer. Of kind `number` it is text that `fractions.Fraction` reads, such as 18, -3.5 or 3/4."""
    kind: Kind
    """How it is compared."""
    solution: str | None = None
    """The worked solution, or a program that is right, where the benchmark has one."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else is needed to ask or to grade: a choice's options, a program's tests. docs/evaluation.md lists them."""


def exact_number(text: str) -> str | None:
    """The number that is all of `text`, as the shortest text that `fractions.Fraction` reads; None for anything else.

    Thousands separators and a leading dollar sign are dropped: `$1,234.50` is `1234.5`. Nothing is rounded.
    """
    found = _NUMBER.fullmatch(_GROUPS.sub("", text.strip().removeprefix("$")))
    if not found:
        return None
    try:
        return format_number(Fraction(found[0]))
    except ZeroDivisionError:
        return None


def format_number(value: Fraction) -> str:
    """A rational number as text: decimal where that is exact, else numerator/denominator."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1 or not places:
        return str(value)  # 2/3 or 17
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
