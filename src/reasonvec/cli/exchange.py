"""The commands that read and write what other tools use: import and export."""

import shlex
from typing import Any

import click

from reasonvec.cli.options import Size, access, json_option, local_output, workers
from reasonvec.cli.printing import offer, print_json, progress_line, show, warn
from reasonvec.cli.program import main


@main.group(name="import")
def import_() -> None:
    """Read what other tools write: a LoRA adapter, a distributed checkpoint."""


@import_.command(name="lora")
@click.argument("adapter", metavar="ADAPTER")
@click.option("--base", required=True, metavar="DIR", help="The checkpoint that the adapter was trained on.")
@local_output
@workers
@access
@json_option
def import_lora(adapter: str, as_json: bool, **arguments: Any) -> None:
    """Make a vector of a peft LoRA adapter: VECTOR = (BASE with ADAPTER) - BASE."""
    from reasonvec.interchange import import_lora as run
    from reasonvec.terminal import exchange as tables

    with progress_line("importing") as progress:
        imported = run(adapter, **arguments, progress=progress)
    warn(imported.warnings)
    if as_json:
        print_json(imported.to_json())
        return
    show(tables.lora_import(imported))
    made = shlex.quote(arguments["out"])
    offer(f"reasonvec check --vector {made} --target TARGET",
          f"reasonvec apply --vector {made} --target TARGET --out ENHANCED")  # fmt: skip


@import_.command(name="dcp")
@click.argument("directory", metavar="DIR")
@click.option("--like", required=True, metavar="CHECKPOINT",
              help="The checkpoint it was trained from: gives names, configuration and tokenizer.")  # fmt: skip
@local_output
@click.option("--dtype", type=click.Choice(["keep", "float32", "bfloat16", "float16"]), default="keep",
              show_default=True, help="Of the output's floating-point tensors.")  # fmt: skip
@click.option("--prefix", help="What stands before the model's names, where that is not found by itself.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Leave these entries of DIR out. May be repeated.")
@click.option("--max-shard-size", "max_shard_bytes", type=Size(), default="5GB", show_default=True,
              help="Split the output into files of at most this size.")  # fmt: skip
@access
@json_option
def import_dcp(directory: str, as_json: bool, **arguments: Any) -> None:
    """Make an ordinary checkpoint of a torch distributed one (.metadata and *.distcp, or safetensors shards).

    As FSDP, accelerate, torchtitan and verl write them. Nothing in it is unpickled.
    """
    from reasonvec.interchange import import_dcp as run
    from reasonvec.terminal import exchange as tables

    with progress_line("importing") as progress:
        imported = run(directory, **arguments, progress=progress)
    warn(imported.warnings)
    if as_json:
        print_json(imported.to_json())
        return
    show(tables.dcp_import(imported))
    tuned, base = shlex.quote(arguments["out"]), shlex.quote(arguments["like"])
    offer(f"reasonvec extract --tuned {tuned} --base {base} --out VECTOR")


@main.group()
def export() -> None:
    """Write a vector as what other tools read: a LoRA adapter."""


@export.command(name="lora")
@click.argument("vector", metavar="VECTOR")
@click.option("--rank", required=True, type=int, help="Of each pair of factors, at most.")
@local_output
@click.option("--target-modules", multiple=True, metavar="GLOB",
              help="Take these modules only, by name or last part. May be repeated.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the randomised singular vectors.")
@click.option("--offline", is_flag=True, help="Never ask the Hub; use what is in its cache.")
@json_option
def export_lora(vector: str, as_json: bool, **arguments: Any) -> None:
    """Make the nearest peft LoRA adapter of a vector, and say what it cannot hold."""
    from reasonvec.interchange import export_lora as run
    from reasonvec.terminal import exchange as tables

    with progress_line("factorising") as progress:
        exported = run(vector, **arguments, progress=progress)
    warn(exported.warnings)
    if as_json:
        print_json(exported.to_json())
        return
    show(tables.lora_export(exported))
    click.echo(f'Next: peft.PeftModel.from_pretrained(model, "{arguments["out"]}")', err=True)
