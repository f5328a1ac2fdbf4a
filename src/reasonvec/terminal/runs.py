"""What runs show, for people: one by itself, several beside each other. Numbers are explained in docs/evaluation.md."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from reasonvec.evaluation.comparison import RunComparison, RunSummary
from reasonvec.evaluation.comparison.arms import Arm
from reasonvec.evaluation.comparison.compare import Rank, Sweep, Table
from reasonvec.evaluation.comparison.contrast import Contrast, Points
from reasonvec.evaluation.comparison.robustness import Robustness, share
from reasonvec.evaluation.comparison.summary import Score
from reasonvec.evaluation.statistics import Interval
from reasonvec.terminal.parts import facts, percent, safe, table

ENOUGH_CONTROLS = 19
"""The fewest of which a rank p can be 0.05."""
_TITLES: dict[str, str] = {
    "confirmatory": "against {}",
    "exploratory": "against {}: exploratory",
    "control": "controls, against {}",
    "repeat": "repeats, against {}",
}


def run_summary(summary: RunSummary, *, applied: tuple[int, int] | None = None) -> RenderableType:
    """Accuracy with its interval, what was answered and how long, and a row for each task where there are several.

    `applied` are the problems, of how many, that the operator applies to which changed these.
    """
    each = f", {summary.samples} completions each" if summary.samples > 1 else ""
    part = f"; the operator {applies_to(applied)}" if applied else ""
    rows = [("problems", f"{summary.problems:,}{each}{part}"), ("right", _score(summary.accuracy))]
    rows += [(f"pass@{k}", _score(score)) for k, score in summary.pass_at.items()]
    if summary.macro:
        rows.append(("mean of tasks", _score(summary.macro)))
    others = (
        ("harness's strict match", summary.strict),
        ("harness's flexible", summary.flexible),
        ("per byte", summary.normalised),
    )
    rows += [(name, _score(score)) for name, score in others if score]
    rows.append(("answered", f"{percent(summary.answered)} of the completions hold an answer"))
    if summary.cut_off is not None:
        rows.append(("cut off", f"{percent(summary.cut_off)} at the limit of new tokens; {summary.empty:,} are empty"))
    if summary.mean_tokens is not None:
        rows.append(("tokens", f"{summary.mean_tokens:.0f} on average, median {summary.median_tokens:.0f}"))
    parts: list[RenderableType] = [facts(rows)]
    if summary.tasks:
        tasks = table("task", "problems", "right", "95 % interval")
        for name, task in summary.tasks.items():
            tasks.add_row(Text(safe(name)), f"{task.problems:,}", percent(task.accuracy.value), _ends(task.accuracy))
        parts.append(tasks)
    return Group(*parts)


def applies_to(applied: tuple[int, int]) -> str:
    return f"applies to {applied[0]:,} of {applied[1]:,} ({percent(share(applied))})"


def run_comparison(comparison: RunComparison) -> RenderableType:
    """For every benchmark its arms and their differences; then whether these hold where problems were changed."""
    alone = len(comparison.tables) == 1
    parts: list[RenderableType] = [part for found in comparison.tables for part in _benchmark(found, alone=alone)]
    together: dict[tuple[str, str, str], list[Robustness]] = {}
    for row in comparison.robustness:
        together.setdefault((row.changed[0].task, row.arm, row.baseline), []).append(row)
    for rows in together.values():
        parts += ["", _robustness(rows)]
    if legend := _legend(comparison):
        parts.append(_prose(legend))
    return Group(*parts)


def _legend(comparison: RunComparison) -> str:
    """What the two columns mean whose names do not say it."""
    said = []
    if comparison.family:
        family = f"the {comparison.family} comparisons" if comparison.family > 1 else "the one comparison"
        said.append(f"Holm's p is over {family} of this call, without controls, repeats and dev parts.")
    if comparison.robustness:
        said.append("Where changed problems are held against unchanged ones it is over those rows.")
        said.append('"Of all" is the share of the problems that the operator applies to.')
    clear = [found.clear for table in comparison.tables for found in table.contrasts]
    if not all(clear + [row.clear for row in comparison.robustness]):
        said.append(
            '"Could see" stands beside a difference that is not clear: the smallest, in points, that 80 of 100 such '
            'studies would find; "none" where too few problems flipped to find any.'
        )
    return " ".join(said)


def _benchmark(found: Table, *, alone: bool) -> Iterator[RenderableType]:
    """The arms; a table of differences for each baseline and role, with what is to be said of them; then the rest."""
    yield ""
    yield _arms(found)
    groups: dict[tuple[Arm, str], list[Contrast]] = {}
    for contrast in found.contrasts:
        groups.setdefault((contrast.baseline, contrast.role), []).append(contrast)
    for (baseline, role), members in groups.items():
        yield _differences(_TITLES[role].format(safe(baseline.name)), members)
        if said := list(_said(members)):
            yield from (*said, "")
    dev = found.setting.part == "dev"
    for remark in (*map(_rank, found.ranks), *(_sweep(sweep, dev=dev) for sweep in found.sweeps), *found.notes):
        yield _remark(remark)
    if len(found.arms) == 1 and not alone:
        yield _remark("the only run on these problems, so there is nothing to compare it with")


def _said(contrasts: Sequence[Contrast]) -> Iterator[RenderableType]:
    said = [(contrast, caveat) for contrast in contrasts for caveat in contrast.caveats]
    for caveat in dict.fromkeys(caveat for _, caveat in said):
        names = dict.fromkeys(contrast.arm.name for contrast, other in said if other == caveat)
        yield _remark(f"{', '.join(names)}: {caveat}")
    for contrast in contrasts:
        if contrast.macro and contrast.role != "repeat":
            yield _remark(
                f"{contrast.arm.name}: the mean of its {len(contrast.tasks)} tasks' differences is "
                f"{_points(contrast.macro)}"
            )


def _arms(found: Table) -> RichTable:
    problems = found.arms[0][1].problems
    samples = found.arms[0][1].samples
    each = f", {samples} completions each" if samples > 1 else ""
    limit = found.arms[0][0].run.configuration["benchmark"].get("limit")
    limited = f" (--limit {limit})" if isinstance(limit, int) else ""
    applied = found.arms[0][0].applied
    part = f"; the operator {applies_to(applied)}" if applied else ""
    shown = table("arm", "prompt", "alpha", "right", "95 % interval", "answered", "cut off", "tokens",
                  title=safe(f"{found.setting.title}: {problems:,} problems{limited}{each}{part}"))  # fmt: skip
    wordings = {(arm.prompt, arm.wording) for arm, _ in found.arms}
    told = len(wordings) == len({prompt for prompt, _ in wordings})  # whether the names tell the prompts apart
    for arm, summary in found.arms:
        shown.add_row(
            Text(safe(arm.name)),
            Text(safe(arm.prompt if told else arm.asked)),
            "–" if arm.alpha is None else f"{arm.alpha:g}",
            percent(summary.accuracy.value),
            _ends(summary.accuracy),
            percent(summary.answered),
            percent(summary.cut_off),
            "–" if summary.mean_tokens is None else f"{summary.mean_tokens:.0f}",
        )
    return _folding(shown)


def _differences(title: str, contrasts: Sequence[Contrast]) -> RichTable:
    family = any(contrast.holm_p is not None for contrast in contrasts)
    adjusted = ["Holm's p"] * family
    shown = table("arm", "points", "95 % interval", "gained", "lost", "p", *adjusted, "could\nsee", title=title)
    for contrast in contrasts:
        shown.add_row(
            Text(safe(contrast.arm.name)),
            f"{contrast.difference.points:+.1f}",
            _reach(contrast.difference.interval),
            "–" if contrast.gained is None else f"{contrast.gained:,}",
            "–" if contrast.lost is None else f"{contrast.lost:,}",
            _p(contrast.p),
            *([] if contrast.holm_p is None else [_p(contrast.holm_p)]),
            _could_see(contrast.clear, contrast.detectable),
            style="bold" if contrast.clear and contrast.role == "confirmatory" else None,
        )
    return _folding(shown)


def _robustness(rows: Sequence[Robustness]) -> RichTable:
    first = rows[0]
    arms = f"{first.arm} against {first.baseline}"
    title = f"{first.changed[0].task}, {arms}: points on changed problems, and on the same ones unchanged"
    shown = table("operator", "n", "of\nall", "changed", "clean", "change", "95 % interval", "Holm's p", "could\nsee",
                  title=safe(title))  # fmt: skip
    for row in rows:
        setting = row.changed[0]
        where = f"{setting.operator} {setting.severity}" if len(row.changed) == 1 else f"all {len(row.changed)}"
        shown.add_row(
            Text(safe(where)),
            f"{row.n:,}",
            percent(share(row.applied), 0),
            f"{row.changed_points:+.1f}",
            f"{row.clean_points:+.1f}",
            f"{row.difference.points:+.1f}",
            _reach(row.difference.interval),
            f"p {_p(row.p)}" if row.holm_p is None else _p(row.holm_p),
            _could_see(row.clear, row.detectable),
        )
    return _folding(shown)


def _rank(found: Rank) -> str:
    enough = (
        ""
        if found.controls >= ENOUGH_CONTROLS
        else f". With {found.controls} the rank p cannot be below {1 / (found.controls + 1):.2g}: for 0.05 it takes "
        f"{ENOUGH_CONTROLS}"
    )
    return (
        f"{found.arm}: {found.as_good} of {found.controls} vectors that carry nothing did as much or more; rank p "
        f"{_p(found.p)}{enough}"
    )


def _sweep(found: Sweep, *, dev: bool) -> str:
    advice = "" if dev else ": choose alpha on other problems than these"
    return (
        f"{found.best} is the best of {found.alphas} alphas, {found.points:+.1f} points. The best of so many would "
        f"show {found.optimism:+.1f} on average if none had an effect{advice}"
    )


def _score(score: Score) -> str:
    return f"{percent(score.value)}, 95 % interval {_ends(score)}"


def _ends(score: Score) -> str:
    return f"{100 * score.low:.1f} to {percent(score.high)}"


def _points(points: Points) -> str:
    return f"{points.points:+.1f} points ({_reach(points.interval)})"


def _reach(interval: Interval | None) -> str:
    return f"{interval.low:+.1f} to {interval.high:+.1f}" if interval else "–"


def _p(p: float) -> str:
    return "<0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.095 else f"{p:.2f}"


def _could_see(clear: bool, detectable: float | None) -> str:
    if clear:
        return ""
    return "none" if detectable is None else f"{detectable:.1f}"


def _folding(shown: RichTable) -> RichTable:
    shown.columns[0].no_wrap, shown.columns[0].overflow = False, "fold"
    return shown


def _remark(text: str) -> RenderableType:
    return Padding(Text(f"• {safe(text)}."), (0, 0, 0, 2))


def _prose(text: str) -> RenderableType:
    return Padding(Text(text, style="dim"), (1, 0, 0, 0))
