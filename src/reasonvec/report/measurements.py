"""The results document as values that the page asks questions of. Takes the numbers as they are, and judges none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from reasonvec.evaluation.statistics import holm, wilson_interval
from reasonvec.report.notation import alpha_of

Group = Literal["donor", "target", "sweep", "control", "other"]
Outcome = Literal["gain", "loss", "unclear"]

GROUPS: tuple[Group, ...] = ("donor", "target", "sweep", "control", "other")
SIGNIFICANCE = 0.05
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Kind:
    """One kind of problem, or one benchmark."""

    name: str
    title: str
    description: str = ""
    example: str = ""
    seen_by_donors: bool | None = None
    """Whether the donors were fine-tuned on it; None where the results do not say."""
    seen_by_target: bool | None = None


@dataclass(frozen=True)
class Score:
    """How many problems of one kind one arm solved."""

    arm: str
    kind: str
    n: int
    correct: int
    alpha: float | None
    """The vector's scale for the target and its sweep; None for donors and controls."""
    group: Group
    answered: int | None = None
    """How many completions held an answer; None where the results do not say."""
    finished: int | None = None
    """How many completions ended before the length limit."""

    @property
    def accuracy(self) -> float | None:
        """Percent solved; None without problems, since an empty set has no accuracy."""
        return 100 * self.correct / self.n if self.n else None

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `accuracy`, in percent; everything is possible without problems."""
        if not self.n:
            return 0.0, 100.0
        interval = wilson_interval(self.correct, self.n)
        return 100 * interval.low, 100 * interval.high


@dataclass(frozen=True)
class Difference:
    """An arm minus its baseline on the same problems, in percentage points."""

    arm: str
    baseline: str
    kind: str
    n: int | None
    points: float
    low: float
    """Lower end of the 95 % interval of `points`."""
    high: float
    p: float
    """Exact McNemar p."""
    holm_p: float
    """`p` adjusted over all kinds that the arm and its baseline were compared on."""
    detectable: float | None = None
    """Points that eight of ten such studies would find; None where none, or the results do not say."""
    answered_p: float | None = None
    """Exact McNemar p of whether an answer was given at all."""
    answered_by_both: float | None = None
    """Points on the problems that both answered."""

    @property
    def outcome(self) -> Outcome:
        """By itself: a gain or a loss needs both, an interval that leaves out zero, and p below 0.05."""
        return self._outcome(self.p)

    @property
    def among_kinds(self) -> Outcome:
        """As one of the kinds of its table: the same with Holm's p. By `outcome` alone, every other table of ten kinds
        without any effect would hold a gain or a loss."""
        return self._outcome(self.holm_p)

    def _outcome(self, p: float) -> Outcome:
        if p >= SIGNIFICANCE or self.low <= 0 <= self.high:
            return "unclear"
        return "gain" if self.points > 0 else "loss"


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured, kinds in the order of the page: the target's own first."""

    kinds: tuple[Kind, ...]
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Arm names: donors, target, sweep by alpha, controls, the rest; in the order of the results otherwise."""
        first = {score.arm: score for score in reversed(self.scores)}
        names = dict.fromkeys(score.arm for score in self.scores)
        return tuple(sorted(names, key=lambda arm: (GROUPS.index(first[arm].group), first[arm].alpha or 0.0)))

    def score(self, arm: str, kind: str) -> Score | None:
        """The score of `arm` on `kind`, None where it was not measured."""
        return self._scores.get((arm, kind))

    def difference(self, arm: str, kind: str, baseline: str = "target") -> Difference | None:
        """The paired difference of `arm` against `baseline` on `kind`, None where it was not taken."""
        return self._differences.get((arm, baseline, kind))

    def sweep(self, kind: str) -> list[Score]:
        """The target with the vector at every alpha that was measured on `kind`, alpha ascending."""
        points = [score for score in self.scores if score.kind == kind and score.alpha is not None]
        return sorted(points, key=lambda score: score.alpha or 0.0)

    def arms_of(self, group: Group) -> list[str]:
        """The arms of one group, in page order."""
        return [arm for arm in self.arms if any(s.arm == arm and s.group == group for s in self.scores)]

    def arm_at(self, alpha: float) -> str | None:
        """The arm of the sweep whose alpha is the given one."""
        return next((s.arm for s in self.scores if s.group == "sweep" and s.alpha == alpha), None)

    @cached_property
    def enhanced(self) -> str | None:
        """The arm the page is about: alpha 1, or the positive alpha nearest to it."""
        added = {s.alpha: s.arm for s in self.scores if s.group == "sweep" and s.alpha is not None and s.alpha > 0}
        return added[min(added, key=lambda alpha: (abs(alpha - 1), alpha))] if added else None

    @cached_property
    def _scores(self) -> dict[tuple[str, str], Score]:
        return {(score.arm, score.kind): score for score in self.scores}

    @cached_property
    def _differences(self) -> dict[tuple[str, str, str], Difference]:
        return {(d.arm, d.baseline, d.kind): d for d in self.differences}


def read_measurements(results: Mapping[str, Any]) -> Measurements:
    """Read the results document; what an arm's entry leaves out (alpha, group) is derived from its name.

    Kinds that no entry of ``kinds`` describes are named by themselves. Raises KeyError or TypeError for a document
    that is not of this form.
    """
    arms: Sequence[Mapping[str, Any]] = results.get("arms") or ()
    described = [_kind(entry) for entry in results.get("kinds") or ()]
    known = {kind.name for kind in described}
    undescribed = dict.fromkeys(str(entry["kind"]) for entry in arms if str(entry["kind"]) not in known)
    kinds = [*described, *(Kind(name=name, title=name) for name in undescribed)]
    measured = {str(entry["kind"]) for entry in arms}
    return Measurements(
        kinds=tuple(sorted((k for k in kinds if k.name in measured), key=lambda kind: not kind.seen_by_target)),
        scores=tuple(_score(entry) for entry in arms),
        differences=tuple(_differences(results.get("differences") or ())),
    )


def _differences(entries: Sequence[Mapping[str, Any]]) -> Iterator[Difference]:
    tables: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        tables.setdefault((str(entry["arm"]), str(entry["baseline"])), []).append(float(entry["p"]))
    adjusted = {pair: iter(holm(p_values)) for pair, p_values in tables.items()}
    for entry in entries:
        yield _difference(entry, next(adjusted[str(entry["arm"]), str(entry["baseline"])]))


def _kind(entry: Mapping[str, Any]) -> Kind:
    return Kind(
        name=str(entry["name"]),
        title=str(entry.get("title") or entry["name"]),
        description=str(entry.get("description") or ""),
        example=str(entry.get("example") or ""),
        seen_by_donors=entry.get("seen_by_donors"),
        seen_by_target=entry.get("seen_by_target"),
    )


def _score(entry: Mapping[str, Any]) -> Score:
    arm = str(entry["arm"])
    stated = entry.get("alpha")
    alpha = alpha_of(arm) if stated is None else float(stated)
    stated_group = entry.get("group")
    group: Group = stated_group if stated_group in GROUPS else _group_of(arm)
    if group not in ("target", "sweep"):
        alpha = None  # a control may be scaled too, but it lies on no curve of this vector
    return Score(
        arm=arm,
        kind=str(entry["kind"]),
        n=int(entry["n"]),
        correct=int(entry["correct"]),
        alpha=alpha,
        group=group,
        answered=_optional(entry, "answered", int),
        finished=_optional(entry, "finished", int),
    )


def _group_of(arm: str) -> Group:
    if arm == "target":
        return "target"
    if arm in ("ancestor", "sft", "grpo"):
        return "donor"
    if alpha_of(arm) is not None:
        return "sweep"
    return "control" if arm.startswith(("random", "permuted")) else "other"


def _difference(entry: Mapping[str, Any], holm_p: float) -> Difference:
    return Difference(
        arm=str(entry["arm"]),
        baseline=str(entry["baseline"]),
        kind=str(entry["kind"]),
        n=_optional(entry, "n", int),
        points=float(entry["points"]),
        low=float(entry["low"]),
        high=float(entry["high"]),
        p=float(entry["p"]),
        holm_p=holm_p,
        detectable=_optional(entry, "detectable", float),
        answered_p=_optional(entry, "answered_p", float),
        answered_by_both=_optional(entry, "answered_by_both", float),
    )


def _optional(entry: Mapping[str, Any], name: str, kind: Callable[[Any], Number]) -> Number | None:
    value = entry.get(name)
    return None if value is None else kind(value)
