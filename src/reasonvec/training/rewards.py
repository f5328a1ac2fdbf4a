"""Rewards for GRPO, as plain functions in TRL's signature: the grader that also measures, its cheap ways closed."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import UsageError
from reasonvec.evaluation.benchmarks import BenchmarkProblem
from reasonvec.evaluation.grading import Grader, grade, grade_marked_answer, is_correct
from reasonvec.evaluation.grading.marks import last_box

RewardFunction = Callable[..., list[float]]
"""What TRL calls: completions, completion_ids and the data set's columns as keywords; one number a completion."""

LEAST_WORKING = 2
"""Words or numbers besides the answer that have to stand before it: 3 + 4 = 7 has two. Rewarded without them, a model
learns to guess, and the vector carries the guessing."""
SLACK = 0.2
"""Part of the longest completion in which the length penalty grows from 0 to 1: DAPO's 4,096 of 20,480 tokens,
arXiv:2503.14476, section 3.4."""

_BOX = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_HASH = re.compile(r"#+([^#\n]*)")
_SAID = re.compile(r"\banswer is:?([^\n]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Task:
    """What rewards know besides the completions."""

    problems: Mapping[str, BenchmarkProblem]
    """By id; the data set has a column `id`."""
    ends: frozenset[int]
    """Ids of the tokens with which a model ends its answer."""
    longest: int
    """Tokens that a completion may have."""


def exact(task: Task) -> RewardFunction:
    """1 where the grader says right, the model ended its answer itself, worked it out and gave one answer; else 0."""

    def reward(
        *, completions: list[Any], completion_ids: list[list[int]], id: list[str], **columns: Any
    ) -> list[float]:
        return [
            float(_well_formed(task, _text(completion), ids) and grade(task.problems[name], _text(completion)).correct)
            for completion, ids, name in zip(completions, completion_ids, id, strict=True)
        ]

    return _named("exact", reward)


def format_(task: Task) -> RewardFunction:
    """1 for a completion that works, marks one answer and ends, whether or not it is right; else 0."""

    def reward(*, completions: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float]:
        texts = [_text(completion) for completion in completions]
        return [
            float(_well_formed(task, text, ids) and len(marked_answers(text)) == 1)
            for text, ids in zip(texts, completion_ids, strict=True)
        ]

    return _named("format", reward)


def length(task: Task) -> RewardFunction:
    """0 for a completion with room left, down to -1 for one as long as is allowed: DAPO's soft overlong punishment.

    Yu et al. 2025, arXiv:2503.14476, equation 13: with L the longest and C = SLACK * L, (L - C - n) / C above L - C.
    """
    slack = max(1.0, SLACK * task.longest)

    def reward(*, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [max(-1.0, min(0.0, (task.longest - slack - len(ids)) / slack)) for ids in completion_ids]

    return _named("length", reward)


REWARDS: Mapping[str, Callable[[Task], RewardFunction]] = {"exact": exact, "format": format_, "length": length}


def find_rewards(names: Sequence[str], task: Task) -> list[RewardFunction]:
    """The functions that `names` mean: of REWARDS, or `module:function`, which is imported and so has to be trusted.

    Raises UsageError for a name that is neither, and for one that is given twice.
    """
    if not names:
        raise UsageError(f"GRPO needs a --reward: {', '.join(REWARDS)} or your own MODULE:FUNCTION.")
    if len(set(names)) < len(names):
        raise UsageError(
            "A --reward is given twice. To weigh them, set reward_weights, one number each in their order."
        )
    return [REWARDS[name](task) if name in REWARDS else _own(name) for name in names]


def marked_answers(text: str) -> list[str]:
    """The different answers that a completion marks: in boxes, else by # or ####, else by `answer is`. Boxes with
    commas between them are one answer, as they are for the grader."""
    box = last_box(text)
    if box is not None:
        parts = {part.strip() for part in box.split(",")}
        found = [*(inner for inner in _BOX.findall(text) if inner.strip() not in parts | {box.strip()}), box]
    else:
        found = _HASH.findall(text) or _SAID.findall(text)
    tidied = [" ".join(answer.strip().rstrip(".").replace("$", "").split()) for answer in found]
    return list(dict.fromkeys(answer for answer in tidied if answer))


def answer_reward(*, eos_token_id: int, grader: Grader = grade_marked_answer) -> RewardFunction:
    """The lab's: 1 for a completion that is right and ended by the model itself, else 0; the column `gold` says."""

    def reward(
        *, completions: list[Any], completion_ids: list[list[int]], gold: list[str], **columns: object
    ) -> list[float]:
        return [
            float(is_correct(_text(completion), answer, finished=eos_token_id in ids, grader=grader))
            for completion, ids, answer in zip(completions, completion_ids, gold, strict=True)
        ]

    return _named("right_answer", reward)


def _well_formed(task: Task, text: str, ids: Sequence[int]) -> bool:
    """Ended, worked out, and not several different answers of which one may be right."""
    return bool(ids) and ids[-1] in task.ends and len(marked_answers(text)) <= 1 and _works(text)


def _works(text: str) -> bool:
    """Whether enough stands before the answer that is not the answer."""
    marks = [*_BOX.finditer(text)][:1] or [*_HASH.finditer(text)][:1] or [*_SAID.finditer(text)][-1:]
    before = text[: marks[0].start()] if marks else text.rpartition(" ")[0]
    answers = {word for answer in marked_answers(text) for word in re.findall(r"\w+", answer)}
    return len([word for word in re.findall(r"\w+", before) if word not in answers]) >= LEAST_WORKING


def _own(name: str) -> RewardFunction:
    module, colon, function = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise UsageError(f"{name!r} is no reward: there are {', '.join(REWARDS)}, and MODULE:FUNCTION for your own.")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)  # as `python -m` has it; the console script has not
    try:
        found = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise UsageError(f"The module of --reward {name} cannot be imported: {error}. It is looked for in {directory} "
                         f"and among the installed packages.") from error  # fmt: skip
    except AttributeError:
        raise UsageError(f"{module} has no {function}, which --reward {name} names.") from None
    if not callable(found):
        raise UsageError(f"{name} is no function but a {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def _named(name: str, reward: RewardFunction) -> RewardFunction:
    reward.__name__ = name  # the name TRL logs
    return reward


def _text(completion: Any) -> str:
    """The text of a plain completion, or of the last message of a conversational one."""
    return str(completion if isinstance(completion, str) else completion[-1]["content"])
