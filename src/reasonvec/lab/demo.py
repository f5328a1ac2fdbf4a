"""The demo: the whole method from nothing, on a laptop's CPU. Order and words only; the work is done elsewhere."""

import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from reasonvec.errors import OutputError
from reasonvec.evaluation.generation import evaluate_checkpoint
from reasonvec.evaluation.outcomes import Outcome, Problem
from reasonvec.lab.arms import Arm, accuracies, differences, draw_problems, examples, kinds, sweep_name
from reasonvec.lab.donors import train_ancestor, train_grpo_donor, train_sft_donor, train_target, use_threads
from reasonvec.lab.progress import Stages
from reasonvec.lab.recipe import Recipe
from reasonvec.lab.story import provenance, story, summary
from reasonvec.report import write_report
from reasonvec.training.quiet import quiet
from reasonvec.weights import apply, check, extract, inspect, write_permuted, write_random

MARKER = ".reasonvec-demo"
"""Lies in a demo's directory from its first second, so that a later demo knows that it may replace it."""


def demo(out: Path, seed: int = 0, recipe: Recipe | None = None) -> dict[str, Any]:
    """Train donors and target, extract, check, apply, measure and report into `out`; returns what results.json holds.

    A former demo in `out` is replaced; anything else there is an OutputError. Everything random follows from `seed`.
    The target is trained, and half of the arms are measured, in a second process, so that two cores are put to use; a
    script that calls this needs the usual `if __name__ == "__main__":`.
    """
    recipe = recipe or Recipe()
    out = out.absolute()
    _claim(out)
    use_threads(1)
    stages = Stages()
    models = out / "models"
    trained = [Arm(name, "donor", models / name) for name in ("ancestor", "sft", "grpo")]
    trained.append(Arm("target", "target", models / "target", alpha=0.0))
    with _worker() as worker, tempfile.TemporaryDirectory(prefix=".sweep-", dir=out) as scratch:
        _train(models, worker, stages, recipe, seed)
        problems = draw_problems(seed, count=recipe.problems)
        added = _add(out, Path(scratch), stages, recipe, seed)
        arms = [*trained, *added]
        measured = _measure(arms, problems, worker, stages, longest=recipe.longest)
    results = _report(out, arms, measured, stages, recipe, seed)
    print(summary(results, out))  # noqa: T201 - what the command is asked for
    return results


def _claim(out: Path) -> None:
    """Make `out` an empty directory of ours, or refuse before anything is trained."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; the demo writes a directory. Name another --out.")
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise OutputError(
                f"{out} is not empty and is not a former demo, so nothing there is touched. Name another --out, or "
                f"empty that directory."
            )
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("Written by `reasonvec demo`, which replaces this directory when it is run again.\n")


@contextmanager
def _worker() -> Iterator[Executor]:
    """A second process that computes beside this one, with one thread like this one."""
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    with ProcessPoolExecutor(1, mp_context=context, initializer=use_threads, initargs=(1,)) as executor:
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)  # and wait: no process outlives the demo


def _train(models: Path, worker: Executor, stages: Stages, recipe: Recipe, seed: int) -> None:
    steps = recipe.pretraining.steps
    with stages.stage("Ancestor", "a tiny model learns to read and to add, with a bad habit", steps=steps) as advance:
        train_ancestor(out=models / "ancestor", recipe=recipe, seed=seed, advance=advance)
    target = worker.submit(_train_target_quietly, models / "ancestor", models / "target", recipe, seed)
    with stages.stage("SFT donor", "it copies worked sums, habit included", steps=recipe.donor.steps) as advance:
        train_sft_donor(ancestor=models / "ancestor", out=models / "sft", recipe=recipe, seed=seed, advance=advance)
    steps = recipe.reinforcement.steps
    with stages.stage("GRPO donor", "it goes on by trial and reward for right answers", steps=steps) as advance:
        train_grpo_donor(sft=models / "sft", out=models / "grpo", recipe=recipe, seed=seed, advance=advance)
    with stages.stage("Target", "another copy of the ancestor learned instructions meanwhile"):
        target.result()


def _train_target_quietly(ancestor: Path, out: Path, recipe: Recipe, seed: int) -> None:
    """What the second process does meanwhile."""
    train_target(ancestor=ancestor, out=out, recipe=recipe, seed=seed, advance=lambda done, note: None)


def _add(out: Path, scratch: Path, stages: Stages, recipe: Recipe, seed: int) -> list[Arm]:
    """Extract the vector, check that it fits, and add it, and vectors without meaning, to the target."""
    models, vector, target = out / "models", out / "vector", out / "models" / "target"
    with stages.stage("Vector", "GRPO donor minus SFT donor, number by number"):
        extract(tuned=models / "grpo", base=models / "sft", out=vector, ancestor=models / "ancestor")
        for finding in check(vector=vector, target=target).findings:
            stages.say(f"       {finding.level}: {finding.title}")
    arms = []
    with stages.stage("Addition", "target + alpha times the vector; random and shuffled ones for comparison"):
        for alpha in recipe.alphas:
            enhanced = out / "enhanced" if alpha == 1 else scratch / sweep_name(alpha)
            apply(vectors=[(vector, alpha)], target=target, out=enhanced)
            arms.append(Arm(sweep_name(alpha), "sweep", enhanced, alpha))
        for name, control in _controls(vector, out / "controls", recipe, seed):
            apply(vectors=[(control, 1.0)], target=target, out=scratch / name)
            arms.append(Arm(name, "control", scratch / name))
    return arms


def _controls(vector: Path, folder: Path, recipe: Recipe, seed: int) -> Iterator[tuple[str, Path]]:
    """Vectors of the same size without meaning, by name."""
    folder.mkdir()
    for number in range(1, recipe.randoms + 1):
        write_random(vector=vector, out=folder / f"random-{number}", seed=1000 * seed + number)
        yield f"random-{number}", folder / f"random-{number}"
    write_permuted(vector=vector, out=folder / "permuted", seed=seed)
    yield "permuted", folder / "permuted"


def _measure(
    arms: Sequence[Arm], problems: list[Problem], worker: Executor, stages: Stages, *, longest: int
) -> dict[str, list[Outcome]]:
    """Outcomes by arm; the worker takes arms from the front and this process from the back."""
    purpose = f"{len(arms)} models answer the same {len(problems)} problems"
    with stages.stage("Measurement", purpose, steps=len(arms)) as advance:
        futures = {arm.name: worker.submit(_evaluate, arm.checkpoint, problems, longest) for arm in arms}
        measured: dict[str, list[Outcome]] = {}
        for arm in reversed(arms):
            if futures[arm.name].cancel():
                measured[arm.name] = _evaluate(arm.checkpoint, problems, longest)
                advance(len(measured) + _done(futures.values()), arm.name)
        for arm in arms:
            if arm.name not in measured:
                measured[arm.name] = futures[arm.name].result()
                advance(len(measured), arm.name)
    return measured


def _done(futures: Any) -> int:
    return sum(future.done() and not future.cancelled() for future in futures)


def _evaluate(checkpoint: Path, problems: list[Problem], longest: int) -> list[Outcome]:
    with quiet():
        return evaluate_checkpoint(checkpoint, problems, max_new_tokens=longest)


def _report(
    out: Path, arms: Sequence[Arm], measured: dict[str, list[Outcome]], stages: Stages, recipe: Recipe, seed: int
) -> dict[str, Any]:
    results: dict[str, Any] = {
        "arms": accuracies(arms, measured),
        "differences": differences(arms, measured),
        "kinds": kinds(),
        "examples": examples(arms, measured, sweep_name(1.0)),
        "seed": seed,
        "recipe": asdict(recipe),
        "versions": _versions(),
    }
    with stages.stage("Report", "one page to open in a browser"):
        vector = inspect(out / "vector").to_json()
        # the page shows the time up to itself
        results |= {"stages": dict(stages.seconds), "seconds": round(stages.total, 1)}
        page = results | {
            "arms": [entry for entry in results["arms"] if entry["kind"] != "all"],
            "differences": [entry for entry in results["differences"] if entry["kind"] != "all"],
        }
        write_report(
            out=out / "report.html", results=page, story=story(results), vector=vector, provenance=provenance(vector)
        )
    results |= {"stages": dict(stages.seconds), "seconds": round(stages.total, 1)}
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    partial = out / ".results.json.partial"
    partial.write_text(text + "\n")
    partial.rename(out / "results.json")
    document: dict[str, Any] = json.loads(text)
    return document


def _versions() -> dict[str, str]:
    names = ("reasonvec", "torch", "transformers", "trl", "accelerate", "datasets", "numpy")
    return {"python": python_version(), **{name: version(name) for name in names}}
