"""The program itself, before any command: its help, and one error handler for all."""

import os
import sys
import traceback
from typing import Any

import click

from reasonvec.cli.printing import plain
from reasonvec.errors import ReasonvecError


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
                ReasonvecError(
                    "interrupted. A vector, checkpoint or run that was being written goes on with --resume."
                ),
                130,
            )
        except MemoryError as error:
            _fail(ReasonvecError(f"There is not enough memory: {error}"), 1)


def _fail(error: Exception, status: int) -> None:
    if os.environ.get("REASONVEC_DEBUG"):
        traceback.print_exc()
    click.echo(f"reasonvec: {plain(str(error))}", err=True)
    raise click.exceptions.Exit(status)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="reasonvec")
def main() -> None:
    """Move reasoning ability between language models by arithmetic on their weights.

    A reasoning vector is the difference of two checkpoints, one of which has learnt to reason by reinforcement
    learning. Added to a compatible model, it carries over what was learnt.

    Checkpoints are directories with safetensors weights, Hub ids: owner/name[@revision], or
    addresses in a store: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://OWNER/NAME.

    Exit status: 0 done, 1 an error, 2 wrong usage, 3 the checkpoints do not fit, or training
    data overlaps the benchmark.
    """
