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


def read_vocabulary(checkpoint: Checkpoint, budget: Budget, like: Vocabulary | None = None) -> Vocabulary | None:
    """The map from tokens to ids from tokenizer.json, else from vocab.json and added_tokens.json; None without them.
    What it has in common with another vocabulary, `like`, takes no memory again.

    Raises CheckpointError for what is not JSON, UnreadableError for what is no vocabulary or does not fit in `budget`.
    """
    tokens = _Tokens(budget, like.ids if like else {})
    if (path := checkpoint.file("tokenizer.json")) is not None:
        with _opened(path, budget) as reader, tokens.gathered():
            return _Document(str(path), reader, tokens).vocabulary()
    if (path := checkpoint.file("vocab.json")) is not None:
        for name in (path, checkpoint.file("added_tokens.json")):
            if name is not None:
                with _opened(name, budget) as reader, tokens.gathered():
                    _read_ids(reader, str(name), tokens)
                    reader.finish()
        return Vocabulary("vocab.json", tokens.ids, {})
    return None


class _Tokens:
    """Tokens and their ids as they are gathered."""

    def __init__(self, budget: Budget, like: Mapping[str, int]) -> None:
        self.ids: dict[str, int] = {}
        self._budget, self._like = budget, like
        self._known: dict[str, str] = {}
        """The tokens of `like`, to find those that are the same."""

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What it takes to find tokens again is held for the duration of a `with` block."""
        self._known = dict(zip(self._like, self._like, strict=True))
        size = getsizeof(self._known)
        self._budget.spend(size)
        try:
            yield
        finally:
            self._known = {}
            self._budget.spent -= size

    def add(self, part: Mapping[str, int]) -> None:
        """Keep these too; of a token that was there already the id that comes now."""
        size, cost = getsizeof(self.ids), 0
        self._budget.reserve(2 * size)
        if not self._known:
            self.ids.update(part)
            self._budget.spend(getsizeof(self.ids) - size + sum(map(getsizeof, part)) + _TOKEN_BYTES * len(part))
            return
        for token, index in part.items():
            if (known := self._known.get(token)) is None:
                cost += getsizeof(token) + _TOKEN_BYTES
                self.ids[token] = index
            else:
                like = self._like[known]
                self.ids[known] = like if like == index else index
                cost += _TOKEN_BYTES * (like != index)
        self._budget.spend(getsizeof(self.ids) - size + cost)


@contextmanager
def _opened(path: Path, budget: Budget) -> Iterator[JsonReader]:
    try:
        with json_reader(path, budget) as reader:
            yield reader
    except TooLargeError as error:
        raise UnreadableError(f"{path} {complaint(error)}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} {complaint(error)}.") from None


class _Document:
    """A tokenizer.json as it is read, part after part."""

    def __init__(self, where: str, reader: JsonReader, tokens: _Tokens) -> None:
        self._where, self._reader, self._tokens = where, reader, tokens
        self._added: dict[str, int] = {}
        self._rules = dict.fromkeys(("merges", "normalizer", "pre_tokenizer"), _digest(None))

    def vocabulary(self) -> Vocabulary:
        """All that it says of tokens."""
        has_model, has_map = False, False
        for name in self._names():
            if name == "model":
                has_model = self._reader.next_letter() == "{"
                has_map = self._read_model()
            elif name == "added_tokens":
                self._added = _added(self._reader, self._where)
            elif name in ("normalizer", "pre_tokenizer"):
                self._rules[name] = _rule(self._reader)
            else:
                self._reader.skip()
        self._reader.finish()
        if not has_model:
            raise UnreadableError(f"{self._where} has no `model` object")
        if not has_map:
            raise _no_map(f"{self._where}: model.vocab")
        self._tokens.add(self._added)
        return Vocabulary("tokenizer.json", self._tokens.ids, self._rules)

    def _read_model(self) -> bool:
        """Tokens and merges; whether there is a map of tokens."""
        found = False
        for name in self._names():
            if name == "vocab":
                _read_ids(self._reader, f"{self._where}: model.vocab", self._tokens)
                found = True
            elif name == "merges":
                self._rules[name] = _merges(self._reader)
            else:
                self._reader.skip()
        return found

    def _names(self) -> Iterator[str]:
        """The names of the object that comes next; none of anything else, which is skipped."""
        if self._reader.next_letter() == "{":
            yield from self._reader.names()
        else:
            self._reader.skip()


def _read_ids(reader: JsonReader, where: str, tokens: _Tokens) -> None:
    """BPE, WordPiece and WordLevel keep a map, Unigram a list of [piece, score] in the order of the ids."""
    if reader.next_letter() == "{":
        first = not tokens.ids  # added_tokens.json may state again what vocab.json has
        for part in reader.pairs():
            if not all(type(index) is int for index in part.values()) or not _are_ids(part):
                raise _no_map(where)
            if first and (twice := tokens.ids.keys() & part.keys()):
                raise DuplicateNameError(min(twice))
            tokens.add(part)
        return
    if reader.next_letter() != "[":
        raise _no_map(where)
    count = 0
    for pieces in reader.elements():
        if not all(isinstance(piece, list) and piece and isinstance(piece[0], str) for piece in pieces):
            raise _no_map(where)
        tokens.add({piece[0]: index for index, piece in enumerate(pieces, count)})
        count += len(pieces)


def _are_ids(part: Mapping[str, int]) -> bool:
    return not part or -_MOST_ID < min(part.values()) <= max(part.values()) < _MOST_ID


def _no_map(where: str) -> UnreadableError:
    return UnreadableError(f"{where} is neither a map from tokens to ids nor a list of pieces")


def _added(reader: JsonReader, where: str) -> dict[str, int]:
    tokens = _Tokens(reader.budget, {})
    fault = UnreadableError(f"{where}: added_tokens is not a list of {{id, content}}")
    if reader.next_letter() != "[":
        raise fault
    for found in reader.elements():
        if not all(
            isinstance(t, dict) and isinstance(t.get("content"), str) and type(t.get("id")) is int for t in found
        ):
            raise fault
        part = {token["content"]: token["id"] for token in found}
        if not _are_ids(part):
            raise fault
        tokens.add(part)
    return tokens.ids


def _merges(reader: JsonReader) -> bytes:
    """The digest of merges. Newer files write pairs where older ones wrote one text with a space."""
    if reader.next_letter() != "[":
        return _rule(reader)
    digest = hashlib.sha256(b"[")
    for part in reader.elements():
        if len(part) > 1:  # some thousand, which were in one window
            merges = json.dumps([_merge(merge) for merge in part], sort_keys=True, separators=(",", ":"))
            digest.update(merges[1:-1].encode())
        else:
            _update(digest, _merge(part[0]) if part else None)
        digest.update(b",")
    return digest.digest()


def _merge(merge: Any) -> Any:
    """One text where both parts are without spaces, which is nearly always; a list else."""
    if type(merge) is str:
        return merge if merge.count(" ") == 1 else merge.split(" ")
    if type(merge) is list and len(merge) == 2 and type(merge[0]) is type(merge[1]) is str:
        joined = f"{merge[0]} {merge[1]}"
        return joined if joined.count(" ") == 1 else merge
    return merge


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
