"""The accuracy that finished runs measured, by the checkpoint that answered. No comparison of runs is made here."""

from collections.abc import Iterable
from pathlib import Path

from reasonvec.errors import RunError
from reasonvec.evaluation.runs.record import Run, find_runs, load_run


def accuracies_by_checkpoint(paths: Iterable[Path]) -> dict[Path, dict[str, float]]:
    """Checkpoint, resolved -> task -> share of its answers that are right, from 0 to 1; samples count one by one.

    `paths` are runs, or directories that hold some. Raises RunError for a run that is not whole, one of a checkpoint
    with a vector added, which is another model, and two runs of one checkpoint on one task.
    """
    found: dict[Path, dict[str, float]] = {}
    for path in (run for place in paths for run in find_runs(place)):
        run = load_run(path)
        checkpoint, task = _checkpoint(run), str(run.benchmark["task"])
        if not run.complete or not run.outcomes:
            raise RunError(f"{path} is not whole, so its accuracy is not known yet. Finish it with --resume.")
        tasks = found.setdefault(checkpoint.resolve(), {})
        if task in tasks:
            raise RunError(
                f"{path} is a second run of {checkpoint} on {task}. Which one counts is not defined; name one of them."
            )
        tasks[task] = sum(outcome.correct for outcome in run.outcomes) / len(run.outcomes)
    return found


def _checkpoint(run: Run) -> Path:
    arm = run.configuration["arm"]
    if arm.get("vector") is not None:
        raise RunError(
            f"{run.path} measured {arm.get('checkpoint')} with a vector added: it says nothing of the checkpoint "
            f"alone. Leave that run out."
        )
    if not isinstance(arm.get("checkpoint"), str):
        raise RunError(f"{run.path / 'run.json'} does not say which checkpoint answered. Measure again.")
    return Path(arm["checkpoint"])
