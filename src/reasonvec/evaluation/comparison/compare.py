"""Runs in, evidence out: what is compared with what, what is refused, and what a family of comparisons shows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reasonvec.errors import RunError
from reasonvec.evaluation.comparison import guards
from reasonvec.evaluation.comparison.arms import Arm, Setting, read_arms
from reasonvec.evaluation.comparison.caveats import caveats
from reasonvec.evaluation.comparison.contrast import Contrast, Role, contrast
from reasonvec.evaluation.comparison.robustness import Robustness, pooled, robustness, share
from reasonvec.evaluation.comparison.summary import RunSummary, summarise
from reasonvec.evaluation.runs import find_runs, load_run
from reasonvec.evaluation.statistics import best_of_optimism, holm, rank_p

_ANOTHER_ANSWER = ("shuffle-all", "premise")
"""Perturbations after which the gold answer may be another one, so that a difference there is not robustness."""


@dataclass(frozen=True)
class Rank:
    """A vector among vectors that carry nothing, added to the same checkpoint at the same alpha."""

    arm: str
    controls: int
    as_good: int
    """How many controls did at least as well; for a negative alpha, at least as much harm."""
    p: float

    def to_json(self) -> dict[str, Any]:
        return {"arm": self.arm, "controls": self.controls, "as_good": self.as_good, "p": self.p}


@dataclass(frozen=True)
class Sweep:
    """Several alphas above 0 of one vector on the same problems."""

    vector: str
    prompt: str
    alphas: int
    best: str
    """Name of the best arm."""
    points: float
    """Its difference."""
    optimism: float
    """Points that the best of so many would show on average if none had an effect."""

    def to_json(self) -> dict[str, Any]:
        return {
            "vector": self.vector,
            "prompt": self.prompt,
            "alphas": self.alphas,
            "best": self.best,
            "points": self.points,
            "optimism": self.optimism,
        }


@dataclass(frozen=True)
class Table:
    """All that was measured on one set of problems."""

    setting: Setting
    arms: tuple[tuple[Arm, RunSummary], ...]
    """The baseline first."""
    baseline: Arm | None
    contrasts: tuple[Contrast, ...]
    ranks: tuple[Rank, ...]
    sweeps: tuple[Sweep, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.setting.to_json(),
            "title": self.setting.title,
            "applies_to": share(self.arms[0][0].applied),
            "baseline": self.baseline.name if self.baseline else None,
            "arms": [{**arm.to_json(), "summary": summary.to_json()} for arm, summary in self.arms],
            "differences": [found.to_json() for found in self.contrasts],
            "ranks": [found.to_json() for found in self.ranks],
            "sweeps": [found.to_json() for found in self.sweeps],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class RunComparison:
    """What a set of runs shows."""

    tables: tuple[Table, ...]
    robustness: tuple[Robustness, ...]
    family: int
    """Comparisons that Holm's adjustment is over."""
    seed: int

    def to_json(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "seed": self.seed,
            "benchmarks": [table.to_json() for table in self.tables],
            "robustness": [found.to_json() for found in self.robustness],
        }


def compare_runs(
    paths: Sequence[Path],
    *,
    baseline: Path | None = None,
    seed: int = 0,
) -> RunComparison:
    """Compare the runs at `paths`, or in these directories, with the baseline's arm on every benchmark.

    `baseline` names a run of that arm; without it the one arm without a vector and with the plain prompt is taken, if
    there is one. `seed` reaches every bootstrap and sampled sign flip. Raises RunError that lists every reason why runs
    cannot be compared: unfinished, on other problems, sampled otherwise.
    """
    arms, named = _read(paths, baseline)
    settings: dict[Setting, list[Arm]] = {}
    for arm in arms:
        settings.setdefault(arm.setting, []).append(arm)
    chosen = {setting: _baseline(found, named) for setting, found in settings.items()}
    _refuse(settings, {setting: found for setting, (found, _) in chosen.items()}, arms, named)
    tables = [_table(setting, found, *chosen[setting], seed) for setting, found in settings.items()]
    tables = [*_adjusted(sorted(tables, key=lambda table: (table.setting.task, table.setting.title)))]
    tables, robust = _robustness(tables, seed)
    family = sum(found.holm_p is not None for table in tables for found in table.contrasts)
    return RunComparison(tuple(tables), tuple(robust), family, seed)


def _read(paths: Sequence[Path], baseline: Path | None) -> tuple[list[Arm], Arm | None]:
    places = [place for path in paths for place in find_runs(path)]
    if baseline is not None:
        places = [*find_runs(baseline)[:1], *places]
        if places[0].resolve() != baseline.resolve():
            raise RunError(f"{baseline} is a directory of runs, and one run is the baseline. Name that run.")
    unique = {place.resolve(): place for place in reversed(places)}
    ordered = [place for place in dict.fromkeys(places) if unique[place.resolve()] == place]
    arms = read_arms([load_run(place) for place in ordered])
    return arms, arms[0] if baseline is not None else None


def _baseline(arms: Sequence[Arm], named: Arm | None) -> tuple[Arm | None, str | None]:
    """The baseline among the arms of one setting, and what is to be said where there is none."""
    if named:
        same = [arm for arm in arms if arm.model == named.model and (arm.wording == named.wording or arm.unprompted)]
        return (named if named in same else same[0] if same else None), None
    plain = [arm for arm in arms if arm.bare and arm.control is None and arm.plain]
    targets = {arm.target for arm in arms if not arm.bare}
    candidates = [arm for arm in plain if arm.checkpoint in targets] or plain
    if len(arms) > 1 and len({(arm.model, arm.wording) for arm in candidates}) != 1:
        could = (
            f"{', '.join(arm.name for arm in candidates)} could each be it"
            if candidates
            else ("no run has no vector and the plain prompt")
        )
        return None, f"no differences, for want of a baseline: {could}. Name one by --baseline"
    return (candidates[0] if len(arms) > 1 else None), None


def _refuse(
    settings: Mapping[Setting, Sequence[Arm]],
    baselines: Mapping[Setting, Arm | None],
    arms: Sequence[Arm],
    named: Arm | None,
) -> None:
    """Raise RunError with everything that stands against the comparison."""
    findings = list(guards.unfinished(arms))
    for setting, found in settings.items():
        reference = baselines[setting] or found[0]
        if named and not baselines[setting]:
            findings.append(
                f"{setting.title} was not measured with the baseline's arm ({named.name}): measure it there, or "
                f"leave out {', '.join(str(arm.run.path) for arm in found)}"
            )
        for arm in found:
            if arm is not reference:
                findings += guards.refusals(arm, reference)
    if findings:
        listed = "\n".join(f"  {finding}." for finding in findings)
        raise RunError(
            f"These runs cannot be compared, for {len(findings)} reason{'s' * (len(findings) > 1)}; a difference of "
            f"theirs would not be the arms':\n{listed}"
        )


def _table(
    setting: Setting,
    arms: Sequence[Arm],
    baseline: Arm | None,
    note: str | None,
    seed: int,
) -> Table:
    def place(arm: Arm) -> tuple[Any, ...]:
        return (
            arm is not baseline,
            arm.control is not None,
            not arm.bare,
            arm.prompt,
            arm.alpha or 0.0,
            _natural(arm.name),
        )

    ordered = sorted(arms, key=place)
    contrasts = []
    for arm, reference, role in _pairs(ordered, baseline):
        found = contrast(arm, reference, role, seed=seed)
        contrasts.append(replace(found, caveats=tuple(caveats(found))))
    return Table(
        setting=setting,
        arms=tuple((arm, summarise(arm.run)) for arm in ordered),
        baseline=baseline,
        contrasts=tuple(contrasts),
        ranks=tuple(_ranks(contrasts)),
        sweeps=tuple(_sweeps(contrasts, seed)),
        notes=tuple(_notes(setting, note, ordered[0].run.configuration["benchmark"].get("limit"))),
    )


def _natural(name: str) -> list[tuple[str, int]]:
    """To sort random-2 before random-10."""
    return [(words, int(digits or 0)) for words, digits in re.findall(r"([^0-9]*)([0-9]*)", name)]


def _pairs(arms: Sequence[Arm], baseline: Arm | None) -> Iterator[tuple[Arm, Arm, Role]]:
    """What is compared with what: each arm with the baseline, under another prompt first with the baseline's model
    under that prompt; a run of the same arm with the first."""
    firsts: dict[tuple[str, str], Arm] = {}
    for arm in arms:
        firsts.setdefault((arm.model, arm.wording), arm)
    for (_, wording), arm in firsts.items():
        if baseline is None or arm is baseline:
            continue
        alike = firsts.get((baseline.model, wording), baseline)
        role: Role = "control" if arm.control else "exploratory" if arm.setting.part == "dev" else "confirmatory"
        if alike not in (arm, baseline):
            yield arm, alike, role
        if alike in (arm, baseline) or not arm.control:
            yield arm, baseline, role
    for arm in arms:
        first = firsts[arm.model, arm.wording]
        if first is not arm:
            yield arm, first, "repeat"


def _adjusted(tables: Sequence[Table]) -> Iterator[Table]:
    """With Holm's p for every confirmatory contrast of all tables."""
    members = [found.p for table in tables for found in table.contrasts if found.role == "confirmatory"]
    adjusted = iter(holm(members))
    for table in tables:
        yield replace(
            table,
            contrasts=tuple(
                replace(found, holm_p=next(adjusted)) if found.role == "confirmatory" else found
                for found in table.contrasts
            ),
        )


def _ranks(contrasts: Sequence[Contrast]) -> Iterator[Rank]:
    def place(found: Contrast) -> tuple[Any, ...]:
        return found.arm.target, found.arm.alpha, found.arm.wording, found.baseline.name

    for found in contrasts:
        if found.role not in ("confirmatory", "exploratory") or found.arm.bare:
            continue
        direction = -1.0 if (found.arm.alpha or 0.0) < 0 else 1.0
        controls = [
            direction * other.difference.points
            for other in contrasts
            if other.role == "control" and place(other) == place(found)
        ]
        real = direction * found.difference.points
        if controls:
            as_good = sum(control >= real for control in controls)
            yield Rank(found.arm.name, len(controls), as_good, rank_p(real, controls))


def _sweeps(contrasts: Sequence[Contrast], seed: int) -> Iterator[Sweep]:
    groups: dict[tuple[Any, ...], list[Contrast]] = {}
    for found in contrasts:
        # below 0 a vector is asked to do harm: nobody would choose that alpha
        if found.role in ("confirmatory", "exploratory") and (found.arm.alpha or 0.0) > 0 and not found.arm.bare:
            key = (found.arm.target, found.arm.vector, found.arm.wording, found.baseline.name)
            groups.setdefault(key, []).append(found)
    for members in groups.values():
        if len(members) > 1:
            best = max(members, key=lambda found: found.difference.points)
            optimism = 100 * best_of_optimism([found.differences for found in members], seed=seed)
            yield Sweep(
                vector=best.arm.vector or "",
                prompt=best.arm.prompt,
                alphas=len(members),
                best=best.arm.name,
                points=best.difference.points,
                optimism=optimism,
            )


def _notes(setting: Setting, note: str | None, limit: object) -> Iterator[str]:
    if note:
        yield note
    if limit is not None:
        yield f"at most {limit} problems of each task were measured, not the whole benchmark"
    if setting.part == "dev":
        yield "the dev part is exploratory, so there is no Holm's p; confirm on the test part what is chosen here"
    if setting.operator in _ANOTHER_ANSWER and setting.changed:
        yield f"{setting.operator} may change the right answer, so this is no measure of robustness"


def _robustness(tables: Sequence[Table], seed: int) -> tuple[list[Table], list[Robustness]]:
    """Every contrast on changed problems against the same one on those problems unchanged."""
    found: dict[tuple[str, str, str], list[Robustness]] = {}
    told = []
    findings: list[str] = []
    for table in tables:
        if not table.setting.changed or table.setting.operator in _ANOTHER_ANSWER:
            told.append(table)
            continue
        missing: list[str] = []
        lacking: dict[str, int] = {}
        for changed in table.contrasts:
            if changed.role not in ("confirmatory", "exploratory"):
                continue
            unchanged = _unchanged(changed, tables)
            clean = next((other for other in unchanged if not _absent(changed, other)), None)
            if clean is None and unchanged:
                lacking[changed.arm.name] = min(_absent(changed, other) for other in unchanged)
                continue
            if clean is None:
                missing.append(changed.arm.name)
                continue
            findings += guards.sampling_refusals(changed.arm, clean.arm)
            same = (table.setting.task, _identity(changed.arm), _identity(changed.baseline))
            found.setdefault(same, []).append(robustness(changed, clean, seed=seed))
        told.append(replace(table, notes=(*table.notes, *_want_of_unchanged(missing, lacking))))
    if findings:
        listed = "\n".join(f"  {finding}." for finding in findings)
        raise RunError(f"Changed and unchanged problems were not measured alike:\n{listed}")
    rows = [row for members in found.values() for row in members]
    adjusted = iter(holm([row.p for row in rows]))
    rows = []
    for members in found.values():
        arm, baseline = members[0].arm, members[0].baseline  # elsewhere the same two may be in other directories
        rows += [replace(row, arm=arm, baseline=baseline, holm_p=next(adjusted)) for row in members]
        if len(members) > 1:
            rows.append(pooled(members, seed=seed))
    return told, rows


def _want_of_unchanged(missing: Sequence[str], lacking: Mapping[str, int]) -> Iterator[str]:
    """Why arms have no difference in differences: not measured on unchanged problems, or not on all that it takes."""
    if missing:
        yield (
            f"no difference in differences for {', '.join(missing)}: measure arm and baseline on the same problems "
            f"unchanged too (reasonvec perturb ... --severity 0 writes them)"
        )
    if lacking:
        yield (
            f"no difference in differences for {', '.join(lacking)}: of these problems {max(lacking.values())} were "
            f"not measured unchanged. A limit, or a file of another severity, holds others: measure arm and baseline "
            f"on all of the benchmark unchanged"
        )


def _unchanged(changed: Contrast, tables: Sequence[Table]) -> list[Contrast]:
    """The same contrast on problems as they are; on the whole benchmark before on a file."""
    return [
        other
        for table in sorted(tables, key=lambda table: table.setting.operator is not None)
        if table.setting.task == changed.arm.setting.task and not table.setting.changed
        for other in table.contrasts
        if other.role in ("confirmatory", "exploratory")
        if _identity(other.arm) == _identity(changed.arm) and _identity(other.baseline) == _identity(changed.baseline)
    ]


def _absent(changed: Contrast, clean: Contrast) -> int:
    """How many problems of `changed` are not among those of `clean`."""
    return len(changed.baseline.problems.keys() - clean.baseline.problems.keys())


def _identity(arm: Arm) -> str:
    return f"{arm.model} {arm.wording}"
