"""`trajectory`: whether the direction of a vector converges along a training, from the checkpoints kept on the way. All
are read together, a tile at a time; accuracy is read from logs and runs, never measured here.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import CheckpointError, IncompatibleError
from reasonvec.weights.alignment import Misfit, donor_ties, listing
from reasonvec.weights.arithmetic import TILE, has_non_finite
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, layer_of, open_checkpoint, tensor_reader
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.safetensors_header import TensorEntry
from reasonvec.weights.tensors import read_run
from reasonvec.weights.training_record import initialisation, kept_checkpoints, own_accuracies, validation

Progress = Callable[[int], None]
"""Called with the number of bytes that were just read."""


@dataclass(frozen=True)
class Point:
    """One checkpoint of the course."""

    step: int | None
    """Steps of the optimizer before it; None for the finished donor where its training does not say."""
    path: Path
    accuracies: Mapping[str, float]
    """What was measured of it: by task, from 0 to 1."""

    @property
    def name(self) -> str:
        """For tables: the step, or that it is the end."""
        return "end" if self.step is None else str(self.step)


@dataclass(frozen=True)
class Course:
    """How the vector of each point, point - base, changes from one to the next, over some of the entries."""

    norms: tuple[float, ...]
    """Of point - base."""
    moves: tuple[float, ...]
    """Norm of the difference to the point before; for the first, to the base."""
    cosines: tuple[float | None, ...]
    """Between point - base and the last point's. None where one of them is zero."""
    unrelated: tuple[float | None, ...]
    """What `cosines` would be if the moves were orthogonal to one another, as those of a random walk nearly are:
    sqrt(sum of squared moves up to here / sum of all). Some rise towards 1 comes of itself; this is how much."""
    turns: tuple[float | None, ...]
    """Cosine between the move to this point and the next move; the last point has none."""


@dataclass(frozen=True)
class Trajectory:
    """What `follow_trajectory` found."""

    base: str
    base_accuracies: Mapping[str, float]
    points: tuple[Point, ...]
    overall: Course
    layers: Mapping[str, Course]
    """By layer number, "other" for tensors outside the layers."""
    left_out: tuple[str, ...]
    """What lies beside the checkpoints and was not read, such as one that a kill left unfinished."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know before they read the numbers."""
        return tuple(f"{name} is no finished checkpoint and was not read." for name in self.left_out)

    def to_json(self) -> dict[str, Any]:
        """As `trajectory --json` prints it."""
        return {
            "base": self.base,
            "base_accuracies": dict(self.base_accuracies),
            "points": [
                {"step": point.step, "checkpoint": str(point.path), "accuracies": dict(point.accuracies),
                 **_at(self.overall, i),
                 "layers": [{"layer": layer, **_at(course, i)} for layer, course in self.layers.items()]}
                for i, point in enumerate(self.points)
            ],
            "left_out": list(self.left_out),
        }  # fmt: skip


def follow_trajectory(
    directory: str | Path,
    *,
    base: str | Path | None = None,
    accuracies: Mapping[Path, Mapping[str, float]] | None = None,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Trajectory:
    """Follow the vector `point - base` along the training in `directory`, overall and by layer, in float64.

    `base` defaults to the model that the training says it began with. `accuracies` are by checkpoint, resolved, and
    task; those in the training's own log are added. Memory grows with neither the model nor the number of points.

    Raises CheckpointError where fewer than two checkpoints were kept, or one is damaged or not finite; UsageError where
    nothing says what the training began with; IncompatibleError listing the tensors that differ in name, shape or
    dtype. A base of a coarser dtype than float32 checkpoints is none that differs: what was trained is its exact copy.
    """
    root = Path(directory)
    places, left_out = kept_checkpoints(root)
    start = locate_checkpoint(base if base is not None else initialisation(root), offline=offline)
    checkpoints = [open_checkpoint(path) for _, path in places]
    names = _common_names(start, checkpoints)
    measured = [{**own, **(accuracies or {}).get(path.resolve(), {})}
                for (_, path), own in zip(places, own_accuracies(root, places), strict=True)]  # fmt: skip
    sums: dict[str, _Sums] = {}
    with tensor_reader() as reader:
        for name in names:
            layer = layer_of(name)
            group = sums.setdefault("other" if layer is None else str(layer), _Sums(len(places)))
            _add_tensor(group, start.tensors[name], [found.tensors[name] for found in checkpoints], reader, progress)
    order = sorted(sums, key=lambda group: (not group.isdigit(), int(group) if group.isdigit() else 0))
    before = validation(root, "before") if base is None else {}
    return Trajectory(
        start.location,
        {**before, **(accuracies or {}).get(start.path.resolve(), {})},
        tuple(Point(step, path, found) for (step, path), found in zip(places, measured, strict=True)),
        sum((sums[group] for group in order), _Sums(len(places))).course(),
        {group: sums[group].course() for group in order},
        left_out,
    )


class _Sums:
    """Inner products over the entries read so far, one of each kind for every point."""

    def __init__(self, count: int) -> None:
        self.values: NDArray[np.float64] = np.zeros((4, count))
        """Of the vector with itself, the vector with the last, the move with itself, the move with the next."""

    def __add__(self, other: "_Sums") -> "_Sums":
        total = _Sums(self.values.shape[1])
        total.values = self.values + other.values
        return total

    def course(self) -> Course:
        squares, with_last, moves, with_next = ([float(value) for value in row] for row in self.values)
        walked = np.cumsum(moves)
        return Course(
            tuple(math.sqrt(square) for square in squares),
            tuple(math.sqrt(square) for square in moves),
            tuple(_cosine(p, square, squares[-1]) for p, square in zip(with_last, squares, strict=True)),
            tuple(math.sqrt(float(way / walked[-1])) if way else None for way in walked),
            (*(_cosine(p, *pair) for p, pair in zip(with_next, itertools.pairwise(moves), strict=False)),
             None),
        )  # fmt: skip


def _cosine(product: float, a: float, b: float) -> float | None:
    return max(-1.0, min(1.0, product / math.sqrt(a) / math.sqrt(b))) if a > 0 and b > 0 else None


def _add_tensor(
    sums: _Sums, base: TensorEntry, entries: Sequence[TensorEntry], reader: TensorReader, progress: Progress
) -> None:
    """Take in one tensor. Only the tiles of base, last, this and the point before are in memory."""
    for start in range(0, base.size, TILE):
        stop = min(start + TILE, base.size)
        origin = _tile(base, start, stop, reader)
        last = _tile(entries[-1], start, stop, reader) - origin
        before, move_before = origin, None
        for i, entry in enumerate(entries):
            values = _tile(entry, start, stop, reader)
            vector, move = values - origin, values - before
            sums.values[:3, i] += [np.add.reduce(a * b) for a, b in ((vector, vector), (vector, last), (move, move))]
            if move_before is not None:
                sums.values[3, i - 1] += np.add.reduce(move_before * move)
            before, move_before = values, move
            progress((stop - start) * entry.nbytes // entry.size)


def _tile(entry: TensorEntry, start: int, stop: int, reader: TensorReader) -> NDArray[np.float64]:
    values = read_run(entry, start, stop, reader)
    if has_non_finite(values):
        raise CheckpointError(
            f"{entry.path}: {entry.name!r} holds NaN or infinity. No direction can be told of it: the training "
            f"diverged before that step, or the file is damaged. Take that checkpoint away to see the course up to it."
        )
    return values.astype(np.float64)


def _common_names(base: Checkpoint, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The floating-point tensors, which all have in one shape and dtype; a tied one that not all store is left out.

    Raises IncompatibleError listing those that differ.
    """
    everyone = (base, *checkpoints)
    everything = sorted({name for checkpoint in everyone for name in checkpoint.tensors})
    with tensor_reader() as reader:
        ties = [donor_ties(checkpoint, base, reader) for checkpoint in checkpoints]
    misfits = []
    for name in everything:
        tied = all((name in found.tensors) == (name in base.tensors) or name in tie
                   for found, tie in zip(checkpoints, ties, strict=True))  # fmt: skip
        lacking = [found.location for found in everyone if name not in found.tensors]
        if lacking and not tied:
            misfits.append(Misfit(name, "missing", f"missing in {', '.join(lacking)}"))
        if not lacking and (detail := _differing(name, base, checkpoints)):
            misfits.append(Misfit(name, detail.partition(" ")[0], detail))
    if misfits:
        raise IncompatibleError(
            f"The checkpoints along the training and its base do not fit: {len(misfits)} of {len(everything)} tensors "
            f"differ in what is stored:\n{listing(misfits)}\nOnly what all have in one shape and dtype can be "
            f"followed; a difference of two dtypes is mostly rounding. Name the base that these were trained from, in "
            f"their dtype, with --base."
        )
    floats = [{name for name, entry in found.tensors.items() if entry.dtype in FLOATS} for found in everyone]
    return tuple(sorted(set.intersection(*floats)))


def _differing(name: str, base: Checkpoint, checkpoints: Sequence[Checkpoint]) -> str | None:
    """How a tensor differs in shape or dtype, or None. A base that is coarser than float32 checkpoints does not: what
    was trained began as its exact copy."""
    first = base.tensors[name]
    for found in checkpoints:
        entry = found.tensors[name]
        if entry.shape != first.shape:
            return f"shape {first.shape} in {base.location}, {entry.shape} in {found.location}"
        if entry.dtype != first.dtype and not (first.dtype in FLOATS and entry.dtype == "F32"):
            return f"dtype {first.dtype} in {base.location}, {entry.dtype} in {found.location}"
        if entry.dtype != checkpoints[0].tensors[name].dtype:
            was = checkpoints[0].tensors[name].dtype
            return f"dtype {was} in {checkpoints[0].location}, {entry.dtype} in {found.location}"
    return None


def _at(course: Course, i: int) -> dict[str, Any]:
    return {
        "norm": course.norms[i], "moved": course.moves[i], "cosine_to_final": course.cosines[i],
        "cosine_if_unrelated": course.unrelated[i], "cosine_to_next_move": course.turns[i],
    }  # fmt: skip
