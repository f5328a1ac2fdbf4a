"""The command line: parse, call one public function, print. stdout carries the result, stderr everything else."""

from reasonvec.cli import (  # noqa: F401  # each adds its commands
    benchmarks,
    evaluation,
    exchange,
    lab,
    stats,
    training,
    trajectory,
    weights,
)
from reasonvec.cli.program import main

__all__ = ["main"]
