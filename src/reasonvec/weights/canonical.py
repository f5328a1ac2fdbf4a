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
        yield _written(value, allow_nan)  # most are
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
    return _ENCODERS[allow_nan].encode(value)


_ENCODERS = {
    allow_nan: json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)
    for allow_nan in (True, False)
}


def _is_short(value: Any) -> bool:
    """Whether the text of `value` is short: a single thing, or few of those, or few of few."""
    if type(value) is not dict:
        return _is_few(value)
    return len(value) <= _MOST and _is_few([*value]) and all(map(_is_few, value.values()))


def _is_few(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) <= _LETTERS
    if kind is not list:
        return kind in _SINGLE
    if len(value) > _MOST or not (kinds := set(map(type, value))) <= _SINGLE_OR_TEXT:
        return False
    return str not in kinds or all(type(inner) is not str or len(inner) <= _LETTERS for inner in value)


_SINGLE = frozenset({int, float, bool, type(None)})
_SINGLE_OR_TEXT = _SINGLE | {str}
