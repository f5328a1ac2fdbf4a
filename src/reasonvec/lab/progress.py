"""What the demo says on stderr while it runs: a line for each stage with its purpose, its progress and its time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import TrainerCallback

Advance = Callable[[int, str], None]
"""Called with the steps done so far and a word on how it goes."""

_SECONDS_BETWEEN_LINES = 15
"""Where stderr is no terminal, progress is a line now and then instead of a bar."""


class Stages:
    """Announces the stages of one run in order and keeps their wall-clock seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._console = Console(stderr=True, highlight=False)
        self._started = time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    def say(self, text: str) -> None:
        """One line of prose."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, purpose: str, *, steps: int = 0) -> Iterator[Advance]:
        """Announce a stage and time it; with `steps` the stage reports how many of them are done."""
        self.say(f"{_clock(self.total)}  {name}: {purpose}")
        before = time.perf_counter()
        with self._progress(steps) as advance:
            yield advance
        self.seconds[name] = round(time.perf_counter() - before, 2)

    @contextmanager
    def _progress(self, steps: int) -> Iterator[Advance]:
        if not steps:
            yield lambda done, note: None
        elif self._console.is_terminal:
            columns = (TextColumn("      "), BarColumn(40), MofNCompleteColumn(), TextColumn("{task.description}"))
            with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as progress:
                task = progress.add_task("", total=steps)
                yield lambda done, note: progress.update(task, completed=done, description=note)
        else:
            yield self._occasional_lines(steps)

    def _occasional_lines(self, steps: int) -> Advance:
        last = time.perf_counter()

        def advance(done: int, note: str) -> None:
            nonlocal last
            if time.perf_counter() - last >= _SECONDS_BETWEEN_LINES:
                last = time.perf_counter()
                self.say(f"       {done} of {steps} {note}".rstrip())
                sys.stderr.flush()

        return advance


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Passes a TRL trainer's steps on to a stage."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def on_step_end(self, args: object, state: object, control: object, **others: object) -> None:
        """Called by the trainer after each optimizer step."""
        self.advance(state.global_step, "")  # type: ignore[attr-defined]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
