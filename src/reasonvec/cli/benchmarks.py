"""The commands about problems to measure on: perturb, overlap."""

from pathlib import Path
from typing import Any

import click

from reasonvec.cli.options import data_option, json_option
from reasonvec.cli.printing import offer, print_json, progress_line, show
from reasonvec.cli.program import main


@main.command()
@click.argument("task", metavar="TASK")
@data_option
@click.option("--operator", required=True, metavar="NAME",
              help="typo, surface, number-format, shuffle, shuffle-all, distract-off, distract-in, numbers, compose or "
                   "premise.")  # fmt: skip
@click.option("--severity", type=int, default=1, show_default=True,
              help="From 1, the mildest; 0 writes the problems of severity 1 unchanged.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Reaches every random choice.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The new .jsonl file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def perturb(task: str, as_json: bool, **arguments: Any) -> None:
    """Change every question of a benchmark a little, and keep or recompute its gold answer.

    TASK is a benchmark's name, such as gsm8k or svamp, or a .jsonl file with question and answer. Problems that the
    operator does not apply to are left out and counted. Measure all arms on the one file.
    """
    from reasonvec.evaluation.perturbations import perturb as run
    from reasonvec.terminal import benchmarks as tables  # here for start-up time, as in every command

    made = run(task, **arguments)
    if as_json:
        print_json(made.to_json())
        return
    show(tables.perturbation(made))
    if arguments["operator"] == "numbers" and arguments["severity"] > 1:  # applies to some that severity 1 does not
        part = " --split all" * task.endswith(".jsonl")
        offer(f"reasonvec evaluate TARGET --task {task}{part} --out RUN")
    elif arguments["severity"]:
        offer(f"reasonvec perturb {task} --operator {arguments['operator']} --severity 0 --seed {arguments['seed']} "
              "--out CLEAN.jsonl")  # fmt: skip


@main.command()
@click.argument("training", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRAINING.jsonl...")
@click.option("--task", required=True, metavar="NAME", help="The benchmark that is to be measured on.")
@data_option
@json_option
def overlap(training: tuple[Path, ...], as_json: bool, **arguments: Any) -> None:
    """Find the problems of a benchmark that stand in training data. Exit status 3 if there is one.

    TRAINING are JSON lines, also .gz or .zst; every text in every row is looked through, whatever its field. A donor
    that was trained on such rows cannot be measured on those problems.
    """
    from reasonvec.evaluation.overlap import find_overlap as run
    from reasonvec.terminal import benchmarks as tables

    with progress_line("searching") as progress:
        found = run(training, **arguments, progress=progress)
    if as_json:
        print_json(found.to_json())
    else:
        show(tables.overlap(found))
    if found.problems:
        raise click.exceptions.Exit(3)
