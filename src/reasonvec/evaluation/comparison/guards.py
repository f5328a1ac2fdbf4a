"""What must not be compared, and what may be with a warning. Finds everything; raises and prints nothing."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from reasonvec.evaluation.comparison.arms import Arm

SAME_PROBLEMS = (("benchmark", "limit"), ("benchmark", "split"), ("benchmark", "problems_sha256"))
SAME_SAMPLING = (("sampling", "samples"), ("sampling", "temperature"), ("sampling", "max_new_tokens"),
                 ("engine", "name"), ("engine", "dtype"))  # fmt: skip
"""Any of them changes accuracy by itself. What else is said of the engine, such as its device and batch size, changes
the order of sums, and so now and then a token: that is a warning."""


def unfinished(arms: Sequence[Arm]) -> Iterator[str]:
    """Runs that did not answer all their problems, or were not summed up."""
    for arm in arms:
        if arm.run.complete:
            continue
        there, total = len(arm.run.outcomes), arm.run.expected
        why = (
            f"{there} of {total} completions are there. Those that are missing are not a random part"
            if there != total
            else "all completions are there, but it was ended before it wrote its summary"
        )
        place = arm.run.path
        yield f"{place} is unfinished: {why}. Go on with it: reasonvec evaluate ... --out {place} --resume"


def refusals(arm: Arm, other: Arm) -> Iterator[str]:
    """Why the outcomes of two arms cannot be paired, or their difference would not be the arms'."""
    names = (*SAME_PROBLEMS, *SAME_SAMPLING)
    differing = list(_differing(arm, other, names))
    if differing:
        yield f"{arm.run.path} and {other.run.path} differ in {'; '.join(differing)}"
    elif arm.run.complete and other.run.complete and (missing := _unpaired(arm, other)):
        yield missing


def sampling_refusals(arm: Arm, other: Arm) -> Iterator[str]:
    """The same for arms on problems that differ on purpose: a perturbation and the benchmark itself."""
    if differing := list(_differing(arm, other, SAME_SAMPLING)):
        yield f"{arm.run.path} and {other.run.path} differ in {'; '.join(differing)}"


def warnings(arm: Arm, baseline: Arm) -> Iterator[str]:
    """What may have moved the outcomes besides the arms' difference."""
    engine = {*arm.run.configuration["engine"], *baseline.run.configuration["engine"]} - {"name", "dtype"}
    if differing := list(_differing(arm, baseline, [("engine", name) for name in sorted(engine)])):
        yield (
            f"measured otherwise than its baseline: {'; '.join(differing)}. That alone flips some answers; measure "
            f"both alike, or look at a repeat of the baseline"
        )
    if arm.wording == baseline.wording:
        others = sum(
            outcomes[0].prompt_sha256 != baseline.problems[id][0].prompt_sha256 for id, outcomes in arm.problems.items()
        )
        if others:
            yield (
                f"{others} of {len(arm.problems)} problems reached the two models as different text, though the prompt "
                f"is the same: the chat templates differ, or the seed that orders options. The difference is that of "
                f"both"
            )


def _unpaired(arm: Arm, other: Arm) -> str | None:
    left, right = arm.problems, other.problems
    odd = sorted(left.keys() ^ right.keys()) or sorted(id for id in left if len(left[id]) != len(right[id]))
    if not odd:
        return None
    return (
        f"{arm.run.path} and {other.run.path} say that they hold the same problems, but {len(odd)} do not pair, first "
        f"{odd[0]}. One was changed by hand; measure it again"
    )


def _differing(arm: Arm, other: Arm, names: Sequence[tuple[str, str]]) -> Iterator[str]:
    for section, name in names:
        left, right = (one.run.configuration[section].get(name) for one in (arm, other))
        if left != right:
            yield f"{section}.{name} ({_short(left)}, {_short(right)})"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
