"""Open a Hugging Face model directory safely: its tensors, its configuration, its small files. Reads no tensor data
until asked, never unpickles, never runs code from the directory.
"""

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError
from reasonvec.weights.files import MAX_SMALL_FILE, check_inside, open_regular, read_small
from reasonvec.weights.findings import shown
from reasonvec.weights.mirror import Mirror
from reasonvec.weights.read_ahead import ReadAhead
from reasonvec.weights.safetensors_header import TensorEntry, read_header
from reasonvec.weights.stores import RemoteFile
from reasonvec.weights.strict_json import Budget, complaint, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SMALL_MARGIN = 16 << 20
"""Bytes that a configuration may take beyond its size: those of several checkpoints are held at once."""
MAX_TEMPLATE = 4 << 20
"""Bytes of a file that is made a text of as a whole: a chat template; they have some thousand."""
_MOST_OPEN = 128
"""Files that a reader keeps open at once; a system allows some 1000."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".ot")
_NOT_COPIED = ("reasonvec.json", "vector.json", "training.json", "plan.json", "log.jsonl", "README.md")


@dataclass(frozen=True)
class Checkpoint:
    """A model directory whose headers and index have been checked. `open_checkpoint` makes them."""

    location: str
    """What the user named: a path, `owner/name[@revision]` on the Hub, or an address in a store."""
    path: Path
    """The directory; of a checkpoint in a store, that of its mirror."""
    revision: str | None
    """The commit on the Hub, where that is known."""
    tensors: Mapping[str, TensorEntry]
    follow_links: bool = False
    mirror: Mirror | None = None
    """Of a checkpoint in a store."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, or an empty dict where there is none."""
        config = self.json("config.json")
        if config is not None and not isinstance(config, dict):
            raise CheckpointError(f"{self.path / 'config.json'} holds a JSON {type(config).__name__}, not an object.")
        return config or {}

    def json(self, name: str) -> Any:
        """The parsed content of one of the small files, or None where the checkpoint has none of that name. Raises
        CheckpointError where it is not JSON, or takes more memory than its size and a margin."""
        path = self.file(name)
        if path is None:
            return None
        try:
            return read_json(path, Budget(SMALL_MARGIN))
        except ValueError as error:
            raise CheckpointError(f"{path} {complaint(error)}.") from None

    def text(self, name: str, most: int = MAX_SMALL_FILE) -> bytes | None:
        """The bytes, `most` of them, of one of the small files, or None where the checkpoint has none of that name."""
        path = self.file(name)
        return None if path is None else read_small(path, most)

    def file(self, name: str) -> Path | None:
        """Where one of the small files lies, or None where the checkpoint has none of that name."""
        path = self.path / name
        if not os.path.lexists(path):
            return None
        check_inside(path, self.path, self.follow_links)
        return path

    def small_files(self) -> list[str]:
        """The names of all that makes a checkpoint beside its weights: configuration, tokenizer, chat templates,
        generation settings, code, licence. In sorted order. The model card, older receipts and a training's
        record are not among them: what they say is true of this checkpoint only."""
        names = [path.name for path in self.path.iterdir() if _is_small(path)]
        templates = self.path / "additional_chat_templates"
        if templates.is_dir():
            names += [f"{templates.name}/{path.name}" for path in templates.glob("*.jinja") if path.is_file()]
        for name in names:
            check_inside(self.path / name, self.path, self.follow_links)
        return sorted(names)


def _is_small(path: Path) -> bool:
    return (
        path.is_file()
        and not path.name.startswith(".")
        and path.name not in _NOT_COPIED
        and path.suffix not in _WEIGHTS
        and not path.name.endswith(".index.json")
    )


def open_checkpoint(
    path: Path, *, location: str | None = None, revision: str | None = None, follow_links: bool = False,
    mirror: Mirror | None = None,
) -> Checkpoint:  # fmt: skip
    """Check the directory `path` and read its headers. One in a store is opened by its `mirror`.

    Raises CheckpointError for a missing directory, weights that are not safetensors, a damaged header, an index that
    disagrees with its shards, a shard or link outside the directory (links of the Hub cache's own layout excepted;
    `follow_links` allows any), and a name in two shards.
    """
    if not path.is_dir():
        what = "is a file; name the directory that holds it" if path.exists() else "does not exist"
        raise CheckpointError(
            f"{path} {what}. A checkpoint is a directory with {SINGLE} (or shards and their index) and config.json, "
            f"or an `owner/name` on the Hub."
        )
    try:
        path = path.resolve(strict=True)
        budget = Budget()  # one for all: many small shards take as much as a large one
        weight_map = _weight_map(path, follow_links, budget)
        shards = _shards(path, weight_map)
        tensors: dict[str, TensorEntry] = {}
        for name in shards:
            check_inside(path / name, path, follow_links)
            budget.grow((path / name).stat().st_size)
            entries, _ = read_header(path / name, budget)
            _check_distinct(path, tensors, entries)
            tensors |= entries
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if set(shards) != {SINGLE}:
        _check_index(path, weight_map, tensors)
    if not tensors:
        raise CheckpointError(f"{path} has no tensors in its safetensors files; there is nothing to compute with.")
    if mirror:
        tensors = {name: mirror.remote(entry) for name, entry in tensors.items()}
    return Checkpoint(location or str(path), path, revision, dict(sorted(tensors.items())), follow_links, mirror)


def _check_distinct(path: Path, tensors: Mapping[str, TensorEntry], entries: Mapping[str, TensorEntry]) -> None:
    if twice := sorted(tensors.keys() & entries.keys()):
        first = twice[0]
        raise CheckpointError(
            f"{path}: {len(twice)} tensors are in two shards, first {first!r}, in {tensors[first].path.name} and "
            f"{entries[first].path.name}. Which one counts is not defined; remove the stale shard."
        )


def _shards(path: Path, weight_map: Mapping[str, str]) -> list[str]:
    """The names of the weight files of the checkpoint at `path`."""
    single = os.path.lexists(path / SINGLE)
    if weight_map:
        names = sorted(set(weight_map.values()))
        if single and names != [SINGLE]:
            raise CheckpointError(
                f"{path} has both {SINGLE} and {INDEX}, which names other files. transformers would load the first, "
                f"other tools the second. Remove the one that is stale."
            )
        return names
    if single:
        return [SINGLE]
    raise CheckpointError(_why_no_weights(path))


def _why_no_weights(path: Path) -> str:
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        return (
            f"{path} holds pickled weights ({pickles[0]}) and no {SINGLE}. Opening a pickle can run any program, so "
            f'reasonvec never does. If you trust its origin, convert it once: python -c "from transformers import '
            f"AutoModelForCausalLM as M; M.from_pretrained('{path}', dtype='auto').save_pretrained('{path}')\""
        )
    if (path / "adapter_model.safetensors").exists():
        return (
            f"{path} holds a LoRA adapter, not a whole checkpoint. Make a vector of it: reasonvec import lora {path} "
            f"--base BASE --out VECTOR."
        )
    if (path / ".metadata").exists():
        return (
            f"{path} holds a distributed checkpoint of torch. Make an ordinary one of it: reasonvec import dcp {path} "
            f"--like BASE --out CHECKPOINT."
        )
    if (path / "vector.json").exists():
        return f"{path} is a vector, not a checkpoint. Pass it with --vector."
    others = sorted(file.name for file in path.iterdir() if file.suffix in _WEIGHTS)
    found = f"only {', '.join(others[:3])}" if others else "no weights at all"
    return (
        f"{path} has neither {SINGLE} nor {INDEX} ({found}). Those two are the names that transformers writes and "
        f"reads; save the model with `save_pretrained`."
    )


def _weight_map(path: Path, follow_links: bool, budget: Budget) -> dict[str, str]:
    """The index's map from tensor names to shards; empty where there is no index."""
    index = path / INDEX
    if not os.path.lexists(index):
        return {}
    check_inside(index, path, follow_links)
    try:
        parsed = read_json(index, budget)
    except ValueError as error:
        raise CheckpointError(f"{index} {complaint(error)}.") from None
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no `weight_map` from tensor names to shards.")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_shard_name(shard):
            raise CheckpointError(
                f"{index} puts {shown(tensor)} in {shown(shard)}. A shard is a safetensors file in the same directory; "
                f"a path that leads elsewhere could read any file of this machine, so it is refused."
            )
    return weight_map


def _is_shard_name(name: str) -> bool:
    return name.endswith(".safetensors") and "/" not in name and "\0" not in name


def _check_index(path: Path, weight_map: Mapping[str, str], tensors: Mapping[str, TensorEntry]) -> None:
    count, first = 0, []  # not a list of all: there may be as many as there are names in a hostile index
    for fault in _index_faults(weight_map, tensors):
        count += 1
        if count <= 5:
            first.append(fault)
    if count:
        raise CheckpointError(
            f"{path / INDEX} and the shards disagree in {count} tensors: {'; '.join(first)}"
            f"{' ...' if count > 5 else ''}. Part of the download is missing or stale; fetch it again."
        )


def _index_faults(weight_map: Mapping[str, str], tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    for name in weight_map:
        if name not in tensors:
            yield f"{shown(name)} is in no shard"
    for name, entry in tensors.items():
        if name not in weight_map:
            yield f"{name!r} in {entry.path.name} is not in the index"
    for name, shard in weight_map.items():
        if name in tensors and tensors[name].path.name != shard:
            yield f"{name!r} is in {tensors[name].path.name}, not in {shard}"


class TensorReader:
    """Positioned reads from checkpoints' files, which stay open from one read to the next. Several threads may read."""

    def __init__(self, *, drop_behind: bool = False) -> None:
        self._open: dict[Path, _OpenFile] = {}
        self._lock = threading.Lock()
        self._ahead: ReadAhead | None = None
        self._drop_behind = drop_behind
        """Whether what was read leaves the page cache: with more to read than memory, it would push out all else."""

    def read_into(self, entry: TensorEntry, start: int, buffer: memoryview, *, alone: bool = False) -> None:
        """Fill `buffer` with the bytes of `entry` from byte `start` on; CheckpointError if they are not there.

        `alone` says that what follows will not be read next, so that a store is asked for no more than this.
        """
        if isinstance(entry.path, RemoteFile):
            self._ahead_of_reads().read_into(entry.path, entry, start, buffer, alone)
            return
        done, position = 0, entry.offset + start
        try:
            file = self._borrow(entry.path)
            try:
                while done < len(buffer):
                    count = os.preadv(file.descriptor, [buffer[done:]], position + done)
                    if count == 0:
                        raise CheckpointError(
                            f"{entry.path} ended at byte {position + done}, inside {entry.name!r}: it was cut while it "
                            f"was being read. Nothing was written; wait until it is whole and run again."
                        )
                    done += count
                if self._drop_behind:
                    os.posix_fadvise(file.descriptor, position, len(buffer), os.POSIX_FADV_DONTNEED)
            finally:
                with self._lock:
                    file.users -= 1
        except OSError as error:
            raise CheckpointError(
                f"{entry.path} cannot be read at {entry.name!r}: {error.strerror or error}. Nothing was written."
            ) from error

    def _borrow(self, path: Path) -> "_OpenFile":
        """An open file, which is not closed before it is given back by counting down its users."""
        with self._lock:
            file = self._open.get(path)
            if file is None:
                if len(self._open) >= _MOST_OPEN:
                    self._close([idle for idle, opened in self._open.items() if not opened.users])
                file = self._open[path] = _OpenFile(open_regular(path))
            file.users += 1
            return file

    def _close(self, paths: Iterable[Path]) -> None:
        for path in paths:
            os.close(self._open.pop(path).descriptor)

    def _ahead_of_reads(self) -> ReadAhead:
        with self._lock:
            self._ahead = self._ahead or ReadAhead()
            return self._ahead

    def close(self) -> None:
        """Close every file. The reader can be used again."""
        with self._lock:
            self._close(list(self._open))
            ahead, self._ahead = self._ahead, None
        if ahead:
            ahead.close()


@dataclass
class _OpenFile:
    descriptor: int
    users: int = 0


@contextmanager
def tensor_reader(*, drop_behind: bool = False) -> Iterator[TensorReader]:
    """A `TensorReader` for the duration of a `with` block."""
    reader = TensorReader(drop_behind=drop_behind)
    try:
        yield reader
    finally:
        reader.close()


_LAYER = re.compile(r"\.(\d{1,6})\.")


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor name belongs to: its first component that is a number, else None."""
    found = _LAYER.search(f".{name}.")
    return int(found[1]) if found else None
