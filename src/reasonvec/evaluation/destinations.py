"""Where the runs of one call go: a directory for each alpha and task, named after them. Looks at no disk."""

from collections.abc import Sequence
from pathlib import Path

from reasonvec.errors import UsageError
from reasonvec.weights.stores import is_address

PLACE = "{alpha}"
"""In --out, where several alphas are measured."""


def sweep(out: str | Path, tasks: Sequence[str], alphas: Sequence[float | None]) -> dict[float | None, dict[str, Path]]:
    """Alpha -> task -> the directory of its run; PLACE in `out` becomes the alpha.

    Raises UsageError where two alphas would share a directory or PLACE stands for none, and what `destinations` raises.
    """
    shown = {alpha: "" if alpha is None else f"{alpha:g}" for alpha in alphas}
    alike = len(set(shown.values())) < len(alphas)
    if len(alphas) > 1 and (PLACE not in str(out) or alike):
        what = "two of them are equal to six digits" if alike else f"--out {out} has no {PLACE} in it"
        raise UsageError(f"{len(alphas)} alphas need a directory each, and {what}. Write --out 'RUNS/alpha-{PLACE}'.")
    if None in shown and PLACE in str(out):
        raise UsageError(f"--out {out} has {PLACE} in it, and no --alpha is named. Name one, or take {PLACE} out.")
    return {alpha: destinations(str(out).replace(PLACE, shown[alpha]), tasks) for alpha in alphas}


def destinations(out: str | Path, tasks: Sequence[str]) -> dict[str, Path]:
    """Task -> the directory of its run: `out` itself for one task, directories of it for several.

    Raises UsageError for no task, two that would share a directory, and an address in a store.
    """
    if not tasks:
        raise UsageError("No task is named. --task takes a benchmark's name or a .jsonl file.")
    if is_address(out):
        raise UsageError(
            f"--out {out} is an address in a store. A run is written batch by batch, to a directory of this machine; "
            f"copy it there when it is whole."
        )
    if len(tasks) == 1:
        return {tasks[0]: Path(out)}
    names = [_name(task) for task in tasks]
    if len(set(names)) < len(names):
        raise UsageError(f"--task names {', '.join(tasks)}, of which two would be written to one directory of {out}.")
    return {task: Path(out) / name for task, name in zip(tasks, names, strict=True)}


def _name(task: str) -> str:
    """bbh/navigate -> bbh-navigate; sciq:written -> sciq-written; there/mine.jsonl:written -> mine-written."""
    name = task.removesuffix(".jsonl").rsplit("/", 1)[-1] if ".jsonl" in task else task
    name = name.replace("/", "-").replace(":", "-").replace(".jsonl", "")
    if not name.strip("."):
        raise UsageError(f"--task {task} gives no name for a directory. Rename the file, or measure it by itself.")
    return name
