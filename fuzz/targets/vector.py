"""The vector reader: document, headers, every delta of every file, residuals and the donor's small files."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fuzz.pieces import FOLDER, LINK, PIPE, PLAIN, SIGNED, Piece, cut, join, laid_out, pack
from fuzz.signing import MARK, with_documents_signed
from reasonvec.weights import compress, extract
from reasonvec.weights.blocks import blocks
from reasonvec.weights.checkpoint import tensor_reader
from reasonvec.weights.documents import document_digest
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.sources import StoredDeltas
from reasonvec.weights.vector import DOCUMENT, open_vector
from reasonvec.weights.vector_writer import Encoding
from tests.checkpoints import BF16, write

BASE = {"a": np.array([1.0, 2.0], BF16), "b": np.array([1.0, 1.0], BF16), "c": np.array([[1.0, 1.0]], BF16),
        "n": np.array([7], np.int64)}  # fmt: skip
TUNED = {"a": np.array([1.0078125, 2.0], BF16), "b": np.array([-0.00390625 * 1.0078125, 1.0], BF16),
         "c": np.array([[1.0, 2.0**-60]], BF16), "n": np.array([7], np.int64)}  # fmt: skip
"""One dense delta of each stored dtype, one with a residual, one tensor that is carried; and the same sparse."""


def run(data: bytes, directory: Path) -> None:
    """Open the vector and read all of it, once in float32 and once in float64."""
    with laid_out(with_documents_signed(cut(data)), directory):
        vector = open_vector(directory)
        deltas = StoredDeltas(vector)
        assert len(vector.fingerprint) == 64
        donor = vector.donor()
        for name in donor.small_files():
            donor.text(name)
        assert isinstance(donor.config, dict)
        assert vector.residuals.keys() <= vector.deltas.keys()
        with tensor_reader() as reader:
            for name, (shape, dtype) in deltas.forms.items():
                opened = deltas.open(name, reader)
                for start, stop in blocks(int(np.prod(shape, dtype=object))):
                    tile = opened.read(start, stop, FLOATS[dtype].work)
                    assert tile.main.shape == (stop - start,)
                    assert np.isfinite(tile.main.astype(np.float64)).all()
                    assert np.isfinite(tile.high).all()
                    assert np.isfinite(tile.low).all()
                opened.close()


def _vector(root: Path, encoding: Encoding) -> tuple[Any, list[Piece]]:
    out = root / encoding
    extract(tuned=root / "tuned", base=root / "base", out=out, encoding=encoding)
    document = json.loads((out / DOCUMENT).read_text())
    for role in ("tuned", "base"):
        document["donors"][role]["location"] = role  # not the temporary directory: seeds are the same in every run
    document["sha256"] = document_digest(document)
    (out / DOCUMENT).write_text(json.dumps(document, separators=(",", ":")))
    return document, pack(out, documents=[DOCUMENT])


def _lossy(root: Path, name: str, **options: int) -> list[Piece]:
    out = root / name
    document = json.loads((compress(vector=root / "dense", out=out, **options).vector.path / DOCUMENT).read_text())
    document["lossy"]["of"]["location"] = "dense"
    document["sha256"] = document_digest(document)
    (out / DOCUMENT).write_text(json.dumps(document, separators=(",", ":")))
    return pack(out, documents=[DOCUMENT])


def seeds() -> dict[str, bytes]:
    """A vector with a delta of every stored dtype and a residual, and the same with one hostile thing each."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "base", BASE, {"model_type": "toy"})
        write(root / "tuned", TUNED, {"model_type": "toy"})
        document, whole = _vector(root, "dense")
        _, sparse = _vector(root, "sparse")
        lossy = {"low-rank": _lossy(root, "low-rank", rank=1),
                 **{f"bits-{bits}": _lossy(root, f"bits-{bits}", bits=bits) for bits in (8, 4, 1)}}  # fmt: skip
    text = json.dumps(document, separators=(",", ":"))
    rest = [piece for piece in whole if piece.letter != b"v"]
    inputs = {
        "whole": whole,
        "sparse": sparse,
        **lossy,
        "unsigned": [Piece(b"v", PLAIN, text.encode()), *rest],
        "signed": [Piece(b"v", SIGNED, text.replace(document["sha256"], MARK.decode()).encode()), *rest],
        "not-a-vector": [Piece(b"c", PLAIN, b"{}")],
        "nothing": [],
        "pipe-in-donor": [*whole, Piece(b"x", PIPE, b"")],
        "link-in-donor": [*whole, Piece(b"y", LINK, b"\x01")],
        "folder-in-donor": [*whole, Piece(b"y", FOLDER, b"")],
        "donor-is-a-link": [Piece(b"o", LINK, b"\x02"), *whole],
        "document-is-a-folder": [Piece(b"v", FOLDER, b""), *rest],
        "no-residual": [piece for piece in whole if piece.letter != b"r"],
    }
    for name, path, value in [
        ("nul", ("files", "a\0b"), {"bytes": 1}), ("surrogate", ("files", "\ud800"), {"bytes": 1}),
        ("long-name", ("files", "x" * 300), {"bytes": 1}), ("elsewhere", ("files", "../../etc/passwd"), {"bytes": 1}),
        ("large-norm", ("tensors", "a", "norm"), 10**400), ("steps", ("tensors", "a", "steps"), [1.5]),
        ("truth", ("tensors", "a", "changed"), True), ("negative", ("tensors", "a", "residual"), -1),
        ("residual-of-none", ("tensors", "a", "residual"), 1), ("file-is-a-list", ("tensors", "a", "file"), []),
    ]:  # fmt: skip
        changed = json.loads(text)
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        inputs[name] = [Piece(b"v", b"%", json.dumps(changed).encode()), *rest]
    residual = next(piece for piece in whole if piece.letter == b"r")
    others = [piece for piece in whole if piece.letter != b"r"]
    for name, index in [("out-of-range", 9), ("below-zero", -1)]:
        content = residual.content.replace((1).to_bytes(8, "little"), index.to_bytes(8, "little", signed=True))
        inputs[f"residual-{name}"] = [*others, Piece(b"r", residual.kind, content)]
    return {name: join(pieces) for name, pieces in inputs.items()}
