"""A run on disk: run.json first, outcomes appended and flushed in batches, summary.json last. Reads runs, too.

Killed at any instant, a run keeps every outcome that was flushed, and a line that was torn is cut off when it goes on.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reasonvec.errors import OutputError, RunError
from reasonvec.evaluation.runs.outcome import Outcome, read_line
from reasonvec.evaluation.whole_file import write_whole

FORMAT = "reasonvec run"
FORMAT_VERSION = 1
CONFIGURATION = "run.json"
OUTCOMES = "outcomes.jsonl"
SUMMARY = "summary.json"
_SHOWN = 8


@dataclass(frozen=True)
class Run:
    """One arm on one benchmark with one sampling configuration."""

    path: Path
    configuration: Mapping[str, Any]
    """What run.json holds: arm, benchmark, prompt, sampling, engine; docs/evaluation.md lists it."""
    outcomes: tuple[Outcome, ...]
    """In the order of the problems; of each problem all samples, one after the other."""
    complete: bool
    """Whether the summary was written, and all the outcomes that it counts are there."""

    @property
    def name(self) -> str:
        """How the run is called in tables: the name of its directory."""
        return self.path.resolve().name

    @property
    def expected(self) -> int | None:
        """Completions of the whole run; None where run.json does not say."""
        return _expected(self.configuration)

    @property
    def benchmark(self) -> Mapping[str, Any]:
        """`task`, `problems`, `problems_sha256` and the files they came from."""
        found: Mapping[str, Any] = self.configuration["benchmark"]
        return found

    @cached_property
    def by_id(self) -> Mapping[str, tuple[Outcome, ...]]:
        """Problem's id -> its outcomes, by sample."""
        found: dict[str, tuple[Outcome, ...]] = {}
        for outcome in self.outcomes:
            found[outcome.id] = (*found.get(outcome.id, ()), outcome)
        return found


class Recorder:
    """An unfinished run that outcomes are appended to. Close it, or use it in a `with` statement."""

    def __init__(self, path: Path) -> None:
        """Take hold of the outcomes and cut off a line that a kill tore. Raises OutputError where another process has
        them, RunError where they cannot be read."""
        self.path = path
        try:
            self._file = (path / OUTCOMES).open("ab")
        except OSError as error:
            raise OutputError(f"{path / OUTCOMES} cannot be written: {error.strerror or error}.") from None
        try:
            _lock(self._file.fileno(), path)
            self.done, end = _read_outcomes(path)
            """What an earlier, killed run had recorded."""
            self._file.truncate(end)
        except BaseException:
            self._file.close()
            raise

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Write a batch; when this returns it is on the disk."""
        content = "".join(f"{outcome.to_line()}\n" for outcome in outcomes).encode()
        try:
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.path / OUTCOMES} cannot be written: {error.strerror or error}. The outcomes before this batch "
                f"are kept; make room and go on with --resume."
            ) from None

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary: its presence means that the run is whole."""
        self._file.close()
        write_whole(self.path / SUMMARY, _document(summary), force=True)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run(path: Path, configuration: Mapping[str, Any], *, resume: bool) -> Recorder:
    """Begin a run at `path`, or go on with one whose configuration is the same.

    Raises what `check_run` does, and OutputError where another process is writing to the run.
    """
    check_run(path, configuration, resume=resume)
    if not _stands(path):
        _begin(path, configuration)
    return Recorder(path)


def check_run(path: Path, configuration: Mapping[str, Any], *, resume: bool, unknown: Collection[str] = ()) -> None:
    """Raise OutputError where something stands at `path` and `resume` was not given, or nothing can be written there;
    RunError where what stands there was begun with another configuration, naming each difference, or its recorded
    outcomes cannot be read. Of `unknown`, values of `configuration` such as `arm.alpha`, nothing is known yet."""
    check_place(path, resume=resume)
    if not _stands(path):
        return
    before = read_configuration(path)
    differences = _differences(before, _plain(configuration))
    if changes := [change for where, change in differences if not where.startswith(tuple(unknown))]:
        more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise RunError(
            f"{path} was begun with another configuration: {'; '.join(changes[:_SHOWN])}{more}. Outcomes of two "
            f"configurations must not be mixed in one run: go on with the one it was begun with, or name another "
            f"directory. What is recorded was left as it is."
        )
    _read_outcomes(path)


def check_place(path: Path, *, resume: bool) -> None:
    """The part of `check_run` that needs no configuration."""
    if _stands(path):
        if resume:
            return
        raise OutputError(
            f"{path} exists already. Nothing that was measured is overwritten: go on with that run by --resume, or "
            f"name another directory."
        )
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "may not be written to" if nearest.is_dir() else "is no directory"
        raise OutputError(f"{path} cannot be made: {nearest} {why}. Name another directory.")


def load_run(path: Path) -> Run:
    """Read a run, whole or not. Raises RunError for what is no run or cannot be read."""
    configuration = read_configuration(path)
    outcomes, _ = _read_outcomes(path)
    order = {id: place for place, id in enumerate(dict.fromkeys(outcome.id for outcome in outcomes))}
    outcomes = tuple(sorted(outcomes, key=lambda outcome: (order[outcome.id], outcome.sample)))
    complete = (path / SUMMARY).exists() and _expected(configuration) in (len(outcomes), None)
    return Run(path, configuration, outcomes, complete)


def find_runs(path: Path) -> list[Path]:
    """`path` if it is a run, else the runs in it, at any depth, sorted. Raises RunError where there is none."""
    if (path / CONFIGURATION).is_file():
        return [path]
    found = sorted(file.parent for file in path.rglob(CONFIGURATION)) if path.is_dir() else []
    if not found:
        what = "holds no run" if path.is_dir() else "is a file" if path.exists() else "does not exist"
        raise RunError(f"{path} {what}. A run is a directory with {CONFIGURATION}, as `reasonvec evaluate` writes it.")
    return found


def _stands(path: Path) -> bool:
    """Whether anything is there, but for what a run that was killed in its first moment leaves: an empty directory, or
    one with a configuration that had no name yet."""
    if path.is_symlink() or path.is_file():
        return True
    return path.is_dir() and any(not entry.name.startswith(f".{CONFIGURATION}.") for entry in path.iterdir())


def _expected(configuration: Mapping[str, Any]) -> int | None:
    """Outcomes of the whole run, None where it does not say; of options that are compared, one a problem."""
    problems, samples = configuration["benchmark"].get("problems"), configuration["sampling"].get("samples", 1)
    return problems * samples if type(problems) is int and type(samples) is int else None


def _lock(descriptor: int, path: Path) -> None:
    """Two processes that answer one run would write every outcome twice. The lock ends with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(
            f"another process is writing to {path}. Wait for it, or end it: two would record every outcome twice."
        ) from None
    except OSError:
        pass  # a file system without locks; a second writer is found when the run is read


def _begin(path: Path, configuration: Mapping[str, Any]) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror or error}.") from None
    write_whole(path / CONFIGURATION, _document(configuration), force=False)


def _document(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _plain(configuration: Mapping[str, Any]) -> Any:
    """As it comes back from JSON: tuples are lists."""
    return json.loads(_document(configuration))


def read_configuration(path: Path) -> Mapping[str, Any]:
    file = path / CONFIGURATION
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise RunError(f"{path} is no run: {CONFIGURATION} cannot be read ({reason}).") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RunError(f"{file} is not the configuration of a run: its `format` is not {FORMAT!r}.")
    if found.get("format_version") != FORMAT_VERSION:
        raise RunError(
            f"{file} has format version {found.get('format_version')!r}; this version of reasonvec reads "
            f"{FORMAT_VERSION}. Measure again, or use the version that wrote it: {found.get('reasonvec')}."
        )
    for name in ("arm", "benchmark", "prompt", "sampling", "engine"):
        if not isinstance(found.get(name), dict):
            raise RunError(f"{file} is damaged: `{name}` is missing or no object. Measure again.")
    return found


def _read_outcomes(path: Path) -> tuple[tuple[Outcome, ...], int]:
    """The recorded outcomes, and where the last whole line ends in bytes."""
    file = path / OUTCOMES
    if not file.exists():
        return (), 0
    content = file.read_bytes()
    end = content.rfind(b"\n") + 1
    outcomes: dict[tuple[str, int], Outcome] = {}
    for number, line in enumerate(content[:end].split(b"\n")[:-1], 1):
        try:
            outcome = read_line(line.decode())
        except (ValueError, RecursionError) as error:
            raise RunError(f"{file}, line {number}, is no outcome: {error}. The file was changed by hand or the disk "
                           f"failed; restore it, or measure again elsewhere.") from None  # fmt: skip
        if outcomes.setdefault((outcome.id, outcome.sample), outcome) is not outcome:
            raise RunError(f"{file}, line {number}, answers {outcome.id} (sample {outcome.sample}) a second time. Two "
                           f"processes may have written to this run; measure again elsewhere.")  # fmt: skip
    return tuple(outcomes.values()), end


def _differences(before: Any, now: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """`sampling.seed`, and `sampling.seed is 1, was 0`, for every value that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}):
            yield from _differences(before.get(name), now.get(name), f"{where}.{name}" if where else name)
    elif before != now:
        yield where, f"{where} is {_short(now)}, was {_short(before)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
