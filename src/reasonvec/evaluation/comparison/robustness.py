"""Difference in differences: did an arm gain more, or less, where the problems were changed? On the same problems."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from reasonvec.evaluation.comparison.arms import Setting
from reasonvec.evaluation.comparison.contrast import SIGNIFICANCE, Contrast, Points, ends, in_points
from reasonvec.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    clustered_interval,
    detectable_mean,
    sign_flip_p,
)

_Z = 1.959963984540054
"""Half the width of a normal 95 % interval in standard errors."""


@dataclass(frozen=True)
class Robustness:
    """The difference on changed problems minus the difference on the same problems unchanged."""

    arm: str
    """Named as on the unchanged problems, so that rows of several perturbations have one name."""
    baseline: str
    changed: tuple[Setting, ...]
    """The changed problems; several where they are pooled."""
    n: int
    """Problems."""
    applied: tuple[int, int] | None
    """To how many problems of how many the operator applies; None where several are pooled."""
    changed_points: float
    """The arm's difference on the changed problems."""
    clean_points: float
    """The arm's difference on the same problems unchanged."""
    difference: Points
    """The first minus the second; errors are clustered by problem."""
    bootstrap: Interval | None
    """In points, over problems."""
    p: float
    """Of sign flips over problems."""
    detectable: float | None
    """Points that would be found in 80 % of such studies at 5 %; None where nothing varied."""
    values: tuple[tuple[str, float, float], ...]
    """(problem's id, arm's difference changed, clean), in -1..1; for pooling."""
    holm_p: float | None = None
    """`p` adjusted over all of these in one call; None for pooled ones."""

    @property
    def clear(self) -> bool:
        return (self.p if self.holm_p is None else self.holm_p) < SIGNIFICANCE

    def to_json(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "baseline": self.baseline,
            "changed": [setting.title for setting in self.changed],
            "problems": self.n,
            "applies_to": share(self.applied),
            "changed_points": self.changed_points,
            "clean_points": self.clean_points,
            **self.difference.to_json(),
            "bootstrap": ends(self.bootstrap),
            "p": self.p,
            "holm_p": self.holm_p,
            "clear": self.clear,
            "detectable": self.detectable,
        }


def share(applied: tuple[int, int] | None) -> float | None:
    """Of the problems the share that an operator applies to."""
    return applied[0] / applied[1] if applied else None


def robustness(changed: Contrast, clean: Contrast, *, seed: int) -> Robustness:
    """`changed` minus `clean`, two contrasts of the same arms; every problem of `changed` is one of `clean`."""
    unchanged = dict(zip(clean.baseline.problems, clean.differences, strict=True))
    values = [
        (id, value, unchanged[id]) for id, value in zip(changed.baseline.problems, changed.differences, strict=True)
    ]
    found = _of(clean.arm.name, clean.baseline.name, (changed.arm.setting,), values, seed)
    return replace(found, applied=changed.arm.applied)


def pooled(parts: Sequence[Robustness], *, seed: int) -> Robustness:
    """All perturbations of one arm together; those of one problem are a cluster, not so many problems."""
    settings = tuple(setting for part in parts for setting in part.changed)
    return _of(parts[0].arm, parts[0].baseline, settings, [value for part in parts for value in part.values], seed)


def _of(
    arm: str, baseline: str, settings: tuple[Setting, ...], values: Sequence[tuple[str, float, float]], seed: int
) -> Robustness:
    ids = [id for id, _, _ in values]
    differences = [changed - clean for _, changed, clean in values]
    interval = in_points(clustered_interval(differences, ids))
    return Robustness(
        arm=arm,
        baseline=baseline,
        changed=settings,
        n=len(set(ids)),
        applied=None,
        changed_points=100 * fmean(changed for _, changed, _ in values),
        clean_points=100 * fmean(clean for _, _, clean in values),
        difference=Points(100 * fmean(differences), interval),
        bootstrap=in_points(bootstrap_interval(differences, seed=seed, groups=ids)),
        p=sign_flip_p(differences, seed=seed, groups=ids),
        detectable=detectable_mean((interval.high - interval.low) / 2 / _Z) if interval else None,
        values=tuple(values),
    )
