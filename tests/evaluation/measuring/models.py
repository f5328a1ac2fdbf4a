"""A checkpoint to measure in a test, and an engine whose answers are given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reasonvec.evaluation.engines.interface import Generated, Sampling
from tests.lab.tiny import tiny_checkpoint

QUESTIONS = (
    "start with 12, add 5, take away 8.",
    "start with 3, add 4.",
    "start with 30, take away 7, take away 7, add 1.",
    "Tom has 12. Tom gets 5 more. How many?",
    "start with 9, add 9, add 9.",
    "What is 2 + 2 ? Say it in words that are long enough to make this the longest of all the questions here.",
    "start with 1, add 1.",
)
GOLDS = (9, 7, 17, 17, 27, 4, 2)


class Scripted:
    """An engine that answers as told; notes what it was asked."""

    def __init__(self, answer: Callable[[str, int], Generated], *, batch_size: int = 2) -> None:
        self.batch_size = batch_size
        self.asked: list[tuple[str, ...]] = []
        self._answer = answer

    def describe(self) -> dict[str, Any]:
        return {"name": "scripted", "batch_size": self.batch_size}

    def generate(
        self, prompts: Sequence[str], *, sampling: Sampling, sample: int, stop: Sequence[str], chat: bool
    ) -> list[Generated]:
        self.asked.append(tuple(prompts))
        return [self._answer(prompt, sample) for prompt in prompts]

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [-float(len(continuation)) for _, continuation in pairs]


def says(text: str, *, tokens: int = 3, finished: bool = True) -> Callable[[str, int], Generated]:
    return lambda prompt, sample: Generated(text, tokens, finished)


def checkpoint(out: Path, *, seed: int = 0) -> Path:
    return tiny_checkpoint(out, seed=seed)


def but_length(warnings: Sequence[str]) -> list[str]:
    """Warnings but for the one that completions were cut off, as an untrained model's always are."""
    return [warning for warning in warnings if "were cut off at --max-new-tokens" not in warning]
