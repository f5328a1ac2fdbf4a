"""The checkpoint reader: index, shards, configuration and small files, and every byte of every tensor."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fuzz.pieces import FOLDER, LINK, PIPE, PLAIN, Piece, cut, join, laid_out, pack
from reasonvec.weights.checkpoint import layer_of, open_checkpoint, tensor_reader
from reasonvec.weights.tensors import digest_of
from tests.checkpoints import BF16, write


def run(data: bytes, directory: Path) -> None:
    """Open the checkpoint and read all of it."""
    with laid_out(cut(data), directory):
        checkpoint = open_checkpoint(directory)
        with tensor_reader() as reader:
            for name, entry in checkpoint.tensors.items():
                layer_of(name)
                assert len(digest_of(entry, reader)) == 64
        for name in checkpoint.small_files():
            checkpoint.text(name)
        assert isinstance(checkpoint.config, dict)


def seeds() -> dict[str, bytes]:
    """Checkpoints in one file and in two, whole and with a fault each."""
    tensors = {"model.layers.0.w": np.ones((2, 2), BF16), "b": np.zeros(3, np.float32), "c": np.ones((), np.int64)}
    with TemporaryDirectory() as folder:
        one = pack(write(Path(folder, "one"), tensors))
        two = pack(write(Path(folder, "two"), tensors, shards=2))
    rest = [piece for piece in two if piece.letter != b"i"]
    shard = "model-00001-of-00002.safetensors"
    indices = {
        "elsewhere": {"weight_map": {"b": "../../etc/passwd.safetensors"}},
        "surrogate": {"weight_map": {"b": "\ud800.safetensors"}},
        "nul": {"weight_map": {"b": "\0.safetensors"}},
        "long": {"weight_map": {"b": "x" * 300 + ".safetensors"}},
        "not-there": {"weight_map": {"b": shard, "c": "model-00003-of-00002.safetensors"}},
        "number": {"weight_map": {"b": 1}},
        "no-map": {"metadata": {}},
        "list": [],
        "many": {"weight_map": {str(number): shard for number in range(50)}},
    }
    inputs = {
        **{f"index-{name}": [Piece(b"i", PLAIN, json.dumps(value).encode()), *rest] for name, value in indices.items()},
        "one": one,
        "two": two,
        "both": one + two,
        "no-config": [piece for piece in one if piece.letter != b"c"],
        "config-is-a-list": [Piece(b"c", PLAIN, b"[1]"), *one],
        "small-files": [*one, Piece(b"n", PLAIN, b"x"), Piece(b"t", PLAIN, b"{{ x }}")],
        "pickle": [Piece(b"p", PLAIN, b"")],
        "adapter": [Piece(b"a", PLAIN, b"")],
        "vector": [Piece(b"v", PLAIN, b"")],
        "nothing": [],
        "pipe": [Piece(b"m", PIPE, b"")],
        "folder": [Piece(b"i", FOLDER, b""), *one],
        "link-to-itself": [Piece(b"m", LINK, b"\x07")],
        "link-to-device": [Piece(b"i", LINK, b"\x03")],
        "link-to-root": [Piece(b"c", LINK, b"\x02"), *one],
    }
    return {name: join(pieces) for name, pieces in inputs.items()}
