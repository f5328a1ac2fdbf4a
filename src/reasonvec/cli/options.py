"""Options that several commands share, and the kinds of values they take."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


class Alpha(click.ParamType):  # type: ignore[type-arg]
    """VECTOR or VECTOR@ALPHA."""

    name = "vector[@alpha]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float | None]:
        location, at, alpha = value.rpartition("@")
        if not at or Path(value).exists():
            return value, None
        try:
            return location, float(alpha)
        except ValueError:
            if (Path(location) / "vector.json").is_file():
                told = f"{value!r}: {alpha!r} is not a number. Write {location}@0.5, or {location} alone."
                self.fail(told, param, ctx)
            return value, None  # a Hub revision


class Size(click.ParamType):  # type: ignore[type-arg]
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


def options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


only = click.option("--only", multiple=True, metavar="GLOB", help="Take these tensors only. May be repeated.")
skip = click.option("--skip", multiple=True, metavar="GLOB", help="Leave these tensors out. May be repeated.")
access = options(
    click.option("--offline", is_flag=True, help="Never ask the Hub or a store; use what is in the Hub's cache."),
    click.option("--follow-links", is_flag=True, help="Follow symbolic links that leave a checkpoint's directory."),
)
_going_on = options(
    click.option("--resume", is_flag=True, help="Continue a run that was interrupted."),
    click.option("--force", is_flag=True, help="Replace an existing output, or drop an interrupted run."),
)
output = options(
    click.option("--out", required=True, metavar="DIR", help="The new directory to write, or an address in a store."),
    _going_on,
)
local_output = options(
    click.option("--out", required=True, metavar="DIR", help="The new directory to write, on this machine."),
    _going_on,
)
workers = click.option("--workers", type=click.IntRange(1, 64), metavar="N",
                        help="Threads that share the work. Default: one for each processor, at most 4.")  # fmt: skip
ray = click.option("--ray", metavar="ADDRESS",
                    help="Spread the work over the nodes of a Ray cluster, which all have to see the same files: auto, "
                         "HOST:PORT or ray://HOST:PORT. --workers is then for each task.")  # fmt: skip
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON document to stdout and nothing else."
)
data_option = click.option(
    "--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True, envvar="REASONVEC_DATA",
    show_envvar=True, metavar="DIR", help="Where the benchmarks' files are, as docs/evaluation.md shows.",
)  # fmt: skip
applying = options(
    click.option("--target", required=True, metavar="DIR", help="The checkpoint to add to. It is never changed."),
    output,
    only,
    skip,
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
        type=Size(),
        default="5GB",
        show_default=True,
        help="Split the output into files of at most this size.",
    ),
    workers,
    ray,
    click.option("--dry-run", is_flag=True, help="Check everything and say what would be written; write nothing."),
    access,
    json_option,
)
