"""The rows of the page's tables, and where the marks of their interval drawings stand. Words are in template.html."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from reasonvec.report.measurements import Difference, Kind, Measurements, Outcome, Score
from reasonvec.report.notation import alpha_of, arm_label
from reasonvec.report.verdict import headline_kind

EXAMPLE_LIMIT = 12
"""Worked examples on the page; more would bury the figures."""

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Strip:
    """An interval drawn on an axis from -reach to +reach; positions in percent of its width."""

    zero: float
    low: float
    point: float
    high: float


@dataclass(frozen=True)
class DifferenceRow:
    """One comparison: what it is of, both scores, the difference and its drawing."""

    label: str
    kind: Kind
    before: Score | None
    after: Score | None
    difference: Difference
    outcome: Outcome
    """By itself, or as one of its table's kinds."""
    strip: Strip


@dataclass(frozen=True)
class DifferenceTable:
    """All kinds of problem for one arm against one baseline."""

    arm: str
    baseline: str
    title: str
    important: bool
    """Whether it is open when the page is."""
    rows: tuple[DifferenceRow, ...]

    def tally(self) -> dict[str, int]:
        """How many kinds gained, lost, or did not clearly change, each as one of so many."""
        outcomes = [row.outcome for row in self.rows]
        return {outcome: outcomes.count(outcome) for outcome in ("gain", "loss", "unclear")}


@dataclass(frozen=True)
class Answer:
    """One arm's completion for a worked example, in pieces that are marked where they differ from the target's."""

    label: str
    correct: bool | None
    pieces: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Example:
    """One problem with what the arms wrote: target and enhanced first, the others behind a fold."""

    kind: str
    problem: str
    gold: str
    answers: tuple[Answer, ...]
    others: tuple[Answer, ...]


def glance_rows(measurements: Measurements) -> list[DifferenceRow]:
    """The headline comparison beside its controls: vector added, subtracted, and each meaningless vector."""
    kind = headline_kind(measurements)
    if kind is None or measurements.enhanced is None:
        return []
    added, subtracted = measurements.enhanced, measurements.arm_at(-1.0)
    labels = {added: "Vector added", **({subtracted: "Vector subtracted"} if subtracted else {})}
    for arm in measurements.arms_of("control"):
        label = arm_label(arm)
        labels[arm] = label[:1].upper() + label[1:]
    found = [(label, measurements.difference(arm, kind.name)) for arm, label in labels.items()]
    taken = [(label, difference) for label, difference in found if difference]
    reach = reach_of(difference for _, difference in taken)
    return [_row(measurements, label, kind, difference, difference.outcome, reach) for label, difference in taken]


def difference_tables(measurements: Measurements) -> list[DifferenceTable]:
    """One table for each arm and baseline: the enhanced arm first, then subtracting, then the others in page order."""
    pairs = dict.fromkeys((d.arm, d.baseline) for d in measurements.differences)
    first = [(arm, "target") for arm in (measurements.enhanced, measurements.arm_at(-1.0)) if arm]
    ordered = [pair for pair in first if pair in pairs]
    place = {arm: index for index, arm in enumerate(measurements.arms)}
    rest = sorted((pair for pair in pairs if pair not in ordered), key=lambda pair: place.get(pair[0], len(place)))
    reach = reach_of(measurements.differences)
    return [
        _table(measurements, arm, baseline, reach, important=(arm, baseline) in first)
        for arm, baseline in (*ordered, *rest)
    ]


def reach_of(differences: Iterable[Difference]) -> float:
    """Half the width of an axis that holds every interval, rounded up to five points."""
    ends = [abs(end) for difference in differences for end in (difference.low, difference.high)]
    return max(5.0, -(-max(ends, default=0.0) // 5) * 5)


def strip(difference: Difference, reach: float) -> Strip:
    """Where zero, the estimate and its interval stand on an axis of ±`reach` points, in percent from the left."""

    def place(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / reach)), 2)

    return Strip(zero=50.0, low=place(difference.low), point=place(difference.points), high=place(difference.high))


def examples(measurements: Measurements, entries: Sequence[Mapping[str, Any]]) -> list[Example]:
    """The worked examples as the results give them, in their order, at most `EXAMPLE_LIMIT`."""
    titles = {kind.name: kind.title for kind in measurements.kinds}
    return [_example(entry, titles, measurements.enhanced) for entry in entries[:EXAMPLE_LIMIT]]


def changed_pieces(reference: str, text: str) -> tuple[tuple[str, bool], ...]:
    """`text` in pieces, each with whether it differs from `reference`; compared word by word."""
    old, new = _TOKEN.findall(reference), _TOKEN.findall(text)
    matcher = SequenceMatcher(a=old, b=new, autojunk=False)
    spans = [(tag != "equal", "".join(new[start:end])) for tag, _, _, start, end in matcher.get_opcodes()]
    return tuple((piece, changed) for changed, piece in spans if piece)


def _example(entry: Mapping[str, Any], titles: Mapping[str, str], enhanced: str | None) -> Example:
    completions: Mapping[str, str] = entry.get("completions") or {}
    correct: Mapping[str, bool] = entry.get("correct") or {}
    reference = completions.get("target")

    def answer(arm: str) -> Answer:
        text = str(completions[arm])
        pieces = ((text, False),) if reference is None or arm == "target" else changed_pieces(str(reference), text)
        return Answer(label=arm_label(arm), correct=correct.get(arm), pieces=pieces)

    main = [arm for arm in ("target", enhanced) if arm in completions]
    return Example(
        kind=titles.get(str(entry.get("kind")), str(entry.get("kind", ""))),
        problem=str(entry.get("problem", "")),
        gold=str(entry.get("gold", "")),
        answers=tuple(answer(arm) for arm in main if arm),
        others=tuple(answer(arm) for arm in completions if arm not in main),
    )


def _table(measurements: Measurements, arm: str, baseline: str, reach: float, *, important: bool) -> DifferenceTable:
    found = [(kind, measurements.difference(arm, kind.name, baseline)) for kind in measurements.kinds]
    rows = tuple(
        _row(measurements, kind.title, kind, difference, difference.among_kinds, reach)
        for kind, difference in found
        if difference
    )
    title = f"{_sentence_case(arm_label(arm))} against {arm_label(baseline)}"
    alpha = alpha_of(arm)
    if alpha in (1.0, -1.0):
        title += " (vector added, α = 1)" if alpha == 1 else " (vector subtracted, α = −1)"
    return DifferenceTable(arm=arm, baseline=baseline, title=title, important=important, rows=rows)


def _row(
    measurements: Measurements, label: str, kind: Kind, difference: Difference, outcome: Outcome, reach: float
) -> DifferenceRow:
    return DifferenceRow(
        label=label,
        kind=kind,
        before=measurements.score(difference.baseline, kind.name),
        after=measurements.score(difference.arm, kind.name),
        difference=difference,
        outcome=outcome,
        strip=strip(difference, reach),
    )


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
