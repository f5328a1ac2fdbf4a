"""Which problems of a benchmark a run measures: the part alpha is chosen on, or the one that confirms it, and how many.

Both parts are a rule of ids alone, with a seed of its own that no option reaches, so that no two runs can mix them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import Benchmark, BenchmarkProblem, chosen, load_benchmark, split_problems
from reasonvec.evaluation.benchmarks.catalog import TASKS

Part = Literal["dev", "test", "all"]
SEED = 0
"""Of the division into dev and test."""

_DEV_ELSEWHERE: Mapping[str, tuple[str, int | None]] = {"gsm8k": ("gsm8k/train", 1000), "sciq": ("sciq/valid", None)}
"""Tasks whose own file is all test: where dev comes from, and how many of it; None for all."""
_NO_DEV: Mapping[str, str] = {
    "humaneval": "its 164 problems are all needed to confirm",
    "aime24": "30 problems are too few to divide",
    "amc23": "40 problems are too few to divide",
}
_BBH_DEV = 50
"""Of each of its tasks, most of which have 250."""


@dataclass(frozen=True)
class Selection:
    """The problems of a run, and all that is needed to come to them again."""

    problems: tuple[BenchmarkProblem, ...]
    """In the benchmark's order."""
    split: Mapping[str, Any]
    """The part and the rule."""
    limit: int | None
    """Problems of each task that were kept; None for all."""

    def to_json(self) -> dict[str, Any]:
        rows = [[each.id, each.question, each.gold, each.kind, dict(each.details)] for each in self.problems]
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
        return {
            "split": dict(self.split),
            "limit": self.limit,
            "problems": len(self.problems),
            "problems_sha256": digest,
        }


def select(benchmark: Benchmark, *, part: Part, limit: int | None, data: Path) -> tuple[Benchmark, Selection]:
    """The problems of one part, at most `limit` of each task, and the benchmark that they are from: for gsm8k's dev it
    is its train file.

    Of each task those with the lowest hashed ids are kept, whatever the file's order. Raises UsageError where the
    benchmark has no dev part or the limit is not positive, BenchmarkError where a file that dev comes from is missing.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} leaves no problem to measure on; it is 1 or more.")
    benchmark, problems, split = _part(benchmark, part, data)
    if limit is not None:
        problems = _limited(problems, limit)
    return benchmark, Selection(tuple(problems), split, limit)


def _part(
    benchmark: Benchmark, part: Part, data: Path
) -> tuple[Benchmark, Sequence[BenchmarkProblem], Mapping[str, Any]]:
    if part == "all":
        return benchmark, benchmark.problems, {"part": "all"}
    if benchmark.perturbation is not None:
        return _part_of_perturbed(benchmark, part, data)
    name = benchmark.name
    if name in _NO_DEV:
        if part == "dev":
            raise UsageError(
                f"{name} has no dev part: {_NO_DEV[name]}. Choose alpha on another benchmark's dev, such as gsm8k's, "
                f"and carry it over."
            )
        return benchmark, benchmark.problems, {"part": "test", "rule": "all are test"}
    if name in _DEV_ELSEWHERE:
        source, count = _DEV_ELSEWHERE[name]
        if part == "test":
            return benchmark, benchmark.problems, {"part": "test", "rule": f"all are test; dev comes from {source}"}
        benchmark = load_benchmark(source, data=data)
        if count is None:
            return benchmark, benchmark.problems, {"part": "dev", "rule": f"all of {source}"}
        split = split_problems(benchmark.problems, seed=SEED, dev_per_task=count)
        return benchmark, chosen(benchmark.problems, split.dev), {"part": "dev", "from": source, **split.to_json()}
    dev = _dev_per_task(benchmark)
    if part == "dev" and not dev:
        raise UsageError(
            f"{name} has no dev part: that is a fifth of its smallest task's problems, which are fewer than 5. Choose "
            f"alpha on another benchmark's dev, or measure all of it with --split all."
        )
    split = split_problems(benchmark.problems, seed=SEED, dev_per_task=dev)
    ids = split.dev if part == "dev" else split.test
    return benchmark, chosen(benchmark.problems, ids), {"part": part, **split.to_json()}


def _part_of_perturbed(
    benchmark: Benchmark, part: Part, data: Path
) -> tuple[Benchmark, Sequence[BenchmarkProblem], Mapping[str, Any]]:
    """A changed problem is of the part that the original is of, or else what was chosen on would confirm."""
    header = benchmark.perturbation or {}
    source = header.get("benchmark", {}) if isinstance(header.get("benchmark"), dict) else {}
    original, files = source.get("task"), source.get("files")
    # a file of one's own may be called svamp.jsonl
    pinned = TASKS[original].file.path if isinstance(original, str) and original in TASKS else None
    if not isinstance(original, str) or not isinstance(files, dict) or pinned not in files:
        raise UsageError(
            f"{benchmark.name} was made from problems of your own, and a file of changed problems does not tell which "
            f"of them are dev. Measure on all of it with --split all."
        )
    source_benchmark, problems, split = _part(load_benchmark(original, data=data), part, data)
    ids = [problem.id for problem in problems]
    found = chosen(benchmark.problems, ids)
    if not found:
        raise UsageError(
            f"none of the {len(benchmark.problems)} problems of {benchmark.name} is in the {part} part of {original}. "
            f"For gsm8k's dev, change gsm8k/train; or take --split all."
        )
    return benchmark, found, {"part": part, "of": original, "rule": split.get("rule"), "from": source_benchmark.name}


def _dev_per_task(benchmark: Benchmark) -> int:
    tasks = Counter(problem.task for problem in benchmark.problems)
    if all(task.startswith("bbh/") for task in tasks):
        return _BBH_DEV
    return min(tasks.values()) // 5


def _limited(problems: Sequence[BenchmarkProblem], limit: int) -> Sequence[BenchmarkProblem]:
    tasks: dict[str, list[str]] = {}
    for problem in problems:
        tasks.setdefault(problem.task, []).append(problem.id)
    return chosen(problems, [name for ids in tasks.values() for name in sorted(ids, key=_rank)[:limit]])


def _rank(name: str) -> bytes:
    return hashlib.blake2b(f"reasonvec-limit/{name}".encode(), digest_size=16).digest()
