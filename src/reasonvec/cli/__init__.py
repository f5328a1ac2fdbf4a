"""The command line: parse, call one public function, print. stdout carries the result, stderr everything else."""

from reasonvec.cli import benchmarks, exchange, lab, training, weights  # noqa: F401  # each adds its commands
from reasonvec.cli.program import main

__all__ = ["main"]
