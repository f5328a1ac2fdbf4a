"""The reader of JSON with a window of a few bytes, held against the standard library's."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError
from reasonvec.weights import strict_json
from reasonvec.weights.strict_json import Budget, JsonReader

WINDOWS = (1, 2, 3, 5, 8, 13, 21, 64)


def run(data: bytes, directory: Path) -> None:
    """Read all but the first byte, which says how large the window is."""
    window, text = WINDOWS[data[0] % len(WINDOWS)] if data else 1, data[1:]
    before, strict_json._WINDOW = strict_json._WINDOW, window
    try:
        found, fault = JsonReader(BytesIO(text).read, Budget(len(text) + strict_json.MARGIN)).everything(), ""
    except ValueError as error:
        found, fault = None, str(error) or "nothing is said"
    finally:
        strict_json._WINDOW = before
    wanted = _plainly(text)
    if fault:
        assert wanted is None or "nested more than 64 levels deep" in fault, fault
        raise CheckpointError(fault)  # as every caller does
    assert wanted == json.dumps(found)


def _plainly(text: bytes) -> str | None:
    """As the standard library reads it; None for what it refuses, or for a name that is twice in an object."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    try:
        return json.dumps(json.loads(text.decode("utf-8-sig"), object_pairs_hook=distinct))
    except (ValueError, RecursionError):
        return None


def seeds() -> dict[str, bytes]:
    """Values of every kind, and texts that are cut at other commas than those that divide."""
    texts = {
        "empty": "", "object": '{"a":{"b":[1,-2.5e3,true,null]},"c":"d"}', "spaces": ' [ 1 ,\n"a" , {} ]\t',
        "commas": '["a\\",b","],[",{"},{":"\\\\"},[[1],[2,3]],"x"]',
        "texts": '["a,b","c,d","\\u00e9\\ud83d\\ude00","é😀"]',
        "many": json.dumps({str(number): [number, {"x": "y,"}] for number in range(40)}),
        "nan": "[NaN,Infinity,-Infinity]",
        "twice": '{"a":1,"b":[0,1,2,3,4,5,6,7,8],"a":2}', "deep": "[" * 64 + "]" * 64, "deeper": "[" * 65 + "]" * 65,
        "half": '["\\ud800","\\udc00x"]', "digits": "9" * 4301, "trailing": "[1,]", "after": "{} {}",
        "mark": "\ufeff[1]",
        "open": '{"a":[1,{"b":"c', "point": "[1.,2]", "control": '["a\tb"]',
    }  # fmt: skip
    return {name: bytes([number % len(WINDOWS)]) + text.encode() for number, (name, text) in enumerate(texts.items())}
