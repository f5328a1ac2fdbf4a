"""Was a donor trained on what is measured? Finds the training data that is declared, and records what overlaps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasonvec.errors import BenchmarkError, CheckpointError
from reasonvec.evaluation.arm import Arm
from reasonvec.evaluation.overlap import find_overlap
from reasonvec.weights.files import read_small
from reasonvec.weights.safetensors_header import loads_strictly

DECLARATION = "training.json"
"""In a checkpoint that `reasonvec train` made; its `training_data` lists the files."""


def declared_training_data(arm: Arm) -> tuple[Path, ...]:
    """The training files that the checkpoint, or the donors of the vector, declare and that are still there."""
    places = [arm.checkpoint.path]
    if arm.vector is not None:
        donors = arm.vector.document.get("donors") or {}
        places += [Path(str(info.get("location"))) for info in donors.values() if isinstance(info, dict)]
    files = [Path(name) for place in places for name in _declared(place / DECLARATION)]
    return tuple(dict.fromkeys(file for file in files if file.is_file()))


def contamination(
    training: Sequence[Path], *, task: str, measured: frozenset[str], data: Path
) -> dict[str, Any] | None:
    """What a run records of the overlap of its problems with training data; None where no training data is declared.

    `measured` are the ids of the run's problems; `task` is the benchmark that they are from. Raises BenchmarkError for
    training data that cannot be read.
    """
    if not training:
        return None
    found = find_overlap(list(training), task=task, data=data)
    overlapping = [problem for problem in found.problems if problem.id in measured]
    counts = {how: sum(problem.how == how for problem in overlapping) for how in found.counts}
    files = [{key: each[key] for key in ("file", "sha256", "rows")} for each in found.files]
    return {
        "training_data": files,
        "overlapping": len(overlapping),
        "counts": counts,
        "ids": [problem.id for problem in overlapping if problem.how != "partial"],
    }


def warnings_of(record: dict[str, Any] | None, *, task: str, problems: int) -> tuple[str, ...]:
    """What to say of it before the run and beside its score."""
    if record is None or not record["overlapping"]:
        return ()
    whole = record["counts"]["exact"] + record["counts"]["normalised"]
    files = ", ".join(each["file"] for each in record["training_data"])
    return (
        f"{record['overlapping']} of the {problems} problems of {task} overlap the training data ({files}): {whole} of "
        f"them whole, the rest in a run of 8 words. A donor that saw them may remember answers; a gain here is no "
        f"evidence of reasoning. `reasonvec overlap` lists them.",
    )


def _declared(file: Path) -> list[str]:
    if not file.is_file():
        return []
    try:
        document = loads_strictly(read_small(file))
    except (CheckpointError, ValueError, RecursionError) as error:
        raise BenchmarkError(
            f"{file} declares what a donor was trained on and cannot be read: {error}. Whether that overlaps what is "
            f"measured stays unknown; mend it or move it away."
        ) from None
    rows = document.get("training_data") if isinstance(document, dict) else None
    return [str(row["file"]) for row in rows or () if isinstance(row, dict) and "file" in row]
