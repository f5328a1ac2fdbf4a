"""One arm against another on the same problems: every number of it. What they may be mistaken for is in caveats.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance
from typing import Any, Literal

from reasonvec.evaluation.comparison.arms import Arm
from reasonvec.evaluation.comparison.summary import samples_of
from reasonvec.evaluation.runs import Outcome
from reasonvec.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    detectable_mean,
    exact_mcnemar,
    mean_interval,
    mid_p_mcnemar,
    paired_difference,
    sign_flip_p,
    stratified_interval,
)

SIGNIFICANCE = 0.05
Role = Literal["confirmatory", "exploratory", "control", "repeat"]


@dataclass(frozen=True)
class Points:
    """A difference in percentage points; the interval is None where nothing varied."""

    points: float
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {"points": self.points, **ends(self.interval)}


@dataclass(frozen=True)
class Both(Points):
    """The difference on the problems of which both arms gave an answer."""

    problems: int

    def to_json(self) -> dict[str, Any]:
        return {"problems": self.problems, **super().to_json()}


@dataclass(frozen=True)
class Form:
    """A share of completions that says something of their form and nothing of what was reasoned."""

    arm: float
    baseline: float
    p: float
    """Paired: exact McNemar, or sign flips for several samples."""

    def to_json(self) -> dict[str, Any]:
        return {"arm": self.arm, "baseline": self.baseline, "p": self.p}


@dataclass(frozen=True)
class Contrast:
    """How much better one arm is than another."""

    arm: Arm
    baseline: Arm
    role: Role
    n: int
    """Problems."""
    samples: int
    difference: Points
    """With Newcombe's interval for single samples, else that of the mean over problems."""
    gained: int | None
    """Problems that only the arm got right; None for several samples."""
    lost: int | None
    analytic: Interval | None
    """In points: mean ± z·SE of the problems' differences."""
    bootstrap: Interval | None
    """In points: BCa over problems."""
    p: float
    """Exact McNemar; for several samples of sign flips over problems."""
    mid_p: float | None
    detectable: float | None
    """Points that would be found in 80 % of such studies at 5 %; None where flips are too few for any."""
    stratified: Interval | None
    """In points: of `difference`, with tasks as strata; None for one task."""
    macro: Points | None
    """Mean of the tasks' differences; None for one task."""
    tasks: dict[str, Points]
    answered: Form
    cut_off: Form | None
    answered_by_both: Both | None
    """On the completions in which both arms gave an answer; None where there is none."""
    strict: float | None
    """Points by the harness's strict-match, where it judged all of both."""
    flexible: float | None
    differences: tuple[float, ...]
    """For each problem, in the baseline's order: share right of the arm minus that of the baseline."""
    holm_p: float | None = None
    """`p` adjusted for the family, which the comparison as a whole knows; None for what is no member."""
    caveats: tuple[str, ...] = ()
    """In words, what the difference may be mistaken for."""

    @property
    def clear(self) -> bool:
        """Whether p, adjusted where it is a member of the family, is below 0.05."""
        return (self.p if self.holm_p is None else self.holm_p) < SIGNIFICANCE

    def to_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm.name,
            "baseline": self.baseline.name,
            "role": self.role,
            "problems": self.n,
            "samples": self.samples,
            **self.difference.to_json(),
            "gained": self.gained,
            "lost": self.lost,
            "analytic": ends(self.analytic),
            "bootstrap": ends(self.bootstrap),
            "p": self.p,
            "mid_p": self.mid_p,
            "holm_p": self.holm_p,
            "clear": self.clear,
            "detectable": self.detectable,
            "stratified": ends(self.stratified),
            "macro": self.macro.to_json() if self.macro else None,
            "tasks": {name: points.to_json() for name, points in self.tasks.items()},
            "answered": self.answered.to_json(),
            "cut_off": self.cut_off.to_json() if self.cut_off else None,
            "answered_by_both": self.answered_by_both.to_json() if self.answered_by_both else None,
            "strict": self.strict,
            "flexible": self.flexible,
            "caveats": list(self.caveats),
        }


def contrast(arm: Arm, baseline: Arm, role: Role, *, seed: int) -> Contrast:
    """Compare two arms whose problems pair (`guards.refusals` says whether); `seed` reaches whatever draws."""
    samples = samples_of(baseline.run)
    differences = paired_values(arm, baseline, lambda outcome: outcome.correct)
    main = _single(arm, baseline) if samples == 1 else _graded(differences, seed)
    strata = _strata(baseline, differences)
    several = len(strata) > 1
    return Contrast(
        arm=arm,
        baseline=baseline,
        role=role,
        n=len(differences),
        samples=samples,
        analytic=in_points(mean_interval(differences)),
        bootstrap=in_points(bootstrap_interval(differences, seed=seed)),
        stratified=_weighted(strata, [float(len(values)) for values in strata.values()]) if several else None,
        macro=_macro(strata) if several else None,
        tasks={task: _mean(values) for task, values in strata.items()} if several else {},
        answered=_form(arm, baseline, lambda outcome: outcome.answered, seed),
        cut_off=_cut_off(arm, baseline, seed),
        answered_by_both=_answered_by_both(arm, baseline),
        strict=_other(arm, baseline, lambda outcome: outcome.strict),
        flexible=_other(arm, baseline, lambda outcome: outcome.flexible),
        differences=tuple(differences),
        **main,
    )


def paired_values(arm: Arm, baseline: Arm, judge: Callable[[Outcome], bool | None]) -> list[float]:
    """For each problem of the baseline, in its order, the arm's share by `judge` minus the baseline's; in -1..1."""
    return [
        fmean(bool(judge(one)) for one in arm.problems[id]) - fmean(bool(judge(one)) for one in outcomes)
        for id, outcomes in baseline.problems.items()
    ]


def in_points(interval: Interval | None) -> Interval | None:
    return Interval(100 * interval.low, 100 * interval.high) if interval else None


def ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}


def _single(arm: Arm, baseline: Arm) -> dict[str, Any]:
    """One completion each: McNemar's table."""
    found = paired_difference(
        [arm.problems[id][0].correct for id in baseline.problems],
        [outcomes[0].correct for outcomes in baseline.problems.values()],
    )
    return {
        "difference": Points(found.points, Interval(found.low, found.high)),
        "gained": found.gained,
        "lost": found.lost,
        "p": found.p,
        "mid_p": mid_p_mcnemar(gained=found.gained, lost=found.lost),
        "detectable": found.detectable,
    }


def _graded(differences: Sequence[float], seed: int) -> dict[str, Any]:
    """Several completions each: means over problems."""
    spread = variance(differences) if len(differences) > 1 else 0.0
    return {
        "difference": _mean(differences),
        "gained": None,
        "lost": None,
        "p": sign_flip_p(differences, seed=seed),
        "mid_p": None,
        "detectable": 100 * detectable_mean(sqrt(spread / len(differences))) if spread else None,
    }


def _mean(differences: Sequence[float]) -> Points:
    return Points(100 * fmean(differences), in_points(mean_interval(differences)))


def _strata(baseline: Arm, differences: Sequence[float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for outcomes, difference in zip(baseline.problems.values(), differences, strict=True):
        found.setdefault(outcomes[0].task, []).append(difference)
    return dict(sorted(found.items()))


def _weighted(strata: dict[str, list[float]], weights: Sequence[float]) -> Interval | None:
    return in_points(stratified_interval(list(strata.values()), weights=weights))


def _macro(strata: dict[str, list[float]]) -> Points:
    return Points(100 * fmean(fmean(values) for values in strata.values()), _weighted(strata, [1.0] * len(strata)))


def _form(arm: Arm, baseline: Arm, judge: Callable[[Outcome], bool | None], seed: int) -> Form:
    differences = paired_values(arm, baseline, judge)
    if all(value in (-1.0, 0.0, 1.0) for value in differences):
        p = exact_mcnemar(gained=differences.count(1.0), lost=differences.count(-1.0))
    else:
        p = sign_flip_p(differences, seed=seed)
    shares = [fmean(bool(judge(outcome)) for outcome in one.run.outcomes) for one in (arm, baseline)]
    return Form(shares[0], shares[1], p)


def _cut_off(arm: Arm, baseline: Arm, seed: int) -> Form | None:
    if any(outcome.finished is None for one in (arm, baseline) for outcome in one.run.outcomes):
        return None
    return _form(arm, baseline, lambda outcome: not outcome.finished, seed)


def _answered_by_both(arm: Arm, baseline: Arm) -> Both | None:
    found = [
        fmean(float(left.correct) - float(right.correct) for left, right in pairs)
        for id, outcomes in baseline.problems.items()
        if (
            pairs := [
                (left, right)
                for left, right in zip(arm.problems[id], outcomes, strict=True)
                if left.answered and right.answered
            ]
        )
    ]
    if not found:
        return None
    mean = _mean(found)
    return Both(mean.points, mean.interval, len(found))


def _other(arm: Arm, baseline: Arm, judge: Callable[[Outcome], bool | None]) -> float | None:
    if any(judge(outcome) is None for one in (arm, baseline) for outcome in one.run.outcomes):
        return None
    return 100 * fmean(paired_values(arm, baseline, judge))
