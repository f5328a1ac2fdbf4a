"""The suite: all operators with their severities, applied to a benchmark, and the file that is written of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import Benchmark, BenchmarkProblem, load_benchmark
from reasonvec.evaluation.benchmarks.catalog import GROUPS, TASKS
from reasonvec.evaluation.benchmarks.loading import HEADER
from reasonvec.evaluation.perturbations import recomputing, sentences, wording
from reasonvec.evaluation.perturbations.change import Inapplicable, Operator, Others, Perturbed
from reasonvec.evaluation.perturbations.quantities import digit_tokens
from reasonvec.evaluation.perturbations.stream import RandomStream
from reasonvec.evaluation.whole_file import check_new, write_whole

SUITE_VERSION = 1
"""Of all operators together: whatever changes a byte of any output changes it."""
FORMAT_VERSION = 1
"""Of the file that is written."""


@dataclass(frozen=True)
class _Entry:
    """An operator of the suite."""

    run: Operator
    severities: tuple[str, ...]
    """What severity 1, 2 and 3 are, in words."""
    keeps_numbers: bool
    """Whether numbers in digits are the same ones before and after, in any order."""
    draws_from: str | None = None
    """`train` or `own`: the problems that it takes sentences or answers from."""


OPERATORS: dict[str, _Entry] = {
    "typo": _Entry(wording.typo, ("5% of words", "10% of words", "20% of words"), True),
    "surface": _Entry(wording.surface, ("on",), True),
    "number-format": _Entry(wording.number_format, ("on",), False),
    "shuffle": _Entry(sentences.shuffle, ("another order",), True),
    "shuffle-all": _Entry(sentences.shuffle_all, ("another order, unguarded",), True),
    "distract-off": _Entry(sentences.distract_off, ("1 sentence", "2 sentences", "4 sentences"), False, "train"),
    "distract-in": _Entry(sentences.distract_in, ("number in range", "number out of range"), False),
    "numbers": _Entry(recomputing.numbers, ("x0.5 to 2", "x5 to 20", "x500 to 2000"), False),
    "compose": _Entry(recomputing.compose, ("2 problems", "3 problems"), False, "own"),
    "premise": _Entry(sentences.premise, ("1 sentence less",), False),
}
"""Operator by the name that --operator takes."""


@dataclass(frozen=True)
class Perturbation:
    """What `perturb` made."""

    out: Path
    sha256: str
    """Of the file: every arm has to be measured on the same one."""
    header: Mapping[str, Any]
    """The file's first line."""

    def to_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "sha256": self.sha256, **self.header}


def perturb(
    task: str, *, operator: str, severity: int, seed: int, out: Path, data: Path, force: bool = False
) -> Perturbation:
    """Apply one operator to every problem of `task` and write those it applies to, as JSON lines after a header.

    Severity 0 writes the problems that severity 1 applies to as they are: the clean side of the comparison. The same
    arguments give the same bytes on every platform, and a problem's line does not depend on which others there are,
    except through the sentences and answers that distract-off and compose take from them. Raises UsageError for an
    operator or severity that does not exist or a task whose questions must not be touched, BenchmarkError for its
    files, OutputError where `out` exists.
    """
    check_new(out, force=force)
    _check(task, operator, severity)
    benchmark = load_benchmark(task, data=data)
    pool = _pool(benchmark, operator, data)
    others = Others(tuple(sorted(pool.problems, key=lambda problem: problem.id))) if pool else Others()
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    for problem in benchmark.problems:
        changed = perturb_problem(problem, operator=operator, severity=severity, seed=seed, others=others)
        if isinstance(changed, Inapplicable):
            left_out[changed.reason] += 1
        else:
            rows.append(_row(problem, changed))
    if not rows:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.most_common())
        raise UsageError(
            f"{operator} applies to none of the {len(benchmark.problems)} problems of {task}: {reasons}. An empty file "
            f"would be scored as something; nothing was written. Choose another operator or task."
        )
    header = {
        "format": HEADER,
        "format_version": FORMAT_VERSION,
        "suite_version": SUITE_VERSION,
        "operator": operator,
        "severity": severity,
        "severity_means": "unchanged" if severity == 0 else OPERATORS[operator].severities[severity - 1],
        "seed": seed,
        "benchmark": benchmark.to_json(),
        "draws_from": pool.to_json() if pool else None,
        "problems": len(benchmark.problems),
        "applied": len(rows),
        "share": round(len(rows) / len(benchmark.problems), 6),
        "left_out": dict(sorted(left_out.items())),
    }
    lines = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in (header, *rows)]
    content = ("\n".join(lines) + "\n").encode()
    write_whole(out, content, force=force)
    return Perturbation(out, hashlib.sha256(content).hexdigest(), header)


def perturb_problem(
    problem: BenchmarkProblem, *, operator: str, severity: int, seed: int, others: Others
) -> Perturbed | Inapplicable:
    """One problem changed by one operator. Its stream is keyed by suite version, operator, id, severity and seed."""
    entry = OPERATORS[operator]
    stream = RandomStream("reasonvec-suite", SUITE_VERSION, operator, problem.id, max(1, severity), seed)
    changed = entry.run(problem, max(1, severity), stream, others)
    if isinstance(changed, Inapplicable):
        return changed
    if severity == 0:
        return Perturbed(problem.question, (), problem.gold, problem.solution)
    if entry.keeps_numbers:
        before, after = digit_tokens(problem.question), digit_tokens(changed.question)
        if Counter(before) != Counter(after):
            return Inapplicable("a number in digits would not stay")
    return changed


def _check(task: str, operator: str, severity: int) -> None:
    if operator not in OPERATORS:
        raise UsageError(f"{operator!r} is no operator; there are {', '.join(OPERATORS)}.")
    severities = OPERATORS[operator].severities
    if not 0 <= severity <= len(severities):
        meaning = "; ".join(f"{number}: {text}" for number, text in enumerate(severities, 1))
        raise UsageError(f"{operator} has no severity {severity}. It has 0: the same problems unchanged; {meaning}.")
    for name in GROUPS.get(task, (task,)):
        if name in TASKS and not TASKS[name].perturbable:
            raise UsageError(
                f"{task} is not perturbed: in its questions, programs or puzzles about words themselves, a change of "
                f"wording may change the answer. Take a task in prose, such as gsm8k, svamp or asdiv."
            )


def _pool(benchmark: Benchmark, operator: str, data: Path) -> Benchmark | None:
    """Where sentences and answers come from: GSM8K's distractors from its train part, all else from the task itself."""
    wanted = OPERATORS[operator].draws_from
    if wanted == "train" and benchmark.name == "gsm8k":
        return load_benchmark("gsm8k/train", data=data)
    return benchmark if wanted else None


def _row(problem: BenchmarkProblem, changed: Perturbed) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": problem.id,
        "task": problem.task,
        "question": changed.question,
        "answer": changed.solution or changed.gold,
        "gold": changed.gold,
        "kind": problem.kind if changed.gold != sentences.ABSTAIN else "text",
        "gold_changed": changed.gold_changed,
        "edits": list(changed.edits),
    }
    return {**row, "details": dict(problem.details)} if problem.details else row
