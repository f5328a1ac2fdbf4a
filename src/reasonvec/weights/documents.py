"""vector.json and reasonvec.json as text: written canonically with a checksum, and never trusted when they are read."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from reasonvec.errors import CheckpointError, VectorError
from reasonvec.weights.canonical import canonical_pieces
from reasonvec.weights.findings import beginning
from reasonvec.weights.strict_json import Budget, complaint, read_json

Form = Any
"""What a value must look like: a type, a list of one form, a dict of named forms, {str: form} for any names, or
(form,) for what may be null or left out."""

NUMBER = float | int
MAX_INTEGER = 1 << 64
"""Integers of a document are below; JSON's may be too large for a float64."""
NORM = "a number that is not negative"
NORMS = (1e-100, 1e100)
"""Norms and sums of squares of any number of float32 lie between, or are 0; squares and ratios of them are finite."""
CHECKPOINT = {"location": str, "revision": str | None, "fingerprint": str, "tensors": int, "files": {str: dict},
              "small_files": {str: str}}  # fmt: skip
FILES = {str: {"bytes": int}}


def read_document(file: Path, version: int, form: Form, budget: Budget | None = None) -> dict[str, Any]:
    """The document in `file`: its version, its own checksum and the form of its fields held against it.

    Raises VectorError for any that does not hold, and for one that takes more memory than `budget` has, or without one
    its own size and a margin.
    """
    try:
        document = read_json(file, budget)
    except ValueError as error:
        raise VectorError(f"{file} {complaint(error)}. It is damaged; make it again.") from None
    except CheckpointError as error:
        raise VectorError(str(error)) from None
    if not isinstance(document, dict) or not isinstance(document.get("format"), str):
        raise VectorError(f"{file} does not say of what format it is; it was not written by reasonvec.")
    found = document.get("format_version")
    if type(found) is not int or found != version:  # true and 1.0 equal 1
        raise VectorError(
            f"{file} is of format version {beginning(found)[:80]}; this reasonvec reads {version}. "
            f"Make it again, or use the version of reasonvec that wrote it."
        )
    try:
        digest = document_digest(document)
    except ValueError:
        raise VectorError(f"{file} holds NaN or infinity, as no document does. It is damaged; make it again.") from None
    if document.get("sha256") != digest:
        raise VectorError(f"{file} does not match its own checksum: it was edited or damaged. Make it again.")
    if wrong := _misfit(document, form, ""):
        raise VectorError(f"{file} lacks or misstates a field: {wrong}. It is damaged; make it again.")
    return document


def document_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 over the document as canonical JSON without its own `sha256`. ValueError for NaN and infinity."""
    digest = hashlib.sha256()
    for piece in canonical_pieces({key: value for key, value in document.items() if key != "sha256"}):
        digest.update(piece.encode())
    return digest.hexdigest()


def format_document(document: Mapping[str, Any]) -> bytes:
    """The bytes of a document, with the checksum put in."""
    signed = {**document, "sha256": document_digest(document)}
    return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()


def _misfit(value: Any, form: Form, place: str) -> str | None:
    """The first place where `value` is not of `form`, or None."""
    if isinstance(form, tuple):
        return None if value is None else _misfit(value, form[0], place)
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{place} is no list"
        if form == [int] and set(map(type, value)) == {int} and 0 <= min(value) <= max(value) < MAX_INTEGER:
            return None
        parts = ((item, form[0], f"{place}[{number}]") for number, item in enumerate(value))
        return next((wrong for part in parts if (wrong := _misfit(*part))), None)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{place or 'all of it'} is no object"
        if str in form:
            parts = ((item, form[str], f"{place}.{key[:80]}".lstrip(".")) for key, item in value.items())
            return next((wrong for part in parts if (wrong := _misfit(*part))), None)
        if missing := sorted(key for key in form.keys() - value.keys() if not isinstance(form[key], tuple)):
            return f"{place}.{missing[0]}".lstrip(".") + " is missing"
        parts = ((value.get(key), inner, f"{place}.{key}".lstrip(".")) for key, inner in form.items())
        return next((wrong for part in parts if (wrong := _misfit(*part))), None)
    if form is NORM:
        wrong = _misfit(value, NUMBER, place)
        if wrong or value == 0:
            return wrong
        return None if NORMS[0] < value < NORMS[1] else f"{place} is {value:g}, no norm of weights"
    if isinstance(value, bool) and form is not bool:
        return f"{place} is {str(value).lower()}"
    if not isinstance(value, form):
        wanted = form if isinstance(form, UnionType) else form.__name__
        return f"{place} is a {type(value).__name__}, not {wanted}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place} is not finite"
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        return f"{place} is too large"
    if isinstance(value, int) and value < 0 and form is int:
        return f"{place} is negative"
    return None


_PLACES = ("location", "ancestor", "etag")


def first_difference(claimed: Any, computed: Any, place: str = "") -> str | None:
    """Where a document differs from what was computed again, in words, or None. Numbers may differ in the last digits:
    sums are made by other instructions on other processors."""
    if place.rpartition(".")[2] in _PLACES:
        return None  # the same thing may be named in another way; its fingerprint is compared
    if isinstance(claimed, Mapping) and isinstance(computed, Mapping):
        if odd := sorted(claimed.keys() ^ computed.keys()):
            return f"{place}.{odd[0]}".lstrip(".") + " is in one of them only"
        parts = ((claimed[key], computed[key], f"{place}.{key}".lstrip(".")) for key in claimed)
        return next((found for part in parts if (found := first_difference(*part))), None)
    if isinstance(claimed, (list, tuple)) and isinstance(computed, (list, tuple)) and len(claimed) == len(computed):
        pairs = enumerate(zip(claimed, computed, strict=True))
        parts = ((a, b, f"{place}[{number}]") for number, (a, b) in pairs)
        return next((found for part in parts if (found := first_difference(*part))), None)
    if isinstance(claimed, float) and isinstance(computed, float):
        same = math.isclose(claimed, computed, rel_tol=1e-5, abs_tol=1e-12)
    else:
        same = claimed == computed
    return None if same else f"{place} is {_told(claimed)}, computed again {_told(computed)}"


def _told(value: Any) -> str:
    return value[:80] if isinstance(value, str) else beginning(value)[:80]
