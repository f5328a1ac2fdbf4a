"""The command that shows all of it at toy scale: demo."""

from pathlib import Path

import click

from reasonvec.cli.printing import needs
from reasonvec.cli.program import main


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="The directory for models, vector, results and report.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Reaches every random choice.")
def demo(out: Path, seed: int) -> None:
    """Run the whole method at toy scale, from nothing: train donors, extract, apply, measure, report.

    Takes some minutes on two cores. Needs the extra: pip install "reasonvec[demo]".
    """
    click.echo("Loading torch, transformers and TRL ...", err=True)  # takes seconds, in which nothing else is said
    with needs("demo"):
        from reasonvec.lab.demo import demo as run

    run(out=out, seed=seed)
