"""The receipt, reasonvec.json, in every enhanced checkpoint: what was added to what, how, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import VectorError
from reasonvec.weights.documents import CHECKPOINT, FILES, NUMBER, read_document

FORMAT = "reasonvec.receipt"
FORMAT_VERSION = 2
RECEIPT = "reasonvec.json"


@dataclass(frozen=True)
class RealisedAlpha:
    """How much of the requested change the target's grid let through.

    The projection of what was written onto what was asked, over what was asked: <out - target, d> / <d, d> with
    d = sum(alpha * delta). 1 is all of it, 0 none.
    """

    overall: float | None
    """None where nothing was asked."""
    layers: Mapping[str, float | None]
    """By layer number, "other" for tensors outside the layers."""

    def to_json(self) -> dict[str, Any]:
        """As the receipt holds it."""
        return {"overall": self.overall, "layers": dict(self.layers)}


def read_receipt(path: Path) -> dict[str, Any]:
    """The checked receipt of the enhanced checkpoint at `path`. Raises VectorError if it has none or it is damaged."""
    file = path / RECEIPT
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise VectorError(f"{path} {what}. Name the directory of a vector or of an enhanced checkpoint.")
    if not file.is_file():
        raise VectorError(f"{path} has neither {RECEIPT} nor vector.json: it was not made by reasonvec, so there is "
                          f"nothing to verify.")  # fmt: skip
    document = read_document(file, FORMAT_VERSION, {"format": str})
    if document["format"] != FORMAT:
        raise VectorError(f"{file} is a {document['format']}, not a {FORMAT}.")
    document = read_document(file, FORMAT_VERSION, _FORM)
    if document["operation"] not in _SOURCES:
        raise VectorError(f"{file} speaks of the operation {document['operation']!r}; known are {', '.join(_SOURCES)}.")
    return read_document(file, FORMAT_VERSION, _FORM | _SOURCES[document["operation"]])


_VECTOR = {"location": str, "revision": str | None, "fingerprint": str, "alpha": NUMBER}
_SOURCES: dict[str, dict[str, Any]] = {
    "transfer": {"tuned": CHECKPOINT, "base": CHECKPOINT, "alpha": NUMBER}, "apply": {"vectors": [_VECTOR]}
}  # fmt: skip
_FORM: dict[str, Any] = {
    "operation": str, "target": CHECKPOINT, "fingerprint": str, "files": FILES, "tensors": {str: str},
    "realised_alpha": {"overall": NUMBER | None, "layers": {str: NUMBER | None}}, "warnings": [str],
    "options": {"only": [str], "skip": [str], "rounding": str, "seed": int, "dtype": str, "max_shard_bytes": int},
}  # fmt: skip
