"""The tokens of a checkpoint and the rules by which text is cut into them, from tokenizer.json or vocab.json as they
are read: of what may be long only the tokens are kept. What two vocabularies mean for a vector is for `tokenizer`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sys import getsizeof
from typing import Any

from reasonvec.errors import CheckpointError
from reasonvec.weights.canonical import canonical_pieces
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.strict_json import Budget, DuplicateNameError, JsonReader, TooLargeError, complaint, json_reader

_MOST_ID = 1 << 62
_TOKEN_BYTES = 40
"""What a token takes beside its text and its place: its id, and that memory is given out in multiples of 16 bytes."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a checkpoint."""

    source: str
    """The file they are from."""
    ids: Mapping[str, int]
    rules: Mapping[str, bytes]
    """How text is cut into tokens, by part (merges, normalizer, pre_tokenizer): a digest of each."""


class UnreadableError(Exception):
    """A tokenizer file of a shape that is not known here, or with more tokens than its size explains."""


def read_vocabulary(checkpoint: Checkpoint, budget: Budget) -> Vocabulary | None:
    """The map from tokens to ids from tokenizer.json, else from vocab.json and added_tokens.json; None without them.

    Raises CheckpointError for what is not JSON, UnreadableError for what is no vocabulary or does not fit in `budget`.
    """
    if (path := checkpoint.file("tokenizer.json")) is not None:
        with _opened(path, budget) as reader:
            return _Document(str(path), reader).vocabulary()
    if (path := checkpoint.file("vocab.json")) is not None:
        ids = _read_ids(path, budget)
        if (path := checkpoint.file("added_tokens.json")) is not None:
            _keep(ids, _read_ids(path, budget), budget)
        return Vocabulary("vocab.json", ids, {})
    return None


@contextmanager
def _opened(path: Path, budget: Budget) -> Iterator[JsonReader]:
    try:
        with json_reader(path, budget) as reader:
            yield reader
    except TooLargeError as error:
        raise UnreadableError(f"{path} {complaint(error)}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} {complaint(error)}.") from None


def _read_ids(path: Path, budget: Budget) -> dict[str, int]:
    with _opened(path, budget) as reader:
        ids = _ids(reader, str(path))
        reader.finish()
        return ids


class _Document:
    """A tokenizer.json as it is read, part after part."""

    def __init__(self, where: str, reader: JsonReader) -> None:
        self._where, self._reader = where, reader
        self._ids: dict[str, int] | None = None
        self._added: dict[str, int] = {}
        self._rules = dict.fromkeys(("merges", "normalizer", "pre_tokenizer"), _digest(None))

    def vocabulary(self) -> Vocabulary:
        """All that it says of tokens."""
        has_model = False
        for name in self._names():
            if name == "model":
                has_model = self._reader.next_letter() == "{"
                self._read_model()
            elif name == "added_tokens":
                self._added = _added(self._reader, self._where)
            elif name in ("normalizer", "pre_tokenizer"):
                self._rules[name] = _rule(self._reader)
            else:
                self._reader.skip()
        self._reader.finish()
        if not has_model:
            raise UnreadableError(f"{self._where} has no `model` object")
        if self._ids is None:
            raise _no_map(f"{self._where}: model.vocab")
        _keep(self._ids, self._added, self._reader.budget)
        return Vocabulary("tokenizer.json", self._ids, self._rules)

    def _read_model(self) -> None:
        for name in self._names():
            if name == "vocab":
                self._ids = _ids(self._reader, f"{self._where}: model.vocab")
            elif name == "merges":
                self._rules[name] = _merges(self._reader)
            else:
                self._reader.skip()

    def _names(self) -> Iterator[str]:
        """The names of the object that comes next; none of anything else, which is skipped."""
        if self._reader.next_letter() == "{":
            yield from self._reader.names()
        else:
            self._reader.skip()


def _ids(reader: JsonReader, where: str) -> dict[str, int]:
    """BPE, WordPiece and WordLevel keep a map, Unigram a list of [piece, score] in the order of the ids."""
    ids: dict[str, int] = {}
    if reader.next_letter() == "{":
        for part in reader.pairs():
            if not all(type(index) is int for index in part.values()) or not _are_ids(part):
                raise _no_map(where)
            if twice := ids.keys() & part.keys():
                raise DuplicateNameError(min(twice))
            _keep(ids, part, reader.budget)
        return ids
    if reader.next_letter() != "[":
        raise _no_map(where)
    count = 0
    for pieces in reader.elements():
        if not all(isinstance(piece, list) and piece and isinstance(piece[0], str) for piece in pieces):
            raise _no_map(where)
        _keep(ids, {piece[0]: index for index, piece in enumerate(pieces, count)}, reader.budget)
        count += len(pieces)
    return ids


def _are_ids(part: Mapping[str, int]) -> bool:
    return not part or -_MOST_ID < min(part.values()) <= max(part.values()) < _MOST_ID


def _no_map(where: str) -> UnreadableError:
    return UnreadableError(f"{where} is neither a map from tokens to ids nor a list of pieces")


def _added(reader: JsonReader, where: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    fault = UnreadableError(f"{where}: added_tokens is not a list of {{id, content}}")
    if reader.next_letter() != "[":
        raise fault
    for tokens in reader.elements():
        if not all(
            isinstance(t, dict) and isinstance(t.get("content"), str) and type(t.get("id")) is int for t in tokens
        ):
            raise fault
        part = {token["content"]: token["id"] for token in tokens}
        if not _are_ids(part):
            raise fault
        _keep(ids, part, reader.budget)
    return ids


def _keep(ids: dict[str, int], part: Mapping[str, int], budget: Budget) -> None:
    size = getsizeof(ids)
    budget.reserve(2 * size)
    ids.update(part)
    budget.spend(getsizeof(ids) - size + sum(map(getsizeof, part)) + _TOKEN_BYTES * len(part))


def _merges(reader: JsonReader) -> bytes:
    """The digest of merges. Newer files write pairs where older ones wrote one text with a space."""
    if reader.next_letter() != "[":
        return _rule(reader)
    digest = hashlib.sha256(b"[")
    for part in reader.elements():
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in part]
        if len(merges) == 1:
            _update(digest, merges[0])
        else:  # some thousand, which were in one window
            digest.update(json.dumps(merges, sort_keys=True, separators=(",", ":"))[1:-1].encode())
        digest.update(b"," if merges else b"")
    return digest.digest()


def _rule(reader: JsonReader) -> bytes:
    """The digest of what comes next, which is not kept."""
    with reader.budget.lent():
        return _digest(reader.value())


def _digest(value: Any) -> bytes:
    digest = hashlib.sha256()
    _update(digest, value)
    return digest.digest()


def _update(digest: Any, value: Any) -> None:
    for piece in canonical_pieces(value, allow_nan=True):
        digest.update(piece.encode())
