"""What commands say: results on stdout, progress, warnings and what to do next on stderr."""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from reasonvec.errors import MissingExtraError


def plain(text: str) -> str:
    """Without what could steer a terminal: names in messages come from files that nobody vouches for."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
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
def progress_line(verb: str) -> Iterator[Callable[[int], None]]:
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


def warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        click.echo(f"warning: {plain(warning)}", err=True)


def offer(*commands: str) -> None:
    click.echo("Next: " + "\n      ".join(commands), err=True)


def show(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def print_json(document: Any) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    # json escapes what is below a space; what else cannot be encoded or steers terminals is escaped here
    click.echo(re.sub("[\x7f-\x9f\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text))
