"""Mutations that keep an input readable for most of its way: JSON is changed as JSON, data as numbers, and a name or
number everywhere it occurs. Bytes changed blindly rarely get past the parser; they are the other half of all mutations.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.pieces import DATA, FOLDER, LINK, NAMES, PIPE, PLAIN, REPAIRED, SAFETENSORS, SIGNED, Piece, cut, join

Bytes = Callable[[bytes, int], bytes]
"""A mutation of bytes to at most so many: libFuzzer's own, or any other."""

RAW = (
    "null", "true", "false", "[]", "{}", '""', "0", "-0", "1", "-1", "2", "7", "8", "10", "64", "65", "1024", "1025",
    "0.0", "1.0", "0.5", "-1.5", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1e-400", "1.7976931348623157e308",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "4611686018427387904", "4611686018427387903",
    "2147483648", "-9223372036854775809", "9" * 310, "9" * 400, "9" * 4301, "[0]", "[1]", "[0,0]", "[[]]", '{"a":1}',
    '{"a":1,"a":2}', '"\\ud800"', '"\\udc80"', '"\\u0000"', '"\\u001b[2J"', '"a\\u0000b"', '"../x"', '"/etc/passwd"',
    '"."', '".."', '"/"', '"a/"',
    '"a//b"', '"~"', '"' + "x" * 300 + '"', '"' + "x" * 1100 + '"', '"' + "a/" * 2100 + '"',
    "[" * 65 + "]" * 65, "[" * 400 + "]" * 400, "[" * 900 + "]" * 900, '{"a":' * 400 + "0" + "}" * 400,
    '"BF16"', '"F16"', '"F32"', '"F64"', '"I64"', '"U8"', '"F4"', '"BOOL"', '"dense"', '"a"', '"b"', '"c"', '"w"',
    *(json.dumps(name.decode(errors="replace")) for name in NAMES.values()),
)  # fmt: skip
"""Values as JSON text, some of which no Python value would be written as."""

WORDS = (0, 1, 2, 7, 8, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 0x7FF0000000000000, 0x7FF8000000000000,
         0x3FF0000000000000, 0x8000000000000000)  # fmt: skip
_TOKEN = re.compile(rb'"[^"\\\x00-\x1f]{1,40}"|-?\d{1,12}')
_PLACEHOLDER = re.compile(r'"@raw:(\d+)@"')


def mutated(data: bytes, most: int, seed: int, mutate_bytes: Bytes, seeds: Sequence[bytes] = ()) -> bytes:
    """Another input of at most `most` bytes, the same for the same arguments. Sometimes made of one of `seeds` instead:
    most of what a corpus gathers is broken early, and hides what comes later."""
    rng = random.Random(seed)
    if seeds and rng.random() < 0.2:
        data = rng.choice(seeds)
    if rng.random() < 0.4:
        return mutate_bytes(data, most)
    pieces = cut(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        number = rng.randrange(len(pieces))
        kind = rng.random()
        if kind < 0.6:
            pieces[number] = _json_mutated(pieces[number], rng)
        elif kind < 0.75:
            pieces[number] = _data_mutated(pieces[number], rng, mutate_bytes)
        elif kind < 0.9:
            pieces = cut(_replaced_everywhere(join(pieces), rng))
        else:
            _rearrange(pieces, number, rng)
    return join(pieces)[:most]


def _json_mutated(piece: Piece, rng: random.Random) -> Piece:
    text, mark, data = piece.content.partition(DATA)
    try:
        value = json.loads(text)
        for _ in range(rng.choice((1, 1, 2))):
            value = _changed(value, rng)
        written = json.dumps(value, separators=(",", ":"), ensure_ascii=rng.random() < 0.9)
        written = _PLACEHOLDER.sub(lambda found: RAW[int(found[1])], written)
        if mark and rng.random() < 0.6:
            data = _fitted(value, data)
        return Piece(piece.letter, piece.kind, written.encode(errors="surrogatepass") + mark + data)
    except (ValueError, OverflowError, RecursionError):
        return piece


def _changed(value: Any, rng: random.Random) -> Any:
    """`value` with one place of it changed."""
    places = list(_places(value))
    if not places:
        return _hostile(rng)
    holder, key = rng.choice(places)
    action = rng.random()
    if action < 0.45:
        holder[key] = _hostile(rng)
    elif action < 0.55:
        del holder[key]
    elif action < 0.7:
        other, where = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[where]))
    elif action < 0.8 and isinstance(holder[key], int):
        holder[key] = rng.choice((holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 2, holder[key] // 2))
    elif isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), _hostile(rng))
    elif rng.random() < 0.5:
        holder[json.loads(rng.choice([raw for raw in RAW if raw.startswith('"')]))] = holder.pop(key)
    else:
        holder[json.loads(rng.choice([raw for raw in RAW if raw.startswith('"')]))] = _hostile(rng)
    return value


def _places(value: Any) -> Any:
    """Every place in a JSON value, as what holds it and the key in that."""
    todo = [value]
    while todo:
        holder = todo.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ():
            yield holder, key
            todo.append(holder[key])


def _hostile(rng: random.Random) -> str:
    return f"@raw:{rng.randrange(len(RAW))}@"


def _fitted(header: Any, data: bytes) -> bytes:
    """Data as long as the header says, within reason."""
    ends = [info["data_offsets"][-1] for info in header.values() if isinstance(info, dict) and info.get("data_offsets")
            and isinstance(info["data_offsets"], list)] if isinstance(header, dict) else []  # fmt: skip
    most = max((end for end in ends if isinstance(end, int) and 0 <= end <= 4096), default=len(data))
    return data[:most].ljust(most, b"\0")


def _data_mutated(piece: Piece, rng: random.Random, mutate_bytes: Bytes) -> Piece:
    text, mark, data = piece.content.partition(DATA)
    if not mark:
        return Piece(piece.letter, piece.kind, mutate_bytes(piece.content, len(piece.content) + 64))
    if len(data) >= 8 and rng.random() < 0.7:
        place = 8 * rng.randrange(len(data) // 8)
        word = (rng.choice(WORDS) + rng.choice((0, 0, 1, -1))) % 2**64
        data = data[:place] + word.to_bytes(8, "little") + data[place + 8 :]
    else:
        data = mutate_bytes(data, max(len(data), 1))
    return Piece(piece.letter, piece.kind, text + mark + data)


def _replaced_everywhere(data: bytes, rng: random.Random) -> bytes:
    tokens = _TOKEN.findall(data)
    if not tokens:
        return data
    new = rng.choice((rng.choice(tokens), rng.choice(RAW).encode()))
    return data.replace(rng.choice(tokens), new)


def _rearrange(pieces: list[Piece], number: int, rng: random.Random) -> None:
    piece, action = pieces[number], rng.random()
    if action < 0.25 and len(pieces) > 1:
        del pieces[number]
    elif action < 0.5:
        pieces.insert(0, Piece(rng.choice(list(NAMES)), piece.kind, piece.content))
    elif action < 0.75:
        pieces[number] = Piece(rng.choice(list(NAMES)), piece.kind, piece.content)
    else:
        kinds = (PLAIN, SAFETENSORS, SIGNED, REPAIRED, LINK, PIPE, FOLDER)
        pieces[number] = Piece(piece.letter, rng.choice(kinds), piece.content)
