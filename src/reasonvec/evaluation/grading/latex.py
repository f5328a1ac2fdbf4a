"""LaTeX and Markdown around an answer, taken off: what is left is read as plain text.

Only mark-up that changes nothing about the value: fractions of numbers become 3/4, \\text{ eggs} becomes eggs.
"""

import re

_WRAPPERS = re.compile(
    r"\\(?:text|textbf|textit|texttt|mathrm|mathbf|mathit|mathsf|mbox|operatorname|boldsymbol|emph|underline|boxed)"
    r"\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))", re.ASCII)
_GROUP_SPACE = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|,\\!|~)(?=\d{3}(?!\d))", re.ASCII)
_SPACES = re.compile(r"\\(?:[,;:! ]|quad\b|qquad\b)|~")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\(?:left|right|displaystyle|limits)\b|\$")
_MINUS_MONEY = re.compile(r"(?<=-)\\?\$\s?(?=\d)")
_MONEY = re.compile(r"\\\$|\\?\$(?=\s?-?\d)")
_DEGREES = re.compile(r"\^\s*\{?\s*\\?circ\s*\}?|\\degree\b|°")
_POWER = re.compile(r"(?<=\d)\*\*(?=\d)", re.ASCII)
_BOLD = re.compile(r"\*\*+|__+|`+")
_ITALIC = re.compile(r"(?<![\w)\s])\*(?=\S)|(?<!\S)\*(?=\S)|(?<=\S)\*(?=[\s.,;:!?)]|$)")


def plain_text(text: str) -> str:
    """Answer text without mark-up. A command that carries meaning, such as \\sqrt, stays and is for the reader."""
    if any(letter in text for letter in "\\${~"):
        text = _GROUP_SPACE.sub(",", text)
        text = _SPACES.sub(" ", _MONEY.sub(" ", _MINUS_MONEY.sub("", text)))
        text = _DEGREES.sub(" degrees", text)
        for _ in range(3):  # \textbf{\text{18}}
            text, count = _WRAPPERS.subn(r" \1 ", text)
            if not count:
                break
        text = _FRACTION.sub(_written_fraction, text)
        text = _DELIMITERS.sub(" ", text).replace(r"\%", "%").replace(r"\times", "×").replace(r"\cdot", "×")
    text = _POWER.sub("^", text)
    return _ITALIC.sub("", _BOLD.sub("", text)).strip()


def _written_fraction(found: re.Match[str]) -> str:
    above, below = found[1] or found[2], found[3] or found[4]
    apart = " " if found.string[: found.start()][-1:].isdigit() else ""  # 1\\frac{1}{2}
    return f"{apart}{above}/{below} "
