"""The answer in plain words, worked out from the numbers: did the vector help, and is it more than luck or noise?

Everything is about one pre-arranged comparison: the enhanced arm against the target on the first of the target's own
kinds of problem. Nothing is picked for being large.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reasonvec.evaluation.statistics import rank_p
from reasonvec.report.measurements import SIGNIFICANCE, Difference, Kind, Measurements
from reasonvec.report.notation import p_value, percent, points, signed_alpha, span

Answer = Literal[
    "gain", "gain-mixed", "gain-unsure", "gain-like-controls", "gain-uncontrolled", "loss", "unclear", "unmeasured"
]


ENOUGH_CONTROLS = 19
"""The fewest controls of which the best of all is so by luck in 1 of 20 cases."""


@dataclass(frozen=True)
class Verdict:
    """The short answer."""

    answer: Answer
    headline: str
    """One sentence, without statistics."""
    findings: tuple[tuple[str, str], ...]
    """The numbers behind it in reading order, each with a word or two of what it is about."""


def verdict(measurements: Measurements) -> Verdict:
    """Answer whether adding the vector helped, from the paired differences alone."""
    enhanced = measurements.enhanced
    kind = headline_kind(measurements)
    change = measurements.difference(enhanced, kind.name) if enhanced and kind else None
    if enhanced is None or kind is None or change is None:
        missing = (
            "There is no paired difference between the target alone and the target with the vector added; "
            "only single accuracies can be shown."
        )
        return Verdict("unmeasured", "These results do not say whether the vector helped.", (("Missing", missing),))
    controls = control_differences(measurements, kind)
    answer = _answer(change, controls, losses=_sure_losses(measurements, enhanced))
    findings = (
        ("Added", _addition(measurements, enhanced, kind, change)),
        ("Controls", _comparison_with_controls(change, controls)),
        ("Form", _form(measurements, enhanced, kind, change)),
        ("Subtracted", _subtraction(measurements, kind, change)),
        ("Elsewhere", _breadth(measurements, enhanced)),
        ("A warning", _donor_warning(measurements)),
    )
    return Verdict(answer, _headline(answer, change), tuple((topic, text) for topic, text in findings if text))


def headline_kind(measurements: Measurements) -> Kind | None:
    """The kind of problem the answer is about: the first of the target's own, else the first one."""
    return measurements.kinds[0] if measurements.kinds else None


def control_differences(measurements: Measurements, kind: Kind) -> list[Difference]:
    """What the control vectors did to the target on `kind`."""
    found = (measurements.difference(arm, kind.name) for arm in measurements.arms_of("control"))
    return [difference for difference in found if difference]


def curve_summary(measurements: Measurements, kind: Kind) -> str:
    """The curve over alpha in one sentence: its two ends, the target, the enhanced arm."""
    sweep = [score for score in measurements.sweep(kind.name) if score.accuracy is not None]
    if not sweep:
        return ""
    enhanced = measurements.enhanced
    ends = (sweep[0], sweep[-1])
    told = [score for score in sweep if score in ends or score.arm in ("target", enhanced)]
    parts = [f"{percent(score.accuracy)} at {_alpha(score.alpha or 0)}" for score in told]
    return f"“{kind.title}” solved: {', '.join(parts)}."


def _sure_losses(measurements: Measurements, enhanced: str) -> int:
    """On how many kinds the enhanced arm lost even after Holm's correction for having looked at all of them.

    Uncorrected, ten kinds would show a spurious loss in every fifth study, too often for a headline.
    """
    found = (measurements.difference(enhanced, kind.name) for kind in measurements.kinds)
    return sum(difference.among_kinds == "loss" for difference in found if difference)


def _answer(change: Difference, controls: Sequence[Difference], *, losses: int) -> Answer:
    if change.outcome != "gain":
        return change.outcome
    if not controls:
        return "gain-uncontrolled"
    most = max(control.points for control in controls)
    if change.points <= most:
        return "gain-like-controls"
    if change.low <= most:
        return "gain-unsure"
    return "gain-mixed" if losses else "gain"


def _headline(answer: Answer, change: Difference) -> str:
    size = f"about {round(abs(change.points))}" if abs(change.points) >= 1 else "less than one"
    more = f"{size} more problems in every hundred were solved"
    return {
        "gain": f"Yes, it helped: with the vector, {more}.",
        "gain-mixed": f"It helped here and hurt elsewhere: {more}, but other kinds of problem got worse.",
        "gain-unsure": f"It probably helped: {more}, but meaningless vectors did not do clearly less.",
        "gain-like-controls": f"It cannot be told: {more}, but a meaningless vector did as much.",
        "gain-uncontrolled": f"It rose: {more}. Without a meaningless vector beside it, the cause stays open.",
        "loss": f"No, it hurt: with the vector, {size} fewer problems in every hundred were solved.",
        "unclear": "No clear effect: the change is small enough to be luck.",
        "unmeasured": "",
    }[answer]


def _addition(measurements: Measurements, enhanced: str, kind: Kind, change: Difference) -> str:
    before, after = measurements.score("target", kind.name), measurements.score(enhanced, kind.name)
    alpha = after.alpha if after else None
    amount = f"in full ({_alpha(1)})" if alpha == 1 else f"at {_alpha(alpha)}" if alpha else ""
    problems = f" of {change.n} problems" if change.n else ""
    own = ", the target’s own kind of problem" if kind.seen_by_target else ""
    luck = "may well be luck" if change.outcome == "unclear" else "is hard to explain by luck"
    return (
        f"On “{kind.title}”{own}, the target alone solved {percent(before.accuracy if before else None)}{problems}, "
        f"and {percent(after.accuracy if after else None)} with the vector added {amount}. "
        f"That change of {points(change.points)} points {luck} ({_evidence(change)}).{_could_see(change)}"
    )


def _could_see(change: Difference) -> str:
    """What a result that is not clear leaves open."""
    if change.outcome != "unclear" or change.detectable is None:
        return ""
    return (
        f" A true change of {change.detectable:.1f} points would have been found in 8 of 10 measurements like this "
        "one; a smaller one may be there and have been missed."
    )


def _comparison_with_controls(change: Difference, controls: Sequence[Difference]) -> str:
    if not controls:
        return (
            "No random or shuffled vectors were measured, so nothing here tells the effect of this vector from that "
            "of any disturbance of the same size."
        )
    least, most = min(c.points for c in controls), max(c.points for c in controls)
    moved = points(most) if points(least) == points(most) else f"{points(least)} to {points(most)}"
    number = "A meaningless vector" if len(controls) == 1 else f"{_in_words(len(controls))} meaningless vectors"
    measured = f"{number} of the same size (random, or this one shuffled) changed the result by {moved} points"
    if change.outcome != "gain":
        return f"{measured}."
    rank = _rank(change, controls)
    if change.low > most:
        return (
            f"{measured}; even the low end of the real vector’s interval is above that. What it carries matters.{rank}"
        )
    if change.points > most:
        return f"{measured}; the real vector did more, but the low end of its interval reaches that far down.{rank}"
    return f"{measured}; the real vector did no more, so what it carries cannot be what helped.{rank}"


def _rank(change: Difference, controls: Sequence[Difference]) -> str:
    total = len(controls) + 1
    place = round(total * rank_p(change.points, [control.points for control in controls]))
    few = f"; it takes {ENOUGH_CONTROLS} controls to make that 1 of 20" if len(controls) < ENOUGH_CONTROLS else ""
    return f" Among these {total} vectors it is number {place}, as luck alone gives in {place} of {total} cases{few}."


def _form(measurements: Measurements, enhanced: str, kind: Kind, change: Difference) -> str:
    """Whether the change can be one of the answer's form or length: a vector may do that without any reasoning."""
    before, after = measurements.score("target", kind.name), measurements.score(enhanced, kind.name)
    if not before or not after or before.answered is None or after.answered is None or not before.n or not after.n:
        return ""
    told = (
        f"An answer could be read off {percent(100 * before.answered / before.n)} of what the target wrote, and off "
        f"{percent(100 * after.answered / after.n)} of what it wrote with the vector"
    )
    if before.finished is not None and after.finished is not None:
        cut = [percent(100 * (1 - score.finished / score.n)) for score in (before, after) if score.finished is not None]
        told += f"; {cut[0]} and {cut[1]} ran into the length limit"
    if change.answered_p is None or change.answered_p >= SIGNIFICANCE:
        return f"{told}. So the change is not one of form alone." if change.outcome != "unclear" else f"{told}."
    rest = (
        ""
        if change.answered_by_both is None
        else (f": on the problems that both answered it is {points(change.answered_by_both)} points")
    )
    return f"{told}. Part of the change can be form rather than reasoning{rest}."


def _subtraction(measurements: Measurements, kind: Kind, added: Difference) -> str:
    """What subtracting did, read against what adding did: a direction that matters has opposite effects."""
    arm = measurements.arm_at(-1.0)
    change = measurements.difference(arm, kind.name) if arm else None
    if change is None:
        return ""
    if change.outcome == "unclear":
        said = f"made no clear difference: {points(change.points)} points ({_evidence(change)})"
    else:
        also = "also " if change.outcome == added.outcome else ""
        verb = "gained" if change.outcome == "gain" else "cost"
        said = f"{also}{verb} {abs(change.points):.1f} points ({_evidence(change)})"
    meaning = {
        ("gain", "gain"): ", which speaks against a meaningful direction",
        ("loss", "loss"): ": either way the target is disturbed",
        ("loss", "gain"): ": the direction matters, but for this target it points the wrong way",
    }.get((added.outcome, change.outcome), "")
    return f"Taking the vector away from the target instead {said}{meaning}."


def _breadth(measurements: Measurements, enhanced: str) -> str:
    taken = [(kind, measurements.difference(enhanced, kind.name)) for kind in measurements.kinds]
    measured = [(kind, difference) for kind, difference in taken if difference]
    if len(measured) < 2:
        return ""
    outcomes = [difference.among_kinds for _, difference in measured]
    sentence = (
        f"Over all {len(measured)} kinds of problem there is a gain on {outcomes.count('gain')}, a loss on "
        f"{outcomes.count('loss')}, and no clear change on {outcomes.count('unclear')}."
    )
    unseen = [difference.among_kinds for kind, difference in measured if kind.seen_by_donors is False]
    if not unseen:
        return sentence
    return (
        f"{sentence} Of the {len(unseen)} kinds that the donors were not fine-tuned on, {unseen.count('gain')} gained."
    )


def _donor_warning(measurements: Measurements) -> str:
    """Said where reinforcement learning did not improve its own donor, so that v has nothing to carry."""
    for kind in measurements.kinds:
        grpo, sft = measurements.score("grpo", kind.name), measurements.score("sft", kind.name)
        if not kind.seen_by_donors or not grpo or not sft or grpo.accuracy is None or sft.accuracy is None:
            continue
        if grpo.accuracy > sft.accuracy:
            return ""
        return (
            f"Reinforcement learning did not improve its own donor: {percent(sft.accuracy)} before, "
            f"{percent(grpo.accuracy)} after, on “{kind.title}”. There was little for the vector to carry."
        )
    return ""


def _evidence(change: Difference) -> str:
    return f"95\u00a0% interval {span(change.low, change.high)}, {p_value(change.p)}"


def _alpha(alpha: float) -> str:
    return f"α\u00a0=\u00a0{signed_alpha(alpha)}"


def _in_words(number: int) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[number] if number < len(words) else str(number)
