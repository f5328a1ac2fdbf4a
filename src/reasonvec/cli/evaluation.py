"""The command that measures: evaluate."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from reasonvec.cli.options import data_option, json_option
from reasonvec.cli.printing import needs, offer, print_json, show, warn
from reasonvec.cli.program import main


@main.command()
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--task", "tasks", multiple=True, required=True, metavar="NAME[:VARIANT]",
              help="A benchmark's name, such as gsm8k, bbh, bbh:zero-shot or sciq:written, or a .jsonl file with "
                   "question and answer. May be repeated: one run each, in directories of --out.")  # fmt: skip
@data_option
@click.option("--vector", metavar="DIR", help="A vector to add to the checkpoint once it is loaded.")
@click.option("--alpha", type=float, multiple=True, metavar="A",
              help="The vector's scale. Default: 1. May be repeated: one arm each, the model loaded once; --out then "
                   "holds {alpha}.")  # fmt: skip
@click.option("--prompt", default="plain", show_default=True, metavar="plain|think|TEXT",
              help='think puts "Think step by step." before every question; TEXT puts TEXT.')  # fmt: skip
@click.option("--placement", type=click.Choice(["user", "system"]), default="user", show_default=True,
              help="Where those words go. With system, the plain prompt has a system message too.")  # fmt: skip
@click.option(
    "--bare", is_flag=True, help="No chat template: the model continues the problem's text, as base models do."
)
@click.option("--split", "part", type=click.Choice(["dev", "test", "all"]), default="test", show_default=True,
              help="Choose alpha on dev, confirm it once on test. all is both, as published scores are.")  # fmt: skip
@click.option("--limit", type=int, metavar="N", help="Measure on N problems of each task, always the same ones.")
@click.option("--samples", type=int, default=1, show_default=True, metavar="K",
              help="Completions of each problem, for avg@k and pass@k; needs --temperature.")  # fmt: skip
@click.option("--temperature", type=float, default=0.0, show_default=True, metavar="T",
              help="0 takes the likeliest token.")  # fmt: skip
@click.option("--engine", type=click.Choice(["transformers", "vllm"]), default="transformers", show_default=True,
              help="vllm is quicker on a GPU, needs the extra [vllm], and does not repeat itself exactly.")  # fmt: skip
@click.option("--batch-size", default="auto", show_default=True, metavar="N|auto",
              help="Prompts answered together; what is found is kept in the run.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling, and of the order of options.")
@click.option("--max-new-tokens", type=int, default=1024, show_default=True, metavar="N",
              help="Where a completion is cut off. The share that is gets reported.")  # fmt: skip
@click.option("--training-data", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="What a donor was trained on, as .jsonl: its overlap is recorded. May be repeated.")  # fmt: skip
@click.option("--out", required=True, metavar="RUN", help="The new directory to write.")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--offline", is_flag=True, help="Never ask the Hub; use what is in its cache.")
@click.option("--i-accept-unsandboxed-code", "accept_unsandboxed", is_flag=True,
              help="Run the model's programs even where the sandbox cannot hold; the run says so.")  # fmt: skip
@json_option
def evaluate(
    checkpoint: str,
    as_json: bool,
    samples: int,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    batch_size: str,
    **arguments: Any,
) -> None:
    """Measure one arm on benchmarks and keep every outcome.

    The arm is CHECKPOINT, with --alpha times --vector added if one is named, and a prompt. RUN holds what was
    measured (run.json), every completion with its grade (outcomes.jsonl) and, once it is complete, the scores
    (summary.json). `reasonvec stats` compares runs.
    """
    with needs("eval"):  # and not the run: what that lacks, such as vLLM, it names itself
        from reasonvec.evaluation.engines.interface import Sampling
        from reasonvec.evaluation.measuring import evaluate as run
        from reasonvec.terminal import runs as tables

    with _progress() as progress:
        evaluations = run(
            checkpoint,
            sampling=Sampling(samples, temperature, seed, max_new_tokens),
            batch_size=_batch_size(batch_size),
            progress=progress,
            **arguments,
        )

    for evaluation in evaluations:
        warn(evaluation.warnings)
    if as_json:
        print_json([evaluation.to_json() for evaluation in evaluations])
        return
    for evaluation in evaluations:
        click.echo(f"{evaluation.task}: {evaluation.out}", err=True)
        show(tables.run_summary(evaluation.summary, applied=evaluation.applied))
    if not all(evaluation.searched for evaluation in evaluations):
        click.echo("No training data is declared (--training-data), so nobody knows whether it holds these problems.",
                   err=True)  # fmt: skip
    offer(f"reasonvec stats {arguments['out']} OTHER_RUN... --baseline BASELINE_RUN")


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither auto nor a number of 1 or more.", param_hint="--batch-size")
    return int(text)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Completions and the time that remains, on stderr; a line now and then where that is no terminal."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("remaining"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        known: dict[str, Any] = {}
        loading = bar.add_task("loading", total=None)

        def advance(task: str, done: int, total: int) -> None:
            bar.update(loading, visible=False)
            if task not in known:
                known[task] = bar.add_task(task, total=total)
            bar.update(known[task], completed=done)

        yield advance


def _lines() -> Callable[[str, int, int], None]:
    """For a log: a line a minute, with the time that remains at the pace so far; none where that is under a minute."""
    import time

    began: dict[str, tuple[float, int]] = {}
    told: dict[str, float] = {}

    def advance(task: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, first = began.setdefault(task, (now, done))
        if done == first or now - told.get(task, -math.inf) < 60:
            return
        minutes = (now - start) / (done - first) * (total - done) / 60
        if minutes < 1:
            return
        told[task] = now
        click.echo(f"{task}: {done:,} of {total:,} completions, about {minutes:.0f} min remain", err=True)

    return advance
