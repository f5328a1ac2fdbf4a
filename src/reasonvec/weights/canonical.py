"""JSON as one text for one value, whatever the order of names: with sorted keys, no spaces and ASCII letters alone.
It is made in short pieces, so that the text of a large value need not be held to be hashed.
"""

import json
from collections.abc import Iterator
from typing import Any

_MOST = 64
"""Elements of what is written in one piece."""
_LETTERS = 256
"""Letters of a text that is written in one piece."""


def canonical_pieces(value: Any, *, allow_nan: bool = False) -> Iterator[str]:
    """`json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)`, piece by piece.

    Raises ValueError for NaN and infinity unless they are allowed, TypeError for what is no JSON.
    """
    if _is_short(value):
        yield _written(value, allow_nan)
    elif isinstance(value, str):
        yield '"'
        for start in range(0, len(value), _LETTERS):
            yield _written(value[start : start + _LETTERS], allow_nan)[1:-1]
        yield '"'
    elif isinstance(value, dict) and all(type(name) is str for name in value):
        yield "{"
        for number, name in enumerate(sorted(value)):
            yield "," if number else ""
            yield from canonical_pieces(name)
            yield ":"
            yield from canonical_pieces(value[name], allow_nan=allow_nan)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "["
        for number, element in enumerate(value):
            yield "," if number else ""
            yield from canonical_pieces(element, allow_nan=allow_nan)
        yield "]"
    else:
        yield _written(value, allow_nan)


def _written(value: Any, allow_nan: bool) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)


def _is_short(value: Any) -> bool:
    """Whether the text of `value` is short: a single thing, or few of those, or few of few."""
    if isinstance(value, dict):
        return len(value) <= _MOST and all(_is_few(inner) for inner in value.values()) and _is_few([*value])
    return _is_few(value)


def _is_few(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= _MOST and all(map(_is_single, value))
    return _is_single(value)


def _is_single(value: Any) -> bool:
    return not isinstance(value, (dict, list, tuple)) and (not isinstance(value, str) or len(value) <= _LETTERS)
