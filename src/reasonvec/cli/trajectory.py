"""The command about the way a training went: trajectory."""

from pathlib import Path

import click

from reasonvec.cli.options import json_option
from reasonvec.cli.printing import offer, print_json, progress_line, show, warn
from reasonvec.cli.program import main


@main.command()
@click.argument("directory", metavar="DIR")
@click.option("--base", metavar="DIR", help="The checkpoint to measure from. Default: what the training began with.")
@click.option("--runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
              help="Accuracy of its checkpoints: a run, or a directory that holds some. May be repeated.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it: a new .png, .svg or .pdf file.")
@click.option("--offline", is_flag=True, help="Never ask the Hub or a store; use what is in the Hub's cache.")
@json_option
def trajectory(
    directory: str, base: str | None, runs: tuple[Path, ...], plot: Path | None, offline: bool, as_json: bool
) -> None:
    """Show whether the direction of a vector converges along a training.

    DIR is the output of a `reasonvec train` that kept checkpoints on its way. For each: the norm of checkpoint - base,
    its cosine to the final one, how straight the way was, and the accuracy where it was measured.
    """
    from reasonvec.evaluation.runs.accuracy import accuracies_by_checkpoint  # here for start-up time, as everywhere
    from reasonvec.terminal.trajectory import trajectory as table
    from reasonvec.weights import follow_trajectory as run
    from reasonvec.weights.figure import check_plot_file

    if plot:
        check_plot_file(plot)
    accuracies = accuracies_by_checkpoint(runs)
    with progress_line("following") as progress:
        found = run(directory, base=base, accuracies=accuracies, offline=offline, progress=progress)
    warn(found.warnings)
    if plot:
        from reasonvec.weights.trajectory_figure import plot_trajectory

        plot_trajectory(found, plot, title=f"{Path(directory).name}: {len(found.points)} checkpoints")
        click.echo(f"Drew {plot}.", err=True)
    if as_json:
        print_json(found.to_json())
    else:
        show(table(found))
        if not runs:
            step = found.points[0]
            offer(f"reasonvec evaluate {step.path} --task gsm8k --out RUNS/{step.name}, and so on, then",
                  f"reasonvec trajectory {directory} --runs RUNS")  # fmt: skip
