"""Graders of bare text against a gold answer: the reward that trains and the measure of the embedded toy world.

Benchmarks' problems, whose kinds and details matter, are graded by `grade`.
"""

import re
from collections.abc import Callable

Grader = Callable[[str, str], bool]
"""(completion, gold) -> right or wrong. Whether the completion was cut off is judged by `is_correct`."""

_MARKER = re.compile(r"#|\bso\b", re.IGNORECASE)


def extract_marked_answer(completion: str) -> str | None:
    """Return what follows the last `#` or word `so`, without surrounding spaces and a closing full stop.

    None where there is no marker or nothing after it, so that a missing answer cannot equal any gold one.
    """
    markers = list(_MARKER.finditer(completion))
    if not markers:
        return None
    answer = completion[markers[-1].end() :].strip().removesuffix(".").rstrip()
    return " ".join(answer.split()) or None


def grade_marked_answer(completion: str, gold: str) -> bool:
    """Whether the marked answer is exactly `gold`; both are compared as text with single spaces."""
    return extract_marked_answer(completion) == " ".join(gold.split())


def is_correct(completion: str, gold: str, *, finished: bool, grader: Grader = grade_marked_answer) -> bool:
    """Whether a completion counts: right by `grader`, and ended by the model itself rather than cut off."""
    return finished and grader(completion, gold)
