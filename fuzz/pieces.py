"""What the bytes of an input mean: a directory, cut into pieces, each a file with a name from a fixed list.

The names are fixed so that no input can write outside of its directory; what the files say of names is free.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

SEPARATOR = b"\n\xff\xfe\n"
"""Between two pieces. No UTF-8 text holds it."""

DATA = b"\xff\xfd\n"
"""Between the header and the data of a safetensors file whose length bytes are put in by `lay_out`."""

NAMES: dict[bytes, bytes] = {
    b"m": b"model.safetensors",
    b"i": b"model.safetensors.index.json",
    b"1": b"model-00001-of-00002.safetensors",
    b"2": b"model-00002-of-00002.safetensors",
    b"c": b"config.json",
    b"p": b"pytorch_model.bin",
    b"a": b"adapter_model.safetensors",
    b"t": b"additional_chat_templates/tool.jinja",
    b"n": b"caf\xe9\x1b.txt",
    b"v": b"vector.json",
    b"e": b"reasonvec.json",
    b"b": b"vector-bfloat16-00001.safetensors",
    b"f": b"vector-float32-00001.safetensors",
    b"d": b"vector-float64-00001.safetensors",
    b"z": b"vector-sparse-00001.safetensors",
    b"l": b"vector-low-rank-00001.safetensors",
    b"q": b"vector-quantised-00001.safetensors",
    b"r": b"residual/residual.safetensors",
    b"s": b"donor/sample.safetensors",
    b"k": b"donor/config.json",
    b"x": b"donor/chat_template.jinja",
    b"y": b"donor/additional_chat_templates",
    b"o": b"donor",
    b"T": b"tokenizer.json",
    b"V": b"vocab.json",
    b"A": b"added_tokens.json",
    b"C": b"tokenizer_config.json",
    b"J": b"chat_template.jinja",
    b"U": b"donor/tokenizer.json",
    b"W": b"donor/vocab.json",
    b"D": b"donor/tokenizer_config.json",
}
LETTERS = {name.decode(errors="replace"): letter for letter, name in NAMES.items()}

PLAIN, SAFETENSORS, LINK, PIPE, FOLDER = b"=", b"#", b">", b"|", b"/"
SIGNED, REPAIRED = b"$", b"%"
"""Documents whose checksum a target puts in: into the text as it is, or after sizes and digests were put right too."""

LINKS = (b".", b"..", b"/", b"/dev/zero", b"/dev/null", b"missing", b"config.json", b"model.safetensors",
         b"vector.json", b"caf\xe9\x1b.txt", b"\xff")  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One file of an input."""

    letter: bytes
    """Which of `NAMES`."""
    kind: bytes
    """How `content` is to be taken: plain, a safetensors file without its length bytes, a link and so on."""
    content: bytes

    def to_bytes(self) -> bytes:
        """What the file holds."""
        if self.kind != SAFETENSORS:
            return self.content
        header, _, data = self.content.partition(DATA)
        return len(header).to_bytes(8, "little") + header + data


def cut(data: bytes) -> list[Piece]:
    """The pieces of an input; every sequence of bytes has some meaning."""
    return [Piece(part[:1], part[1:2], part[2:]) for part in data.split(SEPARATOR)]


def join(pieces: Sequence[Piece]) -> bytes:
    """The input that `cut` cuts into `pieces`."""
    return SEPARATOR.join(piece.letter + piece.kind + piece.content for piece in pieces)


def pack(directory: Path, documents: Sequence[str] = ()) -> list[Piece]:
    """The pieces of a directory on the disk; those named in `documents` are repaired when they are laid out."""
    pieces = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name, content = path.relative_to(directory).as_posix(), path.read_bytes()
        if name in documents:
            pieces.append(Piece(LETTERS[name], REPAIRED, content))
        elif name.endswith(".safetensors"):
            length = 8 + int.from_bytes(content[:8], "little")
            pieces.append(Piece(LETTERS[name], SAFETENSORS, content[8:length] + DATA + content[length:]))
        else:
            pieces.append(Piece(LETTERS[name], PLAIN, content))
    return pieces


def with_content(piece: Piece, content: bytes) -> Piece:
    """The same file with another content."""
    return replace(piece, content=content)


@contextmanager
def laid_out(pieces: Sequence[Piece], directory: Path) -> Iterator[None]:
    """Write the pieces below the empty `directory` for the duration of a `with` block; of two of one name the first."""
    root = os.fsencode(directory)
    made: list[bytes] = []
    folders: list[bytes] = []
    try:
        for piece in pieces:
            name = NAMES.get(piece.letter)
            if name is None:
                continue
            path = os.path.join(root, name)  # noqa: PTH118  # bytes, so that no name need be UTF-8
            folder = os.path.dirname(path)  # noqa: PTH120
            if folder != root and folder not in folders:
                if os.path.lexists(folder):
                    continue  # a link or a file is in the place of the folder
                os.mkdir(folder)  # noqa: PTH102
                folders.append(folder)
            if os.path.lexists(path):
                continue
            if piece.kind == FOLDER:
                os.mkdir(path)  # noqa: PTH102
                folders.append(path)
                continue
            made.append(path)
            if piece.kind == LINK:
                os.symlink(LINKS[sum(piece.content[:1]) % len(LINKS)], path)  # noqa: PTH211
            elif piece.kind == PIPE:
                os.mkfifo(path)
            else:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                os.write(descriptor, piece.to_bytes())
                os.close(descriptor)
        yield
    finally:
        for path in made:
            os.unlink(path)  # noqa: PTH108
        for folder in reversed(folders):
            os.rmdir(folder)  # noqa: PTH106
