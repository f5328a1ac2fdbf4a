"""From a task's name, or a JSONL file of one's own, to its problems. Every file is held against its checksum first."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from reasonvec.errors import BenchmarkError, CheckpointError, UsageError
from reasonvec.evaluation.benchmarks.catalog import GROUPS, TASKS, PinnedFile, Task
from reasonvec.evaluation.benchmarks.problem import BenchmarkProblem, Kind, exact_number
from reasonvec.evaluation.benchmarks.records import boxed, chain_of_thought, marked_gold
from reasonvec.weights.files import read_small

HEADER = "reasonvec perturbed problems"
"""The `format` in the first line of a file that `perturb` wrote; such a line is no problem."""
MAX_DIGITS = 1000
"""Digits in a row that a question or an answer may not have: arithmetic with such numbers would not end."""
_SHOWN = 5
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS}}}")


@dataclass(frozen=True)
class Benchmark:
    """The problems of one task, or of a group of tasks, and what they were read from."""

    name: str
    problems: tuple[BenchmarkProblem, ...]
    """In the files' order."""
    files: Mapping[str, str]
    """Path under the data directory, or the name of one's own file -> SHA-256."""
    licences: tuple[str, ...]
    """Of the problems; empty for one's own file, whose licence nobody here knows."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Task -> its own chain-of-thought prompt, to be put before the question; of BIG-Bench Hard."""
    perturbation: Mapping[str, Any] | None = None
    """The header of a file that `perturb` wrote."""

    def to_json(self) -> dict[str, Any]:
        """What a result that was measured on these problems has to record."""
        return {
            "task": self.name,
            "problems": len(self.problems),
            "files": dict(self.files),
            "licences": list(self.licences),
        }


def load_benchmark(task: str, *, data: Path) -> Benchmark:
    """The problems of `task`: a name, or the path of a .jsonl file with a question and an answer a line.

    Raises UsageError for a name that is not known, BenchmarkError for a file that is missing, damaged or not the one
    that the name is pinned to.
    """
    if task.endswith(".jsonl"):
        return _load_own(Path(task))
    members = [TASKS[name] for name in GROUPS.get(task, (task,)) if name in TASKS]
    if not members:
        raise UsageError(_unknown(task))
    pinned = [file for member in members for file in (member.file, member.prompt) if file]
    origin = {file.path: member for member in members for file in (member.file, member.prompt) if file}
    _check_presence(task, pinned, origin, data)
    contents = {file.path: _read_pinned(task, file, origin[file.path], data) for file in pinned}
    return Benchmark(
        task,
        tuple(problem for member in members for problem in member.read(contents[member.file.path], member.name)),
        {file.path: file.sha256 for file in pinned},
        tuple(dict.fromkeys(member.origin.licence for member in members)),
        {member.name: chain_of_thought(contents[member.prompt.path]) for member in members if member.prompt},
    )


def _unknown(task: str) -> str:
    names = [*GROUPS, *TASKS]
    near = difflib.get_close_matches(task.strip().lower(), names, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}?" if near else f"Known are {', '.join(_short_names())}."
    return (
        f"{task!r} is no task that is known. {hint} One task of BIG-Bench Hard is bbh/NAME; problems of your own are a "
        f"path that ends in .jsonl."
    )


def _short_names() -> list[str]:
    return sorted({*GROUPS, *(name for name in TASKS if not name.startswith("bbh/"))})


def _check_presence(task: str, pinned: list[PinnedFile], origin: Mapping[str, Task], data: Path) -> None:
    missing = [file for file in pinned if not (data / file.path).exists()]
    if not missing:
        return
    paths = ", ".join(str(data / file.path) for file in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    verb = "is" if len(missing) == 1 else "are"
    raise BenchmarkError(
        f"{task} needs {len(pinned)} file{'s' * (len(pinned) > 1)}, of which {len(missing)} {verb} missing: {paths}"
        f"{more}. {_source(missing[0], origin[missing[0].path])} Nothing is downloaded for you; put the files there, "
        f"or say with --data where they are."
    )


def _source(file: PinnedFile, task: Task) -> str:
    origin = task.origin
    where = origin.repository
    if origin.commit:
        raw = origin.repository.replace("github.com", "raw.githubusercontent.com")
        where = f"{raw}/{origin.commit}/{file.upstream}"
    return f"{origin.title} (licence: {origin.licence}) is at {where}."


def _read_pinned(task: str, file: PinnedFile, member: Task, data: Path) -> bytes:
    content = _read(data / file.path)
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise BenchmarkError(
            f"{data / file.path} is not the file that {task} is pinned to: its SHA-256 is {found}, expected "
            f"{file.sha256}. Scores on another version cannot be compared, and ids would name other problems. "
            f"{_source(file, member)} To measure on your version, give its path as the task, as .jsonl with question "
            f"and answer."
        )
    return content


def _read(path: Path) -> bytes:
    try:
        return read_small(path)
    except CheckpointError as error:
        raise BenchmarkError(str(error)) from None


def _load_own(path: Path) -> Benchmark:
    if not path.exists():
        raise BenchmarkError(
            f"{path} is missing. A task that ends in .jsonl is a file of your own: a line for each problem, such as "
            f'{{"question": "What is 2 + 3?", "answer": "5"}}.'
        )
    content = _read(path)
    stem = os.fsencode(path.stem).decode(errors="replace")  # a name on disk need not be text
    problems, wrong = [], []
    header: Mapping[str, Any] | None = None
    places: dict[str, list[int]] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_float=str, parse_constant=_no_constant)
            if number == 1 and isinstance(row, dict) and row.get("format") == HEADER:
                header = row
                continue
            problem = _own_problem(row, stem)
        except (ValueError, RecursionError) as error:
            wrong.append(f"line {number}: {str(error)[:200]}")
            continue
        places.setdefault(problem.id, []).append(number)
        problems.append(problem)
    wrong += [f"lines {', '.join(map(str, numbers))} have one id, {name!r}: give each its own `id`"
              for name, numbers in places.items() if len(numbers) > 1]  # fmt: skip
    if not problems and not wrong:
        wrong = ["it holds no problem"]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise BenchmarkError(
            f"{path} cannot be measured on: {'; '.join(wrong[:_SHOWN])}{more}. A problem that is left out would change "
            f"the score unseen, so all lines have to be right."
        )
    return Benchmark(stem, tuple(problems), {path.name: hashlib.sha256(content).hexdigest()}, (), perturbation=header)


def _own_problem(row: Any, stem: str) -> BenchmarkProblem:
    """One line of one's own file. Without an id the problem is named by its question, so that order does not matter."""
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is expected, not {type(row).__name__}")
    question = _text(row, "question" if "question" in row or "problem" not in row else "problem")
    gold, solution = _answers(row)
    if not gold:
        raise ValueError("no answer is named: nothing follows the last #### of `answer`, or `solution` boxes nothing")
    details = row.get("details", {})
    if not isinstance(details, dict):
        raise ValueError("`details` is no JSON object")
    json.dumps(details, ensure_ascii=False).encode()  # half of a surrogate pair is found here, before it is written
    number = exact_number(gold)
    name = _text(row, "id") if "id" in row else f"{stem}/{hashlib.sha256(question.encode()).hexdigest()[:16]}"
    latex = "solution" in row and boxed(solution or "")
    kind: Kind = row.get("kind") or ("number" if number is not None else "expression" if latex else "text")
    if kind not in get_args(Kind) or (kind == "number" and number is None):
        raise ValueError(f"`kind` {kind!r} does not go with gold {gold!r}")
    return BenchmarkProblem(
        name,
        _text(row, "task") if "task" in row else stem,
        question,
        number if kind == "number" and number is not None else gold,
        kind,
        solution,
        details,
    )


def _answers(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The gold answer and the worked solution: of MATH's layout, with the solution in a field of its own, or GSM8K's,
    where the answer is the solution and marks its end."""
    if "solution" in row:
        solution = _text(row, "solution")
        named = next((name for name in ("gold", "answer") if name in row), None)
        return _text(row, named) if named else boxed(solution), solution
    answer = _text(row, "answer")
    gold = _text(row, "gold") if "gold" in row else marked_gold(answer)
    return gold, answer if answer != gold else None


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{name}` is missing, empty or neither text nor a number")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"`{name}` holds half of a surrogate pair, which is no text") from None
    if _LONG_NUMBER.search(value):
        raise ValueError(f"`{name}` holds a number of {MAX_DIGITS} digits or more")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
