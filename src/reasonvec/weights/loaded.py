"""A model in memory seen as the checkpoint that it was loaded from: which tensor of it, or which part of one, each name
of the checkpoint means, and how to read and write runs of its entries. Knows nothing of vectors, and computes nothing.
"""

import sys
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reasonvec.errors import IncompatibleError
from reasonvec.weights.alignment import Misfit
from reasonvec.weights.checkpoint import Checkpoint, TensorReader
from reasonvec.weights.dtypes import Array
from reasonvec.weights.safetensors_header import TensorEntry

_CODES = {
    torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers as which entries are moved, by their bytes: no copy of them can then change a bit."""


@dataclass(frozen=True)
class Place:
    """Where a tensor of the checkpoint lies in the model. Entries are counted in the checkpoint's C order, and handed
    over as unsigned integers of their width."""

    tensor: Tensor
    """What this process holds of it, as a view of the parameter, in integers."""
    offset: tuple[int, ...]
    """Where in the whole tensor that begins; zeros unless the model is sharded."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    owner: Tensor
    """The parameter or buffer of the model."""

    @property
    def whole(self) -> bool:
        """Whether this process holds all of it."""
        return tuple(self.tensor.shape) == self.shape

    @cached_property
    def flat(self) -> Array | None:
        """All entries in order, as an array that is the model's own memory. None where they do not lie so."""
        if self.tensor.device.type != "cpu" or not self.whole or not self.tensor.is_contiguous():
            return None
        with torch.inference_mode():
            array: Array = self.tensor.view(-1).numpy()
        return array.view(f"u{array.itemsize}")

    def read(self, start: int, out: Array) -> None:
        """Fill `out` with the entries from `start` on; those that another process holds are left as they are."""
        with torch.inference_mode():
            for part, place in self._parts(start, out):
                torch.from_numpy(place).copy_(part)

    def write(self, start: int, values: Array) -> None:
        """The inverse of `read`."""
        with torch.inference_mode():
            for part, place in self._parts(start, values):
                part.copy_(torch.from_numpy(place))

    def held(self, start: int, count: int) -> Array:
        """Which of the entries from `start` on this process holds, as an array of bool."""
        mask = np.zeros(count, np.bool_)
        for _, place in _parts(self.tensor, self.offset, self.shape, start, start + count, mask):
            place[...] = True
        return mask

    def _parts(self, start: int, values: Array) -> Iterator[tuple[Tensor, Array]]:
        signed = values.view(f"i{values.itemsize}")
        return _parts(self.tensor, self.offset, self.shape, start, start + len(values), signed)


def _parts(
    tensor: Tensor, offset: tuple[int, ...], shape: tuple[int, ...], start: int, stop: int, flat: Array
) -> Iterator[tuple[Tensor, Array]]:
    """The entries from `start` to `stop` of a tensor of `shape`, of which `tensor` is what lies at `offset`: views of
    `tensor`, each with the view of `flat` (those entries in order) that has its shape and its place."""
    if not shape:
        yield tensor, flat.reshape(())
        return
    row = prod(shape[1:])
    if not tensor.numel() or stop <= start:
        return
    first, last = -(-start // row), stop // row  # the rows that are whole
    if first > last:
        yield from _row(tensor, offset, shape, last, start - last * row, stop - last * row, flat)
        return
    head, tail = first * row - start, last * row - start
    if head:
        yield from _row(tensor, offset, shape, first - 1, row - head, row, flat[:head])
    low, high = max(first, offset[0]), min(last, offset[0] + tensor.shape[0])
    if low < high:
        block = flat[head:tail].reshape(last - first, *shape[1:])
        inner = tuple(slice(o, o + n) for o, n in zip(offset[1:], tensor.shape[1:], strict=True))
        yield tensor[low - offset[0] : high - offset[0]], block[(slice(low - first, high - first), *inner)]
    if tail < len(flat):
        yield from _row(tensor, offset, shape, last, 0, len(flat) - tail, flat[tail:])


def _row(
    tensor: Tensor, offset: tuple[int, ...], shape: tuple[int, ...], row: int, start: int, stop: int, flat: Array
) -> Iterator[tuple[Tensor, Array]]:
    if offset[0] <= row < offset[0] + tensor.shape[0]:
        yield from _parts(tensor[row - offset[0]], offset[1:], shape[1:], start, stop, flat)


@dataclass(frozen=True)
class LoadedModel(Checkpoint):
    """A model in memory as a checkpoint: of tied tensors it has one, as the file would. `see` makes them."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """The model's configuration, as config.json has it."""
    places: Mapping[str, Place] = field(default_factory=dict)
    refused: Mapping[str, Misfit] = field(default_factory=dict)
    """The tensors that are in the model and cannot be changed there."""

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration; an empty dict where it has none."""
        return dict(self.settings)


class MemoryReader(TensorReader):
    """Reads the tensors of a model in memory as if they were in a file."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        super().__init__()
        self._places = places

    def read_into(self, entry: TensorEntry, start: int, buffer: memoryview, *, alone: bool = False) -> None:
        """Fill `buffer` with the bytes of `entry` from byte `start` on."""
        place = self._places[entry.name]
        size = place.tensor.element_size()
        first = start // size
        entries = np.zeros(-(-(start + len(buffer)) // size) - first, f"u{size}")
        place.read(first, entries)
        buffer[:] = entries.view(np.uint8).data[start - first * size :][: len(buffer)]


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The model that `torch.compile` has wrapped, or the model itself."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, torch.nn.Module) else model


def gather(model: torch.nn.Module) -> None:
    """Let FSDP drop what it gathered for the last forward pass, so that the next one uses the shards again."""
    if fsdp := sys.modules.get("torch.distributed.fsdp"):
        for module in model.modules():
            if isinstance(module, fsdp.FSDPModule):
                module.reshard()


def see(model: torch.nn.Module, wanted: Collection[str]) -> LoadedModel:
    """See `model` as a checkpoint; of the names of tied tensors take one that is among `wanted`.

    Raises IncompatibleError for a model whose parameters PEFT or the first FSDP has put in others' place.
    """
    model = unwrapped(model)
    location = f"the {type(model).__name__} in memory"
    _refuse_wrapped(model, location)
    gather(model)
    refused: dict[str, Misfit] = {}
    places: dict[str, Place] = {}
    entries: dict[str, TensorEntry] = {}
    with torch.no_grad():
        for name, (view, owner) in _one_of_each(_views(model, wanted), wanted).items():
            shape = tuple(view.shape)
            found = _place(view, owner)
            if isinstance(found, Place):
                places[name] = found
            else:
                refused[name] = Misfit(name, "live", found)
            # of what is not all here no bytes could be compared with another tensor's
            nbytes = prod(shape) * view.element_size() if isinstance(found, Place) and found.whole else 0
            code = _CODES.get(view.dtype, str(view.dtype))
            entries[name] = TensorEntry(name, code, shape, Path(location), 0, nbytes)
    config: Any = getattr(model, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    return LoadedModel(location, Path(location), None, entries, settings=settings, places=places, refused=refused)


def _refuse_wrapped(model: torch.nn.Module, location: str) -> None:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules():
        if type(module).__module__.split(".")[0] == "peft":
            raise IncompatibleError(
                f"PEFT has put adapters into {location} ({type(module).__name__}), so its weights have other names "
                f"and are not all there is to a layer. Attach the vector before the adapter, or merge that first: "
                f"model = model.merge_and_unload()."
            )
        if fsdp and isinstance(module, fsdp.FullyShardedDataParallel):
            raise IncompatibleError(
                f"FullyShardedDataParallel has joined tensors of {location} into flat ones, in which none can be "
                f"found. Attach the vector before wrapping, or shard with torch.distributed.fsdp.fully_shard."
            )


def _views(model: torch.nn.Module, wanted: Collection[str]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """By the checkpoint's names: the tensor that has that shape, as a view of the model's own where that is possible,
    and the model's own that it is a view of."""
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in model.state_dict(keep_vars=True).items()
             if isinstance(tensor, Tensor)}  # fmt: skip
    own = {id(tensor): tensor for tensor in state.values()}
    plain = sorted((tensor for tensor in own.values() if _has_memory(tensor)), key=Tensor.data_ptr)
    begins = [tensor.data_ptr() for tensor in plain]

    def owner(view: Tensor) -> Tensor | None:
        if id(view) in own or not _has_memory(view) or not plain:
            return own.get(id(view))
        found = plain[max(bisect_right(begins, view.data_ptr()) - 1, 0)]
        same = found.untyped_storage().data_ptr() == view.untyped_storage().data_ptr()
        return found if same and found.data_ptr() <= view.data_ptr() else None

    views = _with_prefix(model, _as_saved(model, state), wanted)
    return {name: (view, owner(view)) for name, view in views.items()}


def _has_memory(tensor: Tensor) -> bool:
    return not _is_distributed(tensor) and not tensor.is_meta and tensor.layout == torch.strided and tensor.numel() > 0


def _is_distributed(tensor: Tensor) -> bool:
    tensors = sys.modules.get("torch.distributed.tensor")  # loaded where there is one
    return tensors is not None and isinstance(tensor, tensors.DTensor)


class _WithoutCopies(TorchFunctionMode):  # type: ignore[misc]
    """Has a conversion of tensors give views where it would make copies, and nothing in memory where it would join."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.contiguous:
            return args[0]
        if function in (torch.cat, torch.stack):
            args = ([tensor.to("meta") for tensor in args[0]], *args[1:])
        return function(*args, **(kwargs or {}))


def _as_saved(model: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names and in the shapes that the model's checkpoint has: transformers renames some as it
    loads, and stacks those of experts. What it does to save them says where each lies."""
    loading = sys.modules.get("transformers.core_model_loading")
    if loading is None or not hasattr(model, "base_model_prefix"):
        return state
    # not shown what is sharded: an operation on it would talk to the other processes
    shown = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") if _is_distributed(tensor) else tensor
             for name, tensor in state.items()}  # fmt: skip
    originals = {id(stand_in): state[name] for name, stand_in in shown.items()}
    try:
        with _WithoutCopies():
            saved = loading.revert_weight_conversion(model, shown)
    except (RuntimeError, ValueError) as error:
        raise IncompatibleError(
            f"transformers cannot save the {type(model).__name__} in memory under the names of its checkpoint "
            f"({error}), as is so of quantised models, and a vector goes by those. Load it without quantisation."
        ) from error
    return {name: originals.get(id(view), view) for name, view in saved.items()}


def _with_prefix(model: torch.nn.Module, views: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The same where the model is the trunk of the one whose names are wanted, or has it as its trunk: transformers
    then leaves out or adds the trunk's name."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    if prefix == "." or any(name in wanted for name in views):
        return views
    trunk = {f"{prefix}{name}": view for name, view in views.items()}
    if any(name in wanted for name in trunk):
        return trunk
    return {name.removeprefix(prefix): view for name, view in views.items()}


def _one_of_each(
    views: Mapping[str, tuple[Tensor, Tensor | None]], wanted: Collection[str]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Without the other names of tied tensors, each of which is changed once."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, (view, _) in views.items():
        where = (view.data_ptr(), view.shape, view.stride()) if _has_memory(view) else (id(view),)
        names.setdefault(where, []).append(name)
    chosen = {next((name for name in tied if name in wanted), tied[0]) for tied in names.values()}
    return {name: view for name, view in views.items() if name in chosen}


def _place(view: Tensor, owner: Tensor | None) -> Place | str:
    """Where a tensor lies, or why it cannot be changed there."""
    if owner is None and not view.is_meta:
        return "is computed from other tensors of the model, so it has no memory of its own to change"
    if owner is None:
        return "is a part of a tensor that is sharded, or joins several, so it has no memory of its own to change"
    local, offset = view, (0,) * view.dim()
    if _is_distributed(view):
        if (part := _part_here(view)) is None:
            return f"is sharded as {getattr(view, 'placements', None)}; known are Shard and Replicate"
        local, offset = part
    elif type(view) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer) or view.layout != torch.strided:
        return f"is a {type(view).__name__}: its weights are stored in another form, to which nothing can be added"
    if local.is_meta:
        return "is not in memory: its layer is offloaded; load the model with all of its layers on devices"
    return Place(local.detach().view(_BITS[local.element_size()]), offset, tuple(view.shape), owner)


def _part_here(tensor: Any) -> tuple[Tensor, tuple[int, ...]] | None:
    """What this process holds of a DTensor, and where in the whole it begins; None for placements that are neither
    `Shard` nor `Replicate`."""
    kinds = sys.modules["torch.distributed.tensor"]
    size, offset = list(tensor.shape), [0] * tensor.dim()
    here = tensor.device_mesh.get_coordinate()
    for axis, placement in enumerate(tensor.placements):
        if type(placement) is kinds.Shard:  # not `isinstance`: subclasses lay entries out in other ways
            dim, count = placement.dim, tensor.device_mesh.size(axis)
            each = -(-size[dim] // count)
            first = min(each * here[axis], size[dim])
            size[dim] = min(each, size[dim] - first)
            offset[dim] += first
        elif type(placement) is not kinds.Replicate:
            return None
    local = tensor.to_local()
    return (local, tuple(offset)) if list(local.shape) == size else None
