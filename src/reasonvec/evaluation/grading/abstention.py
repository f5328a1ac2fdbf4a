"""Saying that a question cannot be answered: right where a premise was taken away, no answer everywhere else."""

import re

_ABSTAINS = re.compile(
    r"(?:can(?:not|['’]t|\s+not)|could\s+not|couldn['’]t|unable\s+to|impossible\s+to|not\s+possible\s+to|no\s+way\s+to"
    r"|(?:do|does)(?:n['’]t|\s+not)\s+have\s+enough\s+information\s+to)\s+(?:\w+\s+){0,3}?"
    r"(?:determin|answer|comput|calculat|solv|know|tell|find|say|establish)"
    r"|(?:not|n['’]t|in)\s*(?:\w+\s+){0,4}?(?:enough|sufficient|adequate)\s+(?:\w+\s+){0,2}?"
    r"(?:information|data|details|context)"
    r"|\binsufficient\s+(?:information|data|details)|\bnot\s+enough\s+(?:info\b|to\b)"
    r"|\b(?:missing|lacks?|lacking|incomplete)\s+(?:\w+\s+){0,3}?(?:information|data|details?|premise|value)"
    r"|\b(?:undetermined|indeterminate|undeterminable|unanswerable|unsolvable|unknown)\b"
    r"|\b(?:is|are|was|were)(?:\s+not|n['’]t)\s+(?:given|provided|specified|stated|determinable|known|mentioned)"
    r"|\bn/a\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_LAST_SENTENCES = 3


def abstains(text: str) -> str | None:
    """The words with which `text` says that there is no answer to give; None where it does not."""
    found = _ABSTAINS.search(text)
    return found[0] if found else None


def abstains_at_the_end(reply: str) -> str | None:
    """The same for the last three sentences of a reply, where a conclusion stands."""
    sentences = [sentence for sentence in _SENTENCE.split(reply) if sentence.strip()]
    return abstains(" ".join(sentences[-_LAST_SENTENCES:])[-3000:])
