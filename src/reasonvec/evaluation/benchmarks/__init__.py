"""Benchmarks: from files on disk, each held against its checksum, to problems; and the dev and test parts of them."""

from reasonvec.evaluation.benchmarks.loading import Benchmark, load_benchmark
from reasonvec.evaluation.benchmarks.problem import BenchmarkProblem, exact_number, format_number
from reasonvec.evaluation.benchmarks.splits import Split, chosen, split_problems

__all__ = [
    "Benchmark",
    "BenchmarkProblem",
    "Split",
    "chosen",
    "exact_number",
    "format_number",
    "load_benchmark",
    "split_problems",
]
