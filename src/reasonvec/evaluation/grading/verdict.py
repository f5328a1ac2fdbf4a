"""One completion, one verdict: was an answer found, how, and is it right?

Each kind of problem has its reader; programs are run elsewhere. Rules and their reasons: docs/evaluation.md, Grading.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from reasonvec.evaluation.benchmarks.problem import BenchmarkProblem
from reasonvec.evaluation.grading.abstention import abstains, abstains_at_the_end
from reasonvec.evaluation.grading.algebra import same_expression
from reasonvec.evaluation.grading.expressions import find_expression, read_exactly
from reasonvec.evaluation.grading.harness import flexible_extract, strict_match
from reasonvec.evaluation.grading.marks import LONGEST, explicit_marks
from reasonvec.evaluation.grading.numerals import Reading, read_box, read_clause, read_hashes, read_last
from reasonvec.evaluation.grading.reply import visible_reply
from reasonvec.evaluation.grading.wording import (
    CLOSED,
    contains_words,
    find_closed,
    find_letter,
    find_words,
    listed_options,
    same_words,
    word_list,
)
from reasonvec.evaluation.perturbations.sentences import ABSTAIN

_LONGEST_EXTRACT = 300
_DIGIT = re.compile(r"\d")
_READERS: dict[str, Callable[[str], Reading | None]] = {
    "boxed": read_box,
    "answer is": read_clause,
    "####": read_hashes,
}


@dataclass(frozen=True)
class Grade:
    """What a completion is worth."""

    correct: bool
    extracted: str | None
    """What was taken as the answer; None where the completion holds none, which is not the same as a wrong one."""
    how: str | None
    """How it was found: boxed, answer is, ####, last number, ...; `timed out` where comparing took too long."""
    strict: bool | None = None
    """The harness's strict-match, of kind number; None for other kinds."""
    flexible: bool | None = None
    """The harness's flexible-extract, likewise."""


def grade(problem: BenchmarkProblem, completion: str) -> Grade:
    """Grade a completion of a problem of any kind but `program`, whose tests have to be run: ValueError.

    Any text is graded, in time linear in its length but for the comparison of two expressions, which has a limit.
    """
    reply = visible_reply(completion)
    if problem.kind == "number":
        verdict = _number(reply, Fraction(problem.gold))
        verdict = replace(
            verdict,
            strict=strict_match(completion, problem.gold),
            flexible=flexible_extract(completion, problem.gold),
        )
    elif problem.kind == "expression":
        verdict = _expression(reply, problem.gold)
    elif problem.kind == "choice":
        verdict = _choice(reply, problem)
    elif problem.kind == "text":
        verdict = _abstention(reply) if problem.gold == ABSTAIN else _text(reply, problem)
    else:
        raise ValueError(f"{problem.id} is of kind {problem.kind!r}: its tests have to be run, not its text compared.")
    if verdict.extracted is None or len(verdict.extracted) <= _LONGEST_EXTRACT:
        return verdict
    return replace(verdict, extracted=f"{verdict.extracted[:_LONGEST_EXTRACT]}…")


def _number(reply: str, gold: Fraction) -> Grade:
    for how, reading in _readings(reply):
        return Grade(reading.value == gold, reading.text, how)
    return Grade(False, None, None)


def _readings(reply: str) -> Iterator[tuple[str, Reading]]:
    declined = False
    for mark in explicit_marks(reply):
        before_any_number = _DIGIT.split(mark.text, maxsplit=1)[0]
        if abstains(before_any_number):
            declined = True
            continue
        reading = _READERS[mark.how](mark.text)
        if reading:
            yield mark.how, reading
        declined = declined or abstains(mark.text) is not None
    if not declined and not abstains_at_the_end(reply):
        last = read_last(reply)
        if last:
            yield "last number", last


def _abstention(reply: str) -> Grade:
    for mark in explicit_marks(reply):
        words = abstains(mark.text)
        if words:
            return Grade(True, words, mark.how)
        reading = _READERS[mark.how](mark.text)
        if reading:
            return Grade(False, reading.text, mark.how)
    words = abstains_at_the_end(reply)
    if words:
        return Grade(True, words, "last sentences")
    last = read_last(reply)
    return Grade(False, last.text, "last number") if last else Grade(False, None, None)


def _expression(reply: str, gold: str) -> Grade:
    found = find_expression(reply)
    if not found:
        return Grade(False, None, None)
    text, how = found
    exactly = read_exactly(text, gold)
    if exactly is not None:
        return Grade(exactly, text, how)
    same = len(text) <= LONGEST and same_expression(text, gold)
    return Grade(bool(same), text, how if same is not None else "timed out")


def _choice(reply: str, problem: BenchmarkProblem) -> Grade:
    if "options" in problem.details:
        options = {chr(ord("A") + place): text for place, text in enumerate(problem.details["options"])}
        found = find_letter(reply, options)
        if not found:
            return Grade(False, None, None)
        return Grade(options.get(found[0]) == problem.gold, *found)
    return _open_choice(reply, problem)


def _open_choice(reply: str, problem: BenchmarkProblem) -> Grade:
    """Right if the answer names the gold option and none of the others, whatever words are around it."""
    found = find_words(reply, problem.gold)
    if not found:
        return Grade(False, None, None)
    gold = word_list(problem.gold)
    others = [word_list(text) for text in problem.details.get("distractors", ())]
    named = any(contains_words(found[0], other) for other in others if not contains_words(problem.gold, other))
    return Grade(contains_words(found[0], gold) and not named, *found)


def _text(reply: str, problem: BenchmarkProblem) -> Grade:
    gold = problem.gold
    if len(gold) == 3 and gold[0] + gold[2] == "()" and gold[1].isupper():
        found = find_letter(reply, listed_options(problem.question))
        return Grade(found[0] == gold[1], *found) if found else Grade(False, None, None)
    for pair in CLOSED:
        if gold.lower() in pair:
            found = find_closed(reply, pair)
            return Grade(found[0] == gold.lower(), *found) if found else Grade(False, None, None)
    found = find_words(reply, gold)
    return Grade(same_words(found[0], gold), *found) if found else Grade(False, None, None)
