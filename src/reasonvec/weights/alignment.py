"""Which tensors of two donors, or of a vector and a target, belong together: by name, shape and dtype, with no table of
architectures. Every misfit is found before any is reported, and before weights are read.

One question needs a look at weights: a tensor that one checkpoint has and another lacks is no difference if it is the
bitwise copy of a tensor that both have, as an output embedding is that is tied to the input embedding.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.blocks import block_digest
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, tensor_reader
from reasonvec.weights.dtypes import BITS_PER_ENTRY, FLOATS, coarser
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.tensors import digest_of
from reasonvec.weights.vector import Vector

_BLOCK = 1 << 20
_SHOWN = 8


@dataclass(frozen=True)
class Misfit:
    """One tensor that does not fit."""

    name: str
    problem: str
    """`missing`, `extra`, `shape`, `dtype`, `carried` or `tied`."""
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True)
class DonorMatch:
    """What `extract` does with each tensor of two donors that fit."""

    computed: Mapping[str, str]
    """Tensor name -> the dtype of the common grid on which the difference is taken."""
    carried: tuple[str, ...]
    """Tensors of a dtype that is not computed with; the donors must agree on them bit for bit."""
    left_out: tuple[str, ...]
    tied: Mapping[str, str]
    """Tensor name -> the tensor that it is a copy of, in every donor that has it."""


class NameFilter:
    """`--only` and `--skip`: which tensor names take part. A name takes part if it matches any of `only` (all do where
    there is none) and none of `skip`; patterns are shell globs over the whole name."""

    def __init__(self, only: Sequence[str] = (), skip: Sequence[str] = ()) -> None:
        self.only, self.skip = tuple(only), tuple(skip)

    def __contains__(self, name: str) -> bool:
        wanted = not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self.skip)

    def check(self, names: Collection[str]) -> None:
        """Raise UsageError for a pattern that matches none of `names`: a typing error would go unseen otherwise."""
        for option, patterns in (("--only", self.only), ("--skip", self.skip)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
                    hint = f" Names that look like it: {', '.join(near)}." if near else ""
                    raise UsageError(
                        f"{option} {pattern!r} matches none of the {len(names)} tensor names.{hint} Patterns match "
                        f"whole names: put * where anything may stand, as in 'model.layers.0.*'."
                    )
        if not any(name in self for name in names):
            raise UsageError("--only and --skip together leave no tensor over; there would be nothing to do.")


def match_donors(tuned: Checkpoint, base: Checkpoint, names: NameFilter) -> DonorMatch:
    """Say what the difference of two donors consists of. Raises IncompatibleError listing every misfit."""
    everything = tuned.tensors.keys() | base.tensors.keys()
    misfits: list[Misfit] = []
    with tensor_reader() as reader:
        tied = donor_ties(tuned, base, reader)
        for name in sorted(everything):
            if name not in names or (name in tied and not (name in tuned.tensors and name in base.tensors)):
                continue
            misfits += _compare(name, tuned.tensors.get(name), base.tensors.get(name), reader)
    if misfits:
        raise IncompatibleError(
            f"The donors do not fit: {len(misfits)} of {len(everything)} tensors differ between tuned {tuned.location} "
            f"and base {base.location}:\n{listing(misfits)}\nA vector is the difference of all tensors; one that is "
            f"missing would be doubled or dropped when it is applied. Use donors of one architecture, or leave tensors "
            f"out by name with --skip."
        )
    both = sorted(tuned.tensors.keys() & base.tensors.keys())
    floats = {n: coarser(tuned.tensors[n].dtype, base.tensors[n].dtype) for n in both
              if n in names and tuned.tensors[n].dtype in FLOATS}  # fmt: skip
    return DonorMatch(
        computed=floats,
        carried=tuple(name for name in both if name in names and name not in floats),
        left_out=tuple(sorted(name for name in everything if name not in names)),
        tied={name: twin for name, twin in tied.items() if name in names},
    )


def _compare(name: str, tuned: TensorEntry | None, base: TensorEntry | None, reader: TensorReader) -> list[Misfit]:
    if tuned is None or base is None:
        lacking, problem = ("tuned", "missing") if tuned is None else ("base", "extra")
        return [Misfit(name, problem, f"missing in {lacking}")]
    if tuned.shape != base.shape:
        return [Misfit(name, "shape", f"shape {tuned.shape} in tuned, {base.shape} in base")]
    if tuned.dtype in FLOATS and base.dtype in FLOATS:
        return []
    if tuned.dtype != base.dtype:
        return [Misfit(name, "dtype", f"dtype {tuned.dtype} in tuned, {base.dtype} in base")]
    if not equal_bytes(tuned, base, reader):
        return [Misfit(name, "carried", f"{tuned.dtype} values that differ; only floating-point ones (F32, BF16, F16) "
                                        f"are subtracted, others must be equal")]  # fmt: skip
    return []


def listing(misfits: Sequence[Misfit]) -> str:
    """The misfits, one a line, those beyond the first few counted by kind."""
    lines = [f"  {misfit}" for misfit in misfits[:_SHOWN]]
    if rest := misfits[_SHOWN:]:
        counts = {problem: sum(m.problem == problem for m in rest) for problem in sorted({m.problem for m in rest})}
        lines.append(f"  and {len(rest)} more ({', '.join(f'{count} {problem}' for problem, count in counts.items())})")
    return "\n".join(lines)


def equal_bytes(a: TensorEntry, b: TensorEntry, reader: TensorReader) -> bool:
    """Whether two tensors of one dtype and shape are the same bit for bit."""
    if (a.dtype, a.shape, a.nbytes) != (b.dtype, b.shape, b.nbytes):
        return False
    first, second = bytearray(min(_BLOCK, a.nbytes)), bytearray(min(_BLOCK, a.nbytes))
    for start in range(0, a.nbytes, _BLOCK):
        count = min(_BLOCK, a.nbytes - start)
        reader.read_into(a, start, memoryview(first)[:count])
        reader.read_into(b, start, memoryview(second)[:count])
        if first[:count] != second[:count]:
            return False
    return True


def donor_ties(tuned: Checkpoint, base: Checkpoint, reader: TensorReader) -> dict[str, str]:
    """The tensors that are copies of another one in every donor that has them, each with the one it copies.

    A donor that lacks the tensor must have the other, and must not say in its configuration that nothing is tied.
    """
    twins = {donor.location: Twins(donor, reader) for donor in (tuned, base)}
    both = tuned.tensors.keys() & base.tensors.keys()
    ties: dict[str, str] = {}
    for holder, lacker in ((tuned, base), (base, tuned)):
        for name in sorted(holder.tensors.keys() - lacker.tensors.keys()):
            found = [twin for twin in twins[holder.location].of(name) if twin in both]
            if found and may_tie(lacker):
                ties[name] = found[0]
    for name in sorted(both):
        found = [twin for twin in twins[tuned.location].of(name) if twin in both and twin not in ties]
        found = [twin for twin in found if twins[base.location].equal(name, twin)]
        if found:
            ties[name] = found[0]
    return ties


def may_tie(checkpoint: Checkpoint) -> bool:
    """Whether a tensor that this checkpoint lacks can be a tied one: its configuration does not deny ties."""
    text_config = checkpoint.config.get("text_config")
    nested = text_config.get("tie_word_embeddings") if isinstance(text_config, dict) else None
    return checkpoint.config.get("tie_word_embeddings", nested) is not False


class Twins:
    """Which matrices of a checkpoint are bitwise copies of one another.

    Vectors and matrices of one repeated value do not count: the norms of a fresh model are equal without being tied.
    """

    def __init__(self, checkpoint: Checkpoint, reader: TensorReader) -> None:
        self._tensors, self._reader = checkpoint.tensors, reader
        # a glance at one place tells nearly all tensors apart; those that agree there get a look at three places, and
        # only those that agree there too are read whole
        named = [(name, entry) for name, entry in self._tensors.items() if len(entry.shape) >= 2 and entry.nbytes]
        self._alike = _groups((name, self._glance(entry)) for name, entry in named)
        self._looked: set[str] = set()
        self._digests: dict[str, str] = {}

    def of(self, name: str) -> list[str]:
        """The names of the other tensors that equal `name` bit for bit, sorted."""
        alike = self._alike.get(name, [])
        if len(alike) > 1 and name not in self._looked:
            self._looked.update(alike)
            looks = [(each, look) for each in alike if (look := self._look(self._tensors[each]))]
            self._alike.update({each: [] for each in alike})
            self._alike.update(_groups(looks))
            alike = self._alike[name]
        return sorted(other for other in alike if other != name and self._digest(other) == self._digest(name))

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors are the same bit for bit, whatever is in them. Each is read once at most."""
        a, b = self._tensors[name], self._tensors[other]
        return (a.dtype, a.shape) == (b.dtype, b.shape) and self._digest(name) == self._digest(other)

    def _glance(self, entry: TensorEntry) -> tuple[Any, ...]:
        return entry.dtype, entry.shape, self._bytes(entry, entry.nbytes // 2, _GLANCE)

    def _look(self, entry: TensorEntry) -> bytes | None:
        """A digest of three places; None for a matrix of one repeated value, as far as these tell."""
        count = min(_LOOK, entry.nbytes)
        places = (0, (entry.nbytes - count) // 2, entry.nbytes - count)
        looks = [self._bytes(entry, place, count) for place in places]
        unit = max(1, BITS_PER_ENTRY[entry.dtype] // 8)
        repeated = all(look == looks[0][:unit] * (count // unit) for look in looks)
        return None if repeated else block_digest(*looks)

    def _digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = digest_of(self._tensors[name], self._reader)
        return self._digests[name]

    def _bytes(self, entry: TensorEntry, start: int, count: int) -> bytes:
        found = bytearray(min(count, entry.nbytes - start))
        self._reader.read_into(entry, start, memoryview(found), alone=True)
        return bytes(found)


_GLANCE, _LOOK = 64, 4096


def _groups(keyed: Iterable[tuple[str, Any]]) -> dict[str, list[str]]:
    """Each name with all that have its key, itself included."""
    members: dict[Any, list[str]] = {}
    found: dict[str, list[str]] = {}
    for name, key in keyed:
        found[name] = members.setdefault(key, [])
        found[name].append(name)
    return found


def match_target(vector: Vector, target: Checkpoint, names: NameFilter) -> tuple[dict[str, str], list[Misfit]]:
    """For every tensor of `target` that gets a delta, the name of that delta in `vector`; and what does not fit."""
    return match_names(
        {name: (delta.shape, delta.checkpoint_dtype) for name, delta in vector.deltas.items()},
        {name: (tuple(info["shape"]), str(info["dtype"])) for name, info in vector.carried.items()},
        vector.left_out, vector.tied, target, names,
    )  # fmt: skip


Form = tuple[tuple[int, ...], str]


def match_names(
    deltas: Mapping[str, Form],
    carried: Mapping[str, Form],
    left_out: Collection[str],
    tied: Mapping[str, str],
    target: Checkpoint,
    names: NameFilter,
) -> tuple[dict[str, str], list[Misfit]]:
    """`match_target` for deltas that need not be on disk: each given by its shape and dtype."""
    with tensor_reader() as reader:
        return match_tensors(deltas, carried, left_out, tied, target, names, reader)


def match_tensors(
    deltas: Mapping[str, Form],
    carried: Mapping[str, Form],
    left_out: Collection[str],
    tied: Mapping[str, str],
    target: Checkpoint,
    names: NameFilter,
    reader: TensorReader,
) -> tuple[dict[str, str], list[Misfit]]:
    """`match_names` for a target that only `reader` can read, such as a model in memory."""
    pairs: dict[str, str] = {}
    misfits: list[Misfit] = []
    twins = Twins(target, reader)
    for name in sorted(deltas.keys() | carried.keys() | target.tensors.keys()):
        if name not in names or (name in left_out and name not in deltas):
            continue
        entry = target.tensors.get(name)
        if entry is None:
            misfits += _absent(name, deltas, tied, target)
        elif name in deltas:
            misfits += _fit(name, deltas[name], entry)
            misfits += _untied(name, tied, target, twins)
            pairs[name] = name
        elif name in carried:
            misfits += _fit_carried(name, carried[name], entry)
        elif copies := [twin for twin in twins.of(name) if twin in deltas and twin in names]:
            pairs[name] = copies[0]  # the target stores its tied tensor, the donors do not
        else:
            misfits += _untied(name, tied, target, twins) or [Misfit(name, "extra", "in the target, not in the vector")]
    return pairs, misfits + _half_ties(pairs, target, names, twins)


def _absent(name: str, deltas: Mapping[str, Form], tied: Mapping[str, str], target: Checkpoint) -> list[Misfit]:
    """A tensor that the target lacks is no misfit if the donors tie it to one that the target has, and it may tie."""
    partners = {tied.get(name), *(other for other, twin in tied.items() if twin == name)}
    if may_tie(target) and any(partner in target.tensors and partner in deltas for partner in partners):
        return []
    return [Misfit(name, "missing", "in the vector, missing in the target")]


def _untied(name: str, tied: Mapping[str, str], target: Checkpoint, twins: Twins) -> list[Misfit]:
    """Two tensors that are one in the donors and two in the target: the delta of the one is not that of the other."""
    if name not in tied or tied[name] not in target.tensors or tied[name] in twins.of(name):
        return []
    return [Misfit(name, "tied", f"the donors tie it to {tied[name]}, the target has weights of its own there")]


def _fit(name: str, form: Form, entry: TensorEntry) -> list[Misfit]:
    shape, dtype = form
    if shape != entry.shape:
        return [Misfit(name, "shape", f"shape {shape} in the vector, {entry.shape} in the target")]
    if entry.dtype not in FLOATS:
        return [Misfit(name, "dtype", f"a {dtype} delta for a target of dtype {entry.dtype}, which cannot be added to")]
    return []


def _fit_carried(name: str, form: Form, entry: TensorEntry) -> list[Misfit]:
    if form != (entry.shape, entry.dtype):
        return [Misfit(name, "carried", f"{form[1]} of shape {form[0]} in the donors, {entry.dtype} of shape "
                                        f"{entry.shape} in the target")]  # fmt: skip
    return []


def _half_ties(pairs: Mapping[str, str], target: Checkpoint, names: NameFilter, twins: Twins) -> list[Misfit]:
    """Copies in the target of which only one would change: the model would no longer be tied, whatever it says."""
    found = [(name, [twin for twin in twins.of(name) if twin in pairs]) for name in target.tensors if name not in names]
    return [
        Misfit(
            name, "tied", f"left out, but the target ties it to {copies[0]}, which is not; leave out both or neither"
        )
        for name, copies in found
        if copies and may_tie(target)
    ]
