"""What a training of `reasonvec train` says of itself on disk: the checkpoints it kept, the model it began with, what
it measured. Reads nothing of the weights.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, UsageError
from reasonvec.weights.files import read_small
from reasonvec.weights.hub import recorded_location
from reasonvec.weights.strict_json import complaint, read_json

KEPT = "trajectory"
"""The directory, in that of a training, that holds the checkpoints kept on the way: step-1, step-2, step-4 ..."""
PLANNED = "plan.json"
"""Written first by a training."""
FINISHED = "training.json"
"""Written last: its presence says that the directory itself is the finished donor."""
LOG = "log.jsonl"
SAMPLED = "rewards/exact/mean"
"""In a log: the share of a step's own samples that are right."""

_LONGEST_LINE = 1 << 20
"""Bytes of a line of a log; the trainers' have some thousand."""

_STEP = re.compile(r"step-(\d{1,9})")


def kept_checkpoints(root: Path) -> tuple[list[tuple[int | None, Path]], tuple[str, ...]]:
    """The checkpoints of a training in their order, the finished donor last, and the names of those not finished."""
    kept = root / KEPT
    if not kept.is_dir():
        raise CheckpointError(_why_none(root))
    names = {path.name: path for path in kept.iterdir()}
    places: list[tuple[int | None, Path]] = [
        (int(step[1]), path) for name, path in names.items() if (step := _STEP.fullmatch(name))
    ]
    places.sort(key=lambda place: place[0] or 0)
    document = _document(root / FINISHED)
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


def initialisation(root: Path) -> str:
    """The model that a training began with, as it says itself: once it is done, or in its plan before."""
    document = _document(root / FINISHED) or _document(root / PLANNED)
    if document is None:
        raise UsageError(
            f"{root} has neither {FINISHED} nor {PLANNED}, so nothing says which model its training began with. Name "
            f"that model with --base."
        )
    model = document.get("model")
    place = model.get("location") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(place, str) or not place:
        raise UsageError(f"{root} does not say which model its training began with. Name it with --base.")
    return recorded_location({"location": place, "revision": model.get("revision")})


def own_accuracies(root: Path, places: Sequence[tuple[int | None, Path]]) -> list[dict[str, float]]:
    """What the training itself knows of each checkpoint: of its step's samples, and of held-out problems at the end."""
    log = _log(root / LOG)
    return [
        {**({"sampled": log[step]} if step in log else {}), **(validation(root, "after") if path == root else {})}
        for step, path in places
    ]


def validation(root: Path, when: str) -> dict[str, float]:
    """The accuracy on held-out problems `before` or `after` a finished training, where it was measured."""
    found: Any = _document(root / FINISHED)
    for name in ("validation", when, "accuracy"):
        found = found.get(name) if isinstance(found, dict) else None
    return {"validation": float(found)} if _is_share(found) else {}


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


def _document(file: Path) -> dict[str, Any] | None:
    """What a training says of itself in one of its files; None where there is none."""
    if not file.is_file():
        return None
    try:
        document = read_json(file)
    except ValueError as error:
        raise CheckpointError(f"{file} {complaint(error)}. It is damaged; the training has to be run again.") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{file} holds a JSON {type(document).__name__}, not what a training writes.")
    return document


def _log(file: Path) -> dict[int | None, float]:
    """Step -> share of its samples that were right. A last line that a kill tore is no fault, another one is."""
    if not file.is_file():
        return {}
    found: dict[int | None, float] = {}
    lines = read_small(file).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line[:_LONGEST_LINE]) if line.strip() else {}
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            raise CheckpointError(f"{file}, line {number}, is not JSON. The log was edited or damaged.") from None
        if isinstance(row, dict) and type(row.get("step")) is int and _is_share(row.get(SAMPLED)):
            found[row["step"]] = float(row[SAMPLED])
    return found


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
