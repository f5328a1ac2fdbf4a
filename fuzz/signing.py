"""Puts the right checksums into mutated documents: a fuzzer does not find a SHA-256 by chance."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from fuzz.pieces import NAMES, PLAIN, REPAIRED, SAFETENSORS, SIGNED, Piece
from reasonvec.weights.documents import document_digest
from reasonvec.weights.strict_json import loads_strictly

MARK = b"@" * 64
"""Where `signed` puts the checksum."""


def signed(text: bytes) -> bytes:
    """`text` with the document's own checksum in the place of `MARK`; as it is where it is no document."""
    try:
        return text.replace(MARK, document_digest(loads_strictly(text)).encode())
    except (ValueError, RecursionError, AttributeError):
        return text  # the reader meets the same, and it is the reader's answer that counts


def with_documents_signed(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with the documents among them signed, and repaired first where their kind says so."""
    result = []
    for piece in pieces:
        if piece.kind == SIGNED:
            piece = Piece(piece.letter, PLAIN, signed(piece.content))
        elif piece.kind == REPAIRED:
            piece = Piece(piece.letter, PLAIN, signed(_repaired(piece.content, pieces)))
        result.append(piece)
    return result


def _repaired(text: bytes, pieces: Sequence[Piece]) -> bytes:
    """The document with sizes and digests as they are, wherever it speaks of files and tensors that there are."""
    try:
        document = json.loads(text)
        document["sha256"] = MARK.decode()
        contents = {NAMES[piece.letter].decode(errors="replace"): piece for piece in reversed(pieces)
                    if piece.letter in NAMES}  # fmt: skip
        for name, info in _objects(document.get("files")):
            if name in contents:
                content = contents[name].to_bytes()
                info["bytes"] = len(content)
                if "sha256" in info:
                    info["sha256"] = hashlib.sha256(content).hexdigest()
        tensors = document.get("tensors")
        for name, info in _objects(tensors):
            piece = contents.get(str(info.get("file")))
            if piece is not None and (data := _data(piece, name)) is not None:
                info["digest"] = _digest(data, info.get("encoding"), info.get("shape"))
        for name, info in tensors.items() if isinstance(tensors, dict) else ():
            if isinstance(info, str):  # of a receipt, which does not say in which file
                found = [data for piece in pieces if (data := _data(piece, name)) is not None]
                tensors[name] = _digest(found[0], "dense") if found else info
        return json.dumps(document).encode()
    except (ValueError, TypeError, AttributeError, RecursionError, ZeroDivisionError):
        return text


def _digest(data: bytes, encoding: Any, shape: Any = None) -> str:
    """The digest of a tensor of one block: all of them are."""
    if encoding == "low-rank":
        rows, columns = shape
        split = len(data) * rows // (rows + columns)
        return blake3(blake3(blake3(data[split:]).digest() + data[:split]).digest()).hexdigest()
    if encoding == "sparse":
        return blake3(data[28:60]).hexdigest()  # the block says its own
    return blake3(blake3(data).digest()).hexdigest()


def _objects(value: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(name, info) for name, info in value.items() if isinstance(info, dict)] if isinstance(value, dict) else []


def _data(piece: Piece, name: str) -> bytes | None:
    """The bytes that a safetensors file says are the tensor `name`."""
    content = piece.to_bytes()
    if piece.kind != SAFETENSORS:
        return None
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        begin, end = json.loads(content[8:start])[name]["data_offsets"]
        return content[start + begin : start + end]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
