"""Turn a recipe, one YAML file, into the commands of a whole experiment: print them, or run those not done yet.

    python scripts/recipe.py recipes/qwen2.5-1.5b-gsm8k.yaml            print every command, to be pasted into a shell
    python scripts/recipe.py FILE --run [--only STEP]...                run them, one after the other; again, to go on
    python scripts/recipe.py FILE --alpha                               print the alpha that the dev runs speak for

What a recipe may hold is in `scripts/recipe_file.py`, which reads it; nothing here opens a checkpoint.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
from recipe_file import Perturbation, Public, Recipe, RecipeError, Trained, read_recipe

from reasonvec.errors import ReasonvecError
from reasonvec.evaluation.runs import load_run

STEPS = (
    "prepare", "overlap", "donors", "trajectory", "vectors", "check", "controls", "dev", "alpha", "arms", "perturbed",
    "stats",
)  # fmt: skip
CHOSEN = "{alpha}"
"""Stands in a command for the alpha that is chosen on the way."""


@dataclass(frozen=True)
class Command:
    """One command of a step."""

    step: str
    words: tuple[str, ...]
    done: Path | None = None
    """Exists once the command has done its work; None for one that is quick and is run each time."""
    begun: Path | None = None
    """Exists once it has begun: from then on it goes on with --resume."""
    found: tuple[int, ...] = (0,)
    """Exit statuses that let the recipe go on."""


def commands(recipe: Recipe, file: Path, donors: str) -> list[Command]:
    """Every command of the recipe, in order, with the donors of that name."""
    return [*_prepare(recipe), *_donors(recipe, donors), *_vectors(recipe, donors), *_controls(recipe),
            *_dev(recipe, file, donors), *_arms(recipe, donors), *_perturbed(recipe, donors),
            *_stats(recipe)]  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Where things are: the donors, and what the recipe makes."""

    sft: str
    grpo: str
    ancestor: str
    target: str


def places(recipe: Recipe, donors: str) -> Places:
    """The donors that are named or will be trained."""
    if donors == "public":
        public = _public(recipe)
        return Places(public.sft, public.grpo, public.ancestor, public.target)
    trained = _trained(recipe)
    return Places(f"{recipe.out}/sft", f"{recipe.out}/grpo", trained.base, trained.target)


def _prepare(recipe: Recipe) -> Iterator[Command]:
    """Models and data that are nowhere to be fetched."""
    if recipe.prepare:
        yield Command("prepare", ("python", *recipe.prepare), Path(recipe.prepare[-1]))


def _donors(recipe: Recipe, donors: str) -> Iterator[Command]:
    """Is the training data clean? Then both trainings, GRPO going on from the SFT donor, and how straight it went."""
    if donors == "public":
        return
    trained, out = _trained(recipe), recipe.out
    for task in dict.fromkeys(task for group in recipe.benchmarks for task in group.tasks):
        # 3: some problems overlap. That is read, not refused: templates share runs of words with their own train part
        yield Command("overlap", ("reasonvec", "overlap", trained.training_data, "--task", _plain(task), "--data",
                                  recipe.data), found=(0, 3))  # fmt: skip
    runner = ("reasonvec",) if trained.launch is None else (
        "accelerate", "launch", "--config_file", trained.launch, "-m", "reasonvec")  # fmt: skip
    data = ("--data", trained.training_data, "--data-dir", recipe.data)
    for kind, model, config, changes in (
        ("sft", trained.base, trained.sft_config, trained.sft_set),
        ("grpo", f"{out}/sft", trained.grpo_config, trained.grpo_set),
    ):
        settings = tuple(word for change in (f"seed={recipe.seed}", *changes) for word in ("--set", change))
        words = (*runner, "train", kind, "--model", model, *data, *(("--bare",) if recipe.bare_training else ()))
        if kind == "grpo":
            words += tuple(word for name in trained.rewards for word in ("--reward", name))
            words += ("--trajectory", "powers")
        words += ("--config", config, *settings, "--out", f"{out}/{kind}")
        yield Command("donors", words, Path(out, kind, "training.json"), Path(out, kind, "plan.json"))
    yield Command("trajectory", ("reasonvec", "trajectory", f"{out}/grpo", "--plot", f"{out}/trajectory.png"),
                  Path(out, "trajectory.png"))  # fmt: skip


def _vectors(recipe: Recipe, donors: str) -> Iterator[Command]:
    """The reasoning vector, and the two that merge baselines are made with; does the first fit the target?"""
    place, out = places(recipe, donors), recipe.out
    for name, tuned, base in (
        ("reasoning", place.grpo, place.sft),
        ("sft-update", place.sft, place.ancestor),
        ("to-grpo", place.grpo, place.target),
    ):
        ancestor = ("--ancestor", place.ancestor) if name == "reasoning" else ()
        words = ("reasonvec", "extract", "--tuned", tuned, "--base", base, *ancestor, "--out", f"{out}/vectors/{name}")
        begun = Path(out, "vectors", f".{name}.reasonvec-partial", "plan.json")
        yield Command("vectors", words, Path(out, "vectors", name), begun)
    vector = f"{out}/vectors/reasoning"
    yield Command("vectors", ("reasonvec", "inspect", vector, "--plot", f"{out}/vector.png"), Path(out, "vector.png"))
    yield Command("check", ("reasonvec", "check", "--vector", vector, "--target", place.target))


def _controls(recipe: Recipe) -> Iterator[Command]:
    """Vectors that carry nothing, of the reasoning vector's norm in each tensor."""
    for kind, name, seed in _control_names(recipe):
        out = f"{recipe.out}/vectors/{name}"
        words = ("reasonvec", "control", f"{recipe.out}/vectors/reasoning", "--kind", kind, "--seed", str(seed))
        yield Command("controls", (*words, "--out", out), Path(out))


def _dev(recipe: Recipe, file: Path, donors: str) -> Iterator[Command]:
    """Alpha is chosen here, on problems that nothing is confirmed on."""
    for alpha in recipe.dev.alphas:
        yield _evaluate(recipe, "dev", f"dev/alpha-{alpha:g}", recipe.dev.task, places(recipe, donors).target,
                        vector="reasoning", alpha=f"{alpha:g}", part="dev")  # fmt: skip
    yield _evaluate(recipe, "dev", "dev/target", recipe.dev.task, places(recipe, donors).target, part="dev")
    words = ("python", "scripts/recipe.py", str(file), "--donors", donors, "--alpha")
    yield Command("alpha", words, Path(recipe.out, "alpha.json"))


def _arms(recipe: Recipe, donors: str) -> Iterator[Command]:
    """The rows of the report, on every benchmark, and the controls on theirs."""
    place = places(recipe, donors)
    rows: tuple[tuple[str, str, str | None, str | None, str], ...] = (
        ("target", place.target, None, None, "plain"),
        ("target-again", place.target, None, None, "plain"),  # A/A: what repeating alone changes
        ("target-think", place.target, None, None, "think"),
        ("vector-1", place.target, "reasoning", "1", "plain"),  # the untuned default
        ("vector", place.target, "reasoning", CHOSEN, "plain"),
        ("vector-think", place.target, "reasoning", CHOSEN, "think"),
        ("minus", place.target, "reasoning", f"-{CHOSEN}", "plain"),
        ("sft-think", place.sft, None, None, "think"),
        ("grpo-think", place.grpo, None, None, "think"),
        ("sft-update", place.target, "sft-update", "1", "plain"),
        ("interpolation", place.target, "to-grpo", f"{recipe.interpolation:g}", "plain"),
    )
    if not recipe.think:
        rows = tuple((name.removesuffix("-think"), *rest, "plain") for name, *rest, _ in rows
                     if name not in ("target-think", "vector-think"))  # fmt: skip
    for group in recipe.benchmarks:
        for task in group.tasks:
            for arm, checkpoint, vector, alpha, prompt in rows:
                name = f"test/{_directory(task)}/{arm}"
                yield _evaluate(recipe, "arms", name, task, checkpoint, vector=vector, alpha=alpha, prompt=prompt)
    for _, name, _ in _control_names(recipe):
        where = f"test/{_directory(recipe.controls.task)}/{name}"
        yield _evaluate(recipe, "arms", where, recipe.controls.task, place.target, vector=name, alpha=CHOSEN)


def _perturbed(recipe: Recipe, donors: str) -> Iterator[Command]:
    """The same problems changed a little, and unchanged, for the target with and without the vector."""
    target = places(recipe, donors).target
    for name, change, severity in _changes(recipe):
        out = f"{recipe.out}/perturbed/{name}.jsonl"
        words = ("reasonvec", "perturb", change.task, "--data", recipe.data, "--operator", change.operator,
                 "--severity", str(severity), "--seed", str(recipe.seed), "--out", out)  # fmt: skip
        yield Command("perturbed", words, Path(out))
        for arm, vector in (("target", None), ("vector", "reasoning")):
            yield _evaluate(recipe, "perturbed", f"perturbed/{name}/{arm}", out, target, vector=vector,
                            alpha=CHOSEN if vector else None)  # fmt: skip


def _stats(recipe: Recipe) -> Iterator[Command]:
    """Every arm beside the target, paired on the same problems; on changed problems the vector beside the target."""
    named = [f"test/{_directory(task)}" for group in recipe.benchmarks for task in group.tasks]
    for name in [*named, *(f"perturbed/{name}" for name, _, _ in _changes(recipe))]:
        where = f"{recipe.out}/runs/{name}"
        yield Command("stats", ("reasonvec", "stats", where, "--baseline", f"{where}/target"))


def _evaluate(
    recipe: Recipe, step: str, name: str, task: str, checkpoint: str, *, vector: str | None = None,
    alpha: str | None = None, prompt: str = "plain", part: str = "test",
) -> Command:  # fmt: skip
    """One run: one arm on one benchmark."""
    sampling = next((group for group in recipe.benchmarks if task in group.tasks), recipe.benchmarks[0])
    engine, out = recipe.engine, f"{recipe.out}/runs/{name}"
    words = ["reasonvec", "evaluate", checkpoint, "--task", task, "--data", recipe.data, "--split", part]
    if vector is not None:
        words += ["--vector", f"{recipe.out}/vectors/{vector}", "--alpha", str(alpha)]
    if prompt != "plain":
        words += ["--prompt", prompt]
    if recipe.bare:
        words += ["--bare"]
    if sampling.limit is not None:
        words += ["--limit", str(sampling.limit)]
    if sampling.samples > 1:
        words += ["--samples", str(sampling.samples), "--temperature", f"{sampling.temperature:g}"]
    words += ["--max-new-tokens", str(sampling.max_new_tokens), "--engine", engine, "--seed", str(recipe.seed)]
    return Command(step, (*words, "--out", out), Path(out, "summary.json"), Path(out, "run.json"))


def _changes(recipe: Recipe) -> Iterator[tuple[str, Perturbation, int]]:
    """The name of every changed copy of a task, the change, and its severity; unchanged ones are severity 0."""
    names = set()
    for change in recipe.perturbations:
        for severity in (0, change.severity):
            name = f"{_directory(change.task)}-{change.operator}-{severity}"
            if name not in names:
                yield name, change, severity
            names.add(name)


def _control_names(recipe: Recipe) -> Iterator[tuple[str, str, int]]:
    for kind, count in (("random", recipe.controls.random), ("permuted", recipe.controls.permuted)):
        yield from ((kind, f"{kind}-{seed}", seed) for seed in range(1, count + 1))


def _trained(recipe: Recipe) -> Trained:
    if recipe.donors.trained is None:
        raise RecipeError(f"{recipe.name} trains no donors; it has --donors public.")
    return recipe.donors.trained


def _public(recipe: Recipe) -> Public:
    if recipe.donors.public is None:
        raise RecipeError(f"{recipe.name} names no public donors; it has --donors trained.")
    return recipe.donors.public


def _plain(task: str) -> str:
    """A task without its variant: the problems are the same."""
    return task.partition(":")[0]


def _directory(task: str) -> str:
    """A name for a directory."""
    return re.sub(r"[^\w.-]", "-", Path(task).stem if task.endswith(".jsonl") else task)


def choose_alpha(recipe: Recipe) -> dict[str, object]:
    """The alpha of the grid with the most right answers on dev; of several the smallest. Read from the runs alone.

    Raises RecipeError where a run is missing or not whole.
    """
    shares: dict[float, float] = {}
    for alpha in recipe.dev.alphas:
        path = Path(recipe.out, "runs", f"dev/alpha-{alpha:g}")
        run = load_run(path) if path.is_dir() else None
        if run is None or not run.complete:
            raise RecipeError(f"{path} is not there or not whole; alpha is chosen when all of step dev has run.")
        shares[alpha] = sum(outcome.correct for outcome in run.outcomes) / len(run.outcomes)
    best = min(shares, key=lambda alpha: (-shares[alpha], abs(alpha)))
    return {"alpha": best, "task": recipe.dev.task, "rule": "most right answers on dev, of several the smallest",
            "dev": [{"alpha": alpha, "accuracy": share} for alpha, share in shares.items()]}  # fmt: skip


def keep_alpha(recipe: Recipe) -> float:
    """Choose alpha and keep it, with what it was chosen from, in OUT/alpha.json."""
    document = choose_alpha(recipe)
    Path(recipe.out, "alpha.json").write_text(json.dumps(document, indent=1) + "\n")
    return float(str(document["alpha"]))


def keep_recipe(recipe: Recipe, file: Path) -> None:
    """Copy the recipe to where its results will lie. Raises RecipeError where results of another one lie there."""
    kept = Path(recipe.out, "recipe.yaml")
    if kept.is_file():
        before = read_recipe(kept)
        if replace(before, out=recipe.out, expect=recipe.expect) != recipe:
            raise RecipeError(f"{kept} is another recipe than {file}: what was made by it would be taken for this "
                              f"one's. Name another `out`, or remove {recipe.out}.")  # fmt: skip
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(file.read_bytes())


def show(recipe: Recipe, made: list[Command], only: list[str]) -> None:
    """Print the commands as a shell takes them, in order, with what each step is expected to cost."""
    click.echo(f"# {recipe.name}: {len(made)} commands. Hours and memory are estimates, on {recipe.expect.machine}.")
    click.echo(f"set -e\nmkdir -p {' '.join(shlex.quote(str(path)) for path in _directories(recipe))}")
    if not any(command.step == "donors" for command in made) and not only:
        click.echo(
            "# What these donors were trained on is not declared, so whether it overlaps the benchmarks is open."
        )
    step = ""
    for command in made:
        if command.step != step:
            step = command.step
            cost = recipe.expect.of(step)
            click.echo(f"\n# {step}{f': {cost}' if cost else ''}")
        if step == "alpha":
            click.echo(f"ALPHA=$({shlex.join(command.words)})")
            continue
        line = " ".join(_quoted(word) for word in command.words)
        click.echo(f"{line} || [ $? -eq {command.found[1]} ]" if len(command.found) > 1 else line)


def _directories(recipe: Recipe) -> list[Path]:
    """What has to be there before anything is written in it."""
    tasks = [f"runs/test/{_directory(task)}" for group in recipe.benchmarks for task in group.tasks]
    changes = [f"runs/perturbed/{name}" for name, _, _ in _changes(recipe)]
    return [Path(recipe.out, part) for part in ("vectors", "perturbed", "runs/dev", *tasks, *changes)]


def _quoted(word: str) -> str:
    return f'"{word.replace(CHOSEN, "$ALPHA")}"' if word in (CHOSEN, f"-{CHOSEN}") else shlex.quote(word)


def run(recipe: Recipe, made: list[Command], only: list[str]) -> None:
    """Run the commands that have not done their work yet. Raises RecipeError at the first that fails."""
    for path in _directories(recipe):
        path.mkdir(parents=True, exist_ok=True)
    for command in made:
        if only and command.step not in only:
            continue
        if command.done is not None and command.done.exists():
            click.echo(f"done already: {command.done}", err=True)
            continue
        if command.step == "alpha":
            click.echo(f"alpha is {keep_alpha(recipe):g}", err=True)
            continue
        words = [_with_alpha(word, recipe) for word in command.words]
        if command.begun is not None and command.begun.exists():
            words.append("--resume")
        click.echo(f"$ {shlex.join(words)}", err=True)
        status = execute(words)
        if status not in command.found:
            raise RecipeError(f"that command ended with status {status}, so the recipe stops there. Mend what it says "
                              f"and run the recipe again: it goes on from here.")  # fmt: skip


def execute(words: list[str]) -> int:
    """Run one command to its end; its exit status."""
    return subprocess.run([*_program(words[0]), *words[1:]], check=False).returncode  # noqa: S603


def _with_alpha(word: str, recipe: Recipe) -> str:
    if CHOSEN not in word:
        return word
    file = Path(recipe.out, "alpha.json")
    if not file.is_file():
        raise RecipeError(f"{file} is not there: run the steps dev and alpha first.")
    alpha = float(json.loads(file.read_text())["alpha"])
    return f"{-alpha if word.startswith('-') else alpha:g}"


def _program(name: str) -> list[str]:
    """The program of this environment, whatever is on the path."""
    modules = {"reasonvec": "reasonvec", "accelerate": "accelerate.commands.accelerate_cli"}
    return [sys.executable, "-m", modules[name]] if name in modules else [sys.executable]


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the recipe")
    parser.add_argument("--donors", choices=("trained", "public"), help="default: trained, where the recipe has them")
    parser.add_argument("--run", action="store_true", help="run the commands instead of printing them")
    parser.add_argument("--only", action="append", default=[], choices=STEPS, help="this step alone; may be repeated")
    parser.add_argument("--alpha", action="store_true", help="print the alpha chosen by the dev runs, and keep it")
    given = parser.parse_args(arguments)
    try:
        recipe = read_recipe(given.file)
        donors = given.donors or ("trained" if recipe.donors.trained else "public")
        recipe = replace(recipe, out=f"{recipe.out}/{donors}")  # else what one kind made would pass for the other's
        if given.alpha:
            click.echo(f"{keep_alpha(recipe):g}")
            return
        made = commands(recipe, given.file, donors)
        if given.run:
            keep_recipe(recipe, given.file)
            run(recipe, made, given.only)
        else:
            show(recipe, [command for command in made if not given.only or command.step in given.only], given.only)
    except (RecipeError, ReasonvecError) as error:
        sys.exit(f"recipe: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
