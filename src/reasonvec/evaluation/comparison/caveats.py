"""What a difference may be mistaken for, in words: form, length, noise, another prompt. Computes nothing new."""

from collections.abc import Iterator
from statistics import fmean

from reasonvec.evaluation.comparison import guards
from reasonvec.evaluation.comparison.contrast import SIGNIFICANCE, Contrast

FEWEST_FLIPS = 6
"""With 5 flips, all one way, the exact p is still 2 / 2⁵ = 0.0625."""
NOISY_FROM = 0.85
"""Accuracy on GSM8K from which its wrong labels are a good part of what is left."""


def caveats(found: Contrast) -> Iterator[str]:
    """Every one that applies, as a sentence without its full stop."""
    yield from guards.warnings(found.arm, found.baseline)
    if found.role == "repeat":
        yield _repeated(found)
        return
    if found.arm.model != found.baseline.model and found.arm.wording != found.baseline.wording:
        yield (
            f"model and prompt both differ ({found.arm.asked}; {found.baseline.asked}), so the difference is that "
            f"of both together. Against the baseline with the same prompt it is the vector's alone"
        )
    yield from _overlap_warnings(found)
    yield from _form_warnings(found)
    for name, points in (("strict match", found.strict), ("flexible extraction", found.flexible)):
        if points is not None and points * found.difference.points < 0:
            yield (
                f"the harness's {name} says {points:+.1f} points where ours says {found.difference.points:+.1f}: read "
                f"some completions before believing either"
            )
    if found.role == "control":  # ranked all together: that one of them has few flips says nothing
        return
    flips = None if found.gained is None or found.lost is None else found.gained + found.lost
    if flips is not None and flips < FEWEST_FLIPS:
        yield f"problems that flipped: {flips}. Below {FEWEST_FLIPS} no result could have p < 0.05"
    yield from _level_warnings(found)
    if found.arm.unprompted:
        yield (
            "options were compared by their likelihood and nothing was written, so reasoning in writing had no place "
            "to show itself"
        )


def _repeated(found: Contrast) -> str:
    flips = sum(bool(value) for value in found.differences)
    if not flips:
        return "a repeat of the same arm: every verdict was the same again"
    return (
        f"a repeat of the same arm: {flips} of {found.n} problems came out differently with nothing changed. "
        f"Differences of that size need no cause"
    )


def _form_warnings(found: Contrast) -> Iterator[str]:
    both = found.answered_by_both
    if found.answered.p < SIGNIFICANCE:
        rest = f" On the {both.problems} problems where both gave one it is {both.points:+.1f} points" if both else ""
        yield (
            f"an answer was found in {found.answered.arm:.1%} of its completions and in {found.answered.baseline:.1%} "
            f"of the baseline's: part of the difference can be form.{rest}"
        )
    if found.cut_off and found.cut_off.p < SIGNIFICANCE:
        yield (
            f"{found.cut_off.arm:.1%} of its completions were cut off, and {found.cut_off.baseline:.1%} of the "
            f"baseline's: part of the difference can be length. Allow more new tokens"
        )


def _overlap_warnings(found: Contrast) -> Iterator[str]:
    """What the runs themselves say of training data that holds their problems."""
    records = [one.run.configuration.get("contamination") for one in (found.arm, found.baseline)]
    known = [record for record in records if isinstance(record, dict) and isinstance(record.get("overlapping"), int)]
    most = max((record["overlapping"] for record in known), default=0)
    if not most:
        return
    whole = {id for record in known if isinstance(record.get("ids"), list) for id in record["ids"] if type(id) is str}
    pairs = zip(found.baseline.problems, found.differences, strict=True)
    others = [difference for id, difference in pairs if id not in whole]
    rest = (
        f" Without those that stand there whole the difference is {100 * fmean(others):+.1f} points" if others else ""
    )
    yield (f"{most} of the {found.n} problems overlap training data, so that a gain may be memory.{rest}")


def _level_warnings(found: Contrast) -> Iterator[str]:
    levels = [fmean(outcome.correct for outcome in one.run.outcomes) for one in (found.arm, found.baseline)]
    if levels[1] in (0.0, 1.0):
        what = "nothing can be lost" if levels[1] == 0 else "nothing can be gained"
        yield f"the baseline got {'no' if levels[1] == 0 else 'every'} problem right, so {what}"
    if max(levels) >= NOISY_FROM and found.arm.setting.task.split("/")[0] == "gsm8k":
        yield (
            "some of GSM8K's gold answers are wrong or ambiguous (GSM8K-Platinum keeps 1,209 of 1,319 test problems), "
            "so much of what is left above 85 % is not reasoning"
        )
