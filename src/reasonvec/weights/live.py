"""Attach a vector to a model in memory and take it off again, bit for bit. `loaded` says where the model has which
tensor; the sums are those of `apply`, made in the processor's memory wherever the model is.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch

from reasonvec.errors import CheckpointError, IncompatibleError, UsageError
from reasonvec.weights.alignment import NameFilter, listing, match_tensors
from reasonvec.weights.blocks import BLOCK, Scratch, Workers, blocks
from reasonvec.weights.checkpoint import TensorReader, tensor_reader
from reasonvec.weights.configuration import configuration_findings
from reasonvec.weights.dtypes import FLOATS, Array
from reasonvec.weights.enhance import TensorWork, work_dtype
from reasonvec.weights.findings import Finding
from reasonvec.weights.hub import locate_vector
from reasonvec.weights.job import MISSED, MOST
from reasonvec.weights.kernel import BF16, patch_bfloat16, put_back
from reasonvec.weights.loaded import LoadedModel, MemoryReader, Place, gather, see, unwrapped
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.sources import DeltaBlock, DeltaBlocks, Proof, SparseDelta, StoredDeltas
from reasonvec.weights.vector import Vector

_decoding = threading.Lock()
"""Held by the thread that decodes a run. That is many short steps, at each of which two threads that decode at once
wait for Python's lock; where one decodes while the others add, none waits."""

RUN = 8
"""Blocks that a thread adds at once on the quick way. What Python does between them, and the waiting for its lock, is
then little beside the sums, and what they have decoded still fits the processor's cache."""


@dataclass(frozen=True)
class Attachment:
    """What attaching a vector has changed. Of a sharded model, what it has changed in this process."""

    vector: str
    """Its location."""
    fingerprint: str
    alpha: float
    tensors: int
    """Tensors of the model that got a delta; tied ones count once."""
    changed: int
    """Entries that have other bits than before."""
    kept_bytes: int
    """What is kept of the weights as they were, in bytes of the processor's memory."""
    realised_alpha: float | None
    """How much of the change the model's dtype let through, as in a receipt; None where nothing was asked."""
    warnings: tuple[str, ...]
    """What `apply` would have warned of, but for the tokenizer, which a model in memory does not have."""


@contextmanager
def attached(
    model: torch.nn.Module,
    vector: str | Path | Vector,
    *,
    alpha: float = 1.0,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> Iterator[Attachment]:
    """Have `model` be `model + alpha * vector` for the duration of a `with` block, and bit for bit itself again after.

    The weights are those that `apply` writes for a checkpoint in the model's dtype. Nothing else may write to them
    meanwhile, other attachments excepted: those are taken off in reverse order. The model's memory stays where it is,
    so what was compiled for it stays valid. Takes an eighth of a byte an entry, and the old value of each that the
    vector changes. Of a sharded model every process attaches for itself, and changes what it holds.

    Raises, and then leaves the model as it was: IncompatibleError listing every misfit, VectorError for a damaged
    vector, CheckpointError for a sum that leaves the range of the dtype, UsageError for patterns that match nothing,
    an alpha that is not finite, and attachments that were not taken off in reverse order.
    """
    if not abs(alpha) <= MOST:
        raise UsageError(f"alpha is {alpha}; it must be a finite number, at most {MOST:g} in size.")
    source = StoredDeltas(vector if isinstance(vector, Vector) else locate_vector(vector))
    names = NameFilter(only, skip)
    loaded = see(model, source.forms.keys())
    names.check({*source.forms, *source.carried, *source.left_out, *loaded.tensors})
    pairs, findings = _match(source, loaded, names)
    change = _Change(unwrapped(model), loaded)
    under = _attached.setdefault(change.model, [])
    under.append(change)
    try:
        change.make(source, pairs, alpha)
        yield change.described(source.vector, pairs, alpha, findings)
    finally:
        _take_off(under, change)


_attached: WeakKeyDictionary[torch.nn.Module, list["_Change"]] = WeakKeyDictionary()


def _take_off(under: list["_Change"], change: "_Change") -> None:
    above = under[under.index(change) + 1 :] if change in under else []
    with _uninterrupted():
        while change in under:
            under[-1].undo()
            under.pop()
    if above:
        raise UsageError(
            f"{len(above)} vectors that were attached later were still there when an earlier one was taken off. All "
            f"have been taken off, so the model is as it was; what was measured since may be of another model than it "
            f"seemed. Nest the `with` blocks."
        )


def _match(source: StoredDeltas, loaded: LoadedModel, names: NameFilter) -> tuple[dict[str, str], list[Finding]]:
    """Which delta each tensor of the model gets, and what to warn of. Raises IncompatibleError with every misfit."""
    reader = MemoryReader(loaded.places)
    pairs, found = match_tensors(source.forms, source.carried, source.left_out, source.tied, loaded, names, reader)
    refused = [misfit for name, misfit in loaded.refused.items() if name in names and name in source.forms]
    unplaced = {misfit.name for misfit in refused}
    misfits = sorted([*refused, *(m for m in found if m.name not in unplaced)], key=lambda misfit: misfit.name)
    findings = configuration_findings(source.vector.donor(), loaded)
    problems = [f"{f.title}: {f.evidence} {f.advice}" for f in findings if f.level == "blocking"]
    if misfits:
        problems.insert(0, f"{source.location} does not fit {loaded.location}: {len(misfits)} tensors differ:\n"
                           f"{listing(misfits)}")  # fmt: skip
    if problems:
        raise IncompatibleError("\n".join(problems) + (
            "\nA vector is attached whole or not at all: part of one makes a model that nobody trained. Use a model of "
            "the donors' architecture, or leave tensors out by name with skip=."
        ))  # fmt: skip
    return pairs, findings


@dataclass
class _Old:
    """What a run of entries was before it was changed."""

    place: Place
    start: int
    count: int
    touched: Array
    """A bit for each entry, the lowest of a byte first: whether its old bits are kept."""
    values: Array
    """Those, in order; more may follow."""
    changed: int = 0
    """How many of them the entries do not have any more."""

    def put_back(self) -> None:
        flat = self.place.flat
        if flat is not None:
            put_back(flat[self.start : self.start + self.count], self.touched, self.values)
            return
        now = np.zeros(self.count, self.values.dtype)
        self.place.read(self.start, now)
        put_back(now, self.touched, self.values)
        self.place.write(self.start, now)


class _Change:
    """One vector on one model."""

    def __init__(self, model: torch.nn.Module, loaded: LoadedModel) -> None:
        self.model, self._loaded = model, loaded
        self._old: list[_Old] = []
        self._pool = Workers()
        self._asked = self._realised = 0.0

    def make(self, source: StoredDeltas, pairs: Mapping[str, str], alpha: float) -> None:
        """Add the deltas. Whatever happens, `undo` knows of every block that was touched."""
        if not alpha:
            return
        self._synchronise()
        with tensor_reader() as reader, self._pool as pool:
            works = (_Work(self._loaded.tensors[name], self._loaded.places[name], source.blocks(delta, reader), reader,
                           alpha) for name, delta in pairs.items())  # fmt: skip
            tasks = ((work, run) for work in works for run in work.runs)
            proofs: list[Proof] = []
            for work, part in pool.map(self._one, tasks):
                proofs += part.proofs
                self._asked += part.asked
                self._realised += part.realised
                if len(proofs) == work.count:
                    work.deltas.finish(proofs)
                    proofs = []
        self._tell()

    def _one(self, task: tuple["_Work", range], scratch: Scratch) -> tuple["_Work", "_Part"]:
        work, run = task
        return work, work.add(run, scratch, self._old.append)

    def undo(self) -> None:
        """Put back what was there."""
        self._pool.__exit__()  # waits for what still writes, should an interrupt have cut the first wait short
        gather(self.model)
        self._synchronise()
        with Workers() as pool:
            for _ in pool.map(lambda old, scratch: old.put_back(), reversed(self._old)):
                pass
        self._tell()
        self._old.clear()

    def _tell(self) -> None:
        """Tell torch that weights have changed: a graph that was recorded before must not be followed back."""
        owners = {id(old.place.owner): old.place.owner for old in self._old}
        torch.autograd.graph.increment_version(list(owners.values()))
        self._synchronise()

    def _synchronise(self) -> None:
        """Wait for what devices still have to do, whatever the stream that it was given to."""
        for device in {place.tensor.device for place in self._loaded.places.values()}:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)

    def described(
        self, vector: Vector, pairs: Mapping[str, str], alpha: float, findings: Sequence[Finding]
    ) -> Attachment:
        """What was changed."""
        realised = self._realised / self._asked if self._asked else None
        warnings = [f"{f.title}: {f.evidence} {f.advice}" for f in findings if f.level == "warning"]
        if vector.lossy_notice:
            warnings.append(vector.lossy_notice)
        if realised is None and alpha:
            warnings.append("Nothing was added: the vector is zero in all tensors that take part.")
        elif realised is not None and abs(realised - 1) > MISSED:
            warnings.append(
                f"Rounding to the model's dtype changed alpha: {alpha:g} became {alpha * realised:.3g} ({realised:.1%} "
                f"of what was asked); see docs/method.md. Load the model in float32."
            )
        return Attachment(
            vector=vector.location,
            fingerprint=vector.fingerprint,
            alpha=alpha,
            tensors=len(pairs) if alpha else 0,
            changed=sum(old.changed for old in self._old),
            kept_bytes=sum(old.touched.nbytes + old.values.nbytes for old in self._old),
            realised_alpha=realised,
            warnings=tuple(warnings),
        )


@dataclass(frozen=True)
class _Part:
    """What became of a run of blocks."""

    proofs: Sequence[Proof]
    asked: float = 0.0
    realised: float = 0.0


class _Work:
    """One tensor of the model with the delta that is added to it."""

    def __init__(
        self, entry: TensorEntry, place: Place, deltas: DeltaBlocks, reader: TensorReader, alpha: float
    ) -> None:
        self.deltas, self._entry, self._place, self._alpha = deltas, entry, place, alpha
        self._blocks = blocks(entry.size)
        self._sum = TensorWork(entry, entry.dtype, (), (), reader)
        self.count = len(self._blocks)
        self._sparse = deltas if isinstance(deltas, SparseDelta) and entry.dtype == "BF16" else None
        quick = self._sparse if place.flat is not None else None
        self.runs = quick.runs(RUN) if quick else [range(number, number + 1) for number in range(self.count)]

    def add(self, run: range, scratch: Scratch, keep: Callable[[_Old], None]) -> _Part:
        """Add some blocks of the delta; what was there is handed to `keep` before the model is written to."""
        if done := self._patched(run, scratch, keep):
            return done
        parts = [self._summed(number, scratch, keep) for number in run]
        proofs = [proof for part in parts for proof in part.proofs]
        return _Part(proofs, sum(part.asked for part in parts), sum(part.realised for part in parts))

    def _patched(self, run: range, scratch: Scratch, keep: Callable[[_Old], None]) -> "_Part | None":
        """The quick way: sparse blocks go straight into the model's own memory. None where that cannot be done."""
        flat = self._place.flat
        if self._sparse is None or flat is None:
            return None
        with _decoding:
            streams, proofs = self._sparse.streams(run, scratch)
        if any(len(block.wide) for block in streams):
            return None
        start, stop = self._blocks[run.start][0], self._blocks[run.stop - 1][1]
        values = np.empty(sum(len(block.symbols) for block in streams), np.uint16)
        old = _Old(self._place, start, stop - start, np.zeros(-(-(stop - start) // 8), np.uint8), values)
        keep(old)
        weight = flat[start:stop].view(BF16.numpy)
        done = patch_bfloat16(weight, streams, BLOCK, self._alpha, old.touched, old.values)
        if done is None or not done.finite:
            old.put_back()  # the other way says what is wrong
            old.touched[:] = 0
            return None
        old.changed = done.changed
        return _Part(proofs, done.asked, done.realised)

    def _summed(self, number: int, scratch: Scratch, keep: Callable[[_Old], None]) -> "_Part":
        """The way of every dtype, encoding and place."""
        start, stop = self._blocks[number]
        form = FLOATS[self._entry.dtype]
        delta = self.deltas.read(number, work_dtype(self._entry, form), scratch)
        if not self._place.whole:
            here = self._place.held(start, stop - start)
            if not here.any():  # read all the same, for the checksum
                return _Part([delta.proof])
            delta = _only(delta, here)
        before = self._before(start, stop, scratch)
        after = scratch.array("after", stop - start, form.numpy)
        try:
            asked, realised = self._sum.add(before.view(form.numpy), [(self._alpha, delta)], after, start, scratch)
        except CheckpointError:
            self.deltas.refuse_non_finite(delta.main)  # it may not be the model's fault
            raise
        bits = after.view(form.bits)
        changed = bits != before
        if changed.any():
            mask, values = np.packbits(changed, bitorder="little"), before[changed]
            keep(_Old(self._place, start, stop - start, mask, values, len(values)))
            self._put(start, stop, bits)
        return _Part([delta.proof], asked, realised)

    def _before(self, start: int, stop: int, scratch: Scratch) -> Array:
        if self._place.flat is not None:
            return self._place.flat[start:stop]
        before = scratch.array("before", stop - start, FLOATS[self._entry.dtype].bits)
        before[:] = 0  # what another process holds
        self._place.read(start, before)
        return before

    def _put(self, start: int, stop: int, bits: Array) -> None:
        if self._place.flat is not None:
            self._place.flat[start:stop] = bits
        else:
            self._place.write(start, bits)


def _only(delta: DeltaBlock, here: Array) -> DeltaBlock:
    """The entries of a block that this process holds; the others are zero."""
    held = here[delta.index]
    main = np.where(here, delta.main, delta.main.dtype.type(0))
    return DeltaBlock(main, delta.index[held], delta.high[held], delta.low[held], delta.proof)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end of a `with` block: half an undo would leave a model that nobody knows."""
    if threading.current_thread() is not threading.main_thread():
        yield  # it reaches the main thread only
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if came:
            signal.raise_signal(signal.SIGINT)
