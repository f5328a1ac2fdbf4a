"""What one run shows by itself: accuracy with its interval, by task, and whether answers were found and ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from reasonvec.errors import RunError
from reasonvec.evaluation.runs import Outcome, Run
from reasonvec.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    mean_interval,
    pass_at_k,
    stratified_interval,
    wilson_interval,
)

SEED = 0
"""Of the bootstrap behind pass@k: a summary is the same whenever it is made."""


@dataclass(frozen=True)
class Score:
    """A share of problems with its 95 % interval, all in 0..1."""

    value: float
    low: float
    high: float
    method: str
    """Of the interval: wilson, mean, stratified or bootstrap; docs/evaluation.md says what each is."""

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "method": self.method}


@dataclass(frozen=True)
class TaskScore:
    """One task of a benchmark that has several."""

    problems: int
    accuracy: Score


@dataclass(frozen=True)
class RunSummary:
    """One arm on one benchmark."""

    problems: int
    samples: int
    """Completions of each problem."""
    completions: int
    """`problems` times `samples`."""
    correct: int
    """Completions that are right."""
    accuracy: Score
    """Share of the problems that are right; with several samples the mean of the problems' shares (avg@k)."""
    pass_at: Mapping[int, Score]
    """k -> share of problems that k completions solve at least once; empty for one sample."""
    tasks: Mapping[str, TaskScore]
    """By task, where the benchmark has several; else empty."""
    macro: Score | None
    """Mean of the tasks' accuracies, every task counting alike; None where there is one task."""
    strict: Score | None
    """Accuracy by the harness's strict-match; None where it has none for the benchmark."""
    flexible: Score | None
    """Accuracy by the harness's flexible-extract; None where it has none for the benchmark."""
    normalised: Score | None
    """Accuracy by log-likelihood per byte, the harness's acc_norm; None where options were not compared."""
    answered: float
    """Share of completions in which an answer was found."""
    cut_off: float | None
    """Share of completions that the limit of new tokens ended; None where nothing was generated."""
    empty: int
    """Completions without a visible character."""
    mean_tokens: float | None
    median_tokens: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "problems": self.problems,
            "samples": self.samples,
            "completions": self.completions,
            "correct": self.correct,
            "accuracy": self.accuracy.to_json(),
            "pass_at": {str(k): score.to_json() for k, score in self.pass_at.items()},
            "tasks": {
                name: {"problems": task.problems, "accuracy": task.accuracy.to_json()}
                for name, task in self.tasks.items()
            },
            "macro": _json(self.macro),
            "strict": _json(self.strict),
            "flexible": _json(self.flexible),
            "normalised": _json(self.normalised),
            "answered": self.answered,
            "cut_off": self.cut_off,
            "empty": self.empty,
            "mean_tokens": self.mean_tokens,
            "median_tokens": self.median_tokens,
        }


def summarise(run: Run) -> RunSummary:
    """Count a run. Raises RunError where it has no outcome, or not equally many samples of every problem."""
    problems = run.by_id
    samples = samples_of(run)
    outcomes = run.outcomes
    shares = _shares(problems, lambda outcome: outcome.correct)
    tasks = _by_task(problems)
    tokens = [outcome.tokens for outcome in outcomes if outcome.tokens is not None]
    return RunSummary(
        problems=len(problems),
        samples=samples,
        completions=len(outcomes),
        correct=sum(outcome.correct for outcome in outcomes),
        accuracy=_score(shares, samples),
        pass_at={k: _pass_at(problems, samples, k) for k in _ks(samples)},
        tasks={name: TaskScore(len(found), _score(found, samples)) for name, found in tasks.items()}
        if len(tasks) > 1
        else {},
        macro=_macro(tasks) if len(tasks) > 1 else None,
        strict=_other(problems, samples, lambda outcome: outcome.strict),
        flexible=_other(problems, samples, lambda outcome: outcome.flexible),
        normalised=_other(problems, samples, lambda outcome: outcome.normalised),
        answered=fmean(outcome.answered for outcome in outcomes),
        cut_off=cut_off(outcomes),
        empty=sum(outcome.completion is not None and not outcome.completion.strip() for outcome in outcomes),
        mean_tokens=fmean(tokens) if tokens else None,
        median_tokens=float(median(tokens)) if tokens else None,
    )


def samples_of(run: Run) -> int:
    """How many completions every problem of a run has. Raises RunError where there is none, or they differ."""
    if not run.outcomes:
        raise RunError(f"{run.path} holds no outcome, so there is no accuracy to tell. Go on with it by --resume.")
    counts = {id: len(outcomes) for id, outcomes in run.by_id.items()}
    most = max(counts.values())
    if fewer := [id for id, count in counts.items() if count != most]:
        raise RunError(
            f"{run.path} holds {most} completions of some problems and fewer of {len(fewer)} others, first "
            f"{fewer[0]}: {counts[fewer[0]]}. A mean over them would count problems unequally. Go on with it by "
            f"--resume."
        )
    return most


def cut_off(outcomes: Sequence[Outcome]) -> float | None:
    """Share of the generated completions that the limit ended; None where nothing was generated."""
    ends = [outcome.finished for outcome in outcomes if outcome.finished is not None]
    return fmean(not finished for finished in ends) if ends else None


def _shares(problems: Mapping[str, Sequence[Outcome]], judge: Callable[[Outcome], bool | None]) -> list[float]:
    """For each problem the share of its completions that are right."""
    return [fmean(bool(judge(outcome)) for outcome in outcomes) for outcomes in problems.values()]


def _by_task(problems: Mapping[str, Sequence[Outcome]]) -> dict[str, list[float]]:
    """Task -> shares of its problems, tasks sorted."""
    found: dict[str, list[float]] = {}
    for outcomes in problems.values():
        found.setdefault(outcomes[0].task, []).append(fmean(outcome.correct for outcome in outcomes))
    return dict(sorted(found.items()))


def _score(shares: Sequence[float], samples: int) -> Score:
    """Wilson's interval for single samples; for several, that of the mean over problems."""
    value = fmean(shares)
    interval = mean_interval(shares) if samples > 1 else None
    return _bounded(value, interval, len(shares), "mean")


def _bounded(value: float, interval: Interval | None, n: int, method: str) -> Score:
    """`interval` within 0..1; where nothing varied, Wilson's, as if each problem were wholly right or wholly wrong: no
    shares with that mean vary more."""
    if interval is None:
        interval, method = wilson_interval(min(value * n, n), n), "wilson"
    interval = interval.within(0.0, 1.0)
    return Score(value, interval.low, interval.high, method)


def _macro(tasks: Mapping[str, Sequence[float]]) -> Score:
    strata = list(tasks.values())
    value = fmean(fmean(shares) for shares in strata)
    interval = stratified_interval(strata, weights=[1.0] * len(strata))
    return _bounded(value, interval, sum(map(len, strata)), "stratified")


def _other(
    problems: Mapping[str, Sequence[Outcome]], samples: int, judge: Callable[[Outcome], bool | None]
) -> Score | None:
    """The accuracy by another judge, where it judged every completion."""
    if any(judge(outcome) is None for outcomes in problems.values() for outcome in outcomes):
        return None
    return _score(_shares(problems, judge), samples)


def _ks(samples: int) -> list[int]:
    """Powers of two above 1 up to `samples`, and `samples` itself; pass@1 is the accuracy."""
    powers = [2**power for power in range(1, samples.bit_length()) if 2**power <= samples]
    return sorted({*powers, samples}) if samples > 1 else []


def _pass_at(problems: Mapping[str, Sequence[Outcome]], samples: int, k: int) -> Score:
    solved = [pass_at_k(samples, sum(outcome.correct for outcome in outcomes), k=k) for outcomes in problems.values()]
    return _bounded(fmean(solved), bootstrap_interval(solved, seed=SEED), len(solved), "bootstrap")


def _json(score: Score | None) -> dict[str, Any] | None:
    return score.to_json() if score else None
