"""What a completion says to its reader: one plain alphabet, without its thoughts and without what it runs on to.

Where in it an answer stands is told by `marks`; what the answer is worth, by the readers of each kind.
"""

import re
import unicodedata

_THOUGHT = re.compile(r"<(?P<close>/?)think(?:ing)?>", re.IGNORECASE)
_TURN = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end|eom_id)\|>|</s>|<end_of_turn>|<eos>")
_HEADING = re.compile(
    r"^[ \t#*]*(?:(?P<prompt>Question|Human|User|Instruction|Q)|Problem|Exercise)(?:[ \t]*\d{1,4})?[ \t*]{0,4}:",
    re.MULTILINE,
)
_ANSWERED = re.compile(
    r"\\(?:boxed|fbox)\s{0,9}\{|(?<!#)####(?!#)|\banswers?\b[^\n.:=]{0,60}?(?:\b(?:is|are)\b|[:=])", re.I
)
_BARE_WORDS = 3
_BARE_CHARACTERS = 100
_DIGIT = re.compile(r"\d")
_THIN = re.compile(r"(?<=\d)[\u00a0\u2007-\u200a\u202f](?=\d{3}(?!\d))")
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_NO_ASCII = re.compile(r"[^\x00-\x7f]")


def visible_reply(completion: str) -> str:
    """The part of a completion that is meant to be read, in the alphabet of `plain_characters`; empty if there is none.

    What stands between <think> and </think> is left out, an open thought to its end: an answer that was only thought
    of was not given. A chat's end-of-turn token ends the reply. So does a heading such as `Question:` once an answer
    stands before it: base models run on to questions of their own.
    """
    text = _without_thoughts(plain_characters(completion))
    begin = len(text) - len(text.lstrip())
    for found in _TURN.finditer(text):
        if found.start() > begin:
            text = text[: found.start()]
            break
        begin = found.end()
    return _without_run_on(text[begin:]).strip()


def plain_characters(text: str) -> str:
    """Unicode's many spellings of digits, dashes, spaces and letters as one (NFKC); 10³ as 10^3 and 1½ as 1 1/2.

    Invisible characters (direction marks, zero-width spaces) go; half of a surrogate pair becomes U+FFFD, since it
    could not be written to a file.
    """
    if text.isascii():
        return text
    text = _THIN.sub(",", text)
    text = _SUPERSCRIPT.sub(lambda found: f"^{found[0].translate(_SUPER)}", text)
    text = _VULGAR.sub(lambda found: f" {unicodedata.normalize('NFKC', found[0])}", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").translate(_DASHES)
    return _NO_ASCII.sub(_plain_character, text)


def _plain_character(found: re.Match[str]) -> str:
    letter = found[0]
    category = unicodedata.category(letter)
    if category == "Nd":
        return str(unicodedata.decimal(letter))
    if category == "Cs":
        return "\ufffd"
    return "" if category == "Cf" else letter


def _without_thoughts(text: str) -> str:
    start, end = 0, None
    for tag in _THOUGHT.finditer(text):
        if tag["close"]:  # the opening tag may have been part of the prompt
            start, end = tag.end(), None
        elif end is None:
            end = tag.start()
    return text[start:end]


def _without_run_on(text: str) -> str:
    answered, digit = _ANSWERED.search(text), _DIGIT.search(text)
    for heading in _HEADING.finditer(text):
        end = heading.start()
        if (
            (answered and answered.end() <= end)
            or (heading["prompt"] and digit and digit.end() <= end)
            or (end < _BARE_CHARACTERS and _is_bare(text[:end]))
        ):
            return text[:end]
    return text


def _is_bare(before: str) -> bool:
    """Whether an answer without any words around it is all that there is."""
    words = before.split()
    return 0 < len(words) <= _BARE_WORDS and not words[-1].endswith(":")
