"""The reader of strangers' JSON against `json.loads`, whatever its window is: the same values, the same refusals."""

import hashlib
import json
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reasonvec.weights import strict_json
from reasonvec.weights.canonical import canonical_pieces
from reasonvec.weights.documents import document_digest
from reasonvec.weights.strict_json import (
    Budget,
    DuplicateNameError,
    JsonReader,
    TooLargeError,
    loads_strictly,
    read_json,
)

TEXTS = st.text() | st.sampled_from(['x",y', "],[", '},{"', "\\", '\\"', "é😀", "\ud800", "\n\t", "a" * 300])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from([2**70, -0.0, 1e300])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6), max_leaves=40
)
WINDOWS = st.sampled_from([1, 2, 3, 7, 16, 64, 1 << 18])
STYLES = st.sampled_from([
    {}, {"indent": 1}, {"separators": (",", ":")}, {"separators": (" , ", " : ")}, {"indent": "\t", "sort_keys": True},
])  # fmt: skip


@pytest.fixture(autouse=True)
def windows_as_before():
    before = strict_json._WINDOW
    yield
    strict_json._WINDOW = before


def reader(text: bytes, window=1 << 18, margin=1 << 26):
    strict_json._WINDOW = window
    return JsonReader(BytesIO(text).read, Budget(margin))


def plainly(text: bytes):
    """As the standard library reads it; None for what it refuses, or for a name that is twice in an object."""

    def distinct(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        return json.dumps(json.loads(text.decode(), object_pairs_hook=distinct))
    except ValueError:
        return None


def strictly(text: bytes, window):
    try:
        return json.dumps(reader(text, window).everything())
    except ValueError:
        return None


@given(VALUES, STYLES, WINDOWS)
@settings(max_examples=300, deadline=None)
def test_values_are_those_of_the_standard_library(value, style, window):
    text = json.dumps(value, **style).encode()
    assert strictly(text, window) == plainly(text) == json.dumps(json.loads(text))


@given(VALUES, STYLES, WINDOWS, st.integers(0, 1 << 30), st.sampled_from(list('[]{},:"1e-\\ u')), st.integers(0, 2))
@settings(max_examples=400, deadline=None)
@example([1, 2], {}, 1, 1, ",", 0)
@example({"a": 1, "b": 2}, {}, 16, 7, ",", 0)
def test_what_is_broken_is_refused_by_both(value, style, window, place, letter, action):
    text = json.dumps(value, **style)
    place %= len(text) + 1
    broken = (text[:place] + letter + text[place:], text[:place] + text[place + 1 :], text[:place])[action].encode()
    assert strictly(broken, window) == plainly(broken)


LITERALS = ["-0", "1.5e-3", "-12E+2", "NaN", "-Infinity", "true", "null", "1e5", '"\\ud83d\\ude00"', '"\\ud83d"', "[]"]


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("literal", LITERALS)
def test_a_window_may_end_anywhere_in_a_literal(literal, window):
    for text in (literal, f"[{literal}]", f'{{"a":{literal} }}', f" [ 1,{literal},2]\n"):
        assert strictly(text.encode(), window) == json.dumps(json.loads(text))


@pytest.mark.parametrize("window", [8, 64, 1 << 18])
def test_a_name_that_is_twice_is_refused_however_far_apart(window):
    members = ",".join(f'"{number}":[{number}]' for number in range(500))
    for text in (f'{{{members},"7":0}}', f'{{"o":{{{members},"7":0}}}}', f'[{{"7":1,"7":2}},{members[4:8]}]'):
        with pytest.raises(DuplicateNameError, match="'7' is twice in one object"):
            reader(text.encode(), window).everything()


@pytest.mark.parametrize("window", [8, 64, 1 << 18])
@pytest.mark.parametrize(("depth", "fits"), [(64, True), (65, False), (900, False), (100_000, False)])
def test_what_is_nested_too_deeply_is_refused_whatever_the_window(depth, fits, window):
    filled = "0," * 20
    lists = (f"[{filled}" * (depth - 1) + "[]" + "]" * (depth - 1), f"[{filled}{'[' * (depth - 1)}{']' * depth}")
    for text in ("[" * depth + "]" * depth, '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1), *lists):
        if fits:
            assert reader(text.encode(), window).everything() == json.loads(text)
        else:
            with pytest.raises(ValueError, match="nested more than 64 levels deep"):
                reader(text.encode(), window).everything()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value at letter 1$"),
        (b"  [1, 2", "Expecting ',' delimiter at letter 8$"),
        (b'{"a" 1}', "Expecting ':' delimiter at letter 6$"),
        (b'{"a": 1,}', "Expecting property name enclosed in double quotes at letter 9$"),
        (b'"a\nb"', "Invalid control character at letter 3$"),
        (b"[1] x", "Extra data at letter 5$"),
        (b'"\xff"', r"it is not UTF-8 \(invalid start byte\)$"),
        ('{"a":1}'.encode("utf-16"), "it is not UTF-8"),
        (b"9" * 4301, "4300 digits"),
    ],
)
def test_what_is_refused_is_told_with_its_place(text, message):
    for window in (3, 1 << 18):
        with pytest.raises(ValueError, match=message):
            reader(text, window).everything()


def test_a_byte_order_mark_is_passed_over():
    assert loads_strictly('\ufeff{"é": 1}'.encode()) == {"é": 1}


def test_parts_are_lent_and_what_is_kept_is_counted(tmp_path):
    text = json.dumps({"skipped": [list(range(9))] * 300, "map": {str(n): n for n in range(300)}, "list": ["x"] * 300})
    for window in (16, 1 << 18):
        found = reader(text.encode(), window)
        seen = {}
        for name in found.names():
            before = found.budget.spent
            if name == "map":
                seen[name] = {key: value for part in found.pairs() for key, value in part.items()}
            elif name == "list":
                seen[name] = [element for part in found.elements() for element in part]
            else:
                found.skip()
            assert found.budget.spent == before
        found.finish()
        assert seen == {"map": {str(n): n for n in range(300)}, "list": ["x"] * 300}
        assert found.budget.spent < 1000
    (tmp_path / "a.json").write_text(text)
    budget = Budget(0)
    assert read_json(tmp_path / "a.json", Budget(1 << 20)) == json.loads(text)
    with pytest.raises(
        TooLargeError, match=f"would take more than {len(text)} bytes of memory, which is what its size"
    ):
        read_json(tmp_path / "a.json", budget)


@pytest.mark.parametrize(("letter", "count"), [("x", 9 << 20), ("😀", 9 << 18), ("\\ud83d\\ude00", 9 << 17)])
def test_a_text_that_takes_more_than_8_mib_is_refused(letter, count):
    for text in (f'"{letter * count}"', f'{{"{letter * count}":1}}', f'["{letter * count}'):
        with pytest.raises(TooLargeError, match="a text or a number that takes more than 8388608 bytes of memory"):
            reader(text.encode()).everything()
    assert reader(f'["{letter * (count // 2)}"]'.encode()).everything()


def in_one(value, allow_nan=False):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)


@given(VALUES)
@settings(max_examples=300, deadline=None)
@example({"a": ["x" * 300, 1, None] * 70, "b": {str(n): {"c": [n]} for n in range(70)}})
@example([{"\ud800" * 400: ["😀" * 400, "é" * 257]}] * 3)
@example({"a": {"b": {"c": {"d": (1, [2])}}}})
def test_the_digest_of_a_document_is_that_of_its_canonical_text(value):
    assert "".join(canonical_pieces(value)) == in_one(value)
    assert max(map(len, canonical_pieces(value))) < 500_000
    document = {"value": value, "sha256": "left out", "a": 1}
    wanted = hashlib.sha256(in_one({"value": value, "a": 1}).encode()).hexdigest()
    assert document_digest(document) == wanted


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_canonical_text_has_numbers_alone_unless_others_are_allowed(number):
    for value in (number, [number], {"a": {"b": {"c": [[number]]}}}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            document_digest({"value": value})
        assert "".join(canonical_pieces(value, allow_nan=True)) == in_one(value, allow_nan=True)
