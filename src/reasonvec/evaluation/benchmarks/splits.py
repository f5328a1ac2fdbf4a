"""Which problems alpha is chosen on (dev) and which confirm it (test): a rule of ids and a seed alone."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks.problem import BenchmarkProblem

RULE = "lowest-blake2b-per-task"
"""Of each task, the problems whose ids have the lowest keyed hashes are dev."""
VERSION = 1


@dataclass(frozen=True)
class Split:
    """A division of problems in two, and all that is needed to make it again."""

    seed: int
    dev_per_task: int
    """Problems of each task that are dev."""
    dev: tuple[str, ...]
    """Ids, sorted."""
    test: tuple[str, ...]
    """Ids, sorted."""

    def to_json(self) -> dict[str, object]:
        """The rule with its version, and a checksum over the ids of dev, which another version must come to too."""
        digest = hashlib.sha256("\n".join(self.dev).encode()).hexdigest()
        return {
            "rule": RULE,
            "rule_version": VERSION,
            "seed": self.seed,
            "dev_per_task": self.dev_per_task,
            "dev": len(self.dev),
            "test": len(self.test),
            "dev_sha256": digest,
        }


def split_problems(problems: Sequence[BenchmarkProblem], *, seed: int, dev_per_task: int) -> Split:
    """Divide problems, the same way in whatever order they come; of each task `dev_per_task` become dev.

    Raises UsageError where a task has no more problems than that, since nothing would be left to confirm on.
    """
    if dev_per_task < 0:
        raise UsageError(f"{dev_per_task} problems cannot be dev: it is 0 or more.")
    dev: list[str] = []
    test: list[str] = []
    tasks: dict[str, list[str]] = {}
    for problem in problems:
        tasks.setdefault(problem.task, []).append(problem.id)
    for task in sorted(tasks):
        ids = sorted(tasks[task], key=lambda name: _rank(name, seed))
        if len(ids) <= dev_per_task:
            raise UsageError(
                f"{task} has {len(ids)} problems and {dev_per_task} of each task are to be dev: none would be left to "
                f"confirm on. Take fewer."
            )
        dev += ids[:dev_per_task]
        test += ids[dev_per_task:]
    return Split(seed, dev_per_task, tuple(sorted(dev)), tuple(sorted(test)))


def chosen(problems: Iterable[BenchmarkProblem], ids: Iterable[str]) -> list[BenchmarkProblem]:
    """The problems with these ids, in the problems' order."""
    wanted = frozenset(ids)
    return [problem for problem in problems if problem.id in wanted]


def _rank(name: str, seed: int) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{RULE}/{VERSION}/{seed}/{name}".encode(), digest_size=16).digest(), name
