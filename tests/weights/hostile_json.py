"""JSON that takes many times its size once it is read, in files for each reader, and what reading one allocates.

`python -m tests.weights.hostile_json DIRECTORY` prints for each case the bytes by which the resident memory of a
process grew at most, the size of what it read, and the answer.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from reasonvec.errors import ReasonvecError
from reasonvec.weights.arithmetic import STEP_BINS
from reasonvec.weights.checkpoint import Checkpoint, open_checkpoint
from reasonvec.weights.configuration import configuration_findings
from reasonvec.weights.documents import document_digest
from reasonvec.weights.receipt import read_receipt
from reasonvec.weights.strict_json import loads_strictly
from reasonvec.weights.tokenizer import tokenizer_findings
from reasonvec.weights.vector import open_vector

SIZE = 12_000_000
SMALL = 2_000_000
"""Of what fits into the margin and is looked at in all of its length."""
SHARDED, DELTAS = 300_000, 60_000


def repeated(piece: str, size: int, first: str = "[", last: str = "0]") -> bytes:
    return (first + piece * (size // len(piece)) + last).encode()


def numbered(piece: str, size: int, last: str = '"":0}') -> bytes:
    count = size // (len(piece) + 3)
    return ("{" + "".join(piece % number for number in range(count)) + last).encode()


FAMILIES: dict[str, Callable[[int], bytes]] = {
    "floats by name": lambda size: numbered('"%x":1.5,', size),
    "ids by name": lambda size: numbered('"%x":70000,', size),
    "texts by name": lambda size: numbered('"%x":"a.safetensors",', size),
    "lists by name": lambda size: numbered('"%x":[],', size),
    "objects by name": lambda size: numbered('"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', size),
    "empty lists": lambda size: repeated("[],", size),
    "empty objects": lambda size: repeated("{},", size),
    "short objects": lambda size: repeated('{"a":0},', size),
    "pieces": lambda size: repeated('["a",0],', size, last='["a",0]]'),
    "short texts": lambda size: repeated('"ab",', size),
    "floats": lambda size: repeated("1.5,", size),
    "long integers": lambda size: repeated("9" * 4000 + ",", size),
    "one name": lambda size: repeated('"a":0,', size, "{", '"a":0}'),
    "one text": lambda size: ('{"a":"' + "x" * size + '😀"}').encode(),
    "texts of a megabyte": lambda size: repeated(f'"{"x" * 1_000_000}😀",', size),
    "one name of text": lambda size: ('{"' + "x" * size + '😀":0}').encode(),
    "escapes": lambda size: repeated(f'"{chr(92)}ud83d{"x" * 1_000_000}{chr(92)}u0000",', size),
    "cut off": lambda size: repeated('"ab",', size, last=""),
    "deep": lambda size: b"[" * size,
    "space": lambda size: b" " * size,
    "long names in one another": lambda size: (f'{{"{"x" * 5000}":' * 60 + "{" + numbered('"%x":0,', size).decode()[1:]
                                               + "}" * 60).encode(),
}  # fmt: skip


def header(root: Path, text: bytes) -> None:
    (root / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def index(root: Path, text: bytes) -> None:
    (root / "model.safetensors.index.json").write_bytes(b'{"weight_map":' + text + b"}")


def config(root: Path, text: bytes) -> None:
    for name, content in (("a", text), ("b", text.replace(b"0", b"7"))):
        (root / name).mkdir()
        (root / name / "config.json").write_bytes(content)


def tokenizer(root: Path, text: bytes) -> None:
    for name, content in (("a", text), ("b", text.replace(b"1", b"-"))):
        (root / name).mkdir()
        parts = b'{"model":{"vocab":%s,"merges":%s},"normalizer":%s}'
        (root / name / "tokenizer.json").write_bytes(parts % (content, content, content[: len(content) // 9]))
        (root / name / "tokenizer_config.json").write_bytes(content)


def vocabulary(root: Path, text: bytes) -> None:
    for name, content in (("a", text), ("b", text.replace(b"1", b"-"))):
        (root / name).mkdir()
        (root / name / "vocab.json").write_bytes(content)


def document(name: str, form: str) -> Callable[[Path, bytes], None]:
    def lay_out(root: Path, text: bytes) -> None:
        content = b'{"format":"%s","format_version":2,"x":%s,"sha256":"@"}' % (form.encode(), text)
        if len(text) <= SMALL * 1.1:
            with contextlib.suppress(ValueError):  # the reader meets the same
                content = content.replace(b"@", document_digest(loads_strictly(content)).encode())
        (root / name).write_bytes(content)

    return lay_out


def shards(root: Path, text: bytes) -> None:
    """Eight shards of tensors without entries, in as few letters as can be."""
    names = [f"{number:x}" for number in range(SHARDED)]
    files = [f"{number}.safetensors" for number in range(8)]
    entry = '"%s":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    for number, file in enumerate(files):
        content = "{" + ",".join(entry % name for name in names[number::8]) + "}"
        (root / file).write_bytes(len(content).to_bytes(8, "little") + content.encode())
    weight_map = {name: files[number % 8] for number, name in enumerate(names)}
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def vector(root: Path, text: bytes) -> None:
    """A document with as many deltas as fit, in as few letters as can be, and its shard."""
    names = [f"{number:x}" for number in range(DELTAS)]
    entry = '"%s":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    content = ("{" + ",".join(entry % name for name in names) + "}").encode()
    (root / "v.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    donor = {"location": "", "revision": None, "fingerprint": "", "tensors": 0, "files": {}, "small_files": {}}
    info = {"shape": [0], "dtype": "U8", "encoding": "sparse", "file": "v.safetensors", "digest": "", "residual": 0,
            "checkpoint_dtype": "F32", "changed": 0, "norm": 0, "base_norm": 0, "rounding": 0,
            "steps": [0] * len(STEP_BINS)}  # fmt: skip
    signed = {
        "format": "reasonvec.vector", "format_version": 2, "donors": {"tuned": donor, "base": donor}, "only": [],
        "skip": [], "left_out": [], "tied": {}, "files": {"v.safetensors": {"bytes": 8 + len(content)}},
        "options": {"encoding": ""}, "relation": None, "step_bins": [], "carried": {},
        "tensors": dict.fromkeys(names, info),
    }  # fmt: skip
    signed["sha256"] = document_digest(signed)
    (root / "vector.json").write_text(json.dumps(signed, separators=(",", ":")))


def both(root: Path) -> list[Checkpoint]:
    return [Checkpoint(name, root / name, None, {}) for name in ("a", "b")]


READERS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[Path], object]]] = {
    "header": (header, open_checkpoint),
    "index": (index, open_checkpoint),
    "shards": (shards, open_checkpoint),
    "config": (config, lambda root: configuration_findings(*both(root))),
    "tokenizer": (tokenizer, lambda root: tokenizer_findings(*both(root), True)),
    "vocabulary": (vocabulary, lambda root: tokenizer_findings(*both(root), True)),
    "vector.json": (document("vector.json", "reasonvec.vector"), open_vector),
    "reasonvec.json": (document("reasonvec.json", "reasonvec.receipt"), read_receipt),
    "vector": (vector, open_vector),
}
BRIEF = ("short objects", "texts of a megabyte", "long names in one another", "ids by name")
CASES = [
    *(("index", family, SIZE) for family in FAMILIES),
    *((reader, family, SIZE) for reader in ("header", "config", "tokenizer", "vocabulary", "vector.json")
      for family in BRIEF),
    ("reasonvec.json", "short objects", SIZE),
    *(("header", family, SIZE) for family in ("objects by name", "one text", "one name of text")),
    *(("tokenizer", family, SIZE) for family in ("pieces", "short texts", "one text")),
    *(("vector.json", family, SMALL) for family in ("escapes", "short texts")),
    ("shards", "as few letters as can be", 0), ("vector", "as few letters as can be", 0),
]  # fmt: skip


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(read: Callable[[Path], object], root: Path) -> tuple[str, int]:
    """What `read` answers, and by how much memory grew: in a process of its own, since a peak is never forgotten."""
    receiver, sender = os.pipe()
    if not (child := os.fork()):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
        before = memory("VmRSS")
        try:
            answer = str(type(read(root)).__name__)
        except ReasonvecError as error:
            answer = str(error)
        except BaseException as error:  # noqa: BLE001
            answer = f"not a ReasonvecError: {error!r}"
        os.write(sender, json.dumps([answer[:300], memory("VmHWM") - before]).encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer, grown = json.loads(pipe.read())
    os.waitpid(child, 0)
    return answer, grown


def main(directory: Path) -> Iterator[dict[str, object]]:
    made: dict[tuple[str, int], bytes] = {}
    for name, family, size in CASES:
        lay_out, read = READERS[name]
        if (family, size) not in made:
            made[family, size] = FAMILIES[family](size) if family in FAMILIES else b""
        root = directory / name
        root.mkdir()
        lay_out(root, made[family, size])
        total = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        answer, grown = measured(read, root)
        shutil.rmtree(root)
        yield {"case": [name, family, size], "bytes": total, "grown": grown, "answer": answer}


if __name__ == "__main__":
    for line in main(Path(sys.argv[1])):
        print(json.dumps(line), flush=True)
