"""`trajectory`: whether the direction of a vector converges along a training, from the checkpoints kept on the way. All
are read together, a tile at a time; accuracy is read from logs and runs, never measured here.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasonvec.errors import CheckpointError, IncompatibleError, UsageError
from reasonvec.weights.alignment import Misfit, donor_ties, listing
from reasonvec.weights.arithmetic import TILE, has_non_finite
from reasonvec.weights.checkpoint import Checkpoint, TensorReader, layer_of, open_checkpoint, tensor_reader
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.files import read_small
from reasonvec.weights.hub import locate_checkpoint
from reasonvec.weights.safetensors_header import TensorEntry, loads_strictly
from reasonvec.weights.tensors import read_run

KEPT = "trajectory"
"""The directory, in that of a training, that holds the checkpoints kept on the way: step-1, step-2, step-4 ..."""
FINISHED = "training.json"
"""Written last by a training: its presence says that the directory itself is the finished donor."""

Progress = Callable[[int], None]
"""Called with the number of bytes that were just read."""

_STEP = re.compile(r"step-(\d{1,9})")
_MAX_VALUES = 100_000


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
    dtype.
    """
    root = Path(directory)
    places, left_out = _kept(root)
    start = locate_checkpoint(base if base is not None else _initialisation(root), offline=offline)
    checkpoints = [open_checkpoint(path) for _, path in places]
    names = _common_names(start, checkpoints)
    measured = _measured(root, places, accuracies or {})
    sums: dict[str, _Sums] = {}
    with tensor_reader() as reader:
        for name in names:
            layer = layer_of(name)
            group = sums.setdefault("other" if layer is None else str(layer), _Sums(len(places)))
            _add_tensor(group, start.tensors[name], [found.tensors[name] for found in checkpoints], reader, progress)
    order = sorted(sums, key=lambda group: (not group.isdigit(), int(group) if group.isdigit() else 0))
    return Trajectory(
        start.location,
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


def _kept(root: Path) -> tuple[list[tuple[int | None, Path]], tuple[str, ...]]:
    """The checkpoints of a training in their order, the finished donor last, and the names of those not finished."""
    kept = root / KEPT
    if not kept.is_dir():
        raise CheckpointError(_why_none(root))
    names = {path.name: path for path in kept.iterdir()}
    places: list[tuple[int | None, Path]] = [
        (int(step[1]), path) for name, path in names.items() if (step := _STEP.fullmatch(name))
    ]
    places.sort(key=lambda place: place[0] or 0)
    document = _training(root)
    if document is not None:
        steps = document.get("steps") if type(document.get("steps")) is int else None
        if steps is None or all(step != steps for step, _ in places):
            places.append((steps, root))
    if len(places) < 2:
        found = f"only {places[0][1]}" if places else "none"
        raise CheckpointError(
            f"{root} kept too few checkpoints of its training: {found}. Whether a direction converges takes two at "
            f"least. Train with more of them kept, or compare single vectors with: reasonvec compare."
        )
    return places, tuple(sorted(name for name in names if not _STEP.fullmatch(name)))


def _why_none(root: Path) -> str:
    if not root.is_dir():
        return f"{root} {'is a file' if root.exists() else 'does not exist'}. Name the directory of a training."
    if (root / "grpo" / KEPT).is_dir():
        return f"{root} holds a pair of trainings. Name the one to follow: reasonvec trajectory {root / 'grpo'}"
    if any(_STEP.fullmatch(path.name) for path in root.iterdir()):
        return f"{root} holds the kept checkpoints themselves. Name the directory of their training: {root.parent}"
    return (
        f"{root} has no directory {KEPT!r}, in which a training keeps checkpoints on its way (step-1, step-2 ...). "
        f"Name the --out of a `reasonvec train` that kept some."
    )


def _training(root: Path) -> dict[str, Any] | None:
    """What a finished training says of itself; None where it is not finished."""
    file = root / FINISHED
    if not file.is_file():
        return None
    try:
        document = loads_strictly(read_small(file), _MAX_VALUES)
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not JSON ({error}). It is damaged; the training has to be run again."
        ) from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{file} holds a JSON {type(document).__name__}, not what a training writes.")
    return document


def _initialisation(root: Path) -> str:
    document = _training(root)
    if document is None:
        raise UsageError(
            f"{root} has no {FINISHED}: its training is not finished, so nothing says which model it began with. Name "
            f"that model with --base."
        )
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise UsageError(f"{root / FINISHED} does not say which model the training began with. Name it with --base.")
    return model


def _common_names(base: Checkpoint, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The floating-point tensors, which all have in one shape and dtype; a tied one that not all store is left out.

    Raises IncompatibleError listing those that differ.
    """
    everything = sorted({name for checkpoint in (base, *checkpoints) for name in checkpoint.tensors})
    misfits: list[Misfit] = []
    with tensor_reader() as reader:
        for checkpoint in checkpoints:
            ties = donor_ties(checkpoint, base, reader)
            both = checkpoint.tensors.keys() & base.tensors.keys()
            misfits += [_misfit(name, base, checkpoint) for name in everything
                        if (name in both and _form(name, base) != _form(name, checkpoint))
                        or (name in checkpoint.tensors.keys() ^ base.tensors.keys() and name not in ties)]  # fmt: skip
    if misfits:
        raise IncompatibleError(
            f"The checkpoints along the training and its base do not fit: {len(misfits)} of {len(everything)} tensors "
            f"differ in what is stored:\n{listing(misfits)}\nOnly what all have in one shape and dtype can be "
            f"followed; a difference of two dtypes is mostly rounding. Name the base that these were trained from, in "
            f"their dtype, with --base."
        )
    return tuple(
        name
        for name in everything
        if all(name in found.tensors for found in (base, *checkpoints)) and base.tensors[name].dtype in FLOATS
    )


def _form(name: str, checkpoint: Checkpoint) -> tuple[tuple[int, ...], str]:
    return checkpoint.tensors[name].shape, checkpoint.tensors[name].dtype


def _misfit(name: str, base: Checkpoint, checkpoint: Checkpoint) -> Misfit:
    for one in (base, checkpoint):
        if name not in one.tensors:
            return Misfit(name, "missing", f"missing in {one.location}")
    (shape, dtype), (other_shape, other_dtype) = _form(name, base), _form(name, checkpoint)
    what = "shape" if shape != other_shape else "dtype"
    pair = (shape, other_shape) if what == "shape" else (dtype, other_dtype)
    return Misfit(name, what, f"{what} {pair[0]} in {base.location}, {pair[1]} in {checkpoint.location}")


def _measured(
    root: Path, places: Sequence[tuple[int | None, Path]], accuracies: Mapping[Path, Mapping[str, float]]
) -> list[dict[str, float]]:
    """By point, what the training's log says of its step and what was handed in for its checkpoint."""
    log = _log(root / "log.jsonl")
    last = max(log, default=None)
    found = []
    for step, path in places:
        at = last if step is None else step
        own = {"validation": log[at]} if at in log else {}
        found.append({**own, **accuracies.get(path.resolve(), {})})
    return found


def _log(file: Path) -> dict[int, float]:
    """Step -> accuracy on the held-out slice. A last line that a kill tore is no fault, another one is."""
    if not file.is_file():
        return {}
    found: dict[int, float] = {}
    lines = read_small(file).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            raise CheckpointError(f"{file}, line {number}, is not JSON. The log was edited or damaged.") from None
        step, accuracy = (row.get("step"), row.get("validation_accuracy")) if isinstance(row, dict) else (None, None)
        if type(step) is int and isinstance(accuracy, float | int) and 0 <= accuracy <= 1:
            found[step] = float(accuracy)
    return found


def _at(course: Course, i: int) -> dict[str, Any]:
    return {
        "norm": course.norms[i], "moved": course.moves[i], "cosine_to_final": course.cosines[i],
        "cosine_if_unrelated": course.unrelated[i], "cosine_to_next_move": course.turns[i],
    }  # fmt: skip
