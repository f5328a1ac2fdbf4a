"""The commands on weights: extract, apply, transfer, check, inspect, compare, compress, verify."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from reasonvec.cli.options import Alpha, access, applying, json_option, only, output, skip, workers
from reasonvec.cli.printing import offer, print_json, progress_line, show, warn
from reasonvec.cli.program import main
from reasonvec.errors import UsageError


@main.command()
@click.option("--tuned", required=True, metavar="DIR", help="The donor that has learnt, such as the GRPO checkpoint.")
@click.option("--base", required=True, metavar="DIR", help="The donor that it is compared with, such as the SFT one.")
@click.option("--ancestor", metavar="DIR", help="The model both donors came from: tells how they are related.")
@output
@only
@skip
@click.option(
    "--encoding",
    type=click.Choice(["auto", "dense", "sparse"]),
    default="auto",
    show_default=True,
    help="Sparse keeps the changed entries alone, compressed; auto takes the smaller one for each tensor.",
)
@workers
@access
@json_option
def extract(as_json: bool, **arguments: Any) -> None:
    """Take the difference of two checkpoints: VECTOR = TUNED - BASE."""
    from reasonvec.weights import extract as run  # here for start-up time, as in every command

    with progress_line("extracting") as progress:
        extraction = run(**arguments, progress=progress)
    from reasonvec.terminal import made as tables

    warn(extraction.warnings)
    if as_json:
        print_json(extraction.to_json())
        return
    show(tables.extraction(extraction))
    made = shlex.quote(arguments["out"])
    offer(f"reasonvec check --vector {made} --target TARGET",
          f"reasonvec apply --vector {made} --target TARGET --out ENHANCED")  # fmt: skip


@main.command()
@click.option("--vector", "vectors", required=True, multiple=True, type=Alpha(), metavar="VECTOR[@ALPHA]",
              help="A vector to add, with its own alpha if given. May be repeated.")  # fmt: skip
@click.option("--alpha", "alphas", type=float, multiple=True, default=[1.0], show_default="1",
              help="The scale of vectors that have none of their own. -1 subtracts. May be repeated: one output each, "
                   "in one pass; --out then holds {alpha}.")  # fmt: skip
@applying
def apply(as_json: bool, **arguments: Any) -> None:
    """Add vectors to a checkpoint: OUT = TARGET + ALPHA * VECTOR."""
    from reasonvec.weights import apply_sweep as run

    given = click.get_current_context().get_parameter_source("alphas") is not ParameterSource.DEFAULT
    if given and all(own is not None for _, own in arguments["vectors"]):
        told = " ".join(f"--alpha {alpha:g}" for alpha in arguments["alphas"])
        raise UsageError(f"{told} would do nothing: every vector has an alpha of its own, as in VECTOR@0.5. Leave out "
                         f"--alpha, or the @ALPHA of the vector that is to take it.")  # fmt: skip
    _enhance(run, "applying", as_json, **arguments)


@main.command()
@click.option("--tuned", required=True, metavar="DIR", help="The donor that has learnt.")
@click.option("--base", required=True, metavar="DIR", help="The donor that it is compared with.")
@click.option("--alpha", "alphas", type=float, multiple=True, default=[1.0], show_default="1",
              help="The scale of the difference. May be repeated: one output each, in one pass; --out then holds "
                   "{alpha}.")  # fmt: skip
@applying
def transfer(as_json: bool, **arguments: Any) -> None:
    """Extract and apply in one pass: OUT = TARGET + ALPHA * (TUNED - BASE)."""
    from reasonvec.weights import transfer_sweep as run

    _enhance(run, "transferring", as_json, **arguments)


def _enhance(run: Callable[..., Any], verb: str, as_json: bool, **arguments: Any) -> None:
    from reasonvec.terminal import made as tables
    from reasonvec.weights import Options

    options = Options(
        only=arguments.pop("only"),
        skip=arguments.pop("skip"),
        rounding=arguments.pop("rounding"),
        seed=arguments.pop("seed"),
        dtype=arguments.pop("dtype"),
        max_shard_bytes=arguments.pop("max_shard_size"),
    )
    with progress_line(verb) as progress:
        applications = run(options=options, progress=progress, **arguments)
    for application in applications:
        warn(application.warnings)
        if application.realised:
            click.echo(tables.realised_line(application.realised), err=True)
    if as_json:
        found = [application.to_json() for application in applications]
        print_json(found[0] if len(found) == 1 else found)
        return
    for application in applications:
        show(tables.application(application))
    if not arguments["dry_run"]:
        offer(*(f"reasonvec verify {shlex.quote(str(application.out))}" for application in applications))


@main.command()
@click.option("--vector", required=True, metavar="VECTOR", help="The vector.")
@click.option("--target", required=True, metavar="DIR", help="The checkpoint it is to be added to.")
@only
@skip
@access
@json_option
def check(as_json: bool, **arguments: Any) -> None:
    """Say whether a vector fits a checkpoint, and why not. Exit status 3 if it does not."""
    from reasonvec.terminal import check as tables
    from reasonvec.weights import check as run

    report = run(**arguments)
    if as_json:
        print_json(report.to_json())
    else:
        show(tables.check_report(report))
    if not report.fits:
        raise click.exceptions.Exit(3)


@main.command()
@click.argument("vector", metavar="VECTOR")
@click.option("--ancestor", metavar="DIR", help="The model both donors came from: tells how they are related.")
@click.option("--tensors", is_flag=True, help="Show a row for every tensor too.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it: a new .png, .svg or .pdf file.")
@click.option("--spectrum/--no-spectrum", default=True, show_default=True,
              help="Compute the energy in the top singular values, the slow part.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the randomised singular values.")
@click.option("--offline", is_flag=True, help="Never ask the Hub or a store; use what is in the Hub's cache.")
@json_option
def inspect(vector: str, tensors: bool, plot: Path | None, as_json: bool, **arguments: Any) -> None:
    """Show what is in a vector: by tensor, layer and kind of module."""
    from reasonvec.terminal import inspection as tables
    from reasonvec.weights import inspect as run
    from reasonvec.weights.figure import check_plot_file, plot_inspection

    if plot:
        check_plot_file(plot)
    with progress_line("inspecting") as progress:
        inspection = run(vector, **arguments, progress=progress)
    if plot:
        plot_inspection(inspection, plot)
        click.echo(f"Drew {plot}.", err=True)
    if as_json:
        print_json(inspection.to_json())
    else:
        show(tables.inspection(inspection, tensors=tensors))


@main.command()
@click.argument("vectors", nargs=-1, required=True, metavar="VECTOR VECTOR...")
@click.option("--offline", is_flag=True, help="Never ask the Hub or a store; use what is in the Hub's cache.")
@json_option
def compare(vectors: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Show how vectors relate: cosines and agreement of signs."""
    from reasonvec.terminal import comparison as tables
    from reasonvec.weights import compare as run

    if len(vectors) < 2:
        raise UsageError("compare needs at least two vectors.")
    comparison = run(vectors, **arguments)
    if as_json:
        print_json(comparison.to_json())
    else:
        show(tables.comparison(comparison))


@main.command()
@click.argument("vector", metavar="VECTOR")
@output
@click.option("--rank", type=int, metavar="K", help="Keep of each matrix its best approximation of rank K.")
@click.option("--density", type=float, metavar="D",
              help="Keep the share D of each tensor's entries that are not zero.")  # fmt: skip
@click.option("--bits", type=int, metavar="8|4|1", help="Keep integers of so many bits, with scales.")
@click.option("--select", type=click.Choice(["magnitude", "random"]), show_default="magnitude",
              help="Which entries a density keeps: the largest, or each at random.")  # fmt: skip
@click.option("--rescale", is_flag=True, help="Divide the entries that a density keeps by it.")
@click.option("--target", metavar="DIR",
              help="Count the entries that change of DIR plus VECTOR. Default: of the base donor.")  # fmt: skip
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the random selection and of the ranks' method."
)
@click.option("--tensors", is_flag=True, help="Show a row for every tensor too.")
@workers
@access
@json_option
def compress(tensors: bool, as_json: bool, **arguments: Any) -> None:
    """Make a vector smaller with loss, and say how much is lost. VECTOR stays as it is.

    One of --rank, --density and --bits says how. What was lost is measured from what was written, kept in OUT, and told
    whenever OUT is added to a checkpoint.
    """
    from reasonvec.terminal import compression as tables
    from reasonvec.weights import compress as run

    with progress_line("compressing") as progress:
        compression = run(**arguments, progress=progress)
    warn(compression.warnings)
    if as_json:
        print_json(compression.to_json())
        return
    show(tables.compression(compression, tensors=tensors))
    offer(f"reasonvec apply --vector {shlex.quote(arguments['out'])} --target TARGET --out ENHANCED")


@main.command()
@click.argument("vector", metavar="VECTOR")
@click.option("--kind", required=True, type=click.Choice(["random", "permuted"]),
              help="Noise of the same norm in every tensor, or the same entries in another order.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="One control for each seed.")
@click.option("--out", required=True, metavar="DIR", help="The new directory to write.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
def control(vector: str, kind: str, **arguments: Any) -> None:
    """Make a vector that carries nothing, to measure beside VECTOR: is the gain more than any push of that size gives?

    `reasonvec stats` ranks the vector among those that were added to the same checkpoint at the same alpha; with 19
    random ones or more the p of that rank can be 0.05.
    """
    from reasonvec.weights import write_permuted, write_random

    write = {"random": write_random, "permuted": write_permuted}[kind]
    made = write(vector=vector, **arguments)
    click.echo(made.location)
    offer(f"reasonvec evaluate TARGET --vector {shlex.quote(arguments['out'])} --alpha ALPHA --task NAME --out RUN")


@main.command()
@click.argument("path", metavar="DIR")
@click.option("--checksums-only", is_flag=True, help="Do not compute anything again; the inputs are not needed.")
@workers
@access
@json_option
def verify(path: str, as_json: bool, **arguments: Any) -> None:
    """Compute a vector or an enhanced checkpoint again and compare it, bit for bit, with what is in DIR."""
    from reasonvec.terminal import made as tables
    from reasonvec.weights import verify as run

    with progress_line("verifying") as progress:
        verification = run(path, **arguments, progress=progress)
    if as_json:
        print_json(verification.to_json())
    else:
        show(tables.verification(verification))
