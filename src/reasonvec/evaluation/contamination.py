"""Was a donor trained on what is measured? Finds the training data that is declared, and records what overlaps."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import BenchmarkError, CheckpointError, ReasonvecError
from reasonvec.evaluation.arm import Arm, receipt_of
from reasonvec.evaluation.benchmarks.catalog import TASKS
from reasonvec.evaluation.overlap import find_overlap
from reasonvec.weights.files import sha256_of
from reasonvec.weights.hub import locate_vector, recorded_location
from reasonvec.weights.strict_json import read_json

DECLARATION = "training.json"
"""In a checkpoint that `reasonvec train` made; its `training_data` lists the files."""


@dataclass(frozen=True)
class Declared:
    """What checkpoints and donors say that they were trained on."""

    files: tuple[Path, ...]
    """Those that are still there, and the same."""
    missing: tuple[str, ...]
    """The others, with who declares them."""


def declared_training_data(arm: Arm, *, named: Sequence[Path] = (), data: Path) -> Declared:
    """The training files that the checkpoint, and the donors of a vector that was added to it, declare.

    A file is looked for where it was and, as benchmarks' are, under `data`; it is the one that was trained on if its
    SHA-256 is. What is among the `named` files is not missing.
    """
    rows = [(place, row) for place in _places(arm) for row in _declared(place / DECLARATION)]
    given = {sha256_of(file) for file in named if file.is_file()} if rows else set()
    files, missing = [], []
    for place, row in rows:
        digest = row.get("sha256")
        if isinstance(digest, str) and digest in given:
            continue
        found = next((file for file in _candidates(place, row, data) if _is_it(file, digest)), None)
        if found:
            files.append(found)
        else:
            missing.append(f"{row['file']} ({place})")
    return Declared(tuple(dict.fromkeys(files)), tuple(dict.fromkeys(missing)))


def contamination(
    training: Sequence[Path], *, task: str, measured: frozenset[str], data: Path, missing: Sequence[str] = ()
) -> dict[str, Any] | None:
    """What a run records of the overlap of its problems with training data; None where no training data is declared.

    `measured` are the ids of the run's problems; `task` is the benchmark that they are from; `missing` is what is
    declared and could not be searched. `overlapping` is None where nothing could. Raises BenchmarkError for training
    data that cannot be read.
    """
    if not training:
        return {"training_data": [], "missing": list(missing), "overlapping": None} if missing else None
    found = find_overlap(list(training), task=task, data=data)
    overlapping = [problem for problem in found.problems if problem.id in measured]
    counts = {how: sum(problem.how == how for problem in overlapping) for how in found.counts}
    files = [{key: each[key] for key in ("file", "sha256", "rows")} for each in found.files]
    return {
        "training_data": files,
        "missing": list(missing),
        "overlapping": len(overlapping),
        "counts": counts,
        "ids": [problem.id for problem in overlapping if problem.how != "partial"],
    }


def warnings_of(record: dict[str, Any] | None, *, task: str, problems: int) -> tuple[str, ...]:
    """What to say of it before the run and beside its score."""
    if record is None or not record["overlapping"]:
        return ()
    whole = record["counts"]["exact"] + record["counts"]["normalised"]
    runs = record["overlapping"] - whole
    how = [f"{whole} of them whole"] * (whole > 0) + [f"{runs} in a run of 8 words"] * (runs > 0)
    files = ", ".join(each["file"] for each in record["training_data"])
    return (
        f"{record['overlapping']} of the {problems} problems of {task} overlap the training data ({files}): "
        f"{', '.join(how)}. A donor that saw them may remember answers; a gain here is no "
        f"evidence of reasoning. `reasonvec overlap` lists them.",
    )


def missing_warnings(declared: Declared) -> tuple[str, ...]:
    """That nobody looked is not that nothing overlaps."""
    if not declared.missing:
        return ()
    return (
        f"training data is declared that is not here, or is another file now: {', '.join(declared.missing)}. Whether "
        f"it overlaps what is measured stays unknown; name it with --training-data.",
    )


def _places(arm: Arm) -> list[Path]:
    """The checkpoint, and the donors of what was added to it, here or before."""
    places = [str(arm.checkpoint.path)]
    receipt = receipt_of(arm.checkpoint.path) or {}
    places += [str(receipt[role]["location"]) for role in ("target", "tuned", "base") if role in receipt]
    vectors = [arm.vector] if arm.vector else []
    for written in receipt.get("vectors", []):
        with contextlib.suppress(ReasonvecError):  # one that has gone declares nothing
            vectors.append(locate_vector(recorded_location(written), offline=True))
    for vector in vectors:
        donors = vector.document.get("donors") or {}
        places += [str(donor.get("location")) for donor in donors.values() if isinstance(donor, dict)]
    return [Path(place) for place in dict.fromkeys(places)]


def _candidates(place: Path, row: Mapping[str, Any], data: Path) -> list[Path]:
    name = str(row["file"])
    task = TASKS.get(str(row.get("name")))
    return [Path(str(row.get("path") or name)), place / name, *([data / task.file.path] if task else [])]


def _is_it(file: Path, digest: Any) -> bool:
    return file.is_file() and (not isinstance(digest, str) or sha256_of(file) == digest)


def _declared(file: Path) -> list[Mapping[str, Any]]:
    if not file.is_file():
        return []
    try:
        document = read_json(file)
    except (CheckpointError, ValueError, RecursionError) as error:
        raise BenchmarkError(
            f"{file} declares what a donor was trained on and cannot be read: {error}. Whether that overlaps what is "
            f"measured stays unknown; mend it or move it away."
        ) from None
    rows = document.get("training_data") if isinstance(document, dict) else None
    return [row for row in rows if isinstance(row, dict) and "file" in row] if isinstance(rows, list) else []
