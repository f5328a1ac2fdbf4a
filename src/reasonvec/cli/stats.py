"""The command about runs that were measured: stats."""

from pathlib import Path

import click

from reasonvec.cli.options import json_option
from reasonvec.cli.printing import needs, print_json, show
from reasonvec.cli.program import main


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--baseline", type=click.Path(path_type=Path), metavar="RUN",
              help="A run of the arm that the others are compared with. Default: the one without a vector and with the "
                   "plain prompt.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap and of sampled sign flips.")
@json_option
def stats(runs: tuple[Path, ...], baseline: Path | None, seed: int, as_json: bool) -> None:
    """Say what runs show: accuracies, paired differences, and what could have been seen.

    RUN is a run, or a directory that holds runs. Arms are compared on the same problems; runs that differ in problems,
    sampling or dtype, or that are unfinished, are refused. docs/evaluation.md explains every number.
    """
    from rich.console import Console  # here for start-up time, as in every command

    with Console(stderr=True).status("reading"), needs("eval"):
        from reasonvec.evaluation.comparison import compare_runs
        from reasonvec.terminal import runs as tables

        comparison = compare_runs(runs, baseline=baseline, seed=seed)
    if baseline is None:
        names = list(dict.fromkeys(table.baseline.name for table in comparison.tables if table.baseline))
        if names:
            are = "baselines are" if len(names) > 1 else "baseline is"
            click.echo(f"The {are} {', '.join(names)}: no vector, and the plain prompt.", err=True)
    if as_json:
        print_json(comparison.to_json())
    else:
        show(tables.run_comparison(comparison))
