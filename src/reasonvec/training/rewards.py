"""Rewards for GRPO, as plain functions in TRL's signature; each is one of evaluation's graders."""

from collections.abc import Callable
from typing import Any

from reasonvec.evaluation.grading import Grader, grade_marked_answer, is_correct

RewardFunction = Callable[..., list[float]]
"""What TRL calls: completions, completion_ids and the data set's columns as keywords; one number a completion."""


def answer_reward(*, eos_token_id: int, grader: Grader = grade_marked_answer) -> RewardFunction:
    """1 for a completion that is right and ended by the model itself, else 0; the data set has a column `gold`."""

    def reward(
        *, completions: list[Any], completion_ids: list[list[int]], gold: list[str], **columns: object
    ) -> list[float]:
        return [
            float(is_correct(_text(completion), answer, finished=eos_token_id in ids, grader=grader))
            for completion, ids, answer in zip(completions, completion_ids, gold, strict=True)
        ]

    reward.__name__ = "right_answer"  # the name TRL logs
    return reward


def _text(completion: Any) -> str:
    """The text of a plain completion, or of the last message of a conversational one."""
    return str(completion if isinstance(completion, str) else completion[-1]["content"])
