"""The outcome of one arm on one problem, as a line of outcomes.jsonl. Knows how to be written and read, not judged."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What one arm answered to one problem, once, and its grade."""

    id: str
    """The problem's; with `sample` it pairs the outcomes of two arms."""
    task: str
    """The task the problem belongs to: one stratum."""
    sample: int
    """0 for the first completion of the problem, up to samples - 1."""
    prompt_sha256: str
    """Of the text that the model was given, chat template included."""
    correct: bool
    completion: str | None = None
    """Generated text, special tokens left out; None where options were compared by log-likelihood."""
    tokens: int | None = None
    """Generated tokens, the end token included."""
    finished: bool | None = None
    """Whether the model ended by itself; False where it was cut off at the limit of new tokens."""
    extracted: str | None = None
    """The answer that was found in the completion; None where it holds none."""
    how: str | None = None
    """How it was found, or why a program failed."""
    strict: bool | None = None
    """The harness's strict-match, where it has one for the benchmark."""
    flexible: bool | None = None
    """The harness's flexible-extract, where it has one for the benchmark."""
    logliks: tuple[float, ...] | None = None
    """Log-likelihood of each option in nats, in the order of the problem's `options`, the correct one included."""
    normalised: bool | None = None
    """Whether the right option is also the likeliest per byte of its text, the harness's acc_norm."""

    @property
    def answered(self) -> bool:
        """Whether there was an answer to be judged at all."""
        return self.extracted is not None or self.logliks is not None

    def to_line(self) -> str:
        """One line of JSON without its end; fields that do not apply are left out."""
        row = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(row, ensure_ascii=True, allow_nan=False)


_NAMES = frozenset(field.name for field in fields(Outcome))
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "id": str, "task": str, "sample": int, "prompt_sha256": str, "correct": bool, "completion": str, "tokens": int,
    "finished": bool, "extracted": str, "how": str, "strict": bool, "flexible": bool, "logliks": list,
    "normalised": bool,
}  # fmt: skip


def read_line(line: str) -> Outcome:
    """The outcome that a line holds. Raises ValueError that says what is wrong with it."""
    row: Any = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    if unknown := sorted(set(row) - _NAMES):
        raise ValueError(f"{', '.join(unknown)} is no field of an outcome")
    for name, value in row.items():
        if not isinstance(value, _TYPES[name]) or (_TYPES[name] is int and isinstance(value, bool)):
            raise ValueError(f"`{name}` is {value!r}")
    logliks = row.pop("logliks", None)
    if logliks is not None and not all(isinstance(value, float) for value in logliks):
        raise ValueError("`logliks` are not all numbers with a point")
    try:
        return Outcome(**row, logliks=None if logliks is None else tuple(logliks))
    except TypeError:
        missing = ({"id", "task", "sample", "prompt_sha256", "correct"}) - set(row)
        raise ValueError(f"{', '.join(sorted(missing))} is missing") from None
