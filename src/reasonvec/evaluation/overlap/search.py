"""The search for a benchmark's questions in training data, and what it found, problem by problem."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import Benchmark, load_benchmark
from reasonvec.evaluation.overlap.index import RUN, Find, RunIndex, normalised
from reasonvec.evaluation.overlap.training import Line, check_training, read_lines
from reasonvec.weights.files import sha256_of

HOW = ("exact", "normalised", "partial")
"""From the surest to the weakest: the question character by character; its words in order, whatever the case, spaces
and punctuation; at least one run of 8 of its words."""
BATCH = 2 << 20
"""Characters that are looked through at once."""


@dataclass(frozen=True)
class ProblemOverlap:
    """One problem that training data overlaps."""

    id: str
    how: str
    """The surest of HOW that holds in some training text."""
    runs: int
    """Runs of 8 words that the question has; one where it has fewer than 8 words."""
    found: int
    """How many of them stand somewhere in the training data."""
    distinctive: int
    """How many of the found ones no other problem of the task has: a phrase of a template is no copy."""
    rows: int
    """Training rows that hold one or more."""
    file: str
    line: int
    """Where it is first as surely as `how` says."""


@dataclass(frozen=True)
class Overlap:
    """What `find_overlap` found."""

    benchmark: Benchmark
    problems: tuple[ProblemOverlap, ...]
    """Those that overlap, in the benchmark's order."""
    unsearchable: tuple[str, ...]
    """Ids of questions without a word."""
    files: tuple[dict[str, Any], ...]
    """Path, SHA-256, rows and uncompressed bytes of each training file."""
    rows: int
    """Training rows that overlap some problem."""

    @property
    def counts(self) -> dict[str, int]:
        """Problems by the surest way in which they overlap."""
        counted = Counter(problem.how for problem in self.problems)
        return {how: counted[how] for how in HOW}

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark.to_json(),
            "training": list(self.files),
            "run_words": RUN,
            "overlapping": len(self.problems),
            "share": round(len(self.problems) / len(self.benchmark.problems), 6),
            "counts": self.counts,
            "training_rows_overlapping": self.rows,
            "unsearchable": list(self.unsearchable),
            "problems": [
                {
                    "id": problem.id,
                    "how": problem.how,
                    "runs": problem.runs,
                    "found": problem.found,
                    "distinctive": problem.distinctive,
                    "rows": problem.rows,
                    "first": {"file": problem.file, "line": problem.line},
                }
                for problem in self.problems
            ],
        }


@dataclass
class _Seen:
    """What is known of one problem so far."""

    runs: set[int] = field(default_factory=set)
    rows: int = 0
    how: int = len(HOW)
    """Place in HOW; past its end where nothing was found."""
    file: int = 0
    line: int = 0


def find_overlap(
    training: Sequence[Path], *, task: str, data: Path, progress: Callable[[int], None] | None = None
) -> Overlap:
    """Look for every question of `task` in every text of the training files.

    Memory is that of the benchmark, a batch and the longest line. Raises BenchmarkError for files that are missing,
    damaged or no JSON lines, UsageError for an unknown task or no file.
    """
    files = tuple(Path(file) for file in training)
    if not files:
        raise UsageError("No training file is named. overlap takes one or more .jsonl files.")
    check_training(files)
    benchmark = load_benchmark(task, data=data)
    search = _Search(benchmark)
    rows, nbytes = [0] * len(files), [0] * len(files)
    batch: list[Line] = []
    size = 0
    for line in read_lines(files, progress):
        rows[line.file] += 1
        nbytes[line.file] += line.nbytes
        batch.append(line)
        size += line.nbytes
        if size >= BATCH:
            search.look_through(batch)
            batch, size = [], 0
    search.look_through(batch)
    described = tuple(
        {"file": str(file), "sha256": sha256_of(file), "rows": rows[place], "bytes": nbytes[place]}
        for place, file in enumerate(files)
    )
    return search.result(files, described)


class _Search:
    """The state of one search: what was seen of each problem, which does not grow with the training data."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        self._questions = [problem.question.strip() for problem in benchmark.problems]
        self._index = RunIndex(self._questions)
        self._seen: dict[int, _Seen] = defaultdict(_Seen)
        self._rows = 0

    def look_through(self, batch: Sequence[Line]) -> None:
        """Take note of what the texts of these rows hold."""
        owners = [row for row, line in enumerate(batch) for _ in line.texts]
        texts = [text for line in batch for text in line.texts]
        if not texts:
            return
        grouped: dict[tuple[int, int], list[Find]] = defaultdict(list)
        for find in self._index.find([normalised(text) for text in texts]):
            grouped[find.text, find.problem].append(find)
        touched: set[tuple[int, int]] = set()
        for (text, problem), finds in grouped.items():
            line = batch[owners[text]]
            seen = self._seen[problem]
            seen.runs.update(find.run for find in finds)
            if (owners[text], problem) not in touched:
                touched.add((owners[text], problem))
                seen.rows += 1
            how = self._how(problem, finds, texts[text])
            if (how, line.file, line.number) < (seen.how, seen.file, seen.line):
                seen.how, seen.file, seen.line = how, line.file, line.number
        self._rows += len({row for row, _ in touched})

    def _how(self, problem: int, finds: Sequence[Find], text: str) -> int:
        """Place in HOW of one problem in one text."""
        starts = Counter(find.place - find.run for find in finds)
        if max(starts.values()) < self._index.runs[problem]:
            return 2
        return 0 if self._questions[problem] in text else 1

    def result(self, files: tuple[Path, ...], described: tuple[dict[str, Any], ...]) -> Overlap:
        """All that was seen, in the benchmark's order."""
        problems = self._benchmark.problems
        distinctive = self._index.distinctive_runs()
        found = tuple(
            ProblemOverlap(
                problems[place].id,
                HOW[seen.how],
                self._index.runs[place],
                len(seen.runs),
                len(seen.runs & distinctive[place]),
                seen.rows,
                str(files[seen.file]),
                seen.line,
            )
            for place, seen in sorted(self._seen.items())
        )
        unsearchable = tuple(problem.id for problem, runs in zip(problems, self._index.runs, strict=True) if not runs)
        return Overlap(self._benchmark, found, unsearchable, described, self._rows)
