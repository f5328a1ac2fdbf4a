"""What needs no inputs but the directory: `verify` by checksums, of vectors and enhanced checkpoints, and `inspect`."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fuzz.pieces import FOLDER, LINK, PIPE, PLAIN, Piece, cut, join, laid_out, pack, with_content
from fuzz.signing import with_documents_signed
from fuzz.targets import vector
from reasonvec.weights import apply, extract, inspect, verify
from reasonvec.weights.documents import format_document
from reasonvec.weights.receipt import RECEIPT
from reasonvec.weights.vector import DOCUMENT, RELATION
from tests.checkpoints import write


def run(data: bytes, directory: Path) -> None:
    """Inspect and verify."""
    with laid_out(with_documents_signed(cut(data)), directory):
        if (directory / DOCUMENT).is_file():
            json.dumps(inspect(directory).to_json(), allow_nan=False)
        assert verify(directory, checksums_only=True).tensors >= 0


WORDS = ("ancestor", "case", "explanation")


def _with(document: Piece, **fields: Any) -> Piece:
    return with_content(document, json.dumps(json.loads(document.content) | fields).encode())


def seeds() -> dict[str, bytes]:
    """A vector, an enhanced checkpoint, and each with something beside it."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "base", vector.BASE, {"model_type": "toy"})
        write(root / "tuned", vector.TUNED, {"model_type": "toy"})
        extract(tuned=root / "tuned", base=root / "base", out=root / "vector")
        apply(vectors=[(root / "vector", 1.0)], target=root / "base", out=root / "out")
        receipt = json.loads((root / "out" / RECEIPT).read_text())
        receipt["target"]["location"] = "base"  # not the temporary directory: seeds are the same in every run
        receipt["vectors"][0] |= {"location": "vector", "fingerprint": "0" * 64}
        (root / "out" / RECEIPT).write_bytes(format_document(receipt))
        out = pack(root / "out", documents=[RECEIPT])
    whole = cut(vector.seeds()["whole"])
    inputs = {
        "vector": whole,
        "enhanced": out,
        "both": [*out, *whole],
        "odd-name": [*out, Piece(b"n", PLAIN, b"x")],
        "pipe": [*out, Piece(b"p", PIPE, b"")],
        "link": [*out, Piece(b"t", LINK, b"\x02")],
        "folder": [*whole, Piece(b"y", FOLDER, b"")],
        "relation": [_with(whole[-1], relation=dict.fromkeys(RELATION, 0) | dict.fromkeys(WORDS, "x")), *whole],
        "control": [_with(whole[-1], control={"kind": "random", "seed": 1, "of": "x"}), *whole],
        "nothing": [],
    }
    return {name: join(pieces) for name, pieces in inputs.items()}
