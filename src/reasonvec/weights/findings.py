"""One thing that `check` found: how bad it is, what was seen, what to do about it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["blocking", "warning", "note"]

_LONGEST = 80


@dataclass(frozen=True)
class Finding:
    """Something about a vector and a target that a user should know before the two are added."""

    level: Level
    """`blocking`: `apply` refuses. `warning`: the result may not be what was meant. `note`: good to know."""
    title: str
    evidence: str
    """What was compared, and both values."""
    advice: str

    def to_json(self) -> dict[str, str]:
        """As `check --json` prints it."""
        return {"level": self.level, "title": self.title, "evidence": self.evidence, "advice": self.advice}


def shown(value: Any) -> str:
    """A value from an untrusted file as text of bounded length that cannot steer a terminal."""
    text = beginning(value) if isinstance(value, (str, int, float, list, dict, bool)) else str(value)
    text = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def beginning(value: Any) -> str:
    """As much of `repr(value)` as is shown, and one letter more; the whole may be many times as large as the value."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _LONGEST:
            break
    return text


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield repr(value[: _LONGEST + 1])
    elif isinstance(value, dict):
        for number, (name, inner) in enumerate(value.items()):
            yield ", " if number else "{"
            yield from _pieces(name)
            yield ": "
            yield from _pieces(inner)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield ", " if number else "["
            yield from _pieces(inner)
        yield "]" if value else "[]"
    else:
        yield repr(value)


def enumerated(items: Sequence[str], limit: int = 6, told: Callable[[str], str] = str) -> str:
    """The first few of `items`, as `told` tells them, in one line, the others counted."""
    return first_of([told(item) for item in items[:limit]], len(items))


def first_of(first: list[str], count: int) -> str:
    """The first of so many items in one line, the others counted."""
    rest = f" and {count - len(first)} more" if count > len(first) else ""
    return "; ".join(first) + rest
