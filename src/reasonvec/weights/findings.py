"""One thing that `check` found: how bad it is, what was seen, what to do about it."""

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
    text = repr(value) if isinstance(value, (str, int, float, list, dict, bool)) else str(value)
    text = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def enumerated(items: list[str], limit: int = 6) -> str:
    """The first few of `items` in one line, the others counted."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + rest
