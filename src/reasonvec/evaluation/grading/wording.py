"""Answers that are words: a letter of several options, yes or no, a name, a sorted list, closing brackets."""

import re
from collections.abc import Mapping, Sequence

from reasonvec.evaluation.grading.latex import plain_text
from reasonvec.evaluation.grading.marks import LISTED, explicit_marks
from reasonvec.evaluation.grading.reply import plain_characters

Found = tuple[str, str]
"""(what was taken as the answer, how it was found)."""

CLOSED = (("yes", "no"), ("true", "false"), ("valid", "invalid"))
"""Answers of which there are two; the second is what `not` makes of the first."""

_LETTERS = re.compile(r"\(\s*([A-Za-z])\s*\)|(?<![\w'’])([A-Z])(?=\s*(?:[.,:;)\]*!]|$|\b(?:or|and|because|since)\b))")
_ANY_LETTER = re.compile(r"\(\s*([A-Z])\s*\)")
_LEADING = re.compile(r"[*\s]*(?:\(([A-Z])\)\**(?:[.:]\s|\n)|([A-Z])\**[.:)]\s)")
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_OPTION = re.compile(r"^\s*\(([A-Z])\)\s*(.+?)\s*$", re.MULTILINE)
_FIRST_WORD = re.compile(r"[\s*\"']{0,20}([A-Za-z]{1,20})\**\s{0,9}(?:[,.;:!\n-]|$)")
_BRACKETS = re.compile(r"[][(){}<>]")
_TOKEN = re.compile(r"\w+(?:[.:/'’-]\w+)*|[][(){}<>]|-\(?\d")
_ARTICLES = frozenset({"the", "a", "an"})
_SENTENCE = re.compile(r"[.!?;]\s+|\n|,?\s+(?:because|since|who|which)\b|\s\(")
_NEGATION = re.compile(r"(?:\bnot|n['’]t|\bnever|\bneither)\s+(?:\w+\s+){0,2}\W?$", re.IGNORECASE)
_LONGEST_LINE = 30


def find_letter(reply: str, options: Mapping[str, str]) -> Found | None:
    """The letter of the option that is chosen, or whose text is given; None where none is, `A, B` where several are.

    A letter in brackets counts anywhere, a bare capital only where it ends the clause, so that neither `a dog` nor
    `I think` is a choice.
    """
    for mark in explicit_marks(reply):
        clause = plain_text(mark.text)
        letters = _letters(clause)
        if letters:
            return letters, mark.how
        chosen = _by_text(clause, options)
        if chosen:
            return chosen, mark.how
    leading = _LEADING.match(reply)
    if leading:
        return leading[1] or leading[2], "first letter"
    if len(reply.split()) <= _LONGEST_LINE and not _SENTENCE_END.search(reply):
        plain = plain_text(reply)
        letters = _letters(plain) or _by_text(plain, options)
        if letters:
            return letters, "whole reply"
    anywhere = [found for found in _ANY_LETTER.finditer(reply) if not _negated(reply, found.start())]
    if len(anywhere) > 1 and LISTED.fullmatch(reply, anywhere[-2].end(), anywhere[-1].start()):
        return ", ".join(dict.fromkeys(found[1] for found in anywhere[-2:])), "last letter"
    return (anywhere[-1][1], "last letter") if anywhere else None


def listed_options(question: str) -> dict[str, str]:
    """The options of a question as BIG-Bench Hard lists them: `(A) text` on a line of its own."""
    return {found[1]: found[2] for found in _OPTION.finditer(question)}


def find_closed(reply: str, pair: tuple[str, str]) -> Found | None:
    """Which of two opposite words the reply gives; None where it gives neither, `yes or no` where it gives both."""
    for mark in explicit_marks(reply):
        word = _closed(plain_text(mark.text), pair)
        if word:
            return word, mark.how
    first = _FIRST_WORD.match(reply)
    if first and first[1].lower() in pair:
        return first[1].lower(), "first word"
    line = plain_text(next((line for line in reversed(reply.splitlines()) if line.strip()), ""))
    word = _closed(_SENTENCE_END.split(line)[-1], pair) or _closed(line, pair)
    return (word, "last line") if word else None


def find_words(reply: str, gold: str) -> Found | None:
    """What is given as the answer where it may be any words: a marked clause, else the last line if it is short.

    The clause is cut at the end of its first sentence if that makes it the gold answer, so "Ann. She has more." is
    Ann. A list that begins with the gold answer is not cut.
    """
    for mark in explicit_marks(reply):
        clause = mark.text if _BRACKETS.fullmatch(gold[:1]) else plain_text(mark.text)
        return _cut_to(clause, gold), mark.how
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    if lines and len(lines[-1].split()) <= _LONGEST_LINE:
        return _cut_to(plain_text(lines[-1]), gold), "last line"
    return None


def same_words(text: str, gold: str) -> bool:
    """Whether two texts have the same words, whatever their case, articles, commas and spaces; brackets are words."""
    return word_list(text) == word_list(gold) != []


def word_list(text: str) -> list[str]:
    """Words in lower case; a.m. is am, 5 : 6 and 5 to 6 are 5:6."""
    text = plain_characters(text).casefold().replace("’", "'")
    text = re.sub(r"\b([ap])\.\s?m\.?", r"\1m", text)
    text = re.sub(r"(?<=\d)\s?(am|pm)\b", r" \1", text)
    text = re.sub(r"(?<=\d)\s?(?::|\bto\b)\s?(?=\d)", ":", text)
    if not re.search(r"\w", text):
        return [bracket[0] for bracket in _BRACKETS.finditer(text)]
    return [word for word in _TOKEN.findall(text) if word not in _ARTICLES and not _BRACKETS.fullmatch(word)]


def contains_words(text: str, words: Sequence[str]) -> bool:
    """Whether a run of words, without the plural's s, stands in a text and no `not` before it."""
    within, wanted = [_stem(word) for word in word_list(text)], [_stem(word) for word in words]
    size = len(wanted)
    for start in range(len(within) - size + 1 if size else 0):
        if within[start : start + size] == wanted:
            return not any(word in ("not", "never", "isn't", "neither") for word in within[max(0, start - 3) : start])
    return False


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _letters(clause: str) -> str | None:
    end = _SENTENCE_END.search(clause)
    letters: list[str] = [
        (found[1] or found[2]).upper()
        for found in _LETTERS.finditer(clause[: end.start()] if end else clause)
        if not _negated(clause, found.start())
    ]
    alone = re.fullmatch(r"\W*([a-zA-Z])\W*", clause)
    if not letters and alone:
        return str(alone[1]).upper()
    return ", ".join(dict.fromkeys(letters)) or None


def _negated(text: str, place: int) -> bool:
    return _NEGATION.search(text, max(0, place - 40), place) is not None


def _by_text(clause: str, options: Mapping[str, str]) -> str | None:
    chosen: list[str] = [letter for letter, text in options.items() if same_words(_cut_to(clause, text), text)]
    return chosen[0] if len(chosen) == 1 else None


def _closed(clause: str, pair: tuple[str, str]) -> str | None:
    words: list[str] = re.findall(r"[a-z']+", clause.lower().replace("’", "'"))
    if words and words[0] in pair and not (len(words) > 2 and words[1] == "or"):
        return words[0]
    given: list[str] = []
    for place, word in enumerate(words):
        if word in pair:
            # `not necessarily valid`, but only `not invalid`: what is not necessarily invalid is not said to be valid
            before = words[max(0, place - (2 if word == pair[0] else 1)) : place]
            negated = pair[0] != "yes" and any(each == "not" or each.endswith("n't") for each in before)
            given.append(pair[pair.index(word) ^ negated])
    return " or ".join(dict.fromkeys(given)) or None


def _cut_to(clause: str, gold: str) -> str:
    for end in (found.start() for found in _SENTENCE.finditer(clause)):
        if same_words(clause[:end], gold):
            return clause[:end].strip()
    return clause.strip()
