"""The command line: parse, call one public function, print. stdout carries the result, stderr everything else."""

import contextlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from reasonvec.errors import MissingExtraError, ReasonvecError, UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


class _Main(click.Group):
    """One error handler: a message and an exit status instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ReasonvecError as error:
            _fail(error, error.exit_status)
        except BrokenPipeError:
            # the reader of stdout has gone (`| head`); nobody is left to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except OSError as error:
            _fail(ReasonvecError(f"{error.filename or 'A file'}: {error.strerror or error}."), 1)
        except KeyboardInterrupt:
            _fail(
                ReasonvecError("interrupted. A vector or checkpoint that was being written goes on with --resume."), 130
            )
        except MemoryError as error:
            _fail(ReasonvecError(f"There is not enough memory: {error}"), 1)


def _fail(error: Exception, status: int) -> None:
    if os.environ.get("REASONVEC_DEBUG"):
        traceback.print_exc()
    click.echo(f"reasonvec: {_plain(str(error))}", err=True)
    raise click.exceptions.Exit(status)


def _plain(text: str) -> str:
    """Without what could steer a terminal: names in messages come from files that nobody vouches for."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


class _Alpha(click.ParamType):  # type: ignore[type-arg]
    """VECTOR or VECTOR@ALPHA."""

    name = "vector[@alpha]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float | None]:
        location, at, alpha = value.rpartition("@")
        if not at or Path(value).exists():
            return value, None
        try:
            return location, float(alpha)
        except ValueError:
            return value, None  # a Hub revision


class _Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes with an optional unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a size. Write 5GB, 500MB or a number of bytes.", param, ctx)
        power = " KMGT".index(found[2].upper() or " ")
        return max(1, int(float(found[1]) * (1024 if found[3] else 1000) ** power))


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="reasonvec")
def main() -> None:
    """Move reasoning ability between language models by arithmetic on their weights.

    A reasoning vector is the difference of two checkpoints, one of which has learnt to reason by reinforcement
    learning. Added to a compatible model, it carries over what was learnt.

    Checkpoints are directories with safetensors weights, Hub ids: owner/name[@revision], or
    addresses in a store: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://OWNER/NAME.

    Exit status: 0 done, 1 an error, 2 wrong usage, 3 the checkpoints do not fit.
    """


def _options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_only = click.option("--only", multiple=True, metavar="GLOB", help="Take these tensors only. May be repeated.")
_skip = click.option("--skip", multiple=True, metavar="GLOB", help="Leave these tensors out. May be repeated.")
_access = _options(
    click.option("--offline", is_flag=True, help="Never ask the Hub or a store; use what is in the Hub's cache."),
    click.option("--follow-links", is_flag=True, help="Follow symbolic links that leave a checkpoint's directory."),
)
_output = _options(
    click.option("--out", required=True, metavar="DIR", help="The new directory to write, or an address in a store."),
    click.option("--resume", is_flag=True, help="Continue a run that was interrupted."),
    click.option("--force", is_flag=True, help="Replace an existing output, or drop an interrupted run."),
)
_workers = click.option("--workers", type=click.IntRange(1, 64), metavar="N",
                        help="Threads that share the work. Default: one for each processor, at most 4.")  # fmt: skip
_ray = click.option("--ray", metavar="ADDRESS",
                    help="Spread the work over the nodes of a Ray cluster, which all have to see the same files: auto, "
                         "HOST:PORT or ray://HOST:PORT. --workers is then for each task.")  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON document to stdout and nothing else.")
_applying = _options(
    click.option("--target", required=True, metavar="DIR", help="The checkpoint to add to. It is never changed."),
    _output,
    _only,
    _skip,
    click.option(
        "--rounding",
        type=click.Choice(["nearest", "stochastic"]),
        default="nearest",
        show_default=True,
        help="How sums are rounded to the output's dtype. Stochastic keeps small steps alive on average.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of stochastic rounding."),
    click.option(
        "--dtype",
        type=click.Choice(["keep", "float32", "bfloat16", "float16"]),
        default="keep",
        show_default=True,
        help="Of the output's floating-point tensors.",
    ),
    click.option(
        "--max-shard-size",
        type=_Size(),
        default="5GB",
        show_default=True,
        help="Split the output into files of at most this size.",
    ),
    _workers,
    _ray,
    click.option("--dry-run", is_flag=True, help="Check everything and say what would be written; write nothing."),
    _access,
    _json,
)


@main.command()
@click.option("--tuned", required=True, metavar="DIR", help="The donor that has learnt, such as the GRPO checkpoint.")
@click.option("--base", required=True, metavar="DIR", help="The donor that it is compared with, such as the SFT one.")
@click.option("--ancestor", metavar="DIR", help="The model both donors came from: tells how they are related.")
@_output
@_only
@_skip
@click.option(
    "--encoding",
    type=click.Choice(["auto", "dense", "sparse"]),
    default="auto",
    show_default=True,
    help="Sparse keeps the changed entries alone, compressed; auto takes the smaller one for each tensor.",
)
@_workers
@_access
@_json
def extract(as_json: bool, **arguments: Any) -> None:
    """Take the difference of two checkpoints: VECTOR = TUNED - BASE."""
    from reasonvec.weights import extract as run  # here for start-up time, as in every command

    with _progress("extracting") as progress:
        extraction = run(**arguments, progress=progress)
    from reasonvec import terminal

    _warn(extraction.warnings)
    if as_json:
        _print_json(extraction.to_json())
        return
    _print(terminal.extraction(extraction))
    _next(f"reasonvec check --vector {arguments['out']} --target TARGET",
          f"reasonvec apply --vector {arguments['out']} --target TARGET --out ENHANCED")  # fmt: skip


@main.command()
@click.option("--vector", "vectors", required=True, multiple=True, type=_Alpha(), metavar="VECTOR[@ALPHA]",
              help="A vector to add, with its own alpha if given. May be repeated.")  # fmt: skip
@click.option("--alpha", "alphas", type=float, multiple=True, default=[1.0], show_default="1",
              help="The scale of vectors that have none of their own. -1 subtracts. May be repeated: one output each, "
                   "in one pass; --out then holds {alpha}.")  # fmt: skip
@_applying
def apply(as_json: bool, **arguments: Any) -> None:
    """Add vectors to a checkpoint: OUT = TARGET + ALPHA * VECTOR."""
    from reasonvec.weights import apply_sweep as run

    _enhance(run, "applying", as_json, **arguments)


@main.command()
@click.option("--tuned", required=True, metavar="DIR", help="The donor that has learnt.")
@click.option("--base", required=True, metavar="DIR", help="The donor that it is compared with.")
@click.option("--alpha", "alphas", type=float, multiple=True, default=[1.0], show_default="1",
              help="The scale of the difference. May be repeated: one output each, in one pass; --out then holds "
                   "{alpha}.")  # fmt: skip
@_applying
def transfer(as_json: bool, **arguments: Any) -> None:
    """Extract and apply in one pass: OUT = TARGET + ALPHA * (TUNED - BASE)."""
    from reasonvec.weights import transfer_sweep as run

    _enhance(run, "transferring", as_json, **arguments)


def _enhance(run: Callable[..., Any], verb: str, as_json: bool, **arguments: Any) -> None:
    from reasonvec import terminal
    from reasonvec.weights import Options

    options = Options(
        only=arguments.pop("only"),
        skip=arguments.pop("skip"),
        rounding=arguments.pop("rounding"),
        seed=arguments.pop("seed"),
        dtype=arguments.pop("dtype"),
        max_shard_bytes=arguments.pop("max_shard_size"),
    )
    with _progress(verb) as progress:
        applications = run(options=options, progress=progress, **arguments)
    for application in applications:
        _warn(application.warnings)
        if application.realised:
            click.echo(terminal.realised_line(application.realised), err=True)
    if as_json:
        found = [application.to_json() for application in applications]
        _print_json(found[0] if len(found) == 1 else found)
        return
    for application in applications:
        _print(terminal.application(application))
    if not arguments["dry_run"]:
        _next(*(f"reasonvec verify {application.out}" for application in applications))


@main.command()
@click.option("--vector", required=True, metavar="VECTOR", help="The vector.")
@click.option("--target", required=True, metavar="DIR", help="The checkpoint it is to be added to.")
@_only
@_skip
@_access
@_json
def check(as_json: bool, **arguments: Any) -> None:
    """Say whether a vector fits a checkpoint, and why not. Exit status 3 if it does not."""
    from reasonvec import terminal
    from reasonvec.weights import check as run

    report = run(**arguments)
    if as_json:
        _print_json(report.to_json())
    else:
        _print(terminal.check_report(report))
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
@_json
def inspect(vector: str, tensors: bool, plot: Path | None, as_json: bool, **arguments: Any) -> None:
    """Show what is in a vector: by tensor, layer and kind of module."""
    from reasonvec import terminal
    from reasonvec.weights import inspect as run
    from reasonvec.weights.figure import check_plot_file, plot_inspection

    if plot:
        check_plot_file(plot)
    with _progress("inspecting") as progress:
        inspection = run(vector, **arguments, progress=progress)
    if plot:
        plot_inspection(inspection, plot)
        click.echo(f"Drew {plot}.", err=True)
    if as_json:
        _print_json(inspection.to_json())
    else:
        _print(terminal.inspection(inspection, tensors=tensors))


@main.command()
@click.argument("vectors", nargs=-1, required=True, metavar="VECTOR VECTOR...")
@click.option("--offline", is_flag=True, help="Never ask the Hub or a store; use what is in the Hub's cache.")
@_json
def compare(vectors: tuple[str, ...], as_json: bool, **arguments: Any) -> None:
    """Show how vectors relate: cosines and agreement of signs."""
    from reasonvec import terminal
    from reasonvec.weights import compare as run

    if len(vectors) < 2:
        raise UsageError("compare needs at least two vectors.")
    comparison = run(vectors, **arguments)
    if as_json:
        _print_json(comparison.to_json())
    else:
        _print(terminal.comparison(comparison))


@main.command()
@click.argument("vector", metavar="VECTOR")
@_output
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
@_workers
@_access
@_json
def compress(tensors: bool, as_json: bool, **arguments: Any) -> None:
    """Make a vector smaller with loss, and say how much is lost. VECTOR stays as it is.

    One of --rank, --density and --bits says how. What was lost is measured from what was written, kept in OUT, and told
    whenever OUT is added to a checkpoint.
    """
    from reasonvec import terminal
    from reasonvec.weights import compress as run

    with _progress("compressing") as progress:
        compression = run(**arguments, progress=progress)
    _warn(compression.warnings)
    if as_json:
        _print_json(compression.to_json())
        return
    _print(terminal.compression(compression, tensors=tensors))
    _next(f"reasonvec apply --vector {arguments['out']} --target TARGET --out ENHANCED")


@main.command()
@click.argument("path", metavar="DIR")
@click.option("--checksums-only", is_flag=True, help="Do not compute anything again; the inputs are not needed.")
@_workers
@_access
@_json
def verify(path: str, as_json: bool, **arguments: Any) -> None:
    """Compute a vector or an enhanced checkpoint again and compare it, bit for bit, with what is in DIR."""
    from reasonvec import terminal
    from reasonvec.weights import verify as run

    with _progress("verifying") as progress:
        verification = run(path, **arguments, progress=progress)
    if as_json:
        _print_json(verification.to_json())
    else:
        _print(terminal.verification(verification))


@main.group(name="import")
def import_() -> None:
    """Read what other tools write: a LoRA adapter, a distributed checkpoint."""


@import_.command(name="lora")
@click.argument("adapter", metavar="ADAPTER")
@click.option("--base", required=True, metavar="DIR", help="The checkpoint that the adapter was trained on.")
@_output
@_workers
@_access
@_json
def import_lora(adapter: str, as_json: bool, **arguments: Any) -> None:
    """Make a vector of a peft LoRA adapter: VECTOR = (BASE with ADAPTER) - BASE."""
    from reasonvec import terminal
    from reasonvec.interchange import import_lora as run

    with _progress("importing") as progress:
        imported = run(adapter, **arguments, progress=progress)
    _warn(imported.warnings)
    if as_json:
        _print_json(imported.to_json())
        return
    _print(terminal.lora_import(imported))
    _next(f"reasonvec check --vector {arguments['out']} --target TARGET",
          f"reasonvec apply --vector {arguments['out']} --target TARGET --out ENHANCED")  # fmt: skip


@import_.command(name="dcp")
@click.argument("directory", metavar="DIR")
@click.option("--like", required=True, metavar="CHECKPOINT",
              help="The checkpoint it was trained from: gives names, configuration and tokenizer.")  # fmt: skip
@_output
@click.option("--dtype", type=click.Choice(["keep", "float32", "bfloat16", "float16"]), default="keep",
              show_default=True, help="Of the output's floating-point tensors.")  # fmt: skip
@click.option("--prefix", help="What stands before the model's names, where that is not found by itself.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Leave these entries of DIR out. May be repeated.")
@click.option("--max-shard-size", "max_shard_bytes", type=_Size(), default="5GB", show_default=True,
              help="Split the output into files of at most this size.")  # fmt: skip
@_access
@_json
def import_dcp(directory: str, as_json: bool, **arguments: Any) -> None:
    """Make an ordinary checkpoint of a torch distributed one (.metadata and *.distcp, or safetensors shards).

    As FSDP, accelerate, torchtitan and verl write them. Nothing in it is unpickled.
    """
    from reasonvec import terminal
    from reasonvec.interchange import import_dcp as run

    with _progress("importing") as progress:
        imported = run(directory, **arguments, progress=progress)
    _warn(imported.warnings)
    if as_json:
        _print_json(imported.to_json())
        return
    _print(terminal.dcp_import(imported))
    _next(f"reasonvec extract --tuned {arguments['out']} --base {arguments['like']} --out VECTOR")


@main.group()
def export() -> None:
    """Write a vector as what other tools read: a LoRA adapter."""


@export.command(name="lora")
@click.argument("vector", metavar="VECTOR")
@click.option("--rank", required=True, type=int, help="Of each pair of factors, at most.")
@_output
@click.option("--target-modules", multiple=True, metavar="GLOB",
              help="Take these modules only, by name or last part. May be repeated.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the randomised singular vectors.")
@click.option("--offline", is_flag=True, help="Never ask the Hub; use what is in its cache.")
@_json
def export_lora(vector: str, as_json: bool, **arguments: Any) -> None:
    """Make the nearest peft LoRA adapter of a vector, and say what it cannot hold."""
    from reasonvec import terminal
    from reasonvec.interchange import export_lora as run

    with _progress("factorising") as progress:
        exported = run(vector, **arguments, progress=progress)
    _warn(exported.warnings)
    if as_json:
        _print_json(exported.to_json())
        return
    _print(terminal.lora_export(exported))
    click.echo(f'Next: peft.PeftModel.from_pretrained(model, "{arguments["out"]}")', err=True)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="The directory for models, vector, results and report.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Reaches every random choice.")
def demo(out: Path, seed: int) -> None:
    """Run the whole method at toy scale, from nothing: train donors, extract, apply, measure, report.

    Takes some minutes on two cores. Needs the extra: pip install "reasonvec[demo]".
    """
    click.echo("Loading torch, transformers and TRL ...", err=True)  # takes seconds, in which nothing else is said
    with _needs("demo"):
        from reasonvec.lab.demo import demo as run

    run(out=out, seed=seed)


@contextlib.contextmanager
def _needs(extra: str) -> Iterator[None]:
    """Imports within need the packages of an extra; says how to install all of them where one is missing."""
    try:
        yield
    except (ModuleNotFoundError, MissingExtraError) as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("reasonvec"):
            raise
        raise MissingExtraError(
            f"This command needs packages that are not installed. They come with an extra: pip install "
            f'"reasonvec[{extra}]"'
        ) from error


@contextlib.contextmanager
def _progress(verb: str) -> Iterator[Callable[[int], None]]:
    """A line on stderr that counts bytes, while it is a terminal that somebody may look at."""
    if not sys.stderr.isatty():
        yield lambda nbytes: None  # and the import of what draws is saved
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), TextColumn(verb), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb, total=None)
        yield lambda nbytes: progress.advance(task, nbytes)


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        click.echo(f"warning: {_plain(warning)}", err=True)


def _next(*commands: str) -> None:
    click.echo("Next: " + "\n      ".join(commands), err=True)


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _print_json(document: Any) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # json escapes what is below a space; what else cannot be encoded or steers terminals is escaped here
    click.echo(re.sub("[\x7f-\x9f\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text))
