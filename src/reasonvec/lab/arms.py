"""The arms of the demo, and what results.json holds of them: accuracies, paired differences, examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.evaluation.grading import extract_marked_answer
from reasonvec.evaluation.outcomes import Outcome, Problem
from reasonvec.evaluation.statistics import exact_mcnemar, paired_difference
from reasonvec.lab.world import KINDS, problems

ALL = "all"
"""The kind of the pooled entries: every problem but the side tasks."""
SIDE_TASKS = "aux"

Measured = Mapping[str, Sequence[Outcome]]
"""Outcomes by arm, every arm on the same problems in the same order."""


@dataclass(frozen=True)
class Arm:
    """One way of answering the problems."""

    name: str
    group: str
    """donor, target, sweep or control."""
    checkpoint: Path
    alpha: float | None = None
    """How much of the vector was added; 0 for the target itself, None where the vector is not the real one."""


def sweep_name(alpha: float) -> str:
    """The name of the arm target + alpha v: `target+1.0v`, `target-0.5v`."""
    return f"target{alpha:+}v"


def draw_problems(seed: int, *, count: int) -> list[Problem]:
    """Every kind's held-out problems, one after the other."""
    return [problem for kind in KINDS for problem in problems(kind, seed, count=count)]


def accuracies(arms: Sequence[Arm], measured: Measured) -> list[dict[str, Any]]:
    """One entry an arm and kind: how many of how many were right, held an answer, and ended before the length limit."""
    return [
        {
            "arm": arm.name,
            "kind": kind,
            "n": len(outcomes),
            "correct": sum(outcome.correct for outcome in outcomes),
            "answered": sum(map(_answered, outcomes)),
            "finished": sum(outcome.finished for outcome in outcomes),
            "alpha": arm.alpha,
            "group": arm.group,
        }
        for arm in arms
        for kind, outcomes in _by_kind(measured[arm.name]).items()
    ]


def differences(arms: Sequence[Arm], measured: Measured) -> list[dict[str, Any]]:
    """One entry a kind for every arm against the target, for GRPO against SFT, and SFT against the ancestor."""
    pairs = [(arm.name, "target") for arm in arms if arm.group in ("sweep", "control")]
    pairs += [("grpo", "sft"), ("sft", "ancestor"), ("target", "ancestor")]
    return [
        _difference(arm, baseline, kind, _by_kind(measured[arm])[kind], outcomes)
        for arm, baseline in pairs
        for kind, outcomes in _by_kind(measured[baseline]).items()
    ]


def kinds() -> list[dict[str, Any]]:
    """What is said of each kind, with a problem as an example (of a seed that no run uses)."""
    return [
        {
            "name": kind.name,
            "title": kind.title,
            "description": kind.description,
            "seen_by_donors": kind.seen_by_donors,
            "seen_by_target": kind.seen_by_target,
            "example": problems(kind, -1, count=1)[0].prompt,
        }
        for kind in KINDS
    ]


def examples(arms: Sequence[Arm], measured: Measured, enhanced: str) -> list[dict[str, Any]]:
    """Of every kind the first problem, in the order drawn, to which target and enhanced model write different answers.

    So gains and losses both appear; a kind where nothing differs is left out.
    """
    found: dict[str, int] = {}
    for index, (before, after) in enumerate(zip(measured["target"], measured[enhanced], strict=True)):
        if before.completion != after.completion:
            found.setdefault(before.problem.kind, index)
    shown = [arm.name for arm in arms if arm.group in ("donor", "target") or arm.alpha in (-1.0, 0.5, 1.0, 2.0)]
    return [
        {
            "kind": kind,
            "problem": measured["target"][index].problem.prompt,
            "gold": measured["target"][index].problem.gold,
            "completions": {name: measured[name][index].completion for name in shown},
            "correct": {name: measured[name][index].correct for name in shown},
        }
        for kind, index in found.items()
    ]


def _by_kind(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes in the problems' order, by kind, and pooled."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.problem.kind, []).append(outcome)
    found[ALL] = [outcome for outcome in outcomes if outcome.problem.kind != SIDE_TASKS]
    return found


def _difference(
    arm: str, baseline: str, kind: str, after: Sequence[Outcome], before: Sequence[Outcome]
) -> dict[str, Any]:
    if [outcome.problem for outcome in after] != [outcome.problem for outcome in before]:
        raise ValueError(
            f"{arm} and {baseline} did not answer the same problems of kind {kind}; nothing can be paired."
        )
    difference = paired_difference([outcome.correct for outcome in after], [outcome.correct for outcome in before])
    answered = [(_answered(new), _answered(old)) for new, old in zip(after, before, strict=True)]
    both = [(new.correct, old.correct) for new, old, pair in zip(after, before, answered, strict=True) if all(pair)]
    return {
        "arm": arm,
        "baseline": baseline,
        "kind": kind,
        "n": difference.n,
        "gained": difference.gained,
        "lost": difference.lost,
        "points": round(difference.points, 4),
        "low": round(difference.low, 4),
        "high": round(difference.high, 4),
        "p": difference.p,
        "detectable": None if difference.detectable is None else round(difference.detectable, 4),
        "answered_p": exact_mcnemar(gained=answered.count((True, False)), lost=answered.count((False, True))),
        "answered_by_both": round(100 * sum(new - old for new, old in both) / len(both), 4) if both else None,
    }


def _answered(outcome: Outcome) -> bool:
    return extract_marked_answer(outcome.completion) is not None
