"""The header reader: one safetensors file, raw or with its length bytes put right."""

from pathlib import Path

from fuzz.pieces import DATA, PLAIN, SAFETENSORS, Piece, cut, join, laid_out
from reasonvec.weights.safetensors_header import format_header, read_header


def run(data: bytes, directory: Path) -> None:
    """Read the header of the first piece."""
    piece = cut(data)[0]
    with laid_out([Piece(b"m", piece.kind if piece.kind in (PLAIN, SAFETENSORS) else PLAIN, piece.content)], directory):
        entries, metadata = read_header(directory / "model.safetensors")
    assert all(isinstance(text, str) for text in metadata.values())
    for name, entry in entries.items():
        assert name == entry.name
        assert entry.size >= 0


def seeds() -> dict[str, bytes]:
    """Valid files of each shape that matters, then hostile ones."""
    byte = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    two = format_header([("a", "BF16", (2, 3)), ("b", "F32", ())], {"format": "pt"})
    texts = {
        "empty": b"{}",
        "metadata": b'{"__metadata__":{"format":"pt"}}',
        "zero-size": b'{"a":{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,0]}}',
        "twice": b'{"a":%s,"a":%s}' % (byte, byte),
        "gap": b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        "overlap": b'{"a":%s,"b":%s}' % (byte, byte),
        "float-offsets": b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0.0,1e0]}}',
        "half-bytes": b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}',
        "surrogate": b'{"\\ud800":%s}' % byte,
        "control": b'{"\\u001b[2J":%s}' % byte,
        "list": b"[[[[]]]]",
        "utf-16": (b'{"a":%s}' % byte).decode().encode("utf-16"),
        "many-digits": b'{"a":{"dtype":"U8","shape":[' + b"9" * 4400 + b'],"data_offsets":[0,1]}}',
        "deep": b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
    }
    inputs = {name: Piece(b"m", SAFETENSORS, text + DATA + b"\0\0") for name, text in texts.items()}
    inputs["two"] = Piece(b"m", SAFETENSORS, two[8:] + DATA + bytes(16))
    inputs["raw"] = Piece(b"m", PLAIN, two + bytes(16))
    inputs["short"] = Piece(b"m", PLAIN, b"\x01\0\0")
    inputs["endless"] = Piece(b"m", PLAIN, (1 << 63).to_bytes(8, "little") + b"{}")
    return {name: join([piece]) for name, piece in inputs.items()}
