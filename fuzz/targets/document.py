"""The document reader, with the forms of both documents: the receipt's through `read_receipt`, and one form of every
kind that a form can be. Documents are signed anew, so that the checksum keeps nothing out."""

import json
from pathlib import Path
from typing import Any

from fuzz.pieces import PLAIN, REPAIRED, SIGNED, Piece, cut, join, laid_out
from fuzz.signing import MARK, signed
from reasonvec.weights.documents import CHECKPOINT, FILES, NORM, NUMBER, first_difference, read_document
from reasonvec.weights.receipt import RECEIPT, read_receipt

_CHECKPOINT = {"location": "x", "revision": None, "fingerprint": "00", "tensors": 1, "files": {"a": {}},
               "small_files": {"config.json": "00"}}  # fmt: skip
_COMMON: dict[str, Any] = {
    "format": "reasonvec.receipt", "format_version": 2, "sha256": MARK.decode(), "target": _CHECKPOINT,
    "fingerprint": "00", "files": {"a": {"bytes": 1}}, "tensors": {"w": "00"},
    "realised_alpha": {"overall": 0.5, "layers": {"0": None}}, "warnings": ["w"],
    "options": {"only": ["a"], "skip": [], "rounding": "nearest", "seed": 0, "dtype": "same", "max_shard_bytes": 5},
}  # fmt: skip
_TRANSFER = {**_COMMON, "operation": "transfer", "tuned": _CHECKPOINT, "base": _CHECKPOINT, "alpha": 1.0}
_APPLY = {**_COMMON, "operation": "apply",
          "vectors": [{"location": "v", "revision": None, "fingerprint": "00", "alpha": 1}]}  # fmt: skip
_EVERY = {"format": "x", "format_version": 1, "sha256": MARK.decode(), "number": 0.5, "norm": 2, "truth": True,
          "list": [[1, 2], []], "map": {"a": {"b": "c"}}, "files": {"a": {"bytes": 1}}, "maybe": None}  # fmt: skip
_FORM = {"number": NUMBER, "norm": NORM, "truth": bool, "list": [[int]], "map": {str: {str: str}}, "files": FILES,
         "maybe": dict | None}  # fmt: skip


def run(data: bytes, directory: Path) -> None:
    """Read the first piece as the document that its letter says."""
    piece = cut(data)[0]
    if piece.kind in (SIGNED, REPAIRED):
        piece = Piece(piece.letter, PLAIN, signed(piece.content))
    with laid_out([Piece(b"e", PLAIN, piece.content)], directory):
        if piece.letter == b"e":
            document = read_receipt(directory)
            assert isinstance(float(document.get("alpha", 0)) if document["operation"] == "transfer" else 0.0, float)
            sum(entry["bytes"] for entry in document["files"].values())
        else:
            every = piece.letter == b"x"
            document = read_document(directory / RECEIPT, 1, _FORM if every else {"base": CHECKPOINT})
            if every:
                assert float(document["norm"]) >= 0
                assert float(document["number"]) is not None
    for other in (_TRANSFER, _EVERY):
        first_difference(document, other)
    assert "not-a-number" not in str(first_difference(document, document))


def seeds() -> dict[str, bytes]:
    """Both receipts and the document of every form, valid; then some that are none."""
    documents = {"transfer": (b"e", _TRANSFER), "apply": (b"e", _APPLY), "every": (b"x", _EVERY),
                 "checkpoint": (b"y", {**_EVERY, "base": _CHECKPOINT})}  # fmt: skip
    inputs = {name: Piece(letter, SIGNED, json.dumps(value).encode()) for name, (letter, value) in documents.items()}
    text = json.dumps(_EVERY)
    for name, old, new in [
        ("infinite", "0.5", "1e999"), ("nan", "0.5", "NaN"), ("long-integer", "0.5", "9" * 400),
        ("too-long-integer", "0.5", "9" * 4400), ("deep", "null", "[" * 900 + "]" * 900), ("version", "1,", "true,"),
        ("twice", '"norm": 2', '"norm": 2, "norm": 3'), ("surrogate", '"c"', '"\\ud800"'),
    ]:  # fmt: skip
        inputs[name] = Piece(b"x", SIGNED, text.replace(old, new, 1).encode())
    inputs["unsigned"] = Piece(b"e", PLAIN, json.dumps(_APPLY).encode())
    inputs["list"] = Piece(b"e", PLAIN, b"[]")
    return {name: join([piece]) for name, piece in inputs.items()}
