"""Problems to grade answers of, with nothing in them but what grading reads."""

from typing import Any

from reasonvec.evaluation.benchmarks.problem import BenchmarkProblem, Kind


def problem(kind: Kind, gold: str, question: str = "?", **details: Any) -> BenchmarkProblem:
    return BenchmarkProblem("test/0", "test", question, gold, kind, details=details)
