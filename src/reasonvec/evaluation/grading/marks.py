"""Where an answer stands in a reply: in a box, after "the answer is", after ####.

Knows nothing of what an answer has to look like. Every search is linear in the length of the reply.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 1000
"""Characters of an answer that are looked at: no gold answer of a benchmark is half as long."""

_BOX = re.compile(r"\\{1,4}(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", re.DOTALL)
LISTED = re.compile(r"[\s$\\()\[\]]*(?:[,;]\s*(?:and\b|or\b)?|and\b|or\b)[\s$\\()\[\]]*")
_SAID = re.compile(
    r"\banswers?\b(?:[*_\"' \t]{0,6}(?:\([^()\n]{1,40}\)[*_ \t]{0,6})?(?:[:=]|(?=\n))"
    r"|[^\n.:]{0,60}?\b(?:is|are|be|equals)\b(?:[ \t]*[:=])?)",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n#]*)")
_FILLER = re.compile(r"[\s*_$`:]*(?:\\[\[(])?[\s*_$`:]*")
_LINES = 5
_MOST = 50  # a text that says "the answer is" ten thousand times is graded too


@dataclass(frozen=True)
class Mark:
    """An answer as it is marked, with words and mark-up around it."""

    how: str
    """boxed, answer is, ####."""
    text: str


def explicit_marks(reply: str) -> Iterator[Mark]:
    """Marked answers, the surest first: the last box, then "the answer is" and #### from the last to the first.

    A line with #### that ends the reply comes before "the answer is", which solutions say of steps too.

    Boxes that follow one another with a comma, `and` or `or` between are one answer, joined by commas.
    """
    box = last_box(reply)
    if box is not None:
        yield Mark("boxed", box)
    hashes = [found for found in _HASHES.finditer(reply) if found[1].strip()]
    if hashes and not reply[hashes[-1].end() :].strip():
        yield _hashed(hashes.pop())
    for found in reversed(list(_SAID.finditer(reply))[-_MOST:]):
        if clause := _clause(reply, found.end()):
            yield Mark("answer is", clause)
    yield from map(_hashed, reversed(hashes[-_MOST:]))


def last_box(reply: str) -> str | None:
    r"""The inside of the last complete \boxed{...} or \fbox{...} that holds something; escaped braces do not count."""
    boxes = sorted(box for box in _boxes(reply) if reply[box[1] : box[2]].strip())
    if not boxes:
        return None
    start, inside, end = boxes[-1]
    texts = [reply[inside:end]]
    for before in reversed(boxes[:-1]):
        if before[2] >= start or start - before[2] > 20 or not LISTED.fullmatch(reply, before[2] + 1, start):
            break
        start = before[0]
        texts.append(reply[before[1] : before[2]])
    return ", ".join(dict.fromkeys(text.strip() for text in reversed(texts)))[:LONGEST]


def _boxes(reply: str) -> list[tuple[int, int, int]]:
    """(start, start of the inside, end of the inside) of each box that is closed."""
    open_braces: list[tuple[int, int] | None] = []
    boxes = []
    for found in _BOX.finditer(reply):
        if found[0] == "}":
            opened = open_braces.pop() if open_braces else None
            if opened:
                boxes.append((*opened, found.start()))
        elif found[0].endswith("{") and found[0] != r"\{":
            open_braces.append((found.start(), found.end()) if len(found[0]) > 1 else None)
    return boxes


def _hashed(found: re.Match[str]) -> Mark:
    return Mark("####", found[1].strip()[:LONGEST])


def _clause(reply: str, start: int) -> str:
    """The rest of the line, or the first of the next lines that is more than mark-up."""
    for line in reply[start : start + LONGEST].split("\n")[:_LINES]:
        if not _FILLER.fullmatch(line):
            return line.strip()
    return ""
