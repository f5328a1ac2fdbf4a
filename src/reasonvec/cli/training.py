"""The commands that make donors: train sft, train grpo, train pair."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from reasonvec.cli.options import json_option, options
from reasonvec.cli.printing import needs, offer, plain, print_json, show
from reasonvec.cli.program import main

_SECONDS_BETWEEN_LINES = 30

_what = options(
    click.option("--model", required=True, metavar="DIR",
                 help="The checkpoint to start from, or owner/name on the Hub."),
    click.option("--data", required=True, metavar="DATA",
                 help="A .jsonl file with question and answer (a worked solution that ends in #### and the answer), or "
                      "with problem, solution and answer; or a benchmark's name: gsm8k/train."),
    click.option("--data-dir", type=click.Path(path_type=Path), default=Path("data"), show_default=True,
                 envvar="REASONVEC_DATA", show_envvar=True, metavar="DIR",
                 help="Where the benchmarks' files are, as docs/evaluation.md shows."),
)  # fmt: skip
_how = options(
    click.option("--prompt", default="plain", show_default=True, metavar="NAME|TEXT",
                 help="How problems are put: plain, think, or an instruction of your own."),
    click.option("--bare", is_flag=True, help="Give the question alone, to be continued: no chat template."),
    click.option("--held-out", type=int, metavar="N",
                 help="Problems to validate on instead of training on them. Default: a tenth, at most 200."),
    click.option("--benchmark", "benchmarks", multiple=True, metavar="NAME",
                 help="Look for this benchmark's questions in the training data. Default: all whose files are there. "
                      "May be repeated."),
    click.option("--allow-overlap", is_flag=True, help="Train even though whole questions of a benchmark are found."),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32",
                 show_default=True, help="Of the donor that is written. Both of a pair have to have the same."),
    click.option("--trajectory", default="none", show_default=True, metavar="RULE",
                 help="Checkpoints to keep along the way: powers (steps 1, 2, 4, ...), or every so many steps."),
    click.option("--pad-token", metavar="TOKEN", help="For a tokenizer without one: a token that no text holds."),
    click.option("--offline", is_flag=True, help="Never ask the Hub; use what is in its cache."),
)  # fmt: skip
_output = options(
    click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
                 help="The new directory for checkpoints and log."),
    click.option("--resume", is_flag=True, help="Go on with an interrupted training from its last state."),
    click.option("--force", is_flag=True, help="Replace an earlier training."),
    json_option,
)  # fmt: skip
_reward = click.option("--reward", "rewards", multiple=True, metavar="NAME",
                       help="exact, format, length, or MODULE:FUNCTION of your own, which is imported and run. May be "
                            "repeated; reward_weights weighs them.")  # fmt: skip
_config = options(
    click.option("--config", metavar="NAME|FILE",
                 help="A preset, such as 1.5b-1gpu, or a YAML file of TRL's own fields, those of peft's LoraConfig "
                      "under `lora`."),
    click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE",
                 help="Set one of these fields. May be repeated."),
)  # fmt: skip


@main.group()
def train() -> None:
    """Make donors: a fine-tuned one, and one that reinforcement learning made of it."""


@train.command()
@_what
@_config
@_how
@_output
def sft(**arguments: Any) -> None:
    """Fine-tune a checkpoint on worked solutions: the base donor.

    TRL's SFTTrainer does it; weights are kept in float32. Needs the extra: pip install "reasonvec[train]".
    """
    _train("sft", arguments)


@train.command()
@_what
@_reward
@_config
@_how
@_output
def grpo(**arguments: Any) -> None:
    """Train a checkpoint by GRPO on answers alone: the tuned donor. --model is the SFT donor, or the base.

    TRL's GRPOTrainer does it; the reward is the grader that also measures.
    """
    _train("grpo", arguments)


@train.command()
@_what
@_reward
@_config
@_how
@click.option("--variant", type=click.Choice(["chained", "parallel"]), default="chained", show_default=True,
              help="GRPO from the SFT donor, or both donors from --model.")  # fmt: skip
@click.option("--sft", metavar="DIR", help="An SFT donor of --model that is at hand; none is trained.")
@_output
def pair(variant: str, sft: str | None, as_json: bool, **arguments: Any) -> None:
    """Make both donors and the vector between them: OUT/sft, OUT/grpo, OUT/vector.

    --config and --set speak of both: a file with the keys sft and grpo, --set grpo.learning_rate=1e-6. A vector that is
    almost empty, or mostly rounding, is an error and no file.
    """
    with _loading():
        from reasonvec.training.donor import Request
        from reasonvec.training.pair import train_pair
    arguments["rewards"] = arguments["rewards"] or ("exact",)
    request = Request(kind="sft", style=_style(arguments), **arguments)
    with contextlib.ExitStack() as stack:
        made = train_pair(request, variant=variant, sft=sft, warn=_warn,  # type: ignore[arg-type]
                          progress=lambda title: stack.enter_context(_steps(title)))  # fmt: skip
    if made.inspection is None:
        return
    from reasonvec.terminal import inspection as tables
    from reasonvec.terminal.training import donor as show_donor

    if as_json:
        print_json(made.to_json())
        return
    for donor in (made.sft, made.grpo):
        if donor is not None:
            show(show_donor(donor.to_json()))
    show(tables.inspection(made.inspection))
    vector = arguments["out"] / "vector"
    offer(f"reasonvec check --vector {vector} --target TARGET",
          f"reasonvec apply --vector {vector} --target TARGET --out ENHANCED")  # fmt: skip


def _train(kind: str, arguments: dict[str, Any]) -> None:
    as_json = arguments.pop("as_json")
    with _loading():
        from reasonvec.training.donor import Request, train_donor
    request = Request(kind=kind, style=_style(arguments), **arguments)  # type: ignore[arg-type]
    with _steps(kind) as progress:
        donor = train_donor(request, warn=_warn, progress=progress)
    from reasonvec.terminal.training import donor as show_donor

    if not _is_main():
        return
    if as_json:
        print_json(donor.to_json())
        return
    show(show_donor(donor.to_json()))
    out = arguments["out"]
    if kind == "sft":
        offer(f"reasonvec train grpo --model {out} --data {arguments['data']} --reward exact --out GRPO")
    else:
        offer(f"reasonvec extract --tuned {out} --base {arguments['model']} --out VECTOR")


def _style(arguments: dict[str, Any]) -> Any:
    from reasonvec.evaluation.prompts import prompt_style

    return prompt_style(arguments.pop("prompt"), bare=arguments.pop("bare"))


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    if _is_main():
        click.echo("Loading torch, transformers and TRL ...", err=True)  # takes seconds, in which nothing else is said
    with needs("train"):
        yield


def _is_main() -> bool:
    """Whether this is the process of several that speaks; accelerate sets RANK."""
    return os.environ.get("RANK", "0") == "0"


def _warn(text: str) -> None:
    click.echo(f"warning: {plain(text)}", err=True)


@contextlib.contextmanager
def _steps(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Progress on stderr: a bar on a terminal, else a line now and then."""
    if not _is_main():
        yield lambda done, steps, note: None
        return
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(done: int, steps: int, note: str) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                click.echo(f"{title}: {done} of {steps} steps, {note}", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, steps, note: bar.update(task, completed=done, total=steps, description=note)
